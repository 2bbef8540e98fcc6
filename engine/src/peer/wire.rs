//! The bytes of a frame's headers: fixed widths, little-endian.

use super::error::FrameError;

/// `HWPF`.
pub(super) const MAGIC: [u8; 4] = *b"HWPF";
/// The version written here.
pub(super) const VERSION: u16 = 1;
/// In the flags of the header: the sender knows beats that are repeated by number
/// ([`tag::KEPT_BEATS`] and on). Who does not takes no notice of flags.
pub(super) const FLAG_KNOWS_REPEATS: u16 = 1;
/// Bytes before the first section.
pub(super) const HEADER_BYTES: usize = 96;

/// What a section is.
pub(super) mod tag {
    pub(crate) const PRE_VOTE: u8 = 1;
    pub(crate) const PRE_VOTE_REPLY: u8 = 2;
    pub(crate) const VOTE: u8 = 3;
    pub(crate) const VOTE_REPLY: u8 = 4;
    pub(crate) const APPEND: u8 = 5;
    pub(crate) const APPEND_REPLY: u8 = 6;
    pub(crate) const BASE: u8 = 7;
    pub(crate) const TIMEOUT_NOW: u8 = 8;
    pub(crate) const BEATS: u8 = 9;
    pub(crate) const BEAT_ANSWERS: u8 = 10;
    pub(crate) const LEADERS: u8 = 11;
    pub(crate) const SERVICE: u8 = 12;
    pub(crate) const WANTED: u8 = 13;
    pub(crate) const SUPPLY: u8 = 14;
    pub(crate) const KEPT_BEATS: u8 = 15;
    pub(crate) const REPEAT: u8 = 16;
    pub(crate) const REPEAT_ANSWER: u8 = 17;
}

/// What came of an append.
pub(super) mod outcome {
    pub(crate) const ACCEPTED: u8 = 1;
    pub(crate) const CONFLICT: u8 = 2;
    pub(crate) const BUSY: u8 = 3;
    pub(crate) const STALE: u8 = 4;
}

/// Bytes of a repeated element, against which counts are checked before anything is allocated.
pub(super) mod width {
    pub(crate) const ENTRY: usize = 48;
    pub(crate) const EPOCH: usize = 20;
    pub(crate) const ROW: usize = 28;
    pub(crate) const RUN: usize = 8;
    pub(crate) const EXCEPTION: usize = 9;
    pub(crate) const LEADER: usize = 16;
}

/// Appends numbers.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A count or length; frames stay far below 2^32 bytes.
    fn put_len(&mut self, len: usize) {
        self.put_u32(u32::try_from(len).expect("a frame has fewer than 2^32 of anything"));
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes numbers off the front of bytes, or says that there are none.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// How many elements of `width` bytes follow; refused if they cannot.
    pub(super) fn count(&mut self, width: usize) -> Result<usize, FrameError> {
        let count = usize::try_from(self.u32()?).map_err(|_| TOO_SHORT)?;
        match count.checked_mul(width) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(TOO_SHORT),
        }
    }
}

pub(super) const TOO_SHORT: FrameError = FrameError::Length { what: "too short" };
pub(super) const TOO_LONG: FrameError = FrameError::Length { what: "too long" };

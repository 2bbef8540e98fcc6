//! Reading and writing little-endian fields.

/// Takes fields from the front of bytes that may be too short.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Takes `count` bytes that must be zero.
    pub(super) fn zeros(&mut self, count: usize) -> Option<()> {
        self.take(count)?
            .iter()
            .all(|&byte| byte == 0)
            .then_some(())
    }

    /// A number of items of `item` bytes each, if that many bytes are there: nothing is
    /// allocated by a count that cannot be true.
    pub(super) fn count(&self, claimed: u32, item: usize) -> Option<usize> {
        let count = usize::try_from(claimed).ok()?;
        let bytes = count.checked_mul(item)?;
        (bytes <= self.remaining()).then_some(count)
    }
}

/// Appends fields to bytes.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&value.to_le_bytes());
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

    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A count or length as the formats write it.
///
/// # Panics
///
/// If it is above `u32::MAX`: every length here has a smaller named limit.
pub(super) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths of the formats have limits far below 2^32")
}

/// CRC-32/IEEE.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Stamps the checksum of the bytes behind the first four into the first four.
pub(super) fn seal_front_crc(bytes: &mut [u8]) {
    let crc = crc32(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the first four bytes are the checksum of the others.
pub(super) fn front_crc_holds(bytes: &[u8]) -> bool {
    match bytes.split_first_chunk::<4>() {
        Some((crc, rest)) => u32::from_le_bytes(*crc) == crc32(rest),
        None => false,
    }
}

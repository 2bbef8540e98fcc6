//! The body of a `begin` frame, the first of each file (docs/format.md, Frames).

use highwater_record::{Buffer, Offset, crc32c};

use super::FormatFault;
use super::bytes::{Put, Reader, len_u32};
use super::frame::{FrameHeader, FrameKind};
use crate::config::SNAPSHOT_BYTES_MAX;
use crate::entry::{Epoch, Position};
use crate::ids::{Chain, EntryId, LogIndex, Term};

/// How many epochs a base or a footer can carry: a hundred thousand leaders.
pub const EPOCHS_MAX: usize = 100_000;

/// The length of an epoch on disk, in bytes.
pub(crate) const EPOCH_LEN: usize = 24;

const FIXED_LEN: usize = 56;

/// Why a file was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The file below was full or old.
    Roll,
    /// Hides everything at or above the first index in lower files.
    Cut,
    /// Hides everything in lower files.
    Base,
}

impl Reason {
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Reason::Roll => 1,
            Reason::Cut => 2,
            Reason::Base => 3,
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Reason> {
        match byte {
            1 => Some(Reason::Roll),
            2 => Some(Reason::Cut),
            3 => Some(Reason::Base),
            _ => None,
        }
    }
}

/// What a file's first frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Why the file was begun.
    pub reason: Reason,
    /// Where its entries start.
    pub start: Position,
    /// The log start offset when it was begun.
    pub log_start_offset: Offset,
    /// A base's epoch history; else empty.
    pub epochs: Vec<Epoch>,
    /// A base's state; else empty.
    pub state: Buffer,
}

impl Begin {
    /// How long the frame's body is.
    #[must_use]
    pub fn body_len(&self) -> usize {
        FIXED_LEN + self.epochs.len() * EPOCH_LEN + self.state.len()
    }

    /// The frame's body as it lies on disk.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body_len());
        bytes.put_u8(self.reason.to_byte());
        bytes.put(&[0; 3]);
        bytes.put_u32(self.start.before.term.0);
        bytes.put_u64(self.start.first().0);
        bytes.put_u64(self.start.offset.0);
        bytes.put_u64(self.start.before.index.0);
        bytes.put_u64(self.start.chain.0);
        bytes.put_u64(self.log_start_offset.0);
        bytes.put_u32(len_u32(self.epochs.len()));
        bytes.put_u32(len_u32(self.state.len()));
        put_epochs(&mut bytes, &self.epochs);
        bytes.put(&self.state);
        bytes
    }

    /// The frame's header, for a body from [`encode_body`](Begin::encode_body).
    #[must_use]
    pub fn header(&self, salt: u64, body: &[u8]) -> FrameHeader {
        FrameHeader {
            body_crc: crc32c(body),
            body_len: len_u32(body.len()),
            kind: FrameKind::Begin,
            salt,
            index: self.start.first(),
            term: self.start.before.term,
            offset_span: 0,
            base_offset: self.start.offset,
            chain: self.start.chain,
            watermark_lag: 1,
            append_time: 0,
        }
    }

    /// Reads a body whose checksum holds, and compares it with its header.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if it is no `begin`, or not this header's.
    pub fn decode(header: &FrameHeader, body: &[u8]) -> Result<Begin, FormatFault> {
        let begin = Begin::fields(body).ok_or(FormatFault::Bad)?;
        let expected = begin.header(header.salt, body);
        if *header == expected {
            Ok(begin)
        } else {
            Err(FormatFault::Bad)
        }
    }

    fn fields(body: &[u8]) -> Option<Begin> {
        let mut reader = Reader::new(body);
        let reason = Reason::from_byte(reader.u8()?)?;
        reader.zeros(3)?;
        let before_term = Term(reader.u32()?);
        let first = LogIndex(reader.u64()?);
        let offset = Offset(reader.u64()?);
        let before = LogIndex(reader.u64()?);
        let chain = Chain(reader.u64()?);
        let log_start_offset = Offset(reader.u64()?);
        let epochs = reader.u32()?;
        let state = reader.u32()?;
        let epochs = take_epochs(&mut reader, epochs)?;
        let state_len = usize::try_from(state).ok()?;
        if state_len > SNAPSHOT_BYTES_MAX || reader.remaining() != state_len {
            return None;
        }
        if before.0.checked_add(1)? != first.0 || log_start_offset > Offset::MAX {
            return None;
        }
        if reason != Reason::Base && (!epochs.is_empty() || state_len > 0) {
            return None;
        }
        Some(Begin {
            reason,
            start: Position {
                before: EntryId {
                    index: before,
                    term: before_term,
                },
                chain,
                offset,
            },
            log_start_offset,
            epochs,
            state: Buffer::from(reader.take(state_len)?.to_vec()),
        })
    }
}

pub(super) fn put_epochs(bytes: &mut Vec<u8>, epochs: &[Epoch]) {
    for epoch in epochs {
        bytes.put_u32(epoch.term.0);
        bytes.put_u32(0);
        bytes.put_u64(epoch.first_index.0);
        bytes.put_u64(epoch.first_offset.0);
    }
}

/// Reads an epoch history, which ascends strictly in term and index and never descends in
/// offset.
pub(super) fn take_epochs(reader: &mut Reader<'_>, claimed: u32) -> Option<Vec<Epoch>> {
    let count = reader.count(claimed, EPOCH_LEN)?;
    if count > EPOCHS_MAX {
        return None;
    }
    let mut epochs: Vec<Epoch> = Vec::with_capacity(count);
    for _ in 0..count {
        let term = Term(reader.u32()?);
        reader.zeros(4)?;
        let epoch = Epoch {
            term,
            first_index: LogIndex(reader.u64()?),
            first_offset: Offset(reader.u64()?),
        };
        let ascends = epochs.last().is_none_or(|last| {
            last.term < epoch.term
                && last.first_index < epoch.first_index
                && last.first_offset <= epoch.first_offset
        });
        if !ascends || epoch.term > Term::MAX {
            return None;
        }
        epochs.push(epoch);
    }
    Some(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Begin {
        Begin {
            reason: Reason::Base,
            start: Position {
                before: EntryId {
                    index: LogIndex(9),
                    term: Term(2),
                },
                chain: Chain(0xab),
                offset: Offset(30),
            },
            log_start_offset: Offset(25),
            epochs: vec![
                Epoch {
                    term: Term(1),
                    first_index: LogIndex(1),
                    first_offset: Offset(0),
                },
                Epoch {
                    term: Term(2),
                    first_index: LogIndex(4),
                    first_offset: Offset(20),
                },
            ],
            state: Buffer::from(b"state".to_vec()),
        }
    }

    fn cut() -> Begin {
        Begin {
            reason: Reason::Cut,
            epochs: Vec::new(),
            state: Buffer::new(),
            ..base()
        }
    }

    #[test]
    fn golden_body() {
        let mut expected = vec![3, 0, 0, 0, 2, 0, 0, 0];
        for number in [10u64, 30, 9, 0xab, 25] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[2, 0, 0, 0, 5, 0, 0, 0]);
        for (term, index, offset) in [(1u64, 1u64, 0u64), (2, 4, 20)] {
            expected.extend_from_slice(&term.to_le_bytes());
            expected.extend_from_slice(&index.to_le_bytes());
            expected.extend_from_slice(&offset.to_le_bytes());
        }
        expected.extend_from_slice(b"state");
        assert_eq!(base().encode_body(), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        for begin in [base(), cut()] {
            let body = begin.encode_body();
            let header = begin.header(77, &body);
            assert_eq!(header.index, LogIndex(10));
            assert_eq!(header.watermark(), Some(LogIndex(9)));
            assert_eq!(Begin::decode(&header, &body), Ok(begin));
        }
    }

    #[test]
    fn header_and_body_must_agree() {
        let body = cut().encode_body();
        let header = cut().header(77, &body);
        let lies: [fn(&mut FrameHeader); 5] = [
            |header| header.index = LogIndex(11),
            |header| header.chain = Chain(1),
            |header| header.term = Term(9),
            |header| header.base_offset = Offset(1),
            |header| header.watermark_lag = 2,
        ];
        for lie in lies {
            let mut other = header;
            lie(&mut other);
            assert_eq!(Begin::decode(&other, &body), Err(FormatFault::Bad));
        }
    }

    #[test]
    fn hostile_bodies_are_bad() {
        let body = base().encode_body();
        for len in 0..body.len() {
            assert_eq!(Begin::fields(&body[..len]), None, "{len} bytes");
        }
        let mut many = body.clone();
        many[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Begin::fields(&many), None);
        let mut descending = body;
        descending[80] = 1;
        assert_eq!(Begin::fields(&descending), None);
        let with_state = Begin {
            reason: Reason::Roll,
            ..base()
        };
        assert_eq!(Begin::fields(&with_state.encode_body()), None);
    }
}

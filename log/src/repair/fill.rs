//! Frames for a gap, from entries that another replica has.

use highwater_record::{Offset, crc32c};

use super::{Behind, Gap};
use crate::entry::{Entry, Epoch, Position};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_LEN, LAG_NONE};
use crate::ids::{EntryId, GroupId, LogIndex};
use crate::points::Points;
use crate::scan::{continues, position_after, timestamp_of};

/// Why what came is not what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// Nothing is asked for, or something else.
    #[error("entry {index} is not what is asked for")]
    NotAsked {
        /// What came.
        index: LogIndex,
    },
    /// Its checksum does not hold, or it does not continue the log before the hole.
    #[error("entry {index} does not continue the log")]
    Foreign {
        /// What came.
        index: LogIndex,
    },
    /// The chain over what came does not lead to what lies behind the hole: the replica that
    /// sent it has another history.
    #[error("the entries through {last} do not lead to what lies behind the hole")]
    Diverged {
        /// The last entry of the hole.
        last: LogIndex,
    },
}

/// A gap that is being filled, front to back.
#[derive(Debug)]
pub(crate) struct Filler {
    group: GroupId,
    salt: u64,
    gap: Gap,
    /// Behind the last entry that came.
    at: Position,
    /// Where the next frame goes.
    position: u64,
    /// Frames that were not taken yet, and where they go: ascending, one behind the other.
    start: u64,
    bytes: Vec<u8>,
    /// The terms that begin in the gap, as far as it is filled.
    epochs: Vec<Epoch>,
    /// The place behind each entry that came.
    filled: Vec<Position>,
    /// Where some of them lie.
    points: Points,
}

impl Filler {
    /// For a gap in a file of `size` bytes.
    pub(crate) fn new(group: GroupId, salt: u64, size: u64, gap: Gap) -> Filler {
        Filler {
            group,
            salt,
            at: gap.before,
            position: gap.from,
            start: gap.from,
            bytes: Vec::new(),
            epochs: Vec::new(),
            filled: Vec::new(),
            points: Points::new(size),
            gap,
        }
    }

    /// The entries that are missing still, first and last; nothing if the gap is filled.
    pub(crate) fn missing(&self) -> Option<(LogIndex, LogIndex)> {
        let first = self.at.first();
        (first <= self.gap.last).then_some((first, self.gap.last))
    }

    /// Behind the last byte that is filled.
    pub(crate) const fn filled_to(&self) -> u64 {
        self.position
    }

    pub(crate) const fn gap(&self) -> &Gap {
        &self.gap
    }

    /// The terms that begin in the gap, or with the entry behind it.
    pub(crate) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The place behind each entry that filled it.
    pub(crate) fn filled(&self) -> &[Position] {
        &self.filled
    }

    /// Where they lie.
    pub(crate) const fn points(&self) -> &Points {
        &self.points
    }

    fn note_term(&mut self, id: EntryId, offset: Offset) {
        if id.term > self.at.before.term {
            self.epochs.push(Epoch {
                term: id.term,
                first_index: id.index,
                first_offset: offset,
            });
        }
    }

    /// Takes the next entry.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), FillError> {
        let index = entry.id.index;
        let is_asked = self.missing().is_some_and(|(first, _)| first == index);
        if !is_asked {
            return Err(FillError::NotAsked { index });
        }
        let header = self.header(entry).ok_or(FillError::Foreign { index })?;
        let end = self.position + u64_of(header.frame_len());
        if self.gap.to.is_some_and(|to| end > to) {
            return Err(FillError::Foreign { index });
        }
        self.note_term(entry.id, entry.base_offset);
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(&entry.body);
        let padding = header.frame_len() - HEADER_LEN - header.body_len();
        self.bytes.resize(self.bytes.len() + padding, 0);
        let timestamp = timestamp_of(entry.kind, &entry.body, entry.append_time);
        self.points.push(&header, self.position, timestamp);
        self.position = end;
        self.at = position_after(&header);
        self.filled.push(self.at);
        if self.missing().is_some() {
            return Ok(());
        }
        if !self.fits() {
            return Err(FillError::Diverged { last: index });
        }
        if let Behind::Frame(behind) = self.gap.behind {
            self.note_term(behind.id(), behind.base_offset);
        }
        Ok(())
    }

    /// The frames from `from` on, as far as they go up to `to`; what lies before is forgotten.
    pub(crate) fn overlay(&mut self, from: u64, to: u64) -> (u64, &[u8]) {
        let passed = usize_of(from.saturating_sub(self.start)).min(self.bytes.len());
        self.bytes.drain(..passed);
        self.start += u64_of(passed);
        let len = usize_of(to.saturating_sub(self.start)).min(self.bytes.len());
        (self.start, &self.bytes[..len])
    }

    /// The header that the entry had. Where the one on disk still holds, it is taken as it is,
    /// with what it claims; else it claims nothing.
    fn header(&self, entry: &Entry) -> Option<FrameHeader> {
        let mut header = FrameHeader {
            body_crc: entry.body_crc,
            body_len: u32::try_from(entry.body.len()).ok()?,
            kind: FrameKind::from(entry.kind),
            salt: self.salt,
            index: entry.id.index,
            term: entry.id.term,
            offset_span: entry.offset_span,
            base_offset: entry.base_offset,
            chain: entry.chain,
            watermark_lag: LAG_NONE,
            append_time: entry.append_time,
        };
        let holds = continues(&header, self.group, &self.at);
        if !holds || crc32c(&entry.body) != entry.body_crc {
            return None;
        }
        let mut found = self.gap.headers.iter();
        let kept = found.find(|(at, _)| *at == self.position);
        if let Some((_, kept)) = kept.filter(|(_, kept)| is_same(kept, &header)) {
            header.watermark_lag = kept.watermark_lag;
        }
        Some(header)
    }

    /// Whether what has filled the gap leads to what lies behind it.
    fn fits(&self) -> bool {
        let ends_there = self.gap.to.is_none_or(|to| to == self.position);
        ends_there
            && match &self.gap.behind {
                Behind::Frame(header) => continues(header, self.group, &self.at),
                Behind::End(end) => *end == self.at,
            }
    }
}

fn is_same(kept: &FrameHeader, header: &FrameHeader) -> bool {
    FrameHeader {
        watermark_lag: header.watermark_lag,
        ..*kept
    } == *header
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

//! A file of a group, as it is known in memory.

use crate::entry::Position;
use crate::format::begin::Reason;
use crate::format::footer::FooterOf;
use crate::group::written::WrittenSums;
use crate::ids::{GroupId, LogIndex, Sequence};
use crate::points::Points;
use crate::storage::{FileId, Mapping};
use std::sync::{Arc, Weak};

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// It may still be written.
    Active,
    /// Full or left; waits for its seal.
    Closed,
    /// Has its footer, and never changes again.
    Sealed,
}

/// A file that holds entries of the log.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) group: GroupId,
    pub(crate) sequence: Sequence,
    pub(crate) salt: u64,
    /// Where its first frame starts.
    pub(crate) first_frame: u64,
    /// Its length in bytes; of a sealed file the one that it was made with.
    pub(crate) len: u64,
    /// Whether it was another file before.
    pub(crate) recycled: bool,
    /// Why it was begun.
    pub(crate) reason: Reason,
    /// Where its entries start.
    pub(crate) start: Position,
    /// The end of its last entry that is not hidden.
    pub(crate) end: Position,
    /// Where its entries lie.
    pub(crate) points: Points,
    /// Behind the last byte that was ever written into it.
    pub(crate) written_end: u64,
    pub(crate) state: SegmentState,
    /// Whether it is protected from being written.
    pub(crate) protected: bool,
    /// Open for reading, and for writing unless it is protected.
    pub(crate) file: Option<FileId>,
    /// Mapped, if it is sealed and was read.
    pub(crate) mapping: Option<Arc<dyn Mapping>>,
    /// All mappings of it that may be alive, those that only readers hold among them.
    pub(crate) mapped: Vec<Weak<dyn Mapping>>,
    /// When it was last read, as the store counts reads.
    pub(crate) last_read: u64,
    /// The entry that the newest snapshot in its footer includes.
    pub(crate) snapshot_at: Option<LogIndex>,
    /// Whether its owner was told that it is closed.
    pub(crate) announced: bool,
    /// What its footer is to say, if this life has written all of it and it waits for its seal.
    pub(crate) sums: Option<WrittenSums>,
}

impl Segment {
    /// Its last entry that is not hidden; the one before its first if there is none.
    pub(crate) const fn last(&self) -> LogIndex {
        self.end.before.index
    }

    /// Whether it holds an entry.
    pub(crate) fn holds(&self, index: LogIndex) -> bool {
        self.start.before.index < index && index <= self.last()
    }

    /// Where the frame of its first entry starts, if that is known.
    pub(crate) fn first_entry_at(&self) -> Option<u64> {
        let first = self.points.as_slice().first()?;
        let is_it = first.index == self.start.first() && first.position > self.first_frame;
        is_it.then_some(first.position)
    }

    /// Hides entries from the one behind `end` on.
    pub(crate) fn hide_behind(&mut self, end: &Position) {
        if self.last() > end.before.index {
            self.end = *end;
            self.points.cut(end.before.index.next());
        }
    }

    /// It is mapped, and kept so.
    pub(crate) fn keep_mapped(&mut self, mapping: &Arc<dyn Mapping>) {
        self.mapped.retain(|mapping| mapping.strong_count() > 0);
        self.mapped.push(Arc::downgrade(mapping));
        self.mapping = Some(Arc::clone(mapping));
    }

    /// The log lets go of it. Its length, if it can be made another file then: no reader has it
    /// mapped. At least so long, for a sealed one ends with its footer.
    pub(crate) fn spare_len(&mut self) -> Option<u64> {
        self.mapping = None;
        let len = match self.state {
            SegmentState::Sealed => self.written_end,
            SegmentState::Active | SegmentState::Closed => self.len,
        };
        let mut mapped = self.mapped.iter();
        mapped.all(|it| it.strong_count() == 0).then_some(len)
    }

    /// A repaired copy has taken its place. Gives the open file that is of no use any more.
    pub(crate) fn take_copy(&mut self, written_end: u64, len: u64) -> Option<FileId> {
        self.mapping = None;
        self.sums = None;
        if self.state != SegmentState::Sealed {
            self.written_end = self.written_end.max(written_end);
            self.len = len;
            self.protected = false;
        }
        self.file.take()
    }

    /// The end of its entries was bad, and is not any more.
    pub(crate) fn reach(&mut self, end: Position) {
        if self.state != SegmentState::Sealed {
            self.end = self.end.max(end);
        }
    }

    /// Whose its footer is.
    pub(crate) const fn footer_of(&self) -> FooterOf {
        FooterOf {
            salt: self.salt,
            sequence: self.sequence,
            group: self.group,
        }
    }
}

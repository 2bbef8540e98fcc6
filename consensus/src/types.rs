//! The numbers of Raft, a type for each, and what an entry looks like from here.

use std::fmt;

/// A node of the cluster. Its meaning (address, incarnation) belongs to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A term (paper, section 5.1): 0 before the first election, at most [`Term::MAX`].
///
/// Kafka carries it as a signed 32-bit leader epoch, hence the bound; a larger one cannot be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u32);

impl Term {
    /// The term before any election.
    pub const ZERO: Term = Term(0);
    /// The last term that there can be.
    pub const MAX: Term = Term(i32::MAX as u32);

    /// The term of this number, or `None` above [`Term::MAX`].
    pub const fn new(value: u32) -> Option<Term> {
        if value <= Self::MAX.0 {
            Some(Term(value))
        } else {
            None
        }
    }

    /// Its number, at most `i32::MAX`.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The term that follows, or `None` after [`Term::MAX`].
    pub const fn next(self) -> Option<Term> {
        Term::new(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// The place of an entry in its group's log: the first is 1; 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The place before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);
    /// No log gets as far as this; a peer that names a later one is not believed. So adding to
    /// an index never overflows.
    pub const MAX: LogIndex = LogIndex(1 << 62);

    /// The index that follows.
    #[must_use]
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The index `count` places further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> LogIndex {
        LogIndex(self.0 + count)
    }

    /// The index before this one; that of 0 is 0.
    #[must_use]
    pub const fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// How many entries lie behind `self` up to and with `later`; 0 if `later` is not later.
    pub const fn distance_to(self, later: LogIndex) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An entry's identity: two entries of a group with the same index and term are the same entry,
/// and so are all before them (Log Matching, paper section 5.3).
///
/// [`EntryId::ZERO`] names the place before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Its place.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
}

impl EntryId {
    /// The place before the first entry.
    pub const ZERO: EntryId = EntryId {
        index: LogIndex::ZERO,
        term: Term::ZERO,
    };

    /// Whether a log that ends here is at least as up-to-date as one that ends in `other`:
    /// the later last term wins, and the longer log among equal ones (paper, section 5.4.1).
    pub fn is_up_to_date_with(self, other: EntryId) -> bool {
        if mutant!("longer log wins over later term") {
            return (self.index, self.term) >= (other.index, other.term);
        }
        (self.term, self.index) >= (other.term, other.index)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What kind of entry it is; consensus treats all alike, but for making the [`EntryKind::Noop`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A batch of records.
    Data,
    /// What a new leader appends so that it can commit in its term (thesis, section 6.4).
    Noop,
    /// Moves the start of the log; the driver applies it and calls
    /// [`Raft::handle_log_start`](crate::Raft::handle_log_start).
    LogStart,
    /// Another entry of the driver's own, without an offset.
    Control,
}

/// All that consensus sees of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryMeta {
    /// Index and term.
    pub id: EntryId,
    /// Its kind.
    pub kind: EntryKind,
    /// Bytes that it takes on the way to a follower; windows and limits count these.
    pub size: u32,
}

/// An entry as the driver proposes it, before it has an index and a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposedEntry {
    /// Its kind, any but [`EntryKind::Noop`].
    pub kind: EntryKind,
    /// Bytes, see [`EntryMeta::size`].
    pub size: u32,
}

/// A write to the group's log or hard state, in the order in which they were put out.
///
/// Cumulative: "`w` is persisted" says that every write up to `w` is durable. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

impl WriteId {
    /// Before the first write.
    pub const ZERO: WriteId = WriteId(0);

    /// The write after this one.
    #[must_use]
    pub const fn next(self) -> WriteId {
        WriteId(self.0 + 1)
    }
}

/// One life of a link between two nodes, the same number at both ends and never used again
/// between the same two lives. Within it a lane delivers in order; between lanes nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// The number of a beat frame to one peer; the driver counts them upwards, per peer or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BeatRound(pub u64);

/// The number of an attempt to read, never used twice in the life of a [`Raft`](crate::Raft).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u32, index: u64) -> EntryId {
        EntryId {
            index: LogIndex(index),
            term: Term::new(term).unwrap(),
        }
    }

    #[test]
    fn a_term_beyond_i32_is_refused() {
        assert_eq!(Term::new(i32::MAX as u32), Some(Term::MAX));
        assert_eq!(Term::new(i32::MAX as u32 + 1), None);
        assert_eq!(Term::new(u32::MAX), None);
        assert_eq!(Term::MAX.next(), None);
    }

    #[test]
    fn p05_up_to_date_is_lexicographic_by_term_then_index() {
        assert!(entry(2, 1).is_up_to_date_with(entry(1, 2)));
        assert!(!entry(1, 2).is_up_to_date_with(entry(2, 1)));
        assert!(entry(2, 3).is_up_to_date_with(entry(2, 2)));
        assert!(!entry(2, 2).is_up_to_date_with(entry(2, 3)));
        assert!(entry(2, 2).is_up_to_date_with(entry(2, 2)));
    }
}

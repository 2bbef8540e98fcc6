//! Names and positions of the log, a type for each.
//!
//! `consensus` has types of its own for the same ideas; the engine converts between them. Here
//! they are stored and compared, never interpreted.

use std::fmt;

/// A group: one replicated log, one partition. Given out by the controller, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupId(pub u64);

/// An entry's place in its log: from 1, one more for each entry, inclusive, as in the Raft
/// paper. 0 is the place before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// Before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);

    /// The index after this one.
    ///
    /// # Panics
    ///
    /// If there is none: indexes stay far below 2^64.
    #[must_use]
    pub fn next(self) -> LogIndex {
        self.advance(1)
    }

    /// The index `count` later.
    ///
    /// # Panics
    ///
    /// As [`next`](LogIndex::next).
    #[must_use]
    pub fn advance(self, count: u64) -> LogIndex {
        LogIndex(
            self.0
                .checked_add(count)
                .expect("log indexes stay below 2^64"),
        )
    }

    /// The index before this one; 0 before 0.
    #[must_use]
    pub const fn before(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// How many entries lie from this index up to, not including, `later`; 0 if `later` is not
    /// later.
    #[must_use]
    pub const fn distance_to(self, later: LogIndex) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// A term of office; Kafka's leader epoch. At most `i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u32);

impl Term {
    /// The last term that Kafka's `i32` can say. A larger one is refused.
    pub const MAX: Term = Term(i32::MAX.unsigned_abs());
}

/// A node's number in the cluster, as votes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u32);

/// Which entry: its index and the term it was proposed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Where it lies.
    pub index: LogIndex,
    /// When it was proposed.
    pub term: Term,
}

impl EntryId {
    /// Before the first entry of a log.
    pub const ZERO: EntryId = EntryId {
        index: LogIndex(0),
        term: Term(0),
    };
}

/// One of a group's writes, named by whoever asked for it; ascending per group over appends,
/// cuts, bases and hard states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WriteId(pub u64);

/// A hash over everything replicated of an entry and of all entries before it. Two replicas
/// with equal chains at an index have equal logs up to there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Chain(pub u64);

impl Chain {
    /// Before the first entry of a log.
    pub const ZERO: Chain = Chain(0);
}

/// A file's number in its group, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// A group's first file.
    pub const FIRST: Sequence = Sequence(1);

    /// The file after this one.
    ///
    /// # Panics
    ///
    /// If there is none: a group never makes 2^64 files.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0.checked_add(1).expect("sequences stay below 2^64"))
    }
}

/// The cluster that a data directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub [u8; 16]);

/// A random number made when a data directory is formatted: the same node number with another
/// incarnation is another member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub [u8; 16]);

/// What a caller calls a read; comes back with its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! display_as_number {
    ($($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })*
    };
}

display_as_number!(GroupId, LogIndex, Term, NodeId, WriteId, Sequence, Ticket);

macro_rules! display_as_hex {
    ($($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        })*
    };
}

display_as_hex!(ClusterId, Incarnation);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} of term {}", self.index, self.term)
    }
}

//! Why a call was refused.

use highwater_record::Offset;

use crate::ids::{Chain, GroupId, LogIndex, Term, WriteId};
use crate::storage::StorageError;

/// A data directory could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory was never formatted; `init` does that, `start` never.
    #[error("the data directory is not formatted: it has no identity file")]
    NotFormatted,
    /// The identity file is damaged. Restore it, or replace the node under a new incarnation.
    #[error("the identity file of the data directory is damaged")]
    BadIdentity,
    /// The directory belongs to another cluster or node.
    #[error("the data directory belongs to {found}, expected {expected}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A newer program wrote this. Nothing was changed.
    #[error("{path}: format version {found} is newer than {known}, the last one known here")]
    Version {
        /// Which file.
        path: String,
        /// Its version.
        found: u16,
        /// The newest version that this program reads.
        known: u16,
    },
    /// The checkpoint of all groups does not fit into a half of the journal.
    #[error("{groups} groups do not fit into a journal half of {half_bytes} bytes")]
    JournalTooSmall {
        /// How many groups there are.
        groups: usize,
        /// The configured size.
        half_bytes: u64,
    },
    /// A setting is out of its range.
    #[error("{name} = {value} is out of its range")]
    Config {
        /// Which one.
        name: &'static str,
        /// Its value.
        value: u64,
    },
}

/// A data directory could not be formatted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is something in the directory already.
    #[error("the data directory is not empty: it has {name}")]
    NotEmpty {
        /// What was found.
        name: String,
    },
}

/// Entries were not accepted. Nothing of the call was staged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
    /// The write id does not ascend. The caller's mistake.
    #[error("write {write} does not follow write {last}")]
    WriteId {
        /// What was given.
        write: WriteId,
        /// The last one.
        last: WriteId,
    },
    /// The entry does not follow the last one.
    #[error("entry {found} does not follow the log's end at {last}")]
    NotContiguous {
        /// The last index of the log.
        last: LogIndex,
        /// The index that was given.
        found: LogIndex,
    },
    /// The term goes back, or is above what was promised or what Kafka can say.
    #[error("term {found} of entry {index} is not between {last} and {promised}")]
    Term {
        /// Whose.
        index: LogIndex,
        /// What was given.
        found: Term,
        /// The last entry's.
        last: Term,
        /// The group's promised term.
        promised: Term,
    },
    /// The offset does not follow, or the span does not fit the kind.
    #[error("entry {index} begins at offset {found}, the log ends at {expected}")]
    Offset {
        /// Whose.
        index: LogIndex,
        /// What was given.
        found: Offset,
        /// The log's end.
        expected: Offset,
    },
    /// A data entry takes up no offset, or a control entry takes up some.
    #[error("entry {index} takes up {span} offsets, which does not fit its kind")]
    Span {
        /// Whose.
        index: LogIndex,
        /// What was given.
        span: u32,
    },
    /// The body is larger than a frame's body can be.
    #[error("entry {index} has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Whose.
        index: LogIndex,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The replicas have diverged: equal index and term, another chain. Quarantine, alarm, no
    /// vote.
    #[error("entry {index} has chain {found} here, its leader has {expected}")]
    Diverged {
        /// Where.
        index: LogIndex,
        /// What the leader has.
        expected: Chain,
        /// What continues the log here.
        found: Chain,
    },
}

/// A hard state was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HardStateError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
    /// The write id does not ascend. The caller's mistake.
    #[error("write {write} does not follow write {last}")]
    WriteId {
        /// What was given.
        write: WriteId,
        /// The last one.
        last: WriteId,
    },
    /// A promise would be taken back: the term goes back, or the vote changes within it.
    #[error("the hard state of term {found} takes back what was promised in term {promised}")]
    Regressed {
        /// The term that was given.
        found: Term,
        /// The promised term.
        promised: Term,
    },
}

/// A cut or a base was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
    /// The write id does not ascend. The caller's mistake.
    #[error("write {write} does not follow write {last}")]
    WriteId {
        /// What was given.
        write: WriteId,
        /// The last one.
        last: WriteId,
    },
    /// The cut lies outside the log.
    #[error("a cut at {first} is outside the log, which has {start} to {last}")]
    Outside {
        /// What was given.
        first: LogIndex,
        /// The log's first index.
        start: LogIndex,
        /// The log's last index.
        last: LogIndex,
    },
    /// The cut would remove committed entries.
    #[error("a cut at {first} reaches below the commit index {commit}")]
    Committed {
        /// What was given.
        first: LogIndex,
        /// What is committed.
        commit: LogIndex,
    },
    /// The entry before the cut is no longer known in memory (far below the commit index the
    /// caller has not told yet).
    #[error("the entry before {first} is not known in memory")]
    Unknown {
        /// What was given.
        first: LogIndex,
    },
    /// The base's parts contradict each other or are too large.
    #[error("the base is invalid: {reason}")]
    Base {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A read cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
    /// The log begins later (retention, or a base).
    #[error("the log begins at index {start}, offset {offset}")]
    BelowStart {
        /// The first index.
        start: LogIndex,
        /// Its offset.
        offset: Offset,
    },
    /// The log ends before.
    #[error("the log ends after index {last}, at offset {offset}")]
    BeyondEnd {
        /// The last index.
        last: LogIndex,
        /// The end offset.
        offset: Offset,
    },
    /// The range is quarantined: it waits for repair from another replica.
    #[error("entries from {first} are quarantined")]
    Quarantined {
        /// The first bad entry at or after what was asked for.
        first: LogIndex,
    },
    /// What was asked for was cut or replaced while it was being read. Ask again.
    #[error("the log was cut while it was being read")]
    Cut,
    /// The disk could not deliver, or delivered what does not verify (an alarm says where).
    #[error("entry {index} could not be read: {reason}")]
    Damaged {
        /// The entry.
        index: LogIndex,
        /// What went wrong.
        reason: String,
    },
    /// No memory or descriptors at the moment. Ask again later.
    #[error("out of resources: {reason}")]
    Busy {
        /// Which.
        reason: String,
    },
}

/// There is no room for what was to be proposed. Nothing is lost; ask again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
    /// The file system is (nearly) full.
    #[error("{wanted} bytes wanted, {available} available beside the reserve")]
    NoSpace {
        /// What was asked for.
        wanted: u64,
        /// What there is.
        available: u64,
    },
}

/// A group is not in this store, or the store is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// There is no such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// There is such a group already.
    #[error("group {0} is in this store already")]
    Exists(GroupId),
    /// The journal has no room for one more.
    #[error("{groups} groups are the most that this journal has room for")]
    TooMany {
        /// How many there are.
        groups: usize,
    },
    /// A write or sync failed before: the store is closed for good.
    #[error("the store has failed and is closed")]
    Failed,
}

//! What a store reports to its owner.

use std::time::Duration;

use highwater_record::Offset;

use crate::alarm::Alarm;
use crate::entry::Entry;
use crate::error::ReadError;
use crate::ids::{GroupId, LogIndex, Sequence, Ticket, WriteId};
use crate::storage::StorageError;

/// What happened. Taken from [`Store::poll`](crate::Store::poll).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Everything of this group up to and with this write is durable: hard states, appends,
    /// cuts and bases.
    Persisted {
        /// Whose.
        group: GroupId,
        /// Up to which write.
        write: WriteId,
    },
    /// A read that was [`Read::Pending`].
    ReadDone {
        /// Whose.
        group: GroupId,
        /// What the caller called it.
        ticket: Ticket,
        /// At least one entry, or why there is none.
        result: Result<Vec<Entry>, ReadError>,
    },
    /// A search by timestamp that was [`Lookup::Pending`].
    TimestampDone {
        /// Whose.
        group: GroupId,
        /// What the caller called it.
        ticket: Ticket,
        /// The entry, nothing if all are older, or why it is not known.
        result: Result<Option<TimestampOffset>, ReadError>,
    },
    /// A file is full or left. It is sealed once the owner has asked for it
    /// ([`Store::seal`](crate::Store::seal)) and its entries are committed.
    Closed {
        /// Whose.
        group: GroupId,
        /// Which file.
        sequence: Sequence,
        /// Its last entry.
        last: LogIndex,
    },
    /// A file has its footer and is immutable.
    Sealed {
        /// Whose.
        group: GroupId,
        /// Which file.
        sequence: Sequence,
    },
    /// What is staged for this group waits for room on the file system. It is tried again, and
    /// said again each time that there is none.
    NoSpace {
        /// Whose.
        group: GroupId,
    },
    /// Something on the disk is not as it was written.
    Alarm(Alarm),
    /// A hole is being filled, and these entries are missing. Other replicas have them: whoever
    /// gets them hands them to [`Store::supply`](crate::Store::supply), some at a time, from the
    /// first on. Said again as long as they do not come.
    EntriesWanted {
        /// Whose.
        group: GroupId,
        /// The first entry that is missing.
        from: LogIndex,
        /// The last one.
        last: LogIndex,
    },
    /// A file is whole again, and a repaired copy has durably taken its place.
    Repaired {
        /// Whose.
        group: GroupId,
        /// Which file.
        sequence: Sequence,
        /// How many entries were filled in.
        entries: u64,
        /// Whether the log has no hole any more: then the journal's quarantine ends.
        is_whole: bool,
    },
    /// A write or sync failed: the store is closed for good (RULES.md G-10). Nothing is
    /// acknowledged, voted or read from it any more.
    Failed {
        /// What the disk said.
        error: StorageError,
    },
}

/// What a read gives at once.
#[derive(Debug)]
pub enum Read {
    /// At least one entry.
    Ready(Vec<Entry>),
    /// [`Event::ReadDone`] will give them.
    Pending,
}

/// What a lookup gives at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The answer.
    Ready(T),
    /// An event will give it.
    Pending,
}

/// The first batch whose largest timestamp is at or above a given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its entry.
    pub index: LogIndex,
    /// Its base offset.
    pub offset: Offset,
    /// Its largest timestamp, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// What a store has done since it was opened, for `status` and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries appended.
    pub appends: u64,
    /// Synced writes of log files.
    pub writes: u64,
    /// Bytes in them.
    pub written_bytes: u64,
    /// Entries in them.
    pub written_entries: u64,
    /// The most entries that one write held.
    pub entries_per_write_max: u64,
    /// The most writes that were in flight at once, over all groups.
    pub writes_in_flight_max: u64,
    /// Writes of the journal.
    pub journal_writes: u64,
    /// Reads that were answered from memory.
    pub cache_hits: u64,
    /// Reads that had to go to a file.
    pub cache_misses: u64,
    /// Bytes of bodies served from memory.
    pub cache_bytes: u64,
    /// Bytes of bodies served from mappings.
    pub mapped_bytes: u64,
    /// Bytes of bodies served by direct reads.
    pub direct_bytes: u64,
    /// Files begun.
    pub files_begun: u64,
    /// How often a group had something to write and no file to write it to yet.
    pub file_waits: u64,
    /// For how long, all groups together.
    pub file_wait: Duration,
    /// Bytes of files that were zeroed while the files before them were written.
    pub zeroed_bytes: u64,
    /// Files sealed.
    pub files_sealed: u64,
    /// Files that were recycled: a new one was made of an old one.
    pub files_recycled: u64,
    /// Files unlinked.
    pub files_unlinked: u64,
    /// Alarms raised.
    pub alarms: u64,
    /// Repairs of a file that were begun.
    pub repairs_begun: u64,
    /// Repairs that were given up, to be tried again.
    pub repairs_given_up: u64,
    /// Files that were replaced by a repaired copy.
    pub repaired_files: u64,
    /// Of those, files that were gone whole.
    pub made_files: u64,
    /// Entries that other replicas have supplied for that.
    pub repaired_entries: u64,
    /// Bytes that the scrubber has read.
    pub scrubbed_bytes: u64,
    /// Sealed files that it has looked at.
    pub scrubbed_files: u64,
    /// How often it has been through all of them.
    pub scrub_passes: u64,
    /// How often it has found something bad.
    pub scrub_findings: u64,
}

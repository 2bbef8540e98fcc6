//! What goes into a log and what comes out of it.

use highwater_record::{Buffer, Offset};

use crate::format::frame::FrameHeader;
use crate::ids::{Chain, EntryId, LogIndex, Term};

/// What an entry is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A Kafka record batch; takes up offsets.
    Data,
    /// Its owner's: a no-op, a membership change, a log start. Takes up an index, no offset.
    Control,
}

/// An entry to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Its index, one more than the last, and its term, not less than the last.
    pub id: EntryId,
    /// What it is.
    pub kind: EntryKind,
    /// The offset of its first record: the end offset of the log before it.
    pub base_offset: Offset,
    /// How many offsets it takes up: last offset delta + 1; 0 for control entries.
    pub offset_span: u32,
    /// When the leader appended it, in seconds since the Unix epoch.
    pub append_time: u32,
    /// Its bytes, stamped and final.
    pub body: Buffer,
    /// CRC-32C of `body`, computed or combined by the caller. Believed here, checked by
    /// whoever reads the entry.
    pub body_crc: u32,
    /// The chain that the leader has at this entry, if it was told: an entry that does not
    /// continue to it here is refused, because the replicas have diverged.
    pub chain: Option<Chain>,
}

/// An entry of the log, every byte of it verified since it was last on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its index and term.
    pub id: EntryId,
    /// What it is.
    pub kind: EntryKind,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many offsets it takes up.
    pub offset_span: u32,
    /// When the leader appended it, in seconds since the Unix epoch.
    pub append_time: u32,
    /// The chain at it.
    pub chain: Chain,
    /// CRC-32C of `body`.
    pub body_crc: u32,
    /// Its bytes; keeps alive what they lie in (a write buffer, a mapping).
    pub body: Buffer,
}

impl Entry {
    /// The offset after its last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.offset_span))
    }
}

/// How much of a data entry's body is kept for its replay, in bytes: a v2 batch's header.
pub const REPLAYED_BYTES: usize = 61;

/// An entry that follows the last snapshot, as recovery hands it to its owner: enough of it to
/// rebuild what the owner keeps beside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Its index and term.
    pub id: EntryId,
    /// What it is.
    pub kind: EntryKind,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many offsets it takes up.
    pub offset_span: u32,
    /// When the leader appended it, in seconds since the Unix epoch.
    pub append_time: u32,
    /// The chain at it.
    pub chain: Chain,
    /// The first [`REPLAYED_BYTES`] of a data entry's body; all of a control entry's.
    pub front: Buffer,
}

impl Replayed {
    pub(crate) fn new(header: &FrameHeader, kind: EntryKind, body: &[u8]) -> Replayed {
        let front = match kind {
            EntryKind::Data => &body[..body.len().min(REPLAYED_BYTES)],
            EntryKind::Control => body,
        };
        Replayed {
            id: header.id(),
            kind,
            base_offset: header.base_offset,
            offset_span: header.offset_span,
            append_time: header.append_time,
            chain: header.chain,
            front: Buffer::from(front.to_vec()),
        }
    }

    /// The place behind it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            before: self.id,
            chain: self.chain,
            offset: Offset(self.base_offset.0 + u64::from(self.offset_span)),
        }
    }
}

/// Where a term begins in a log. A log's *epoch history* is the ascending list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// The term; Kafka's leader epoch.
    pub term: Term,
    /// Its first entry.
    pub first_index: LogIndex,
    /// The offset of its first entry.
    pub first_offset: Offset,
}

/// A place between two entries: what is before the first entry of a file or of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The entry before it; [`EntryId::ZERO`] at the beginning of a log.
    pub before: EntryId,
    /// The chain at that entry.
    pub chain: Chain,
    /// The offset of what comes next.
    pub offset: Offset,
}

impl Position {
    /// The beginning of a log that has never been written.
    pub const ZERO: Position = Position {
        before: EntryId::ZERO,
        chain: Chain::ZERO,
        offset: Offset::ZERO,
    };

    /// The index of the entry that comes next.
    #[must_use]
    pub fn first(&self) -> LogIndex {
        self.before.index.next()
    }
}

/// What replaces a log whose follower lags behind the leader's log start (DESIGN.md section 5,
/// catch-up).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Where the log begins from now on.
    pub start: Position,
    /// The log start offset. It may lie behind `start.offset`: whole files are kept.
    pub log_start_offset: Offset,
    /// The epoch history before `start`, ascending.
    pub epochs: Vec<Epoch>,
    /// What its owner needs to go on from there (producer state, membership). At most
    /// [`SNAPSHOT_BYTES_MAX`](crate::SNAPSHOT_BYTES_MAX).
    pub state: Buffer,
}

/// Its owner's state, kept in a file's footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it includes.
    pub at: LogIndex,
    /// The state. At most [`SNAPSHOT_BYTES_MAX`](crate::SNAPSHOT_BYTES_MAX).
    pub state: Buffer,
}

/// A group's promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HardState {
    /// The highest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<crate::ids::NodeId>,
}

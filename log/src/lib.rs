//! One partition's log on one disk: frames, files, group commit, recovery, and the hard-state
//! journal.
//!
//! docs/format.md lays down every byte and what a crash may leave of it; [`mod@format`] holds the
//! codecs, [`storage`] the seam to the disk.

mod alarm;
mod config;
mod entry;
mod error;
mod event;
mod ids;
#[allow(dead_code, reason = "the store that uses it comes next")]
mod journal;
#[allow(dead_code, reason = "the store that uses it comes next")]
mod paths;
#[allow(dead_code, reason = "the store that uses it comes next")]
mod points;
#[allow(dead_code, reason = "the store that uses it comes next")]
mod scan;

#[allow(dead_code, reason = "its driver and its explorer come next")]
mod recovery;

pub mod format;
pub mod storage;

pub use alarm::{Alarm, Damage};
pub use config::{
    BODY_BYTES_MAX, GroupConfig, Retention, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_GROWTH,
    SNAPSHOT_BYTES_MAX, StoreConfig, WRITE_BYTES_MAX,
};
pub use entry::{Base, Entry, EntryKind, Epoch, HardState, NewEntry, Position, Snapshot};
pub use error::{
    AppendError, CutError, FormatError, GroupError, HardStateError, OpenError, ReadError,
    ReserveError,
};
pub use event::{Counters, Event, Lookup, Read, TimestampOffset};
pub use ids::{
    Chain, ClusterId, EntryId, GroupId, Incarnation, LogIndex, NodeId, Sequence, Term, Ticket,
    WriteId,
};

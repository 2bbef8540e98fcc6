//! One partition's log on one disk: frames, files, group commit, recovery, and the hard-state
//! journal.
//!
//! docs/format.md lays down every byte and what a crash may leave of it; [`mod@format`] holds the
//! codecs, [`storage`] the seam to the disk.

#[macro_use]
#[doc(hidden)]
pub mod mutants;

mod alarm;
mod blocking;
mod config;
mod directory;
mod entry;
mod error;
mod event;
mod group;
mod ids;
mod inspect;
mod journal;
mod mend;
mod paths;
mod points;
mod prepare;
mod ranges;
mod repair;
mod scan;
mod store;
mod wal;

mod recovery;

pub mod format;
pub mod storage;

pub use alarm::{Alarm, Damage};
pub use config::{
    BODY_BYTES_MAX, GroupConfig, JOURNAL_HALF_BYTES, Retention, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SEGMENT_GROWTH, SNAPSHOT_BYTES_MAX, StoreConfig, WRITE_BYTES_MAX,
};
pub use directory::{Directory, DirectoryFormat, Expected, SHARDS_MAX};
pub use entry::{
    Base, Entry, EntryKind, Epoch, HardState, NewEntry, Position, REPLAYED_BYTES, Replayed,
    Snapshot,
};
pub use error::{
    AppendError, CutError, FormatError, GroupError, HardStateError, OpenError, ReadError,
    ReserveError,
};
pub use event::{Counters, Event, Lookup, Read, TimestampOffset};
pub use ids::{
    Chain, ClusterId, EntryId, GroupId, Incarnation, LogIndex, NodeId, Sequence, Term, Ticket,
    WriteId,
};
pub use inspect::{Entries, FileState, GroupReport, Inspector, Item, Place, StoredEntry, TornAt};
pub use mend::{MendError, Mended, mend};
pub use prepare::{FileSource, FreshFiles, RecycledFiles, Source, Spare, Want};
pub use recovery::build::{Quarantine, RecoveredGroup, TornTail};
pub use repair::fill::FillError;
pub use store::{LogStart, Recovered, Store};
pub use wal::{Wal, WalError};

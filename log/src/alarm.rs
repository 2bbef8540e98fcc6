//! What is wrong on the disk, by file and place.

use std::fmt;

use crate::ids::{GroupId, LogIndex};

/// Something on the disk is not as it was written. Never repaired or cut by whoever reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The group it concerns; none for the journal and the directory's identity.
    pub group: Option<GroupId>,
    /// The file, relative to the data directory.
    pub path: String,
    /// The byte in it at which the damage was seen: the start of the block or frame.
    pub offset: u64,
    /// What is wrong.
    pub damage: Damage,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.path, self.offset, self.damage)?;
        match self.group {
            Some(group) => write!(f, " (group {group})"),
            None => Ok(()),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// An identity block of a file that was in use.
    #[error("the identity block is bad, and the file was in use")]
    Identity,
    /// The first frame of a file that was in use.
    #[error("the begin frame is bad, and the file was in use")]
    Begin,
    /// Entries that were durable, or lie below others that are there.
    #[error("entries {first} to {last} are bad or missing, and were durable")]
    Entries {
        /// The first bad entry.
        first: LogIndex,
        /// The last bad entry.
        last: LogIndex,
    },
    /// Entries that were durable up to at least the known watermark.
    #[error("the log ends before entry {first}, and was durable through entry {durable}")]
    Cut {
        /// The first entry that is missing.
        first: LogIndex,
        /// Through which entry the log is known to have been durable.
        durable: LogIndex,
    },
    /// A file says that it continues another history than the one below it.
    #[error("the file continues another history at entry {index} than the one below it")]
    Diverged {
        /// The entry at which they differ.
        index: LogIndex,
    },
    /// A footer. The file is read frame by frame, and sealed again.
    #[error("the footer is bad")]
    Footer,
    /// A block of a sealed file.
    #[error("a block of a sealed file is bad")]
    Block,
    /// A frame of a sealed file, met by a reader.
    #[error("the frame of entry {index} is bad")]
    Frame {
        /// The entry.
        index: LogIndex,
    },
    /// Bytes between frames, or behind them, that are not zero and no frame.
    #[error("bytes that belong to no frame")]
    Garbage,
    /// One copy of a journal's unit; the other serves.
    #[error("a unit of the journal is bad in one copy; the other copy is good")]
    JournalCopy,
    /// The last unit of a journal, whole in the other copy: a crash interrupted it, or it was
    /// damaged later. The other copy serves.
    #[error("the last unit of the journal is whole in the other copy only")]
    JournalLast,
    /// A unit of the journal, in both copies, that good ones follow.
    #[error("a unit of the journal is bad in both copies: promises are lost")]
    JournalLost,
    /// A journal file that should be there is not.
    #[error("the journal file is missing")]
    JournalMissing,
    /// A name that Highwater never makes.
    #[error("unknown name; left alone")]
    Unknown,
}

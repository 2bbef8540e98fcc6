//! Filling holes: what of a file is bad, and what fills it (docs/format.md, Repair).
//!
//! A file is looked through ([`survey`]); what is missing is asked of other replicas, and is
//! believed if the chain leads from the entry before the hole over what came to the entry behind
//! it ([`fill`]). So what fills a hole is what was there, to the last replicated bit. Nothing
//! here does I/O.

pub(crate) mod fill;
pub(crate) mod survey;

use crate::entry::Position;
use crate::format::frame::FrameHeader;
use crate::ids::LogIndex;

/// A run of bytes of a file where entries should lie, and what they lie between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The entry before it.
    pub(crate) before: Position,
    /// The last entry that is missing.
    pub(crate) last: LogIndex,
    /// The byte at which its first frame starts.
    pub(crate) from: u64,
    /// The byte at which the frame behind it starts, if there is one.
    pub(crate) to: Option<u64>,
    /// What comes behind it.
    pub(crate) behind: Behind,
    /// Headers in it that hold, though their bodies do not, and where.
    pub(crate) headers: Vec<(u64, FrameHeader)>,
}

/// What a hole ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A good frame.
    Frame(FrameHeader),
    /// The end of the file's entries, which its footer or the next file names.
    End(Position),
}

impl Gap {
    /// The first entry that is missing.
    pub(crate) fn first(&self) -> LogIndex {
        self.before.first()
    }

    /// Whether no entry is missing, though bytes are bad.
    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first()
    }
}

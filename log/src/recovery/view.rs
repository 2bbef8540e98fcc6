//! A group's files as recovery sees them: what was read, before anything is concluded.

use highwater_record::Offset;

use crate::entry::Position;
use crate::format::begin::Reason;
use crate::format::journal::SyncedPosition;
use crate::ids::{Chain, LogIndex, Sequence, Term};

/// All that is known of a group's log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct GroupView {
    /// The synced position that the journal holds.
    pub(crate) position: Option<SyncedPosition>,
    /// The files in its directory, ascending by sequence.
    pub(crate) files: Vec<FileView>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileView {
    /// Its number, by its name.
    pub(crate) sequence: Sequence,
    /// Its first block.
    pub(crate) identity: IdentityView,
    /// What lies behind it. Only looked at if the identity is good.
    pub(crate) content: Content,
}

/// What a file's first block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IdentityView {
    /// This file's.
    Good,
    /// Whole, but of another sequence or life.
    Other,
    /// Unreadable.
    Bad {
        /// Whether any frame header in the file holds, whatever its salt.
        any_header: bool,
    },
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Content {
    /// A good footer stands for the frames.
    Sealed {
        /// What the first frame says.
        begin: BeginView,
        /// The last entry.
        last: LogIndex,
        /// The chain there.
        chain: Chain,
    },
    /// The frames were read.
    Frames(Frames),
}

/// What a good `begin` frame says, as far as recovery asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BeginView {
    /// Why the file was begun.
    pub(crate) reason: Reason,
    /// The first index.
    pub(crate) first: LogIndex,
    /// The chain before it.
    pub(crate) chain: Chain,
}

impl BeginView {
    /// The view of what a `begin` says.
    pub(crate) fn new(reason: Reason, start: &Position) -> BeginView {
        BeginView {
            reason,
            first: start.first(),
            chain: start.chain,
        }
    }
}

/// The frames of a file: the accepted ones, and what was found behind the first bad one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Frames {
    /// The first frame, if header and body hold and it is a `begin`.
    pub(crate) begin: Option<BeginView>,
    /// The entries from the `begin`'s first index on whose header, salt, index, chain and body
    /// all hold, up to the first that is bad.
    pub(crate) run: Vec<Mark>,
    /// The highest watermark that the run's frames claim.
    pub(crate) run_claim: Option<LogIndex>,
    /// The entry frames behind the run whose header holds and has the file's salt, wherever
    /// they lie, ascending by position.
    pub(crate) beyond: Vec<Found>,
    /// The highest watermark that those claim.
    pub(crate) beyond_claim: Option<LogIndex>,
    /// Whether anything but zeros lies behind the run. Evidence only.
    pub(crate) residue: bool,
}

/// An accepted entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark {
    /// Its term.
    pub(crate) term: Term,
    /// The chain at it.
    pub(crate) chain: Chain,
    /// The offset behind it. Not asked by the rule.
    pub(crate) end: Offset,
}

/// An entry frame behind a bad one, with a good header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Found {
    /// Its index.
    pub(crate) index: LogIndex,
    /// Its term.
    pub(crate) term: Term,
    /// The chain at it, as its header says.
    pub(crate) chain: Chain,
    /// The offset behind it. Not asked by the rule.
    pub(crate) end: Offset,
    /// Whether its body holds too.
    pub(crate) good: bool,
    /// Whether it continues the one found before it: next index, and the chain fits.
    pub(crate) follows: bool,
}

impl Content {
    /// What the first frame says, if it is good.
    pub(crate) const fn begin(&self) -> Option<&BeginView> {
        match self {
            Content::Sealed { begin, .. } => Some(begin),
            Content::Frames(frames) => frames.begin.as_ref(),
        }
    }

    /// The last entry that is accepted, if the first frame is good: the one before the first
    /// index if there is none.
    pub(crate) fn last_accepted(&self) -> Option<LogIndex> {
        match self {
            Content::Sealed { last, .. } => Some(*last),
            Content::Frames(frames) => {
                let count = u64::try_from(frames.run.len()).expect("a count fits into 64 bits");
                Some(frames.begin?.first.before().advance(count))
            }
        }
    }

    /// The highest watermark that any entry frame of the file claims. All of a sealed file was
    /// synced.
    pub(crate) fn claim(&self) -> Option<LogIndex> {
        match self {
            Content::Sealed { last, .. } => Some(*last),
            Content::Frames(frames) => frames.run_claim.max(frames.beyond_claim),
        }
    }
}

//! What nodes say to one another: frames of sections, each about one group, or about one round
//! of beats.
//!
//! A frame goes to a node by one lane of its link, in one session. Its headers are under a CRC
//! of the frame; the bodies of entries follow them, each under the CRC-32C that its entry
//! carries and that is checked once, on receipt. The bytes are described in `docs/format.md`,
//! section "Peer frames". Nothing in a frame is believed: see [`FrameError`].

mod decode;
mod encode;
mod error;
mod wire;

#[cfg(test)]
mod tests;

use highwater_consensus::{BeatException, BeatRound, BeatRow, LogIndex, Message, NodeId, Session};
use highwater_log::{Base, ClusterId, Entry, Incarnation};

pub use decode::{Frame, decode};
pub use encode::FrameBuilder;
pub use error::FrameError;

use highwater_record::Buffer;

use crate::io::LeaderHint;
use crate::ops::GroupId;

/// How many bytes of sections and bodies a frame gathers before the next is begun; a larger
/// section travels alone.
pub const FRAME_BYTES_TARGET: usize = 4 << 20;

/// The largest header part of a frame, in bytes: everything but bodies.
pub const FRAME_HEADER_BYTES_MAX: usize = 16 << 20;

/// How many sections a frame has at most.
pub const SECTIONS_MAX: u32 = 1 << 16;

/// Both ends of a link, as every frame names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The cluster that both belong to.
    pub cluster: ClusterId,
    /// Who sends.
    pub from: NodeId,
    /// The sender's incarnation.
    pub from_incarnation: Incarnation,
    /// Who receives.
    pub to: NodeId,
    /// The receiver's incarnation.
    pub to_incarnation: Incarnation,
    /// The life of the link.
    pub session: Session,
}

/// A part of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Section {
    /// A message of consensus about one group, without entries.
    Message {
        /// Which group.
        group: GroupId,
        /// Any message but [`Message::Base`]; a [`Message::Append`] only without entries.
        message: Message,
    },
    /// An append with its entries.
    Append {
        /// Which group.
        group: GroupId,
        /// A [`Message::Append`].
        message: Message,
        /// The entries that the message has the metas of, in the same order.
        entries: Vec<Entry>,
    },
    /// A follower is to begin anew.
    Base {
        /// Which group.
        group: GroupId,
        /// A [`Message::Base`].
        message: Message,
        /// What it begins with.
        base: Base,
    },
    /// A leader's heartbeats.
    Beats(Beats),
    /// The answer to a part of them.
    BeatAnswers(BeatAnswers),
    /// "Rows as in that one": heartbeats that were sent before, and confirmed.
    Repeat(BeatRepeat),
    /// The answer to it.
    RepeatAnswer(RepeatAnswer),
    /// Who leads what.
    Leaders(Vec<LeaderHint>),
    /// The sender has a hole in its log, and asks for what is missing.
    Wanted {
        /// Which group.
        group: GroupId,
        /// The first entry that is missing.
        from: LogIndex,
        /// The last one.
        last: LogIndex,
        /// How many bytes of bodies are wanted at once; one entry is, however large.
        max_bytes: u32,
    },
    /// Entries for a hole, one behind the other; none if they are not there either.
    Supply {
        /// Which group.
        group: GroupId,
        /// What was asked for, from the first entry on.
        entries: Vec<Entry>,
    },
    /// A message between services.
    Service {
        /// The receiving node's shard.
        to_shard: u16,
        /// What it says.
        message: Buffer,
    },
}

/// Heartbeats of all groups that a shard leads and a peer follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beats {
    /// The number of this round, ascending for each shard and peer.
    pub round: BeatRound,
    /// A row for each group.
    pub rows: Vec<(GroupId, BeatRow)>,
    /// Which rows of the round these are: the place of each in the frame that was sent. A node
    /// with several shards hands each of them its part.
    pub places: Vec<u32>,
    /// Whether the receiver is to keep the rows that it confirms, since a [`BeatRepeat`] may come
    /// to stand for them. Only for who has said that it knows those ([`Frame::knows_repeats`]).
    pub is_kept: bool,
}

/// Stands for the rows of an earlier round that one shard has confirmed and kept: they are sent
/// again, as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatRepeat {
    /// The receiving node's shard.
    pub to_shard: u16,
    /// The number of this round.
    pub round: BeatRound,
    /// The round that the rows were in.
    pub of: BeatRound,
}

/// What a shard answers to a [`BeatRepeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatAnswer {
    /// The shard that the round came from.
    pub to_shard: u16,
    /// The round that is answered.
    pub round: BeatRound,
    /// The round that it repeats.
    pub of: BeatRound,
    /// Whether the rows are here. If not, nothing is confirmed.
    pub is_known: bool,
    /// What is to be said against some of them: the place in the round that was repeated, and
    /// what. All others are confirmed.
    pub exceptions: Vec<(u32, BeatException)>,
}

/// What a shard answers to its part of a round of beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatAnswers {
    /// The shard that the round came from.
    pub to_shard: u16,
    /// The round.
    pub round: BeatRound,
    /// The places of the rows answered, as runs of first place and count. A shard that hangs
    /// falls silent with its groups, hence the rows are named, not implied.
    pub answered: Vec<(u32, u32)>,
    /// What is to be said against some of them: the place, and what.
    pub exceptions: Vec<(u32, BeatException)>,
}

impl Section {
    /// The group that it concerns; `None` if several.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Section::Message { group, .. }
            | Section::Append { group, .. }
            | Section::Base { group, .. }
            | Section::Wanted { group, .. }
            | Section::Supply { group, .. } => Some(*group),
            Section::Beats(_)
            | Section::BeatAnswers(_)
            | Section::Repeat(_)
            | Section::RepeatAnswer(_)
            | Section::Leaders(_)
            | Section::Service { .. } => None,
        }
    }
}

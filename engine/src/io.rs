//! What goes into a shard and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use highwater_consensus::{Lane, NodeId, Session};
use highwater_log::Incarnation;
use highwater_record::{Buffer, LeaderEpoch};

use crate::ops::{GroupCommand, GroupId, Op, OpId, OpResult};
use crate::service::ServiceAddress;

/// The time of a turn. Nothing in the engine asks a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary origin, never backwards: for timeouts.
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch, for what people read: append times and retention.
    /// It may jump: a shard holds it against the other.
    pub wall_ms: i64,
}

/// What a turn leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// When the next turn is due at the latest, if no input comes before.
    pub next_deadline: Option<Duration>,
    /// There is more to do now; the turn ended to keep its time bound.
    pub more: bool,
}

/// One of a node's shards, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard of a node with `shards` shards on which `group` lives. The controller lives
    /// on shard 0.
    ///
    /// # Panics
    ///
    /// If `shards` is 0.
    #[must_use]
    pub fn of_group(group: GroupId, shards: u16) -> ShardId {
        assert!(shards > 0, "a node has a shard at least");
        let shard = group.0 % u64::from(shards);
        ShardId(u16::try_from(shard).expect("a remainder is below its divisor"))
    }
}

/// A client's connection, as its shard calls it. Never used again in the life of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What the owner of a shard calls an operation that it asked for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// A link to a peer is up.
    PeerUp {
        /// Who.
        node: NodeId,
        /// The life of the link, equal at both ends and never used again.
        session: Session,
        /// The peer's incarnation, as the link has authenticated it.
        incarnation: Incarnation,
    },
    /// The link is down.
    PeerDown {
        /// Who.
        node: NodeId,
        /// Which life of the link.
        session: Session,
    },
    /// A whole frame of a peer.
    PeerFrame {
        /// The peer, as the link has authenticated it.
        from: NodeId,
        /// The life of the link that it came over.
        session: Session,
        /// The lane that it came over.
        lane: Lane,
        /// The frame.
        bytes: Buffer,
    },
    /// A whole Kafka request, without its length prefix.
    Request {
        /// Whose.
        conn: ConnId,
        /// The request.
        frame: Buffer,
    },
    /// The client has gone, or is to go.
    ConnClosed {
        /// Whose.
        conn: ConnId,
    },
    /// Another shard of this node says something.
    FromShard {
        /// Which.
        from: ShardId,
        /// What.
        message: ShardMessage,
    },
    /// The shard's owner asks an operation itself, as an embedded service does.
    Local {
        /// What the answer is to be called.
        ticket: Ticket,
        /// On which group; any group of this node.
        group: GroupId,
        /// What.
        op: Op,
    },
    /// The shard's owner no longer waits.
    LocalCancel {
        /// For what.
        ticket: Ticket,
        /// On which group it was asked.
        group: GroupId,
    },
    /// Groups are to be made, dropped or configured on this shard.
    Group(GroupCommand),
}

/// Something for the outside to do.
#[derive(Debug)]
pub enum Output {
    /// Send a frame in this session, or not at all.
    PeerFrame {
        /// To whom.
        to: NodeId,
        /// In which life of the link.
        session: Session,
        /// By which lane.
        lane: Lane,
        /// The frame, in pieces.
        chunks: Vec<Buffer>,
    },
    /// Answer a client.
    Response {
        /// Whom.
        conn: ConnId,
        /// The whole frame, length prefix first, in pieces to be written in order. None for a
        /// request that wants no answer: it is done, and another may be read from the client.
        chunks: Vec<Bytes>,
    },
    /// Close a client's connection once what was answered before is sent.
    Close {
        /// Whose.
        conn: ConnId,
    },
    /// Tell another shard of this node.
    ToShard {
        /// Which.
        to: ShardId,
        /// What.
        message: ShardMessage,
    },
    /// The answer to an [`Input::Local`].
    LocalDone {
        /// To which.
        ticket: Ticket,
        /// What came of it.
        result: OpResult,
    },
    /// The disk or the service has failed: this shard takes no part in anything any more. The binary ends, an
    /// embedded node latches closed.
    Failed {
        /// What failed.
        reason: String,
    },
}

/// What shards of one node say to one another.
#[derive(Debug)]
pub enum ShardMessage {
    /// An operation on a group that lives there.
    Op {
        /// What the asking shard calls it.
        id: OpId,
        /// On which group.
        group: GroupId,
        /// What.
        op: Op,
    },
    /// The asking shard no longer waits.
    Cancel {
        /// For what.
        id: OpId,
        /// On which group.
        group: GroupId,
    },
    /// The answer to a [`ShardMessage::Op`].
    Done {
        /// What the asking shard calls it.
        id: OpId,
        /// What came of it.
        result: OpResult,
    },
    /// A group is to be made, dropped or configured there.
    Group(GroupCommand),
    /// Sections of a peer's frame for groups that live there.
    Peer {
        /// The peer.
        from: NodeId,
        /// The peer's shard.
        from_shard: u16,
        /// In which life of the link.
        session: Session,
        /// Whether the peer knows beats that are repeated.
        knows_repeats: bool,
        /// What it says.
        sections: Vec<crate::peer::Section>,
    },
    /// Who leads a group, for metadata.
    Leader(LeaderHint),
    /// A peer has become reachable, or is no longer, for the services of the other shards.
    Reachable {
        /// The peer.
        node: NodeId,
        /// Whether it is.
        reachable: bool,
    },
    /// A message for the service there.
    Service {
        /// The sender's place; of this node or, if shard 0 has passed it on, of another.
        from: ServiceAddress,
        /// What it says.
        message: Buffer,
    },
}

/// Who leads a group: soft state, spread between nodes and shards, the highest epoch wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// Which group.
    pub group: GroupId,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// Who.
    pub leader: NodeId,
}

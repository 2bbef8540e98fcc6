//! Links between the nodes of a cluster.
//!
//! # Lanes, sessions, who dials
//!
//! Two nodes have one *link*: three [`Lane`]s, each a connection of its own, over QUIC or TCP
//! ([`PeerTransport`]), with one stream of bytes each way. Connections of their own, because
//! TCP's stream and QUIC's send window and flow control span a connection: appends in flight would
//! block votes whatever their priority.
//!
//! **The node with the lower id dials all three lanes**, the other accepts; both then send and
//! receive on them. So a link has one owner, who retries, and there is nothing to settle when both
//! dial at once. The cost: it must be possible to reach the higher id from the lower.
//!
//! A *session* is one life of a link. The dialer numbers it and opens the three lanes with a
//! handshake each; the acceptor answers each. A session stands when all lanes do: for the dialer,
//! when it has the three answers; for the acceptor, when it has given them. Then, and not before,
//! [`PeerEvent::Up`] is told and frames flow. The first lane that ends, ends the session:
//! [`PeerEvent::Down`], and nothing of that session is delivered afterwards. Within a session a
//! lane delivers in order, without gaps; between lanes nothing is promised, but that control
//! overtakes the others. Frames in flight when a session ends may be lost.
//!
//! # Bounds
//!
//! What is sent waits in an outbox per lane, bounded in bytes ([`OutboxLimits`]), then in QUIC's
//! send window or the kernel's buffer. What is received is gathered once into a pooled buffer and
//! waits in the [`PeerEvents`] queue, bounded in bytes per lane; when that is full, or the node's
//! memory budget exhausted, the lane is not read and flow control stops the sender. Control has
//! memory of its own, so that it is read whatever the appends do.

mod accept;
mod counters;
mod dial;
mod endpoint;
mod events;
mod handshake;
mod link;
mod outbox;
mod probe;
mod session;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::net::SocketAddr;

use highwater_record::BufferPool;

use crate::identity::{Boot, Incarnation, Life, NodeId};
use crate::quic::{self, Datagrams};

pub use counters::PeerCounters;
pub use endpoint::{PeerEndpoint, StartError};
pub use events::{DialError, PeerEvent, PeerEvents};
pub use handshake::{HELLO_PREFIX_BYTES, Hello, PEER_VERSION_MAX, PEER_VERSION_MIN, RefusalReason};

use endpoint::Shared;

/// The largest frame on the append and bulk lanes, in bytes: an entry of 16 MiB (the largest
/// request) with room for what is batched with it.
pub const FRAME_BYTES_MAX: usize = 24 << 20;

/// The largest frame on the control lane, in bytes: beats with rows for a hundred thousand groups.
pub const CONTROL_FRAME_BYTES_MAX: usize = 4 << 20;

/// How many newcomers may be greeted at once.
const INCOMING_MAX: usize = 64;

/// What carries the lanes. All nodes of a cluster must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PeerTransport {
    /// QUIC: TLS 1.3 over UDP.
    #[default]
    Quic,
    /// TCP with TLS 1.3 in it, for networks with small packets: QUIC pays for each.
    Tcp,
}

impl PeerTransport {
    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> PeerTransport {
        match self {
            PeerTransport::Quic => PeerTransport::Tcp,
            PeerTransport::Tcp => PeerTransport::Quic,
        }
    }

    /// Below IP.
    const fn protocol(self) -> &'static str {
        match self {
            PeerTransport::Quic => "UDP",
            PeerTransport::Tcp => "TCP",
        }
    }
}

impl fmt::Display for PeerTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerTransport::Quic => "quic",
            PeerTransport::Tcp => "tcp",
        })
    }
}

/// The three roads between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, beats and their answers: little, urgent, always read.
    Control,
    /// Appends of the tail and their acks.
    Append,
    /// Catch-up of those who lag.
    Bulk,
}

impl Lane {
    /// All lanes, by [`index`](Lane::index).
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Append, Lane::Bulk];

    /// Its place in [`Lane::ALL`], also its number on the wire.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Lane::Control => 0,
            Lane::Append => 1,
            Lane::Bulk => 2,
        }
    }

    /// The largest frame it carries, in bytes.
    #[must_use]
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Lane::Control => CONTROL_FRAME_BYTES_MAX,
            Lane::Append | Lane::Bulk => FRAME_BYTES_MAX,
        }
    }
}

/// A session's number, the same at both ends and never used again between the same two
/// incarnations: the dialer's boot counter above, its count of attempts below. Later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub u64);

impl SessionNumber {
    fn new(boot: Boot, attempt: u32) -> SessionNumber {
        SessionNumber(boot.0 << 32 | u64::from(attempt))
    }

    fn is_of(self, boot: Boot) -> bool {
        self.0 >> 32 == boot.0
    }
}

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// One life of a link, equal at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session {
    /// Its number.
    pub number: SessionNumber,
    /// The node with the lower id.
    pub dialer: Life,
    /// The node with the higher id.
    pub acceptor: Life,
}

impl Session {
    /// Who is at the other end, seen from `own`.
    fn other_end(&self, own: NodeId) -> Life {
        if self.dialer.node == own {
            self.acceptor
        } else {
            self.dialer
        }
    }
}

/// Another node of the cluster: who may be there, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Its data directory, where the membership names one; any incarnation that the authority has
    /// certified for this node id is let in otherwise, and it is for the reader of
    /// [`PeerEvent::Up`] to judge it.
    pub incarnation: Option<Incarnation>,
    /// Where it listens for peers; only used if its id is higher than our own.
    pub address: SocketAddr,
}

/// How much may wait to be sent to one peer, in bytes.
///
/// A frame is let into an empty outbox whatever its size, so no limit blocks a large one for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// On the control lane. Control frames are not refused: a peer that is so far behind is given
    /// up, its session ended.
    pub control: usize,
    /// On the append lane; above it, [`SendError::OutboxFull`].
    pub append: usize,
    /// On the bulk lane; above it, [`SendError::OutboxFull`].
    pub bulk: usize,
}

impl Default for OutboxLimits {
    fn default() -> OutboxLimits {
        OutboxLimits {
            control: 8 << 20,
            append: 16 << 20,
            bulk: 8 << 20,
        }
    }
}

/// What a node's end of its links is made of.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// The address to listen on, of UDP or TCP as the transport needs, and to dial from.
    pub listen: SocketAddr,
    /// What carries the lanes.
    pub transport: PeerTransport,
    /// How often this node's data directory has been started, this time included.
    pub boot: Boot,
    /// The other nodes. Our own id among them is passed over.
    pub peers: Vec<Peer>,
    /// Where received frames go, those of the control lane excepted.
    pub pool: BufferPool,
    /// How much may wait to be sent.
    pub outbox: OutboxLimits,
    /// The largest UDP payloads to try towards peers, with QUIC.
    pub datagrams: Datagrams,
    /// Seeds the jitter of reconnects.
    pub seed: u64,
}

/// The default of [`Datagrams::network_bytes_max`].
pub const NETWORK_DATAGRAM_BYTES_MAX: u16 = quic::NETWORK_DATAGRAM_BYTES_MAX;

/// The default of [`Datagrams::loopback_bytes_max`]: all but what loopback carries.
pub const LOOPBACK_DATAGRAM_BYTES_MAX: u16 = quic::LOOPBACK_DATAGRAM_BYTES_MAX;

impl PeerConfig {
    /// A configuration with defaults but for what has none.
    #[must_use]
    pub fn new(listen: SocketAddr, boot: Boot, peers: Vec<Peer>, pool: BufferPool) -> PeerConfig {
        PeerConfig {
            listen,
            transport: PeerTransport::default(),
            boot,
            peers,
            pool,
            outbox: OutboxLimits::default(),
            datagrams: Datagrams::default(),
            seed: 0,
        }
    }
}

/// A frame is not taken to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// That session does not stand (any more). Wait for the peer to come up.
    #[error("session {session} with node {to} does not stand")]
    NotUp {
        /// The peer.
        to: NodeId,
        /// The session that the frame is for.
        session: SessionNumber,
    },
    /// The peer reads more slowly than we send. Send again later; what Raft sends, it sends again
    /// by itself.
    #[error("{waiting} bytes wait for node {to} on lane {lane:?}, no room for {bytes} more")]
    OutboxFull {
        /// The peer.
        to: NodeId,
        /// The lane.
        lane: Lane,
        /// How much waits there, in bytes.
        waiting: usize,
        /// The frame's size in bytes.
        bytes: usize,
    },
    /// No lane carries such a frame. The caller's mistake.
    #[error("a frame of {bytes} bytes is above the {max} that lane {lane:?} carries")]
    TooLarge {
        /// The lane.
        lane: Lane,
        /// The frame's size in bytes.
        bytes: usize,
        /// The lane's limit in bytes.
        max: usize,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// A lane's connection was lost: closed by the peer, timed out, or reset.
    #[error("lane {lane:?}: {error}")]
    ConnectionLost {
        /// The lane that ended first.
        lane: Lane,
        /// What the transport says.
        error: String,
    },
    /// The peer sent something that is no frame of this lane.
    #[error("lane {lane:?}: a frame of {bytes} bytes, {max} are allowed")]
    FrameTooLarge {
        /// The lane.
        lane: Lane,
        /// What the frame's length says.
        bytes: u32,
        /// The lane's limit.
        max: usize,
    },
    /// A frame is larger than the whole memory budget.
    #[error("lane {lane:?}: a frame of {bytes} bytes is above the memory budget")]
    AboveBudget {
        /// The lane.
        lane: Lane,
        /// The frame's size in bytes.
        bytes: u32,
    },
    /// The peer read no control frames for so long that they overflowed.
    #[error("more than {limit} bytes of control frames wait")]
    ControlOverflow {
        /// [`OutboxLimits::control`].
        limit: usize,
    },
    /// The peer has begun a later session.
    #[error("the peer has begun another session")]
    Superseded,
    /// The peer has been taken out of the membership, or this end been closed.
    #[error("closed by this node")]
    Closed,
}

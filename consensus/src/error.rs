//! What a call may be refused for, an enum for each operation.

use thiserror::Error;

use crate::types::{LogIndex, NodeId, Session, Term};

/// Why a configuration or a restored state was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The driver's configuration contradicts itself.
    #[error("consensus configuration: {0}")]
    Config(&'static str),
    /// The restored state contradicts itself: the disk was read wrongly.
    #[error("restored state: {0}")]
    Restored(&'static str),
}

/// Why [`Raft::propose`](crate::Raft::propose) refused. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// This node does not lead; go to the leader.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much is not yet committed; wait for a commit.
    #[error("{uncommitted_bytes} bytes are not yet committed, limit {limit}")]
    Busy {
        /// Bytes appended in this term and not committed.
        uncommitted_bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Leadership is being handed over; wait for the new leader.
    #[error("leadership is being transferred to {to}")]
    Transferring {
        /// The node that is to lead.
        to: NodeId,
    },
    /// A proposal of no entries, or of a no-op: the driver's mistake.
    #[error("a proposal needs one entry or more, and no no-op")]
    Malformed,
}

/// Why [`Raft::read_index`](crate::Raft::read_index) refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// This node does not lead; go to the leader.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too many reads wait already.
    #[error("{waiting} reads wait already")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
}

/// Why [`Raft::transfer_leadership`](crate::Raft::transfer_leadership) refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The target is this node, a learner, or no member.
    #[error("{to} is not another voter")]
    NotAVoter {
        /// The target.
        to: NodeId,
    },
    /// There is no link to the target.
    #[error("{to} is not connected")]
    NotConnected {
        /// The target.
        to: NodeId,
    },
    /// Another transfer goes on.
    #[error("leadership is being transferred to {to} already")]
    Transferring {
        /// The target of that one.
        to: NodeId,
    },
}

/// Why a message was ignored. Nothing was changed by it; the driver counts these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The sender is not a member of the group, or is this node.
    #[error("{from} is not another member")]
    NotAMember {
        /// The sender.
        from: NodeId,
    },
    /// The message came in another session than the one that is up.
    #[error("{from} sent it in session {session:?}, now {current:?}")]
    OtherSession {
        /// The sender.
        from: NodeId,
        /// The session of the message.
        session: Session,
        /// The session that is up.
        current: Option<Session>,
    },
    /// Entries that do not follow one another, a term beyond the sender's own, or an answer to
    /// what was never asked: the peer's fault.
    #[error("malformed message of {from}: {what}")]
    Malformed {
        /// The sender.
        from: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// The peer contradicts what is committed here, or leads in this node's own term. One of the
    /// two has lost data: an alarm, and nothing that a protocol could mend.
    #[error("{from} contradicts index {index} of {term}, committed here")]
    Diverged {
        /// The sender.
        from: NodeId,
        /// The index.
        index: LogIndex,
        /// The term here.
        term: Term,
    },
}

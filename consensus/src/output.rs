//! What a [`Raft`](crate::Raft) wants done.

use crate::message::{Lane, Message};
use crate::types::{EntryId, EntryMeta, LogIndex, NodeId, ReadId, Session, Term, WriteId};

/// Something for the driver to do, in this order.
///
/// The four kinds of writes carry ascending [`WriteId`]s; the driver applies them in this order,
/// an entry becomes durable only after the hard state put out before it (else an entry could
/// survive whose term is forgotten: P04), and it calls
/// [`Raft::handle_persisted`](crate::Raft::handle_persisted) when everything up to a write is
/// durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write the hard state.
    HardState {
        /// The write.
        write: WriteId,
        /// The current term.
        term: Term,
        /// The candidate that has this node's vote in `term`.
        vote: Option<NodeId>,
    },
    /// Append entries at the end of the log. Their bodies are those of the proposal or of the
    /// message that the driver has just handed in; a [`Noop`](crate::EntryKind::Noop) has none.
    Append {
        /// The write.
        write: WriteId,
        /// The entries, consecutive, the first directly after the log's last.
        entries: Vec<EntryMeta>,
    },
    /// Remove all entries from `first` on; never at or below the commit index.
    Cut {
        /// The write.
        write: WriteId,
        /// The first entry to go.
        first: LogIndex,
    },
    /// Replace the whole log by an empty one that begins after `before`. Its index is reported
    /// as committed at once, although the base itself is not durable yet.
    Base {
        /// The write.
        write: WriteId,
        /// The entry before the new log's first.
        before: EntryId,
    },
    /// Send a message, in that session or not at all.
    Send {
        /// The peer.
        to: NodeId,
        /// The session that was up when the message was made.
        session: Session,
        /// The lane for it.
        lane: Lane,
        /// The message.
        message: Message,
    },
    /// The commit index has moved: all entries up to and with `index` are decided.
    Committed {
        /// The commit index.
        index: LogIndex,
    },
    /// A read point is confirmed: state up to and with `index` holds every write that was
    /// acknowledged before the read was asked for.
    ReadReady {
        /// The attempt.
        read: ReadId,
        /// What must be applied before the read is answered.
        index: LogIndex,
    },
    /// Leadership ended before the read point was confirmed; ask the new leader.
    ReadFailed {
        /// The attempt.
        read: ReadId,
    },
    /// Role, term or known leader have changed. Everything proposed under an older term may
    /// still be committed, or not.
    RoleChanged {
        /// The current term.
        term: Term,
        /// The role now.
        role: RoleKind,
        /// The leader of `term`, if known.
        leader: Option<NodeId>,
    },
    /// Read entries for a peer that is further behind than this crate remembers, and hand their
    /// metas to [`Raft::handle_chunk`](crate::Raft::handle_chunk): always, none if they cannot be
    /// read, for nothing else is sent to the peer until then.
    CatchUp {
        /// The peer.
        to: NodeId,
        /// The session in which the peer needs them.
        session: Session,
        /// The first entry wanted.
        next: LogIndex,
        /// Read about as many bytes, but one entry at least.
        max_bytes: u64,
    },
    /// A read waits: send the beat frames of this group without waiting for the interval.
    BeatWanted,
    /// The transfer has been given up: proposals are taken again.
    TransferEnded {
        /// The node that was to lead.
        to: NodeId,
    },
    /// The log is whole again: the quarantine that the driver restored is over. It may forget it
    /// once the writes put out before this are durable.
    QuarantineEnded,
}

/// A node's part in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleKind {
    /// Takes entries from a leader, or waits for one. A learner is always a follower.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

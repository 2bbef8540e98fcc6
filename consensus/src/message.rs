//! What peers say to one another about one group; the driver adds the group and the bodies.

use crate::types::{EntryId, EntryMeta, LogIndex, Term};

/// A message between two members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// "Would you vote for me?" (thesis, section 9.6). Promises and changes nothing.
    PreVote {
        /// The term in which the sender would campaign: its current one plus one.
        term: Term,
        /// The last entry of the sender's log.
        last: EntryId,
    },
    /// The answer to a [`Message::PreVote`].
    PreVoteReply {
        /// If granted, the term asked for; else the answering node's current term.
        term: Term,
        /// Whether it would.
        granted: bool,
    },
    /// RequestVote (paper, figure 2). Sent only when the sender's vote for itself is durable.
    Vote {
        /// The candidate's term.
        term: Term,
        /// The last entry of the candidate's log.
        last: EntryId,
        /// The leader itself asked for this election: a follower that still hears it may
        /// grant all the same (thesis, section 4.2.3).
        transfer: bool,
    },
    /// The answer to a [`Message::Vote`]; a grant is sent only when it is durable.
    VoteReply {
        /// The answering node's current term.
        term: Term,
        /// Whether the vote is the candidate's.
        granted: bool,
    },
    /// AppendEntries (paper, figure 2).
    Append {
        /// The leader's term.
        term: Term,
        /// The leader's attempt: after a mismatch it probes under the next number, and what is
        /// still on its way under an older one is dropped by the follower.
        window: u64,
        /// The entry that precedes the first of `entries`.
        previous: EntryId,
        /// Consecutive entries; none in a probe.
        entries: Vec<EntryMeta>,
        /// The leader's commit index, not clamped: the follower takes no more of it than it has
        /// verified.
        commit: LogIndex,
    },
    /// The answer to [`Message::Append`] and [`Message::Base`].
    AppendReply {
        /// The answering node's current term.
        term: Term,
        /// The window answered.
        window: u64,
        /// What came of it.
        outcome: AppendOutcome,
    },
    /// The follower ended before the leader's log starts: it is to begin anew after `before`.
    /// The driver adds the state that belongs to it.
    Base {
        /// The leader's term.
        term: Term,
        /// As in [`Message::Append`].
        window: u64,
        /// The entry before the first one that the leader still has; it is committed.
        before: EntryId,
    },
    /// Leadership transfer (thesis, section 3.10): campaign now.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
}

impl Message {
    /// The term in the message.
    pub fn term(&self) -> Term {
        match *self {
            Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append { term, .. }
            | Message::AppendReply { term, .. }
            | Message::Base { term, .. }
            | Message::TimeoutNow { term } => term,
        }
    }

    /// Whether only a candidate or a leader may say so.
    pub(crate) fn is_of_a_voter(&self) -> bool {
        match self {
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Base { .. }
            | Message::TimeoutNow { .. } => true,
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. } => false,
        }
    }
}

/// What came of an append, or of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The logs agree. `promised <= synced <= matched`.
    Accepted {
        /// The follower's log agrees with the leader's up to here: received, perhaps not yet on
        /// disk. Tells the leader where to go on.
        matched: LogIndex,
        /// And that is synced up to here. Frees the leader's window.
        synced: LogIndex,
        /// And the follower vouches for it: what the leader counts. Less than `synced` only
        /// while the follower is quarantined.
        promised: LogIndex,
    },
    /// The entry before the first was not there, or another one. Said once per window.
    Conflict {
        /// Where the follower looked: the place asked for, or the end of its log before that.
        at: EntryId,
        /// The first index of `at.term` in the follower's log.
        first: LogIndex,
    },
    /// No room on the disk: pause, then probe.
    Busy {
        /// The last index of the follower's log.
        last: LogIndex,
    },
    /// The sender's term is over; the answer's term tells the current one.
    Stale,
}

/// A leader's heartbeat for one group to one peer. The driver collects the rows of all groups
/// for a peer in one frame, every [heartbeat interval](crate::Config::heartbeat_interval).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BeatRow {
    /// The leader's term.
    pub term: Term,
    /// The last index of the leader's log.
    pub last: LogIndex,
    /// The commit index, clamped to what that follower is known to have received.
    pub commit: LogIndex,
}

/// What a follower has to say against a [`BeatRow`]; a row without an exception is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BeatException {
    /// The sender's term is over.
    HigherTerm {
        /// The answering node's current term.
        term: Term,
    },
    /// The answering node does not have the group, or not in this session; said by the driver
    /// too. Or what it confirms cannot count, since its promises are lost. The row confirms
    /// nothing, and the follower is not in contact.
    Unknown,
}

/// Which of a link's lanes a message should take. Lanes do not keep order among each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, answers and whatever else is small and urgent.
    Control,
    /// Appends at the tail.
    Append,
    /// Catch-up.
    Bulk,
}

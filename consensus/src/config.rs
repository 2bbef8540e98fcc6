//! What a [`Raft`](crate::Raft) is made from: its configuration, and what the disk remembers.

use std::time::Duration;

use crate::error::ConfigError;
use crate::membership::Membership;
use crate::types::{EntryId, LogIndex, NodeId, Term};

/// How one member of one group behaves. [`Config::new`] gives the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The group.
    pub membership: Membership,
    /// Election timeouts are drawn from here on; also how long a follower that heard its leader
    /// refuses to elect another. Smaller finds a dead leader sooner and takes a slow one for
    /// dead. Default 750 ms.
    pub election_timeout_min: Duration,
    /// Election timeouts are drawn below this; also how long a leader leads without hearing from
    /// a quorum. Default 1,500 ms.
    pub election_timeout_max: Duration,
    /// How often the driver sends beats; several must fit in an election timeout. Default 150 ms.
    pub heartbeat_interval: Duration,
    /// Whether this node should lead rather than others. A hint: it campaigns earlier.
    pub priority: Priority,
    /// Bytes of entries in one append; a larger entry travels alone. Default 1 MiB.
    pub append_bytes_max: u64,
    /// Bytes on their way to one follower, not yet synced there; an entry larger than that
    /// travels alone. Default 4 MiB.
    pub window_bytes_max: u64,
    /// Bytes proposed and not committed; two entries always fit. Default 16 MiB.
    pub uncommitted_bytes_max: u64,
    /// How many recent entries are remembered with their sizes. A follower further behind is
    /// served by [`Output::CatchUp`](crate::Output::CatchUp). Default 4,096.
    pub tail_entries_max: usize,
}

/// How eagerly a node campaigns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Its timeouts come from the first quarter of the range: it is normally the first.
    Preferred,
    /// From the whole range.
    #[default]
    Normal,
}

impl Config {
    /// The defaults for `node` in a group of `membership`.
    pub fn new(node: NodeId, membership: Membership) -> Config {
        Config {
            node,
            membership,
            election_timeout_min: Duration::from_millis(750),
            election_timeout_max: Duration::from_millis(1_500),
            heartbeat_interval: Duration::from_millis(150),
            priority: Priority::default(),
            append_bytes_max: 1 << 20,
            window_bytes_max: 4 << 20,
            uncommitted_bytes_max: 16 << 20,
            tail_entries_max: 4_096,
        }
    }

    /// Whether the values fit together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let joint_is_empty = self.membership.joint.as_ref().is_some_and(|j| j.is_empty());
        let learner_votes = |node: &NodeId| self.membership.is_voter(*node);
        let complaint = if self.membership.voters.is_empty() || joint_is_empty {
            "a group needs voters"
        } else if !self.membership.contains(self.node) {
            "this node is not a member"
        } else if self.membership.learners.iter().any(learner_votes) {
            "a learner cannot vote"
        } else if self.heartbeat_interval.is_zero() {
            "the heartbeat interval is zero"
        } else if self.heartbeat_interval * 2 > self.election_timeout_min {
            "two heartbeats must fit in an election timeout"
        } else if self.election_timeout_max < self.election_timeout_min * 2 {
            "the longest election timeout must be twice the shortest or more"
        } else if self.tail_entries_max == 0 {
            "one recent entry at least must be remembered"
        } else {
            return Ok(());
        };
        Err(ConfigError::Config(complaint))
    }
}

/// What the disk remembers of the group, synced before it is handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The current term of the last hard state.
    pub term: Term,
    /// The vote of the last hard state.
    pub vote: Option<NodeId>,
    /// The entry before the first one kept; [`EntryId::ZERO`] if nothing was ever removed.
    /// Everything up to it is committed.
    pub before: EntryId,
    /// For each term with entries behind `before`, in ascending order, its first index. A term
    /// that began at or before `before` may be given with an index at or before it.
    pub epochs: Vec<(Term, LogIndex)>,
    /// The last index of the log, of which everything is synced; under [`Quarantine::ToEnd`] the
    /// last verified one, the entry before its first hole.
    pub last: LogIndex,
    /// Whether part of the log is unreadable.
    pub quarantine: Quarantine,
    /// Whether the hard state may be older than what this node once promised: its disk has lost
    /// votes and terms. The node follows and keeps a copy, but nothing that it says counts ever
    /// again: it neither votes, campaigns nor acknowledges, and confirms no leader. It is to be
    /// replaced by a node of another identity. The term may lie below the last entry's then.
    pub promises_lost: bool,
}

/// What recovery found unreadable though it had been acknowledged (DESIGN.md, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quarantine {
    /// Nothing.
    #[default]
    None,
    /// A hole with a verified tail behind it. The node votes by its last entry, acknowledges
    /// nothing from the hole on until that is known to be committed, and campaigns last.
    ///
    /// The epoch history must be right for the hole too (from the entries on both sides of it,
    /// if they have the same term, or from a footer): a wrong term would look like a conflict
    /// and have the verified tail cut. If it is not known, say [`Quarantine::ToEnd`].
    Hole {
        /// The first unreadable index.
        first: LogIndex,
    },
    /// A hole that reaches the log's end: what is lost is unknown. The node neither votes nor
    /// campaigns nor acknowledges, until in a session begun after this start its synced log
    /// matches the leader's through the last index of the leader's first beat of that session.
    ToEnd {
        /// The first unreadable index; [`Restored::last`] is the one before it.
        first: LogIndex,
    },
}

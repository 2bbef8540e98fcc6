//! What must hold of one member after every call, and between two calls.
//!
//! [`Raft`] checks itself in debug builds. A simulator calls both functions in any build; what
//! spans nodes (one leader per term, log matching, leader completeness) is for it to check.

use crate::output::RoleKind;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{EntryId, LogIndex, NodeId, Term};

/// The state of a [`Raft`] as far as it is compared with a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The current term.
    pub term: Term,
    /// The vote in it.
    pub vote: Option<NodeId>,
    /// The role.
    pub role: RoleKind,
    /// The leader of the term, if known.
    pub leader: Option<NodeId>,
    /// The commit index.
    pub commit: LogIndex,
    /// The term of the entry there.
    pub commit_term: Option<Term>,
    /// The entry before the log's first.
    pub before: EntryId,
    /// The log's last entry.
    pub last: EntryId,
    /// How far it is synced.
    pub synced: LogIndex,
}

impl Observed {
    pub(crate) fn of(raft: &Raft) -> Observed {
        Observed {
            term: raft.hard.term,
            vote: raft.hard.vote,
            role: raft.role.kind(),
            leader: raft.leader(),
            commit: raft.commit,
            commit_term: raft.tail.term_at(raft.commit),
            before: raft.tail.before(),
            last: raft.tail.last(),
            synced: raft.writes.synced(),
        }
    }
}

/// Checks one state.
///
/// # Panics
/// If it breaks a rule.
pub fn check(raft: &Raft) {
    let (before, last) = (raft.tail.before(), raft.tail.last());
    assert!(
        before.index <= raft.commit,
        "the log start is not committed"
    );
    assert!(raft.commit <= last.index, "commit behind the log");
    assert!(raft.writes.synced() <= last.index, "synced behind the log");
    assert!(last.term <= raft.hard.term, "an entry of a later term");
    check_following(raft);
    if raft.promises_lost {
        let follows = matches!(raft.role, Role::Follower(_));
        assert!(follows, "it campaigns, and has lost its promises");
        assert_eq!(raft.promised(), LogIndex::ZERO, "it promises again");
    }
    match &raft.role {
        Role::Follower(follower) => {
            assert_ne!(follower.leader, Some(raft.node()), "it follows itself");
        }
        Role::PreCandidate(_) => assert!(raft.is_voter(), "a learner campaigns"),
        Role::Candidate(_) => {
            assert_eq!(raft.hard.vote, Some(raft.node()), "a candidate's vote");
        }
        Role::Leader(leader) => {
            assert_eq!(raft.hard.vote, Some(raft.node()), "a leader's vote");
            assert!(leader.noop <= last.index, "no entry of its own");
            let own = raft.tail.term_at(leader.noop.max(before.index));
            assert_eq!(own, Some(raft.hard.term), "its entries are of its term");
            let bytes: u64 = leader.uncommitted.iter().map(|&(_, bytes)| bytes).sum();
            assert_eq!(bytes, leader.uncommitted_bytes, "uncommitted bytes");
            for progress in leader.progress.values() {
                assert!(progress.match_index <= progress.verified, "match");
                assert!(progress.verified < progress.next_index, "verified and next");
                assert!(
                    progress.next_index <= last.index.next(),
                    "next behind the log"
                );
                assert!(!progress.is_idle() || progress.in_flight_bytes() == 0);
            }
        }
    }
}

fn check_following(raft: &Raft) {
    let Some(following) = raft.following else {
        return;
    };
    let leads_or_asks = matches!(raft.role, Role::Candidate(_) | Role::Leader(_));
    assert!(!leads_or_asks, "another leader in its own term");
    let last = raft.tail.last().index;
    assert!(following.matched <= last, "matched behind the log");
    let (synced, promised) = following.told;
    assert!(promised <= synced, "promised and not synced");
    assert!(synced <= following.matched, "told and not matched");
}

/// Checks that a later state of the same life of a member may follow an earlier one.
///
/// # Panics
/// If it may not.
pub fn check_delta(earlier: &Observed, later: &Observed) {
    assert!(earlier.term <= later.term, "the term fell");
    assert!(earlier.commit <= later.commit, "the commit index fell");
    assert!(
        earlier.before.index <= later.before.index,
        "the log start fell"
    );
    if earlier.term == later.term {
        let kept = earlier.vote.is_none() || earlier.vote == later.vote;
        assert!(kept, "the vote changed within a term");
        let kept = match (earlier.leader, later.leader) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        assert!(kept, "two leaders of one term");
        if earlier.role == RoleKind::Leader && later.role == RoleKind::Leader {
            assert!(
                earlier.last.index <= later.last.index,
                "a leader's log shrank"
            );
        }
    }
    if earlier.commit == later.commit {
        assert_eq!(
            earlier.commit_term, later.commit_term,
            "a committed entry changed"
        );
    }
}

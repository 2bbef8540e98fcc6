//! What a node is in its group, and the only doors between the roles.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::election::Campaign;
use crate::membership::Membership;
use crate::output::{Output, RoleKind};
use crate::progress::Progress;
use crate::raft::Raft;
use crate::read::Reads;
use crate::types::{EntryKind, EntryMeta, LogIndex, NodeId, ProposedEntry, Session, Term, WriteId};

/// The role, with all that exists only in it. A role's data ends with the role: windows, votes,
/// reads, match positions cannot leak from one leadership into the next (P44).
///
/// | from | event | to |
/// |---|---|---|
/// | follower | election timeout, [`Raft::campaign`] | pre-candidate; sole voter: candidate |
/// | follower | TimeoutNow of its leader | candidate |
/// | pre-candidate | a quorum would vote for it | candidate, term + 1 |
/// | pre-candidate, candidate | election timeout | pre-candidate |
/// | pre-candidate, candidate | append or beat of a leader of the current term | follower |
/// | candidate | a quorum, its own durable vote included | leader |
/// | leader | no quorum heard for the longest election timeout | follower, same term |
/// | leader | a hole in its log that nothing commits or repairs | follower, same term |
/// | any | a higher term (but see stickiness in `election.rs`) | follower in that term |
///
/// A learner is a follower for ever. Within a term nobody goes back from leader or candidate to
/// another vote: the vote lies in the hard state, not in the role (P03).
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Takes entries, or waits.
    Follower(Follower),
    /// Asks whether it would be elected.
    PreCandidate(Campaign),
    /// Asks for votes.
    Candidate(Campaign),
    /// Leads.
    Leader(Box<Leader>),
}

/// A follower, or a learner.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    /// The leader of the current term, if it has been heard.
    pub(crate) leader: Option<NodeId>,
    /// When the leader was last heard, while its link is up.
    pub(crate) heard: Option<Duration>,
    /// When to campaign; never for a learner.
    pub(crate) deadline: Option<Duration>,
}

/// How a log stands against that of the leader of the current term, in one session.
///
/// It ends with the term, not with the role. There is one leader in a term, and its log only
/// grows: whoever asks for pre-votes in vain and returns has verified no less than before. And
/// an idle leader would never say it again: it has nothing to send to one that has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    pub(crate) session: Session,
    /// The leader's attempt.
    pub(crate) window: u64,
    /// It was refused: what else comes of it is dropped.
    pub(crate) is_refused: bool,
    /// The logs agree up to here. A leader's log only grows in its term, so this never falls.
    pub(crate) matched: LogIndex,
    /// The synced and promised positions that were last told.
    pub(crate) told: (LogIndex, LogIndex),
    /// An answer is due even if nothing has moved.
    pub(crate) must_answer: bool,
}

/// A leader.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// All members but this node.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    /// Its first entry, the no-op.
    pub(crate) noop: LogIndex,
    /// Sizes of its own term's entries above the commit index.
    pub(crate) uncommitted: VecDeque<(LogIndex, u64)>,
    pub(crate) uncommitted_bytes: u64,
    pub(crate) reads: Reads,
    pub(crate) transfer: Option<Transfer>,
    /// Since when it leads.
    pub(crate) since: Duration,
    /// When to look whether a quorum is still heard; never for a sole voter.
    pub(crate) check_at: Option<Duration>,
    /// Something may have to be sent.
    pub(crate) must_send: bool,
}

/// Leadership on its way to another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    pub(crate) deadline: Duration,
    /// It has been told to campaign.
    pub(crate) is_sent: bool,
}

impl Follower {
    /// One that waits for nothing.
    pub(crate) fn idle() -> Follower {
        Follower {
            leader: None,
            heard: None,
            deadline: None,
        }
    }
}

impl Leader {
    /// When a quorum was last heard, `node` itself being heard at `now`.
    pub(crate) fn contact(&self, membership: &Membership, node: NodeId, now: Duration) -> Duration {
        let contact = membership.quorum_value(|voter| {
            if voter == node {
                return now;
            }
            let progress = self.progress.get(&voter);
            progress.map_or(Duration::ZERO, |progress| progress.contact)
        });
        contact.unwrap_or_default()
    }
}

impl Role {
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self {
            Role::Follower(follower) => follower.deadline,
            Role::PreCandidate(campaign) | Role::Candidate(campaign) => Some(campaign.deadline),
            Role::Leader(leader) => {
                let transfer = leader.transfer.map(|transfer| transfer.deadline);
                leader.check_at.into_iter().chain(transfer).min()
            }
        }
    }
}

impl Raft {
    /// Follows in `term`, `leader` if it is known.
    pub(crate) fn become_follower(&mut self, now: Duration, term: Term, leader: Option<NodeId>) {
        self.adopt_term(term);
        let deadline = match &self.role {
            // Hearing of a term is no reason to wait longer for its leader.
            Role::Follower(follower) => follower.deadline,
            _ => self.is_voter().then(|| self.draw_deadline(now)),
        };
        let old = std::mem::replace(
            &mut self.role,
            Role::Follower(Follower {
                leader,
                heard: None,
                deadline,
            }),
        );
        if let Role::Leader(old) = old {
            self.end_leadership(*old);
        }
        self.announce_role();
    }

    /// Asks the others whether they would vote for this node (thesis, section 9.6).
    pub(crate) fn become_pre_candidate(&mut self, now: Duration) {
        assert!(self.may_campaign());
        let deadline = self.draw_deadline(now);
        self.role = Role::PreCandidate(Campaign::new(deadline, WriteId::ZERO, false));
        self.announce_role();
        self.count_pre_vote(now, self.config.node);
        self.ask_for_pre_votes();
    }

    /// Campaigns in the next term. The requests leave when its own vote is durable.
    pub(crate) fn become_candidate(&mut self, now: Duration, is_transfer: bool) {
        assert!(self.may_campaign());
        assert!(!matches!(self.role, Role::Leader(_)));
        let term = self.hard.term.next().expect("checked: it may campaign");
        self.adopt_term(term);
        self.hard.vote = Some(self.config.node);
        let write = self.stage_hard_state();
        let deadline = self.draw_deadline(now);
        self.role = Role::Candidate(Campaign::new(deadline, write, is_transfer));
        self.announce_role();
    }

    /// Leads, and says so by a no-op: only an entry of its own term lets it commit (paper,
    /// sections 5.4.2 and 8; P02).
    pub(crate) fn become_leader(&mut self, now: Duration) {
        assert!(matches!(self.role, Role::Candidate(_)));
        assert_eq!(self.hard.vote, Some(self.config.node));
        assert!(
            self.writes.is_durable(self.staged_write),
            "an undurable vote"
        );
        let noop = self.tail.last().index.next();
        let others = self.config.membership.members();
        let progress = others
            .into_iter()
            .filter(|&node| node != self.config.node)
            .map(|node| (node, Progress::new(self.session_of(node), noop, now)))
            .collect();
        let sole = self.config.membership.is_sole_voter(self.config.node);
        self.role = Role::Leader(Box::new(Leader {
            progress,
            noop,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            reads: Reads::new(),
            transfer: None,
            since: now,
            check_at: (!sole).then(|| now + self.config.election_timeout_max),
            must_send: true,
        }));
        self.announce_role();
        if mutant!("no no-op") {
            return;
        }
        self.append_as_leader(&[ProposedEntry {
            kind: EntryKind::Noop,
            size: 0,
        }]);
    }

    /// Takes over a term. A vote belongs to its term, and so does what is known of its leader's
    /// log: they end with it, and only with it.
    fn adopt_term(&mut self, term: Term) {
        assert!(term >= self.hard.term, "terms never fall");
        if term > self.hard.term || mutant!("step-down clears the vote") {
            self.hard.term = term;
            self.hard.vote = None;
            self.following = None;
        }
    }

    fn end_leadership(&mut self, old: Leader) {
        for read in old.reads.take_all() {
            self.outputs.push_back(Output::ReadFailed { read });
        }
        if let Some(transfer) = old.transfer {
            let to = transfer.to;
            self.outputs.push_back(Output::TransferEnded { to });
        }
    }

    fn announce_role(&mut self) {
        let now = (self.hard.term, self.role.kind(), self.leader());
        if now == self.announced {
            return;
        }
        self.announced = now;
        let (term, role, leader) = now;
        self.outputs
            .push_back(Output::RoleChanged { term, role, leader });
    }

    /// Appends entries of the current term to its own log.
    pub(crate) fn append_as_leader(&mut self, entries: &[ProposedEntry]) {
        let term = self.hard.term;
        let first = self.tail.last().index.next();
        let metas: Vec<EntryMeta> = entries
            .iter()
            .zip(first.0..)
            .map(|(entry, index)| EntryMeta {
                id: crate::types::EntryId {
                    index: LogIndex(index),
                    term,
                },
                kind: entry.kind,
                size: entry.size,
            })
            .collect();
        self.stage_append(metas);
        if let Role::Leader(leader) = &mut self.role {
            leader.must_send = true;
        }
    }
}

#[cfg(test)]
impl crate::explore::Essence for Role {
    fn essence(&self, writes: &crate::writes::Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        self.kind().hash(to);
        match self {
            Role::Follower(Follower {
                leader,
                heard: _,
                deadline: _,
            }) => leader.hash(to),
            Role::PreCandidate(campaign) | Role::Candidate(campaign) => {
                campaign.essence(writes, to);
            }
            Role::Leader(leader) => leader.essence(writes, to),
        }
    }
}

#[cfg(test)]
impl crate::explore::Essence for Leader {
    fn essence(&self, writes: &crate::writes::Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Leader {
            progress,
            noop,
            uncommitted,
            uncommitted_bytes,
            reads,
            transfer,
            since: _,
            check_at: _,
            must_send,
        } = self;
        for (node, progress) in progress {
            node.hash(to);
            progress.essence(writes, to);
        }
        (noop, uncommitted, uncommitted_bytes, reads, must_send).hash(to);
        transfer.map(|t| (t.to, t.is_sent)).hash(to);
    }
}

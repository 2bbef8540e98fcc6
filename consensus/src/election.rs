//! Elections: who may be voted for, who campaigns when, and what a vote needs.
//!
//! Nothing here knows how logs are replicated: an election sees the last entry of a log and no
//! more. Another rule of election (DESIGN.md, section 5: Paxos') would be another such file.
//!
//! Beyond the paper's section 5.2 and 5.4.1:
//! - a **pre-vote** (thesis, section 9.6) finds out whether an election could be won, so that a
//!   node that was cut off raises no terms (P07);
//! - **stickiness** (thesis, section 4.2.3): whoever hears a leader grants nothing and adopts no
//!   candidate's term, unless the leader itself asked for the election;
//! - a vote is **sent when it is durable**, a candidate's own included: until then neither
//!   request nor grant leaves (P03).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Priority;
use crate::message::{Lane, Message};
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{EntryId, NodeId, Session, Term, WriteId};

/// A campaign: a pre-vote or an election.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    /// When to give up and begin again.
    pub(crate) deadline: Duration,
    /// Those who have granted it.
    granted: BTreeSet<NodeId>,
    /// The write of the candidate's own vote.
    write: WriteId,
    /// The old leader asked for it.
    is_transfer: bool,
}

/// A grant that waits for the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    write: WriteId,
    to: NodeId,
    session: Session,
    term: Term,
}

impl Campaign {
    /// A campaign that nobody has granted yet; its own vote is durable with `write`.
    pub(crate) fn new(deadline: Duration, write: WriteId, is_transfer: bool) -> Campaign {
        Campaign {
            deadline,
            granted: BTreeSet::new(),
            write,
            is_transfer,
        }
    }
}

/// Campaigning.
impl Raft {
    /// Whether this node may ask for votes.
    pub(crate) fn may_campaign(&self) -> bool {
        self.is_voter() && self.may_vote() && self.hard.term.next().is_some()
    }

    /// Whether it knows its promises, and its log says enough to vote by.
    fn may_vote(&self) -> bool {
        let is_healthy = self.health.may_vote() || mutant!("quarantined node votes");
        !self.promises_lost && is_healthy && !self.writes.base_is_pending()
    }

    /// The time at which to campaign if no leader is heard from `now` on: random, so that votes
    /// seldom split (paper, section 5.2).
    pub(crate) fn draw_deadline(&mut self, now: Duration) -> Duration {
        let min = self.config.election_timeout_min;
        let span = match self.config.priority {
            Priority::Preferred => (self.config.election_timeout_max - min) / 4,
            Priority::Normal => self.config.election_timeout_max - min,
        };
        let timeout = min + span.mul_f64(self.rng.f64());
        now + timeout * self.patience()
    }

    /// The link to `peer` has ended. If it led, it is not waited for as long as otherwise: two
    /// beats at least, in case the link comes up again, and less than any election timeout.
    pub(crate) fn lose_leader(&mut self, now: Duration, peer: NodeId) {
        let least = self.config.heartbeat_interval * 2;
        let span = self.config.election_timeout_min - least;
        let soon = now + (least + span.mul_f64(self.rng.f64())) * self.patience();
        if let Role::Follower(follower) = &mut self.role
            && follower.leader == Some(peer)
        {
            follower.heard = None;
            follower.deadline = follower.deadline.map(|deadline| deadline.min(soon));
        }
    }

    fn patience(&self) -> u32 {
        if self.is_sole_voter() {
            return 1;
        }
        self.health.patience()
    }

    /// The election timeout has passed.
    pub(crate) fn election_timed_out(&mut self, now: Duration) {
        if !self.may_campaign() {
            let deadline = self.is_voter().then(|| self.draw_deadline(now));
            if let Role::Follower(follower) = &mut self.role {
                follower.deadline = deadline;
            } else {
                self.become_follower(now, self.hard.term, None);
            }
        } else if self.is_sole_voter() {
            self.become_candidate(now, false);
        } else {
            self.become_pre_candidate(now);
        }
    }

    pub(crate) fn ask_for_pre_votes(&mut self) {
        for voter in self.other_voters() {
            self.ask(voter);
        }
    }

    /// Asks `voter` for what this node campaigns for; also when its link comes up on the way.
    pub(crate) fn ask(&mut self, voter: NodeId) {
        let last = self.tail.last();
        let message = match &self.role {
            Role::PreCandidate(_) => {
                let Some(term) = self.hard.term.next() else {
                    return;
                };
                Message::PreVote { term, last }
            }
            Role::Candidate(campaign) if self.writes.is_durable(campaign.write) => Message::Vote {
                term: self.hard.term,
                last,
                transfer: campaign.is_transfer,
            },
            _ => return,
        };
        if self.config.membership.is_voter(voter) {
            self.send(voter, Lane::Control, message);
        }
    }

    /// The disk has gone on: its own vote may count now, and requests may leave.
    pub(crate) fn own_vote_persisted(&mut self, now: Duration) {
        let Role::Candidate(campaign) = &self.role else {
            return;
        };
        let is_counted = campaign.granted.contains(&self.config.node);
        if is_counted || !self.writes.is_durable(campaign.write) {
            return;
        }
        for voter in self.other_voters() {
            self.ask(voter);
        }
        self.count_vote(now, self.config.node);
    }

    pub(crate) fn count_pre_vote(&mut self, now: Duration, from: NodeId) {
        if let Role::PreCandidate(campaign) = &mut self.role {
            campaign.granted.insert(from);
            let granted = &campaign.granted;
            if self.config.membership.has_quorum(|v| granted.contains(&v)) {
                self.become_candidate(now, false);
            }
        }
    }

    fn count_vote(&mut self, now: Duration, from: NodeId) {
        if let Role::Candidate(campaign) = &mut self.role {
            assert!(self.writes.is_durable(campaign.write));
            campaign.granted.insert(from);
            let granted = &campaign.granted;
            if self.config.membership.has_quorum(|v| granted.contains(&v)) {
                self.become_leader(now);
            }
        }
    }

    pub(crate) fn handle_pre_vote_reply(
        &mut self,
        now: Duration,
        from: NodeId,
        term: Term,
        granted: bool,
    ) {
        if granted {
            // The term tells one campaign from an earlier one, in an older term (P08 c, d).
            if Some(term) == self.hard.term.next() && self.config.membership.is_voter(from) {
                self.count_pre_vote(now, from);
            }
        } else if term > self.hard.term {
            self.become_follower(now, term, None);
        }
    }

    pub(crate) fn handle_vote_reply(
        &mut self,
        now: Duration,
        from: NodeId,
        term: Term,
        granted: bool,
    ) {
        // A higher term is never a grant (P06).
        if term > self.hard.term {
            self.become_follower(now, term, None);
        } else if (term == self.hard.term || mutant!("vote of an earlier term counts"))
            && granted
            && self.config.membership.is_voter(from)
        {
            self.count_vote(now, from);
        }
    }
}

/// Voting.
impl Raft {
    /// Answers whether it would vote for `from`. Changes nothing, the timer least of all (P08 e).
    pub(crate) fn handle_pre_vote(
        &mut self,
        now: Duration,
        from: NodeId,
        term: Term,
        last: EntryId,
    ) {
        let granted = term > self.hard.term
            && !self.is_sticky(now)
            && self.may_vote()
            && last.is_up_to_date_with(self.tail.last());
        let term = if granted { term } else { self.hard.term };
        let reply = Message::PreVoteReply { term, granted };
        self.send(from, Lane::Control, reply);
    }

    /// RequestVote (paper, figure 2).
    pub(crate) fn handle_vote(
        &mut self,
        now: Duration,
        from: NodeId,
        term: Term,
        last: EntryId,
        is_transfer: bool,
    ) {
        if term > self.hard.term {
            if !is_transfer && self.is_sticky(now) {
                return;
            }
            self.become_follower(now, term, None);
        }
        let granted = term == self.hard.term
            && (self.hard.vote.is_none_or(|vote| vote == from)
                || mutant!("grant vote twice in a term"))
            && self.may_vote()
            && (last.is_up_to_date_with(self.tail.last()) || mutant!("vote without log check"));
        if granted {
            self.grant_vote(now, from);
        } else {
            let reply = Message::VoteReply {
                term: self.hard.term,
                granted: false,
            };
            self.send(from, Lane::Control, reply);
        }
    }

    /// Votes for `to`; the grant leaves when it is durable.
    fn grant_vote(&mut self, now: Duration, to: NodeId) {
        assert!(self.hard.vote.is_none_or(|vote| vote == to), "two votes");
        if matches!(self.role, Role::PreCandidate(_)) {
            self.become_follower(now, self.hard.term, None);
        }
        assert!(
            matches!(self.role, Role::Follower(_)),
            "it has voted for itself"
        );
        self.hard.vote = Some(to);
        let write = self.stage_hard_state();
        let deadline = self.draw_deadline(now);
        if let Role::Follower(follower) = &mut self.role
            && follower.deadline.is_some()
        {
            follower.deadline = Some(deadline);
        }
        let Some(session) = self.session_of(to) else {
            return;
        };
        self.grant = Some(Grant {
            write,
            to,
            session,
            term: self.hard.term,
        });
        self.release_grant();
    }

    /// Sends the grant that waits, if the disk has it by now.
    pub(crate) fn release_grant(&mut self) {
        let Some(grant) = self.grant else {
            return;
        };
        if !self.writes.is_durable(grant.write) && !mutant!("skip hardstate fsync") {
            return;
        }
        self.grant = None;
        let is_current = grant.term == self.hard.term && self.hard.vote == Some(grant.to);
        if is_current && self.session_of(grant.to) == Some(grant.session) {
            let reply = Message::VoteReply {
                term: grant.term,
                granted: true,
            };
            self.send(grant.to, Lane::Control, reply);
        }
    }

    /// Whether it hears a leader, or leads: then it helps nobody else to lead.
    fn is_sticky(&self, now: Duration) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => follower
                .heard
                .is_some_and(|heard| now < heard + self.config.election_timeout_min),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let members = self.config.membership.members();
        let is_other =
            |node: &NodeId| *node != self.config.node && self.config.membership.is_voter(*node);
        members.into_iter().filter(is_other).collect()
    }
}

#[cfg(test)]
impl crate::explore::Essence for Campaign {
    fn essence(&self, writes: &crate::writes::Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Campaign {
            deadline: _,
            granted,
            write,
            is_transfer,
        } = self;
        (granted, writes.age(*write), is_transfer).hash(to);
    }
}

#[cfg(test)]
impl crate::explore::Essence for Grant {
    fn essence(&self, writes: &crate::writes::Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Grant {
            write,
            to: candidate,
            session,
            term,
        } = self;
        (writes.age(*write), candidate, session, term).hash(to);
    }
}

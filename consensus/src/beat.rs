//! Beats: the paper's heartbeats as rows of one frame per peer, and what hangs on their answers:
//! who is still heard (check-quorum), read points, and the repair of what was lost on the way.

use std::time::Duration;

use crate::error::{ReadError, TransferError};
use crate::message::{BeatException, BeatRow, Lane, Message};
use crate::output::Output;
use crate::quarantine::Health;
use crate::raft::Raft;
use crate::read::READS_MAX;
use crate::role::{Leader, Role, Transfer};
use crate::types::{BeatRound, NodeId, ReadId, Session, Term};

/// The leader's side.
impl Raft {
    pub(crate) fn make_beat_row(&mut self, peer: NodeId, round: BeatRound) -> Option<BeatRow> {
        let row = self.row_for(peer)?;
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&peer)
        {
            progress.beat_sent(round, leader.reads.close_epoch());
        }
        Some(row)
    }

    fn row_for(&self, peer: NodeId) -> Option<BeatRow> {
        let progress = self.progress_of(peer)?;
        progress.session?;
        Some(BeatRow {
            term: self.hard.term,
            last: self.tail.last().index,
            // A follower may not have what is committed, and must not believe so (P42).
            commit: match mutant!("commit from heartbeat beyond match") {
                true => self.commit,
                false => self.commit.min(progress.verified),
            },
        })
    }

    pub(crate) fn beat_acknowledged(
        &mut self,
        now: Duration,
        from: NodeId,
        round: BeatRound,
        exception: Option<BeatException>,
    ) {
        if let Some(BeatException::HigherTerm { term }) = exception {
            if term > self.hard.term {
                self.become_follower(now, term, None);
            }
            return;
        }
        let Some(progress) = self.progress_mut(from) else {
            return;
        };
        if !progress.beat_answered(now, round, exception.is_none()) {
            return;
        }
        // Also of one that confirms nothing: it may keep a copy.
        if progress.is_stalled() {
            self.restart_probe(from);
        }
        self.answer_reads();
    }

    /// The leader's timer: still heard by a quorum? And has a transfer taken too long?
    ///
    /// A leader with a hole that is not known to be committed can neither supply it nor vouch
    /// for what lies behind. If no peer has mended that in time, it makes way: perhaps the
    /// others can go on without those entries.
    pub(crate) fn leader_timed_out(&mut self, now: Duration) {
        self.expire_transfer(now);
        let patience = self.config.election_timeout_max;
        let node = self.config.node;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.check_at.is_none_or(|check_at| now < check_at) {
            return;
        }
        let check_at = leader.contact(&self.config.membership, node, now) + patience;
        let is_useless = self.health.is_in_doubt(self.commit)
            && now >= leader.since + patience * self.health.patience();
        if check_at <= now || is_useless {
            return self.become_follower(now, self.hard.term, None);
        }
        leader.check_at = Some(check_at);
    }
}

/// Rows that *stand*: a driver of many idle groups repeats them by the number of the beat that they
/// were in, and calls nobody for it.
impl Raft {
    /// The row for `peer` that stands: as long as it is given here, a beat with it would tell `peer`
    /// no more than that the leader is alive, and its answer no more than that `peer` is. So a
    /// driver may leave it out of the beats to one who has confirmed it, if both sides know when
    /// it was last repeated: see [`Raft::hear_again`] and [`Raft::confirm_again`].
    ///
    /// `None` if there is more to say, such as a read or entries on their way; and if this node does
    /// not lead.
    pub fn standing_row(&self, peer: NodeId) -> Option<BeatRow> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let last = self.tail.last().index;
        let is_quiet =
            self.commit == last && leader.reads.waiting() == 0 && leader.transfer.is_none();
        let has_all = leader.progress.get(&peer)?.has_all(last);
        self.row_for(peer).filter(|_| is_quiet && has_all)
    }

    /// Whether `row`, if it came from `from` in `session` once more, would change nothing but when
    /// the leader was last heard, and would be confirmed. Any other call may end it.
    pub fn stands(&self, from: NodeId, session: Session, row: BeatRow) -> bool {
        let is_leader = matches!(&self.role, Role::Follower(it) if it.leader == Some(from));
        is_leader
            && (row.term == self.hard.term || mutant!("row of another term stands"))
            && (row.commit <= self.commit || mutant!("row that commits stands"))
            && self.health == Health::Whole
            && !self.promises_lost
            && self.session_of(from) == Some(session)
    }

    /// The leader's row was repeated at `at`, and confirmed. Any number of repetitions may be left
    /// out, if the last one is told before anything else is called but questions.
    ///
    /// Does nothing if the row does not [stand](Raft::stands) any more: when it was repeated then,
    /// it was the driver's to give it to [`Raft::handle_beat`].
    pub fn hear_again(&mut self, at: Duration, from: NodeId, session: Session, row: BeatRow) {
        if self.stands(from, session, row) {
            self.note_heard(at);
        }
        self.end_call();
    }

    fn note_heard(&mut self, at: Duration) {
        let is_news = |heard: Option<Duration>| heard.is_none_or(|heard| heard < at);
        if !matches!(&self.role, Role::Follower(it) if is_news(it.heard)) {
            return;
        }
        let deadline = self.is_voter().then(|| self.draw_deadline(at));
        if let Role::Follower(follower) = &mut self.role {
            follower.heard = Some(at);
            follower.deadline = deadline;
        }
    }

    /// `peer` has confirmed a row of `term` again, at `at`, that stands. Any number of confirmations
    /// may be left out, if the last one is told before the next [`Raft::handle_timeout`] and before
    /// the session ends. While a quorum confirms them, that call may be left out too: what it
    /// would find, that the leader is heard, the driver knows.
    pub fn confirm_again(&mut self, at: Duration, peer: NodeId, session: Session, term: Term) {
        let is_of_this_term = term == self.hard.term || mutant!("row of an earlier term vouches");
        if is_of_this_term && self.session_of(peer) == Some(session) {
            self.note_contact(at, peer);
        }
        self.end_call();
    }

    /// The check for a quorum is put off, as it would be when it comes. What it looks for besides,
    /// a hole that nobody mends, is of no concern to a log that is committed.
    fn note_contact(&mut self, at: Duration, peer: NodeId) {
        let may_be_useless = self.health.is_in_doubt(self.commit);
        let (node, patience) = (self.config.node, self.config.election_timeout_max);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(progress) = leader.progress.get_mut(&peer) {
            progress.heard(at);
        }
        let contact = leader.contact(&self.config.membership, node, at);
        if let Some(check_at) = &mut leader.check_at
            && !may_be_useless
        {
            *check_at = (*check_at).max(contact + patience);
        }
    }
}

/// Read points.
impl Raft {
    pub(crate) fn begin_read(&mut self) -> Result<ReadId, ReadError> {
        let commit = self.commit;
        let leader_known = self.leader();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader {
                leader: leader_known,
            });
        };
        let waiting = leader.reads.waiting();
        if waiting >= READS_MAX {
            return Err(ReadError::Busy { waiting });
        }
        let read = ReadId(self.last_read.0 + 1);
        self.last_read = read;
        if commit < leader.noop && !mutant!("ReadIndex before no-op") {
            leader.reads.defer(read);
        } else if leader.reads.add(read, commit) && !self.is_sole_voter() {
            self.outputs.push_back(Output::BeatWanted);
        }
        self.answer_reads();
        Ok(read)
    }

    /// Answers the reads that a quorum has confirmed, this node among it.
    pub(crate) fn answer_reads(&mut self) {
        let node = self.config.node;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Leader {
            progress, reads, ..
        } = &mut **leader;
        if reads.waiting() == 0 {
            return;
        }
        let confirmed = self.config.membership.quorum_value(|voter| {
            if voter == node || mutant!("read without a round of beats") {
                return u64::MAX;
            }
            progress.get(&voter).map_or(0, |p| p.confirmed_epoch)
        });
        for (read, index) in reads.take_confirmed(confirmed.unwrap_or(0)) {
            self.outputs.push_back(Output::ReadReady { read, index });
        }
    }
}

/// Leadership transfer (thesis, section 3.10).
impl Raft {
    pub(crate) fn begin_transfer(
        &mut self,
        now: Duration,
        to: NodeId,
    ) -> Result<(), TransferError> {
        let deadline = now + self.config.election_timeout_max;
        let leader_known = self.leader();
        let is_other_voter = to != self.config.node && self.config.membership.is_voter(to);
        let Role::Leader(leader) = &mut self.role else {
            return Err(TransferError::NotLeader {
                leader: leader_known,
            });
        };
        if let Some(transfer) = leader.transfer {
            return Err(TransferError::Transferring { to: transfer.to });
        }
        if !is_other_voter {
            return Err(TransferError::NotAVoter { to });
        }
        if leader.progress.get(&to).is_none_or(|p| p.session.is_none()) {
            return Err(TransferError::NotConnected { to });
        }
        leader.transfer = Some(Transfer {
            to,
            deadline,
            is_sent: false,
        });
        self.continue_transfer(to);
        Ok(())
    }

    /// Once the target has synced the whole log it is told to campaign.
    pub(crate) fn continue_transfer(&mut self, to: NodeId) {
        let (term, last) = (self.hard.term, self.tail.last().index);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let has_all = leader
            .progress
            .get(&to)
            .is_some_and(|p| p.match_index == last);
        match &mut leader.transfer {
            Some(transfer) if transfer.to == to && !transfer.is_sent && has_all => {
                transfer.is_sent = true;
                self.send(to, Lane::Control, Message::TimeoutNow { term });
            }
            _ => {}
        }
    }

    fn expire_transfer(&mut self, now: Duration) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(transfer) = leader.transfer
            && transfer.deadline <= now
        {
            self.abandon_transfer(transfer.to);
        }
    }

    /// Proposals are taken again. The target may still campaign, and win: that is an election
    /// like any other.
    pub(crate) fn abandon_transfer(&mut self, to: NodeId) {
        if let Role::Leader(leader) = &mut self.role
            && leader.transfer.is_some_and(|transfer| transfer.to == to)
        {
            leader.transfer = None;
            self.outputs.push_back(Output::TransferEnded { to });
        }
    }
}

/// The follower's side.
impl Raft {
    pub(crate) fn answer_beat(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        row: BeatRow,
    ) -> Option<BeatException> {
        if row.term < self.hard.term {
            let term = self.hard.term;
            return Some(BeatException::HigherTerm { term });
        }
        if !self.hear_leader(now, from, row.term) {
            return Some(BeatException::Unknown);
        }
        self.health.heard_beat(session, row.term, row.last);
        if mutant!("commit from heartbeat beyond match") {
            self.commit_through(row.commit.min(self.tail.last().index));
        }
        if let Some(matched) = self.matched_in(session) {
            self.commit_through(row.commit.min(matched));
        }
        self.try_rejoin();
        // It may have elected another one since, and forgotten that: a read point that it
        // confirms would be stale.
        self.promises_lost.then_some(BeatException::Unknown)
    }
}

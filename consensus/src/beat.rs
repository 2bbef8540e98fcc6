//! Beats: the paper's heartbeats as rows of one frame per peer, and what hangs on their answers:
//! who is still heard (check-quorum), read points, and the repair of what was lost on the way.

use std::time::Duration;

use crate::error::{ReadError, TransferError};
use crate::message::{BeatException, BeatRow, Lane, Message};
use crate::output::Output;
use crate::raft::Raft;
use crate::read::READS_MAX;
use crate::role::{Leader, Role, Transfer};
use crate::types::{BeatRound, NodeId, ReadId, Session};

/// The leader's side.
impl Raft {
    pub(crate) fn make_beat_row(&mut self, peer: NodeId, round: BeatRound) -> Option<BeatRow> {
        let (term, last, commit) = (self.hard.term, self.tail.last().index, self.commit);
        let Role::Leader(leader) = &mut self.role else {
            return None;
        };
        let progress = leader.progress.get_mut(&peer)?;
        progress.session?;
        progress.beat_sent(round, leader.reads.close_epoch());
        Some(BeatRow {
            term,
            last,
            // A follower may not have what is committed, and must not believe so (P42).
            commit: match mutant!("commit from heartbeat beyond match") {
                true => commit,
                false => commit.min(progress.verified),
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
        let progress = &leader.progress;
        let contact = self.config.membership.quorum_value(|voter| {
            if voter == node {
                return now;
            }
            progress.get(&voter).map_or(Duration::ZERO, |p| p.contact)
        });
        let check_at = contact.unwrap_or_default() + patience;
        let is_useless = self.health.is_in_doubt(self.commit)
            && now >= leader.since + patience * self.health.patience();
        if check_at <= now || is_useless {
            return self.become_follower(now, self.hard.term, None);
        }
        leader.check_at = Some(check_at);
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

//! Operations: what is asked of a partition, see [`Op`].

use std::time::Duration;

use highwater_consensus::{LogIndex, NodeId, ReadError, TransferError};
use highwater_log::storage::Storage;
use highwater_record::{LeaderEpoch, Offset};

use super::waiting::{Proposal, ReadPoint, WAITING_MAX};
use super::{Env, Origin, Partition};
use crate::ops::{
    CONTROLLER, OffsetSpec, Op, OpError, OpResult, Outcome, Quorum, QuorumReplica, ReadFrom,
};
use crate::positions;

/// How long an operation on a group that has never had a leader waits for one. An election on a
/// healthy network takes a few round trips and syncs, since there is no timeout to wait for.
const HELD_MAX: Duration = Duration::from_secs(3);

impl Partition {
    /// An operation is asked for.
    pub(crate) fn handle_op<S: Storage>(&mut self, env: &mut Env<'_, S>, origin: Origin, op: Op) {
        if let Some(reason) = &self.frozen {
            let error = OpError::Storage(reason.clone());
            return env.effects.done.push((origin, Err(error)));
        }
        // Behind those that wait already, or a producer's batches would change their order.
        let must_wait = self.was_never_led() || !self.waiting.held.is_empty();
        if must_wait && wants_leader(&op) {
            return self.hold(env, origin, op);
        }
        let result = match op {
            Op::Produce(produce) => {
                let what = Proposal::Batches(produce.batches);
                return self.enqueue_at_leader(env, origin, what);
            }
            Op::Propose { body } => {
                return self.enqueue_at_leader(env, origin, Proposal::Owner(body));
            }
            Op::DeleteRecords { before } => return self.delete_records(env, origin, before),
            Op::Fetch(fetch) => return self.fetch(env, origin, fetch),
            Op::ReadEntries { from, max_bytes } => {
                return self.read_entries(env, origin, from, max_bytes, 1);
            }
            Op::WatchOffset { above } => {
                if self.positions.high_watermark() > above {
                    Ok(Outcome::Moved)
                } else {
                    match self.waiting.watch_offset(above, origin) {
                        Ok(()) => return,
                        Err(error) => Err(error),
                    }
                }
            }
            Op::WatchIndex { above } => {
                if self.raft.commit_index() > above {
                    Ok(Outcome::Moved)
                } else {
                    match self.waiting.watch_index(above, origin) {
                        Ok(()) => return,
                        Err(error) => Err(error),
                    }
                }
            }
            Op::ListOffset {
                spec,
                current_leader_epoch,
            } => return self.list_offset(env, origin, spec, current_leader_epoch),
            Op::EpochEnd {
                epoch,
                current_leader_epoch,
            } => self.epoch_end(env, epoch, current_leader_epoch),
            Op::Barrier => return self.read_point(env, origin, ReadPoint::Barrier),
            Op::Transfer { to } => self.transfer(env, to),
            Op::Status => Ok(Outcome::Status(self.status())),
            Op::Quorum => self.quorum(env),
        };
        env.effects.done.push((origin, result));
    }

    /// Whoever asked no longer waits.
    pub(crate) fn handle_cancel<S: Storage>(&mut self, env: &mut Env<'_, S>, origin: Origin) {
        self.waiting.cancel(origin, env.effects);
    }

    /// The replica is to be dropped: everything that waits is answered.
    pub(crate) fn end<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        self.waiting.end(env.effects);
        for queued in std::mem::take(&mut self.queued) {
            let error = Err(OpError::UnknownGroup);
            env.effects.done.push((queued.origin, error));
        }
    }

    fn was_never_led(&self) -> bool {
        self.raft.leader().is_none()
            && self.raft.commit_index() == highwater_consensus::LogIndex::ZERO
    }

    /// The first request wakes a group that has never elected anybody.
    fn hold<S: Storage>(&mut self, env: &mut Env<'_, S>, origin: Origin, op: Op) {
        if self.waiting.held.len() >= WAITING_MAX {
            let busy = OpError::Busy("too many wait for a leader");
            return env.effects.done.push((origin, Err(busy)));
        }
        let until = env.now.monotonic + HELD_MAX;
        self.waiting.held.push_back((origin, op, until));
        if self.was_never_led() {
            self.raft.campaign(env.now.monotonic);
        }
    }

    /// Once there is a leader, what waited for one is asked again.
    pub(super) fn release_held<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        if self.was_never_led() {
            return;
        }
        let held = std::mem::take(&mut self.waiting.held);
        let released = !held.is_empty();
        for (origin, op, _) in held {
            self.handle_op(env, origin, op);
        }
        if released && self.admit_queued(env) {
            self.apply_outputs(env);
        }
    }

    fn enqueue_at_leader<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        what: Proposal,
    ) {
        if self.is_leader() {
            self.enqueue(origin, what, env.effects);
        } else {
            env.effects.done.push((origin, Err(self.not_leader())));
        }
    }

    fn delete_records<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        before: Option<Offset>,
    ) {
        let high_watermark = self.positions.high_watermark();
        let target = before.unwrap_or(high_watermark);
        if !self.is_leader() {
            env.effects.done.push((origin, Err(self.not_leader())));
        } else if target > high_watermark {
            let error = self.out_of_range(target);
            env.effects.done.push((origin, Err(error)));
        } else if target <= self.log_start_offset {
            let outcome = Outcome::LogStart {
                log_start_offset: self.log_start_offset,
            };
            env.effects.done.push((origin, Ok(outcome)));
        } else {
            self.enqueue(origin, Proposal::LogStart(target), env.effects);
        }
    }

    fn list_offset<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        spec: OffsetSpec,
        current: Option<LeaderEpoch>,
    ) {
        let checked = if self.is_leader() {
            self.check_epoch(current)
        } else {
            Err(self.not_leader())
        };
        // Before it has committed in its term a leader's high watermark may lie behind what an
        // earlier one has told.
        let checked = checked.and_then(|()| match self.raft.leads_with_commit() {
            true => Ok(()),
            false => Err(OpError::OffsetNotAvailable),
        });
        if let Err(error) = checked {
            return env.effects.done.push((origin, Err(error)));
        }
        match spec {
            OffsetSpec::Earliest => {
                let outcome = Outcome::Listed {
                    offset: Some(self.log_start_offset),
                    timestamp: -1,
                    leader_epoch: None,
                };
                env.effects.done.push((origin, Ok(outcome)));
            }
            OffsetSpec::Latest => self.read_point(env, origin, ReadPoint::Latest),
            OffsetSpec::Timestamp(timestamp) => self.lookup_timestamp(env, origin, timestamp),
            OffsetSpec::MaxTimestamp => {
                let found = env.store.max_timestamp(self.group);
                let result = found
                    .map(|found| self.timestamp_found(found))
                    .map_err(|error| self.read_failed(error));
                env.effects.done.push((origin, result));
            }
        }
    }

    fn epoch_end<S: Storage>(
        &self,
        env: &Env<'_, S>,
        epoch: LeaderEpoch,
        current: Option<LeaderEpoch>,
    ) -> OpResult {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        self.check_epoch(current)?;
        let term = highwater_log::Term(epoch.get());
        let end = env.store.epoch_end(self.group, term);
        let end = end.map_err(|error| self.read_failed(error))?;
        Ok(Outcome::EpochEnd {
            epoch: end.map(|(term, _)| positions::epoch(positions::term_from_log(term))),
            end_offset: end.map(|(_, offset)| offset),
        })
    }

    pub(super) fn read_point<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        what: ReadPoint,
    ) {
        match self.raft.read_index() {
            Ok(read) => {
                self.waiting.barriers.insert(read, (origin, what));
            }
            Err(ReadError::NotLeader { .. }) => {
                env.effects.done.push((origin, Err(self.not_leader())));
            }
            Err(ReadError::Busy { .. }) => {
                let busy = OpError::Busy("too many reads wait");
                env.effects.done.push((origin, Err(busy)));
            }
        }
    }

    fn transfer<S: Storage>(&mut self, env: &Env<'_, S>, to: Option<NodeId>) -> OpResult {
        let Some(to) = to.or_else(|| self.best_successor()) else {
            return Err(OpError::Busy("nobody could take over"));
        };
        match self.raft.transfer_leadership(env.now.monotonic, to) {
            Ok(()) => Ok(Outcome::Transferring { to }),
            Err(TransferError::NotLeader { .. }) => Err(self.not_leader()),
            Err(_) => Err(OpError::Busy("leadership cannot be handed over just now")),
        }
    }

    fn quorum<S: Storage>(&self, env: &Env<'_, S>) -> OpResult {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let high_watermark = match self.group {
            CONTROLLER => positions::controller_offset(self.raft.commit_index()),
            _ => self.positions.high_watermark(),
        };
        let replicas = self.spec.replicas.iter();
        let voters = replicas.map(|&node| QuorumReplica {
            node,
            log_end_offset: self.synced_offset(env, node),
        });
        Ok(Outcome::Quorum(Quorum {
            leader: self.raft.node(),
            leader_epoch: positions::epoch(self.raft.term()),
            high_watermark,
            voters: voters.collect(),
        }))
    }

    /// The offset behind what a replica is known to have synced; of this one, which leads, behind
    /// its last entry.
    fn synced_offset<S: Storage>(&self, env: &Env<'_, S>, node: NodeId) -> Option<Offset> {
        let index = match self.raft.match_index(node) {
            None => self.raft.last().index,
            Some(LogIndex::ZERO) => return None,
            Some(matched) => matched,
        };
        if self.group == CONTROLLER {
            return Some(positions::controller_offset(index));
        }
        self.positions.end_of(index).or_else(|| {
            let next = positions::index_to_log(index.next());
            env.store.offset_of_index(self.group, next).ok()
        })
    }

    /// The voter with the longest log, if there is another one at all.
    fn best_successor(&self) -> Option<NodeId> {
        let others = self.spec.replicas.iter().copied();
        others
            .filter(|&node| node != self.raft.node())
            .filter_map(|node| Some((self.raft.match_index(node)?, node)))
            .max()
            .map(|(_, node)| node)
    }

    /// What the asker believes of the leader epoch, against what is (KIP-320).
    pub(super) fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), OpError> {
        let current = positions::epoch(self.raft.term());
        match asked {
            Some(asked) if asked < current => Err(OpError::FencedLeaderEpoch { asked, current }),
            Some(asked) if asked > current => Err(OpError::UnknownLeaderEpoch { asked, current }),
            _ => Ok(()),
        }
    }
}

/// Whether only a leader can answer.
fn wants_leader(op: &Op) -> bool {
    match op {
        Op::Status | Op::Quorum | Op::ReadEntries { .. } | Op::WatchIndex { .. } => false,
        Op::Fetch(fetch) => fetch.from == ReadFrom::Leader,
        _ => true,
    }
}

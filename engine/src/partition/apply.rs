//! What consensus wants done.

use highwater_consensus::{
    EntryKind, EntryMeta, LogIndex, Message, NodeId, Output, ReadId, RoleKind, Session, Term,
};
use highwater_log::storage::Storage;
use highwater_log::{self as log, AppendError, HardState, NewEntry, Snapshot};
use highwater_record::{BatchHeader, Buffer, Offset};

use super::admit::control_entry;
use super::producers::Producers;
use super::waiting::ReadPoint;
use super::{Effects, Env, GroupState, Partition};
use crate::io::LeaderHint;
use crate::ops::{OpError, Outcome};
use crate::positions::{self, Control};

impl Partition {
    /// Does what consensus wants until it wants nothing more.
    pub(super) fn apply_outputs<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        while self.frozen.is_none() {
            let Some(output) = self.raft.poll_output() else {
                break;
            };
            self.apply(env, output);
        }
        self.admitted_end = None;
    }

    fn apply<S: Storage>(&mut self, env: &mut Env<'_, S>, output: Output) {
        match output {
            Output::HardState { write, term, vote } => {
                let hard_state = HardState {
                    term: positions::term_to_log(term),
                    vote: vote.map(positions::node_to_log),
                };
                let write = positions::write_to_log(write);
                let staged = env.store.set_hard_state(self.group, write, hard_state);
                self.check_staged(staged);
            }
            Output::Append { write, entries } => {
                self.append(env, positions::write_to_log(write), &entries);
            }
            Output::Cut { write, first } => self.cut(env, positions::write_to_log(write), first),
            Output::Base { write, before } => {
                self.install_base(env, positions::write_to_log(write), before.index);
            }
            Output::Send {
                to,
                session,
                lane,
                message,
            } => {
                self.count_append(env.effects, to, &message);
                self.send(env, to, session, lane, message);
            }
            Output::Committed { index } => self.committed(env, index),
            Output::ReadReady { read, index } => self.barrier_ready(env.effects, read, index),
            Output::ReadFailed { read } => self.barrier_failed(env.effects, read),
            Output::RoleChanged { term, role, leader } => {
                self.role_changed(env, term, role, leader);
            }
            Output::CatchUp {
                to,
                session,
                next,
                max_bytes,
            } => self.catch_up(env, to, session, next, max_bytes),
            Output::BeatWanted => env.effects.beats.push(self.group),
            Output::TransferEnded { to } => {
                tracing::info!(group = self.group.0, to = to.0, "leader transfer given up");
            }
            Output::QuarantineEnded => self.quarantine_ended(env),
        }
    }

    fn append<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        write: log::WriteId,
        metas: &[EntryMeta],
    ) {
        let mut entries = Vec::with_capacity(metas.len());
        for meta in metas {
            let entry = self.entry_of(env, meta);
            if entry.base_offset != self.positions.end_offset() {
                let (found, expected) = (entry.base_offset, self.positions.end_offset());
                let index = meta.id.index;
                return self.freeze(format!(
                    "entry {index} begins at offset {found}, here the log ends at {expected}"
                ));
            }
            self.positions.append(&entry);
            entries.push(entry);
        }
        match env.store.append(self.group, write, &entries) {
            Ok(()) => {}
            Err(error @ (AppendError::Diverged { .. } | AppendError::Failed)) => {
                self.freeze(error.to_string());
            }
            Err(error) => panic!("the log refuses what consensus appends: {error}"),
        }
    }

    fn cut<S: Storage>(&mut self, env: &mut Env<'_, S>, write: log::WriteId, first: LogIndex) {
        if !mutant!(ProducersNotCut) {
            self.producers.cut(first);
        }
        let had_hole = env.store.first_hole(self.group).is_some();
        let staged = env
            .store
            .cut(self.group, write, positions::index_to_log(first));
        let is_staged = staged.is_ok();
        self.check_staged(staged);
        if let Ok(end) = env.store.end(self.group)
            && is_staged
        {
            self.positions.cut(first, end.offset);
        }
        if had_hole {
            self.holes_cut(env);
        }
    }

    /// The entry whose meta consensus has put out: a proposal's, a peer's, or a no-op of its own.
    fn entry_of<S: Storage>(&mut self, env: &Env<'_, S>, meta: &EntryMeta) -> NewEntry {
        let key = (meta.id.index.0, meta.id.term.get());
        let Some(arriving) = self.arriving.remove(&key) else {
            assert_eq!(
                meta.kind,
                EntryKind::Noop,
                "the bytes of an entry are here when consensus appends it"
            );
            let (end, body) = (self.positions.end_offset(), Control::Noop.body());
            return control_entry(meta.id, end, env.now, body);
        };
        let entry = arriving.entry;
        if entry.kind == log::EntryKind::Data && !arriving.is_proposal {
            let header = BatchHeader::read(&entry.body).expect("checked when it was received");
            let index = meta.id.index;
            self.producers
                .append(index, entry.base_offset, &header, entry.append_time);
        }
        entry
    }

    fn count_append(&self, effects: &mut Effects, to: NodeId, message: &Message) {
        if let Message::Append { entries, .. } = message
            && !entries.is_empty()
        {
            let in_flight = self.raft.in_flight_appends(to);
            effects.counters.append_sent(entries.len(), in_flight);
        }
    }

    fn install_base<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        write: log::WriteId,
        before: LogIndex,
    ) {
        let mut base = self
            .bases
            .remove(&before)
            .expect("a base is here when consensus installs it");
        // It says how far up a log can start that begins there. What was deleted behind it stays
        // deleted, though only entries that are still to come would say so again.
        base.log_start_offset = base.log_start_offset.max(self.log_start_offset);
        let state = match GroupState::decode(&base.state) {
            Ok(state) => state,
            Err(error) => return self.freeze(format!("the leader's base: {error}")),
        };
        let count = self.producers.count();
        match Producers::restored(state.producers_at, &state.producers, count) {
            Ok(producers) => self.producers = producers,
            Err(error) => return self.freeze(format!("the leader's base: {error}")),
        }
        let had_hole = env.store.first_hole(self.group).is_some();
        self.positions.restart(before, base.start.offset);
        self.log_start_offset = base.log_start_offset;
        if let Some((at, owner)) = state.owner {
            env.effects.restored.push((self.group, at, owner));
        }
        let staged = env.store.base(self.group, write, base);
        self.check_staged(staged);
        if had_hole {
            self.holes_cut(env);
        }
    }

    /// A cut, base or hard state that the log refuses is a broken invariant, unless the disk has
    /// failed: then nothing matters any more.
    fn check_staged<E: std::fmt::Display>(&mut self, staged: Result<(), E>) {
        if let Err(error) = staged {
            self.freeze(error.to_string());
        }
    }

    fn committed<S: Storage>(&mut self, env: &mut Env<'_, S>, index: LogIndex) {
        let advance = self.positions.commit(index);
        self.producers.commit(index);
        env.store.commit(self.group, positions::index_to_log(index));
        if let Some(offset) = advance.log_start {
            self.apply_log_start(env, offset);
        }
        let high_watermark = self.positions.high_watermark();
        self.waiting.committed(index, high_watermark, env.effects);
        self.seal_closed(env);
    }

    /// A move of the log start is committed: every replica serves it from now on, and lets go
    /// of whole files below it.
    fn apply_log_start<S: Storage>(&mut self, env: &mut Env<'_, S>, offset: Offset) {
        if offset <= self.log_start_offset {
            return;
        }
        self.log_start_offset = offset;
        match env.store.set_log_start(self.group, offset) {
            Ok(first) => self.raft.handle_log_start(positions::index_from_log(first)),
            Err(error) => self.freeze(error.to_string()),
        }
    }

    /// Files that are full are sealed when all in them is committed, and this replica has taken note
    /// of it: consensus may know of a commit that it has not put out yet, and what a footer says of
    /// producers must include all that lies before it, since a start reads nothing of that again.
    pub(super) fn seal_closed<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        let at = positions::index_to_log(self.producers.committed());
        while let Some(&(sequence, last)) = self.closed.front() {
            if last > at {
                break;
            }
            self.closed.pop_front();
            let snapshot = Snapshot {
                at,
                state: self.group_state(env).encode(),
            };
            if let Err(error) = env.store.seal(self.group, sequence, snapshot) {
                self.freeze(error.to_string());
            }
        }
    }

    /// The committed state beside the entries.
    pub(super) fn group_state<S: Storage>(&self, env: &Env<'_, S>) -> GroupState {
        let (producers_at, producers) = self.producers.snapshot();
        GroupState {
            producers_at,
            producers: Buffer::from(producers),
            owner: (env.owner_state)(self.group),
        }
    }

    fn role_changed<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        term: Term,
        role: RoleKind,
        leader: Option<NodeId>,
    ) {
        tracing::info!(
            group = self.group.0,
            term = term.get(),
            ?role,
            ?leader,
            "role changed"
        );
        let counters = &mut env.effects.counters;
        match role {
            RoleKind::Candidate => counters.elections += 1,
            RoleKind::Leader => counters.leaderships += 1,
            RoleKind::Follower | RoleKind::PreCandidate => {}
        }
        self.restart_making_way();
        self.waiting.leadership_lost(env.effects);
        self.waiting.wake_watchers(env.effects);
        if let Some(leader) = leader {
            env.effects.leaders.push(LeaderHint {
                group: self.group,
                epoch: positions::epoch(term),
                leader,
            });
        }
    }

    fn catch_up<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        session: Session,
        next: LogIndex,
        max_bytes: u64,
    ) {
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        self.read_chunk(env, to, session, next, max_bytes);
    }

    /// A point in the log where reads are linearizable.
    fn barrier_ready(&mut self, effects: &mut Effects, read: ReadId, index: LogIndex) {
        let Some((origin, wanted)) = self.waiting.barriers.remove(&read) else {
            return;
        };
        assert!(
            index <= self.raft.commit_index(),
            "a read point is committed"
        );
        let high_watermark = self.positions.high_watermark();
        let result = match wanted {
            ReadPoint::Barrier => Ok(Outcome::Barrier {
                index,
                high_watermark,
            }),
            ReadPoint::Latest => Ok(Outcome::Listed {
                offset: Some(high_watermark),
                timestamp: -1,
                leader_epoch: Some(positions::epoch(self.raft.term())),
            }),
            ReadPoint::Beyond(offset) => self.fetched_beyond(offset),
            ReadPoint::Refused(error) => Err(OpError::Producer(error)),
        };
        effects.done.push((origin, result));
    }

    fn barrier_failed(&mut self, effects: &mut Effects, read: ReadId) {
        if let Some((origin, _)) = self.waiting.barriers.remove(&read) {
            effects.done.push((origin, Err(self.not_leader())));
        }
    }
}

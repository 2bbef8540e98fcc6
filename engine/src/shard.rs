//! A shard: the partitions of one thread, stepped a turn at a time.
//!
//! One direction, one turn: what has come in is gathered, partitions decide and stage, the log is
//! flushed once, and what is to go out goes out in one frame per peer and lane. Completions of
//! the disk come back as inputs of a later turn. A turn never waits and does a bounded amount of
//! work; whatever is left makes it ask for another.
//!
//! ```text
//! inputs  ─┐                          ┌─> peer frames, responses, messages to shards
//! disk    ─┼─> partitions ── service ─┤
//! time    ─┘     (settle)             └─> one flush
//! ```

mod beats;
mod config;
mod groups;
mod kept;
mod links;
mod peers;
mod route;
mod standing;
mod timeouts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_log::storage::Storage;
use highwater_log::{Event, RecoveredGroup, Store};
use highwater_record::{Buffer, BufferPool};

use crate::counters::{ShardCounters, ShardGauges, ShardReport, count};
use crate::io::{Input, Now, Output, Turn};
use crate::ops::{GroupId, OpId, OpQueue, ReplicaStatus};
use crate::partition::{Effects, Env, Origin, Partition, Restored};
use crate::producer_state::ProducerCount;
use crate::service::{Service, ServiceOutput};
use crate::wall_clock::WallClock;

pub use config::{ShardConfig, Timing};

use kept::Kept;
use links::Links;
use timeouts::Timeouts;

/// How many inputs a turn takes; with more, it asks for another turn.
const INPUTS_PER_TURN_MAX: usize = 256;

/// How often a turn goes round between partitions and service before it leaves the rest to the
/// next turn.
const ROUNDS_PER_TURN_MAX: usize = 16;

/// How many timeouts a turn handles, so that a node that was paused does not take all at once.
const TIMEOUTS_PER_TURN_MAX: usize = 1_024;

/// The store's deadlines are those of its housekeeping: what it pushes, scrubs, repairs and tries
/// again may as well come a little later, and one turn on this grid serves all that has come due
/// since the last.
const HOUSEKEEPING_GRID: Duration = Duration::from_millis(10);

/// How many bytes of inputs may wait before [`Shard::accepts_input`] says no.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// The partitions of one thread of one node.
pub struct Shard<S: Storage, V: Service> {
    config: ShardConfig,
    store: Store<S>,
    pool: BufferPool,
    /// Boxed, since a tree leaves half of its nodes free.
    partitions: BTreeMap<GroupId, Box<Partition>>,
    /// Replicas on the disk whose create record has not been seen in this life yet.
    recovered: BTreeMap<GroupId, Restored>,
    dirty: BTreeSet<GroupId>,
    /// The groups that are led here, as of when they were stepped last.
    led: BTreeSet<GroupId>,
    timeouts: Timeouts,
    links: Links,
    kept: Kept,
    service: V,
    ops: OpQueue,
    effects: Effects,
    /// Operations that have gone to other shards: what they are called there, and who asked.
    remote: BTreeMap<OpId, Origin>,
    remote_ids: BTreeMap<Origin, OpId>,
    next_remote: u64,
    producers: ProducerCount,
    inputs: VecDeque<Input>,
    input_bytes: usize,
    outputs: VecDeque<Output>,
    events: Vec<Event>,
    seeds: fastrand::Rng,
    wall_clock: WallClock,
    counters: ShardCounters,
    failed: bool,
}

impl<S: Storage, V: Service> Shard<S, V> {
    /// A shard over an opened store, with what its disk remembers.
    ///
    /// Replicas that were recovered take part once their create record is seen again
    /// ([`GroupCommand::Create`](crate::GroupCommand::Create)); the controller's, if it lives on
    /// this shard, at once.
    ///
    /// # Errors
    ///
    /// [`OpenShardError`] if a replica's state cannot be read.
    pub fn open(
        config: ShardConfig,
        store: Store<S>,
        recovered: Vec<RecoveredGroup>,
        pool: BufferPool,
        service: V,
        now: Now,
    ) -> Result<Shard<S, V>, OpenShardError> {
        let seeds = fastrand::Rng::with_seed(config.seed);
        let mut wall_clock = WallClock::new(now, config.last_known_wall_ms);
        let now = wall_clock.look(now);
        let mut shard = Shard {
            links: Links::new(&config),
            config,
            store,
            pool,
            partitions: BTreeMap::new(),
            recovered: BTreeMap::new(),
            dirty: BTreeSet::new(),
            led: BTreeSet::new(),
            timeouts: Timeouts::default(),
            kept: Kept::default(),
            service,
            ops: OpQueue::new(),
            effects: Effects::default(),
            remote: BTreeMap::new(),
            remote_ids: BTreeMap::new(),
            next_remote: 0,
            producers: ProducerCount::default(),
            inputs: VecDeque::new(),
            input_bytes: 0,
            outputs: VecDeque::new(),
            events: Vec::new(),
            seeds,
            wall_clock,
            counters: ShardCounters::default(),
            failed: false,
        };
        shard.start(recovered, now)?;
        Ok(shard)
    }

    /// Something has happened outside. It is looked at in the next turn.
    pub fn push(&mut self, input: Input) {
        self.input_bytes += input_bytes(&input);
        self.inputs.push_back(input);
    }

    /// Whether more requests should be read from clients: not while too many bytes wait. What
    /// peers send is bounded by their windows.
    #[must_use]
    pub fn accepts_input(&self) -> bool {
        self.input_bytes < INPUT_BYTES_MAX && self.outputs.len() < INPUTS_PER_TURN_MAX * 16
    }

    /// One turn. Take [outputs](Self::poll_output) after it until there are none.
    pub fn turn(&mut self, now: Now) -> Turn {
        self.counters.turns += 1;
        if self.failed {
            self.inputs.clear();
            return Turn {
                next_deadline: None,
                more: false,
            };
        }
        let now = self.wall_clock.look(now);
        self.take_events(now);
        let more_inputs = self.take_inputs(now);
        let more_timeouts = self.take_timeouts(now);
        self.send_beats(now);
        let more_rounds = self.settle(now);
        self.store.flush(now.monotonic);
        self.put_out_frames();
        self.put_out_service();
        Turn {
            next_deadline: self.next_deadline(now.monotonic),
            more: more_inputs || more_timeouts || more_rounds,
        }
    }

    /// The next thing for the outside to do; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How a replica on this shard stands.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<ReplicaStatus> {
        self.partitions.get(&group).map(|it| it.status())
    }

    /// The groups that have a replica here, in order.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.partitions.keys().copied()
    }

    /// How all replicas on this shard stand, in order of their groups.
    pub fn statuses(&self) -> impl Iterator<Item = (GroupId, ReplicaStatus)> {
        let partitions = self.partitions.iter();
        partitions.map(|(group, partition)| (*group, partition.status()))
    }

    /// The wall clock's time as far as it is believed, in milliseconds since the Unix epoch. To be
    /// kept on the disk every minute or so, for the [`ShardConfig`] of the node's next life: or
    /// retention by time would believe any clock at a start.
    #[must_use]
    pub fn known_wall_ms(&self, now: Now) -> i64 {
        self.wall_clock.known_ms(now.monotonic)
    }

    /// The request side.
    #[must_use]
    pub fn service(&self) -> &V {
        &self.service
    }

    /// What this shard has seen and done, in numbers. Walks over its partitions.
    #[must_use]
    pub fn report(&self) -> ShardReport {
        ShardReport {
            shard: self.counters,
            partitions: self.effects.counters,
            gauges: self.gauges(),
            log: *self.store.counters(),
            storage: self.store.storage().counters(),
        }
    }

    fn gauges(&self) -> ShardGauges {
        let of = |is: fn(&Partition) -> bool| {
            let partitions = self.partitions.values();
            count(partitions.filter(|partition| is(partition)).count())
        };
        let in_flight = self.partitions.values().map(|it| it.appends_in_flight());
        ShardGauges {
            replicas: count(self.partitions.len()),
            leaders: of(Partition::is_leader),
            frozen: of(Partition::is_frozen),
            quarantined: count(self.store.quarantined()),
            appends_in_flight: count(in_flight.sum()),
            input_bytes: count(self.input_bytes),
            retention_suspended: self.wall_clock.is_doubted().into(),
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let store = self.store.next_deadline();
        [
            self.timeouts.next(),
            self.links.next_beat(),
            self.next_let_go(),
            self.service.next_timeout(),
            store.map(|due| housekeeping(due, now)),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// The steps of a turn.
impl<S: Storage, V: Service> Shard<S, V> {
    fn take_inputs(&mut self, now: Now) -> bool {
        for _ in 0..INPUTS_PER_TURN_MAX {
            let Some(input) = self.inputs.pop_front() else {
                return false;
            };
            self.input_bytes -= input_bytes(&input);
            self.handle_input(now, input);
        }
        !self.inputs.is_empty()
    }

    fn handle_input(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerUp {
                node,
                session,
                incarnation,
            } => self.peer_up(now, node, session, incarnation),
            Input::PeerDown { node, session } => self.peer_down(now, node, session),
            Input::PeerFrame {
                from,
                session,
                lane: _,
                bytes,
            } => self.peer_frame(now, from, session, &bytes),
            Input::Request { conn, frame } => {
                self.service.handle_request(now, conn, frame, &mut self.ops);
            }
            Input::ConnClosed { conn } => self.service.handle_closed(now, conn, &mut self.ops),
            Input::FromShard { from, message } => self.handle_shard(now, from, message),
            Input::Local { ticket, group, op } => {
                self.route_op(now, Origin::Local(ticket), group, op);
            }
            Input::LocalCancel { ticket, group } => {
                self.route_cancel(now, Origin::Local(ticket), group);
            }
            Input::Group(command) => self.route_command(now, command),
        }
    }

    fn take_events(&mut self, now: Now) {
        let mut events = std::mem::take(&mut self.events);
        self.store.poll(now.monotonic, &mut events);
        for event in events.drain(..) {
            self.handle_event(now, event);
        }
        self.events = events;
    }

    fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::Persisted { group, write } => {
                self.with_partition(now, group, |partition, env| {
                    partition.handle_persisted(env.now, write);
                });
            }
            Event::ReadDone {
                group,
                ticket,
                result,
            } => self.with_partition(now, group, |partition, env| {
                partition.handle_read_done(env, ticket, result);
            }),
            Event::TimestampDone {
                group,
                ticket,
                result,
            } => self.with_partition(now, group, |partition, env| {
                partition.handle_timestamp_done(env.effects, ticket, result);
            }),
            Event::Closed {
                group,
                sequence,
                last,
            } => {
                // Files that an earlier life left are announced before the group takes part.
                if let Some(restored) = self.recovered.get_mut(&group) {
                    restored.closed.push_back((sequence, last));
                }
                self.with_partition(now, group, |partition, env| {
                    partition.handle_closed(env, sequence, last);
                });
            }
            Event::NoSpace { group } => self.with_partition(now, group, |partition, _| {
                partition.handle_no_space();
            }),
            Event::EntriesWanted { group, from, last } => {
                self.with_partition(now, group, |partition, env| {
                    partition.ask_for_entries(env, from, last);
                });
            }
            Event::Repaired {
                group, is_whole, ..
            } => self.with_partition(now, group, |partition, env| {
                partition.handle_repaired(env, is_whole);
            }),
            Event::Alarm(alarm) => {
                self.counters.alarms += 1;
                if let Some(group) = alarm.group {
                    self.wait_for(group);
                }
                tracing::error!(%alarm, "the disk is not as it was written");
            }
            Event::Failed { error } => self.fail(&error.to_string()),
            _ => {}
        }
    }

    /// The disk or the service has failed: nothing is acknowledged, voted or served from now on
    /// (G-10).
    fn fail(&mut self, reason: &str) {
        tracing::error!(reason, "this shard is closed");
        self.failed = true;
        let reason = reason.to_owned();
        self.outputs.push_back(Output::Failed { reason });
    }

    fn take_timeouts(&mut self, now: Now) -> bool {
        self.let_go_of_silent(now);
        for _ in 0..TIMEOUTS_PER_TURN_MAX {
            let Some(group) = self.timeouts.pop_due(now.monotonic) else {
                self.service_timeout(now);
                return false;
            };
            let is_led = self.led.contains(&group);
            // However well it is heard, it is to make way for one that is whole.
            let must_look = is_led && self.store.first_hole(group).is_some();
            let is_heard = is_led && !must_look && self.is_heard(group);
            if is_led && !is_heard {
                self.confirm(group);
            }
            let partition = self.partitions.get(&group);
            let is_looked_after = is_heard || partition.is_some_and(|it| it.is_waited_for());
            match partition.and_then(|it| it.next_timeout(is_heard)) {
                // A beat, or its answer, has moved it to later.
                Some(due) if due > now.monotonic && !must_look => {
                    self.timeouts.set(group, Some(due));
                }
                None if is_looked_after => {}
                _ => {
                    if is_heard {
                        self.confirm(group);
                    }
                    self.with_partition(now, group, Partition::handle_timeout);
                }
            }
        }
        true
    }

    fn service_timeout(&mut self, now: Now) {
        let due = self.service.next_timeout();
        if due.is_some_and(|due| due <= now.monotonic) {
            self.service.handle_timeout(now, &mut self.ops);
        }
    }

    /// Goes round between partitions and service until nothing more happens, or for as long as a
    /// turn may.
    fn settle(&mut self, now: Now) -> bool {
        for _ in 0..ROUNDS_PER_TURN_MAX {
            self.take_asked(now);
            if self.dirty.is_empty() && self.effects.is_settled() {
                return false;
            }
            for group in std::mem::take(&mut self.dirty) {
                self.with_partition(now, group, Partition::step);
                self.dirty.remove(&group);
                self.note_stepped(group);
            }
            self.take_effects(now);
        }
        true
    }

    fn take_effects(&mut self, now: Now) {
        for (origin, result) in std::mem::take(&mut self.effects.done) {
            self.answer(now, origin, result);
        }
        for (group, at, state) in std::mem::take(&mut self.effects.restored) {
            self.service
                .handle_restored(now, group, at, state, &mut self.ops);
        }
        for hint in std::mem::take(&mut self.effects.leaders) {
            self.leader_known(now, hint);
        }
        for group in std::mem::take(&mut self.effects.beats) {
            self.send_beat_of(group);
        }
    }

    fn note_stepped(&mut self, group: GroupId) {
        let mut due = None;
        let mut is_led = false;
        if let Some(partition) = self.partitions.get_mut(&group) {
            self.kept.review(partition);
            due = partition.next_timeout(false);
            is_led = partition.is_leader();
        }
        let was_led = match is_led {
            true => !self.led.insert(group),
            false => self.led.remove(&group),
        };
        if is_led || was_led {
            self.links.watch(group);
        }
        self.timeouts.set(group, due);
    }

    /// Does something with a partition, if it is here; it is stepped later in the turn.
    fn with_partition(
        &mut self,
        now: Now,
        group: GroupId,
        act: impl FnOnce(&mut Partition, &mut Env<'_, S>),
    ) {
        let Some(partition) = self.partitions.get_mut(&group) else {
            return;
        };
        self.kept.tell(partition);
        self.dirty.insert(group);
        let service = &self.service;
        let owner_state = |group| {
            let (at, state) = service.snapshot(group)?;
            Some((at, Buffer::from(state)))
        };
        let mut env = Env {
            now,
            is_wall_doubted: self.wall_clock.is_doubted(),
            store: &mut self.store,
            pool: &self.pool,
            effects: &mut self.effects,
            owner_state: &owner_state,
        };
        act(partition, &mut env);
    }

    fn put_out_service(&mut self) {
        while let Some(output) = self.service.poll_output() {
            match output {
                ServiceOutput::Response { conn, chunks } => {
                    self.outputs.push_back(Output::Response { conn, chunks });
                }
                ServiceOutput::Close { conn } => self.outputs.push_back(Output::Close { conn }),
                ServiceOutput::Message { to, message } => self.send_service_message(to, message),
                ServiceOutput::Failed { reason } => self.fail(&reason),
            }
        }
    }
}

/// Why a shard could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenShardError {
    /// What a replica's disk holds beside its entries cannot be read.
    #[error("group {group}: {reason}")]
    Group {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// When a turn serves what the store has to do at `due`, if nothing calls for one before.
fn housekeeping(due: Duration, now: Duration) -> Duration {
    if due <= now {
        return due;
    }
    let steps = due.as_nanos().div_ceil(HOUSEKEEPING_GRID.as_nanos());
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    due.max(HOUSEKEEPING_GRID.saturating_mul(steps))
}

/// The bytes that an input keeps alive, for the bound on what waits.
fn input_bytes(input: &Input) -> usize {
    match input {
        Input::PeerFrame { bytes, .. } => bytes.len(),
        Input::Request { frame, .. } => frame.len(),
        _ => size_of::<Input>(),
    }
}

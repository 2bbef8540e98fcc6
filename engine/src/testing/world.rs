//! The event loop of the simulated world.

mod clients;
mod embedded;
mod nodes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;
use highwater_log::storage::Faults;
use highwater_record::Buffer;

use super::client::{Producer, Reader};
use super::disk::{Disk, SimStorage};
use super::network::{Network, Pair};
use super::oracle::{Oracle, Violation, demand};
use super::plan::Plan;
use super::trace::Trace;
use crate::{
    GroupId, Input, Lane, LogIndex, NoService, NodeId, Now, Op, Output, ReplicaStatus, Session,
    Shard, ShardId,
};
use embedded::Scripted;
pub use embedded::{Embedded, Lost};
pub(super) use nodes::{CLUSTER, incarnation_of};

/// The wall clock at the beginning of every run, in milliseconds since the Unix epoch.
pub(super) const EPOCH_MS: i64 = 1_700_000_000_000;

/// How often the auditor asks each replica for what is committed.
const AUDIT_INTERVAL: Duration = Duration::from_millis(100);

/// How many events a run may have; more means that something goes round in circles.
const EVENTS_MAX: u64 = 5_000_000;

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// A node is to take a turn.
    Wake { at: Place, life: u64 },
    /// A message between two shards of a node arrives.
    Cross { to: Place, life: u64, input: Input },
    /// A frame arrives.
    Deliver {
        from: NodeId,
        to: NodeId,
        session: u64,
        lane: Lane,
        bytes: Vec<u8>,
    },
    /// A node notices that a link is up.
    LinkUp {
        node: NodeId,
        peer: NodeId,
        session: u64,
    },
    /// A node notices that a link is down.
    LinkDown {
        node: NodeId,
        peer: NodeId,
        session: u64,
    },
    /// Two nodes try to link.
    Connect { pair: Pair },
    /// A node dies.
    Crash { node: NodeId },
    /// It is started again.
    Restart { node: NodeId },
    /// A link is cut.
    Cut,
    /// And mended.
    Mend { pair: Pair },
    /// Somebody asks for a transfer of leadership.
    Transfer,
    /// Somebody deletes records.
    Delete,
    /// A client has waited long enough, or may go on.
    Client { asker: Asker, turn: u64 },
    /// A client's question reaches one of a node's shards.
    Question { to: Place, question: Input },
    /// The auditor looks.
    Audit,
}

/// A shard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: NodeId,
    shard: ShardId,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Producer(usize),
    Reader(usize),
    Auditor(NodeId, GroupId),
    Embedded,
    Nobody,
}

/// A node: its disk, and its shards while it lives.
struct Node {
    id: NodeId,
    disk: Disk,
    shards: Vec<Running>,
    life: u64,
}

impl Node {
    fn is_alive(&self) -> bool {
        !self.shards.is_empty()
    }

    fn status(&self, group: GroupId) -> Option<ReplicaStatus> {
        let mut shards = self.shards.iter();
        shards.find_map(|running| running.shard.status(group))
    }
}

/// A shard that runs.
struct Running {
    shard: SimShard,
    wake_at: Option<Duration>,
    /// When the last message to it from another shard arrives: they keep their order.
    crossed: Duration,
}

type SimShard = Shard<SimStorage, NoService>;

/// The whole world.
pub struct World {
    plan: Plan,
    now: Duration,
    sequence: u64,
    events: BinaryHeap<Reverse<(Duration, u64, EventBox)>>,
    nodes: BTreeMap<NodeId, Node>,
    network: Network,
    rng: Rng,
    client_rng: Rng,
    producers: Vec<Producer>,
    readers: Vec<Reader>,
    /// Which question each client has asked last, and when it stops waiting for the answer.
    waiting: BTreeMap<Asker, u64>,
    tickets: BTreeMap<u64, (Asker, u64)>,
    next_ticket: u64,
    /// What a test does to the world by itself.
    scripted: Scripted,
    /// How far the auditor has read, by replica.
    audited: BTreeMap<(NodeId, GroupId), LogIndex>,
    oracle: Oracle,
    trace: Trace,
    calm: bool,
    report: Report,
}

/// An event in the heap; never compared.
#[derive(Debug)]
struct EventBox(Event);

impl PartialEq for EventBox {
    fn eq(&self, _: &EventBox) -> bool {
        true
    }
}

impl Eq for EventBox {}

impl PartialOrd for EventBox {
    fn partial_cmp(&self, other: &EventBox) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventBox {
    fn cmp(&self, _: &EventBox) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events handled.
    pub events: u64,
    /// Virtual time, until everything had come to rest.
    pub time: Duration,
    /// Batches acknowledged.
    pub acked: u64,
    /// Entries seen committed.
    pub committed: u64,
    /// Terms that had a leader, over all groups.
    pub leaders: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Frames lost, doubled or garbled in transit.
    pub frames_troubled: u64,
    /// The hash of the trace.
    pub trace_hash: u64,
}

/// Runs a plan to its end.
///
/// # Errors
///
/// The first [`Violation`].
pub fn run(plan: Plan) -> Result<Report, Violation> {
    World::new(plan).run().1
}

impl World {
    /// A world at its beginning.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        let mut rng = Rng::with_seed(plan.seed);
        let mut world = World {
            network: Network::new(rng.u64(..)),
            client_rng: Rng::with_seed(rng.u64(..)),
            now: Duration::ZERO,
            sequence: 0,
            events: BinaryHeap::new(),
            nodes: BTreeMap::new(),
            rng,
            producers: Vec::new(),
            readers: Vec::new(),
            waiting: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            scripted: Scripted::default(),
            audited: BTreeMap::new(),
            oracle: Oracle::default(),
            trace: Trace::default(),
            calm: false,
            report: Report::default(),
            plan,
        };
        world.set_up();
        world
    }

    /// Keeps the text of the trace, which [`run`](World::run) then gives.
    #[must_use]
    pub fn traced(mut self) -> World {
        self.trace = Trace::with_text();
        self
    }

    /// Runs to the end: faults for a while, then none until everything has come to rest. The
    /// text of the trace, if it was kept, and what the run came to.
    pub fn run(mut self) -> (String, Result<Report, Violation>) {
        let result = self.run_phases();
        let mut report = self.report;
        report.time = self.now;
        report.acked = self.oracle.acked_count();
        report.committed = self.oracle.committed_count();
        report.leaders = self.oracle.leader_count();
        report.trace_hash = self.trace.hash();
        (self.trace.text(), result.map(|()| report))
    }

    fn run_phases(&mut self) -> Result<(), Violation> {
        self.run_until(self.plan.turbulence, |_| false)?;
        self.calm_down();
        let end = self.plan.turbulence + self.plan.patience;
        self.run_until(end, World::is_at_rest)?;
        demand(self.is_at_rest(), "L1 all comes to rest", || {
            self.describe_unrest()
        })?;
        self.oracle.settle()
    }

    fn run_until(
        &mut self,
        end: Duration,
        is_enough: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        while let Some(Reverse((at, ..))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Reverse((at, _, event)) = self.events.pop().expect("there is one");
            self.now = at;
            self.report.events += 1;
            demand(
                self.report.events <= EVENTS_MAX,
                "B1 work is bounded",
                || format!("{EVENTS_MAX} events"),
            )?;
            let audits = matches!(event.0, Event::Audit);
            self.handle(event.0)?;
            if audits && is_enough(self) {
                return Ok(());
            }
        }
        self.now = end;
        Ok(())
    }

    fn set_up(&mut self) {
        for number in 1..=self.plan.nodes {
            let id = NodeId(number);
            let node = Node {
                id,
                disk: self.new_disk(id),
                shards: Vec::new(),
                life: 0,
            };
            self.nodes.insert(id, node);
            self.at(Duration::ZERO, Event::Restart { node: id });
        }
        for index in 0..self.plan.clients {
            let group = self.group_of(index);
            let id = i64::from(index) + 1_000;
            let left = self.rng.u32(20..200);
            self.producers
                .push(Producer::new(id, group, left, self.plan.value_bytes_max));
            self.readers.push(Reader::new(group, self.rng.bool()));
            let index = usize::try_from(index).expect("few clients");
            for asker in [Asker::Producer(index), Asker::Reader(index)] {
                self.at(Duration::ZERO, Event::Client { asker, turn: 0 });
                self.waiting.insert(asker, 0);
            }
        }
        self.at(AUDIT_INTERVAL, Event::Audit);
        for node in 1..=self.plan.nodes {
            self.schedule(self.plan.crash_every, |_| Event::Crash {
                node: NodeId(node),
            });
        }
        self.schedule(self.plan.cut_every, |_| Event::Cut);
        self.schedule(self.plan.transfer_every, |_| Event::Transfer);
        self.schedule(self.plan.delete_every, |_| Event::Delete);
    }

    fn new_disk(&mut self, id: NodeId) -> Disk {
        let faults = Faults {
            delay_min: Duration::from_micros(50),
            delay_max: self.plan.disk_delay_max,
            stall_rate: self.plan.disk_stalls,
            stall: Duration::from_millis(700),
            write_error: self.plan.disk_errors,
            sync_error: self.plan.disk_errors,
            no_space: self.plan.disk_shortages,
            no_resources: self.plan.disk_shortages,
            ..Faults::default()
        };
        Disk::new(id, faults, self.rng.u64(..))
    }

    fn group_of(&self, index: u32) -> GroupId {
        GroupId(1 + u64::from(index) % self.plan.groups)
    }

    /// Lets something happen after about `every`, if it happens at all.
    fn schedule(&mut self, every: Option<Duration>, event: impl FnOnce(&mut World) -> Event) {
        if let Some(every) = every.filter(|_| !self.calm) {
            let wait = every.mul_f64(self.rng.f64() * 2.0);
            let event = event(self);
            self.after(wait, event);
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        let entry = (at, self.sequence, EventBox(event));
        self.events.push(Reverse(entry));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn clock(&self) -> Now {
        let ms = i64::try_from(self.now.as_millis()).expect("runs are short");
        Now {
            monotonic: self.now,
            wall_ms: EPOCH_MS + ms,
        }
    }
}

/// What happens.
impl World {
    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Wake { at, life } => {
                if self.nodes[&at.node].life != life {
                    return Ok(());
                }
                let Some(running) = self.running(at) else {
                    return Ok(());
                };
                let due = running.wake_at;
                if due.is_none_or(|due| due > self.now) {
                    return Ok(());
                }
                self.turn(at)
            }
            Event::Cross { to, life, input } => {
                if self.nodes[&to.node].life == life {
                    self.input(to, input);
                }
                Ok(())
            }
            Event::Deliver {
                from,
                to,
                session,
                lane,
                bytes,
            } => {
                let bytes = Buffer::from(bytes);
                let session = Session(session);
                let input = Input::PeerFrame {
                    from,
                    session,
                    lane,
                    bytes,
                };
                self.input(front(to), input);
                Ok(())
            }
            Event::LinkUp {
                node,
                peer,
                session,
            } => {
                self.trace
                    .note(self.now, &format!("{node} linked to {peer} by {session}"));
                self.input_all(node, || Input::PeerUp {
                    node: peer,
                    session: Session(session),
                    incarnation: incarnation_of(peer),
                });
                Ok(())
            }
            Event::LinkDown {
                node,
                peer,
                session,
            } => {
                self.trace
                    .note(self.now, &format!("{node} lost {peer} of {session}"));
                self.input_all(node, || Input::PeerDown {
                    node: peer,
                    session: Session(session),
                });
                Ok(())
            }
            Event::Connect { pair } => {
                self.connect(pair);
                Ok(())
            }
            Event::Crash { .. } | Event::Cut | Event::Transfer if self.scripted.is_calm() => Ok(()),
            Event::Crash { node } => {
                self.crash(node);
                Ok(())
            }
            Event::Restart { node } if self.scripted.is_down(node) => Ok(()),
            Event::Restart { node } => self.restart(node),
            Event::Cut => {
                self.cut();
                Ok(())
            }
            Event::Mend { pair } if self.scripted.is_parted(pair) => Ok(()),
            Event::Mend { pair } => {
                let link = self.network.links.entry(pair).or_default();
                link.cut = (false, false);
                self.after(Duration::from_millis(1), Event::Connect { pair });
                Ok(())
            }
            Event::Transfer => {
                let (group, to) = (self.any_group(), self.any_place());
                self.schedule(self.plan.transfer_every, |_| Event::Transfer);
                self.ask(Asker::Nobody, 0, to, group, Op::Transfer { to: None });
                Ok(())
            }
            Event::Delete => {
                let (group, to) = (self.any_group(), self.any_place());
                self.schedule(self.plan.delete_every, |_| Event::Delete);
                // Only what every reader has seen, so that none has to skip what it must see.
                let readers = self.readers.iter().filter(|it| it.group() == group);
                if let Some(before) = readers.map(Reader::offset).min() {
                    let before = Some(before);
                    self.ask(Asker::Nobody, 0, to, group, Op::DeleteRecords { before });
                }
                Ok(())
            }
            Event::Client { asker, turn } => self.client(asker, turn, None),
            Event::Question { to, question } => {
                self.input(to, question);
                Ok(())
            }
            Event::Audit => {
                self.audit();
                Ok(())
            }
        }
    }

    fn any_group(&mut self) -> GroupId {
        GroupId(self.rng.u64(1..=self.plan.groups))
    }

    fn any_place(&mut self) -> Place {
        let node = NodeId(self.rng.u32(1..=self.plan.nodes));
        let shard = self.rng.u16(0..self.plan.shards_of(node));
        Place {
            node,
            shard: ShardId(shard),
        }
    }

    fn running(&mut self, at: Place) -> Option<&mut Running> {
        let node = self.nodes.get_mut(&at.node)?;
        node.shards.get_mut(usize::from(at.shard.0))
    }

    /// Something comes into a shard, which takes a turn soon.
    fn input(&mut self, to: Place, input: Input) {
        if let Some(running) = self.running(to) {
            running.shard.push(input);
            self.wake(to, self.now);
        }
    }

    /// Something comes into all shards of a node.
    fn input_all(&mut self, node: NodeId, input: impl Fn() -> Input) {
        for shard in (0..self.plan.shards_of(node)).map(ShardId) {
            self.input(Place { node, shard }, input());
        }
    }

    fn wake(&mut self, at: Place, due: Duration) {
        let life = self.nodes[&at.node].life;
        let Some(running) = self.running(at) else {
            return;
        };
        if running.wake_at.is_none_or(|before| due < before) {
            running.wake_at = Some(due);
            self.at(due, Event::Wake { at, life });
        }
    }

    fn turn(&mut self, at: Place) -> Result<(), Violation> {
        let now = self.clock();
        let node = self.nodes.get_mut(&at.node).expect("nodes stay");
        node.disk.set_now(self.now);
        let running = &mut node.shards[usize::from(at.shard.0)];
        running.wake_at = None;
        let turn = running.shard.turn(now);
        let mut outputs = Vec::new();
        while let Some(output) = running.shard.poll_output() {
            outputs.push(output);
        }
        for group in running.shard.groups() {
            let status = running.shard.status(group).expect("listed");
            self.oracle.standing(at.node, group, &status)?;
        }
        let due = [turn.next_deadline, node.disk.next_due(at.shard)];
        let due = due.into_iter().flatten().min();
        for output in outputs {
            self.output(at, output)?;
        }
        if turn.more {
            self.wake(at, self.now + Duration::from_micros(1));
        } else if let Some(due) = due {
            self.wake(at, due.max(self.now + Duration::from_nanos(1)));
        }
        Ok(())
    }

    fn output(&mut self, place: Place, output: Output) -> Result<(), Violation> {
        let from = place.node;
        match output {
            Output::PeerFrame {
                to,
                session,
                lane,
                chunks,
            } => {
                let mut bytes: Vec<u8> = Vec::new();
                for chunk in &chunks {
                    bytes.extend_from_slice(chunk);
                }
                self.trace.note(
                    self.now,
                    &format!("{from} to {to} by {lane:?}: {} bytes", bytes.len()),
                );
                self.trace.mix(&bytes);
                self.deliver(from, to, session.0, lane, bytes);
                Ok(())
            }
            Output::LocalDone { ticket, result } => {
                let Some((asker, turn)) = self.tickets.remove(&ticket.0) else {
                    return Ok(());
                };
                self.answered(from, asker, turn, result)
            }
            Output::ToShard { to, message } => {
                let input = Input::FromShard {
                    from: place.shard,
                    message,
                };
                self.cross(Place { shard: to, ..place }, input);
                Ok(())
            }
            Output::Failed { reason } => {
                let expected = self.plan.disk_errors > 0.0 && !self.calm;
                self.trace
                    .note(self.now, &format!("{from} fails: {reason}"));
                self.fail(from);
                demand(expected, "the disk fails only where it is told to", || {
                    reason
                })
            }
            other => demand(false, "nothing else comes out", || format!("{other:?}")),
        }
    }

    /// A message between shards of a node takes some microseconds.
    fn cross(&mut self, to: Place, input: Input) {
        let life = self.nodes[&to.node].life;
        let wait = Duration::from_micros(self.rng.u64(1..100));
        let soonest = self.now + wait;
        let Some(running) = self.running(to) else {
            return;
        };
        let at = soonest.max(running.crossed + Duration::from_nanos(1));
        running.crossed = at;
        self.at(at, Event::Cross { to, life, input });
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, session: u64, lane: Lane, bytes: Vec<u8>) {
        let link = self.network.links.get(&Pair::of(from, to));
        if link.is_none_or(|link| link.session != Some(session)) {
            return;
        }
        let fate = self.network.send(&self.plan, self.now, from, to, lane);
        if fate.arrivals.len() != 1 || fate.flip.is_some() {
            self.report.frames_troubled += 1;
        }
        for at in fate.arrivals {
            let mut bytes = bytes.clone();
            if let Some(bit) = fate.flip {
                let len = u64::try_from(bytes.len()).expect("frames are small");
                let at = usize::try_from(bit / 8 % len).expect("below the length");
                bytes[at] ^= 1 << (bit % 8);
            }
            let event = Event::Deliver {
                from,
                to,
                session,
                lane,
                bytes,
            };
            self.at(at, event);
        }
    }
}

/// The shard that has the node's endpoint.
fn front(node: NodeId) -> Place {
    Place {
        node,
        shard: ShardId(0),
    }
}

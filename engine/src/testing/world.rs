//! The event loop of the simulated world.

mod agenda;
mod audit;
mod clients;
mod durable;
mod embedded;
mod faults;
mod finish;
mod hindrance;
mod nodes;
mod observe;
mod report;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use highwater_record::{Budget, Buffer, BufferPool};

use super::clock::Clock;
use super::disk::{Disk, SimStorage};
use super::history::{self, History, Partition};
use super::network::{Network, Pair};
use super::oracle::{Oracle, Violation, demand};
use super::plan::{Plan, TopicPlan, stream};
use super::trace::Trace;
use crate::kafka::KafkaService;
use crate::{
    ConnId, GroupId, Input, Lane, LogIndex, NodeId, Output, ReplicaStatus, Session, Shard, ShardId,
};
use agenda::{Agenda, Event};
use audit::Placements;
use clients::{Connection, Seated};
use embedded::Scripted;
pub use embedded::{Embedded, Lost};
use finish::{FinalRead, Read};
pub use hindrance::Hindrance;
pub(super) use nodes::{CLUSTER, incarnation_of};
pub use report::{Outcome, Report};
use turns::Turns;

/// The wall clock at the beginning of every run, in milliseconds since the Unix epoch.
pub(super) const EPOCH_MS: i64 = 1_700_000_000_000;

/// How often the auditor asks each replica for what is committed.
const AUDIT_INTERVAL: Duration = Duration::from_millis(200);

/// How many events a run may have for each second it lasts; more means that something goes round
/// in circles.
const EVENTS_PER_SECOND_MAX: u64 = 200_000;

/// How much memory all requests may take that wait, in bytes: more than nodes let wait.
const REQUEST_BYTES_MAX: usize = 4 << 30;

/// A shard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: NodeId,
    shard: ShardId,
}

/// Something that happens.
enum Next {
    Turn(Place),
    Event(Event),
}

/// Who waits for the answer to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    /// The auditor, about a replica in this life of its node.
    Auditor(NodeId, GroupId, u64),
    /// Who reads the whole log of a replica in the end.
    Final(NodeId, GroupId),
    /// A test that drives the world by itself, by this call.
    Embedded(u64),
    /// Somebody who reads from any replica, from an offset on.
    Peeker(GroupId, i64),
    /// Nobody.
    Nobody,
}

/// A node: its disk, and its shards while it lives.
struct Node {
    id: NodeId,
    disk: Disk,
    clock: Clock,
    shards: Vec<Running>,
    life: u64,
    /// What it knew of the time when it died, as its owner keeps it.
    last_known_wall_ms: Option<i64>,
    /// It does nothing until then.
    paused: Option<Duration>,
    /// Its own disk is away.
    is_emptied: bool,
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
    /// What it may take of memory.
    budget: Budget,
    /// The groups that had a replica here after its last turn, and how it stood.
    seen: Vec<(GroupId, Option<ReplicaStatus>)>,
    /// When the last message to it from another shard arrives: they keep their order.
    crossed: Duration,
}

type SimShard = Shard<SimStorage, KafkaService>;

/// The whole world.
pub struct World {
    plan: Plan,
    now: Duration,
    agenda: Agenda,
    turns: Turns,
    /// What a turn has put out; empty between turns, kept for its memory.
    outputs: Vec<Output>,
    nodes: BTreeMap<NodeId, Node>,
    network: Network,
    /// Chance of the world itself.
    rng: Rng,
    client_rng: Rng,
    /// Chance of when disks are looked at, which changes nothing else.
    durable_rng: Rng,
    clients: Vec<Seated>,
    last_value: u64,
    /// How many records producers know to be acknowledged.
    acked: u64,
    passing: Option<Arc<str>>,
    /// Whose connection is whose.
    connections: BTreeMap<ConnId, Connection>,
    next_connection: u64,
    tickets: BTreeMap<u64, Asker>,
    next_ticket: u64,
    /// What a test does to the world by itself.
    scripted: Scripted,
    /// How far the auditor has read, by replica.
    audited: BTreeMap<(NodeId, GroupId), LogIndex>,
    finals: BTreeMap<(NodeId, GroupId), FinalRead>,
    /// What was read finally, by entry.
    read: BTreeMap<(GroupId, LogIndex), Read>,
    /// The memory that requests come in, as a listener has it.
    requests: BufferPool,
    /// Where partitions were placed: for the end, when nobody may know it any more.
    known: BTreeMap<GroupId, (Partition, Vec<NodeId>)>,
    /// Nodes whose disk was found damaged: they may lack something.
    damaged: BTreeSet<NodeId>,
    watched: BTreeMap<(NodeId, GroupId), ReplicaStatus>,
    placements: Placements,
    oracle: Oracle,
    history: History,
    trace: Trace,
    calm: bool,
    report: Report,
}

/// Runs a plan to its end.
///
/// # Errors
///
/// The first [`Violation`].
pub fn run(plan: Plan) -> Result<Report, Violation> {
    World::new(plan).run().result
}

impl World {
    /// A world at its beginning.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        let mut world = World {
            network: Network::new(stream(plan.seed, "network")),
            rng: stream(plan.seed, "world"),
            client_rng: stream(plan.seed, "clients"),
            durable_rng: stream(plan.seed, "durable"),
            now: Duration::ZERO,
            agenda: Agenda::default(),
            turns: Turns::default(),
            outputs: Vec::new(),
            nodes: BTreeMap::new(),
            clients: Vec::new(),
            last_value: 0,
            acked: 0,
            passing: None,
            connections: BTreeMap::new(),
            next_connection: 0,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            scripted: Scripted::default(),
            audited: BTreeMap::new(),
            finals: BTreeMap::new(),
            read: BTreeMap::new(),
            requests: BufferPool::new(Budget::new(REQUEST_BYTES_MAX), 4096),
            known: BTreeMap::new(),
            damaged: BTreeSet::new(),
            watched: BTreeMap::new(),
            placements: Placements::default(),
            oracle: Oracle::default(),
            history: History::default(),
            trace: Trace::default(),
            calm: false,
            report: Report::default(),
            plan,
        };
        world.set_up();
        world
    }

    /// Keeps the text of the trace.
    #[must_use]
    pub fn traced(mut self) -> World {
        self.trace = Trace::with_text();
        self
    }

    /// Runs to the end: faults for a while, then none until everything has come to rest, then
    /// every replica is read and the clients' history judged.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let result = self.run_phases();
        for node in (1..=self.plan.nodes).map(NodeId) {
            self.note_end(node);
        }
        let had_ten = self.oracle.groups_with_leaders(10);
        self.report
            .reached
            .add("a partition has had ten leaders", had_ten);
        let mut report = self.report;
        report.time = self.now;
        report.committed = self.oracle.committed_count();
        report.leaders = self.oracle.leader_count();
        report.trace_hash = self.trace.hash();
        Outcome {
            trace: self.trace.text(),
            history: self.history,
            result: result.map(|()| report),
        }
    }

    fn run_phases(&mut self) -> Result<(), Violation> {
        self.run_until(self.plan.turbulence, |_| false)?;
        self.run_overtime()?;
        self.calm_down();
        let end = self.now + self.plan.patience;
        self.run_until(end, World::is_at_rest)?;
        demand(
            self.is_at_rest() || self.may_stop(),
            "L1 all comes to rest",
            || self.describe_unrest(),
        )?;
        self.read_replicas()?;
        self.judge_history()
    }

    /// Planned faults are over, those by chance go on: a run that has proved little is given time.
    fn run_overtime(&mut self) -> Result<(), Violation> {
        let enough = self.plan.acked_min;
        if self.acked >= enough || self.clients.is_empty() {
            return Ok(());
        }
        let end = self.now + self.plan.turbulence;
        self.run_until(end, |world| world.acked >= enough)
    }

    /// Whether the plan goes beyond what the protocol promises to survive.
    fn may_stop(&self) -> bool {
        self.plan.profile == super::plan::Profile::Beyond
    }

    fn judge_history(&mut self) -> Result<(), Violation> {
        for seated in &mut self.clients {
            seated.client.give_up(&mut self.history);
        }
        let retention = self.plan.topics.iter().any(TopicPlan::may_shrink);
        let verdict = history::check(&self.history, history::Rules { retention });
        self.report.acked = verdict.acked;
        self.report.read_finally = verdict.read_finally;
        self.report.operations = verdict.events / 2;
        let first = verdict.anomalies.first();
        demand(verdict.is_clean(), "the clients' history is clean", || {
            format!("{:?}; first of them: {first:?}", verdict.counts)
        })
    }

    fn run_until(
        &mut self,
        end: Duration,
        is_enough: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        while let Some(audits) = self.step(end)? {
            if audits && is_enough(self) {
                return Ok(());
            }
        }
        self.now = end;
        Ok(())
    }

    /// Lets the next thing happen, if it does by `end`. Whether the auditor has looked.
    fn step(&mut self, end: Duration) -> Result<Option<bool>, Violation> {
        let Some((at, next)) = self.next_by(end) else {
            return Ok(None);
        };
        self.now = at;
        self.history.set_now(at);
        self.report.events += 1;
        let events_max = EVENTS_PER_SECOND_MAX * (self.now.as_secs() + 10);
        demand(
            self.report.events <= events_max,
            "B1 work is bounded",
            || format!("{events_max} events"),
        )?;
        let audits = matches!(next, Next::Event(Event::Audit));
        match next {
            Next::Turn(place) => self.woken(place)?,
            Next::Event(event) => self.handle(event)?,
        }
        Ok(Some(audits))
    }

    /// What happens next, if it does by `end`. Turns come behind all else that happens at their
    /// time.
    fn next_by(&mut self, end: Duration) -> Option<(Duration, Next)> {
        let event_at = self.agenda.next_at();
        match self.turns.first() {
            Some((at, place)) if at <= end && event_at.is_none_or(|event_at| at < event_at) => {
                self.turns.remove(place);
                Some((at, Next::Turn(place)))
            }
            _ => {
                let (at, event) = self.agenda.next_by(end)?;
                Some((at, Next::Event(event)))
            }
        }
    }

    fn set_up(&mut self) {
        for id in (1..=self.plan.nodes).map(NodeId) {
            let node = Node {
                id,
                disk: self.new_disk(id),
                clock: Clock::new(EPOCH_MS),
                shards: Vec::new(),
                life: 0,
                last_known_wall_ms: None,
                paused: None,
                is_emptied: false,
            };
            self.nodes.insert(id, node);
            self.at(Duration::ZERO, Event::Restart { node: id });
        }
        self.seat_clients();
        self.at(AUDIT_INTERVAL, Event::Audit);
        self.plan_look_at_disks();
        for (number, fault) in self.plan.faults.clone().into_iter().enumerate() {
            self.at(fault.at, Event::Fault { number });
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.agenda.add(at, event);
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }
}

/// What happens.
impl World {
    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
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
                let input = Input::PeerFrame {
                    from,
                    session: Session(session),
                    lane,
                    bytes: Buffer::from(bytes),
                };
                self.input(front(to), input);
                Ok(())
            }
            Event::LinkUp {
                node,
                peer,
                session,
            } => {
                self.link_up(node, peer, session);
                Ok(())
            }
            Event::LinkDown {
                node,
                peer,
                session,
            } => {
                self.link_down(node, peer, session);
                Ok(())
            }
            Event::Connect { pair } => {
                self.connect(pair);
                Ok(())
            }
            Event::Mend { pair } if self.scripted.is_parted(pair) => Ok(()),
            Event::Mend { pair } => {
                self.mend(pair);
                Ok(())
            }
            Event::Fault { number } => {
                self.fault(number);
                Ok(())
            }
            Event::Flap {
                pair,
                times,
                period,
            } => {
                self.flap(pair, times, period);
                Ok(())
            }
            Event::Restart { node } | Event::PutBack { node } if self.scripted.is_down(node) => {
                Ok(())
            }
            Event::Restart { node } => self.restart(node),
            Event::Decay {
                node,
                life,
                older,
                pick,
            } => {
                self.decay(node, life, &older, pick);
                Ok(())
            }
            Event::PutBack { node } => {
                let node_ = self.nodes.get_mut(&node).expect("nodes stay");
                node_.is_emptied = false;
                self.restart(node)
            }
            Event::Resume { node } => {
                self.resume(node);
                Ok(())
            }
            Event::Recover { node } => {
                let node = self.nodes.get_mut(&node).expect("nodes stay");
                node.disk.recover();
                Ok(())
            }
            Event::Client { index, turn } => self.client(index, turn, None),
            Event::Request {
                to,
                life,
                conn,
                frame,
            } => {
                self.request(to, life, conn, &frame);
                Ok(())
            }
            Event::Leave { at, conn } => {
                self.leave(at, conn);
                Ok(())
            }
            Event::Answer {
                index,
                turn,
                answer,
            } => self.client(index, turn, Some(answer)),
            Event::LookAtDisks { is_planned } => self.look_at_disks(is_planned),
            Event::Audit => {
                self.audit();
                self.observe_gauges()
            }
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
        if self.running(at).is_some() {
            self.turns.add(due, at);
        }
    }

    fn woken(&mut self, at: Place) -> Result<(), Violation> {
        match self.nodes[&at.node].paused {
            Some(until) => {
                self.wake(at, until);
                Ok(())
            }
            None => self.turn(at),
        }
    }

    fn turn(&mut self, at: Place) -> Result<(), Violation> {
        let node = self.nodes.get_mut(&at.node).expect("nodes stay");
        let now = node.clock.at(self.now);
        node.disk.set_now(at.shard, self.now);
        let running = &mut node.shards[usize::from(at.shard.0)];
        let turn = running.shard.turn(now);
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = running.shard.poll_output() {
            outputs.push(output);
        }
        let deadline = turn.next_deadline.map(|due| node.clock.when(due));
        let due = [deadline, node.disk.next_due(at.shard)];
        let due = due.into_iter().flatten().min();
        self.observe(at)?;
        for output in outputs.drain(..) {
            self.output(at, output)?;
        }
        self.outputs = outputs;
        if turn.more {
            self.report.reached.hit("a turn leaves work for the next");
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
                let len = chunks.iter().map(|chunk| chunk.len()).sum();
                let mut bytes: Vec<u8> = Vec::with_capacity(len);
                for chunk in &chunks {
                    bytes.extend_from_slice(chunk);
                }
                self.trace.frame(self.now, from, to, lane, &bytes);
                self.deliver(from, to, session.0, lane, bytes);
                Ok(())
            }
            Output::LocalDone { ticket, result } => {
                let Some(asker) = self.tickets.remove(&ticket.0) else {
                    return Ok(());
                };
                self.answered(from, asker, result)
            }
            Output::ToShard { to, message } => {
                let input = Input::FromShard {
                    from: place.shard,
                    message,
                };
                self.cross(Place { shard: to, ..place }, input);
                Ok(())
            }
            Output::Response { conn, chunks } => {
                self.respond(conn, &chunks);
                Ok(())
            }
            Output::Close { conn } => {
                self.hang_up(conn);
                Ok(())
            }
            Output::Failed { reason } => {
                self.trace
                    .note(self.now, || format!("{from} fails: {reason}"));
                // What had begun before it became calm may still fail.
                let expected = self.plan.disk_errors > 0.0;
                self.report.count("disk failure");
                self.report.reached.hit("a disk fails and its node ends");
                self.power_cut(from);
                let down = Duration::from_millis(self.rng.u64(10..3_000));
                self.after(down, Event::Restart { node: from });
                demand(expected, "the disk fails only where it is told to", || {
                    reason
                })
            }
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
            self.report
                .reached
                .hit("a frame of an earlier session is dropped");
            return;
        }
        let fate = self.network.send(&self.plan, self.now, from, to, lane);
        self.count_fate(&fate);
        let mut bytes = bytes;
        if let Some(bit) = fate.flip {
            let len = u64::try_from(bytes.len()).expect("frames are small");
            let at = usize::try_from(bit / 8 % len).expect("below the length");
            bytes[at] ^= 1 << (bit % 8);
        }
        let last = fate.arrivals.len().saturating_sub(1);
        for (number, at) in fate.arrivals.into_iter().enumerate() {
            let bytes = match number == last {
                true => std::mem::take(&mut bytes),
                false => bytes.clone(),
            };
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

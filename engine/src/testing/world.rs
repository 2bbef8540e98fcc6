//! The event loop of the simulated world.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;
use highwater_log::{ClusterId, Incarnation};
use highwater_record::{Budget, Buffer, BufferPool};

use super::client::{Producer, Reader, Wish};
use super::disk::{Disk, SimStorage};
use super::network::{Network, Pair};
use super::oracle::{Oracle, Violation, demand};
use super::plan::Plan;
use super::trace::Trace;
use crate::{
    GroupCommand, GroupConfig, GroupId, GroupSpec, Input, Lane, LogIndex, NoService, NodeId, Now,
    Op, OpError, OpResult, Outcome, Output, Session, Shard, ShardConfig, ShardId, Ticket, Timing,
};

/// The wall clock at the beginning of every run, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// How often the auditor asks each replica for what is committed.
const AUDIT_INTERVAL: Duration = Duration::from_millis(100);

/// How many events a run may have; more means that something goes round in circles.
const EVENTS_MAX: u64 = 5_000_000;

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// A node is to take a turn.
    Wake { node: NodeId, life: u64 },
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
    /// A client's question reaches a node.
    Question { node: NodeId, question: Input },
    /// The auditor looks.
    Audit,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Producer(usize),
    Reader(usize),
    Auditor(NodeId, GroupId),
    Deleter,
    Nobody,
}

/// A node: its disk, and its shard while it lives.
struct Node {
    id: NodeId,
    disk: Disk,
    shard: Option<SimShard>,
    life: u64,
    wake_at: Option<Duration>,
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
    tickets: BTreeMap<(NodeId, u64), (Asker, u64)>,
    next_ticket: u64,
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
                disk: Disk::new(self.plan.disk_delay_max, self.rng.u64(..)),
                shard: None,
                life: 0,
                wake_at: None,
            };
            self.nodes.insert(id, node);
            self.at(Duration::ZERO, Event::Restart { node: id });
        }
        for index in 0..self.plan.clients {
            let group = self.group_of(index);
            let id = i64::from(index) + 1_000;
            let left = self.rng.u32(20..200);
            self.producers.push(Producer::new(id, group, left));
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
            Event::Wake { node, life } => {
                let due = self.nodes.get_mut(&node).expect("nodes stay");
                if due.life != life || due.wake_at.is_none_or(|at| at > self.now) {
                    return Ok(());
                }
                due.wake_at = None;
                return self.turn(node);
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
                return self.input(to, input);
            }
            Event::LinkUp {
                node,
                peer,
                session,
            } => {
                self.trace
                    .note(self.now, &format!("{node} linked to {peer} by {session}"));
                let input = Input::PeerUp {
                    node: peer,
                    session: Session(session),
                    incarnation: incarnation_of(peer),
                };
                return self.input(node, input);
            }
            Event::LinkDown {
                node,
                peer,
                session,
            } => {
                self.trace
                    .note(self.now, &format!("{node} lost {peer} of {session}"));
                let input = Input::PeerDown {
                    node: peer,
                    session: Session(session),
                };
                return self.input(node, input);
            }
            Event::Connect { pair } => self.connect(pair),
            Event::Crash { node } => self.crash(node),
            Event::Restart { node } => return self.restart(node),
            Event::Cut => self.cut(),
            Event::Mend { pair } => {
                let link = self.network.links.entry(pair).or_default();
                link.cut = (false, false);
                self.after(Duration::from_millis(1), Event::Connect { pair });
            }
            Event::Transfer => {
                let group = GroupId(self.rng.u64(1..=self.plan.groups));
                let node = NodeId(self.rng.u32(1..=self.plan.nodes));
                self.schedule(self.plan.transfer_every, |_| Event::Transfer);
                return self.ask(Asker::Nobody, 0, node, group, Op::Transfer { to: None });
            }
            Event::Delete => {
                let group = GroupId(self.rng.u64(1..=self.plan.groups));
                let node = NodeId(self.rng.u32(1..=self.plan.nodes));
                self.schedule(self.plan.delete_every, |_| Event::Delete);
                // Only what every reader has seen, so that none has to skip what it must see.
                let readers = self.readers.iter().filter(|it| it.group() == group);
                let Some(before) = readers.map(Reader::offset).min() else {
                    return Ok(());
                };
                let before = Some(before);
                return self.ask(Asker::Deleter, 0, node, group, Op::DeleteRecords { before });
            }
            Event::Client { asker, turn } => return self.client(asker, turn, None),
            Event::Question { node, question } => return self.input(node, question),
            Event::Audit => return self.audit(),
        }
        Ok(())
    }

    /// Something comes into a node, which takes a turn soon.
    fn input(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        let Some(shard) = self.nodes.get_mut(&node).and_then(|it| it.shard.as_mut()) else {
            return Ok(());
        };
        shard.push(input);
        self.wake(node, self.now);
        Ok(())
    }

    fn wake(&mut self, node: NodeId, at: Duration) {
        let due = self.nodes.get_mut(&node).expect("nodes stay");
        if due.wake_at.is_none_or(|before| at < before) {
            due.wake_at = Some(at);
            let life = due.life;
            self.at(at, Event::Wake { node, life });
        }
    }

    fn turn(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.clock();
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        let Some(shard) = node.shard.as_mut() else {
            return Ok(());
        };
        node.disk.set_now(self.now);
        let turn = shard.turn(now);
        let mut outputs = Vec::new();
        while let Some(output) = shard.poll_output() {
            outputs.push(output);
        }
        for group in shard.groups() {
            let status = shard.status(group).expect("listed");
            self.oracle.standing(id, group, &status)?;
        }
        let due = [turn.next_deadline, node.disk.next_due()];
        let due = due.into_iter().flatten().min();
        for output in outputs {
            self.output(id, output)?;
        }
        if turn.more {
            self.wake(id, self.now + Duration::from_micros(1));
        } else if let Some(due) = due {
            self.wake(id, due.max(self.now + Duration::from_nanos(1)));
        }
        Ok(())
    }

    fn output(&mut self, from: NodeId, output: Output) -> Result<(), Violation> {
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
                let Some((asker, turn)) = self.tickets.remove(&(from, ticket.0)) else {
                    return Ok(());
                };
                self.answered(from, asker, turn, result)
            }
            Output::Failed { reason } => demand(false, "the disk does not fail here", || reason),
            other => demand(false, "nothing else comes out", || format!("{other:?}")),
        }
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

/// Nodes and links.
impl World {
    fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.clock();
        let seed = self.rng.u64(..);
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        if node.shard.is_some() {
            return Ok(());
        }
        node.life += 1;
        let config = ShardConfig {
            cluster: CLUSTER,
            node: id,
            incarnation: incarnation_of(id),
            shard: ShardId(0),
            shards: 1,
            seed,
            timing: Timing::default(),
            controller: None,
        };
        let pool = BufferPool::new(Budget::new(64 << 20), 4096);
        let (store, recovered) = node.disk.open(seed, self.now);
        let shard = Shard::open(config, store, recovered, pool, NoService::default(), now);
        let mut shard = shard.map_err(|error| Violation {
            rule: "D4 what was written can be read again",
            what: format!("{id}: {error}"),
        })?;
        for group in (1..=self.plan.groups).map(GroupId) {
            shard.push(Input::Group(GroupCommand::Create(GroupSpec {
                group,
                replicas: (1..=self.plan.nodes).map(NodeId).collect(),
                config: GroupConfig {
                    segment_bytes: 64 << 10,
                    ..GroupConfig::default()
                },
            })));
        }
        node.shard = Some(shard);
        self.trace
            .note(self.now, &format!("{id} starts, life {}", node.life));
        self.oracle.reborn(id);
        self.audited.retain(|(node, _), _| *node != id);
        self.wake(id, self.now);
        for peer in (1..=self.plan.nodes).map(NodeId).filter(|&peer| peer != id) {
            let wait = self.network.delay(Duration::from_millis(50));
            let pair = Pair::of(id, peer);
            self.after(wait, Event::Connect { pair });
        }
        Ok(())
    }

    fn crash(&mut self, id: NodeId) {
        self.schedule(self.plan.crash_every, |_| Event::Crash { node: id });
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        let Some(shard) = node.shard.take() else {
            return;
        };
        drop(shard);
        node.disk.crash();
        node.wake_at = None;
        self.report.crashes += 1;
        self.trace.note(self.now, &format!("{id} crashes"));
        for peer in (1..=self.plan.nodes).map(NodeId).filter(|&peer| peer != id) {
            let link = self.network.links.entry(Pair::of(id, peer)).or_default();
            if let Some(session) = link.session.take() {
                let wait = self.network.delay(Duration::from_millis(400));
                let down = Event::LinkDown {
                    node: peer,
                    peer: id,
                    session,
                };
                self.after(wait, down);
            }
        }
        let down = Duration::from_millis(self.rng.u64(10..3_000));
        self.after(down, Event::Restart { node: id });
    }

    fn connect(&mut self, pair: Pair) {
        let alive = |id: NodeId| self.nodes[&id].shard.is_some();
        let link = self.network.links.entry(pair).or_default();
        let is_cut = link.cut != (false, false);
        if link.session.is_some() || is_cut || !alive(pair.0) || !alive(pair.1) {
            return;
        }
        let session = self.network.new_session();
        let link = self.network.links.entry(pair).or_default();
        link.session = Some(session);
        for (node, peer) in [(pair.0, pair.1), (pair.1, pair.0)] {
            let wait = self.network.delay(Duration::from_millis(5));
            let up = Event::LinkUp {
                node,
                peer,
                session,
            };
            self.after(wait, up);
        }
    }

    /// Cuts a link, or all links of a node, one way or both; the ends may notice, or only see
    /// nothing arrive.
    fn cut(&mut self) {
        self.schedule(self.plan.cut_every, |_| Event::Cut);
        if self.plan.nodes < 2 {
            return;
        }
        let node = NodeId(self.rng.u32(1..=self.plan.nodes));
        let mut peers: Vec<NodeId> = (1..=self.plan.nodes).map(NodeId).collect();
        peers.retain(|&peer| peer != node);
        if self.rng.bool() {
            let only = peers[self.rng.usize(..peers.len())];
            peers.retain(|&peer| peer == only);
        }
        let cut = [(true, true), (true, false), (false, true)][self.rng.usize(..3)];
        let noticed = self.rng.bool();
        let mended = Duration::from_millis(self.rng.u64(50..4_000));
        self.trace
            .note(self.now, &format!("{node} is cut from {peers:?}: {cut:?}"));
        for peer in peers {
            self.cut_link(Pair::of(node, peer), cut, noticed);
            let pair = Pair::of(node, peer);
            self.after(mended, Event::Mend { pair });
        }
    }

    fn cut_link(&mut self, pair: Pair, cut: (bool, bool), noticed: bool) {
        let link = self.network.links.entry(pair).or_default();
        link.cut = cut;
        let lost = if noticed { link.session.take() } else { None };
        let Some(session) = lost else { return };
        for (node, peer) in [(pair.0, pair.1), (pair.1, pair.0)] {
            let wait = self.network.delay(Duration::from_millis(500));
            let down = Event::LinkDown {
                node,
                peer,
                session,
            };
            self.after(wait, down);
        }
    }

    /// No more faults: dead nodes start, links are mended.
    fn calm_down(&mut self) {
        self.trace.note(self.now, "calm");
        self.calm = true;
        self.network.calm_down();
        for id in (1..=self.plan.nodes).map(NodeId) {
            self.after(Duration::from_millis(10), Event::Restart { node: id });
            for peer in (id.0 + 1..=self.plan.nodes).map(NodeId) {
                let pair = Pair::of(id, peer);
                self.after(Duration::from_millis(20), Event::Connect { pair });
            }
        }
    }
}

/// Clients and the auditor.
impl World {
    fn ask(
        &mut self,
        asker: Asker,
        turn: u64,
        node: NodeId,
        group: GroupId,
        op: Op,
    ) -> Result<(), Violation> {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.tickets.insert((node, ticket), (asker, turn));
        let ticket = Ticket(ticket);
        self.input(node, Input::Local { ticket, group, op })
    }

    fn answered(
        &mut self,
        node: NodeId,
        asker: Asker,
        turn: u64,
        result: OpResult,
    ) -> Result<(), Violation> {
        match asker {
            Asker::Producer(_) | Asker::Reader(_) => self.client(asker, turn, Some(result)),
            Asker::Auditor(of, group) => {
                if self.nodes[&of].life == turn {
                    return self.audited(node, group, result);
                }
                Ok(())
            }
            Asker::Deleter => Ok(()),
            Asker::Nobody => Ok(()),
        }
    }

    /// A client is answered, has waited long enough, or may go on.
    fn client(
        &mut self,
        asker: Asker,
        turn: u64,
        result: Option<OpResult>,
    ) -> Result<(), Violation> {
        if self.waiting.get(&asker) != Some(&turn) {
            return Ok(());
        }
        let (rng, nodes) = (&mut self.client_rng, self.plan.nodes);
        let is_first = turn == 0;
        if let Some(result) = &result {
            self.trace
                .note(self.now, &format!("{asker:?} told {}", brief(result)));
        }
        let wish = match asker {
            Asker::Producer(index) => {
                let producer = &mut self.producers[index];
                if !is_first {
                    producer.told(rng, nodes, result.as_ref(), &mut self.oracle)?;
                }
                producer.wish(rng)
            }
            Asker::Reader(index) => {
                let reader = &mut self.readers[index];
                if !is_first {
                    reader.told(rng, nodes, result.as_ref(), &mut self.oracle)?;
                }
                Some(reader.wish(rng, &self.oracle))
            }
            Asker::Auditor(..) | Asker::Deleter | Asker::Nobody => None,
        };
        let Some(Wish { node, group, op }) = wish else {
            self.waiting.remove(&asker);
            return Ok(());
        };
        let turn = turn + 1;
        self.waiting.insert(asker, turn);
        self.after(self.plan.answer_max, Event::Client { asker, turn });
        // A short pause, so that a refused client does not spin.
        let pause = Duration::from_micros(self.client_rng.u64(100..20_000));
        self.now_later(pause, asker, turn, node, group, op)
    }

    /// Asks after a pause: the question waits in the heap as an event of the network would.
    fn now_later(
        &mut self,
        pause: Duration,
        asker: Asker,
        turn: u64,
        node: NodeId,
        group: GroupId,
        op: Op,
    ) -> Result<(), Violation> {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert((node, ticket.0), (asker, turn));
        let question = Input::Local { ticket, group, op };
        self.after(pause, Event::Question { node, question });
        Ok(())
    }

    /// Asks every replica what it has committed since the last look.
    fn audit(&mut self) -> Result<(), Violation> {
        self.after(AUDIT_INTERVAL, Event::Audit);
        let nodes: Vec<(NodeId, u64)> = self
            .nodes
            .values()
            .filter(|node| node.shard.is_some())
            .map(|node| (node.id, node.life))
            .collect();
        for (node, life) in nodes {
            for group in (1..=self.plan.groups).map(GroupId) {
                let read = self.audited.entry((node, group)).or_default();
                let from = read.next();
                let asker = Asker::Auditor(node, group);
                let max_bytes = 64 << 10;
                self.ask(
                    asker,
                    life,
                    node,
                    group,
                    Op::ReadEntries { from, max_bytes },
                )?;
            }
        }
        Ok(())
    }

    fn audited(&mut self, node: NodeId, group: GroupId, result: OpResult) -> Result<(), Violation> {
        match result {
            Ok(Outcome::Entries { entries, .. }) => {
                for entry in entries {
                    let read = self.audited.entry((node, group)).or_default();
                    if entry.index != read.next() {
                        // The answer to an earlier look.
                        continue;
                    }
                    *read = entry.index;
                    self.oracle.committed(node, group, &entry)?;
                }
                Ok(())
            }
            Err(OpError::BelowLogStart { first }) => {
                let read = self.audited.entry((node, group)).or_default();
                *read = (*read).max(first.previous());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether producers are done and every replica has told all that the leader has committed.
    fn is_at_rest(&self) -> bool {
        self.producers.iter().all(Producer::is_done)
            && (1..=self.plan.groups)
                .map(GroupId)
                .all(|group| self.is_settled(group))
    }

    fn is_settled(&self, group: GroupId) -> bool {
        let mut ends = self.nodes.values().map(|node| {
            let status = node.shard.as_ref()?.status(group)?;
            let audited = self.audited.get(&(node.id, group)).copied();
            let is_told = audited.unwrap_or_default() == status.commit_index;
            (is_told && status.commit_index == status.last_index).then_some(status.commit_index)
        });
        let first = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }

    fn describe_unrest(&self) -> String {
        let mut text = String::new();
        for producer in self.producers.iter().filter(|it| !it.is_done()) {
            text += &format!("{producer:?}; ");
        }
        for node in self.nodes.values() {
            for group in (1..=self.plan.groups).map(GroupId) {
                let status = node.shard.as_ref().and_then(|it| it.status(group));
                let audited = self.audited.get(&(node.id, group));
                text += &format!("{} {group}: {status:?}, audited {audited:?}; ", node.id);
            }
        }
        text
    }
}

const CLUSTER: ClusterId = ClusterId(*b"simulated worlds");

fn incarnation_of(node: NodeId) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&node.0.to_le_bytes());
    Incarnation(bytes)
}

fn brief(result: &OpResult) -> String {
    match result {
        Ok(Outcome::Fetched(fetched)) => format!(
            "{} spans up to {:?} of {:?}",
            fetched.spans.len(),
            fetched.next_offset,
            fetched.high_watermark
        ),
        other => format!("{other:?}"),
    }
}

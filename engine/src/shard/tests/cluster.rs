//! A few nodes whose frames are carried by hand, at once and in order, over disks that take no
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_consensus::{Lane, LogIndex, NodeId, Session};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{
    ClusterId, Directory, DirectoryFormat, Expected, Incarnation, Store, StoreConfig,
};
use highwater_record::{
    BatchHeader, Budget, Buffer, BufferPool, Charge, Compression, ProducerStamp, RecordBatchBuilder,
};

use crate::counters::ShardReport;
use crate::io::{Input, Now, Output, ShardId, Ticket};
use crate::ops::{
    Batch, CommittedKind, GroupCommand, GroupConfig, GroupId, GroupSpec, Op, OpResult, Outcome,
    ReplicaStatus,
};
use crate::peer::{FrameBuilder, Route, Section};
use crate::service::NoService;
use crate::shard::{Shard, ShardConfig, Timing};

pub(super) const GROUP: GroupId = GroupId(5);

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

const STEP: Duration = Duration::from_millis(10);
const BUDGET_BYTES: usize = 64 << 20;

struct Node {
    disk: MemoryDisk,
    budget: Budget,
    shard: Shard<MemoryStorage, NoService>,
}

pub(super) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    now: Duration,
    /// How far the wall clocks of all nodes have jumped.
    jumped_ms: i64,
    answers: BTreeMap<Ticket, OpResult>,
    next_ticket: u64,
    cut: BTreeSet<NodeId>,
    without_appends: bool,
    without_bulk: bool,
    session: Session,
}

pub(super) fn batch(value: &str) -> Batch {
    batch_of(value, None)
}

pub(super) fn batch_of(value: &str, producer: Option<(i64, i32)>) -> Batch {
    build(1, value, producer)
}

/// A batch whose producer claims that it was made then.
pub(super) fn batch_at(timestamp: i64, value: &str) -> Batch {
    build(timestamp, value, None)
}

fn build(timestamp: i64, value: &str, producer: Option<(i64, i32)>) -> Batch {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    if let Some((producer_id, base_sequence)) = producer {
        builder.set_producer(ProducerStamp {
            producer_id,
            producer_epoch: 0,
            base_sequence,
        });
    }
    builder
        .append(timestamp, None, Some(value.as_bytes()), &[])
        .unwrap();
    let bytes = Buffer::from(builder.seal().unwrap());
    let header = BatchHeader::read(&bytes).unwrap();
    Batch { bytes, header }
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation([u8::try_from(node.0).unwrap(); 16])
}

fn open(
    id: NodeId,
    disk: &MemoryDisk,
    budget: &Budget,
    last_known_wall_ms: Option<i64>,
    now: Now,
) -> Shard<MemoryStorage, NoService> {
    let mut front = MemoryStorage::new(disk);
    let directory = Directory::open(&mut front, &Expected::default(), 1, 64 << 10).unwrap();
    drop(front);
    let storage = MemoryStorage::new(disk);
    // The log's write buffers have a budget of their own here.
    let pool = BufferPool::new(Budget::new(BUDGET_BYTES), 4096);
    let config = StoreConfig {
        reserve_bytes: 0,
        ..StoreConfig::default()
    };
    let groups = directory.groups();
    let (store, recovered) = Store::open(storage, pool, config, &directory, &groups).unwrap();
    let config = ShardConfig {
        cluster: ClusterId([9; 16]),
        node: id,
        incarnation: incarnation(id),
        shard: ShardId(0),
        shards: 1,
        seed: id.0.into(),
        timing: Timing::default(),
        controller: None,
        last_known_wall_ms,
    };
    let pool = BufferPool::new(budget.clone(), 4096);
    Shard::open(
        config,
        store,
        recovered.groups,
        pool,
        NoService::default(),
        now,
    )
    .unwrap()
}

impl Cluster {
    /// Nodes 1 to `count`, linked, with one group that nobody has used yet.
    pub(super) fn new(count: u32) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            now: Duration::ZERO,
            jumped_ms: 0,
            answers: BTreeMap::new(),
            next_ticket: 0,
            cut: BTreeSet::new(),
            without_appends: false,
            without_bulk: false,
            session: Session(1),
        };
        let now = cluster.clock();
        for id in (1..=count).map(NodeId) {
            let disk = MemoryDisk::new();
            let format = DirectoryFormat {
                node: highwater_log::NodeId(id.0),
                cluster: ClusterId([9; 16]),
                incarnation: incarnation(id),
                created_ms: 0,
            };
            Directory::format(&mut MemoryStorage::new(&disk), &format).unwrap();
            let budget = Budget::new(BUDGET_BYTES);
            let shard = open(id, &disk, &budget, None, now);
            let node = Node {
                disk,
                budget,
                shard,
            };
            cluster.nodes.insert(id, node);
        }
        let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        for &id in &ids {
            cluster.host(id);
            for &peer in ids.iter().filter(|&&peer| peer != id) {
                cluster.link(id, peer);
            }
        }
        cluster.settle();
        cluster
    }

    /// Tells a node that its link to a peer is up.
    fn link(&mut self, id: NodeId, peer: NodeId) {
        let up = Input::PeerUp {
            node: peer,
            session: self.session,
            incarnation: incarnation(peer),
        };
        self.shard(id).push(up);
    }

    fn host(&mut self, id: NodeId) {
        self.host_group(id, GROUP);
    }

    /// One more group, with a replica on each node.
    pub(super) fn host_everywhere(&mut self, group: GroupId) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.host_group(id, group);
        }
        self.settle();
    }

    fn host_group(&mut self, id: NodeId, group: GroupId) {
        let spec = GroupSpec {
            group,
            replicas: self.nodes.keys().copied().collect(),
            config: GroupConfig::default(),
        };
        let create = Input::Group(GroupCommand::Create(spec));
        self.shard(id).push(create);
    }

    fn shard(&mut self, id: NodeId) -> &mut Shard<MemoryStorage, NoService> {
        &mut self.nodes.get_mut(&id).unwrap().shard
    }

    fn clock(&self) -> Now {
        Now {
            monotonic: self.now,
            wall_ms: EPOCH_MS + self.jumped_ms + i64::try_from(self.now.as_millis()).unwrap(),
        }
    }

    /// Turns until nobody has anything to say, without time passing.
    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.round() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Turns, with time passing when nobody has anything to say, until it is so.
    pub(super) fn run_until(&mut self, is_so: impl Fn(&Cluster) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !is_so(self) {
            assert!(self.now < end, "it does not come about");
            if !self.round() {
                self.now += STEP;
            }
        }
    }

    /// One turn of every node. What comes out is carried, and looked at in the next one. Gives
    /// whether anything came out.
    pub(super) fn round(&mut self) -> bool {
        let now = self.clock();
        let mut outputs = Vec::new();
        for (&id, node) in &mut self.nodes {
            node.shard.turn(now);
            while let Some(output) = node.shard.poll_output() {
                outputs.push((id, output));
            }
        }
        let moved = !outputs.is_empty();
        for (from, output) in outputs {
            self.carry(from, output);
        }
        moved
    }

    fn carry(&mut self, from: NodeId, output: Output) {
        match output {
            Output::PeerFrame {
                to,
                session,
                lane,
                chunks,
            } => {
                let is_dropped = (self.without_appends && lane == Lane::Append)
                    || (self.without_bulk && lane == Lane::Bulk);
                if is_dropped || self.cut.contains(&from) || self.cut.contains(&to) {
                    return;
                }
                let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
                self.shard(to).push(Input::PeerFrame {
                    from,
                    session,
                    lane,
                    bytes: Buffer::from(bytes),
                });
            }
            Output::LocalDone { ticket, result } => {
                let twice = self.answers.insert(ticket, result);
                assert!(twice.is_none(), "{ticket:?} is answered twice");
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.settle();
        }
    }

    pub(super) fn submit(&mut self, number: u32, op: Op) -> Ticket {
        let ticket = self.push(number, op);
        self.settle();
        ticket
    }

    /// Asks for one and the same turn.
    pub(super) fn submit_together(&mut self, number: u32, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            self.push(number, op);
        }
        self.settle();
    }

    /// Leaves an operation to the node's next turn, behind what has come from its peers.
    pub(super) fn push(&mut self, number: u32, op: Op) -> Ticket {
        self.push_to(number, GROUP, op)
    }

    /// Asks another group than the first.
    pub(super) fn submit_to(&mut self, number: u32, group: GroupId, op: Op) -> Ticket {
        let ticket = self.push_to(number, group, op);
        self.settle();
        ticket
    }

    fn push_to(&mut self, number: u32, group: GroupId, op: Op) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let shard = self.shard(NodeId(number));
        shard.push(Input::Local { ticket, group, op });
        ticket
    }

    pub(super) fn cancel(&mut self, number: u32, ticket: Ticket) {
        let group = GROUP;
        self.shard(NodeId(number))
            .push(Input::LocalCancel { ticket, group });
        self.settle();
    }

    pub(super) fn answer(&self, ticket: Ticket) -> Option<OpResult> {
        self.answers.get(&ticket).cloned()
    }

    /// Asks, and waits a while for the answer.
    pub(super) fn ask(&mut self, number: u32, op: Op) -> Option<OpResult> {
        let ticket = self.submit(number, op);
        for _ in 0..20 {
            if self.answers.contains_key(&ticket) {
                break;
            }
            self.run(STEP * 5);
        }
        self.answer(ticket)
    }

    /// Lets a node become the group's leader.
    pub(super) fn elect(&mut self, number: u32) {
        self.submit(number, Op::Barrier);
        self.run(Duration::from_secs(1));
        assert!(self.status(number).is_leader);
    }

    pub(super) fn run_until_led_by_other(&mut self, than: u32) -> u32 {
        for _ in 0..1_000 {
            self.run(STEP);
            let mut others = self.nodes.keys().filter(|id| id.0 != than).copied();
            let led = others.find(|id| {
                let status = self.nodes[id].shard.status(GROUP);
                status.is_some_and(|status| status.is_leader)
            });
            if let Some(leader) = led {
                return leader.0;
            }
        }
        panic!("nobody else leads");
    }

    pub(super) fn status(&self, number: u32) -> ReplicaStatus {
        let status = self.nodes[&NodeId(number)].shard.status(GROUP);
        status.expect("the group is here")
    }

    /// Nothing reaches or leaves the node any more, and nobody notices.
    pub(super) fn cut(&mut self, number: u32) {
        self.cut.insert(NodeId(number));
    }

    /// It is reached again.
    pub(super) fn mend(&mut self, number: u32) {
        self.cut.remove(&NodeId(number));
    }

    pub(super) fn drop_appends(&mut self, dropped: bool) {
        self.without_appends = dropped;
    }

    /// Whether what replicas supply to each other is lost.
    pub(super) fn drop_bulk(&mut self, dropped: bool) {
        self.without_bulk = dropped;
    }

    pub(super) fn configure(&mut self, config: GroupConfig) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let config = config.clone();
            let group = GROUP;
            let configure = Input::Group(GroupCommand::Configure { group, config });
            self.shard(id).push(configure);
        }
        self.settle();
    }

    /// All wall clocks jump.
    pub(super) fn jump(&mut self, ms: i64) {
        self.jumped_ms += ms;
    }

    pub(super) fn drop_group(&mut self) {
        self.drop_group_on(1);
    }

    pub(super) fn drop_group_on(&mut self, number: u32) {
        self.shard(NodeId(number))
            .push(Input::Group(GroupCommand::Drop(GROUP)));
        self.settle();
    }

    /// All of a node's memory is taken until what is given is dropped.
    pub(super) fn exhaust_budget(&mut self, number: u32) -> Charge {
        let budget = &self.nodes[&NodeId(number)].budget;
        let left = budget.limit() - budget.used();
        budget.charge(left).unwrap()
    }

    /// Something that a node never said reaches another.
    pub(super) fn forge(&mut self, from: u32, to: u32, section: &Section) {
        let frame = self.forged(from, to, section);
        self.hostile_frame(from, to, frame);
    }

    fn forged(&self, from: u32, to: u32, section: &Section) -> Vec<u8> {
        let (from, to) = (NodeId(from), NodeId(to));
        let route = Route {
            cluster: ClusterId([9; 16]),
            from,
            from_incarnation: incarnation(from),
            to,
            to_incarnation: incarnation(to),
            session: self.session,
        };
        let mut builder = FrameBuilder::new();
        builder.push(section);
        let chunks = builder.finish(&route, 0);
        chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    /// The same, in one turn with the next beats of the first node, and before them.
    pub(super) fn forge_before_beats(&mut self, from: u32, to: u32, section: &Section) {
        let bytes = Buffer::from(self.forged(from, to, section));
        loop {
            let now = self.clock();
            let shard = self.shard(NodeId(1));
            shard.turn(now);
            let outputs: Vec<Output> = std::iter::from_fn(|| shard.poll_output()).collect();
            let is_to_them = |output: &Output| matches!(output, Output::PeerFrame { to: node, .. } if *node == NodeId(to));
            let is_time = outputs.iter().any(is_to_them);
            if is_time {
                let input = Input::PeerFrame {
                    from: NodeId(from),
                    session: self.session,
                    lane: Lane::Control,
                    bytes: bytes.clone(),
                };
                self.shard(NodeId(to)).push(input);
            }
            for output in outputs {
                self.carry(NodeId(1), output);
            }
            self.settle();
            if is_time {
                return;
            }
            self.now += STEP;
        }
    }

    pub(super) fn hostile_frame(&mut self, from: u32, to: u32, bytes: Vec<u8>) {
        let (bytes, session) = (Buffer::from(bytes), self.session);
        self.shard(NodeId(to)).push(Input::PeerFrame {
            from: NodeId(from),
            session,
            lane: Lane::Control,
            bytes,
        });
        self.settle();
    }

    pub(super) fn frames_refused(&self, number: u32) -> u64 {
        self.report(number).shard.frames_refused
    }

    pub(super) fn report(&self, number: u32) -> ShardReport {
        self.nodes[&NodeId(number)].shard.report()
    }

    /// The power fails and comes back.
    pub(super) fn restart(&mut self, number: u32) {
        self.restart_on(number, |_| {});
    }

    /// The power fails, and both copies of the journal are gone when it comes back.
    pub(super) fn restart_without_promises(&mut self, number: u32) {
        self.restart_on(number, |disk| {
            for path in ["journal/0000-a", "journal/0000-b"] {
                let len = disk.contents(path).unwrap().len();
                disk.corrupt(path, 0, &vec![0; len]).unwrap();
            }
        });
    }

    /// The power fails, and a file is gone when it comes back.
    pub(super) fn restart_without(&mut self, number: u32, path: &str) {
        self.restart_on(number, |disk| disk.remove(path).unwrap());
    }

    /// What its disk holds now.
    pub(super) fn disk(&self, number: u32) -> MemoryDisk {
        self.nodes[&NodeId(number)].disk.fork()
    }

    /// The power fails, and a file is as it was on an older copy of the disk when it comes back.
    pub(super) fn restart_rolled_back(&mut self, number: u32, path: &str, older: &MemoryDisk) {
        self.restart_on(number, |disk| disk.roll_back(path, older).unwrap());
    }

    /// The power fails, and what was once written is rotten when it comes back.
    pub(super) fn restart_rotten(&mut self, number: u32, path: &str, found: &[u8]) {
        self.rot(number, path, found);
        self.restart(number);
    }

    /// What was once written rots, wherever it is `found` in a file, and nobody has noticed yet.
    pub(super) fn rot(&mut self, number: u32, path: &str, found: &[u8]) {
        let disk = &self.nodes[&NodeId(number)].disk;
        let contents = disk.contents(path).unwrap();
        let places = contents.windows(found.len()).enumerate();
        let places: Vec<usize> = places
            .filter(|(_, it)| *it == found)
            .map(|(at, _)| at)
            .collect();
        assert!(!places.is_empty(), "it is not there");
        for at in places {
            disk.corrupt(path, at as u64, &vec![0; found.len()])
                .unwrap();
        }
    }

    /// The power fails, and a file holds nothing but zeros behind its first block when it comes
    /// back.
    pub(super) fn restart_with_zeros(&mut self, number: u32, path: &str) {
        self.restart_on(number, |disk| {
            let len = disk.contents(path).unwrap().len();
            disk.corrupt(path, 4096, &vec![0; len - 4096]).unwrap();
        });
    }

    fn restart_on(&mut self, number: u32, damage: impl Fn(&MemoryDisk)) {
        let id = NodeId(number);
        let now = self.clock();
        let node = self.nodes.remove(&id).unwrap();
        let known = node.shard.known_wall_ms(now);
        drop(node.shard);
        node.disk
            .power_cut(|_| highwater_log::storage::Keep::Nothing);
        damage(&node.disk);
        let shard = open(id, &node.disk, &node.budget, Some(known), now);
        self.nodes.insert(id, Node { shard, ..node });
        self.host(id);
        self.session = Session(self.session.0 + 1);
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|&it| it != id).collect();
        for peer in peers {
            self.link(id, peer);
            self.link(peer, id);
        }
        self.settle();
    }

    fn entries(&mut self, number: u32) -> Vec<crate::ops::CommittedEntry> {
        let op = Op::ReadEntries {
            from: LogIndex(1),
            max_bytes: 1 << 20,
        };
        match self.ask(number, op) {
            Some(Ok(Outcome::Entries { entries, .. })) => entries,
            other => panic!("{other:?}"),
        }
    }

    /// The batches that a replica has committed, one behind the other.
    pub(super) fn bodies(&mut self, number: u32) -> Vec<u8> {
        let entries = self.entries(number).into_iter();
        let data = entries.filter(|entry| matches!(entry.kind, CommittedKind::Data { .. }));
        data.flat_map(|entry| entry.body.to_vec()).collect()
    }

    /// What was proposed, as a replica has committed it.
    pub(super) fn owner_entries(&mut self, number: u32) -> Vec<String> {
        let entries = self.entries(number).into_iter();
        let control = entries.filter(|entry| entry.kind == CommittedKind::Control);
        control
            .map(|entry| String::from_utf8(entry.body.to_vec()).unwrap())
            .collect()
    }
}

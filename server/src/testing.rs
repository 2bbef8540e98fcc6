//! A cluster on virtual time, for tests of services that embed a [`Node`](crate::Node).
//!
//! [`SimCluster`] runs the code of real nodes, shards, consensus and log, over simulated disks and
//! a simulated network, in one thread, and draws what goes wrong from a seed: crashes that lose
//! what was not synced, lost and late messages, partitions, slow and failing disks. The same seed
//! gives the same run. There are no ports, threads, files or clocks, and a minute passes in
//! moments, so a `#[test]` can try hundreds of seeds.
//!
//! Its calls mirror those of [`Node`](crate::Node), with the node they are made on as first
//! argument, and let virtual time pass until they are answered. A service's own files are mirrored
//! by [`save`](SimCluster::save) and [`load`](SimCluster::load). What a service keeps in memory is
//! lost when its node crashes; [`life`](SimCluster::life) says when to build it anew.
//!
//! ```
//! use std::time::Duration;
//! use highwater::testing::SimCluster;
//! use highwater::{NewRecord, NodeError, TopicPartition};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = SimCluster::new(42).nodes(3).topic("events", 1);
//! let events = TopicPartition::new("events", 0)?;
//!
//! let leader = cluster.leader(&events);
//! let offset = cluster.append(leader, &events, &[NewRecord::new("door", "opened")])?;
//!
//! cluster.crash(leader);
//! let next = cluster.leader(&events);
//! assert_ne!(next, leader);
//! assert!(cluster.barrier(next, &events)? > offset);
//!
//! // Alone it is no majority: it refuses rather than lies.
//! cluster.restart(leader);
//! cluster.partition(&[next], &[leader, 3 - leader - next]);
//! cluster.run_for(Duration::from_secs(10));
//! assert!(matches!(cluster.barrier(next, &events), Err(NodeError::NotLeader { .. })));
//!
//! // Heals all, and holds every acknowledged record against every replica.
//! cluster.check();
//! # Ok(())
//! # }
//! ```
//!
//! Cargo: `highwater = { .., features = ["testing"] }` under `[dev-dependencies]`.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_engine::testing::{Embedded, Fault, FaultKind, Lost, Plan, Violation};
use highwater_engine::{Fetch, Fetched, GroupId, NodeId, Op, OpError, Outcome, Produce, ReadFrom};
use highwater_record::{Offset, TopicName, TopicPartition};

use crate::node::{build_batch, records_of};
use crate::{NewRecord, NodeError, Record};

/// How long a call is waited for at most, in virtual time.
pub const CALL_MAX: Duration = Duration::from_secs(60);

/// How long [`SimCluster::leader`] waits between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The most that a service's own file takes to be written and synced.
const SAVE_MICROS_MAX: u64 = 20_000;

/// How much [`SimFollow::next`] reads at once, in bytes.
const FOLLOW_BYTES: usize = 1 << 20;

/// A simulated cluster. See [the module](self).
///
/// # Panics
///
/// Every call panics, with the seed, if Highwater breaks one of its own promises: that is not a
/// fault of the service under test, and worth a report. So does every call that names a node or a
/// partition that the cluster was not made with.
#[derive(Debug)]
pub struct SimCluster {
    world: Embedded,
    topics: BTreeMap<TopicName, Topic>,
    files: BTreeMap<(u32, String), Vec<u8>>,
    acknowledged: BTreeMap<TopicPartition, BTreeMap<Offset, NewRecord>>,
}

#[derive(Debug, Clone, Copy)]
struct Topic {
    first: u64,
    partitions: u32,
}

/// Making one. These come before all other calls.
impl SimCluster {
    /// Three nodes on which nothing fails but what the test lets fail. Delays, and all else that
    /// chance decides, are drawn from the seed.
    #[must_use]
    pub fn new(seed: u64) -> SimCluster {
        let mut plan = Plan::of_seed(seed, 3).without_faults();
        plan.groups = 0;
        SimCluster {
            world: Embedded::new(plan),
            topics: BTreeMap::new(),
            files: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    /// So many nodes, 1 to 9, numbered from 0; each has a replica of every partition.
    #[must_use]
    pub fn nodes(self, nodes: u32) -> SimCluster {
        assert!(
            (1..=9).contains(&nodes),
            "{nodes} nodes; a cluster has 1 to 9"
        );
        self.replan(|plan| plan.nodes = nodes)
    }

    /// A topic.
    #[must_use]
    pub fn topic(mut self, name: &str, partitions: u32) -> SimCluster {
        let first = self.world.plan().groups + 1;
        let name = TopicName::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.topics.insert(name, Topic { first, partitions });
        self.replan(|plan| plan.groups += u64::from(partitions))
    }

    /// Lets the seed draw faults too, until [`calm_down`](SimCluster::calm_down): which kinds, and
    /// how often, differs from seed to seed. Nodes that crash so start again by themselves within
    /// three seconds. Disks give back what was synced: a replica whose disk does not refuses, and
    /// need not have everything again when [`check`](SimCluster::check) looks.
    #[must_use]
    pub fn with_faults(self) -> SimCluster {
        self.replan(|plan| {
            let mut drawn = Plan::of_seed(plan.seed, plan.nodes);
            let decays = |fault: &Fault| matches!(fault.kind, FaultKind::Decay { .. });
            drawn.faults.retain(|fault| !decays(fault));
            *plan = Plan {
                groups: plan.groups,
                disk_read_errors: 0.0,
                disk_read_flips: 0.0,
                ..drawn
            };
        })
    }

    fn replan(mut self, change: impl FnOnce(&mut Plan)) -> SimCluster {
        assert_eq!(self.world.now(), Duration::ZERO, "the cluster is running");
        let mut plan = self.world.plan().clone();
        change(&mut plan);
        self.world = Embedded::new(plan);
        self
    }
}

/// What [`Node`](crate::Node) has too.
impl SimCluster {
    /// As [`Node::append`](crate::Node::append), on a node.
    ///
    /// # Errors
    /// [`NodeError::Failed`] if the node is down, or crashes meanwhile: the process that asked is
    /// gone with it, and the records may be there or not. [`NodeError::Indefinite`] also if there
    /// is no answer within [`CALL_MAX`].
    pub fn append(
        &mut self,
        node: u32,
        partition: &TopicPartition,
        records: &[NewRecord],
    ) -> Result<Offset, NodeError> {
        let batch = build_batch(records, self.world.wall_ms())?;
        let batches = vec![batch];
        match self.ask(node, partition, Op::Produce(Produce { batches }))? {
            Outcome::Produced { base_offset, .. } => {
                let mut offset = base_offset;
                let acknowledged = self.acknowledged.entry(partition.clone()).or_default();
                for record in records {
                    acknowledged.insert(offset, record.clone());
                    offset = offset.next();
                }
                Ok(base_offset)
            }
            other => unreachable!("a produce is answered by Produced, not {other:?}"),
        }
    }

    /// As [`Node::read`](crate::Node::read), on a node.
    ///
    /// # Errors
    /// As there; [`NodeError::Failed`] if the node is down or crashes.
    pub fn read(
        &mut self,
        node: u32,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, NodeError> {
        let fetched = self.fetch(node, partition, from, max_bytes)?;
        records_of(&fetched, from)
    }

    /// As [`Node::follow`](crate::Node::follow), on a node, in this life of it.
    #[must_use]
    pub fn follow(&self, node: u32, partition: TopicPartition, from: Offset) -> SimFollow {
        SimFollow {
            node,
            life: self.life(node),
            partition,
            next: from,
        }
    }

    /// As [`Node::barrier`](crate::Node::barrier), on a node.
    ///
    /// # Errors
    /// As there; [`NodeError::Failed`] if the node is down or crashes.
    pub fn barrier(&mut self, node: u32, partition: &TopicPartition) -> Result<Offset, NodeError> {
        match self.ask(node, partition, Op::Barrier)? {
            Outcome::Barrier { high_watermark, .. } => Ok(high_watermark),
            other => unreachable!("a barrier is answered by Barrier, not {other:?}"),
        }
    }

    /// Waits until some node leads a partition, and tells which.
    ///
    /// # Panics
    /// If nobody leads within [`CALL_MAX`], as when the faults leave no majority.
    pub fn leader(&mut self, partition: &TopicPartition) -> u32 {
        let end = self.world.now() + CALL_MAX;
        loop {
            for node in 0..self.world.plan().nodes {
                if self.life(node).is_some() && self.barrier(node, partition).is_ok() {
                    return node;
                }
            }
            assert!(
                self.world.now() < end,
                "{}: nobody leads {partition}",
                self.seed()
            );
            self.run_for(LOOK_AGAIN);
        }
    }

    fn fetch(
        &mut self,
        node: u32,
        partition: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Fetched, NodeError> {
        let fetch = Fetch {
            offset,
            max_bytes,
            must_progress: true,
            current_leader_epoch: None,
            from: ReadFrom::AnyReplica,
        };
        match self.ask(node, partition, Op::Fetch(fetch))? {
            Outcome::Fetched(fetched) => Ok(fetched),
            other => unreachable!("a fetch is answered by Fetched, not {other:?}"),
        }
    }

    fn ask(&mut self, node: u32, partition: &TopicPartition, op: Op) -> Result<Outcome, NodeError> {
        let group = self.group(partition);
        let writes = matches!(op, Op::Produce(_));
        let asked = self.world.ask(self.id(node), group, op, CALL_MAX);
        match self.kept(asked) {
            // The world counts its nodes from 1.
            Ok(Err(OpError::NotLeader { leader, .. })) => Err(NodeError::NotLeader {
                leader: leader.map(|id| id.0 - 1),
            }),
            Ok(result) => result.map_err(NodeError::from),
            Err(Lost::Late) if !writes => Err(NodeError::Busy(Lost::Late.to_string())),
            Err(Lost::Late) => Err(NodeError::Indefinite),
            Err(lost @ Lost::Crashed) => Err(NodeError::Failed(lost.to_string())),
        }
    }
}

/// Time, faults, and the end.
impl SimCluster {
    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let ran = self.world.run_for(time);
        self.kept(ran);
    }

    /// A node's process dies by `kill -9`, and its machine loses power: what it had not synced is
    /// there or not, by chance. It stays down.
    pub fn crash(&mut self, node: u32) {
        self.world.crash(self.id(node));
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: u32) {
        let started = self.world.restart(self.id(node));
        self.kept(started);
    }

    /// Nothing passes between the nodes of one side and those of the other, until
    /// [`heal`](SimCluster::heal).
    pub fn partition(&mut self, one: &[u32], other: &[u32]) {
        let ids = |side: &[u32]| side.iter().map(|node| self.id(*node)).collect::<Vec<_>>();
        let (one, other) = (ids(one), ids(other));
        self.world.part(&one, &other);
    }

    /// Ends every [`partition`](SimCluster::partition).
    pub fn heal(&mut self) {
        self.world.heal();
    }

    /// From now on the seed draws no faults; nodes that it has crashed start again. What the test
    /// did itself stays.
    pub fn calm_down(&mut self) {
        self.world.calm_down();
    }

    /// Which life of a node this is, counted from 1; nothing while it is down. A service's memory
    /// is of one life.
    #[must_use]
    pub fn life(&self, node: u32) -> Option<u64> {
        self.world.life(self.id(node))
    }

    /// A number below `bound`, drawn from the seed: for the choices of the test itself.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.world.draw(bound)
    }

    /// What happened so far, as a number: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// Ends all faults, waits until every replica has the same, and holds every record that was
    /// acknowledged to [`append`](SimCluster::append) against every replica.
    ///
    /// # Panics
    /// If anything is missing or other.
    pub fn check(&mut self) {
        self.heal();
        self.calm_down();
        for node in 0..self.world.plan().nodes {
            self.restart(node);
        }
        let settled = self.world.settle();
        self.kept(settled);
        for (partition, records) in self.acknowledged.clone() {
            for node in 0..self.world.plan().nodes {
                self.check_replica(node, &partition, &records);
            }
        }
    }

    fn check_replica(
        &mut self,
        node: u32,
        partition: &TopicPartition,
        acknowledged: &BTreeMap<Offset, NewRecord>,
    ) {
        let mut found = BTreeMap::new();
        let mut next = Offset::ZERO;
        loop {
            let read = self.read(node, partition, next, FOLLOW_BYTES);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", self.seed()));
            let Some(last) = read.last() else { break };
            next = last.offset.next();
            found.extend(read.into_iter().map(|it| (it.offset, it)));
        }
        for (offset, new) in acknowledged {
            let is_there = found
                .get(offset)
                .is_some_and(|record| record.key == new.key && record.value == new.value);
            let seed = self.seed();
            assert!(
                is_there,
                "{seed}: node {node} lacks {partition} {offset}: {new:?}"
            );
        }
    }

    fn kept<T>(&self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| {
            panic!("{}: Highwater broke a promise: {violation}", self.seed())
        })
    }

    fn seed(&self) -> String {
        format!("seed {}", self.world.plan().seed)
    }

    /// Nodes count from 0 here, as in a cluster's files, and from 1 in the world.
    fn id(&self, node: u32) -> NodeId {
        let nodes = self.world.plan().nodes;
        assert!(node < nodes, "node {node} of {nodes}, counted from 0");
        NodeId(node + 1)
    }

    fn group(&self, partition: &TopicPartition) -> GroupId {
        let topic = self.topics.get(&partition.topic);
        let topic = topic.filter(|topic| partition.partition < topic.partitions);
        let topic = topic.unwrap_or_else(|| panic!("no partition {partition}"));
        GroupId(topic.first + u64::from(partition.partition))
    }
}

/// The service's own files.
impl SimCluster {
    /// Writes a file of the service on a node, as a program does that cares: to a temporary file,
    /// synced and renamed. It takes some virtual milliseconds. If the node crashes in them, the
    /// file is the old or the new one, and never a mixture; two files are two calls, and a crash
    /// may fall between them.
    ///
    /// # Errors
    /// [`NodeError::Failed`] if the node is down or crashes.
    pub fn save(&mut self, node: u32, name: &str, bytes: &[u8]) -> Result<(), NodeError> {
        let crashed = || NodeError::Failed(Lost::Crashed.to_string());
        let life = self.life(node).ok_or_else(crashed)?;
        let micros = self.draw(SAVE_MICROS_MAX);
        self.run_for(Duration::from_micros(micros));
        let is_alive = self.life(node) == Some(life);
        if is_alive || self.draw(2) == 0 {
            self.files.insert((node, name.to_owned()), bytes.to_vec());
        }
        is_alive.then_some(()).ok_or_else(crashed)
    }

    /// What was saved last.
    #[must_use]
    pub fn load(&self, node: u32, name: &str) -> Option<&[u8]> {
        let file = self.files.get(&(node, name.to_owned()));
        file.map(Vec::as_slice)
    }
}

/// The commits of one partition, in order, on one node in one of its lives. Made by
/// [`SimCluster::follow`].
#[derive(Debug, Clone)]
pub struct SimFollow {
    node: u32,
    life: Option<u64>,
    partition: TopicPartition,
    next: Offset,
}

impl SimFollow {
    /// The offset that the next records begin at.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// As [`Follow::next`](crate::Follow::next): lets time pass until there are records.
    ///
    /// # Errors
    /// As there; [`NodeError::Failed`] if the life that it was made in is over;
    /// [`NodeError::Busy`] if nothing comes within [`CALL_MAX`].
    pub fn next(&mut self, cluster: &mut SimCluster) -> Result<Vec<Record>, NodeError> {
        let end = cluster.now() + CALL_MAX;
        while cluster.now() < end {
            let records = self.poll(cluster)?;
            if !records.is_empty() {
                return Ok(records);
            }
            let above = self.next;
            let watch = Op::WatchOffset { above };
            match cluster.ask(self.node, &self.partition, watch) {
                Ok(_) | Err(NodeError::NotLeader { .. } | NodeError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NodeError::Busy(Lost::Late.to_string()))
    }

    /// The next records, if there are any yet.
    ///
    /// # Errors
    /// As [`next`](SimFollow::next).
    pub fn poll(&mut self, cluster: &mut SimCluster) -> Result<Vec<Record>, NodeError> {
        if self.life.is_none() || cluster.life(self.node) != self.life {
            return Err(NodeError::Failed(Lost::Crashed.to_string()));
        }
        let fetched = cluster.fetch(self.node, &self.partition, self.next, FOLLOW_BYTES)?;
        let records = records_of(&fetched, self.next)?;
        self.next = self.next.max(fetched.next_offset);
        Ok(records)
    }
}

//! Nodes start and die, links come up, are cut and mended.

use std::time::Duration;

use highwater_log::storage::StorageError;
use highwater_log::{Alarm, ClusterId, Incarnation, OpenError};
use highwater_record::{Budget, BufferPool};

use super::super::network::Pair;
use super::super::oracle::{Violation, demand};
use super::{Event, Running, World, front};
use crate::controller::{ClusterDefaults, Listener, NodeRegistration, RECORD_VERSION};
use crate::kafka::{Desk, KafkaConfig, KafkaService};
use crate::{
    CONTROLLER, GroupCommand, GroupConfig, GroupId, GroupSpec, Input, NodeId, Session, Shard,
    ShardConfig, ShardId, Timing,
};

pub(in super::super) const CLUSTER: ClusterId = ClusterId(*b"simulated worlds");

pub(in super::super) fn incarnation_of(node: NodeId) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&node.0.to_le_bytes());
    Incarnation(bytes)
}

/// How much memory a shard may take for what it writes and sends, in bytes.
pub(super) const POOL_BYTES: usize = 64 << 20;

impl World {
    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        let node = &self.nodes[&id];
        if node.is_alive() || (node.is_emptied && !self.calm) {
            return Ok(());
        }
        let now = node.clock.at(self.now);
        let shards = self.plan.shards_of(id);
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        node.is_emptied = false;
        let opened = match node.disk.open(self.now, shards) {
            Ok(opened) => opened,
            Err(error) => return self.cannot_start(id, &error),
        };
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        node.life += 1;
        let life = node.life;
        self.note_recovery(id, &opened);
        self.judge_alarms(id, &opened.alarms)?;
        for (shard, (store, recovered)) in (0..shards).map(ShardId).zip(opened.stores) {
            let config = self.shard_config(id, shard);
            let service = self.service(id, shard, life);
            let budget = Budget::new(POOL_BYTES);
            let pool = BufferPool::new(budget.clone(), 4096);
            let shard = Shard::open(config, store, recovered, pool, service, now);
            let shard = shard.map_err(|error| Violation {
                rule: "D4 what was written can be read again",
                what: format!("{id}: {error}"),
            })?;
            let node = self.nodes.get_mut(&id).expect("nodes stay");
            node.shards.push(Running {
                shard,
                budget,
                seen: Vec::new(),
                crossed: Duration::ZERO,
            });
        }
        self.trace.note(self.now, || {
            format!("{id} starts with {shards} shards, life {life}")
        });
        self.oracle.reborn(id);
        self.audited.retain(|(node, _), _| *node != id);
        for shard in (0..shards).map(ShardId) {
            let place = super::Place { node: id, shard };
            self.wake(place, self.now);
        }
        for group in (1..=self.plan.groups).map(GroupId) {
            let spec = GroupSpec {
                group,
                replicas: (1..=self.plan.nodes).map(NodeId).collect(),
                config: GroupConfig {
                    segment_bytes: self.plan.segment_bytes,
                    ..GroupConfig::default()
                },
            };
            self.input(front(id), Input::Group(GroupCommand::Create(spec)));
        }
        for peer in (1..=self.plan.nodes).map(NodeId).filter(|&peer| peer != id) {
            let wait = self.network.delay(Duration::from_millis(50));
            let pair = Pair::of(id, peer);
            self.after(wait, Event::Connect { pair });
        }
        Ok(())
    }

    /// What a node finds damaged must have been damaged.
    fn judge_alarms(&mut self, id: NodeId, alarms: &[Alarm]) -> Result<(), Violation> {
        if !alarms.is_empty() {
            self.damaged.insert(id);
        }
        demand(
            alarms.is_empty() || self.may_rot(id),
            "D4 what was written can be read again",
            || format!("{id}: {alarms:?}"),
        )
    }

    /// A node does not start: for want of room, until there is some; or because its disk is
    /// damaged so much that it must not.
    fn cannot_start(&mut self, id: NodeId, error: &OpenError) -> Result<(), Violation> {
        self.trace
            .note(self.now, || format!("{id} cannot start: {error}"));
        let no_space = matches!(error, OpenError::Storage(StorageError::NoSpace { .. }));
        if no_space && self.nodes[&id].disk.is_full() {
            self.report
                .reached
                .hit("a node cannot start for want of room");
            self.after(Duration::from_millis(500), Event::Restart { node: id });
            return Ok(());
        }
        self.damaged.insert(id);
        demand(
            self.may_rot(id),
            "D4 what was written can be read again",
            || format!("{id}: {error}"),
        )
    }

    fn shard_config(&mut self, id: NodeId, shard: ShardId) -> ShardConfig {
        let controller = GroupSpec {
            group: CONTROLLER,
            replicas: (1..=self.plan.nodes).map(NodeId).collect(),
            config: GroupConfig {
                retention_ms: None,
                segment_bytes: self.plan.segment_bytes,
                ..GroupConfig::default()
            },
        };
        ShardConfig {
            cluster: CLUSTER,
            node: id,
            incarnation: incarnation_of(id),
            shard,
            shards: self.plan.shards_of(id),
            seed: self.rng.u64(..),
            timing: Timing::default(),
            controller: (shard == ShardId(0)).then_some(controller),
            last_known_wall_ms: self.nodes[&id].last_known_wall_ms,
        }
    }

    fn service(&mut self, id: NodeId, shard: ShardId, life: u64) -> KafkaService {
        let registration = NodeRegistration {
            node: id,
            incarnation: incarnation_of(id),
            boot: life,
            record_versions: (RECORD_VERSION, RECORD_VERSION),
            listeners: vec![Listener {
                name: "kafka".to_owned(),
                host: format!("node{}", id.0),
                port: 9092,
            }],
        };
        KafkaService::new(Desk::new(KafkaConfig {
            registration,
            shard,
            cluster_id: "simulated".to_owned(),
            listener: format!("node{}:9092", id.0),
            metrics_listener: "127.0.0.1:9644".to_owned(),
            auto_create: false,
            defaults: ClusterDefaults {
                partitions: 1,
                replication: 1,
            },
            seed: self.rng.u64(..),
        }))
    }

    /// The power of a node is cut: what was not durable survives by chance.
    pub(super) fn power_cut(&mut self, id: NodeId) {
        if self.die(id) {
            let node = self.nodes.get_mut(&id).expect("nodes stay");
            node.disk.power_cut();
        }
    }

    /// The process of a node is killed: what was written can be read again.
    pub(super) fn kill(&mut self, id: NodeId) {
        if self.die(id) {
            let node = self.nodes.get_mut(&id).expect("nodes stay");
            node.disk.kill();
        }
    }

    /// A node ends; false if it was dead.
    fn die(&mut self, id: NodeId) -> bool {
        if !self.nodes[&id].is_alive() {
            return false;
        }
        self.note_death(id);
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        let known = &node.shards[0].shard;
        node.last_known_wall_ms = Some(known.known_wall_ms(node.clock.at(now)));
        node.shards.clear();
        node.paused = None;
        self.turns.remove_all(id);
        self.trace.note(self.now, || format!("{id} dies"));
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
        self.break_connections(id);
        true
    }

    pub(super) fn link_up(&mut self, node: NodeId, peer: NodeId, session: u64) {
        self.trace
            .note(self.now, || format!("{node} linked to {peer} by {session}"));
        self.input_all(node, || Input::PeerUp {
            node: peer,
            session: Session(session),
            incarnation: incarnation_of(peer),
        });
    }

    pub(super) fn link_down(&mut self, node: NodeId, peer: NodeId, session: u64) {
        self.trace
            .note(self.now, || format!("{node} lost {peer} of {session}"));
        self.input_all(node, || Input::PeerDown {
            node: peer,
            session: Session(session),
        });
    }

    pub(super) fn connect(&mut self, pair: Pair) {
        let alive = |id: NodeId| self.nodes[&id].is_alive();
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

    pub(super) fn mend(&mut self, pair: Pair) {
        let link = self.network.links.entry(pair).or_default();
        link.cut = (false, false);
        self.after(Duration::from_millis(1), Event::Connect { pair });
    }

    pub(super) fn cut_link(&mut self, pair: Pair, cut: (bool, bool), noticed: bool) {
        if self.scripted.is_parted(pair) {
            return;
        }
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

    /// No more faults: dead nodes start, links are mended, disks are well.
    pub(super) fn calm_down(&mut self) {
        self.trace.note(self.now, || "calm".to_owned());
        self.calm = true;
        self.network.calm_down();
        for node in self.nodes.values_mut() {
            node.disk.calm_down();
            node.clock.set_speed(self.now, 0);
        }
        for id in (1..=self.plan.nodes).map(NodeId) {
            self.resume(id);
            self.after(Duration::from_millis(10), Event::Restart { node: id });
            for peer in (id.0 + 1..=self.plan.nodes).map(NodeId) {
                let pair = Pair::of(id, peer);
                self.after(Duration::from_millis(20), Event::Connect { pair });
            }
        }
    }
}

//! Nodes start and die, links come up, are cut and mended.

use std::time::Duration;

use highwater_log::{ClusterId, Incarnation};
use highwater_record::{Budget, BufferPool};

use super::super::network::Pair;
use super::super::oracle::Violation;
use super::{Event, Running, World, front};
use crate::{
    GroupCommand, GroupConfig, GroupId, GroupSpec, Input, NoService, NodeId, Shard, ShardConfig,
    ShardId, Timing,
};

pub(in super::super) const CLUSTER: ClusterId = ClusterId(*b"simulated worlds");

pub(in super::super) fn incarnation_of(node: NodeId) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&node.0.to_le_bytes());
    Incarnation(bytes)
}

impl World {
    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        if self.nodes[&id].is_alive() {
            return Ok(());
        }
        let seed = self.rng.u64(..);
        let now = self.clock();
        let shards = self.plan.shards_of(id);
        let groups: Vec<GroupId> = (1..=self.plan.groups).map(GroupId).collect();
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        node.life += 1;
        let life = node.life;
        let opened = node.disk.open(self.now, shards)?;
        for (shard, opened) in (0..shards).zip(opened) {
            let config = ShardConfig {
                cluster: CLUSTER,
                node: id,
                incarnation: incarnation_of(id),
                shard: ShardId(shard),
                shards,
                seed: seed.wrapping_add(shard.into()),
                timing: Timing::default(),
                controller: None,
            };
            let pool = BufferPool::new(Budget::new(64 << 20), 4096);
            let (store, recovered) = opened;
            let shard = Shard::open(config, store, recovered, pool, NoService::default(), now);
            let shard = shard.map_err(|error| Violation {
                rule: "D4 what was written can be read again",
                what: format!("{id}: {error}"),
            })?;
            node.shards.push(Running {
                shard,
                wake_at: None,
                crossed: Duration::ZERO,
            });
        }
        self.trace.note(
            self.now,
            &format!("{id} starts with {shards} shards, life {life}"),
        );
        self.oracle.reborn(id);
        self.audited.retain(|(node, _), _| *node != id);
        for group in groups {
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

    pub(super) fn crash(&mut self, id: NodeId) {
        self.schedule(self.plan.crash_every, |_| Event::Crash { node: id });
        self.trace.note(self.now, &format!("{id} crashes"));
        self.report.crashes += 1;
        self.fail(id);
    }

    /// A node ends, and is started again after a while.
    pub(super) fn fail(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        if !node.is_alive() {
            return;
        }
        node.shards.clear();
        node.disk.crash();
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

    /// Cuts a link, or all links of a node, one way or both; the ends may notice, or only see
    /// nothing arrive.
    pub(super) fn cut(&mut self) {
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

    /// No more faults: dead nodes start, links are mended.
    pub(super) fn calm_down(&mut self) {
        self.trace.note(self.now, "calm");
        self.calm = true;
        self.network.calm_down();
        for node in self.nodes.values_mut() {
            node.disk.calm_down();
        }
        for id in (1..=self.plan.nodes).map(NodeId) {
            self.after(Duration::from_millis(10), Event::Restart { node: id });
            for peer in (id.0 + 1..=self.plan.nodes).map(NodeId) {
                let pair = Pair::of(id, peer);
                self.after(Duration::from_millis(20), Event::Connect { pair });
            }
        }
    }
}

//! What a plan does to the world.

use std::time::Duration;

use highwater_log::storage::MemoryDisk;
use highwater_record::Offset;

use super::super::disk::Disk;
use super::super::history::Action;
use super::super::network::Pair;
use super::super::plan::Profile;
use super::super::schedule::{Fault, FaultKind};
use super::{Asker, Event, Node, Place, World};
use crate::{GroupId, NodeId, Op, ShardId};

/// The process in histories that deletes records.
const DELETER: u64 = 2;

/// After this long something else on a node's disk says that what is durable is there: until
/// then, damage at the end of a log cannot be told from what a crash has torn.
const SETTLED: Duration = Duration::from_secs(3);

/// Whether a node writes down at once how far its logs are durable.
fn is_settled(node: &Node) -> bool {
    let is_hindered = node.paused.is_some() || node.disk.is_full() || node.disk.is_slow();
    node.is_alive() && !is_hindered
}

impl World {
    pub(super) fn new_disk(&self, id: NodeId) -> Disk {
        Disk::new(id, &self.plan)
    }

    /// Whether what a node's disk holds may be damaged.
    pub(super) fn may_rot(&self, node: NodeId) -> bool {
        let decays = |fault: &Fault| matches!(fault.kind, FaultKind::Decay { .. });
        let reads = self.plan.disk_read_errors + self.plan.disk_read_flips;
        let has_victim = reads > 0.0 || self.plan.faults.iter().any(decays);
        let is_victim = has_victim && self.plan.victim() == Some(node);
        let rots =
            |fault: &Fault| matches!(fault.kind, FaultKind::Rot { node: of, .. } if of == node);
        is_victim || self.plan.faults.iter().any(rots) || self.plan.profile == Profile::Beyond
    }

    /// Something is going to be damaged that is on a node's disk now, and settled.
    fn begin_decay(&mut self, node: NodeId, pick: u64) {
        let node_ = &self.nodes[&node];
        if !is_settled(node_) {
            return;
        }
        let (life, older) = (node_.life, node_.disk.remember());
        let decay = Event::Decay {
            node,
            life,
            older,
            pick,
        };
        self.after(SETTLED, decay);
    }

    /// Damages what was on a node's disk some time ago, if nothing has happened to the node since.
    pub(super) fn decay(&mut self, id: NodeId, life: u64, older: &MemoryDisk, pick: u64) {
        let node = self.nodes.get_mut(&id).expect("nodes stay");
        if self.calm || node.life != life || !is_settled(node) {
            return;
        }
        let copy = if self.plan.seed.is_multiple_of(2) {
            'a'
        } else {
            'b'
        };
        if let Some(decayed) = node.disk.decay(older, copy, pick) {
            self.report.count("damaged block");
            self.trace.note(self.now, || format!("{id}: {decayed}"));
        }
    }

    pub(super) fn fault(&mut self, number: usize) {
        let kind = self.plan.faults[number].kind.clone();
        if self.calm {
            return;
        }
        self.report.count(kind.name());
        self.trace
            .note(self.now, || format!("fault {number}: {kind:?}"));
        match kind {
            FaultKind::PowerCut { nodes, down } => {
                for node in nodes {
                    self.power_cut(node);
                    self.after(down, Event::Restart { node });
                }
            }
            FaultKind::Kill { node, down } => {
                self.kill(node);
                self.after(down, Event::Restart { node });
            }
            FaultKind::Pause { node, lasts } => self.pause(node, lasts),
            FaultKind::Cut {
                node,
                peers,
                ways,
                noticed,
                lasts,
            } => self.cut(node, &peers, ways, noticed, lasts),
            FaultKind::Flap {
                node,
                peer,
                times,
                period,
            } => self.flap(Pair::of(node, peer), times, period),
            FaultKind::ClockJump { node, ms } => self.jump(node, ms),
            FaultKind::Drift { node, ppm } => self.drift(node, ppm),
            FaultKind::DiskFull { node, lasts } => {
                self.disk(node).fill();
                self.after(lasts, Event::Recover { node });
            }
            FaultKind::SlowDisk {
                node,
                delay_max,
                lasts,
            } => {
                self.disk(node).slow_down(delay_max);
                self.after(lasts, Event::Recover { node });
            }
            FaultKind::Emptied { node, down } => self.empty(node, down),
            FaultKind::Rot { node, pick, down } => {
                self.power_cut(node);
                if !self.nodes[&node].is_alive() {
                    let rotten = self.disk(node).rot(pick);
                    self.trace
                        .note(self.now, || format!("{node} rots: {rotten:?}"));
                }
                self.after(down, Event::Restart { node });
            }
            FaultKind::Decay { node, pick } => self.begin_decay(node, pick),
            FaultKind::Transfer { pick } => {
                let (to, group) = self.pick_replica(pick);
                self.ask(Asker::Nobody, to, group, Op::Transfer { to: None });
            }
            FaultKind::DeleteRecords { pick } => self.delete_records(pick),
            FaultKind::Flood { node, requests } => self.flood(node, requests),
        }
    }

    fn disk(&mut self, node: NodeId) -> &mut Disk {
        &mut self.nodes.get_mut(&node).expect("nodes stay").disk
    }

    fn pause(&mut self, node: NodeId, lasts: Duration) {
        let until = self.now + lasts;
        let node_ = self.nodes.get_mut(&node).expect("nodes stay");
        node_.paused = Some(node_.paused.map_or(until, |before| before.max(until)));
        self.after(lasts, Event::Resume { node });
    }

    pub(super) fn resume(&mut self, node: NodeId) {
        let now = self.now;
        let node_ = self.nodes.get_mut(&node).expect("nodes stay");
        if node_.paused.is_some_and(|until| until <= now || self.calm) {
            node_.paused = None;
            self.note_resumed(node);
            for shard in (0..self.plan.shards_of(node)).map(ShardId) {
                self.wake(Place { node, shard }, now);
            }
        }
    }

    fn cut(
        &mut self,
        node: NodeId,
        peers: &[NodeId],
        ways: (bool, bool),
        noticed: bool,
        lasts: Duration,
    ) {
        let is_alone = peers.len() + 1 == self.plan.nodes as usize;
        self.note_cut(node, is_alone, ways, noticed);
        for &peer in peers {
            let pair = Pair::of(node, peer);
            self.cut_link(pair, ways, noticed);
            self.after(lasts, Event::Mend { pair });
        }
    }

    pub(super) fn flap(&mut self, pair: Pair, times: u32, period: Duration) {
        if times == 0 || self.calm {
            return;
        }
        self.cut_link(pair, (true, true), true);
        self.after(period, Event::Mend { pair });
        let again = Event::Flap {
            pair,
            times: times - 1,
            period,
        };
        self.after(period * 2, again);
    }

    fn jump(&mut self, node: NodeId, ms: i64) {
        self.report.reached.hit(match ms < 0 {
            true => "a wall clock goes back",
            false => "a wall clock jumps ahead",
        });
        self.nodes
            .get_mut(&node)
            .expect("nodes stay")
            .clock
            .jump(ms);
    }

    fn drift(&mut self, node: NodeId, ppm: i32) {
        self.report.reached.hit(match ppm < 0 {
            true => "a clock runs slowly",
            false => "a clock runs fast",
        });
        let node = self.nodes.get_mut(&node).expect("nodes stay");
        node.clock.set_speed(self.now, ppm);
    }

    /// A node is started with an empty disk, which must be refused; later with its own again.
    fn empty(&mut self, node: NodeId, down: Duration) {
        self.kill(node);
        let refused = self.disk(node).refuses_to_be_empty();
        assert!(refused, "an empty directory is never opened");
        self.report
            .reached
            .hit("a node is refused with an empty disk");
        self.nodes.get_mut(&node).expect("nodes stay").is_emptied = true;
        self.after(down, Event::PutBack { node });
    }

    /// A replica by chance, of a group that clients use.
    fn pick_replica(&self, pick: u64) -> (Place, GroupId) {
        let mut rng = fastrand::Rng::with_seed(pick);
        let groups: Vec<GroupId> = self.groups().into_keys().collect();
        let group = rng.choice(groups).unwrap_or(crate::CONTROLLER);
        let node = NodeId(rng.u32(1..=self.plan.nodes));
        let shard = ShardId(rng.u16(0..self.plan.shards_of(node)));
        (Place { node, shard }, group)
    }

    /// Somebody deletes what a consumer has read already.
    fn delete_records(&mut self, pick: u64) {
        let (to, group) = self.pick_replica(pick);
        let groups = self.groups();
        let Some(partition) = groups.get(&group) else {
            return;
        };
        let positions = self.positions().filter(|(of, _)| *of == partition);
        let Some(before) = positions.map(|(_, position)| position).max() else {
            return;
        };
        let action = Action::DeleteRecords {
            partition: partition.clone(),
            before,
        };
        let open = self.history.invoke(DELETER, action.clone());
        self.history.info(open, action);
        let before = Offset::from_wire(before);
        self.ask(Asker::Nobody, to, group, Op::DeleteRecords { before });
    }
}

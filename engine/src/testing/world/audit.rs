//! An auditor looks at what every replica has committed, and whether all has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use super::super::client::Client;
use super::super::history::Partition;
use super::super::oracle::Violation;
use super::{AUDIT_INTERVAL, Asker, Event, Node, Place, World, front};
use crate::controller::Controller;
use crate::{CONTROLLER, GroupId, LogIndex, NodeId, Op, OpError, OpResult, Outcome, ShardId};

/// Bytes of entries that the auditor is given at once.
pub(super) const AUDIT_BYTES: usize = 64 << 10;

impl World {
    /// Asks every replica what it has committed since the last look.
    pub(super) fn audit(&mut self) {
        self.after(AUDIT_INTERVAL, Event::Audit);
        let mut replicas = Vec::new();
        for node in self.nodes.values().filter(|node| node.paused.is_none()) {
            for running in &node.shards {
                let groups = running.shard.groups();
                replicas.extend(groups.map(|group| (node.id, group)));
            }
        }
        for (node, group) in replicas {
            let commit = self.nodes[&node].status(group).map(|it| it.commit_index);
            let read = self.audited.get(&(node, group)).copied();
            if commit.is_some_and(|commit| commit <= read.unwrap_or_default()) {
                continue;
            }
            self.look(node, group);
        }
        self.note_placement();
        self.note_lag();
        self.note_hindrance();
        self.peek_somewhere();
    }

    /// Asks a replica for what is committed behind what it has told.
    fn look(&mut self, node: NodeId, group: GroupId) {
        let life = self.nodes[&node].life;
        let read = self.audited.get(&(node, group)).copied();
        let op = Op::ReadEntries {
            from: read.unwrap_or_default().next(),
            max_bytes: AUDIT_BYTES,
        };
        self.ask(Asker::Auditor(node, group, life), front(node), group, op);
    }

    /// Remembers where partitions are, if all that know it may be lost.
    fn note_placement(&mut self) {
        if !self.may_stop() {
            return;
        }
        let placed = self.placed();
        for (group, partition) in self.groups() {
            self.known
                .insert(group, (partition, placed[&group].clone()));
        }
    }

    /// Whether a replica is far behind another that it can hear of.
    fn note_lag(&mut self) {
        let mut ends: BTreeMap<GroupId, (u64, u64)> = BTreeMap::new();
        for ((_, group), status) in &self.watched {
            let last = status.last_index.0;
            let (low, high) = ends.entry(*group).or_insert((last, last));
            (*low, *high) = ((*low).min(last), (*high).max(last));
        }
        let far = ends
            .values()
            .filter(|(low, high)| *high > low + 100)
            .count();
        self.report.reached.add(
            "a follower is more than a hundred entries behind",
            far as u64,
        );
    }

    /// Reads from a replica that perhaps does not lead.
    fn peek_somewhere(&mut self) {
        let groups: Vec<GroupId> = self.groups().into_keys().collect();
        let Some(group) = self.rng.choice(groups) else {
            return;
        };
        let node = NodeId(self.rng.u32(1..=self.plan.nodes));
        let Some(status) = self.nodes[&node].status(group) else {
            return;
        };
        let end = status.high_watermark.to_wire().max(1);
        let offset = self
            .rng
            .i64(status.log_start_offset.to_wire().min(end - 1)..end);
        let shard = ShardId(self.rng.u16(0..self.plan.shards_of(node)));
        self.peek(Place { node, shard }, group, offset);
    }

    pub(super) fn audited(
        &mut self,
        node: NodeId,
        group: GroupId,
        result: OpResult,
    ) -> Result<(), Violation> {
        match result {
            Ok(Outcome::Entries {
                entries,
                commit_index,
            }) => {
                let mut is_news = false;
                for entry in entries {
                    let read = self.audited.entry((node, group)).or_default();
                    if entry.index != read.next() {
                        // The answer to an earlier look.
                        continue;
                    }
                    *read = entry.index;
                    is_news = true;
                    self.oracle.committed(node, group, &entry)?;
                }
                let read = self.audited.get(&(node, group)).copied();
                if is_news && read.is_some_and(|read| read < commit_index) {
                    self.look(node, group);
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

    /// The state of the cluster, as the node knows it that has come furthest.
    pub(super) fn controller(&self) -> Option<&Controller> {
        let states = self.nodes.values().filter_map(controller_of);
        states.max_by_key(|state| state.applied())
    }

    /// The groups of clients' partitions.
    pub(super) fn groups(&self) -> BTreeMap<GroupId, Partition> {
        let mut groups = BTreeMap::new();
        let topics = self.controller().into_iter().flat_map(Controller::topics);
        for topic in topics {
            for (index, place) in (0..).zip(topic.partitions()) {
                let partition = Partition::new(topic.name().as_str(), index);
                groups.insert(place.group, partition);
            }
        }
        groups
    }

    /// Notes what the newest of all controllers' states so far says, which may be a dead node's.
    pub(super) fn note_placements(&mut self, at: Place) {
        let Some(state) = controller_of(&self.nodes[&at.node]) else {
            return;
        };
        if state.applied() <= self.placements.applied {
            return;
        }
        let places = state.topics().flat_map(|topic| topic.partitions());
        let groups: BTreeSet<GroupId> = places.map(|place| place.group).collect();
        let placements = &mut self.placements;
        placements
            .deleted
            .extend(placements.groups.difference(&groups));
        (placements.applied, placements.groups) = (state.applied(), groups);
    }

    /// Where each group has replicas.
    pub(super) fn placed(&self) -> BTreeMap<GroupId, Vec<NodeId>> {
        let all: Vec<NodeId> = (1..=self.plan.nodes).map(NodeId).collect();
        let own = (1..=self.plan.groups).map(GroupId);
        let own = own
            .chain([CONTROLLER])
            .map(|group| (group, Vec::clone(&all)));
        let mut placed: BTreeMap<GroupId, Vec<NodeId>> = own.collect();
        let topics = self.controller().into_iter().flat_map(Controller::topics);
        for place in topics.flat_map(|topic| topic.partitions()) {
            placed.insert(place.group, place.replicas.clone());
        }
        placed
    }

    /// Whether clients are done, every replica has told all that the leader has committed, and
    /// no replica is where it should not be.
    pub(super) fn is_at_rest(&self) -> bool {
        let placed = self.placed();
        self.clients.iter().all(|seated| seated.client.is_done())
            && placed
                .iter()
                .all(|(group, nodes)| self.is_settled(*group, nodes))
            && self.nodes.values().all(|node| {
                // A node that is damaged need not start.
                has_only(node, &placed) || self.damaged.contains(&node.id)
            })
    }

    fn is_settled(&self, group: GroupId, nodes: &[NodeId]) -> bool {
        let whole = nodes.iter().filter(|node| !self.damaged.contains(node));
        let mut ends = whole.map(|id| {
            let status = self.nodes[id].status(group)?;
            let audited = self.audited.get(&(*id, group)).copied();
            let is_told = audited.unwrap_or_default() == status.commit_index;
            (is_told && status.commit_index == status.last_index).then_some(status.commit_index)
        });
        let first: Option<LogIndex> = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }

    pub(super) fn describe_unrest(&self) -> String {
        let mut text = String::new();
        let clients = self.clients.iter().map(|seated| &seated.client);
        for client in clients.filter(|client: &&Client| !client.is_done()) {
            text += &format!("{}; ", client.describe());
        }
        let placed = self.placed();
        for node in self.nodes.values() {
            if !has_only(node, &placed) {
                text += &format!("{} has other groups than it should; ", node.id);
            }
            for group in placed.keys() {
                let Some(status) = node.status(*group) else {
                    continue;
                };
                let audited = self.audited.get(&(node.id, *group));
                text += &format!("{} {group}: {status:?}, audited {audited:?}; ", node.id);
            }
        }
        text
    }
}

/// The groups of partitions, as of the newest state of the controller that any node has had.
#[derive(Debug, Default)]
pub(super) struct Placements {
    applied: LogIndex,
    groups: BTreeSet<GroupId>,
    /// Those of deleted topics: some nodes may have removed them, and others not know it yet.
    pub(super) deleted: BTreeSet<GroupId>,
}

fn controller_of(node: &Node) -> Option<&Controller> {
    let front = node.shards.first()?;
    Some(front.shard.service().cluster().controller())
}

/// Whether a node has replicas of the groups that are placed on it, and of no other.
fn has_only(node: &Node, placed: &BTreeMap<GroupId, Vec<NodeId>>) -> bool {
    let shards = node.shards.iter();
    let here: BTreeSet<GroupId> = shards.flat_map(|it| it.shard.groups()).collect();
    let meant = placed.iter().filter(|(_, nodes)| nodes.contains(&node.id));
    here.into_iter().eq(meant.map(|(group, _)| *group))
}

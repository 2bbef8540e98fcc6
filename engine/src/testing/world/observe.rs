//! What is looked at after every turn: what must hold, and which rare paths were reached.

use std::collections::BTreeMap;

use super::super::disk::OpenedDisk;
use super::super::network::Fate;
use super::super::oracle::{Violation, demand};
use super::nodes::POOL_BYTES;
use super::{Place, World};
use crate::kafka::REQUESTS_IN_FLIGHT_MAX;
use crate::{GroupId, LogIndex, NodeId, PRODUCER_BATCHES_MAX, ReplicaStatus};

impl World {
    /// Looks at the replicas of a shard that has taken a turn.
    pub(super) fn observe(&mut self, at: Place) -> Result<(), Violation> {
        let mut news = self.news(at);
        if news.is_none() {
            self.note_gone(at);
            news = self.news(at);
        }
        self.note_placements(at);
        for (group, status) in news.expect("the groups are known now") {
            self.oracle.standing(at.node, group, &status)?;
            let before = self.watched.insert((at.node, group), status.clone());
            if status.is_leader && !before.as_ref().is_some_and(|before| before.is_leader) {
                self.note_leader_for_disks();
            }
            if let Some(before) = before {
                self.note_change(at.node, group, &before, &status);
            }
        }
        Ok(())
    }

    /// The replicas that stand otherwise than after the turn before; nothing if others are here.
    fn news(&mut self, at: Place) -> Option<Vec<(GroupId, ReplicaStatus)>> {
        let running = self.running(at).expect("it has taken a turn");
        let mut news = Vec::new();
        let mut seen = running.seen.iter();
        for (group, status) in running.shard.statuses() {
            let (_, before) = seen.next().filter(|(of, _)| *of == group)?;
            if before.as_ref() != Some(&status) {
                news.push((group, status));
            }
        }
        if seen.next().is_some() {
            return None;
        }
        for (group, status) in &news {
            let at = running.seen.binary_search_by_key(group, |(of, _)| *of);
            running.seen[at.expect("it was just seen")].1 = Some(status.clone());
        }
        Some(news)
    }

    /// Replicas that were here, and are not any more.
    fn note_gone(&mut self, at: Place) {
        let running = self.running(at).expect("it has taken a turn");
        let mut before: BTreeMap<_, _> = std::mem::take(&mut running.seen).into_iter().collect();
        for group in running.shard.groups() {
            let status = before.remove(&group).flatten();
            running.seen.push((group, status));
        }
        for group in before.into_keys() {
            self.watched.remove(&(at.node, group));
            self.report
                .reached
                .hit("a node is wiped of a deleted topic");
        }
    }

    fn note_change(
        &mut self,
        node: NodeId,
        group: GroupId,
        before: &ReplicaStatus,
        now: &ReplicaStatus,
    ) {
        let others_lead = self.watched.iter().any(|((of, its), status)| {
            *its == group && *of != node && status.is_leader && self.nodes[of].is_alive()
        });
        let is_slow = self.nodes[&node].disk.is_slow();
        let reached = &mut self.report.reached;
        if now.is_leader && is_slow {
            reached.hit("a leader leads though its disk is slow");
        }
        if now.commit_index.0 > before.commit_index.0 + 100 {
            reached.hit("a commit index jumps by more than a hundred");
        }
        if now.high_watermark.to_wire() >= 10_000 && before.high_watermark.to_wire() < 10_000 {
            reached.hit("a high watermark passes ten thousand");
        }
        if now.is_leader && now.last_index.0 > now.commit_index.0 + 100 {
            reached.hit("a leader has more than a hundred entries that are not committed");
        }
        if now.log_start_offset > before.log_start_offset {
            reached.hit(match now.is_leader {
                true => "a log start moves on a leader",
                false => "a log start moves on a follower",
            });
        }
        if now.is_leader && !before.is_leader {
            reached.hit("a follower is chosen to lead");
            if others_lead {
                reached.hit("a leader is chosen while another believes to lead");
            }
        }
        if now.is_leader && others_lead {
            reached.hit("two replicas believe to lead");
        }
        if before.is_leader && !now.is_leader {
            reached.hit("a leader gives way to one of a higher term");
            if now.last_index > now.commit_index {
                reached.hit("a deposed leader has entries that nobody else has");
            }
        }
        if now.leader_epoch > before.leader_epoch && now.leader.is_none() {
            reached.hit("a replica learns a term without a leader");
        }
        if now.last_index < before.last_index {
            reached.hit("a log ends earlier than before: a conflict is cut");
        }
        if now.log_start_offset > before.log_end_offset {
            reached.hit("a follower's log starts anew behind the leader's start");
        }
    }

    /// Looks at what each shard says of itself: bounds, and whether a replica has frozen.
    pub(super) fn observe_gauges(&mut self) -> Result<(), Violation> {
        self.note_damage();
        for node in self.nodes.values() {
            for running in &node.shards {
                let gauges = running.shard.report().gauges;
                let may = self.may_rot(node.id);
                demand(
                    gauges.frozen == 0 || may,
                    "R2 no replica contradicts itself",
                    || format!("{}: {gauges:?}", node.id),
                )?;
                demand(
                    gauges.quarantined == 0 || may,
                    "D3 what a disk has kept is not taken for damaged",
                    || format!("{}: {gauges:?}", node.id),
                )?;
                let requests = running.shard.service().requests_running();
                let requests_max = self.requests_max();
                demand(requests <= requests_max, "B1 queues are bounded", || {
                    format!("{}: {requests} requests are on their way", node.id)
                })?;
                let memory = running.budget.used();
                demand(memory <= POOL_BYTES, "B1 memory is bounded", || {
                    format!("{}: {memory} bytes", node.id)
                })?;
            }
        }
        Ok(())
    }

    /// Notes which nodes have found what they hold damaged.
    fn note_damage(&mut self) {
        for node in self.nodes.values() {
            let mut reports = node.shards.iter().map(|it| it.shard.report().gauges);
            if reports.any(|it| it.quarantined + it.frozen > 0) {
                self.damaged.insert(node.id);
                self.report.reached.hit("a replica is in quarantine");
            }
        }
    }

    /// How many requests can be on their way at a shard: those of each client, as many again on a
    /// connection that it has given up, and those of the connections that floods have made and closed.
    fn requests_max(&self) -> usize {
        let floods = self.report.faults.get("flood").copied().unwrap_or(0);
        let floods = usize::try_from(floods).expect("few floods");
        let pipelined = usize::try_from(self.plan.pipelined_producers).expect("few producers");
        let of_clients = self.clients.len() + pipelined * (PRODUCER_BATCHES_MAX - 1);
        of_clients * 2 + floods * REQUESTS_IN_FLIGHT_MAX
    }

    pub(super) fn note_recovery(&mut self, node: NodeId, opened: &OpenedDisk) {
        self.watched.retain(|(of, _), _| *of != node);
        let reached = &mut self.report.reached;
        reached.add("a node starts with torn writes", opened.torn);
        reached.add("a sealed file is what a node starts from", opened.footers);
        reached.add(
            "a crash interrupts the removal of a topic",
            opened.half_removed,
        );
    }

    pub(super) fn note_death(&mut self, node: NodeId) {
        let leads = |status: &ReplicaStatus| status.is_leader;
        let was_leader = self
            .watched
            .iter()
            .any(|((of, _), status)| *of == node && leads(status));
        let alive = self.nodes.values().filter(|it| it.is_alive()).count();
        let reached = &mut self.report.reached;
        reached.hit(match was_leader {
            true => "a power cut hits a leader",
            false => "a power cut hits a follower",
        });
        if alive == 1 {
            reached.hit("all nodes are down at once");
        }
        if (alive - 1) * 2 <= self.nodes.len() {
            reached.hit("a quorum is down");
        }
        self.note_end(node);
    }

    /// Counts what the shards of a node have seen, before they are gone.
    pub(super) fn note_end(&mut self, node: NodeId) {
        let reached = &mut self.report.reached;
        for running in &self.nodes[&node].shards {
            let report = running.shard.report();
            reached.add("a frame is refused", report.shard.frames_refused);
            reached.add(
                "retention by time is suspended",
                report.gauges.retention_suspended,
            );
            reached.add("a section is ignored", report.shard.sections_ignored);
            reached.add("a beat is repeated", report.shard.repeats_heard);
            reached.add("a repeated beat is not known", report.shard.repeats_unknown);
            reached.add("a repeated row is refused", report.shard.repeat_exceptions);
            reached.add("a repeated beat stays away", report.shard.repeats_missed);
            let partitions = report.partitions;
            reached.add("an election is begun", partitions.elections);
            let many = partitions.entries_per_append_max > 1;
            reached.add("several entries are in one append", u64::from(many));
            let many = partitions.appends_in_flight_max > 1;
            reached.add(
                "several appends are on their way to one follower",
                u64::from(many),
            );
            let lost = partitions.elections > partitions.leaderships;
            reached.add("an election is lost", u64::from(lost));
            let log = report.log;
            reached.add("a file is begun", log.files_begun);
            reached.add("a file is sealed", log.files_sealed);
            reached.add("a file is unlinked", log.files_unlinked);
            reached.add("a file is recycled", log.files_recycled);
            reached.add("a group waits for its next file", log.file_waits);
            reached.add("a file is zeroed ahead", log.zeroed_bytes.min(1));
            reached.add("a journal is written", log.journal_writes);
            reached.add("a damaged file is repaired", log.repaired_files);
            reached.add("a file that is gone is made anew", log.made_files);
            reached.add("the scrubber finds rot", log.scrub_findings);
            reached.add("the scrubber has seen all files", log.scrub_passes);
            reached.add("a read is served from a mapping", log.mapped_bytes.min(1));
            reached.add("a read is served from memory", log.cache_bytes.min(1));
            reached.add("a read is served from the disk", log.direct_bytes.min(1));
            let many = log.entries_per_write_max > 1;
            reached.add("several entries are in one write", u64::from(many));
            let restored = running.shard.service().cluster().restored_at();
            let is_whole = restored > LogIndex::ZERO;
            reached.add(
                "a controller's state is taken over whole",
                u64::from(is_whole),
            );
        }
    }

    pub(super) fn note_resumed(&mut self, node: NodeId) {
        let own = self
            .watched
            .iter()
            .filter(|((of, _), it)| *of == node && it.is_leader);
        let overtaken = own.filter(|((_, group), status)| {
            self.watched.iter().any(|((of, its), other)| {
                *of != node && its == group && other.leader_epoch > status.leader_epoch
            })
        });
        let times = overtaken.count() as u64;
        self.report
            .reached
            .add("a paused leader comes back after another was chosen", times);
    }

    pub(super) fn note_cut(
        &mut self,
        node: NodeId,
        alone: bool,
        ways: (bool, bool),
        noticed: bool,
    ) {
        let leads = self
            .watched
            .iter()
            .any(|((of, _), it)| *of == node && it.is_leader);
        let reached = &mut self.report.reached;
        if alone && leads {
            reached.hit("a leader is cut from all others");
        }
        if ways != (true, true) {
            reached.hit("nothing passes one way");
        }
        if !noticed {
            reached.hit("a link goes down unnoticed");
        }
    }

    pub(super) fn count_fate(&mut self, fate: &Fate) {
        let reached = &mut self.report.reached;
        match fate.arrivals.len() {
            0 => reached.hit("a frame is lost"),
            1 => {}
            _ => reached.hit("a frame comes twice"),
        }
        if fate.flip.is_some() {
            reached.hit("a frame is garbled");
        }
        if fate.overtakes {
            reached.hit("a frame overtakes another");
        }
    }
}

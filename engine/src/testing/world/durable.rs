//! What would be left if the power were cut at once: whatever is reported committed must be on
//! the disks of a quorum (R4).

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::oracle::{Violation, demand};
use super::{Event, World};
use crate::{GroupId, LogIndex, NodeId};

/// The longest time between two looks. A look opens the image of every disk, so they are rare.
const INTERVAL_MAX: Duration = Duration::from_secs(20);

/// One of so many elections is followed by a look at once.
const ELECTIONS: u8 = 8;

/// Where each group's log ends on a node's durable image; none if it cannot be told.
type Ends = Option<BTreeMap<GroupId, LogIndex>>;

impl World {
    /// The next look by the clock.
    pub(super) fn plan_look_at_disks(&mut self) {
        let most = u64::try_from(INTERVAL_MAX.as_millis()).expect("seconds");
        let wait = Duration::from_millis(self.durable_rng.u64(1..most));
        self.after(wait, Event::LookAtDisks { is_planned: true });
    }

    /// A leader was chosen: what it believes to be committed may rest on other disks now.
    pub(super) fn note_leader_for_disks(&mut self) {
        if self.durable_rng.u8(..ELECTIONS) == 0 {
            self.after(Duration::ZERO, Event::LookAtDisks { is_planned: false });
        }
    }

    pub(super) fn look_at_disks(&mut self, is_planned: bool) -> Result<(), Violation> {
        if is_planned {
            self.plan_look_at_disks();
        }
        let mut ends = BTreeMap::new();
        for node in self.nodes.values() {
            ends.insert(node.id, self.durable_ends(node.id)?);
        }
        self.report.disk_looks += 1;
        for (group, nodes) in self.placed() {
            if !self.placements.deleted.contains(&group) {
                self.judge_commit(group, &nodes, &ends)?;
            }
        }
        Ok(())
    }

    fn durable_ends(&self, id: NodeId) -> Result<Ends, Violation> {
        if self.damaged.contains(&id) {
            return Ok(None);
        }
        let ends = self.nodes[&id].disk.durable_ends(self.plan.shards_of(id));
        let is_whole = matches!(ends, Ok(Some(_)));
        demand(
            is_whole || self.may_rot(id),
            "D4 what was written can be read again",
            || format!("{id}, if its power were cut: {ends:?}"),
        )?;
        Ok(ends.ok().flatten())
    }

    /// What any replica has reported as committed is on a quorum's disks, but for those of which
    /// nobody can tell.
    fn judge_commit(
        &self,
        group: GroupId,
        nodes: &[NodeId],
        ends: &BTreeMap<NodeId, Ends>,
    ) -> Result<(), Violation> {
        let reported = self.watched.iter().filter(|((_, of), _)| *of == group);
        let commit = reported.map(|(_, status)| status.commit_index).max();
        let commit = commit.unwrap_or_default();
        let has_it = |id: &&NodeId| match &ends[*id] {
            Some(ends) => ends.get(&group).is_some_and(|end| *end >= commit),
            None => true,
        };
        let count = nodes.iter().filter(has_it).count();
        demand(
            count * 2 > nodes.len() || commit == LogIndex::ZERO || self.may_stop(),
            "R4 what is committed is durable on a quorum",
            || format!("{group}: {commit} is on {count} of {nodes:?}"),
        )
    }
}

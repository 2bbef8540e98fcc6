//! What keeps clients from being served, told from the faults alone: whoever expects progress of
//! a run must know how much of it was possible.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::network::Pair;
use super::{Node, World};
use crate::{GroupId, NodeId};

/// What keeps a partition from being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Down,
    Disks,
    Cut,
    Leader,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Cause::Down => "majorities were down or paused",
            Cause::Disks => "majorities had full or slow disks",
            Cause::Cut => "no majorities were connected",
            Cause::Leader => "leaders died, were paused or cut off",
        }
    }
}

/// How often somebody looked, and how often a partition could not be served then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hindrance {
    looks: u64,
    causes: BTreeMap<Cause, u64>,
    /// Until when each partition's last hindrance counts.
    until: BTreeMap<GroupId, (Duration, Cause)>,
    /// Partitions whose leader was well at the last look.
    led: BTreeSet<GroupId>,
}

/// What somebody sees who looks at a partition.
#[derive(Debug)]
struct Look {
    now: Duration,
    /// How long what hinders it now goes on to do so.
    lasts: Duration,
    group: GroupId,
    /// What keeps it from being served.
    cause: Option<Cause>,
    /// Whether its leader is well.
    is_led: bool,
}

/// How long a partition has to find a leader, after a hindrance.
const ELECTION: Duration = Duration::from_secs(2);

impl Hindrance {
    /// In how many looks of a hundred a partition could not be served.
    #[must_use]
    pub fn percent(&self) -> u64 {
        self.causes.values().sum::<u64>() * 100 / self.looks.max(1)
    }

    /// What has kept clients from being served most often; nothing if nothing has.
    #[must_use]
    pub fn worst(&self) -> Option<&'static str> {
        let worst = self.causes.iter().max_by_key(|(_, looks)| **looks);
        worst.map(|(cause, _)| cause.name())
    }

    /// A partition is looked at.
    fn look(&mut self, seen: &Look) {
        let &Look {
            now,
            lasts,
            group,
            cause,
            is_led,
        } = seen;
        self.looks += 1;
        let was_led = match is_led {
            true => !self.led.insert(group),
            false => self.led.remove(&group),
        };
        let lost = (was_led && !is_led).then_some(Cause::Leader);
        if let Some(cause) = cause.or(lost) {
            self.until.insert(group, (now + lasts, cause));
        }
        if let Some((until, cause)) = self.until.get(&group)
            && now < *until
        {
            *self.causes.entry(*cause).or_default() += 1;
        }
    }
}

impl World {
    /// Looks at every partition: whether there is a majority of its replicas that could serve.
    pub(super) fn note_hindrance(&mut self) {
        if self.calm {
            return;
        }
        let placed = self.placed();
        for group in self.groups().into_keys() {
            let replicas = &placed[&group];
            let cause = self.what_hinders(replicas);
            let leader = self.leader_of(group);
            let is_led = leader.is_some_and(|leader| self.serves(leader, replicas));
            self.report.hindrance.look(&Look {
                now: self.now,
                // Then clients may still wait for an answer that got lost.
                lasts: ELECTION + self.plan.answer_max,
                group,
                cause,
                is_led,
            });
        }
    }

    fn what_hinders(&self, replicas: &[NodeId]) -> Option<Cause> {
        let majority = replicas.len() / 2 + 1;
        let is_up = |id: &&NodeId| is_up(&self.nodes[id]);
        let has_disk = |id: &&NodeId| has_disk(&self.nodes[id]);
        if replicas.iter().filter(is_up).count() < majority {
            Some(Cause::Down)
        } else if replicas.iter().filter(has_disk).count() < majority {
            Some(Cause::Disks)
        } else if !replicas.iter().any(|id| self.serves(*id, replicas)) {
            Some(Cause::Cut)
        } else {
            None
        }
    }

    /// The replica that leads in the latest term that has a leader.
    fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        let leading = self
            .watched
            .iter()
            .filter(|((_, of), status)| *of == group && status.is_leader);
        let latest = leading.max_by_key(|(_, status)| status.leader_epoch);
        latest.map(|((node, _), _)| *node)
    }

    /// Whether a replica is well, and linked to enough others that are.
    fn serves(&self, id: NodeId, replicas: &[NodeId]) -> bool {
        let well = replicas.iter().filter(|id| has_disk(&self.nodes[id]));
        let linked = well.filter(|peer| self.are_linked(id, **peer)).count();
        has_disk(&self.nodes[&id]) && linked * 2 > replicas.len()
    }

    fn are_linked(&self, a: NodeId, b: NodeId) -> bool {
        let link = self.network.links.get(&Pair::of(a, b));
        a == b || link.is_some_and(|link| link.session.is_some() && link.cut == (false, false))
    }
}

fn is_up(node: &Node) -> bool {
    node.is_alive() && node.paused.is_none()
}

fn has_disk(node: &Node) -> bool {
    is_up(node) && !node.disk.is_full() && !node.disk.is_slow()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64, cause: Option<Cause>, is_led: bool) -> Look {
        Look {
            now: Duration::from_secs(second),
            lasts: Duration::from_secs(2),
            group: GroupId(1),
            cause,
            is_led,
        }
    }

    #[test]
    fn what_has_hindered_most_is_named() {
        let mut hindrance = Hindrance::default();
        for second in 0..100 {
            let cause = (second < 10).then_some(Cause::Cut);
            hindrance.look(&look(second, cause, second >= 10));
        }
        // It lasts for two seconds, of which the first look is the last that it is seen in.
        assert_eq!(hindrance.percent(), 11);
        assert_eq!(hindrance.worst(), Some(Cause::Cut.name()));
        for second in 100..190 {
            hindrance.look(&look(second, Some(Cause::Down), true));
        }
        assert_eq!(hindrance.worst(), Some(Cause::Down.name()));
    }

    #[test]
    fn a_lost_leader_is_an_excuse_for_an_election() {
        let mut hindrance = Hindrance::default();
        for second in 0..10 {
            hindrance.look(&look(second, None, second == 0));
        }
        assert_eq!(hindrance.causes[&Cause::Leader], 2);
    }
}

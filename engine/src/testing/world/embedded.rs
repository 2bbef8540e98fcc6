//! The world as a test holds it that embeds nodes: it asks one operation after the other, and
//! says itself what happens to nodes and links, besides what the plan draws from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::network::Pair;
use super::super::oracle::{Violation, demand};
use super::super::plan::Plan;
use super::{Asker, World, front};
use crate::{GroupId, NodeId, Op, OpResult};

/// What a test does to a world by itself.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    calls: u64,
    /// The call that is waited for, and its answer.
    call: Option<(u64, Option<OpResult>)>,
    /// Nodes that are not started before the test says so.
    down: BTreeSet<NodeId>,
    /// Links that are not mended before the test says so.
    parted: BTreeSet<Pair>,
}

impl Scripted {
    pub(super) fn is_down(&self, node: NodeId) -> bool {
        self.down.contains(&node)
    }

    pub(super) fn is_parted(&self, pair: Pair) -> bool {
        self.parted.contains(&pair)
    }

    /// An answer that is not waited for any more is dropped.
    pub(super) fn answer(&mut self, call: u64, result: OpResult) {
        if let Some((waited_for, answer)) = &mut self.call
            && *waited_for == call
        {
            *answer = Some(result);
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self.call, Some((_, Some(_))))
    }
}

/// Why an operation got no answer. It may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The node is not running, or has crashed meanwhile.
    #[error("the node has crashed")]
    Crashed,
    /// The time that it was given is over.
    #[error("there was no answer in time")]
    Late,
}

/// A world without clients of its own, driven by a test. Time passes only in the calls here.
///
/// Every call that lets time pass may end with a [`Violation`]: then Highwater has broken a
/// promise, whatever the test does.
pub struct Embedded {
    world: World,
}

impl Embedded {
    /// A world of this plan, but without its clients and deletions. All nodes run.
    ///
    /// # Panics
    ///
    /// If the plan has no nodes.
    #[must_use]
    pub fn new(plan: Plan) -> Embedded {
        let plan = Plan {
            topics: Vec::new(),
            ..plan
        };
        let mut world = World::new(plan);
        // Nodes are started as the first thing that happens.
        let started = world.run_until(Duration::ZERO, |_| false);
        started.expect("nothing can be wrong with an empty disk");
        Embedded { world }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.world.plan
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.now
    }

    /// The virtual wall clock of the first node, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        let clocks = self.world.nodes.values().map(|node| node.clock);
        let first = clocks.into_iter().next().expect("a world has a node");
        first.at(self.world.now).wall_ms
    }

    /// What everything so far was, as a number: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.trace.hash()
    }

    /// A number below `bound`, drawn from the seed.
    ///
    /// # Panics
    ///
    /// If `bound` is 0.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.world.client_rng.u64(..bound)
    }

    /// Which life of a node this is, counted from 1; nothing while it is down.
    #[must_use]
    pub fn life(&self, node: NodeId) -> Option<u64> {
        let node = self.world.nodes.get(&node)?;
        node.is_alive().then_some(node.life)
    }

    /// Asks an operation of a group on a node, and lets time pass until it is answered.
    ///
    /// # Errors
    ///
    /// The outer one as all calls; [`Lost`] if the node crashes first, or `patience` ends.
    pub fn ask(
        &mut self,
        node: NodeId,
        group: GroupId,
        op: Op,
        patience: Duration,
    ) -> Result<Result<OpResult, Lost>, Violation> {
        let Some(life) = self.life(node) else {
            return Ok(Err(Lost::Crashed));
        };
        let world = &mut self.world;
        world.scripted.calls += 1;
        let call = world.scripted.calls;
        world.scripted.call = Some((call, None));
        world.ask(Asker::Embedded(call), front(node), group, op);
        let end = world.now + patience;
        self.run_while(end, |it| {
            !it.world.scripted.is_answered() && it.life(node) == Some(life)
        })?;
        let answered = self
            .world
            .scripted
            .call
            .take()
            .and_then(|(_, answer)| answer);
        Ok(match answered {
            Some(result) => Ok(result),
            None if self.life(node) == Some(life) => Err(Lost::Late),
            None => Err(Lost::Crashed),
        })
    }

    /// Lets time pass.
    ///
    /// # Errors
    ///
    /// As all calls.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_while(self.world.now + time, |_| true)
    }

    /// A node loses its power, with what its disk had not synced; it stays down.
    pub fn crash(&mut self, node: NodeId) {
        self.world.scripted.down.insert(node);
        self.world
            .trace
            .note(self.world.now, || format!("{node} is crashed"));
        self.world.power_cut(node);
    }

    /// Starts a node that is down.
    ///
    /// # Errors
    ///
    /// As all calls.
    pub fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        self.world.scripted.down.remove(&node);
        self.world.restart(node)
    }

    /// Nothing passes between the nodes of one side and those of the other, and neither notices
    /// but by silence.
    pub fn part(&mut self, one: &[NodeId], other: &[NodeId]) {
        for (&one, &other) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            let pair = Pair::of(one, other);
            self.world.cut_link(pair, (true, true), false);
            self.world.scripted.parted.insert(pair);
        }
    }

    /// All links that were [parted](Embedded::part) are mended.
    pub fn heal(&mut self) {
        for pair in std::mem::take(&mut self.world.scripted.parted) {
            let soon = self.world.now;
            self.world.at(soon, super::Event::Mend { pair });
        }
    }

    /// From now on the plan's faults do not happen any more; what the test did stays.
    pub fn calm_down(&mut self) {
        self.world.calm_down();
        for pair in self.world.scripted.parted.clone() {
            let link = self.world.network.links.entry(pair).or_default();
            link.cut = (true, true);
        }
    }

    /// Lets time pass until every replica has committed, and told, the same.
    ///
    /// # Errors
    ///
    /// As all calls, and if that takes longer than the plan's patience.
    pub fn settle(&mut self) -> Result<(), Violation> {
        let end = self.world.now + self.world.plan.patience;
        self.run_while(end, |it| !it.world.is_at_rest())?;
        demand(self.world.is_at_rest(), "L1 all comes to rest", || {
            self.world.describe_unrest()
        })
    }

    /// Lets what happens happen, up to `end`, as long as it `goes_on`.
    fn run_while(
        &mut self,
        end: Duration,
        goes_on: impl Fn(&Embedded) -> bool,
    ) -> Result<(), Violation> {
        while goes_on(self) {
            if self.world.step(end)?.is_none() {
                self.world.now = end;
                break;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded at {:?}", self.world.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn calm(seed: u64) -> Embedded {
        let plan = Plan::of_seed(seed, 3).without_faults();
        Embedded::new(Plan { groups: 1, ..plan })
    }

    fn barrier(world: &mut Embedded, node: u32) -> Result<OpResult, Lost> {
        let asked = world.ask(NodeId(node), GroupId(1), Op::Barrier, PATIENCE);
        asked.expect("no violation")
    }

    #[test]
    fn a_node_that_is_crashed_stays_down_until_it_is_started() {
        let mut world = calm(1);
        world.run_for(Duration::from_millis(1)).unwrap();
        world.crash(NodeId(1));
        world.run_for(PATIENCE).unwrap();
        assert_eq!(barrier(&mut world, 1), Err(Lost::Crashed));
        world.restart(NodeId(1)).unwrap();
        assert_eq!(world.life(NodeId(1)), Some(2));
        assert!(barrier(&mut world, 1).is_ok());
        world.settle().unwrap();
    }

    #[test]
    fn whoever_is_parted_is_refused_until_all_is_healed() {
        let mut world = calm(2);
        world.run_for(Duration::from_secs(1)).unwrap();
        world.part(&[NodeId(1)], &[NodeId(2), NodeId(3)]);
        world.calm_down();
        world.run_for(Duration::from_secs(5)).unwrap();
        assert!(!matches!(
            barrier(&mut world, 1),
            Ok(Ok(Outcome::Barrier { .. }))
        ));
        world.heal();
        world.settle().unwrap();
    }
}

//! The network: links between nodes, with sessions, and what happens to frames on them.
//!
//! Within a session a lane keeps its order and loses nothing as long as the link is well; a plan
//! may break both, for consensus has to survive that too.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::plan::Plan;
use crate::{Lane, NodeId};

/// A pair of nodes, the lower one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair(pub(super) NodeId, pub(super) NodeId);

impl Pair {
    pub(super) fn of(a: NodeId, b: NodeId) -> Pair {
        Pair(a.min(b), a.max(b))
    }
}

/// The link between two nodes.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The session that is up, or coming up.
    pub(super) session: Option<u64>,
    /// Nothing passes from the lower to the higher node, or the other way.
    pub(super) cut: (bool, bool),
}

/// All links, and when the last frame on each lane arrives.
#[derive(Debug)]
pub(super) struct Network {
    rng: Rng,
    pub(super) links: BTreeMap<Pair, Link>,
    arrivals: BTreeMap<(NodeId, NodeId, Lane), Duration>,
    next_session: u64,
    calm: bool,
}

/// What becomes of a frame.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// When it arrives; never, once, or twice.
    pub(super) arrivals: Vec<Duration>,
    /// A bit of it that is flipped, counted modulo its length.
    pub(super) flip: Option<u64>,
    /// It overtakes others of its lane, if they are slow.
    pub(super) overtakes: bool,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Network {
        Network {
            rng,
            links: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            next_session: 0,
            calm: false,
        }
    }

    /// From now on nothing is lost, doubled, overtaken or garbled, and no link is cut.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        for link in self.links.values_mut() {
            link.cut = (false, false);
        }
    }

    pub(super) fn new_session(&mut self) -> u64 {
        self.next_session += 1;
        self.next_session
    }

    /// A delay of a message, or of noticing something.
    pub(super) fn delay(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.u64(20_000..=nanos.max(20_001)))
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.links.get(&Pair::of(from, to)).map(|link| link.cut);
        let (up, down) = cut.unwrap_or_default();
        if from < to { up } else { down }
    }

    /// A frame is sent.
    pub(super) fn send(
        &mut self,
        plan: &Plan,
        now: Duration,
        from: NodeId,
        to: NodeId,
        lane: Lane,
    ) -> Fate {
        let mut fate = Fate::default();
        let lost = !self.calm && self.rng.f64() < plan.loss;
        if self.is_cut(from, to) || lost {
            return fate;
        }
        fate.overtakes = !self.calm && self.rng.f64() < plan.reordering;
        let mut at = now + self.delay(plan.delay_max);
        let last = self.arrivals.entry((from, to, lane)).or_default();
        if !fate.overtakes {
            at = at.max(*last + Duration::from_nanos(1));
            *last = at;
        }
        fate.arrivals.push(at);
        if !self.calm && self.rng.f64() < plan.duplication {
            let again = at + self.delay(plan.delay_max * 20);
            fate.arrivals.push(again);
        }
        if !self.calm && self.rng.f64() < plan.garbling {
            fate.flip = Some(self.rng.u64(..));
        }
        fate
    }
}

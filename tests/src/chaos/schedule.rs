//! Which faults a run has, all drawn before it begins: they follow from the scenario and the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::{Fault, Given, Shape};
use super::kind::{Kind, Takes};
use super::scenario::{Listed, Scenario, Swarm};

/// Faults come in rounds: each has a mix of its own, and its last quarter has none.
const ROUND: Duration = Duration::from_secs(60);

/// The part of a round with faults.
const BUSY: Duration = Duration::from_secs(45);

/// How long the cluster is left alone at first.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long a node that a fault took away is left alone: it starts, and catches up.
const RECOVERS: Duration = Duration::from_secs(4);

/// Of how many kinds that a scenario has a round's mix is made: this many in ten, drawn.
const MIX_IN_TEN: u8 = 6;

/// How often something else is drawn when a fault would take too many nodes.
const TRIES: u32 = 20;

/// The faults of a run, in order of their beginning.
pub(crate) fn draw(
    scenario: &Scenario,
    seed: u64,
    lasts: Duration,
    shape: Shape,
    is_possible: impl Fn(Kind) -> bool,
) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults = Vec::new();
    let mut taken = Vec::new();
    let listed = scenario.timeline.iter();
    for listed in listed.filter(|listed| is_possible(listed.fault)) {
        let fault = make_listed(listed, shape, &mut random);
        taken.extend(Taken::by(&fault, listed.node, shape));
        faults.push(fault);
    }
    if let Some(swarm) = &scenario.swarm {
        let mut drawing = Drawing {
            swarm,
            shape,
            spared: match scenario.spare_a_majority {
                true => shape.nodes / 2 + 1,
                false => 0,
            },
            taken,
            random,
        };
        faults.extend(drawing.all(lasts, &is_possible));
    }
    faults.sort_by_key(Fault::begins);
    faults
}

fn make_listed(listed: &Listed, shape: Shape, random: &mut fastrand::Rng) -> Fault {
    let given = Given {
        at: Duration::from_secs_f64(listed.at_s.max(0.0)),
        lasts: Duration::from_secs_f64(listed.for_s.max(0.0)),
        node: listed.node,
        peer: listed.peer,
        amount: listed
            .amount
            .unwrap_or_else(|| amount(listed.fault, random)),
    };
    given.make(listed.fault, shape, random)
}

/// How much of a fault there is, where nobody says.
fn amount(kind: Kind, random: &mut fastrand::Rng) -> i64 {
    match kind {
        Kind::RestartStorm => random.i64(5..15),
        Kind::Starve => random.i64(2..20),
        Kind::Slow => random.i64(10..300),
        Kind::Loss => random.i64(100..300),
        Kind::Duplication | Kind::Reordering => random.i64(100..500),
        Kind::Corruption => random.i64(5..50),
        Kind::SmallPackets => random.i64(1_230..1_400),
        Kind::Narrow => random.i64(60_000..500_000),
        Kind::Clock => {
            let ahead = random.choice([HOUR, 72 * HOUR, 87_600 * HOUR]);
            let ahead = ahead.expect("there are three");
            if random.bool() { ahead } else { -ahead }
        }
        _ => 0,
    }
}

/// In seconds.
const HOUR: i64 = 3_600;

struct Drawing<'a> {
    swarm: &'a Swarm,
    shape: Shape,
    /// How many nodes are never taken away at once.
    spared: usize,
    /// When which node is taken away.
    taken: Vec<Taken>,
    random: fastrand::Rng,
}

impl Drawing<'_> {
    fn all(&mut self, lasts: Duration, is_possible: &impl Fn(Kind) -> bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut round = Duration::ZERO;
        while round < lasts {
            let mix = self.mix(is_possible);
            let end = (round + BUSY).min(lasts);
            let mut at = round.max(WARM_UP) + self.between(self.swarm.every_s);
            while at < end && !mix.is_empty() {
                faults.extend(self.one(&mix, at, end));
                at += self.between(self.swarm.every_s);
            }
            round += ROUND;
        }
        faults
    }

    /// Each kind as often as it weighs; at least one is in.
    fn mix(&mut self, is_possible: &impl Fn(Kind) -> bool) -> Vec<Kind> {
        let weights = self.swarm.weights.iter();
        let possible: Vec<(Kind, u32)> = weights
            .map(|(kind, weight)| (*kind, *weight))
            .filter(|(kind, weight)| *weight > 0 && is_possible(*kind))
            .collect();
        let mut mix = Vec::new();
        let sure = self.random.usize(..possible.len().max(1));
        for (number, (kind, weight)) in possible.iter().enumerate() {
            if number == sure || self.random.u8(..10) < MIX_IN_TEN {
                mix.extend((0..*weight).map(|_| *kind));
            }
        }
        mix
    }

    fn between(&mut self, [least, most]: [f64; 2]) -> Duration {
        Duration::from_secs_f64(least + self.random.f64() * (most - least))
    }

    /// A fault that leaves enough nodes alone, if one is found.
    fn one(&mut self, mix: &[Kind], at: Duration, end: Duration) -> Option<Fault> {
        for _ in 0..TRIES {
            let kind = mix[self.random.usize(..mix.len())];
            let lasts = self.between(self.swarm.lasts_s);
            let given = self.given(kind, at, lasts.min(end - at));
            let fault = given.make(kind, self.shape, &mut self.random);
            if self.take(&fault, given.node) {
                return Some(fault);
            }
        }
        None
    }

    fn given(&mut self, kind: Kind, at: Duration, lasts: Duration) -> Given {
        let nodes = self.shape.nodes;
        let node = self.random.usize(..nodes);
        Given {
            at,
            lasts,
            node,
            peer: (node + self.random.usize(1..nodes)) % nodes,
            amount: amount(kind, &mut self.random),
        }
    }

    /// Whether the fault may be; if so, its nodes are taken.
    fn take(&mut self, fault: &Fault, node: usize) -> bool {
        let takes = Taken::by(fault, node, self.shape);
        let Some(first) = takes.first() else {
            return true;
        };
        let others = self.taken.iter().filter(|other| other.overlaps(first));
        let others: BTreeSet<usize> = others.map(|other| other.node).collect();
        let is_free = takes.iter().all(|taken| !others.contains(&taken.node));
        // All at once are back at once: nobody is to be away besides.
        let is_spared = match fault.kind.takes() {
            Takes::All => others.is_empty(),
            _ => others.len() + takes.len() + self.spared <= self.shape.nodes,
        };
        if is_free && is_spared {
            self.taken.extend(takes);
        }
        is_free && is_spared
    }
}

/// A node is taken away, and left alone until it has recovered.
#[derive(Debug, Clone, Copy)]
struct Taken {
    node: usize,
    from: Duration,
    until: Duration,
}

impl Taken {
    /// What a fault takes.
    fn by(fault: &Fault, node: usize, shape: Shape) -> Vec<Taken> {
        let nodes = match fault.kind.takes() {
            Takes::Nothing => 0..0,
            Takes::Node => node..node + 1,
            Takes::All => 0..shape.nodes,
        };
        let (from, until) = (fault.begins(), fault.ends() + RECOVERS);
        nodes.map(|node| Taken { node, from, until }).collect()
    }

    fn overlaps(&self, other: &Taken) -> bool {
        self.from < other.until && other.from < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        nodes: 5,
        clients: 2,
    };

    fn swarm_of_all() -> Scenario {
        let weights: String = Kind::ALL
            .iter()
            .map(|kind| format!("{} = 1\n", kind.name()))
            .collect();
        let text = format!(
            "about = \"\"\nnodes = 5\nseed = 1\nminutes = 10\n\
             [swarm]\nevery_s = [0.5, 2]\nlasts_s = [0.5, 5]\n[swarm.weights]\n{weights}"
        );
        toml::from_str(&text).unwrap()
    }

    fn drawn(seed: u64) -> Vec<Fault> {
        let lasts = Duration::from_secs(600);
        draw(&swarm_of_all(), seed, lasts, SHAPE, |_| true)
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let text = |seed| format!("{:?}", drawn(seed));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn a_majority_is_spared_and_quarters_are_quiet() {
        for seed in 0..50 {
            let faults = drawn(seed);
            assert!(faults.len() > 100, "{}", faults.len());
            for fault in &faults {
                assert!(fault.begins().as_secs() % 60 < 45, "{fault}");
                let at = fault.begins();
                let taken = faults.iter().filter(|other| {
                    other.kind.takes() == Takes::Node && other.begins() <= at && at < other.ends()
                });
                assert!(taken.count() <= 2, "{fault}");
            }
        }
    }

    #[test]
    fn what_is_listed_has_its_node_for_itself() {
        let mut scenario = swarm_of_all();
        let listed = "fault = \"pause\"\nat_s = 5\nfor_s = 100\nnode = 2";
        scenario.timeline = vec![toml::from_str(listed).unwrap()];
        for seed in 0..50 {
            let faults = draw(&scenario, seed, Duration::from_secs(90), SHAPE, |_| true);
            let on_it = |fault: &&Fault| {
                fault.kind.takes() != Takes::Nothing && fault.what.ends_with("node 2")
            };
            assert_eq!(faults.iter().filter(on_it).count(), 1, "{faults:?}");
            assert!(faults.iter().all(|fault| fault.kind.takes() != Takes::All));
        }
    }

    #[test]
    fn every_kind_is_drawn_unless_it_is_impossible() {
        let lasts = Duration::from_secs(6_000);
        let is_possible = |kind: Kind| kind != Kind::Clock;
        let faults = draw(&swarm_of_all(), 1, lasts, SHAPE, is_possible);
        for kind in Kind::ALL {
            let is_there = faults.iter().any(|fault| fault.kind == kind);
            assert_eq!(is_there, is_possible(kind), "{kind:?}");
        }
    }
}

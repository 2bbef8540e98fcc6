//! Search over states that are remembered by their fingerprints.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::spec::Violation;
use super::world::{Bounds, Step, Subject, World};

/// In which order states are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Finds the shortest way to break a promise; remembers many states meanwhile.
    ShortestFirst,
    /// Takes little memory.
    DeepestFirst,
}

/// What a search has found.
#[derive(Debug)]
pub(super) struct Found {
    /// States visited.
    pub(super) states: usize,
    /// The first way to break a promise that was met.
    pub(super) broken: Option<Broken>,
}

/// A promise is broken after these steps.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) violation: Violation,
    pub(super) steps: Vec<Step>,
    pub(super) world: World,
}

/// Visits every state within the bounds, or stops at the first broken promise.
pub(super) fn explore(bounds: Bounds, subject: &Subject, order: Order) -> Found {
    let start = World::new(bounds);
    let mut seen = Seen::new();
    seen.insert(fingerprint(&start));
    // How each state was reached: from which, by what.
    let mut ways = vec![(0, Step::Start)];
    let mut frontier = VecDeque::from([(0, start)]);
    while let Some((at, world)) = match order {
        Order::ShortestFirst => frontier.pop_front(),
        Order::DeepestFirst => frontier.pop_back(),
    } {
        let steps = match world.steps(subject) {
            Ok(steps) => steps,
            Err(violation) => {
                let broken = Some(Broken {
                    violation,
                    steps: trace(&ways, at),
                    world,
                });
                return Found {
                    states: ways.len(),
                    broken,
                };
            }
        };
        for (step, next) in steps {
            if seen.insert(fingerprint(&next)) {
                frontier.push_back((ways.len(), next));
                ways.push((at, step));
            }
        }
    }
    Found {
        states: ways.len(),
        broken: None,
    }
}

fn trace(ways: &[(usize, Step)], last: usize) -> Vec<Step> {
    let mut at = last;
    let mut steps = Vec::new();
    while at != 0 {
        steps.push(ways[at].1);
        at = ways[at].0;
    }
    steps.reverse();
    steps
}

fn fingerprint(world: &World) -> u128 {
    let mut hasher = Fingerprint(0x6C62_272E_07BB_0142_62B8_2175_6295_C58D);
    world.hash(&mut hasher);
    hasher.0
}

/// 128 bits: among ten million states two collide with a chance of 10^-25.
struct Fingerprint(u128);

impl Fingerprint {
    fn mix(&mut self, word: u64) {
        let mixed =
            (self.0 ^ u128::from(word)).wrapping_mul(0x0DA9_42F0_94D0_49BB_1331_11EB_9E37_79B9);
        self.0 = mixed ^ (mixed >> 67);
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        u64::try_from(self.0 >> 64).expect("half of 128 bits")
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

/// A set of fingerprints: they are random already, so each is its own hash.
struct Seen {
    slots: Vec<u128>,
    used: usize,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            slots: vec![0; 1 << 12],
            used: 0,
        }
    }

    /// Gives whether it was not there.
    fn insert(&mut self, fingerprint: u128) -> bool {
        let fingerprint = fingerprint.max(1);
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
        let slot = self.slot(fingerprint);
        let new = self.slots[slot] == 0;
        self.used += usize::from(new);
        self.slots[slot] = fingerprint;
        new
    }

    /// Where it is, or belongs.
    fn slot(&self, fingerprint: u128) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = usize::try_from(fingerprint >> 80).expect("48 bits") & mask;
        while self.slots[slot] != 0 && self.slots[slot] != fingerprint {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let doubled = vec![0; self.slots.len() * 2];
        for fingerprint in std::mem::replace(&mut self.slots, doubled) {
            if fingerprint != 0 {
                let slot = self.slot(fingerprint);
                self.slots[slot] = fingerprint;
            }
        }
    }
}

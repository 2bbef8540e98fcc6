//! Breadth first through all states within bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::actions::{Action, Bounds};
use super::world::World;

/// A search: where it begins, and how far it goes.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) name: &'static str,
    pub(super) start: World,
    pub(super) bounds: Bounds,
}

/// What a search has come to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) steps: usize,
    pub(super) depth: usize,
    /// States that were not gone on from, since more was on its way than the bounds allow.
    pub(super) crowded: usize,
    /// Whether all states within the bounds were seen.
    pub(super) is_complete: bool,
    /// What happened, in how many steps.
    pub(super) reached: BTreeMap<&'static str, usize>,
    pub(super) violation: Option<Violation>,
}

/// A broken rule, and the shortest way there.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) rule: String,
    pub(super) trace: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.rule, self.trace)
    }
}

/// The states seen, by hash: open addressing, a power of two of places, 0 for a free one.
#[derive(Debug)]
struct Seen {
    places: Vec<u64>,
    len: usize,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            places: vec![0; 1 << 16],
            len: 0,
        }
    }

    /// Returns whether it is new.
    fn insert(&mut self, hash: u64) -> bool {
        if self.len * 2 > self.places.len() {
            let larger = vec![0; self.places.len() * 2];
            let old = std::mem::replace(&mut self.places, larger);
            old.into_iter().filter(|&hash| hash != 0).for_each(|hash| {
                *self.place(hash) = hash;
            });
        }
        let hash = hash.max(1);
        let place = self.place(hash);
        if *place == hash {
            return false;
        }
        *place = hash;
        self.len += 1;
        true
    }

    fn place(&mut self, hash: u64) -> &mut u64 {
        let mask = self.places.len() - 1;
        let mut at = usize::try_from(hash & mask as u64).expect("less than the length");
        while self.places[at] != 0 && self.places[at] != hash {
            at = (at + 1) & mask;
        }
        &mut self.places[at]
    }
}

impl Search {
    /// Goes on until all is seen, a rule is broken, or `may_go_on` says no to a number of states.
    pub(super) fn run(&self, mut may_go_on: impl FnMut(usize) -> bool) -> Found {
        let mut found = Found::default();
        let mut seen = Seen::new();
        // How each state was reached: the one before, and the action.
        let mut ways: Vec<(usize, Action)> = Vec::new();
        let mut level = vec![(usize::MAX, self.start.clone())];
        seen.insert(self.start.essence());
        while !level.is_empty() {
            let mut next = Vec::new();
            for (at, world) in level {
                if !may_go_on(seen.len) {
                    found.states = seen.len;
                    return found;
                }
                for action in world.actions(&self.bounds) {
                    found.steps += 1;
                    let mut later = world.clone();
                    let applied = catch_unwind(AssertUnwindSafe(|| {
                        later.apply(&self.bounds, action);
                    }));
                    if let Err(panic) = applied {
                        ways.push((at, action));
                        found.violation = Some(self.violation(&*panic, &ways));
                        found.states = seen.len;
                        found.depth += 1;
                        return found;
                    }
                    for &event in &later.reached {
                        *found.reached.entry(event).or_insert(0) += 1;
                    }
                    if !seen.insert(later.essence()) {
                        continue;
                    }
                    ways.push((at, action));
                    if later.is_crowded(&self.bounds) {
                        found.crowded += 1;
                    } else {
                        next.push((ways.len() - 1, later));
                    }
                }
            }
            found.depth += usize::from(!next.is_empty());
            level = next;
        }
        found.states = seen.len;
        found.is_complete = true;
        found
    }

    fn violation(&self, panic: &(dyn std::any::Any + Send), ways: &[(usize, Action)]) -> Violation {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let word = panic.downcast_ref::<&str>().copied();
        let rule = words.or(word).unwrap_or("a panic").to_owned();
        let mut actions = Vec::new();
        let mut at = ways.len() - 1;
        while let Some(&(before, action)) = ways.get(at) {
            actions.push(action);
            at = before;
        }
        actions.reverse();
        let trace = self.tell(&actions);
        Violation { rule, trace }
    }

    /// What happened, step by step.
    fn tell(&self, actions: &[Action]) -> String {
        let mut world = self.start.clone();
        let mut trace = String::new();
        for (&action, step) in actions.iter().zip(1..) {
            trace += &format!("{step:3}. {}\n", world.describe(action));
            let apply = AssertUnwindSafe(|| world.apply(&self.bounds, action));
            let is_broken = catch_unwind(apply).is_err();
            trace += &world.show();
            if is_broken {
                break;
            }
        }
        trace
    }
}

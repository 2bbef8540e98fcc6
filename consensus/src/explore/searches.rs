//! The searches: where they begin, how far they go, and what each must have met.

use std::collections::BTreeMap;
use std::time::Duration;

use super::actions::Bounds;
use super::search::{Found, Search};
use super::world::World;

/// How many states of each search the test command looks at. Breadth first: all up to some
/// depth, which is printed.
const QUICK_STATES_MAX: usize = 200_000;

/// All searches. Each start is a state that Raft reaches from empty disks; beginning there makes
/// what lies behind it shallow.
pub(super) fn all() -> Vec<Search> {
    vec![
        elections(),
        pre_votes(),
        figure_8(),
        divergence(),
        faults(),
        late_answers(),
        reads(),
        quarantine(),
    ]
}

/// From empty disks: who leads, and the first entries.
fn elections() -> Search {
    Search {
        name: "elections",
        start: World::new(0, [&[], &[], &[]], 0),
        bounds: Bounds {
            terms: 2,
            proposals: 1,
            crashes: 1,
            packets: 3,
            ..Bounds::default()
        },
    }
}

/// The same with pre-votes, transfers of leadership and leaders that step down.
fn pre_votes() -> Search {
    Search {
        name: "pre-votes",
        start: World::new(0, [&[], &[], &[]], 0),
        bounds: Bounds {
            terms: 2,
            transfers: 1,
            packets: 3,
            has_pre_votes: true,
            ..Bounds::default()
        },
    }
}

/// Two leaders have come and gone, each with an entry that it alone has (paper, figure 8: with
/// three nodes and every entry in an append of its own the same can go wrong).
fn figure_8() -> Search {
    Search {
        name: "figure 8",
        start: World::new(2, [&[1], &[], &[2]], 0),
        bounds: Bounds {
            terms: 4,
            packets: 3,
            has_small_appends: true,
            ..Bounds::default()
        },
    }
}

/// n1 and n2 have committed what n3 lacks, and n3 has what nobody else has.
fn divergence() -> Search {
    Search {
        name: "divergence",
        start: World::new(2, [&[1, 2], &[1, 2], &[1, 1, 1]], 2),
        bounds: Bounds {
            terms: 3,
            beats: 1,
            packets: 3,
            has_small_appends: true,
            ..Bounds::default()
        },
    }
}

/// The same with crashes, losses and links that break.
fn faults() -> Search {
    Search {
        name: "faults",
        start: World::new(2, [&[1, 2], &[1, 2], &[1, 1, 1]], 2),
        bounds: Bounds {
            terms: 4,
            proposals: 1,
            crashes: 1,
            losses: 1,
            relinks: 1,
            beats: 1,
            packets: 3,
            ..Bounds::default()
        },
    }
}

/// Answers that come when their term is over.
fn late_answers() -> Search {
    Search {
        name: "late answers",
        start: World::new(1, [&[1], &[1], &[]], 1),
        bounds: Bounds {
            terms: 3,
            packets: 3,
            has_void_answers: true,
            ..Bounds::default()
        },
    }
}

/// Read points while leaders come and go.
fn reads() -> Search {
    Search {
        name: "reads",
        start: World::new(1, [&[1, 1], &[1, 1], &[1]], 2),
        bounds: Bounds {
            terms: 3,
            reads: 1,
            packets: 4,
            ..Bounds::default()
        },
    }
}

/// One replica loses an acknowledged entry, or all from one on, and rejoins.
fn quarantine() -> Search {
    Search {
        name: "quarantine",
        start: World::new(1, [&[1, 1], &[1, 1], &[]], 2),
        bounds: Bounds {
            terms: 3,
            proposals: 1,
            crashes: 1,
            beats: 1,
            rots: 1,
            packets: 3,
            ..Bounds::default()
        },
    }
}

/// What it has come to, in a line.
fn report(search: &Search, found: &Found) -> String {
    let extent = match found.is_complete {
        true => format!("all states, depth {}", found.depth),
        false => format!("all states to depth {}, and some behind", found.depth),
    };
    format!(
        "{}: {extent}: {} states, {} steps, {} not gone on from; {:?} within {:?}",
        search.name, found.states, found.steps, found.crowded, found.reached, search.bounds
    )
}

/// # Panics
/// With a shortest trace, if a rule is broken.
fn explore(search: &Search, may_go_on: impl FnMut(usize) -> bool) -> Found {
    let found = search.run(may_go_on);
    if let Some(violation) = &found.violation {
        panic!("{}: {violation}", search.name);
    }
    println!("{}", report(search, &found));
    found
}

#[test]
fn no_small_history_breaks_a_rule() {
    let mut reached = BTreeMap::new();
    for search in all() {
        let found = explore(&search, |states| states < QUICK_STATES_MAX);
        for (event, count) in found.reached {
            *reached.entry(event).or_insert(0) += count;
        }
    }
    // A search in which nothing happens proves nothing.
    let expected = [
        "a leader",
        "a commit",
        "a conflict",
        "a synced entry is cut",
        "a vote after a crash",
        "a quarantine ends",
        "a read point is confirmed",
        "catch-up",
    ];
    for event in expected {
        assert!(reached.contains_key(event), "{event}: never met");
    }
}

/// As [`no_small_history_breaks_a_rule`], for `EXPLORE_MINUTES` in all (10 if it is not said), up
/// to `EXPLORE_STATES` a search (3,000,000), which take up to 10 GB of memory:
/// `EXPLORE_MINUTES=60 cargo test -p highwater-consensus --lib larger -- --ignored --nocapture`.
#[test]
#[ignore = "takes as long as one gives it"]
#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is no input of a run"
)]
fn no_larger_history_breaks_a_rule() {
    let number = |name: &str, default: u64| {
        let said = std::env::var(name).ok();
        said.map_or(default, |said| said.parse().expect("a number"))
    };
    let states_max = number("EXPLORE_STATES", 3_000_000);
    let searches = all();
    let share = Duration::from_secs(number("EXPLORE_MINUTES", 10) * 60 / searches.len() as u64);
    for search in searches {
        let begun = std::time::Instant::now();
        explore(&search, |states| {
            (states as u64) < states_max && begun.elapsed() < share
        });
    }
}

//! The tests of the tests: bugs planted one by one, each of which must be found.
//!
//! A mutant is a line of the crate that asks [`mutant!`](crate::mutant) for its name; most names
//! are those that the field gives these bugs. The table in `docs/testing.md` is what this prints:
//! `cargo test -p highwater-consensus --lib planted -- --nocapture`.

use std::panic::catch_unwind;

use super::searches;
use crate::mutant::planted;
use crate::suite::pitfalls::{bases, elections, reads, replication};
use crate::suite::{random, standing};

/// Who is to find a mutant, and within what.
#[derive(Clone, Copy, Debug)]
enum Finder {
    /// A search of the explorer, and how many states it may look at.
    Search(&'static str, usize),
    /// The random test, and how many seeds it may try.
    Random(u64),
    /// A scripted pitfall.
    Pitfall(&'static str, fn()),
}

use Finder::{Pitfall, Random, Search};

const MUTANTS: [(&str, Finder); 31] = [
    ("ack before fsync", Search("elections", 10_000)),
    (
        "leader counts itself before its flush",
        Search("elections", 40_000),
    ),
    (
        "fsync completion covers later writes",
        Search("elections", 1_000),
    ),
    ("fsync vouches for what replaced its bytes", Random(20)),
    ("skip hardstate fsync", Search("elections", 1_000)),
    ("persist entry before term", Search("elections", 10_000)),
    ("step-down clears the vote", Search("elections", 10_000)),
    ("vote forgotten by a restart", Search("elections", 20_000)),
    ("grant vote twice in a term", Search("elections", 1_000)),
    ("vote without log check", Search("faults", 10_000)),
    (
        "longer log wins over later term",
        Search("divergence", 1_000),
    ),
    (
        "vote of an earlier term counts",
        Search("late answers", 10_000),
    ),
    ("quorum n/2", Search("divergence", 1_000)),
    (
        "commit earlier-term entry by count",
        Search("reads", 150_000),
    ),
    ("accept stale AppendEntries", Search("elections", 10_000)),
    ("append truncates matching suffix", Random(100)),
    (
        "append without consistency check",
        Search("divergence", 60_000),
    ),
    ("commit beyond match", Search("divergence", 20_000)),
    (
        "commit from heartbeat beyond match",
        Search("divergence", 20_000),
    ),
    (
        "match from stale ack",
        Pitfall(
            "P41",
            replication::p41_a_late_acknowledgement_of_what_was_cut_since_moves_nothing,
        ),
    ),
    ("ReadIndex before no-op", Search("reads", 20_000)),
    (
        "read without a round of beats",
        Pitfall(
            "P60",
            reads::p60_a_leader_that_slept_through_an_election_answers_no_read,
        ),
    ),
    ("quarantined node votes", Search("quarantine", 10_000)),
    (
        "quarantined node acknowledges",
        Pitfall(
            "of quarantine",
            replication::a_follower_to_the_logs_end_unreadable_rejoins_by_the_leaders_first_beat,
        ),
    ),
    ("rejoin before all is back", Random(150)),
    (
        "no no-op",
        Pitfall(
            "P02",
            elections::p02_a_new_leader_serves_what_was_committed_without_any_write,
        ),
    ),
    (
        "applied goes back on snapshot",
        Pitfall(
            "P71",
            bases::p40_p71_a_base_that_the_log_already_holds_deletes_nothing,
        ),
    ),
    ("ack over a hole", Random(100)),
    ("row of another term stands", Random(200)),
    ("row that commits stands", Random(100)),
    (
        "row of an earlier term vouches",
        Pitfall(
            "of standing rows",
            standing::what_was_confirmed_of_another_term_or_session_vouches_for_nobody,
        ),
    ),
];

/// What has found the mutant that is planted, and how soon.
fn hunt(finder: Finder) -> Option<String> {
    match finder {
        Search(name, states_max) => {
            let search = searches::all()
                .into_iter()
                .find(|search| search.name == name);
            let found = search
                .expect("a search of that name")
                .run(|n| n < states_max);
            let (states, depth) = (found.states, found.depth);
            let rule = found.violation?.rule.replace('\n', " ");
            Some(format!(
                "explorer, {name} | {states} states, {depth} steps | {rule}"
            ))
        }
        Random(seeds) => {
            let mut tried = 0..seeds;
            let rule = tried.find_map(|seed| broken_rule(|| drop(random::run(seed))))?;
            Some(format!("random test | {} seeds | {rule}", tried.start))
        }
        Pitfall(number, test) => {
            let rule = broken_rule(test)?;
            Some(format!("scripted pitfall {number} | 1 script | {rule}"))
        }
    }
}

/// What is said when `run` fails.
fn broken_rule(run: impl FnOnce() + std::panic::UnwindSafe) -> Option<String> {
    let panic = catch_unwind(run).err()?;
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let word = panic.downcast_ref::<&str>().copied();
    Some(words.or(word).unwrap_or("a panic").replace('\n', " "))
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (mutant, finder) in MUTANTS {
        let planted = planted::plant(mutant);
        let found = hunt(finder);
        drop(planted);
        match found {
            Some(found) => println!("| {mutant} | {found} |"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "nothing finds {missed:?}");
}

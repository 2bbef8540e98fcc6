//! Nodes on disks that fail, on virtual time: message loss, cuts, crashes, clocks, and what must
//! hold all the same (DESIGN.md section 8).

use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use highwater_engine::testing::{Plan, Profile, REACHABLE, Report, World};
use highwater_tests::sim::{RECHECK_EVERY, Work, hash_elsewhere, nodes_of_seed, run_seed};

/// Runs a plan, or says how to repeat it.
fn check(plan: &Plan) -> Report {
    match run_seed(plan, false) {
        Ok(outcome) => outcome.result.expect("only what has passed is given"),
        Err(failure) => panic!(
            "seed {}: {}\nneeds {:#?}\nagain: {}",
            plan.seed, failure.why, failure.faults, failure.again
        ),
    }
}

/// Runs seeds on two threads; what came of each.
fn check_all(
    plan_of: impl Fn(u64) -> Plan + Sync,
    seeds: std::ops::Range<u64>,
) -> Vec<(Plan, Report)> {
    let left = Mutex::new(seeds);
    let next = || left.lock().expect("taking a seed never panics").next();
    let work = || -> Vec<(Plan, Report)> {
        let plans = std::iter::from_fn(next).map(&plan_of);
        plans.map(|plan| (plan.clone(), check(&plan))).collect()
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut reports = work();
        reports.extend(other.join().expect("its panic is the test's"));
        reports
    })
}

fn swarm(seed: u64) -> Plan {
    Plan::new(seed, nodes_of_seed(seed), Profile::Swarm)
}

/// All that must hold in the judged figures: 500 seeds, each of a minute at least, which do work
/// wherever their faults let them, reach every rare path, and are the same in another process.
#[test]
fn five_hundred_seeds_of_every_size_are_clean() {
    let runs = check_all(swarm, 1..501);
    let mut total = Report::default();
    let mut excused = 0;
    for (plan, report) in &runs {
        let seed = plan.seed;
        total.merge(report);
        assert!(report.time >= Duration::from_secs(60), "seed {seed}");
        match Work::of(report) {
            Work::Enough => {}
            Work::Excused(_) => excused += 1,
            Work::Short => panic!("seed {seed} acknowledged {} records", report.acked),
        }
        if seed.is_multiple_of(RECHECK_EVERY) {
            let again = hash_elsewhere(Path::new(env!("CARGO_BIN_EXE_sim")), plan);
            assert_eq!(again.unwrap(), report.trace_hash, "seed {seed}");
        }
    }
    assert_eq!(runs.len(), 500);
    assert!(excused <= 25, "{excused} runs did too little");
    let of_three = runs.iter().filter(|(plan, _)| plan.nodes == 3).count();
    assert!(of_three > 250, "{of_three}");
    assert!(total.leaders > 10_000, "{} elections", total.leaders);
    for fault in ["power cut", "kill", "pause", "cut", "flapping link"] {
        assert!(total.faults[fault] > 1_000, "{:?}", total.faults);
    }
    assert!(REACHABLE.len() >= 80);
    let missing: Vec<&str> = total.reached.missing().collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn every_profile_is_clean() {
    for profile in [Profile::Calm, Profile::Net, Profile::Disk] {
        check_all(|seed| Plan::new(seed, 3, profile), 1_001..1_005);
    }
}

/// With the loads of today. A seed may stop showing its bug when loads or faults are drawn anew.
#[test]
fn seeds_that_have_shown_a_bug_are_clean() {
    let found = [
        (60_943, 3),
        (61_563, 3),
        (62_177, 3),
        (100_569, 3),
        (110_417, 3),
        (110_489, 3),
        (110_930, 2),
        (207_623, 3),
        (305_968, 7),
        (308_352, 4),
        (401_805, 3),
        (501_991, 3),
        (503_891, 3),
    ];
    for (seed, nodes) in found {
        check(&Plan::new(seed, nodes, Profile::Swarm));
    }
}

/// Beyond what can be survived the cluster may stop, but what it says must be true.
#[test]
fn who_has_lost_too_much_refuses_and_does_not_lie() {
    // The only copy of a node has rotted, and it says so.
    check(&Plan::new(4, 1, Profile::Beyond));
    let beyond = |seed| Plan::new(seed, nodes_of_seed(seed), Profile::Beyond);
    let runs = check_all(beyond, 1..31);
    let rot = runs.iter().map(|(_, it)| it.faults.get("bit rot"));
    let rot: u64 = rot.flatten().sum();
    assert!(rot > 40, "{rot}");
}

#[test]
fn without_faults_nothing_is_refused_and_nobody_is_deposed() {
    let report = check(&Plan::new(7, 3, Profile::Calm));
    assert!(report.faults.is_empty());
    assert_eq!(report.reached.count("a produce has an unknown outcome"), 0);
    assert_eq!(
        report
            .reached
            .count("a leader gives way to one of a higher term"),
        0
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [3, 17, 91] {
        let run = || World::new(Plan::of_seed(seed, 3)).traced().run();
        let (first, second) = (run(), run());
        assert!(first.trace.lines().count() > 1_000, "something happened");
        assert!(first.trace == second.trace, "the traces of {seed} differ");
        assert_eq!(first.history, second.history);
        assert_eq!(first.result, second.result);
    }
}

#[test]
fn a_fault_less_changes_nothing_before_it() {
    let whole = Plan::of_seed(4, 3);
    let last = whole.faults.len() - 1;
    let at = whole.faults[last].at;
    let mut less = whole.clone();
    less.faults.truncate(last);
    let lines = |plan: Plan| {
        let trace = World::new(plan).traced().run().trace;
        let before = move |line: &&str| {
            // Some notes go over several lines, of which only the first has the time.
            let second: Option<f64> = line
                .split_whitespace()
                .next()
                .and_then(|it| it.parse().ok());
            second.is_none_or(|second| second < at.as_secs_f64())
        };
        trace
            .lines()
            .take_while(before)
            .map(str::to_owned)
            .collect()
    };
    let (one, other): (Vec<String>, Vec<String>) = (lines(whole), lines(less));
    assert!(one.len() > 1_000);
    assert!(one == other);
}

//! Nodes on disks that fail, on virtual time: message loss, cuts, crashes, clocks, and what must
//! hold all the same (DESIGN.md section 8).

use std::thread;

use highwater_engine::testing::{Plan, Profile, Report, World};
use highwater_tests::sim::{nodes_of_seed, run_seed};

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

/// Runs seeds on two threads.
fn check_all(plan_of: impl Fn(u64) -> Plan + Sync, seeds: std::ops::Range<u64>) -> Vec<Report> {
    let half = |first: u64| -> Vec<Report> {
        let mine = seeds.clone().skip(usize::try_from(first).expect("0 or 1"));
        mine.step_by(2).map(|seed| check(&plan_of(seed))).collect()
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut reports = half(0);
        reports.extend(other.join().expect("its panic is the test's"));
        reports
    })
}

#[test]
fn seeds_of_every_size_are_clean() {
    let swarm = |seed| Plan::new(seed, nodes_of_seed(seed), Profile::Swarm);
    let reports = check_all(swarm, 1..61);
    // The runs would prove little if nothing happened in them.
    let mut total = Report::default();
    for report in &reports {
        total.merge(report);
    }
    assert!(total.acked > 60_000, "{} acknowledged", total.acked);
    assert!(total.leaders > 1_000, "{} elections", total.leaders);
    for fault in ["power cut", "kill", "pause", "cut", "flapping link"] {
        assert!(total.faults[fault] > 40, "{:?}", total.faults);
    }
    let rare = [
        "a log ends earlier than before: a conflict is cut",
        "two replicas believe to lead",
        "a frame is refused",
        "a produce is acknowledged after another try",
        "a topic is deleted",
    ];
    for name in rare {
        assert!(total.reached.count(name) > 0, "{name}");
    }
}

#[test]
fn two_hundred_seeds_of_three_nodes_are_clean() {
    let reports = check_all(|seed| Plan::of_seed(seed, 3), 2_001..2_201);
    let acked: u64 = reports.iter().map(|report| report.acked).sum();
    assert!(acked > 200_000, "{acked} acknowledged");
}

#[test]
fn every_profile_is_clean() {
    for profile in [Profile::Calm, Profile::Net, Profile::Disk] {
        check_all(|seed| Plan::new(seed, 3, profile), 1_001..1_005);
    }
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

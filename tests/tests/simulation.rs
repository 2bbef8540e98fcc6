//! Three shards on three disks, on virtual time: message loss, cuts and crashes, and what must
//! hold all the same (DESIGN.md section 8).

use highwater_engine::testing::{Plan, Report, World, run};

const NODES: u32 = 3;

/// Runs a seed, or says how to repeat it.
fn check(seed: u64, nodes: u32) -> Report {
    run(Plan::of_seed(seed, nodes)).unwrap_or_else(|violation| {
        panic!(
            "seed {seed}: {violation}\nagain: cargo run -p highwater-tests --bin sim -- \
             --seeds 1 --first {seed} --nodes {nodes} --trace"
        )
    })
}

#[test]
fn two_hundred_seeds_of_three_nodes_are_clean() {
    let reports: Vec<Report> = (1..=200).map(|seed| check(seed, NODES)).collect();
    // The runs would prove little if nothing happened in them.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.acked) > 20_000);
    assert!(sum(|report| report.crashes) > 500);
    assert!(sum(|report| report.frames_troubled) > 5_000);
    assert!(sum(|report| report.leaders) > 1_000);
}

#[test]
fn one_and_five_nodes_too() {
    for seed in 1..=20 {
        check(seed, 1);
        check(seed, 5);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [3, 17, 91] {
        let run = || World::new(Plan::of_seed(seed, NODES)).traced().run();
        let (first, second) = (run(), run());
        assert!(first.0.lines().count() > 1_000, "something happened");
        assert!(first.0 == second.0, "the traces of seed {seed} differ");
        assert_eq!(first.1, second.1);
    }
}

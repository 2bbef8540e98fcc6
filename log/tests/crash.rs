//! Random histories with crashes at random points, against a naive model: what was persisted is
//! there, nothing is there that was not written, and no alarm is raised without a fault.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::time::Duration;

use common::world::World;
use highwater_log::storage::Faults;

/// Another range of seeds is given at build time, by `HIGHWATER_SEED_FROM` and
/// `HIGHWATER_SEEDS`: `HIGHWATER_SEED_FROM=17 HIGHWATER_SEEDS=18` repeats one of them.
fn seeds() -> std::ops::Range<u64> {
    let number = |text: Option<&str>, default| text.map_or(default, |text| text.parse().unwrap());
    let from = number(std::option_env!("HIGHWATER_SEED_FROM"), 0);
    from..number(std::option_env!("HIGHWATER_SEEDS"), 60)
}

/// Runs a seed; gives how often the disk failed.
fn run(seed: u64, faults: &Faults) -> usize {
    let mut world = World::new(seed, faults.clone());
    for _ in 0..400 {
        world.step();
    }
    world.crash();
    world.recover_from_faults();
    world.failures
}

#[test]
fn random_histories_survive_crashes() {
    for seed in seeds() {
        assert_eq!(run(seed, &Faults::default()), 0);
    }
}

/// P25: a sync may be answered before a write that was given to the disk earlier.
#[test]
fn slow_disks_that_overtake_themselves_and_run_full_lose_nothing() {
    let faults = Faults {
        delay_max: Duration::from_millis(20),
        stall_rate: 0.01,
        stall: Duration::from_millis(300),
        no_space: 0.2,
        write_no_space: 0.05,
        no_resources: 0.05,
        ..Faults::default()
    };
    for seed in seeds() {
        assert_eq!(run(seed, &faults), 0, "a full disk is no failure");
    }
}

#[test]
fn a_failed_write_or_sync_closes_the_store_and_loses_nothing() {
    let faults = Faults {
        delay_max: Duration::from_millis(5),
        write_error: 0.02,
        sync_error: 0.02,
        entry_error: 0.01,
        ..Faults::default()
    };
    let failures: usize = seeds().map(|seed| run(seed, &faults)).sum();
    assert!(failures > 0, "the disk never failed");
}

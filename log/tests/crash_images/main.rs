//! Crash images (FAULTS F10 to F18): at every step of scripted and random histories the power is
//! cut in every way, and each disk that is left is opened. `log/examples/crash.rs` does the same for as
//! long as one likes.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
mod common;

mod hunt;
mod moment;
#[cfg(feature = "mutants")]
mod mutants;
mod rot;
mod scripts;
mod start;

use hunt::{Counts, Hunt};
use moment::Bound;

#[test]
fn scripted_histories_leave_only_what_the_contract_allows() {
    let bound = Bound {
        exhaustive: 1_024,
        drawn: 150,
    };
    let mut hunt = Hunt::new(bound);
    hunt.scripted();
    demand(&hunt, 3_000);
}

#[test]
fn random_histories_leave_only_what_the_contract_allows() {
    let bound = Bound {
        exhaustive: 32,
        drawn: 6,
    };
    let mut hunt = Hunt::new(bound);
    for seed in 0..5 {
        hunt.random(seed);
    }
    demand(&hunt, 5_000);
}

/// Enough images were opened, and everything was done to some of them.
fn demand(hunt: &Hunt, images: usize) {
    let Counts {
        recoveries_cut,
        went_on,
        rotten_sectors,
        rotten_units,
        ..
    } = hunt.counts;
    println!("{} distinct images, {:?}", hunt.distinct(), hunt.counts);
    assert!(hunt.distinct() >= images, "{} images", hunt.distinct());
    let done = [recoveries_cut, went_on, rotten_sectors, rotten_units];
    assert!(done.iter().all(|&count| count > 100), "{:?}", hunt.counts);
}

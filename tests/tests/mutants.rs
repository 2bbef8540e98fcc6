//! Each bug that can be planted in the engine, and many of those of the log, are found by the
//! simulator.
//!
//!     cargo test -p highwater-tests --features mutants --test mutants -- --nocapture

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_engine::mutants::{self as engine, Mutant as Engine};
use highwater_engine::testing::{Plan, Profile, World};
use highwater_log::mutants::{self as log, Mutant as Log};

/// How many seeds are tried.
const SEEDS_MAX: u64 = 1_000;

/// What a seed says of a planted bug; `None` if nothing.
fn finding(seed: u64, profile: Profile) -> Option<String> {
    let plan = Plan::new(seed, 3, profile);
    match catch_unwind(AssertUnwindSafe(|| World::new(plan).run())) {
        Ok(outcome) => outcome.result.err().map(|violation| violation.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panicked: {}", text.unwrap_or("see above")))
        }
    }
}

/// A bug is planted; some seed must find it.
fn is_found(name: &str, profile: Profile) {
    for (tried, seed) in (1..=SEEDS_MAX).zip(1..) {
        if let Some(what) = finding(seed, profile) {
            let what = what.lines().next().unwrap_or_default();
            println!("| {name} | {tried} | {what:.160} |");
            return;
        }
    }
    panic!("{name}: not in {SEEDS_MAX} seeds");
}

macro_rules! found {
    ($($test:ident: $crate_:ident $mutant:ident $profile:ident,)*) => {
        $(#[test]
        fn $test() {
            let mutant = found!(@$crate_ $mutant);
            found!(@plant $crate_ mutant);
            is_found(&format!("{mutant:?}"), Profile::$profile);
        })*
    };
    (@engine $mutant:ident) => { Engine::$mutant };
    (@log $mutant:ident) => { Log::$mutant };
    (@plant engine $planted:ident) => { engine::plant(Some($planted)) };
    (@plant log $planted:ident) => { log::plant(Some($planted)) };
}

found! {
    a_produce_is_acknowledged_by_the_leader_alone: engine AckBeforeCommit Swarm,
    what_was_appended_is_said_to_have_failed: engine DefiniteErrorAfterAppend Swarm,
    the_high_watermark_is_the_end: engine HighWatermarkIsEnd Swarm,
    consumers_see_what_is_not_committed: engine VisibleBeforeCommit Swarm,
    producers_are_not_rebuilt: engine ProducersNotRebuilt Swarm,
    producers_are_not_cut: engine ProducersNotCut Swarm,
    a_write_is_reported_too_early: log AckBeforeWrite Swarm,
    a_promise_is_reported_too_early: log AckBeforePromise Swarm,
    entries_come_before_their_term: log EntriesBeforeTerm Swarm,
    the_groups_directory_is_not_synced: log GroupDirNotSynced Swarm,
    a_new_groups_directory_is_not_synced: log GroupsDirNotSynced Swarm,
    a_write_claims_itself: log WriteClaimsItself Swarm,
    files_are_unlinked_too_early: log UnlinkBeforeBegin Swarm,
    a_file_is_begun_amid_zeros: log BegunAmidZeros Swarm,
    what_recovery_found_is_not_synced: log RecoveredNotSynced Swarm,
    a_failed_write_counts: log FailedWriteCounts Swarm,
    retired_files_go_newest_first: log RetiredNewestFirst Swarm,
    retention_believes_a_clock_that_jumps: engine RetentionBelievesClock Swarm,
    a_start_believes_its_clock: engine StartBelievesClock Swarm,
}

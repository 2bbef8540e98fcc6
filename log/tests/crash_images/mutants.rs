//! Each bug that can be planted in the log is found by its crash images.

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_log::mutants::{Mutant, plant};

use crate::hunt::Hunt;
use crate::moment::Bound;

/// How many random histories are tried, behind the scripted ones.
const HISTORIES_MAX: u64 = 8;

/// Plants a bug; it must be found.
fn is_found(mutant: Mutant) {
    let mut hunt = Hunt::new(Bound {
        exhaustive: 64,
        drawn: 8,
    });
    plant(Some(mutant));
    let found = catch_unwind(AssertUnwindSafe(|| {
        hunt.scripted();
        (0..HISTORIES_MAX).for_each(|seed| hunt.random(seed));
    }));
    plant(None);
    println!(
        "{mutant:?}: {} images, found: {}",
        hunt.distinct(),
        found.is_err()
    );
    assert!(
        found.is_err(),
        "{mutant:?}: not in {} images",
        hunt.distinct()
    );
}

macro_rules! found {
    ($($test:ident: $mutant:ident,)*) => {
        $(#[test]
        fn $test() {
            is_found(Mutant::$mutant);
        })*
    };
}

found! {
    a_write_is_reported_too_early: AckBeforeWrite,
    a_promise_is_reported_too_early: AckBeforePromise,
    entries_come_before_their_term: EntriesBeforeTerm,
    the_groups_directory_is_not_synced: GroupDirNotSynced,
    a_new_groups_directory_is_not_synced: GroupsDirNotSynced,
    a_first_write_claims_a_watermark: BeginClaims,
    a_write_claims_itself: WriteClaimsItself,
    files_are_unlinked_too_early: UnlinkBeforeBegin,
    the_journal_has_one_copy: JournalInOneCopy,
    what_recovery_found_is_not_synced: RecoveredNotSynced,
    an_older_checkpoint_holds: EitherCheckpointHolds,
    a_log_ends_before_a_hole: LogEndsBeforeHole,
    bodies_are_not_checked: BodyUnchecked,
    the_first_bad_frame_cuts: FirstBadAlwaysCuts,
    a_bad_frame_cuts_in_any_file: TornAnywhere,
    headers_are_not_checked: HeaderUnchecked,
    salts_are_not_checked: SaltUnchecked,
    reads_are_not_checked: ReadUnchecked,
    retired_files_go_newest_first: RetiredNewestFirst,
    a_file_is_recycled_too_early: SpareNotSynced,
    a_file_is_sealed_before_its_cut_is_durable: SealBeforeCut,
}

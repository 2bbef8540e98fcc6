//! Bugs to be planted one at a time, by the tests that have to find them (docs/testing.md,
//! Mutants). Without the feature `mutants` there are none, and whoever asks is told so by the
//! compiler.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// Whether a bug is planted.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_planted($crate::mutants::Mutant::$name)
    };
}

/// No bug is planted.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// A bug.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A produce is acknowledged when it is appended, by the leader alone.
    AckBeforeCommit,
    /// What a leader had appended when it was deposed is said to have failed for good.
    DefiniteErrorAfterAppend,
    /// The high watermark is the log's end.
    HighWatermarkIsEnd,
    /// A fetch sees what is appended and not committed.
    VisibleBeforeCommit,
    /// After a start nothing is known of what producers have written since the last footer.
    ProducersNotRebuilt,
    /// Producers are still taken to have written what a cut took away.
    ProducersNotCut,
    /// Four batches of a producer are remembered.
    ProducerWindowOfFour,
    /// What waits to be appended has no bound.
    QueueUnbounded,
    /// A fetch that says it comes from a replica is answered.
    ReplicaIdBelieved,
    /// Retention by time goes on although the wall clock is doubted.
    RetentionBelievesClock,
    /// A start believes its wall clock, whatever was known of the time before.
    StartBelievesClock,
    /// What is written while the wall clock has gone back is stamped with its time.
    StampsGoBack,
    /// Beats that are repeated are confirmed for a replica that has another leader in this turn.
    UnsteppedRowsStand,
    /// A round of beats that was kept waits for its leader for ever.
    KeptForEver,
    /// Beats are repeated of a group that is not led any more.
    LostRowsRepeated,
    /// A leader whose rows nobody confirms any more does not look whether it is heard.
    UnheardLeaderUnwatched,
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Plants a bug in all shards of this thread, instead of the one before; or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "mutants")]
pub(crate) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Plants a bug that `test` must find.
#[cfg(all(test, feature = "mutants"))]
pub(crate) fn is_found(mutant: Mutant, test: impl FnOnce() + std::panic::UnwindSafe) {
    plant(Some(mutant));
    let found = std::panic::catch_unwind(test);
    plant(None);
    assert!(found.is_err(), "{mutant:?} is not found");
}

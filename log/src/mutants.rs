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
    /// A write is reported before it is durable.
    AckBeforeWrite,
    /// A promise is reported before it is durable.
    AckBeforePromise,
    /// Entries of a new term are written before the term is durable.
    EntriesBeforeTerm,
    /// A file's name in its group's directory is not synced.
    GroupDirNotSynced,
    /// A new group's directory is not synced.
    GroupsDirNotSynced,
    /// The entries of a file's first write claim a watermark.
    BeginClaims,
    /// A write claims that it is durable itself.
    WriteClaimsItself,
    /// Hidden files are unlinked before the `begin` that hides them is durable.
    UnlinkBeforeBegin,
    /// A file is written while it is still being zeroed.
    BegunAmidZeros,
    /// The journal is written in one copy.
    JournalInOneCopy,
    /// What recovery found is not synced.
    RecoveredNotSynced,
    /// The checkpoint of one copy holds, even if the other copy has a newer one.
    EitherCheckpointHolds,
    /// A log ends before a hole, though a later file begins behind it.
    LogEndsBeforeHole,
    /// A body is believed without its checksum.
    BodyUnchecked,
    /// A bad frame is always a torn tail.
    FirstBadAlwaysCuts,
    /// A bad frame is a torn tail in any file.
    TornAnywhere,
    /// A frame's header is believed without its checksum.
    HeaderUnchecked,
    /// A frame is believed whatever file it was written for.
    SaltUnchecked,
    /// A footer is believed without its checksum.
    FooterUnchecked,
    /// What is read for others is not verified.
    ReadUnchecked,
    /// A write that has failed counts as done.
    FailedWriteCounts,
    /// What retention frees is unlinked newest first.
    RetiredNewestFirst,
    /// A file is recycled before it is durable that its group does not have it any more.
    SpareNotSynced,
    /// A file that a cut ends is sealed before the cut is durable.
    SealBeforeCut,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 24] = [
        Mutant::AckBeforeWrite,
        Mutant::AckBeforePromise,
        Mutant::EntriesBeforeTerm,
        Mutant::GroupDirNotSynced,
        Mutant::GroupsDirNotSynced,
        Mutant::BeginClaims,
        Mutant::WriteClaimsItself,
        Mutant::UnlinkBeforeBegin,
        Mutant::BegunAmidZeros,
        Mutant::JournalInOneCopy,
        Mutant::RecoveredNotSynced,
        Mutant::EitherCheckpointHolds,
        Mutant::LogEndsBeforeHole,
        Mutant::BodyUnchecked,
        Mutant::FirstBadAlwaysCuts,
        Mutant::TornAnywhere,
        Mutant::HeaderUnchecked,
        Mutant::SaltUnchecked,
        Mutant::FooterUnchecked,
        Mutant::ReadUnchecked,
        Mutant::FailedWriteCounts,
        Mutant::RetiredNewestFirst,
        Mutant::SpareNotSynced,
        Mutant::SealBeforeCut,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Plants a bug in all logs of this thread, instead of the one before; or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "mutants")]
pub(crate) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

//! What a campaign has done, in numbers.

use std::fmt;

use crate::disk_image::Cut;

/// What was done, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Power cuts in the middle of writing.
    pub(super) cuts: u64,
    /// Those at a moment at which several writes were on their way, and happened in part.
    pub(super) held: u64,
    /// Those that the writer lived on after, until it had noticed.
    pub(super) noticed: u64,
    /// Those after the process had died, and what it had left was recovered.
    pub(super) after_death: u64,
    /// Those that the file system's journal survived.
    pub(super) journal_kept: u64,
    /// Those that lost nothing but the disk.
    pub(super) nothing_lost: u64,
    /// Those of all nodes of a cluster at once.
    pub(super) all_at_once: u64,
    /// Power cuts in the recovery from another one.
    pub(super) cuts_in_recovery: u64,
    /// Pages that were chosen to reach the disk.
    pub(super) pages_written_back: u64,
    /// Entries that were acknowledged, and found.
    pub(super) acknowledged: u64,
    /// All entries that were read, those of earlier lives among them.
    pub(super) entries_read: u64,
    /// Logs whose last write was found interrupted.
    pub(super) torn_tails: u64,
    /// Cuts after which something was not as it should be.
    pub(super) failed: u64,
}

impl Tally {
    pub(super) fn count_cut(&mut self, cut: Cut, is_held: bool, is_noticed: bool) {
        self.cuts += 1;
        self.held += u64::from(is_held);
        self.noticed += u64::from(is_noticed);
        self.journal_kept += u64::from(cut == Cut::KeepJournal);
        self.nothing_lost += u64::from(cut == Cut::Nothing);
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.cuts += other.cuts;
        self.held += other.held;
        self.noticed += other.noticed;
        self.after_death += other.after_death;
        self.journal_kept += other.journal_kept;
        self.nothing_lost += other.nothing_lost;
        self.all_at_once += other.all_at_once;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.pages_written_back += other.pages_written_back;
        self.acknowledged += other.acknowledged;
        self.entries_read += other.entries_read;
        self.torn_tails += other.torn_tails;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} power cuts ({} with writes torn, {} of all nodes at once, {} noticed by the store, \
             {} after the process's own death, {} with the file system's journal kept, {} of the disk alone) and {} in recoveries; \
             {} pages written back before; {} acknowledged there, {} read in all; {} torn tails; \
             {} failed",
            self.cuts,
            self.held,
            self.all_at_once,
            self.noticed,
            self.after_death,
            self.journal_kept,
            self.nothing_lost,
            self.cuts_in_recovery,
            self.pages_written_back,
            self.acknowledged,
            self.entries_read,
            self.torn_tails,
            self.failed,
        )
    }
}

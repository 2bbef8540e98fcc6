//! What a [`FaultyStorage`](super::FaultyStorage) does wrong, how often, and how often it has.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often a faulty storage does what wrong. Everything is off by default.
///
/// Rates are probabilities per operation of the kind, from 0 to 1. Which operation meets which
/// fault follows from the seed and the order of operations alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// An operation takes at least this long from its flush to its completion.
    pub delay_min: Duration,
    /// And at most this long, evenly spread, so that completions overtake each other.
    pub delay_max: Duration,
    /// Operations that take [`stall`](Self::stall) longer (F25).
    pub stall_rate: f64,
    /// How long a stalled operation takes in addition.
    pub stall: Duration,
    /// Reads that fail with an I/O error (F19). The same read may succeed later.
    pub read_error: f64,
    /// Writes, zeroing and truncations that fail with an I/O error (F20). Of a write, nothing, a front
    /// part or all can be read from then on, and is made durable by a later sync.
    pub write_error: f64,
    /// Syncs of files and directories that fail with an I/O error (F21). What such a sync of a
    /// file covered is gone, at even odds: reads no longer find it, and later syncs succeed.
    pub sync_error: f64,
    /// Creations, opens, renames, unlinks and what else changes or reads directories that fail
    /// with an I/O error, undone.
    pub entry_error: f64,
    /// Mappings and populations that fail with an I/O error (F27).
    pub map_error: f64,
    /// Creations that find the disk full (F23). For a real limit see
    /// [`MemoryDisk::set_capacity`](super::MemoryDisk::set_capacity).
    pub no_space: f64,
    /// Writes and zeroing that find the disk full, as on a file system that copies on write (F23). A part
    /// is left as by [`write_error`](Self::write_error).
    pub write_no_space: f64,
    /// Opens and reads that find no descriptor or memory (F24).
    pub no_resources: f64,
    /// Reads that give one wrong bit, once (F16).
    pub read_flip: f64,
    /// Writes of which one bit is wrong on the disk from then on (F16).
    pub rest_flip: f64,
    /// Writes that are acknowledged and never happened (F14).
    pub lost_write: f64,
    /// Writes that went to another aligned place of the same file (F15).
    pub misdirected_write: f64,
    /// Pending changes that survive a power cut or kill whole. Those that neither survive nor
    /// are torn never happened (F10).
    pub crash_keeps: f64,
    /// Pending writes that a power cut tears, to a front part or to any of their sectors (F12,
    /// F13).
    pub crash_tears: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_min: Duration::ZERO,
            delay_max: Duration::ZERO,
            stall_rate: 0.0,
            stall: Duration::ZERO,
            read_error: 0.0,
            write_error: 0.0,
            sync_error: 0.0,
            entry_error: 0.0,
            map_error: 0.0,
            no_space: 0.0,
            write_no_space: 0.0,
            no_resources: 0.0,
            read_flip: 0.0,
            rest_flip: 0.0,
            lost_write: 0.0,
            misdirected_write: 0.0,
            crash_keeps: 0.0,
            crash_tears: 0.0,
        }
    }
}

impl Faults {
    /// # Panics
    ///
    /// If a rate is no probability, or the delays are the wrong way round.
    pub(super) fn assert_valid(&self) {
        let rates = [
            self.stall_rate,
            self.read_error,
            self.write_error,
            self.sync_error,
            self.entry_error,
            self.map_error,
            self.no_space,
            self.write_no_space,
            self.no_resources,
            self.read_flip,
            self.rest_flip,
            self.lost_write,
            self.misdirected_write,
            self.crash_keeps,
            self.crash_tears,
        ];
        for rate in rates {
            assert!(
                (0.0..=1.0).contains(&rate),
                "{rate} is no probability: {self:?}"
            );
        }
        assert!(
            self.delay_min <= self.delay_max,
            "delays the wrong way round: {self:?}"
        );
    }
}

/// How often a faulty storage has done what wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each counts the fault of `Faults` of the same name"
)]
pub struct FaultCounts {
    pub stalls: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub sync_errors: u64,
    pub entry_errors: u64,
    pub map_errors: u64,
    pub no_space: u64,
    pub write_no_space: u64,
    pub no_resources: u64,
    pub read_flips: u64,
    pub rest_flips: u64,
    pub lost_writes: u64,
    pub misdirected_writes: u64,
}

/// A handle on a faulty storage, for whoever owns time and chance and not the storage.
#[derive(Debug, Clone)]
pub struct FaultControl {
    state: Arc<Mutex<ControlState>>,
}

#[derive(Debug)]
pub(super) struct ControlState {
    pub(super) now: Duration,
    pub(super) next_due: Option<Duration>,
    pub(super) faults: Faults,
    pub(super) counts: FaultCounts,
}

impl FaultControl {
    pub(super) fn new(faults: Faults) -> Self {
        faults.assert_valid();
        let counts = FaultCounts::default();
        let state = ControlState {
            now: Duration::ZERO,
            next_due: None,
            faults,
            counts,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Tells the storage what time it is, on the caller's clock; time does not go back.
    ///
    /// # Panics
    ///
    /// If it does.
    pub fn set_now(&self, now: Duration) {
        let mut state = self.state();
        assert!(
            now >= state.now,
            "time went from {:?} back to {now:?}",
            state.now
        );
        state.now = now;
    }

    /// When the next operation completes, if one is on its way. Operations that were not
    /// flushed are not.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.state().next_due
    }

    /// Does other things wrong from now on.
    ///
    /// # Panics
    ///
    /// If a rate is no probability, or the delays are the wrong way round.
    pub fn set_faults(&self, faults: Faults) {
        faults.assert_valid();
        self.state().faults = faults;
    }

    /// What went wrong so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.state().counts
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state
            .lock()
            .expect("nothing panics while it holds this but `set_now`")
    }
}

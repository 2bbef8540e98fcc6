//! What a run came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::history::History;
use super::super::oracle::Violation;
use super::super::reached::Reached;
use super::Hindrance;

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events handled.
    pub events: u64,
    /// Virtual time, until everything had come to rest.
    pub time: Duration,
    /// Operations of clients.
    pub operations: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read from replicas in the end.
    pub read_finally: u64,
    /// Entries seen committed.
    pub committed: u64,
    /// Terms that had a leader, over all groups.
    pub leaders: u64,
    /// What was done to the world, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often all disks were looked at as a power cut would leave them.
    pub disk_looks: u64,
    /// What kept clients from being served.
    pub hindrance: Hindrance,
    /// Rare paths that were reached.
    pub reached: Reached,
    /// The hash of the trace.
    pub trace_hash: u64,
}

impl Report {
    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds what another run came to.
    pub fn merge(&mut self, other: &Report) {
        self.events += other.events;
        self.time += other.time;
        self.operations += other.operations;
        self.acked += other.acked;
        self.read_finally += other.read_finally;
        self.committed += other.committed;
        self.leaders += other.leaders;
        self.disk_looks += other.disk_looks;
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.reached.merge(&other.reached);
    }
}

/// All of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, if it was to be kept.
    pub trace: String,
    /// What clients asked and were told.
    pub history: History,
    /// What it came to.
    pub result: Result<Report, Violation>,
}

//! What is said of a run.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::run::Outcome;
use super::scenario::Scenario;

/// Prints what came of a run.
pub(super) fn summarize(scenario: &Scenario, outcome: &Outcome) {
    let verdict = &outcome.verdict;
    for anomaly in &verdict.anomalies {
        println!("  {anomaly}");
    }
    for wrong in &outcome.wrong {
        println!("  {wrong}");
    }
    let faults = outcome.faults.iter();
    let faults: Vec<String> = faults
        .map(|(kind, count)| format!("{} {count}", kind.name()))
        .collect();
    println!("{}: {}", scenario.name, word(outcome.is_clean()));
    println!(
        "  {} nodes, {:.1} minutes, {} faults: {}",
        scenario.nodes,
        outcome.lasted.as_secs_f64() / 60.0,
        outcome.faults.values().sum::<u64>(),
        faults.join(", "),
    );
    println!(
        "  {} records acknowledged, {} read, {} of them finally, of each replica by itself; {} events",
        verdict.acked, verdict.read, verdict.read_finally, verdict.events,
    );
    println!(
        "  {} leaders; without acknowledgements for {:.1} s at most, and for {:.1} s in all on average of a partition",
        outcome.leaders, outcome.outages.longest_s, outcome.outages.mean_s,
    );
    for (kind, count) in &verdict.allowed {
        println!("  allowed of producers that are not idempotent or began anew: {kind} {count}");
    }
    if let Some(carried) = &outcome.carried {
        println!(
            "  packets: {} delivered, {} cut, {} lost, {} doubled, {} overtaken, {} garbled, {} too large, {} held, {} crowded out",
            carried.delivered,
            carried.cut,
            carried.lost,
            carried.doubled,
            carried.overtaken,
            carried.garbled,
            carried.too_large,
            carried.held,
            carried.crowded_out,
        );
    }
}

/// A verdict in a word.
pub(super) const fn word(is_clean: bool) -> &'static str {
    match is_clean {
        true => "clean",
        false => "NOT CLEAN",
    }
}

/// What several runs come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    clean: u32,
    bad: u32,
    minutes: f64,
    faults: u64,
    acked: u64,
}

impl Sum {
    /// Adds a run; nothing: it did not come to its end.
    pub(super) fn add(&mut self, outcome: Option<&Outcome>) {
        let Some(outcome) = outcome else {
            self.bad += 1;
            return;
        };
        let minutes = outcome.lasted.as_secs_f64() / 60.0;
        let faults = outcome.faults.values().sum();
        let acked = outcome.verdict.acked;
        self.add_counts(minutes, faults, acked, outcome.is_clean());
    }

    /// Adds a run of which this is known.
    pub(super) fn add_counts(&mut self, minutes: f64, faults: u64, acked: u64, is_clean: bool) {
        match is_clean {
            true => self.clean += 1,
            false => self.bad += 1,
        }
        self.minutes += minutes;
        self.faults += faults;
        self.acked += acked;
    }

    /// Whether all were.
    pub(super) const fn is_clean(&self) -> bool {
        self.bad == 0
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clean, {} not; {:.1} minutes, {} faults, {} records acknowledged",
            self.clean, self.bad, self.minutes, self.faults, self.acked,
        )
    }
}

/// The repository's root, above this crate.
pub(super) fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("the crate lies in the workspace")?.to_owned())
}

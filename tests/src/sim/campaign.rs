//! Many seeds, one after the other, with a word on how it goes and a summary.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use highwater_engine::testing::{Outcome, Plan, REACHABLE, Report};

use super::args::Wanted;
use super::record;
use super::seed::{ACKED_MIN, Work, run_seed};
use crate::history::write_event;

/// Of how many seeds one is run again in another process, to compare the hashes of the traces.
pub const RECHECK_EVERY: u64 = 100;

/// What came of a campaign.
#[derive(Debug, Default)]
pub(super) struct Campaign {
    pub(super) total: Report,
    pub(super) seeds: u64,
    pub(super) failed: u64,
    /// Runs that acknowledged few records because of their faults, by what has kept them.
    pub(super) excused: BTreeMap<&'static str, u64>,
    /// Seeds of runs that acknowledged few records without an excuse.
    pub(super) short: Vec<u64>,
    /// Traces whose hash was computed again, and how many were not the same.
    pub(super) rechecked: (u64, u64),
    pub(super) took: Duration,
}

/// Runs what is wanted; whether it is clean.
///
/// # Errors
///
/// If a file cannot be written, or a process not be started.
pub fn run(wanted: &Wanted) -> anyhow::Result<bool> {
    let mut campaign = Campaign::default();
    let began = Instant::now();
    for seed in wanted.first..wanted.first.saturating_add(wanted.seeds) {
        if wanted.limit.is_some_and(|limit| began.elapsed() > limit) {
            break;
        }
        campaign.take(wanted, seed)?;
        campaign.took = began.elapsed();
        if !wanted.hash {
            campaign.progress();
        }
    }
    if wanted.hash {
        return Ok(campaign.failed == 0);
    }
    campaign.summarize();
    let missing: Vec<&str> = campaign.total.reached.missing().collect();
    let mut is_clean = campaign.failed == 0 && campaign.rechecked.1 == 0;
    if wanted.record {
        is_clean &= missing.is_empty();
        record::append(wanted, &campaign, is_clean)?;
    }
    Ok(is_clean)
}

impl Campaign {
    fn take(&mut self, wanted: &Wanted, seed: u64) -> anyhow::Result<()> {
        let plan = wanted.plan(seed);
        self.seeds += 1;
        match run_seed(&plan, wanted.trace) {
            Ok(outcome) => self.passed(wanted, seed, &outcome),
            Err(failure) => {
                self.failed += 1;
                println!("seed {seed} of {} nodes fails: {}", plan.nodes, failure.why);
                for fault in failure.faults {
                    println!("  needs {fault}");
                }
                println!("  again: {}", failure.again);
                Ok(())
            }
        }
    }

    fn passed(&mut self, wanted: &Wanted, seed: u64, outcome: &Outcome) -> anyhow::Result<()> {
        let report = outcome.result.as_ref().expect("it has passed");
        print!("{}", outcome.trace);
        if let Some(path) = &wanted.history {
            let lines = outcome.history.events.iter().map(write_event);
            let text: String = lines.map(|line| line + "\n").collect();
            std::fs::write(path, text).with_context(|| path.display().to_string())?;
        }
        if wanted.hash {
            println!("{:016x}", report.trace_hash);
        } else if wanted.record && seed.is_multiple_of(RECHECK_EVERY) {
            self.rechecked.0 += 1;
            let again = hash_elsewhere(&std::env::current_exe()?, &wanted.plan(seed))?;
            if again != report.trace_hash {
                self.rechecked.1 += 1;
                println!("seed {seed} gave another trace in another process");
            }
        }
        match Work::of(report) {
            Work::Enough => {}
            Work::Excused(cause) => *self.excused.entry(cause).or_default() += 1,
            Work::Short => self.short.push(seed),
        }
        self.total.merge(report);
        Ok(())
    }

    fn progress(&self) {
        let mut err = std::io::stderr();
        if !err.is_terminal() {
            return;
        }
        let simulated = self.total.time.as_secs_f64();
        // What cannot be shown is not missed.
        let _ = write!(
            err,
            "\r{} seeds, {} failed, {:.2} simulated hours, {:.0} times as fast as the clock ",
            self.seeds,
            self.failed,
            simulated / 3_600.0,
            simulated / self.took.as_secs_f64(),
        );
    }

    fn summarize(&self) {
        let total = &self.total;
        let seconds = total.time.as_secs_f64();
        println!(
            "\n{} seeds, {} failed; {:.2} simulated hours in {:.0} s: {:.0} times as fast as the \
             clock",
            self.seeds,
            self.failed,
            seconds / 3_600.0,
            self.took.as_secs_f64(),
            seconds / self.took.as_secs_f64(),
        );
        println!(
            "{} events, {} operations of clients, {} records acknowledged, {} read from replicas \
             in the end, {} entries committed, {} elections",
            total.events,
            total.operations,
            total.acked,
            total.read_finally,
            total.committed,
            total.leaders,
        );
        println!(
            "{} times all disks were looked at as a power cut would have left them",
            total.disk_looks
        );
        if self.rechecked.0 > 0 {
            let (all, differ) = self.rechecked;
            println!("{all} traces computed again in another process, {differ} differ");
        }
        for (cause, runs) in &self.excused {
            println!("{runs} runs acknowledged fewer than {ACKED_MIN} records: {cause}");
        }
        if !self.short.is_empty() {
            println!(
                "fewer than {ACKED_MIN} without an excuse: seeds {:?}",
                self.short
            );
        }
        let faults: Vec<String> = total
            .faults
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        println!("faults: {}", faults.join(", "));
        let missing: Vec<&str> = total.reached.missing().collect();
        println!(
            "reached {} of {} rare paths:",
            REACHABLE.len() - missing.len(),
            REACHABLE.len()
        );
        for (name, count) in total.reached.iter() {
            println!("  {count:>10} {name}");
        }
        for name in missing {
            println!("  {:>10} {name}", "NEVER");
        }
    }
}

/// The hash of the trace of a plan's seed, as another process of the program `sim` computes it.
///
/// # Errors
///
/// If the process cannot be started, or prints no hash.
pub fn hash_elsewhere(program: &Path, plan: &Plan) -> anyhow::Result<u64> {
    let output = Command::new(program)
        .args(["--hash", "--seeds", "1", "--first", &plan.seed.to_string()])
        .args(["--nodes", &plan.nodes.to_string()])
        .args(["--profile", plan.profile.name()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    u64::from_str_radix(text.trim(), 16).with_context(|| text.into_owned())
}

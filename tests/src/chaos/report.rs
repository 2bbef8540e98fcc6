//! What is said of a run.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::run::Outcome;
use super::scenario::Scenario;

/// What the columns of a campaign are.
const COLUMNS: &str = "date,commit,command,scenario,minutes,nodes,faults,acked,read_finally,\
leaders,outage_longest_s,verdict";

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
    println!("{}: {}", scenario.name, word(outcome));
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
        println!("  allowed of producers that are not idempotent: {kind} {count}");
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

fn word(outcome: &Outcome) -> &'static str {
    if outcome.is_clean() {
        "clean"
    } else {
        "NOT CLEAN"
    }
}

/// Adds a line to the list of campaigns.
pub(super) fn record(scenario: &Scenario, command: &str, outcome: &Outcome) -> anyhow::Result<()> {
    let path = root()?.join("docs/chaos-campaigns.csv");
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if is_new {
        writeln!(file, "{COLUMNS}")?;
    }
    writeln!(
        file,
        "{},{},{command},{},{:.1},{},{},{},{},{},{:.1},{}",
        output("date", &["-u", "+%Y-%m-%d"])?,
        output("git", &["describe", "--always", "--dirty"])?,
        scenario.name,
        outcome.lasted.as_secs_f64() / 60.0,
        scenario.nodes,
        outcome.faults.values().sum::<u64>(),
        outcome.verdict.acked,
        outcome.verdict.read_finally,
        outcome.leaders,
        outcome.outages.longest_s,
        word(outcome),
    )?;
    Ok(())
}

/// The repository's root, above this crate.
pub(super) fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("the crate lies in the workspace")?.to_owned())
}

fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

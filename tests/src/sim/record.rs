//! The list of campaigns: a line for each, in `docs/campaigns.csv`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::args::Wanted;
use super::campaign::Campaign;

const HEADER: &str = "date,commit,command,seeds,failed,simulated_hours,operations,acked,\
    read_finally,elections,faults,rare_paths_missing,verdict";

/// Adds a campaign.
pub(super) fn append(wanted: &Wanted, campaign: &Campaign, is_clean: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let path = root.context("the workspace")?.join("docs/campaigns.csv");
    let is_new = !path.exists();
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.with_context(|| path.display().to_string())?;
    if is_new {
        writeln!(file, "{HEADER}")?;
    }
    let total = &campaign.total;
    writeln!(
        file,
        "{},{},{},{},{},{:.2},{},{},{},{},{},{},{}",
        output("date", &["-u", "+%Y-%m-%d"])?,
        output("git", &["describe", "--always", "--dirty"])?,
        command(wanted),
        campaign.seeds,
        campaign.failed,
        total.time.as_secs_f64() / 3_600.0,
        total.operations,
        total.acked,
        total.read_finally,
        total.leaders,
        total.faults.values().sum::<u64>(),
        total.reached.missing().count(),
        if is_clean { "clean" } else { "NOT CLEAN" },
    )?;
    Ok(())
}

fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn command(wanted: &Wanted) -> String {
    let mut command = format!("sim --first {} --seeds {}", wanted.first, wanted.seeds);
    if let Some(limit) = wanted.limit {
        command += &format!(" --minutes {}", limit.as_secs() / 60);
    }
    if let Some(nodes) = wanted.nodes {
        command += &format!(" --nodes {nodes}");
    }
    command + &format!(" --profile {}", wanted.profile.name())
}

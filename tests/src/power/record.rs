//! The list of campaigns: a line for each, in `docs/power-campaigns.csv`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::args::Wanted;
use super::tally::Tally;

const HEADER: &str = "date,commit,command,cuts,writes_torn,all_at_once,noticed,after_death,cuts_in_recovery,\
    pages_written_back,acknowledged,read,torn_tails,failed,verdict";

/// Adds a campaign.
pub(super) fn append(wanted: &Wanted, total: &Tally, is_clean: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let path = root
        .context("the workspace")?
        .join("docs/power-campaigns.csv");
    let is_new = !path.exists();
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.with_context(|| path.display().to_string())?;
    if is_new {
        writeln!(file, "{HEADER}")?;
    }
    writeln!(
        file,
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        output("date", &["-u", "+%Y-%m-%d"])?,
        output("git", &["describe", "--always", "--dirty"])?,
        wanted.command(),
        total.cuts,
        total.held,
        total.all_at_once,
        total.noticed,
        total.after_death,
        total.cuts_in_recovery,
        total.pages_written_back,
        total.acknowledged,
        total.entries_read,
        total.torn_tails,
        total.failed,
        if is_clean { "clean" } else { "NOT CLEAN" },
    )?;
    Ok(())
}

fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

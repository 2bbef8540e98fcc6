//! The list of runs, `docs/chaos-campaigns.csv`: a line for each, so that campaigns add up.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::report::{self, Sum};
use super::run::Outcome;
use super::scenario::Scenario;

/// What the columns are.
const COLUMNS: &str = "date,commit,command,scenario,minutes,nodes,faults,acked,read_finally,\
leaders,outage_longest_s,verdict";

/// The crates whose change makes earlier runs void.
const JUDGED: [&str; 2] = ["consensus", "log"];

/// A list, and the commit whose lines are added to it.
#[derive(Debug)]
pub(super) struct List {
    path: PathBuf,
    root: PathBuf,
    commit: String,
}

impl List {
    /// Where the list is, unless the command says otherwise.
    pub(super) fn default_path() -> anyhow::Result<PathBuf> {
        Ok(report::root()?.join("docs/chaos-campaigns.csv"))
    }

    /// The list at a path; it is made by the first line.
    pub(super) fn open(path: &Path) -> anyhow::Result<List> {
        let root = report::root()?;
        let mut commit = git(&root, &["rev-parse", "--short", "HEAD"])?;
        // The list itself changes with every run, and other pages decide nothing.
        let status = ["status", "--porcelain", "-uno", "--", ".", ":(exclude)docs"];
        if !git(&root, &status)?.is_empty() {
            commit += DIRTY;
        }
        Ok(List {
            path: path.to_owned(),
            root,
            commit,
        })
    }

    /// Adds what came of a run; nothing: it did not come to its end.
    pub(super) fn add(
        &self,
        scenario: &Scenario,
        command: &str,
        outcome: Option<&Outcome>,
    ) -> anyhow::Result<()> {
        let is_new = !self.path.exists();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        let mut file = file.with_context(|| self.path.display().to_string())?;
        if is_new {
            writeln!(file, "{COLUMNS}")?;
        }
        let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let begin = format!("{date},{},{command},{}", self.commit, scenario.name);
        let nodes = scenario.nodes;
        let Some(outcome) = outcome else {
            return Ok(writeln!(file, "{begin},0,{nodes},0,0,0,0,0,NOT ENDED")?);
        };
        writeln!(
            file,
            "{begin},{:.1},{nodes},{},{},{},{},{:.1},{}",
            outcome.lasted.as_secs_f64() / 60.0,
            outcome.faults.values().sum::<u64>(),
            outcome.verdict.acked,
            outcome.verdict.read_finally,
            outcome.leaders,
            outcome.outages.longest_s,
            report::word(outcome.is_clean()),
        )?;
        Ok(())
    }

    /// What the list's runs of so many nodes come to, if their `consensus` and `log` were those
    /// of now.
    pub(super) fn sum(&self, nodes: usize) -> anyhow::Result<Sum> {
        let text = fs::read_to_string(&self.path)?;
        let now = self.judged(&self.commit);
        let mut judged = BTreeMap::new();
        let mut sum = Sum::default();
        for line in text.lines().skip(1) {
            let line = Line::read(line).with_context(|| line.to_owned())?;
            let commit = judged.entry(line.commit);
            let tree = commit.or_insert_with(|| self.judged(line.commit));
            if line.nodes == nodes && now.is_some() && *tree == now {
                sum.add_counts(line.minutes, line.faults, line.acked, line.is_clean);
            }
        }
        Ok(sum)
    }

    /// What the crates that are judged were at a commit; nothing if nobody can know.
    fn judged(&self, commit: &str) -> Option<String> {
        let names = JUDGED.map(|name| format!("{commit}:{name}"));
        let names = names.iter().map(String::as_str);
        let arguments: Vec<&str> = std::iter::once("rev-parse").chain(names).collect();
        git(&self.root, &arguments).ok()
    }
}

/// At the end of the name of a commit that is not quite what was run; git knows no such commit.
const DIRTY: &str = "-dirty";

/// A line of the list.
struct Line<'a> {
    commit: &'a str,
    minutes: f64,
    nodes: usize,
    faults: u64,
    acked: u64,
    is_clean: bool,
}

impl Line<'_> {
    fn read(line: &str) -> anyhow::Result<Line<'_>> {
        let fields: Vec<&str> = line.split(',').collect();
        ensure!(fields.len() == COLUMNS.split(',').count(), "other columns");
        Ok(Line {
            commit: fields[1],
            minutes: fields[4].parse()?,
            nodes: fields[5].parse()?,
            faults: fields[6].parse()?,
            acked: fields[7].parse()?,
            is_clean: fields[11] == report::word(true),
        })
    }
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new("git").arg("-C").arg(root).args(arguments))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a commit of this repository; nothing where there is no git.
    fn list(folder: &Path) -> Option<List> {
        let list = List::open(&folder.join("list.csv"));
        let mut list = list.inspect_err(|why| println!("skipped: {why:#}")).ok()?;
        // The tests may run on something that is not committed.
        list.commit = list.commit.trim_end_matches(DIRTY).to_owned();
        Some(list)
    }

    #[test]
    fn lines_of_the_same_consensus_and_log_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let Some(list) = list(folder.path()) else {
            return;
        };
        let mut lines = String::from(COLUMNS);
        for (commit, nodes, verdict) in [
            (&*list.commit, 5, "clean"),
            (&*list.commit, 3, "clean"),
            (&format!("{}{DIRTY}", list.commit), 5, "clean"),
            ("0000000", 5, "NOT CLEAN"),
            (&*list.commit, 5, "clean"),
        ] {
            lines += &format!("\nd,{commit},c,five,10.0,{nodes},70,1000,3000,9,1.5,{verdict}");
        }
        fs::write(&list.path, lines).unwrap();
        let sum = list.sum(5).unwrap();
        let text = sum.to_string();
        assert!(sum.is_clean(), "{text}");
        let expected = "2 clean, 0 not; 20.0 minutes, 140 faults, 2000 records acknowledged";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let Some(list) = list(folder.path()) else {
            return;
        };
        fs::write(&list.path, format!("{COLUMNS}\n2026-01-01,abc,sim,1\n")).unwrap();
        assert!(list.sum(5).is_err());
    }
}

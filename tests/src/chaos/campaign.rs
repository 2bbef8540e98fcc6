//! A scenario for hours: rounds, each with a cluster, a history and a seed of its own.
//!
//! So memory and disks hold one round at a time, and what was judged stays judged if the campaign
//! is ended before its time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::args::Wanted;
use super::cluster::Means;
use super::list::List;
use super::report::{self, Sum};
use super::run::{self, Tools};
use super::scenario::{self, Scenario};
use crate::disk_image::isolate_mounts;

/// Runs a scenario as long as is wanted. Tells whether all was clean.
pub(super) fn run(scenario: &Scenario, wanted: &Wanted, tools: &Tools) -> anyhow::Result<bool> {
    let longest = Duration::from_secs_f64(scenario.minutes * 60.0);
    let rounds = rounds(wanted.lasts.unwrap_or(longest), longest);
    let first_seed = wanted.seed.unwrap_or(scenario.seed);
    let name = &scenario.name;
    eprintln!("{name}, from seed {first_seed}: {}", scenario.about);
    let means = prepare(scenario)?;
    let list = wanted.list.as_deref().map(List::open).transpose()?;
    let mut sum = Sum::default();
    for (number, lasts) in (1..).zip(&rounds) {
        let seed = first_seed + number - 1;
        eprintln!("  round {number} of {}, seed {seed}", rounds.len());
        let round = Round {
            scenario,
            means: &means,
            tools,
            list: list.as_ref(),
            seed,
            lasts: *lasts,
        };
        round.run(&wanted.out, rounds.len() > 1, &mut sum)?;
    }
    if rounds.len() > 1 {
        println!("{name}, {} rounds: {sum}", rounds.len());
    }
    if let Some(list) = &list {
        println!(
            "  of {} nodes, {}",
            scenario.nodes,
            list.sum(scenario.nodes)?
        );
    }
    Ok(sum.is_clean())
}

/// As few equal rounds as none of them is longer than `longest`.
fn rounds(whole: Duration, longest: Duration) -> Vec<Duration> {
    let mut count = 1;
    while whole / count > longest {
        count += 1;
    }
    (0..count).map(|_| whole / count).collect()
}

/// What there is to hurt nodes with, and what is left out.
fn prepare(scenario: &Scenario) -> anyhow::Result<Means> {
    if scenario.disk != scenario::Disk::Folder {
        isolate_mounts().context("file systems of their own take root")?;
    }
    let means = Means::find(scenario);
    if let Some(why) = &means.no_network {
        eprintln!("  {why}: nodes on loopback, and what takes a network of ours is left out");
    }
    let mut left_out: Vec<_> = scenario
        .kinds()
        .filter(|kind| !means.allow(*kind))
        .collect();
    left_out.dedup();
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|kind| kind.name()).collect();
        eprintln!("  left out here: {}", names.join(", "));
    }
    Ok(means)
}

struct Round<'a> {
    scenario: &'a Scenario,
    means: &'a Means,
    tools: &'a Tools,
    list: Option<&'a List>,
    seed: u64,
    lasts: Duration,
}

impl Round<'_> {
    /// Runs it and says what came of it. What a clean round of several has left is removed.
    fn run(&self, out: &Path, is_one_of_many: bool, sum: &mut Sum) -> anyhow::Result<()> {
        let (name, seed) = (&self.scenario.name, self.seed);
        let folder = out.join(format!("{name}-{seed}"));
        run::make_empty(&folder)?;
        let folder = folder.canonicalize()?;
        let ran = run::run(
            self.scenario,
            self.means,
            self.tools,
            seed,
            self.lasts,
            &folder,
        );
        match &ran {
            Ok(outcome) => report::summarize(self.scenario, outcome),
            Err(error) => println!("{name}: NOT ENDED: {error:#}"),
        }
        let outcome = ran.ok();
        let command = format!(
            "chaos --scenario {name} --minutes {:.1} --seed {seed}",
            self.lasts.as_secs_f64() / 60.0
        );
        if let Some(list) = self.list {
            list.add(self.scenario, &command, outcome.as_ref())?;
        }
        let is_clean = outcome.as_ref().is_some_and(run::Outcome::is_clean);
        sum.add(outcome.as_ref());
        if is_clean && is_one_of_many {
            println!("  again: {command}");
            return Ok(fs::remove_dir_all(&folder)?);
        }
        println!("  everything is in {}; again: {command}", folder.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_equal_and_none_is_too_long() {
        let minutes = |it: u64| Duration::from_secs(60 * it);
        assert_eq!(rounds(minutes(10), minutes(10)), [minutes(10)]);
        assert_eq!(rounds(minutes(3), minutes(10)), [minutes(3)]);
        assert_eq!(rounds(minutes(120), minutes(10)), [minutes(10); 12]);
        assert_eq!(rounds(minutes(14), minutes(10)), [minutes(7); 2]);
    }
}

//! Real processes under real faults.
//!
//! A run of a scenario has three to nine processes of `highwater start`, each in a network
//! namespace of its own, and clients of several libraries that write and read all the time. A
//! router of ours carries the packets between them (`net`); processes are killed, stopped and
//! starved, clocks shifted, disks filled and cut from their power, as a schedule says that
//! follows from the seed (`schedule`). In the end everything is healed and comes to rest, the
//! nodes end, each replica's files are read by themselves (`replicas`), and the checker of
//! histories judges what all clients were told.
//!
//! What takes root is left out without it: then nodes live on loopback, and only processes are
//! hurt.

mod args;
mod cgroup;
mod cluster;
mod disk;
mod fault;
mod injector;
mod kind;
mod load;
mod net;
mod node;
mod recorder;
mod replicas;
mod report;
mod run;
mod scenario;
mod schedule;
mod sorted;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::disk_image::isolate_mounts;
use args::Wanted;
use cluster::Means;
use load::find_python;
use run::{Spoil, Tools};
use scenario::Scenario;

pub use args::HELP;

/// What `chaos` does with its arguments: runs scenarios one after the other. Tells whether all
/// were clean.
///
/// # Errors
///
/// If the arguments are wrong, or a run cannot be made or ended.
pub fn main(arguments: impl Iterator<Item = String>) -> anyhow::Result<bool> {
    let wanted = Wanted::read(arguments)?;
    let files = wanted.scenarios.iter().map(|name| find(name));
    let files: Vec<PathBuf> = files.collect::<anyhow::Result<Vec<_>>>()?.concat();
    let scenarios = files.iter().map(|file| Scenario::read(file));
    let scenarios: Vec<Scenario> = scenarios.collect::<anyhow::Result<_>>()?;
    let tools = tools(&wanted)?;
    let mut all_clean = true;
    for scenario in &scenarios {
        all_clean &= run_one(scenario, &wanted, &tools)?;
    }
    Ok(all_clean)
}

fn tools(wanted: &Wanted) -> anyhow::Result<Tools> {
    let binary = wanted.binary.clone().map_or_else(beside, Ok)?;
    ensure!(binary.exists(), "{}: there is no server", binary.display());
    let python = find_python(wanted.python.as_deref());
    if python.is_none() {
        eprintln!("no Python with confluent-kafka and kafka-python: our own clients only");
    }
    let spoil = match wanted.spoil.as_deref() {
        None => None,
        Some("log") => Some(Spoil::Log),
        Some("record") => Some(Spoil::Record),
        Some(other) => bail!("{other} cannot be spoilt; {HELP}"),
    };
    Ok(Tools {
        binary: binary.canonicalize()?,
        python,
        spoil,
    })
}

/// The server that was built with this program.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    let mut servers = folders.map(|folder| folder.join("highwater"));
    let found = servers.find(|server| server.exists());
    found.context("no highwater beside this program; cargo build --workspace --bin highwater")
}

/// The files that a name means.
fn find(name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let folder = report::root()?.join("tests/scenarios");
    if name == "all" {
        let entries = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
        let mut all = entries.collect::<std::io::Result<Vec<PathBuf>>>()?;
        all.sort();
        return Ok(all);
    }
    let named = folder.join(format!("{name}.toml"));
    let file = if named.exists() {
        named
    } else {
        Path::new(name).to_owned()
    };
    Ok(vec![file])
}

fn run_one(scenario: &Scenario, wanted: &Wanted, tools: &Tools) -> anyhow::Result<bool> {
    let minutes = Duration::from_secs_f64(scenario.minutes * 60.0);
    let lasts = wanted.lasts.unwrap_or(minutes);
    let seed = wanted.seed.unwrap_or(scenario.seed);
    let name = &scenario.name;
    eprintln!("{name}, seed {seed}: {}", scenario.about);
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
    let folder = wanted.out.join(format!("{name}-{seed}"));
    run::make_empty(&folder)?;
    let folder = folder.canonicalize()?;
    let outcome = run::run(scenario, &means, tools, seed, lasts, &folder)?;
    report::summarize(scenario, &outcome);
    let command = format!(
        "chaos --scenario {name} --minutes {:.1} --seed {seed}",
        lasts.as_secs_f64() / 60.0
    );
    println!("  everything is in {}; again: {command}", folder.display());
    if wanted.record {
        report::record(scenario, &command, &outcome)?;
    }
    Ok(outcome.is_clean())
}

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
mod campaign;
mod cgroup;
mod cluster;
mod disk;
mod fault;
mod injector;
mod kind;
mod list;
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

use anyhow::{Context, bail, ensure};

use args::Wanted;
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
        all_clean &= campaign::run(scenario, &wanted, &tools)?;
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

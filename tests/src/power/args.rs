//! What the command line asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use highwater_log::storage::{Choice, DataDirectory, OpenError, PortableStorage, RealStorage};
use highwater_record::BufferPool;
use serde::{Deserialize, Serialize};

use super::mutants;
use crate::disk_image::FileSystem;

/// How the binary is called.
pub const HELP: &str = "usage: power [--cuts N] [--minutes M] [--seed S] [--fs ext4|xfs|both] \
    [--storage uring|portable|buffered|all] [--nodes 1|3] [--folder DIR] [--lie] [--record] \
    [--mutant NAME]";

/// What the log writes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Backend {
    /// io_uring, past the page cache.
    Uring,
    /// Plain calls, past the page cache.
    Portable,
    /// Plain calls through the page cache.
    Buffered,
}

impl Backend {
    /// All of them.
    pub const ALL: [Backend; 3] = [Backend::Uring, Backend::Portable, Backend::Buffered];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Portable => "portable",
            Backend::Buffered => "buffered",
        }
    }

    pub(super) fn open(
        self,
        directory: Arc<DataDirectory>,
        pool: BufferPool,
    ) -> Result<RealStorage, OpenError> {
        let chosen = match self {
            Backend::Uring => RealStorage::open(directory, pool, Choice::Uring),
            Backend::Portable => RealStorage::open(directory, pool, Choice::Portable),
            Backend::Buffered => {
                let storage = PortableStorage::buffered(directory, pool)?;
                return Ok(RealStorage::Portable(Box::new(storage)));
            }
        };
        chosen.map(|(storage, _)| storage)
    }
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// How many power cuts.
    pub cuts: u64,
    /// Begin none after this long.
    pub limit: Option<Duration>,
    /// What all chance comes from.
    pub seed: u64,
    /// On which file systems.
    pub file_systems: Vec<FileSystem>,
    /// Through what.
    pub backends: Vec<Backend>,
    /// 1: the log alone. 3: a cluster of processes.
    pub nodes: u32,
    /// Where the images are made; in memory if nothing is said.
    pub folder: Option<PathBuf>,
    /// Plant a bug, to see it found: writes are acknowledged before they are durable.
    pub lies: bool,
    /// A bug of the log that is planted, by its place in the log's list.
    pub mutant: Option<usize>,
    /// Add the result to the list of campaigns.
    pub record: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            cuts: 100,
            limit: None,
            seed: 1,
            file_systems: FileSystem::ALL.to_vec(),
            backends: Backend::ALL.to_vec(),
            nodes: 1,
            folder: None,
            lies: false,
            mutant: None,
            record: false,
        }
    }
}

impl Wanted {
    /// Reads the command line.
    ///
    /// # Errors
    ///
    /// If something in it is not known or out of its range.
    pub fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted::default();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--lie" => wanted.lies = true,
                "--record" => wanted.record = true,
                _ => {
                    let value = args.next();
                    let value = value.with_context(|| format!("{flag} wants a value"))?;
                    wanted
                        .set(&flag, &value)
                        .with_context(|| format!("{flag} {value}"))?;
                }
            }
        }
        ensure!(
            wanted.ways() > 0,
            "nodes do not write through the page cache"
        );
        Ok(wanted)
    }

    /// What is written through: nodes know no more than two ways.
    pub(super) fn backends(&self) -> impl Iterator<Item = Backend> + '_ {
        let backends = self.backends.iter().copied();
        backends.filter(|&backend| self.nodes == 1 || backend != Backend::Buffered)
    }

    /// How many chains there are side by side: one for each file system and storage.
    pub(super) fn ways(&self) -> u64 {
        self.file_systems.len() as u64 * self.backends().count() as u64
    }

    /// The command line that says the same.
    pub(super) fn command(&self) -> String {
        let mut command = format!("power --cuts {} --seed {}", self.cuts, self.seed);
        if let Some(limit) = self.limit {
            command += &format!(" --minutes {}", limit.as_secs() / 60);
        }
        let one = |count: usize, flag: &str, name: &str, word_for_all: &str| {
            let name = if count == 1 { name } else { word_for_all };
            format!(" --{flag} {name}")
        };
        let (file_system, backend) = (self.file_systems[0], self.backends[0]);
        command += &one(self.file_systems.len(), "fs", file_system.name(), "both");
        command += &one(self.backends.len(), "storage", backend.name(), "all");
        command + &format!(" --nodes {}", self.nodes)
    }

    fn set(&mut self, flag: &str, value: &str) -> anyhow::Result<()> {
        match flag {
            "--cuts" => self.cuts = value.parse()?,
            "--minutes" => {
                let minutes: u64 = value.parse()?;
                self.limit = Some(Duration::from_secs(minutes * 60));
            }
            "--seed" => self.seed = value.parse()?,
            "--fs" => self.file_systems = choose(FileSystem::ALL, FileSystem::name, value, "both")?,
            "--storage" => self.backends = choose(Backend::ALL, Backend::name, value, "all")?,
            "--nodes" => match value.parse()? {
                nodes @ (1 | 3) => self.nodes = nodes,
                _ => bail!("1 or 3"),
            },
            "--mutant" => {
                let found = mutants::find(value);
                let found = found.context("no such mutant, or built without the feature mutants");
                self.mutant = Some(found?);
            }
            "--folder" => self.folder = Some(PathBuf::from(value)),
            _ => bail!("not known"),
        }
        Ok(())
    }
}

/// One of them by its name, or all.
fn choose<T: Copy, const N: usize>(
    all: [T; N],
    name: impl Fn(T) -> &'static str,
    value: &str,
    word_for_all: &str,
) -> anyhow::Result<Vec<T>> {
    if value == word_for_all {
        return Ok(all.to_vec());
    }
    let found = all.into_iter().find(|&one| name(one) == value);
    Ok(vec![found.context("no such one")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Wanted> {
        Wanted::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_says_what_is_run() {
        let wanted = parse("--cuts 7 --minutes 2 --seed 3 --fs xfs --storage uring --nodes 3");
        let wanted = wanted.unwrap();
        assert_eq!((wanted.cuts, wanted.seed, wanted.nodes), (7, 3, 3));
        assert_eq!(wanted.limit, Some(Duration::from_secs(120)));
        assert_eq!(wanted.file_systems, [FileSystem::Xfs]);
        assert_eq!(wanted.backends, [Backend::Uring]);
        let all = parse("--fs both --storage all").unwrap();
        assert_eq!(all, Wanted::default());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "--nodes 2",
            "--nodes",
            "--what 3",
            "--fs btrfs",
            "--storage both",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

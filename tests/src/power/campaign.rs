//! Many power cuts: chains of lives, or clusters, on all file systems and through all storages,
//! in turn.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use super::args::{Backend, Wanted};
use super::chain::{Chain, Setting};
use super::tally::Tally;
use super::trio::Trio;
use super::{mutants, record};
use crate::disk_image::{FileSystem, MemoryFolder, isolate_mounts};

/// How many lives a disk of one log sees at most.
const LIVES_MAX: u64 = 40;

/// How many power cuts a cluster sees at most.
const CLUSTER_LIVES_MAX: u64 = 10;

/// How often it is said how far the campaign is, where nobody looks.
const SAID_EVERY: Duration = Duration::from_secs(30);

/// A campaign ends at so many failures: each keeps an image. At the first, if it is planted.
const FAILURES_MAX: u64 = 3;

/// What came of a campaign.
#[derive(Debug, Default)]
pub(super) struct Campaign {
    pub(super) tallies: BTreeMap<(FileSystem, Backend), Tally>,
    pub(super) took: Duration,
}

impl Campaign {
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.values().for_each(|tally| total.merge(tally));
        total
    }
}

/// What loses its power again and again.
enum Subject {
    Chain(Box<Chain>),
    Trio(Trio),
}

impl Subject {
    fn new(nodes: u32, setting: Setting, folder: &Path) -> anyhow::Result<Subject> {
        Ok(match nodes {
            1 => Subject::Chain(Box::new(Chain::new(setting, folder)?)),
            _ => Subject::Trio(Trio::new(setting, folder)?),
        })
    }

    fn live(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        match self {
            Subject::Chain(chain) => chain.live(tally),
            Subject::Trio(trio) => trio.live(tally),
        }
    }

    fn has_room(&self) -> anyhow::Result<bool> {
        match self {
            Subject::Chain(chain) => chain.has_room(),
            Subject::Trio(_) => Ok(true),
        }
    }

    fn finish(self, tally: &mut Tally) -> anyhow::Result<()> {
        match self {
            Subject::Chain(_) => Ok(()),
            Subject::Trio(trio) => trio.finish(tally),
        }
    }

    fn keep(self) -> anyhow::Result<Vec<PathBuf>> {
        match self {
            Subject::Chain(chain) => Ok(vec![chain.keep()?]),
            Subject::Trio(trio) => trio.keep(),
        }
    }
}

/// Cuts the power again and again; whether all is as it should be.
///
/// # Errors
///
/// If the images cannot be made, or a file not be written.
pub fn run(wanted: &Wanted) -> anyhow::Result<bool> {
    isolate_mounts()?;
    if let Some(place) = wanted.mutant {
        // The log is also opened here.
        mutants::plant(place);
    }
    let memory = MemoryFolder::new()?;
    let folder = wanted.folder.as_deref().unwrap_or(memory.path());
    let mut campaign = Campaign::default();
    let (began, mut said) = (Instant::now(), Instant::now());
    let is_planted = wanted.lies || wanted.mutant.is_some();
    let failures_max = if is_planted { 1 } else { FAILURES_MAX };
    let is_late = || wanted.limit.is_some_and(|limit| began.elapsed() > limit);
    let is_over = |campaign: &Campaign| {
        let total = campaign.total();
        is_late() || total.cuts >= wanted.cuts || total.failed >= failures_max
    };
    let seeds = wanted.seed..;
    for setting in seeds.flat_map(|seed| settings(wanted, seed)) {
        if is_over(&campaign) {
            break;
        }
        campaign.run_subject(wanted, setting, folder, is_late)?;
        campaign.took = began.elapsed();
        if said.elapsed() > SAID_EVERY || std::io::stderr().is_terminal() {
            said = Instant::now();
            campaign.progress();
        }
    }
    campaign.summarize();
    let is_clean = campaign.total().failed == 0;
    if wanted.record {
        record::append(wanted, &campaign.total(), is_clean)?;
    }
    Ok(is_clean)
}

/// A chain on each file system through each storage.
fn settings(wanted: &Wanted, seed: u64) -> Vec<Setting> {
    let of = |file_system: FileSystem| {
        wanted.backends().map(move |backend| Setting {
            file_system,
            backend,
            seed,
            lies: wanted.lies,
            mutant: wanted.mutant,
        })
    };
    wanted.file_systems.iter().copied().flat_map(of).collect()
}

impl Campaign {
    /// Cuts the power of one chain or cluster until it is retired, or fails.
    fn run_subject(
        &mut self,
        wanted: &Wanted,
        setting: Setting,
        folder: &Path,
        is_late: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let lives = wanted.cuts.div_ceil(wanted.ways()).min(match wanted.nodes {
            1 => LIVES_MAX,
            _ => CLUSTER_LIVES_MAX,
        });
        let lives = lives.min(wanted.cuts.saturating_sub(self.total().cuts));
        let folder = tempfile::tempdir_in(folder)?;
        let tally = self.tallies.entry((setting.file_system, setting.backend));
        let tally = tally.or_default();
        let mut subject = Subject::new(wanted.nodes, setting, folder.path())?;
        let mut life = 0;
        let mut failure = None;
        while failure.is_none() && life < lives && subject.has_room()? && !is_late() {
            life += 1;
            let lived = catch_unwind(AssertUnwindSafe(|| subject.live(tally)));
            // A panic has said what it is about.
            let panicked = |_| Err(anyhow!("that is not what was promised"));
            failure = lived.unwrap_or_else(panicked).err();
        }
        let kept = match &failure {
            None => {
                failure = subject.finish(tally).err();
                Vec::new()
            }
            Some(_) => subject.keep()?,
        };
        if let Some(why) = failure {
            tally.failed += 1;
            println!("{why:#}\n  again: {}", again(wanted, setting, life));
            kept.iter().try_for_each(|image| keep(image))?;
        }
        Ok(())
    }

    fn progress(&self) {
        // What cannot be shown is not missed.
        let _ = writeln!(
            std::io::stderr(),
            "{} after {} s",
            self.total(),
            self.took.as_secs()
        );
    }

    fn summarize(&self) {
        for ((file_system, backend), tally) in &self.tallies {
            println!("{}, {}: {tally}", file_system.name(), backend.name());
        }
        println!(
            "in all: {} in {:.1} s",
            self.total(),
            self.took.as_secs_f64()
        );
    }
}

/// The command that goes the same way, as far as chance and not the kernel leads it.
fn again(wanted: &Wanted, setting: Setting, lives: u64) -> String {
    format!(
        "power --cuts {lives} --seed {} --fs {} --storage {} --nodes {}{}",
        setting.seed,
        setting.file_system.name(),
        setting.backend.name(),
        wanted.nodes,
        if setting.lies { " --lie" } else { "" },
    )
}

/// Puts an image where it survives the end of the campaign.
fn keep(image: &Path) -> anyhow::Result<()> {
    let kept = tempfile::Builder::new().prefix("power-").tempdir()?.keep();
    let mut copy = Command::new("cp");
    let copied = copy.arg("--sparse=always").arg(image).arg(&kept).status()?;
    ensure!(copied.success(), "{copy:?}: {copied}");
    println!("  its image is in {}", kept.display());
    Ok(())
}

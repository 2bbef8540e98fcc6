//! Many power cuts: chains of lives on all file systems and through all storages, in turn.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use super::args::{Backend, Wanted};
use super::chain::{Chain, Setting};
use super::record;
use super::tally::Tally;
use crate::disk_image::{FileSystem, isolate_mounts};

/// How many lives a disk sees at most.
const LIVES_MAX: u64 = 40;

/// How often it is said how far the campaign is, where nobody looks.
const SAID_EVERY: Duration = Duration::from_secs(30);

/// A campaign ends at so many failures: each keeps an image.
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

/// Cuts the power of logs without a server above them; whether all is as it should be.
///
/// # Errors
///
/// If the images cannot be made, or a file not be written.
pub fn run(wanted: &Wanted) -> anyhow::Result<bool> {
    isolate_mounts()?;
    let temporary = wanted.temporary()?;
    let folder = temporary.path();
    let mut campaign = Campaign::default();
    let (began, mut said) = (Instant::now(), Instant::now());
    let mut seed = wanted.seed;
    let is_over = |campaign: &Campaign| {
        let is_late = wanted.limit.is_some_and(|limit| began.elapsed() > limit);
        let total = campaign.total();
        is_late || total.cuts >= wanted.cuts || total.failed >= FAILURES_MAX
    };
    while !is_over(&campaign) {
        for setting in settings(wanted, seed) {
            if is_over(&campaign) {
                break;
            }
            let lives = LIVES_MAX.min(wanted.cuts.div_ceil(wanted.ways()));
            let lives = lives.min(wanted.cuts.saturating_sub(campaign.total().cuts));
            let kept = campaign.run_chain(setting, lives, folder, || {
                wanted.limit.is_some_and(|limit| began.elapsed() > limit)
            })?;
            if let Some(kept) = kept {
                keep(&kept)?;
            }
            campaign.took = began.elapsed();
            if said.elapsed() > SAID_EVERY || std::io::stderr().is_terminal() {
                said = Instant::now();
                campaign.progress();
            }
        }
        seed += 1;
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
        wanted.backends.iter().map(move |&backend| Setting {
            file_system,
            backend,
            seed,
            lies: wanted.lies,
        })
    };
    wanted.file_systems.iter().copied().flat_map(of).collect()
}

impl Campaign {
    /// Runs a chain to its end. Gives its image, if that does not hold what it should.
    fn run_chain(
        &mut self,
        setting: Setting,
        lives: u64,
        folder: &Path,
        is_late: impl Fn() -> bool,
    ) -> anyhow::Result<Option<PathBuf>> {
        let tally = self.tallies.entry((setting.file_system, setting.backend));
        let tally = tally.or_default();
        let mut chain = Chain::new(setting, folder)?;
        while chain.lives() < lives && chain.has_room()? && !is_late() {
            let lived = catch_unwind(AssertUnwindSafe(|| chain.live(tally)));
            // A panic has said what it is about.
            let lived = lived.unwrap_or_else(|_| Err(anyhow!("that is not what was promised")));
            if let Err(why) = lived {
                tally.failed += 1;
                println!("{why:#}\n  again: {}", again(setting, chain.lives()));
                return Ok(Some(chain.keep()?));
            }
        }
        Ok(None)
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
fn again(setting: Setting, lives: u64) -> String {
    format!(
        "power --cuts {lives} --seed {} --fs {} --storage {}{}",
        setting.seed,
        setting.file_system.name(),
        setting.backend.name(),
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

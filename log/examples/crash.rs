//! A campaign of crash images: scripted histories, then histories by chance, at every step of which the power is cut in
//! every way (`log/tests/crash_images/`), for as long as one likes.
//!
//!     cargo run -p highwater-log --example crash -- --images 1000000 --minutes 15 --seed 1000
//!
//! With `--record` a line is added to `docs/crash-campaigns.csv`. A history that leaves something
//! else than the contract allows is told with its seed and the step, and the campaign goes on.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a tool for the workshop, which is stopped by the clock"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/crash_images/hunt.rs"]
mod hunt;
#[path = "../tests/crash_images/moment.rs"]
mod moment;
#[path = "../tests/crash_images/rot.rs"]
mod rot;
#[path = "../tests/crash_images/scripts.rs"]
mod scripts;
#[path = "../tests/crash_images/start.rs"]
mod start;

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use hunt::Hunt;
use moment::Bound;

const HELP: &str = "usage: crash [--images N] [--minutes M] [--seed S] [--record]";

const HEADER: &str = "date,commit,command,histories,failed,moments,judged,distinct_images,\
    recoveries_cut,went_on,rotten_sectors,rotten_units,verdict";

/// How often it is said how far the campaign is.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What is to be done.
struct Wanted {
    images: usize,
    minutes: u64,
    seed: u64,
    record: bool,
}

fn main() -> ExitCode {
    let Some(wanted) = parse(std::env::args().skip(1)) else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    let bound = Bound {
        exhaustive: 256,
        drawn: 16,
    };
    let mut hunt = Hunt::new(bound);
    let failed = run(&wanted, &mut hunt);
    let clean = failed == 0;
    say(&hunt, failed);
    if wanted.record {
        record(&wanted, &hunt, failed);
    }
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted {
        images: 1_000_000,
        minutes: 15,
        seed: 1_000,
        record: false,
    };
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--record" => wanted.record = true,
            "--images" => wanted.images = args.next()?.parse().ok()?,
            "--minutes" => wanted.minutes = args.next()?.parse().ok()?,
            "--seed" => wanted.seed = args.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(wanted)
}

/// Runs histories until there are images enough, or the time is up; gives how many failed.
fn run(wanted: &Wanted, hunt: &mut Hunt) -> u64 {
    let began = Instant::now();
    let limit = Duration::from_secs(wanted.minutes * 60);
    let mut said = began;
    let mut failed = 0;
    if catch_unwind(AssertUnwindSafe(|| hunt.scripted())).is_err() {
        failed += 1;
        hunt.end();
    }
    for seed in wanted.seed.. {
        if hunt.distinct() >= wanted.images || began.elapsed() >= limit {
            break;
        }
        if catch_unwind(AssertUnwindSafe(|| hunt.random(seed))).is_err() {
            failed += 1;
            hunt.end();
        }
        if said.elapsed() >= SAID_EVERY {
            said = Instant::now();
            say(hunt, failed);
        }
    }
    failed
}

fn say(hunt: &Hunt, failed: u64) {
    let images = hunt.distinct();
    println!(
        "{images} distinct images, {failed} histories failed, {:?}",
        hunt.counts
    );
}

fn record(wanted: &Wanted, hunt: &Hunt, failed: u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/crash-campaigns.csv");
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    if is_new {
        writeln!(file, "{HEADER}").unwrap();
    }
    let command = format!(
        "crash --images {} --minutes {} --seed {}",
        wanted.images, wanted.minutes, wanted.seed
    );
    let counts = &hunt.counts;
    writeln!(
        file,
        "{},{},{command},{},{failed},{},{},{},{},{},{},{},{}",
        output("date", &["-u", "+%Y-%m-%d"]),
        output("git", &["describe", "--always", "--dirty"]),
        counts.histories,
        counts.moments,
        counts.judged,
        hunt.distinct(),
        counts.recoveries_cut,
        counts.went_on,
        counts.rotten_sectors,
        counts.rotten_units,
        if failed == 0 { "clean" } else { "NOT CLEAN" },
    )
    .unwrap();
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

//! `sim`: runs the simulated world over seeds, and for a failure prints the command that repeats
//! it.
//!
//!     sim --seeds 200                  seeds 1 to 200, three nodes
//!     sim --seeds 1 --first 17 --trace one seed, with all that happens in it

use std::process::ExitCode;

use anyhow::{Context, bail};
use highwater_engine::testing::{Plan, Report, World};

const HELP: &str = "usage: sim [--seeds N] [--first S] [--nodes K] [--trace]";

/// What is to be run.
struct Wanted {
    first: u64,
    seeds: u64,
    nodes: u32,
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let wanted = parse(std::env::args().skip(1)).context(HELP)?;
    let mut total = Report::default();
    let mut failed = 0_u64;
    for seed in wanted.first..wanted.first.saturating_add(wanted.seeds) {
        match run(&wanted, seed) {
            Some(report) => add(&mut total, &report),
            None => failed += 1,
        }
    }
    println!(
        "{} seeds, {failed} failed: {:.0} s of virtual time, {} events, {} batches acknowledged, \
         {} entries committed, {} terms with a leader, {} crashes, {} frames lost, doubled or \
         garbled",
        wanted.seeds,
        total.time.as_secs_f64(),
        total.events,
        total.acked,
        total.committed,
        total.leaders,
        total.crashes,
        total.frames_troubled,
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted {
        first: 1,
        seeds: 100,
        nodes: 3,
        trace: false,
    };
    while let Some(flag) = args.next() {
        if flag == "--trace" {
            wanted.trace = true;
            continue;
        }
        let value = args
            .next()
            .with_context(|| format!("{flag} wants a value"))?;
        let number: u64 = value.parse().with_context(|| format!("{flag} {value}"))?;
        match flag.as_str() {
            "--seeds" => wanted.seeds = number,
            "--first" => wanted.first = number,
            "--nodes" if (1..=9).contains(&number) => wanted.nodes = u32::try_from(number)?,
            "--nodes" => bail!("--nodes {number}: 1 to 9"),
            _ => bail!("{flag} is not known"),
        }
    }
    Ok(wanted)
}

/// Runs one seed; a panic in it is a failure like any other.
fn run(wanted: &Wanted, seed: u64) -> Option<Report> {
    let plan = Plan::of_seed(seed, wanted.nodes);
    let described = format!("{plan:?}");
    let outcome = std::panic::catch_unwind(|| {
        let world = World::new(plan);
        if wanted.trace {
            world.traced().run()
        } else {
            world.run()
        }
    });
    let why = match outcome {
        Ok((trace, result)) => {
            print!("{trace}");
            match result {
                Ok(report) => return Some(report),
                Err(violation) => violation.to_string(),
            }
        }
        Err(_) => "it panicked, see above".to_owned(),
    };
    println!("seed {seed}: {why}");
    println!("  plan: {described}");
    let nodes = wanted.nodes;
    println!(
        "  again: cargo run -p highwater-tests --bin sim -- --seeds 1 --first {seed} --nodes {nodes} --trace"
    );
    None
}

fn add(total: &mut Report, report: &Report) {
    total.events += report.events;
    total.time += report.time;
    total.acked += report.acked;
    total.committed += report.committed;
    total.leaders += report.leaders;
    total.crashes += report.crashes;
    total.frames_troubled += report.frames_troubled;
}

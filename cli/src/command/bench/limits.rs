//! `highwater bench limits`: what this machine can do without Highwater.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use highwater_bench::limits::{Ceiling, Limits, RUNS_MIN, disk, link, memory};
use highwater_bench::pipeline;
use serde_json::{Value, json};

use super::pipeline::PipelineArguments;
use super::{broken, interruptible, print_durability, seconds, spread_text};
use crate::exit::Failure;
use crate::print::Printer;

/// How long a run takes, unless it is said.
pub(super) const RUN: Duration = Duration::from_secs(1);

/// The durability of what writes to no disk.
const NONE: &str = "none: nothing is written to a disk";

/// That of the disk's own figures.
const SYNCED: &str = "each write to the disk is durable (synced) before the next";

/// Said where no folder is named.
const NO_DISK: &str = "disk: not measured; --dir names a folder on it";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Where to make a scratch directory, of 256 MiB: the disk to measure [default: none is].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    runs: Runs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Synced sequential writes, as the log makes them: files that were written before, and files that
    /// are only allocated.
    Disk {
        /// Where to make a scratch directory, of 256 MiB.
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        #[command(flatten)]
        runs: Runs,
    },
    /// Copying in memory, from one buffer of 256 MiB to another, in one thread.
    Copy(Runs),
    /// CRC-32C of batches of 1 MiB, by the function that records are checked with, in one thread:
    /// of one that the caches hold, and of 256 MiB in memory.
    Crc(Runs),
    /// One TCP connection over loopback, both ends in this process, by writes of 64 KiB and of 1 MiB.
    Tcp(Runs),
    /// One link of two nodes over loopback, by QUIC, both ends in this process: batches of 1 MiB,
    /// 8 MiB on their way, acknowledged when they have come.
    #[command(after_help = "Examples:
  highwater bench limits quic
  highwater bench limits quic --datagram-bytes 8900")]
    Quic {
        /// The largest UDP payload, in bytes; may be repeated [default: 1452, as on Ethernet, and what
        /// loopback takes].
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1200..))]
        datagram_bytes: Vec<u16>,
        #[command(flatten)]
        runs: Runs,
    },
    /// The bare replicated path: a client, a leader and two followers, each a process, over the links
    /// and storages of a node; acknowledged when durable on two of three. No Raft, no records, no
    /// index: the ceiling of `bench cluster`.
    #[command(after_help = "Examples:
  highwater bench limits pipeline --dir /var/lib/highwater
  highwater bench limits pipeline --dir . --files steady --datagram-bytes 1452
  highwater bench limits pipeline --dir . --batch-bytes 20480 --rate 1000")]
    Pipeline(PipelineArguments),
    /// A node of the pipeline; started by `pipeline` alone.
    #[command(hide = true)]
    PipelineNode,
}

#[derive(Debug, clap::Args)]
struct Runs {
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = RUNS_MIN)]
    runs: usize,
    /// How long a run takes at most, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = RUN.as_secs_f64(), value_parser = seconds)]
    run_seconds: f64,
}

impl Runs {
    fn limits(&self) -> Limits {
        Limits {
            runs: self.runs,
            run: Duration::from_secs_f64(self.run_seconds),
        }
    }
}

impl Arguments {
    pub(super) fn run(self, printer: Printer) -> Result<(), Failure> {
        let Some(action) = self.action else {
            return print_all(self.dir.as_deref(), &self.runs.limits(), printer);
        };
        match action {
            Action::Disk { dir, runs } => {
                print_durability(SYNCED, printer)?;
                print_disk(&dir, &runs.limits(), printer)
            }
            Action::Copy(runs) => print_alone(runs.limits(), print_copy, printer),
            Action::Crc(runs) => print_alone(runs.limits(), print_sums, printer),
            Action::Tcp(runs) => print_alone(runs.limits(), print_tcp, printer),
            Action::Quic {
                datagram_bytes,
                runs,
            } => {
                let datagrams = match datagram_bytes.is_empty() {
                    true => link::DATAGRAMS.to_vec(),
                    false => datagram_bytes,
                };
                print_durability(NONE, printer)?;
                print_quic(&datagrams, &runs.limits(), printer)
            }
            Action::Pipeline(arguments) => arguments.run(printer),
            Action::PipelineNode => pipeline::run_node().map_err(|error| broken(&error)),
        }
    }
}

/// All that need no processes; the disk too, where there is a folder on it.
fn print_all(dir: Option<&Path>, limits: &Limits, printer: Printer) -> Result<(), Failure> {
    match dir {
        Some(dir) => {
            print_durability(SYNCED, printer)?;
            print_disk(dir, limits, printer)?;
        }
        None => {
            print_durability(NONE, printer)?;
            printer.line(|| NO_DISK.to_owned(), || passed_over(NO_DISK))?;
        }
    }
    print_copy(limits, printer)?;
    print_sums(limits, printer)?;
    print_tcp(limits, printer)?;
    print_quic(&link::DATAGRAMS, limits, printer)
}

fn print_alone(
    limits: Limits,
    print: impl FnOnce(&Limits, Printer) -> Result<(), Failure>,
    printer: Printer,
) -> Result<(), Failure> {
    print_durability(NONE, printer)?;
    print(&limits, printer)
}

fn print_disk(dir: &Path, limits: &Limits, printer: Printer) -> Result<(), Failure> {
    let measured = disk::measure(dir, limits, |limit| match limit {
        Ok(limit) => printer.line_while_read(|| disk_text(&limit), || json!(limit)),
        Err(reason) => printer.line_while_read(|| reason.clone(), || passed_over(&reason)),
    });
    measured.map_err(|error| broken(&error))
}

/// What is not measured is named.
fn passed_over(reason: &str) -> Value {
    json!({ "passed_over": reason })
}

fn print_copy(limits: &Limits, printer: Printer) -> Result<(), Failure> {
    print_ceiling(memory::copy(limits), printer)
}

fn print_sums(limits: &Limits, printer: Printer) -> Result<(), Failure> {
    for bytes in [memory::CACHED_BYTES, memory::MEMORY_BYTES] {
        print_ceiling(memory::sum(limits, bytes), printer)?;
    }
    Ok(())
}

fn print_tcp(limits: &Limits, printer: Printer) -> Result<(), Failure> {
    for bytes in link::WRITES {
        print_ceiling(link::tcp(limits, bytes), printer)?;
    }
    Ok(())
}

fn print_quic(datagrams: &[u16], limits: &Limits, printer: Printer) -> Result<(), Failure> {
    interruptible(async {
        for &bytes in datagrams {
            print_ceiling(link::quic(limits, bytes).await, printer)?;
        }
        Ok(())
    })
}

pub(super) fn print_ceiling(
    measured: anyhow::Result<Ceiling>,
    printer: Printer,
) -> Result<(), Failure> {
    let ceiling = measured.map_err(|error| broken(&error))?;
    printer.line(|| ceiling_text(&ceiling), || json!(ceiling))
}

pub(super) fn ceiling_text(ceiling: &Ceiling) -> String {
    match ceiling {
        Ceiling::MemoryCopy {
            buffer_bytes: bytes,
            gb_per_second: rate,
            ..
        } => format!(
            "copy     {bytes:>9} bytes of memory: {} GB/s",
            spread_text(rate)
        ),
        Ceiling::Crc32c {
            buffer_bytes: bytes,
            gb_per_second: rate,
            ..
        } => format!(
            "crc-32c  {bytes:>9} bytes of memory: {} GB/s",
            spread_text(rate)
        ),
        Ceiling::Tcp {
            write_bytes: bytes,
            mb_per_second: rate,
            cpu_seconds_per_gb: cpu,
            ..
        } => format!(
            "tcp      {bytes:>9} bytes a write: {} MB/s; CPU seconds per GB, both ends: {}",
            spread_text(rate),
            spread_text(cpu),
        ),
        Ceiling::Quic {
            datagram_bytes: bytes,
            mb_per_second: rate,
            cpu_seconds_per_gb: cpu,
            ..
        } => format!(
            "quic     {bytes:>9} bytes a datagram: {} MB/s; CPU seconds per GB, both ends: {}",
            spread_text(rate),
            spread_text(cpu),
        ),
    }
}

pub(super) fn disk_text(limit: &disk::Limit) -> String {
    let mb = |bytes: u64| bytes / 1_000_000;
    format!(
        "{:<8} {:<8} {:>7} bytes: {:>5} MB/s (of {} runs {} to {}), p50 {} us, p99 {} us",
        limit.storage,
        limit.prepared,
        limit.bytes,
        mb(limit.bytes_per_second),
        limit.runs,
        mb(limit.bytes_per_second_min),
        mb(limit.bytes_per_second_max),
        limit.latency.p50_us,
        limit.latency.p99_us,
    )
}

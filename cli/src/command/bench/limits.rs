//! `highwater bench limits`: what this machine can do without Highwater.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use highwater_bench::limits;
use highwater_bench::pipeline::{self, Files, PipelineLoad, PipelineReport};
use serde_json::json;

use super::{broken, percentiles_text, print_durability, seconds, spread_text, with_kind};
use crate::exit::Failure;
use crate::print::Printer;

/// The words that make a process one of the pipeline's nodes.
const NODE_WORDS: [&str; 3] = ["bench", "limits", "pipeline-node"];

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    disk: Option<DiskArguments>,
}

#[derive(Debug, Subcommand)]
enum Action {
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
struct DiskArguments {
    /// Where to make a scratch directory, of 256 MiB.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = limits::RUNS_MIN)]
    runs: usize,
    /// How long a run takes at most, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    run_seconds: f64,
}

#[derive(Debug, clap::Args)]
struct PipelineArguments {
    /// Where to make a temporary folder, of 1.5 GiB. Memory is no disk: /tmp may be the wrong place.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// A batch, in bytes: a multiple of 4096.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    batch_bytes: usize,
    /// How much is on its way at once, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    window_bytes: usize,
    /// Batches a second [default: as many as are acknowledged].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// The largest UDP payload, in bytes: 1452 as on Ethernet [default: what loopback takes].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1200..))]
    datagram_bytes: Option<u16>,
    /// How the files are that batches are written to.
    #[arg(long, value_enum, default_value_t = FilesName::Fresh)]
    files: FilesName,
    /// How often it is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// How long each run is counted, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// How long nothing is counted before.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FilesName {
    /// Only allocated, as a node does for a partition that is written to fast
    Fresh,
    /// Written once before, and used again and again
    Steady,
}

impl Arguments {
    pub(super) fn run(self, printer: Printer) -> Result<(), Failure> {
        match (self.action, self.disk) {
            (Some(Action::Pipeline(arguments)), _) => arguments.run(printer),
            (Some(Action::PipelineNode), _) => pipeline::run_node().map_err(|error| broken(&error)),
            (None, Some(disk)) => disk.run(printer),
            (None, None) => unreachable!("--dir is required where there is no subcommand"),
        }
    }
}

impl DiskArguments {
    fn run(self, printer: Printer) -> Result<(), Failure> {
        print_durability("each write is durable (synced) before the next", printer)?;
        let limits = limits::Limits {
            runs: self.runs,
            run: Duration::from_secs_f64(self.run_seconds),
        };
        let measured = limits::measure(&self.dir, &limits, |limit| {
            let printed = match limit {
                Ok(limit) => printer.line(|| limit_text(&limit), || json!(limit)),
                Err(reason) => printer.line(|| reason.clone(), || json!({ "passed_over": reason })),
            };
            printed.map_err(|failure| anyhow::anyhow!("{failure:?}"))
        });
        measured.map_err(|error| broken(&error))
    }
}

impl PipelineArguments {
    fn run(self, printer: Printer) -> Result<(), Failure> {
        let files = match self.files {
            FilesName::Fresh => Files::Fresh,
            FilesName::Steady => Files::Steady,
        };
        let name = self.files.to_possible_value();
        let name = name.map_or_else(String::new, |name| name.get_name().to_owned());
        let durability = format!(
            "on disk (synced) on two of three before the acknowledgement; all share this machine \
             and one disk; files {name}"
        );
        print_durability(&durability, printer)?;
        let load = PipelineLoad {
            batch_bytes: self.batch_bytes,
            window_bytes: self.window_bytes,
            rate: self.rate,
            datagram_bytes: self.datagram_bytes,
            files,
            runs: usize::from(self.runs),
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
        };
        let executable = std::env::current_exe()?;
        let report = pipeline::measure(&executable, &NODE_WORDS, &self.dir, &load);
        let report = report.map_err(|error| broken(&error))?;
        printer.line(
            || pipeline_text(&report),
            || with_kind("pipeline", json!(report)),
        )
    }
}

fn pipeline_text(report: &PipelineReport) -> String {
    format!(
        "pipeline  batches of {} bytes, datagrams of up to {}: {} MB/s; CPU seconds per GB, all four \
         processes: {}; latency {}",
        report.batch_bytes,
        report.datagram_bytes,
        spread_text(&report.mb_per_second),
        spread_text(&report.cpu_seconds_per_gb),
        percentiles_text(&report.latency),
    )
}

pub(super) fn limit_text(limit: &limits::Limit) -> String {
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

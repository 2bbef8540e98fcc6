//! `highwater bench limits pipeline`: the bare replicated path.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use highwater_bench::pipeline::{self, Files, PeerTransport, PipelineLoad, PipelineReport};
use serde_json::json;

use super::with_kind;
use super::{broken, interruptible, percentiles_text, print_durability, seconds, spread_text};
use crate::cluster::DATAGRAM_BYTES;
use crate::exit::Failure;
use crate::print::Printer;

/// The words that make a process one of the pipeline's nodes.
pub(super) const NODE_WORDS: [&str; 3] = ["bench", "limits", "pipeline-node"];

#[derive(Debug, clap::Args)]
pub(super) struct PipelineArguments {
    /// Where to make a temporary folder, of 1.5 GiB. Memory is no disk: /tmp may be the wrong place.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// A batch, in bytes: a multiple of 4096.
    #[arg(long, value_name = "BYTES", default_value_t = PipelineLoad::default().batch_bytes)]
    batch_bytes: usize,
    /// How much is on its way at once, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = PipelineLoad::default().window_bytes)]
    window_bytes: usize,
    /// Batches a second [default: as many as are acknowledged].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// What carries the links.
    #[arg(long, value_enum, default_value_t = PeerTransportName::Quic)]
    peer_transport: PeerTransportName,
    /// The largest UDP payload of QUIC, in bytes: 1452 as on Ethernet [default: what loopback takes].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(DATAGRAM_BYTES))]
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

/// What carries the links between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PeerTransportName {
    /// Over UDP, as by default
    Quic,
    /// With TLS 1.3 in it
    Tcp,
}

impl From<PeerTransportName> for PeerTransport {
    fn from(name: PeerTransportName) -> PeerTransport {
        match name {
            PeerTransportName::Quic => PeerTransport::Quic,
            PeerTransportName::Tcp => PeerTransport::Tcp,
        }
    }
}

/// How files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FilesName {
    /// Made for this, as a node does that has nothing to recycle
    Fresh,
    /// Written once before, and used again and again
    Steady,
}

impl From<FilesName> for Files {
    fn from(name: FilesName) -> Files {
        match name {
            FilesName::Fresh => Files::Fresh,
            FilesName::Steady => Files::Steady,
        }
    }
}

/// As the first line of a report has it.
pub(super) const fn files_text(files: Files) -> &'static str {
    match files {
        Files::Fresh => "fresh",
        Files::Steady => "steady",
    }
}

impl PipelineArguments {
    pub(super) fn run(self, printer: Printer) -> Result<(), Failure> {
        let files = Files::from(self.files);
        let durability = format!(
            "on disk (synced) on two of three before the acknowledgement; all share this machine \
             and one disk; files {}",
            files_text(files)
        );
        print_durability(&durability, printer)?;
        let load = PipelineLoad {
            batch_bytes: self.batch_bytes,
            window_bytes: self.window_bytes,
            rate: self.rate,
            peer_transport: self.peer_transport.into(),
            datagram_bytes: self.datagram_bytes,
            files,
            runs: usize::from(self.runs),
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
        };
        let executable = std::env::current_exe()?;
        interruptible(async {
            let report = pipeline::measure(&executable, &NODE_WORDS, &self.dir, &load).await;
            let report = report.map_err(|error| broken(&error))?;
            printer.line(
                || pipeline_text(&report),
                || with_kind("pipeline", json!(report)),
            )
        })
    }
}

pub(super) fn pipeline_text(report: &PipelineReport) -> String {
    let links = match report.datagram_bytes {
        Some(bytes) => format!("datagrams of up to {bytes}"),
        None => "over TCP".to_owned(),
    };
    format!(
        "pipeline batches of {} bytes, {}: {} MB/s; CPU seconds per GB, all four \
         processes: {}; latency {}",
        report.batch_bytes,
        links,
        spread_text(&report.mb_per_second),
        spread_text(&report.cpu_seconds_per_gb),
        percentiles_text(&report.latency),
    )
}

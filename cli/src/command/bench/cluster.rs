//! `highwater bench cluster`: a suite, on a cluster of its own.

use std::path::PathBuf;
use std::time::Duration;

use highwater_bench::suite::{self, Figure, Processes, Shape, Suite};
use serde_json::json;

use super::pipeline::{FilesName, NODE_WORDS, PeerTransportName, files_text, pipeline_text};
use super::{broken, limits, print_durability, seconds, spread_text};
use crate::cluster::{DATAGRAM_BYTES, TransportName};
use crate::exit::Failure;
use crate::print::Printer;

/// A named suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SuiteName {
    /// One run of each figure, a minute and a half
    Quick,
    /// Five runs of each, and other loads: one producer, records of 100 bytes, and batches of
    /// 64 KiB to the topic's partitions and to 1,000
    Full,
}

impl SuiteName {
    fn runs(self) -> u16 {
        match self {
            SuiteName::Quick => 1,
            SuiteName::Full => 5,
        }
    }

    fn seconds(self) -> f64 {
        match self {
            SuiteName::Quick => 3.0,
            SuiteName::Full => 5.0,
        }
    }

    fn warm_up(self) -> f64 {
        match self {
            SuiteName::Quick => 1.0,
            SuiteName::Full => 2.0,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is measured.
    #[arg(value_name = "SUITE", value_enum, default_value_t = SuiteName::Quick)]
    suite: SuiteName,
    /// Where to make a temporary folder. Memory is no disk: /tmp may be the wrong place.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// How many nodes, each a process.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Set one option of all nodes, as in --set node.shards=2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How often each is measured; the median counts [default: 1, or 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// How long each run is counted, in seconds [default: 3, or 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// How long nothing is counted before [default: 1, or 2].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warm_up: Option<f64>,
    /// The size of a record's value, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: usize,
    /// Partitions of a topic.
    #[arg(long, value_name = "N", default_value_t = 6)]
    partitions: u32,
    /// How many producers send side by side.
    #[arg(long, value_name = "N", default_value_t = 4)]
    producers: usize,
    /// A rate for latency, in records a second; may be repeated.
    #[arg(long, value_name = "N", default_values_t = [1_000, 20_000])]
    rate: Vec<u32>,
    /// How clients talk.
    #[arg(long, value_enum, default_value_t = TransportName::Quic)]
    transport: TransportName,
    /// What carries the links between nodes, and those of the bare path.
    #[arg(long, value_enum, default_value_t = PeerTransportName::Quic)]
    peer_transport: PeerTransportName,
    /// The largest UDP payload of QUIC, in bytes, of clients, nodes and the bare path: 1452 as on
    /// Ethernet [default: what loopback takes].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(DATAGRAM_BYTES))]
    datagram_bytes: Option<u16>,
    /// How the files are that a run writes to: made for it, or those of the topic that the run
    /// before has filled and deleted, after one run that does not count.
    #[arg(long, value_enum, default_value_t = FilesName::Fresh)]
    files: FilesName,
}

impl Arguments {
    pub(super) async fn run(self, printer: Printer) -> Result<(), Failure> {
        let nodes = self.nodes;
        let durability = format!(
            "on disk (synced) on a quorum before the acknowledgement; {nodes} processes share this \
             machine and one disk; files {}",
            files_text(self.files.into())
        );
        print_durability(&durability, printer)?;
        let named = self.suite;
        let duration = self.seconds.unwrap_or_else(|| named.seconds());
        let warm_up = self.warm_up.unwrap_or_else(|| named.warm_up());
        let suite = Suite {
            runs: usize::from(self.runs.unwrap_or_else(|| named.runs())),
            duration: Duration::from_secs_f64(duration),
            warm_up: Duration::from_secs_f64(warm_up),
            record_bytes: self.record_bytes,
            partitions: self.partitions,
            producers: self.producers,
            rates: self.rate,
            quic: self.transport == TransportName::Quic,
            peer_transport: self.peer_transport.into(),
            datagram_bytes: self.datagram_bytes,
            files: self.files.into(),
            variants: named == SuiteName::Full,
        };
        let executable = std::env::current_exe()?;
        let show =
            |figure: Figure| printer.line_while_read(|| figure_text(&figure), || json!(figure));
        let processes = Processes {
            executable: &executable,
            node_words: &NODE_WORDS,
        };
        let done = suite::run(&processes, &self.dir, nodes, &self.set, &suite, show).await;
        done.map_err(|error| broken(&error))
    }
}

fn figure_text(figure: &Figure) -> String {
    match figure {
        Figure::Disk(limit) => format!("disk     {}", limits::disk_text(limit)),
        Figure::Loopback(ceiling) => format!("loopback {}", limits::ceiling_text(ceiling)),
        Figure::Pipeline(report) => format!("bare     {}", pipeline_text(report)),
        Figure::Throughput {
            mb_per_second,
            server_cpu_seconds_per_gb: server,
            client_cpu_seconds_per_gb: client,
            ratio_to_disk,
            ratio_to_pipeline,
        } => format!(
            "produce  {} MB/s{}; CPU seconds per GB: servers {}, client {}; all replicas together \
             wrote {ratio_to_disk:.2} of the disk's rate",
            spread_text(mb_per_second),
            ratio_to_pipeline.map_or_else(String::new, of_the_bare_path),
            spread_text(server),
            spread_text(client),
        ),
        Figure::Consume {
            mb_per_second,
            server_cpu_seconds_per_gb: server,
            ratio_to_loopback,
        } => format!(
            "consume  {} MB/s, {ratio_to_loopback:.2} of what one connection carries; CPU seconds per GB: servers {}",
            spread_text(mb_per_second),
            spread_text(server),
        ),
        Figure::Variant {
            shape,
            mb_per_second,
            records_per_second,
            server_cpu_seconds_per_gb: server,
            client_cpu_seconds_per_gb: client,
            ratio,
            of,
        } => format!(
            "produce  {}: {} MB/s, {:.0} records/s, {ratio:.2} of {}; CPU seconds per GB: servers \
             {}, client {}",
            shape_text(shape, of),
            spread_text(mb_per_second),
            records_per_second.median,
            shape_text(of, shape),
            spread_text(server),
            spread_text(client),
        ),
        Figure::Latency {
            rate,
            p50_ms,
            p99_ms,
            p999_ms,
            ratio_to_disk,
            disk_p50_ms,
            disk_p99_ms,
            disk_max_ms,
        } => format!(
            "latency  at {rate} records/s: p50 {} ms, p99 {} ms, p99.9 {} ms; p50 is \
             {ratio_to_disk:.1} synced writes of 4 KiB; one of these meanwhile: p50 {} ms, p99 {} \
             ms, max {} ms",
            spread_text(p50_ms),
            spread_text(p99_ms),
            spread_text(p999_ms),
            spread_text(disk_p50_ms),
            spread_text(disk_p99_ms),
            spread_text(disk_max_ms),
        ),
    }
}

/// A load, as far as it differs from another.
fn shape_text(shape: &Shape, other: &Shape) -> String {
    let differs = [
        (shape.producers != other.producers).then(|| count(shape.producers, "producer")),
        (shape.record_bytes != other.record_bytes)
            .then(|| format!("records of {} bytes", shape.record_bytes)),
        (shape.batch_bytes != other.batch_bytes)
            .then(|| format!("batches of {} KiB", shape.batch_bytes >> 10)),
        (shape.partitions != other.partitions).then(|| format!("{} partitions", shape.partitions)),
    ];
    let differs: Vec<String> = differs.into_iter().flatten().collect();
    differs.join(", ")
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn of_the_bare_path(ratio: f64) -> String {
    format!(", {:.0} % of the bare path", ratio * 100.0)
}

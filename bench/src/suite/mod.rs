//! The suite that `bench cluster` runs: the machine's own rates, then the cluster's, in one run.

mod ceilings;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use highwater_client::{Client, Compression, Datagrams, NewTopic, TopicName};
use serde::Serialize;

use crate::batching::Batching;
use crate::cluster::LocalCluster;
use crate::consume::{ConsumeLoad, ConsumeReport, consume};
use crate::latency::Percentiles;
use crate::limits::Ceiling;
use crate::limits::disk::Limit;
use crate::pipeline::{Files, PeerTransport, PipelineReport};
use crate::probe::DiskProbe;
use crate::produce::{ProduceLoad, ProduceReport, produce};
use crate::spread::Spread;

use ceilings::Ceilings;

/// Bytes of a topic's log files: what is prepared ahead for all replicas must find room on one
/// disk.
const SEGMENT_BYTES: &str = "134217728";

/// What the nodes keep to be recycled where files are steady, in bytes: all that a run writes at a
/// gigabyte a second and more.
const RECYCLE_BYTES: u64 = 16 << 30;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Suite {
    /// How often each; the median counts.
    pub runs: usize,
    /// How long each produces.
    pub duration: Duration,
    /// How long nothing is counted before.
    pub warm_up: Duration,
    /// The size of a record, in bytes.
    pub record_bytes: usize,
    /// Partitions of the topics.
    pub partitions: u32,
    /// Producers side by side, where as much is sent as is acknowledged.
    pub producers: usize,
    /// Rates for latency, in records a second.
    pub rates: Vec<u32>,
    /// Clients over QUIC, or over TCP.
    pub quic: bool,
    /// What carries the links between nodes, and those of the bare path.
    pub peer_transport: PeerTransport,
    /// The largest UDP payload that QUIC tries; nothing: what loopback takes.
    pub datagram_bytes: Option<u16>,
    /// Whether files are made for each run, or were those of the run before.
    pub files: Files,
    /// Whether other loads are measured too: one producer, small records, many partitions.
    pub variants: bool,
}

/// Partitions of the variant with many.
const MANY_PARTITIONS: u32 = 1_000;

/// Batches that a thousand partitions fill, in bytes.
const SMALL_BATCH_BYTES: usize = 64 << 10;

/// The size of a small record, in bytes.
const SMALL_RECORD_BYTES: usize = 100;

/// What is sent, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Producers side by side.
    pub producers: usize,
    /// The size of a record, in bytes.
    pub record_bytes: usize,
    /// The most that a batch holds, in bytes.
    pub batch_bytes: usize,
    /// The most that a producer has under way, in bytes.
    pub memory_bytes: usize,
    /// Milliseconds that a batch waits for more.
    pub linger_ms: u64,
    /// How long nothing is counted before.
    #[serde(skip)]
    pub warm_up: Duration,
}

impl Suite {
    /// Its own load.
    fn shape(&self) -> Shape {
        Shape {
            partitions: self.partitions,
            producers: self.producers,
            record_bytes: self.record_bytes,
            batch_bytes: 1 << 20,
            memory_bytes: 16 << 20,
            linger_ms: 5,
            warm_up: self.warm_up,
        }
    }
}

/// A figure of the suite, as it is there.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "figure", rename_all = "snake_case")]
pub enum Figure {
    /// The disk alone, one synced write after the other.
    Disk(Limit),
    /// Loopback alone, by what clients talk.
    Loopback(Ceiling),
    /// The bare replicated path; there is none beside a cluster of fewer than three nodes.
    Pipeline(PipelineReport),
    /// As much as is acknowledged.
    Throughput {
        /// Values acknowledged, in 10^6 bytes a second.
        mb_per_second: Spread,
        /// Processor seconds of the servers for each 10^9 bytes.
        server_cpu_seconds_per_gb: Spread,
        /// The same of the client.
        client_cpu_seconds_per_gb: Spread,
        /// What all replicas wrote together, by what the disk alone took in synced writes of
        /// 1 MiB into files prepared alike.
        ratio_to_disk: f64,
        /// What is acknowledged, by what the bare path acknowledges; none if it was not measured.
        ratio_to_pipeline: Option<f64>,
    },
    /// As much as is acknowledged of another load.
    Variant {
        /// The load.
        shape: Shape,
        /// Values acknowledged, in 10^6 bytes a second.
        mb_per_second: Spread,
        /// Records acknowledged a second.
        records_per_second: Spread,
        /// Processor seconds of the servers for each 10^9 bytes.
        server_cpu_seconds_per_gb: Spread,
        /// The same of the client.
        client_cpu_seconds_per_gb: Spread,
        /// By the load that it is compared with, in bytes a second.
        ratio: f64,
        /// That load.
        of: Shape,
    },
    /// Acknowledgements at a fixed rate, from when each record was to be sent.
    Latency {
        /// Records a second.
        rate: u32,
        /// In milliseconds.
        p50_ms: Spread,
        /// 99 of 100.
        p99_ms: Spread,
        /// 999 of 1,000.
        p999_ms: Spread,
        /// The median by that of one synced write of 4 KiB.
        ratio_to_disk: f64,
        /// One synced write of 4 KiB beside it, 200 of them a second, in milliseconds.
        disk_p50_ms: Spread,
        /// 99 of 100 of these.
        disk_p99_ms: Spread,
        /// The longest of these.
        disk_max_ms: Spread,
    },
    /// Reading back what was produced.
    Consume {
        /// 10^6 bytes a second.
        mb_per_second: Spread,
        /// Processor seconds of the servers for each 10^9 bytes.
        server_cpu_seconds_per_gb: Spread,
        /// By what one connection carries over loopback.
        ratio_to_loopback: f64,
    },
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Processes<'a> {
    /// The server, as `highwater`.
    pub executable: &'a Path,
    /// The words with which it is a node of the [bare path](crate::pipeline::measure).
    pub node_words: &'a [&'a str],
}

/// Runs the suite on a cluster of `nodes` processes below `folder`, and shows each figure.
///
/// # Errors
/// When a node does not start, a record is not acknowledged, or the disk cannot be measured.
pub async fn run(
    processes: &Processes<'_>,
    folder: &Path,
    nodes: u16,
    set: &[String],
    suite: &Suite,
    mut show: impl FnMut(Figure) -> Result<()>,
) -> Result<()> {
    let ceilings = Ceilings::measure(processes, folder, nodes, suite, &mut show).await?;
    let transport = match suite.peer_transport {
        PeerTransport::Quic => "quic",
        PeerTransport::Tcp => "tcp",
    };
    let recycle_bytes = match suite.files {
        Files::Fresh => 0,
        Files::Steady => RECYCLE_BYTES,
    };
    let own = [
        format!("peer_transport={transport}"),
        format!("node.recycle_bytes={recycle_bytes}"),
    ];
    let datagrams = suite
        .datagram_bytes
        .map(|bytes| format!("quic.loopback_datagram_bytes={bytes}"));
    let set = [&own, datagrams.as_slice(), set].concat();
    let cluster = LocalCluster::start(processes.executable, folder, nodes, &set)?;
    let datagrams = suite
        .datagram_bytes
        .map_or_else(Datagrams::default, Datagrams::of);
    let client = cluster.connect(suite.quic, datagrams).await?;
    let mut measured = Measured {
        client,
        folder,
        cluster: &cluster,
        pids: cluster.pids(),
        suite,
        ceilings,
        topics: 0,
    };
    let shape = suite.shape();
    if suite.files == Files::Steady {
        measured.run(shape, None).await?;
    }
    let (figures, median) = measured.throughput(shape, nodes).await?;
    for figure in figures {
        show(figure)?;
    }
    for &rate in &suite.rates {
        show(measured.latency(rate).await?)?;
    }
    if suite.variants {
        measured.variants(median, &mut show).await?;
    }
    drop(measured);
    cluster.stop()
}

struct Measured<'a> {
    client: Client,
    /// On the nodes' disk.
    folder: &'a Path,
    cluster: &'a LocalCluster,
    pids: Vec<u32>,
    suite: &'a Suite,
    ceilings: Ceilings,
    topics: u32,
}

/// What a topic was filled with, and what came of it.
struct Run {
    produced: ProduceReport,
    /// Of what was sent as fast as it was acknowledged.
    consumed: Option<ConsumeReport>,
    /// The disk, while that was sent at a rate.
    disk: Option<Percentiles>,
}

impl Measured<'_> {
    /// Each run has a topic of its own.
    async fn topic(&mut self, partitions: u32) -> Result<TopicName> {
        self.topics += 1;
        let topic = TopicName::new(&format!("bench-{}", self.topics))?;
        let new = NewTopic::new(&topic)
            .partitions(partitions)
            .config("segment.bytes", SEGMENT_BYTES);
        self.client.admin().create_topic(new).await?;
        Ok(topic)
    }

    fn load(&self, topic: TopicName, shape: Shape, rate: Option<u32>) -> ProduceLoad {
        ProduceLoad {
            topic,
            record_bytes: shape.record_bytes,
            producers: shape.producers,
            batching: Batching {
                batch_bytes: shape.batch_bytes,
                linger: Duration::from_millis(shape.linger_ms),
                memory_bytes: shape.memory_bytes,
                compression: Compression::None,
            },
            rate,
            warm_up: shape.warm_up,
            duration: self.suite.duration,
            seed: 1,
            server_pids: self.pids.clone(),
        }
    }

    /// Fills a topic, reads it back if it was filled at full speed, and deletes it: the next run has
    /// its files, if they are kept.
    async fn run(&mut self, shape: Shape, rate: Option<u32>) -> Result<Run> {
        let topic = self.topic(shape.partitions).await?;
        let load = self.load(topic.clone(), shape, rate);
        let probe = rate.map(|_| DiskProbe::start(self.folder)).transpose()?;
        let produced = produce(&self.client, &load).await?;
        let disk = probe.map(DiskProbe::end).transpose()?;
        let consumed = match rate {
            Some(_) => None,
            None => {
                let load = ConsumeLoad {
                    topic: topic.clone(),
                    fetch_bytes: None,
                    server_pids: self.pids.clone(),
                };
                Some(consume(&self.client, &load).await?)
            }
        };
        self.client.admin().delete_topic(&topic).await?;
        self.cluster.wait_until_empty().await?;
        Ok(Run {
            produced,
            consumed,
            disk: disk.map(|latencies| latencies.percentiles()),
        })
    }

    /// Other loads, each beside what it is compared with. `median` is that of the suite's own.
    async fn variants(
        &mut self,
        median: f64,
        show: &mut impl FnMut(Figure) -> Result<()>,
    ) -> Result<()> {
        let own = self.suite.shape();
        let one = Shape {
            producers: 1,
            ..own
        };
        let small = Shape {
            record_bytes: SMALL_RECORD_BYTES,
            ..own
        };
        let few = Shape {
            batch_bytes: SMALL_BATCH_BYTES,
            memory_bytes: 2 * own.memory_bytes,
            ..own
        };
        // Files are small at first, and grow as they are filled: with so many that takes a while.
        let many = Shape {
            partitions: MANY_PARTITIONS,
            warm_up: own.warm_up * 4,
            ..few
        };
        for (shape, of) in [(one, own), (small, own)] {
            show(self.variant(shape, (of, median)).await?.0)?;
        }
        let (figure, median) = self.variant(few, (own, median)).await?;
        show(figure)?;
        show(self.variant(many, (few, median)).await?.0)
    }

    /// One of them, and its median in 10^6 bytes a second.
    async fn variant(&mut self, shape: Shape, (of, other): (Shape, f64)) -> Result<(Figure, f64)> {
        let mut reports = Vec::new();
        for _ in 0..self.suite.runs {
            reports.push(self.run(shape, None).await?.produced);
        }
        let mb_per_second = spread(&reports, |it| megabytes(it.bytes_per_second));
        let figure = Figure::Variant {
            shape,
            mb_per_second,
            records_per_second: spread(&reports, |it| it.records_per_second as f64),
            server_cpu_seconds_per_gb: spread(&reports, |it| {
                it.server_cpu_seconds_per_gb.unwrap_or_default()
            }),
            client_cpu_seconds_per_gb: spread(&reports, |it| it.client_cpu_seconds_per_gb),
            ratio: mb_per_second.median / other.max(f64::MIN_POSITIVE),
            of,
        };
        Ok((figure, mb_per_second.median))
    }

    /// What is acknowledged and what is read, and the median of the first.
    async fn throughput(&mut self, shape: Shape, nodes: u16) -> Result<([Figure; 2], f64)> {
        let (mut produced, mut consumed) = (Vec::new(), Vec::new());
        for _ in 0..self.suite.runs {
            let run = self.run(shape, None).await?;
            produced.push(run.produced);
            consumed.extend(run.consumed);
        }
        let mb_per_second = spread(&produced, |it| megabytes(it.bytes_per_second));
        let median = mb_per_second.median;
        let throughput = Figure::Throughput {
            mb_per_second,
            server_cpu_seconds_per_gb: spread(&produced, |it| {
                it.server_cpu_seconds_per_gb.unwrap_or_default()
            }),
            client_cpu_seconds_per_gb: spread(&produced, |it| it.client_cpu_seconds_per_gb),
            ratio_to_disk: self.ceilings.disk_ratio(median, nodes),
            ratio_to_pipeline: self.ceilings.pipeline_ratio(median),
        };
        let mb_per_second = spread(&consumed, |it| megabytes(it.bytes_per_second));
        let consume = Figure::Consume {
            mb_per_second,
            ratio_to_loopback: self.ceilings.link_ratio(mb_per_second.median),
            server_cpu_seconds_per_gb: spread(&consumed, |it| {
                it.server_cpu_seconds_per_gb.unwrap_or_default()
            }),
        };
        Ok(([throughput, consume], median))
    }

    async fn latency(&mut self, rate: u32) -> Result<Figure> {
        let (mut reports, mut disk) = (Vec::new(), Vec::new());
        let shape = Shape {
            producers: 1,
            batch_bytes: 256 << 10,
            linger_ms: 0,
            ..self.suite.shape()
        };
        for _ in 0..self.suite.runs {
            let run = self.run(shape, Some(rate)).await?;
            reports.push(run.produced);
            disk.extend(run.disk);
        }
        let p50_ms = spread(&reports, |it| milliseconds(it.latency.p50_us));
        Ok(Figure::Latency {
            rate,
            p50_ms,
            p99_ms: spread(&reports, |it| milliseconds(it.latency.p99_us)),
            p999_ms: spread(&reports, |it| milliseconds(it.latency.p999_us)),
            ratio_to_disk: self.ceilings.sync_ratio(p50_ms.median),
            disk_p50_ms: spread(&disk, |it| milliseconds(it.p50_us)),
            disk_p99_ms: spread(&disk, |it| milliseconds(it.p99_us)),
            disk_max_ms: spread(&disk, |it| milliseconds(it.max_us)),
        })
    }
}

/// 10^6 bytes.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn milliseconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

fn spread<T>(runs: &[T], of: impl Fn(&T) -> f64) -> Spread {
    Spread::of(runs.iter().map(of))
}

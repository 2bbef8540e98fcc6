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
use crate::limits::Ceiling;
use crate::limits::disk::Limit;
use crate::pipeline::{Files, PeerTransport, PipelineReport};
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
        cluster: &cluster,
        pids: cluster.pids(),
        suite,
        ceilings,
        topics: 0,
    };
    if suite.files == Files::Steady {
        measured.run(None).await?;
    }
    for figure in measured.throughput(nodes).await? {
        show(figure)?;
    }
    for &rate in &suite.rates {
        show(measured.latency(rate).await?)?;
    }
    drop(measured);
    cluster.stop()
}

struct Measured<'a> {
    client: Client,
    cluster: &'a LocalCluster,
    pids: Vec<u32>,
    suite: &'a Suite,
    ceilings: Ceilings,
    topics: u32,
}

impl Measured<'_> {
    /// Each run has a topic of its own.
    async fn topic(&mut self) -> Result<TopicName> {
        self.topics += 1;
        let topic = TopicName::new(&format!("bench-{}", self.topics))?;
        let new = NewTopic::new(&topic)
            .partitions(self.suite.partitions)
            .config("segment.bytes", SEGMENT_BYTES);
        self.client.admin().create_topic(new).await?;
        Ok(topic)
    }

    fn load(&self, topic: TopicName, rate: Option<u32>) -> ProduceLoad {
        let suite = self.suite;
        ProduceLoad {
            topic,
            record_bytes: suite.record_bytes,
            producers: if rate.is_some() { 1 } else { suite.producers },
            batching: Batching {
                batch_bytes: if rate.is_some() { 256 << 10 } else { 1 << 20 },
                linger: Duration::from_millis(if rate.is_some() { 0 } else { 5 }),
                memory_bytes: 16 << 20,
                compression: Compression::None,
            },
            rate,
            warm_up: suite.warm_up,
            duration: suite.duration,
            seed: 1,
            server_pids: self.pids.clone(),
        }
    }

    /// Fills a topic, reads it back if it was filled at full speed, and deletes it: the next run has
    /// its files, if they are kept.
    async fn run(&mut self, rate: Option<u32>) -> Result<(ProduceReport, Option<ConsumeReport>)> {
        let topic = self.topic().await?;
        let produced = produce(&self.client, &self.load(topic.clone(), rate)).await?;
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
        Ok((produced, consumed))
    }

    async fn throughput(&mut self, nodes: u16) -> Result<[Figure; 2]> {
        let (mut produced, mut consumed) = (Vec::new(), Vec::new());
        for _ in 0..self.suite.runs {
            let (filled, read) = self.run(None).await?;
            produced.push(filled);
            consumed.extend(read);
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
        Ok([throughput, consume])
    }

    async fn latency(&mut self, rate: u32) -> Result<Figure> {
        let mut reports = Vec::new();
        for _ in 0..self.suite.runs {
            reports.push(self.run(Some(rate)).await?.0);
        }
        let p50_ms = spread(&reports, |it| milliseconds(it.latency.p50_us));
        Ok(Figure::Latency {
            rate,
            p50_ms,
            p99_ms: spread(&reports, |it| milliseconds(it.latency.p99_us)),
            p999_ms: spread(&reports, |it| milliseconds(it.latency.p999_us)),
            ratio_to_disk: self.ceilings.sync_ratio(p50_ms.median),
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

//! The suite that `bench cluster` runs: the disk's own rate, then the cluster's, in one run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use highwater_client::{Client, Compression, NewTopic, TopicName};
use serde::Serialize;

use crate::batching::Batching;
use crate::cluster::LocalCluster;
use crate::consume::{ConsumeLoad, consume};
use crate::limits::disk::{self, Limit, SIZES};
use crate::limits::{Limits, RUNS_MIN};
use crate::produce::{ProduceLoad, ProduceReport, produce};
use crate::spread::Spread;

/// Bytes of a topic's log files: what is prepared ahead for all replicas must find room on one
/// disk.
const SEGMENT_BYTES: &str = "134217728";

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
}

/// A figure of the suite, as it is there.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "figure", rename_all = "snake_case")]
pub enum Figure {
    /// The disk alone, one synced write after the other.
    Disk(Limit),
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
    },
}

/// Runs the suite on a cluster of `nodes` processes below `folder`, and shows each figure.
///
/// # Errors
/// When a node does not start, a record is not acknowledged, or the disk cannot be measured.
pub async fn run(
    executable: &Path,
    folder: &Path,
    nodes: u16,
    set: &[String],
    suite: &Suite,
    mut show: impl FnMut(Figure) -> Result<()>,
) -> Result<()> {
    let disk = measure_disk(folder, suite, &mut show)?;
    let cluster = LocalCluster::start(executable, folder, nodes, set)?;
    let client = cluster.connect(suite.quic).await?;
    let mut measured = Measured {
        client,
        pids: cluster.pids(),
        suite,
        topics: 0,
    };
    show(measured.throughput(&disk, nodes).await?)?;
    show(measured.consume().await?)?;
    for &rate in &suite.rates {
        show(measured.latency(rate, &disk).await?)?;
    }
    drop(measured);
    cluster.stop()
}

/// The disk's own rates: 4 KiB on blocks written before, 1 MiB on blocks only allocated, as the
/// log's files are at these rates.
struct Disk {
    small_p50_us: u64,
    large_bytes_per_second: u64,
}

fn measure_disk(
    folder: &Path,
    suite: &Suite,
    show: &mut impl FnMut(Figure) -> Result<()>,
) -> Result<Disk> {
    let limits = Limits {
        runs: suite.runs.max(RUNS_MIN),
        run: Duration::from_secs(1),
    };
    let mut measured: Vec<Limit> = Vec::new();
    disk::measure(folder, &limits, |limit| {
        // The first storage that there is; the other one would be another log.
        let Ok(limit) = limit else { return Ok(()) };
        let first = measured
            .first()
            .map_or(limit.storage, |first| first.storage);
        if limit.storage == first {
            show(Figure::Disk(limit.clone()))?;
            measured.push(limit);
        }
        Ok(())
    })?;
    let find = |prepared: &str, bytes: usize| {
        let found = measured
            .iter()
            .find(|it| it.prepared == prepared && it.bytes == bytes);
        found.with_context(|| format!("{bytes} bytes were not measured"))
    };
    Ok(Disk {
        small_p50_us: find("zeroed", SIZES[0])?.latency.p50_us,
        large_bytes_per_second: find("reserved", SIZES[2])?.bytes_per_second,
    })
}

struct Measured<'a> {
    client: Client,
    pids: Vec<u32>,
    suite: &'a Suite,
    topics: u32,
}

impl Measured<'_> {
    /// Each run has a topic of its own: fresh files.
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
                linger: Duration::from_millis(if rate.is_some() { 1 } else { 5 }),
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

    async fn produce(&mut self, rate: Option<u32>) -> Result<Vec<ProduceReport>> {
        let mut reports = Vec::new();
        for _ in 0..self.suite.runs {
            let topic = self.topic().await?;
            reports.push(produce(&self.client, &self.load(topic, rate)).await?);
        }
        Ok(reports)
    }

    async fn throughput(&mut self, disk: &Disk, nodes: u16) -> Result<Figure> {
        let reports = self.produce(None).await?;
        let mb_per_second = spread(&reports, |it| megabytes(it.bytes_per_second));
        let written = mb_per_second.median * f64::from(nodes.min(3));
        Ok(Figure::Throughput {
            mb_per_second,
            server_cpu_seconds_per_gb: spread(&reports, |it| {
                it.server_cpu_seconds_per_gb.unwrap_or_default()
            }),
            client_cpu_seconds_per_gb: spread(&reports, |it| it.client_cpu_seconds_per_gb),
            ratio_to_disk: written / megabytes(disk.large_bytes_per_second),
        })
    }

    async fn latency(&mut self, rate: u32, disk: &Disk) -> Result<Figure> {
        let before = self.topics;
        let reports = self.produce(Some(rate)).await?;
        self.delete(before + 1).await?;
        let p50_ms = spread(&reports, |it| milliseconds(it.latency.p50_us));
        Ok(Figure::Latency {
            rate,
            p50_ms,
            p99_ms: spread(&reports, |it| milliseconds(it.latency.p99_us)),
            p999_ms: spread(&reports, |it| milliseconds(it.latency.p999_us)),
            ratio_to_disk: p50_ms.median / milliseconds(disk.small_p50_us),
        })
    }

    /// Frees the disk of the topics from this one on.
    async fn delete(&self, first: u32) -> Result<()> {
        for number in first..=self.topics {
            let topic = TopicName::new(&format!("bench-{number}"))?;
            self.client.admin().delete_topic(&topic).await?;
        }
        Ok(())
    }

    /// Reads the topics that were filled at full speed, and deletes them.
    async fn consume(&mut self) -> Result<Figure> {
        let mut reports = Vec::new();
        for number in 1..=self.topics {
            let load = ConsumeLoad {
                topic: TopicName::new(&format!("bench-{number}"))?,
                server_pids: self.pids.clone(),
            };
            reports.push(consume(&self.client, &load).await?);
        }
        self.delete(1).await?;
        Ok(Figure::Consume {
            mb_per_second: spread(&reports, |it| megabytes(it.bytes_per_second)),
            server_cpu_seconds_per_gb: spread(&reports, |it| {
                it.server_cpu_seconds_per_gb.unwrap_or_default()
            }),
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

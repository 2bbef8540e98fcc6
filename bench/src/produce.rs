//! Producing as fast as it goes, or at a fixed rate.

use std::time::Duration;

use anyhow::{Result, bail};
use highwater_client::{Client, TopicName};
use serde::Serialize;
use tokio::time::Instant;

use crate::batching::Batching;
use crate::counted::Counting;
use crate::cpu::Cpus;
use crate::latency::{Latencies, Percentiles};
use crate::limits::per_second;
use crate::pace::Window;
use crate::producers::Producers;

/// What to send.
#[derive(Debug, Clone)]
pub struct ProduceLoad {
    /// Where to.
    pub topic: TopicName,
    /// The size of a value, in bytes; there is no key.
    pub record_bytes: usize,
    /// How many producers send side by side, each with an identity of its own.
    pub producers: usize,
    /// How each of them batches.
    pub batching: Batching,
    /// Records a second of all producers together; nothing: each sends when there is room.
    pub rate: Option<u32>,
    /// How long nothing is counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub duration: Duration,
    /// Seeds the values.
    pub seed: u64,
    /// Processes of the cluster whose processor time counts.
    pub server_pids: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ProduceReport {
    /// Records acknowledged while it counted.
    pub records: u64,
    /// Their values, in bytes.
    pub bytes: u64,
    /// How long it counted.
    pub seconds: f64,
    /// Records a second.
    pub records_per_second: u64,
    /// Bytes of values a second.
    pub bytes_per_second: u64,
    /// From when a record was to be sent to its acknowledgement. At a fixed rate that is the time
    /// that the rate says, however late it was sent: no coordinated omission.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// Processor seconds of this process for each GB (10^9 bytes) of values.
    pub client_cpu_seconds_per_gb: f64,
    /// The same of the cluster's processes, if they were named.
    pub server_cpu_seconds_per_gb: Option<f64>,
}

/// Sends the load and counts.
///
/// # Errors
/// When a record is not acknowledged, or nothing is while it counts.
pub async fn produce(client: &Client, load: &ProduceLoad) -> Result<ProduceReport> {
    Ok(measure(client, load).await?.0)
}

/// The same, with all latencies.
pub(crate) async fn measure(
    client: &Client,
    load: &ProduceLoad,
) -> Result<(ProduceReport, Latencies)> {
    let window = Window::new(Instant::now(), load.warm_up, load.duration);
    let mut producers = Producers::start(client, load, Counting::new(window, load), None)?;
    producers.until(window.from).await?;
    let cpus = Cpus::start(&load.server_pids)?;
    producers.until(window.to).await?;
    let used = cpus.used()?;
    let (counted, _) = producers.drain().await?;
    if counted.records == 0 {
        bail!("nothing was acknowledged within {:?}", load.duration);
    }
    let gigabytes = counted.bytes.max(1) as f64 / 1e9;
    let report = ProduceReport {
        records: counted.records,
        bytes: counted.bytes,
        seconds: load.duration.as_secs_f64(),
        records_per_second: per_second(counted.records, load.duration),
        bytes_per_second: per_second(counted.bytes, load.duration),
        latency: counted.latencies.percentiles(),
        client_cpu_seconds_per_gb: used.client_per(gigabytes),
        server_cpu_seconds_per_gb: used.servers_per(gigabytes),
    };
    Ok((report, counted.latencies))
}

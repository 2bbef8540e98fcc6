//! From a producer to a consumer, at a fixed rate: how long a record takes from when it was to be
//! sent until it is read.

use std::time::Duration;

use anyhow::{Result, bail};
use highwater_client::{Client, TopicName};
use serde::Serialize;

use crate::batching::Batching;
use crate::latency::Percentiles;
use crate::limits::per_second;
use crate::mixed::{self, MixedLoad};
use crate::produce::ProduceLoad;

/// What to send and to read.
#[derive(Debug, Clone)]
pub struct EndToEndLoad {
    /// Through which topic. What others write to it is read too, and not counted.
    pub topic: TopicName,
    /// The size of a value, in bytes; at least [`STAMP_BYTES`](crate::STAMP_BYTES).
    pub record_bytes: usize,
    /// Records a second.
    pub rate: u32,
    /// How they are batched.
    pub batching: Batching,
    /// How long nothing is counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub duration: Duration,
    /// Seeds the values and the number of the run.
    pub seed: u64,
    /// Processes of the cluster whose processor time counts.
    pub server_pids: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct EndToEndReport {
    /// Records that were to be sent while it counted. All of them were acknowledged and read.
    pub records: u64,
    /// How long it counted.
    pub seconds: f64,
    /// Records a second.
    pub records_per_second: u64,
    /// From when a record was to be sent to when it was read.
    pub read: Percentiles,
    /// From when a record was to be sent to its acknowledgement.
    pub acknowledged: Percentiles,
    /// Processor seconds of this process, producer and consumer, for a million records.
    pub client_cpu_seconds_per_million: f64,
    /// The same of the cluster's processes, if they were named.
    pub server_cpu_seconds_per_million: Option<f64>,
}

/// Sends, reads and counts.
///
/// # Errors
/// When a record is not acknowledged or not read, or nothing is to be sent while it counts.
pub async fn end_to_end(client: &Client, load: &EndToEndLoad) -> Result<EndToEndReport> {
    let run = mixed::run(client, &load.mixed()).await?;
    let records = run.read.latencies.count();
    if records == 0 {
        bail!("nothing was to be sent within {:?}", load.duration);
    }
    let millions = records as f64 / 1e6;
    Ok(EndToEndReport {
        records,
        seconds: load.duration.as_secs_f64(),
        records_per_second: per_second(records, load.duration),
        read: run.read.latencies.percentiles(),
        acknowledged: run.acknowledged.latencies.percentiles(),
        client_cpu_seconds_per_million: run.used.client_per(millions),
        server_cpu_seconds_per_million: run.used.servers_per(millions),
    })
}

impl EndToEndLoad {
    /// One producer, and one consumer of all partitions.
    fn mixed(&self) -> MixedLoad {
        let produce = ProduceLoad {
            topic: self.topic.clone(),
            record_bytes: self.record_bytes,
            producers: 1,
            batching: self.batching,
            rate: Some(self.rate),
            warm_up: self.warm_up,
            duration: self.duration,
            seed: self.seed,
            server_pids: self.server_pids.clone(),
        };
        MixedLoad {
            produce,
            consumers: 1,
            fetch_bytes: None,
        }
    }
}

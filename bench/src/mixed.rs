//! Producers and consumers at once: what both sides get through, and how long a record takes from
//! one to the other.

use std::time::Duration;

use anyhow::{Result, bail};
use highwater_client::Client;
use serde::Serialize;
use tokio::time::Instant;

use crate::counted::{Counted, Counting};
use crate::cpu::{Cpus, Used};
use crate::latency::Percentiles;
use crate::limits::per_second;
use crate::pace::Window;
use crate::produce::ProduceLoad;
use crate::producers::Producers;
use crate::readers::{Readers, consumers_at_the_end};
use crate::stamp::Stamps;

/// What to send and to read.
#[derive(Debug, Clone)]
pub struct MixedLoad {
    /// What to send. Records have at least [`STAMP_BYTES`](crate::STAMP_BYTES). What others write to
    /// the topic is read too, and not counted.
    pub produce: ProduceLoad,
    /// How many consumers read side by side, each its share of the partitions.
    pub consumers: usize,
    /// How many bytes of one partition a fetch asks for at most; nothing for the client's default.
    pub fetch_bytes: Option<usize>,
}

/// What one side got through while it counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Side {
    /// How many records.
    pub records: u64,
    /// Their values, in bytes.
    pub bytes: u64,
    /// Records a second.
    pub records_per_second: u64,
    /// Bytes of values a second.
    pub bytes_per_second: u64,
}

/// What came of it. All that was sent was acknowledged and read in the end.
#[derive(Debug, Clone, Serialize)]
pub struct MixedReport {
    /// How long it counted.
    pub seconds: f64,
    /// What was acknowledged.
    pub produced: Side,
    /// What was read.
    pub consumed: Side,
    /// From when a record was to be sent to its acknowledgement. At a fixed rate that is the time
    /// that the rate says, however late it was sent; otherwise when it was handed to its producer.
    pub acknowledged: Percentiles,
    /// From when a record was to be sent to when it was read.
    pub read: Percentiles,
    /// Processor seconds of this process, producers and consumers, for each GB (10^9 bytes) of
    /// values that were acknowledged.
    pub client_cpu_seconds_per_gb: f64,
    /// The same of the cluster's processes, if they were named.
    pub server_cpu_seconds_per_gb: Option<f64>,
}

/// Sends, reads and counts.
///
/// # Errors
/// When a record is not acknowledged or not read, or there are none while it counts.
pub async fn mixed(client: &Client, load: &MixedLoad) -> Result<MixedReport> {
    let duration = load.produce.duration;
    let run = run(client, load).await?;
    if run.acknowledged.records == 0 || run.read.records == 0 {
        bail!("nothing was acknowledged, or nothing read, within {duration:?}");
    }
    let gigabytes = run.acknowledged.bytes as f64 / 1e9;
    Ok(MixedReport {
        seconds: duration.as_secs_f64(),
        produced: Side::of(&run.acknowledged, duration),
        consumed: Side::of(&run.read, duration),
        acknowledged: run.acknowledged.latencies.percentiles(),
        read: run.read.latencies.percentiles(),
        client_cpu_seconds_per_gb: run.used.client_per(gigabytes),
        server_cpu_seconds_per_gb: run.used.servers_per(gigabytes),
    })
}

impl Side {
    fn of(counted: &Counted, duration: Duration) -> Side {
        Side {
            records: counted.records,
            bytes: counted.bytes,
            records_per_second: per_second(counted.records, duration),
            bytes_per_second: per_second(counted.bytes, duration),
        }
    }
}

/// What both sides have counted.
pub(crate) struct Run {
    pub(crate) acknowledged: Counted,
    pub(crate) read: Counted,
    pub(crate) used: Used,
}

pub(crate) async fn run(client: &Client, load: &MixedLoad) -> Result<Run> {
    let MixedLoad {
        produce, consumers, ..
    } = load;
    let fetch_bytes = load.fetch_bytes;
    let consumers = consumers_at_the_end(client, &produce.topic, *consumers, fetch_bytes).await?;
    let window = Window::new(Instant::now(), produce.warm_up, produce.duration);
    let counting = Counting::new(window, produce);
    let stamps = Stamps::new(produce.seed, window.start);
    let mut producers = Producers::start(client, produce, counting, Some(stamps))?;
    let readers = Readers::start(consumers, counting, stamps);
    producers.until(window.from).await?;
    let cpus = Cpus::start(&produce.server_pids)?;
    producers.until(window.to).await?;
    let used = cpus.used()?;
    let (acknowledged, sent) = producers.drain().await?;
    let read = readers.finish(&sent).await?;
    Ok(Run {
        acknowledged,
        read,
        used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_what_was_counted_by_its_time() {
        let counted = Counted {
            records: 3_000,
            bytes: 6_000_000,
            ..Counted::default()
        };
        let side = Side::of(&counted, Duration::from_secs(2));
        assert_eq!(side.records_per_second, 1_500);
        assert_eq!(side.bytes_per_second, 3_000_000);
    }
}

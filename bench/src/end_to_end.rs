//! From a producer to a consumer, at a fixed rate: how long a record takes from when it was to be
//! sent until it is read.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use highwater_client::{
    Client, Consumer, Delivery, Producer, Record, StartAt, TopicName, TopicPartition,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::batching::{Batching, WAITING_MAX};
use crate::cpu::CpuMeter;
use crate::latency::{Latencies, Percentiles};
use crate::limits::per_second;
use crate::noise::{Noise, RECORD_BYTES_MAX};
use crate::offsets::offset;
use crate::pace::{DRAIN, Window, due};

/// What a value begins with: the number of the run, and when the record was to be sent, in
/// nanoseconds since the run began. Big endian.
pub const STAMP_BYTES: usize = 16;

/// What to send and to read.
#[derive(Debug, Clone)]
pub struct EndToEndLoad {
    /// Through which topic. What others write to it is read too, and not counted.
    pub topic: TopicName,
    /// The size of a value, in bytes; at least [`STAMP_BYTES`].
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
    if !(STAMP_BYTES..=RECORD_BYTES_MAX).contains(&load.record_bytes) {
        bail!("records of {STAMP_BYTES} to {RECORD_BYTES_MAX} bytes");
    }
    let consumer = consumer_at_the_end(client, &load.topic).await?;
    let run = fastrand::Rng::with_seed(load.seed ^ u64::from(std::process::id())).u64(..);
    let window = Window::new(Instant::now(), load.warm_up, load.duration);
    let (tell_count, count) = oneshot::channel();
    let reading = tokio::spawn(read(consumer, run, window, count));
    let producer = load.batching.producer(client);
    let mut sending = tokio::spawn(send(producer, load.clone(), run, window));
    let mut sent = until(window.from, &mut sending).await?;
    let client_cpu = CpuMeter::start(&[std::process::id()])?;
    let server_cpu = CpuMeter::start(&load.server_pids)?;
    if sent.is_none() {
        sent = until(window.to, &mut sending).await?;
    }
    sleep_until(window.to).await;
    let (client_used, server_used) = (client_cpu.used()?, server_cpu.used()?);
    let sent = match sent {
        Some(sent) => sent,
        None => sending.await??,
    };
    // If the reader is gone, it says why.
    let _ = tell_count.send(sent.count);
    let read = reading.await??;
    if read.count() == 0 {
        bail!("nothing was to be sent within {:?}", load.duration);
    }
    let millions = read.count() as f64 / 1e6;
    Ok(EndToEndReport {
        records: read.count(),
        seconds: load.duration.as_secs_f64(),
        records_per_second: per_second(read.count(), load.duration),
        read: read.percentiles(),
        acknowledged: sent.latencies.percentiles(),
        client_cpu_seconds_per_million: client_used.as_secs_f64() / millions,
        server_cpu_seconds_per_million: (!load.server_pids.is_empty())
            .then(|| server_used.as_secs_f64() / millions),
    })
}

/// Waits, unless sending ends before: then what was sent, or why it failed.
async fn until(at: Instant, sending: &mut JoinHandle<Result<Sent>>) -> Result<Option<Sent>> {
    tokio::select! {
        () = sleep_until(at) => Ok(None),
        ended = sending => Ok(Some(ended??)),
    }
}

/// A consumer of all that comes from now on: where it begins is asked for now, not with its first
/// fetch, or what is sent before that would be missed.
async fn consumer_at_the_end(client: &Client, topic: &TopicName) -> Result<Consumer> {
    let admin = client.admin();
    let mut consumer = client.consumer().build();
    for &partition in admin.describe_topic(topic).await?.partitions.keys() {
        let partition = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let end = offset(client, &partition, StartAt::Latest).await?;
        consumer.assign(partition, StartAt::Offset(end)).await?;
    }
    Ok(consumer)
}

/// What was sent and acknowledged.
struct Sent {
    /// How many in all.
    count: u64,
    /// Of those that count.
    latencies: Latencies,
}

async fn send(producer: Producer, load: EndToEndLoad, run: u64, window: Window) -> Result<Sent> {
    let noise = Noise::new(load.seed);
    let (waiting, arriving) = mpsc::channel(WAITING_MAX);
    let collecting = tokio::spawn(collect(arriving, window));
    for number in 0_u64.. {
        let after = due(number, load.rate);
        let intended = window.start + after;
        if intended >= window.to {
            break;
        }
        if intended > Instant::now() {
            sleep_until(intended).await;
        }
        let value = stamped(run, after, &noise.value(number, load.record_bytes));
        let record = Record::new(&load.topic).value(value);
        let delivery = producer.send(record).await?;
        if waiting.send((intended, delivery)).await.is_err() {
            break;
        }
    }
    drop(waiting);
    producer.flush().await;
    collecting.await?
}

async fn collect(
    mut arriving: mpsc::Receiver<(Instant, Delivery)>,
    window: Window,
) -> Result<Sent> {
    let mut sent = Sent {
        count: 0,
        latencies: Latencies::default(),
    };
    while let Some((intended, delivery)) = arriving.recv().await {
        delivery.await?;
        sent.count += 1;
        if window.holds(intended) {
            sent.latencies.record(intended.elapsed());
        }
    }
    Ok(sent)
}

/// Reads until as many are there as were sent.
async fn read(
    mut consumer: Consumer,
    run: u64,
    window: Window,
    mut count: oneshot::Receiver<u64>,
) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let (mut seen, mut sent) = (0_u64, None);
    while sent.is_none_or(|sent| seen < sent) {
        let record = tokio::select! {
            told = &mut count, if sent.is_none() => {
                // The sender says why it has ended without a number.
                sent = Some(told.context("sending has failed")?);
                continue;
            }
            record = timeout_at(window.to + DRAIN, consumer.recv()) => record,
        };
        let record = record.with_context(|| format!("{seen} records were read, not all"))??;
        let Some(after) = stamp_of(record.value.as_ref(), run) else {
            continue;
        };
        seen += 1;
        let intended = window.start + after;
        if window.holds(intended) {
            latencies.record(intended.elapsed());
        }
    }
    Ok(latencies)
}

fn stamped(run: u64, after: Duration, noise: &[u8]) -> Bytes {
    let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
    let mut value = noise.to_vec();
    value[..8].copy_from_slice(&run.to_be_bytes());
    value[8..STAMP_BYTES].copy_from_slice(&nanos.to_be_bytes());
    Bytes::from(value)
}

/// When a record of this run was to be sent; none of another's.
fn stamp_of(value: Option<&Bytes>, run: u64) -> Option<Duration> {
    let (of, nanos) = value?.first_chunk::<STAMP_BYTES>()?.split_first_chunk()?;
    let is_ours = u64::from_be_bytes(*of) == run;
    let nanos = u64::from_be_bytes(nanos.try_into().ok()?);
    is_ours.then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_when_it_was_to_be_sent_to_its_own_run_only() {
        let after = Duration::from_micros(1_500);
        let value = stamped(7, after, &[0xA5; 20]);
        assert_eq!(value.len(), 20);
        assert_eq!(stamp_of(Some(&value), 7), Some(after));
        assert_eq!(stamp_of(Some(&value), 8), None);
        assert_eq!(stamp_of(Some(&value.slice(..15)), 7), None);
        assert_eq!(stamp_of(None, 7), None);
    }
}

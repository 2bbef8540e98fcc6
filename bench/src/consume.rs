//! Reading a topic from its beginning to what is its end now.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::poll_immediate;
use highwater_client::{
    Client, ConsumeError, ConsumedRecord, Consumer, Offset, StartAt, TopicName, TopicPartition,
};
use serde::Serialize;
use tokio::time::timeout;

use crate::cpu::Cpus;
use crate::limits::per_second;
use crate::offsets::offset;

/// How long nothing may come before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to read.
#[derive(Debug, Clone)]
pub struct ConsumeLoad {
    /// From where.
    pub topic: TopicName,
    /// How many bytes of one partition a fetch asks for at most; nothing for the client's default.
    pub fetch_bytes: Option<usize>,
    /// Processes of the cluster whose processor time counts.
    pub server_pids: Vec<u32>,
}

/// A consumer whose fetches ask for so many bytes of one partition at most.
pub(crate) fn consumer(client: &Client, fetch_bytes: Option<usize>) -> Consumer {
    let builder = client.consumer();
    match fetch_bytes {
        Some(bytes) => builder.partition_bytes_max(bytes).build(),
        None => builder.build(),
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumeReport {
    /// How many records.
    pub records: u64,
    /// Their keys and values, in bytes.
    pub bytes: u64,
    /// How long it took, from the first request.
    pub seconds: f64,
    /// Records a second.
    pub records_per_second: u64,
    /// Bytes of keys and values a second.
    pub bytes_per_second: u64,
    /// Processor seconds of this process for each GB (10^9 bytes).
    pub client_cpu_seconds_per_gb: f64,
    /// The same of the cluster's processes, if they were named.
    pub server_cpu_seconds_per_gb: Option<f64>,
}

/// Reads it.
///
/// # Errors
/// When it cannot be read, there is nothing in it, or its end is not reached.
pub async fn consume(client: &Client, load: &ConsumeLoad) -> Result<ConsumeReport> {
    let mut ends = ends(client, &load.topic).await?;
    let mut consumer = consumer(client, load.fetch_bytes);
    for partition in ends.keys() {
        consumer
            .assign(partition.clone(), StartAt::Earliest)
            .await?;
    }
    let cpus = Cpus::start(&load.server_pids)?;
    let start = Instant::now();
    let (mut records, mut bytes) = (0_u64, 0_u64);
    while !ends.is_empty() {
        let record = match next(&mut consumer).await {
            Some(record) => record?,
            None => bail!(
                "nothing came for {PATIENCE:?}, {} partitions are not read",
                ends.len()
            ),
        };
        let fields = [&record.key, &record.value].into_iter().flatten();
        bytes += u64::try_from(fields.map(|field| field.len()).sum::<usize>())?;
        records += 1;
        let end = ends.get(&record.partition);
        if end.is_some_and(|end| record.offset.next() >= *end) {
            ends.remove(&record.partition);
        }
    }
    let elapsed = start.elapsed();
    let used = cpus.used()?;
    let gigabytes = bytes.max(1) as f64 / 1e9;
    Ok(ConsumeReport {
        records,
        bytes,
        seconds: elapsed.as_secs_f64(),
        records_per_second: per_second(records, elapsed),
        bytes_per_second: per_second(bytes, elapsed),
        client_cpu_seconds_per_gb: used.client_per(gigabytes),
        server_cpu_seconds_per_gb: used.servers_per(gigabytes),
    })
}

/// The next record; nothing if none comes. Most are there already, and need no timer.
async fn next(consumer: &mut Consumer) -> Option<Result<ConsumedRecord, ConsumeError>> {
    let ready = poll_immediate(pin!(consumer.recv())).await;
    match ready {
        Some(record) => Some(record),
        None => timeout(PATIENCE, consumer.recv()).await.ok(),
    }
}

/// The ends of the partitions that hold anything.
async fn ends(client: &Client, topic: &TopicName) -> Result<BTreeMap<TopicPartition, Offset>> {
    let admin = client.admin();
    let mut ends = BTreeMap::new();
    for &partition in admin.describe_topic(topic).await?.partitions.keys() {
        let at = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let start = offset(client, &at, StartAt::Earliest).await?;
        let end = offset(client, &at, StartAt::Latest).await?;
        if start < end {
            ends.insert(at, end);
        }
    }
    if ends.is_empty() {
        bail!("topic {topic} is empty; `highwater bench produce` fills it");
    }
    Ok(ends)
}

//! Sending records.

mod accumulator;
mod batch;
mod lane;
mod partitioner;
mod sender;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_record::{
    Compression, Header, Offset, RecordBatchBuilder, TopicName, TopicPartition,
};

use crate::cluster::{Cluster, TopicDescription};
use crate::error::{MetadataError, ProduceError};

use accumulator::{Accumulator, Destination};
use batch::BatchReceiver;
use sender::Sender;

pub use partitioner::partition_of_key;

/// A record to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Record {
    topic: TopicName,
    partition: Option<u32>,
    timestamp_ms: Option<i64>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    /// A record for a topic, so far without key, value and headers.
    pub fn new(topic: &TopicName) -> Self {
        Self {
            topic: topic.clone(),
            partition: None,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// Sets the key: records of one key go to one partition, in order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value. A record without one is a tombstone in compacted topics.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header. Keys may repeat; the order is kept.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((key.into(), Some(value.into())));
        self
    }

    /// Sends the record to this partition, whatever its key.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the time, in milliseconds since the Unix epoch. Default: when it is sent.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// In which partition.
    pub partition: TopicPartition,
    /// At which offset.
    pub offset: Offset,
    /// The broker's time of the append, in milliseconds since the Unix epoch, where the topic
    /// stamps records so.
    pub log_append_time_ms: Option<i64>,
}

/// The future of a record that was taken for sending. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "without it nobody learns whether the record was acknowledged"]
pub struct Delivery {
    partition: TopicPartition,
    batch: BatchReceiver,
    index: u32,
}

impl Delivery {
    /// Where the record is going.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, ProduceError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        Pin::new(&mut this.batch).poll(context).map(|outcome| {
            let Ok(outcome) = outcome else {
                return Err(ProduceError::OutcomeUnknown {
                    partition: this.partition.clone(),
                    reason: "the producer's runtime has ended".to_owned(),
                });
            };
            let receipt = outcome?;
            Ok(Receipt {
                partition: this.partition.clone(),
                offset: receipt.base_offset.advance(this.index.into()),
                log_append_time_ms: receipt.log_append_time_ms,
            })
        })
    }
}

/// Configures a producer. Made by [`crate::Client::producer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    cluster: Arc<Cluster>,
    options: ProducerOptions,
}

#[derive(Debug, Clone)]
struct ProducerOptions {
    linger: Duration,
    batch_bytes: usize,
    record_bytes_max: usize,
    memory_bytes: usize,
    compression: Compression,
    idempotent: bool,
    delivery_timeout: Duration,
    seed: u64,
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            options: ProducerOptions {
                linger: Duration::from_millis(5),
                batch_bytes: 256 << 10,
                record_bytes_max: 1 << 20,
                memory_bytes: 64 << 20,
                compression: Compression::None,
                idempotent: true,
                delivery_timeout: Duration::from_secs(120),
                seed: fastrand::u64(..),
            },
        }
    }

    /// How long a batch waits for more records before it is sent, unless it is full. Default:
    /// 5 ms. Zero sends at once; what comes while requests are on the way is batched anyway.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.options.linger = linger;
        self
    }

    /// Bytes of records, before compression, at which a batch is full. A larger record travels
    /// alone. Default: 256 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.options.batch_bytes = bytes;
        self
    }

    /// The largest record that is taken, in bytes, before compression; brokers refuse larger
    /// batches than their own limit. Default: 1 MiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.options.record_bytes_max = bytes;
        self
    }

    /// Bytes of records that are held until they are acknowledged; [`Producer::send`] waits when
    /// they are used up. At least one largest record fits, and at most 4 GiB are used. Default:
    /// 64 MiB.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.options.memory_bytes = bytes;
        self
    }

    /// How batches are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// Whether the broker drops what a retry repeats and refuses what comes out of order. Without
    /// it a retry may double records, and one batch at a time is on the way to each partition.
    /// Default: yes.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = idempotent;
        self
    }

    /// How long a record is tried, from when it was taken, before it is given up. An attempt that
    /// is on the way then is still awaited, for up to
    /// [`crate::ClientBuilder::request_timeout`]. Default: 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.options.delivery_timeout = timeout;
        self
    }

    /// Seeds the choice of partitions for records without a key, to repeat it. Default: chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Starts the producer on the calling tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn build(self) -> Producer {
        let mut options = self.options;
        options.memory_bytes = options
            .memory_bytes
            .max(options.record_bytes_max + RECORD_OVERHEAD_BYTES_MAX)
            .min(MEMORY_BYTES_CEILING);
        let accumulator = Arc::new(Accumulator::new(&options));
        let sender = Sender::new(
            Arc::clone(&self.cluster),
            Arc::clone(&accumulator),
            options.clone(),
        );
        tokio::spawn(sender.run());
        Producer {
            inner: Arc::new(Inner {
                cluster: self.cluster,
                accumulator,
                options,
            }),
        }
    }
}

/// What a record can weigh beyond its key, value and headers.
const RECORD_OVERHEAD_BYTES_MAX: usize = 64;

/// Permits of the memory semaphore are counted in 32 bits.
const MEMORY_BYTES_CEILING: usize = u32::MAX as usize >> 3;

/// Sends records. Cheap to clone; when the last clone is dropped, what was taken is still sent
/// (while the runtime lives), but nobody waits for it: see [`Producer::flush`].
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster: Arc<Cluster>,
    accumulator: Arc<Accumulator>,
    options: ProducerOptions,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accumulator.close();
    }
}

impl Producer {
    /// Takes a record for sending. The first wait, here, is for metadata and for memory; the
    /// second, for the acknowledgement, is the [`Delivery`]'s.
    ///
    /// Records of one partition are sent in the order in which these calls returned.
    ///
    /// # Errors
    /// [`ProduceError`] if the topic or partition is not there, or the record is too large.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let inner = &*self.inner;
        let topic = inner.cluster.topic(&record.topic).await?;
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| Header::new(key, value.as_deref()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let bytes = RecordBatchBuilder::size_estimate(key, value, &headers);
        let bytes_max = inner.options.record_bytes_max;
        if bytes > bytes_max {
            return Err(ProduceError::RecordTooLarge { bytes, bytes_max });
        }
        let memory = inner.accumulator.reserve(bytes).await;
        let to = destination(&topic, record.partition, key)?;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_clock_ms);
        inner.accumulator.append(
            record.topic,
            to,
            accumulator::NewRecord {
                timestamp_ms,
                key,
                value,
                headers: &headers,
                bytes,
            },
            memory,
        )
    }

    /// Sends everything taken so far without lingering, and waits until each record is
    /// acknowledged or given up. What became of them, their [`Delivery`]s say.
    pub async fn flush(&self) {
        for batch in self.inner.accumulator.flush() {
            // Errors belong to the records' own futures.
            let _ = batch.await;
        }
    }

    /// Bytes of records that were taken and are not yet acknowledged or given up.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.inner.options.memory_bytes - self.inner.accumulator.free_bytes()
    }
}

/// Where a record goes: to the partition that it names, to that of its key, or to any.
fn destination<'a>(
    topic: &'a TopicDescription,
    explicit: Option<u32>,
    key: Option<&[u8]>,
) -> Result<Destination<'a>, MetadataError> {
    let partitions = topic.partition_count();
    match (explicit, key) {
        (Some(partition), _) if partition >= partitions => Err(MetadataError::UnknownPartition {
            topic: topic.name.to_string(),
            partition,
            partitions,
        }),
        (Some(partition), _) => Ok(Destination::Partition(partition)),
        (None, Some(key)) => Ok(Destination::Partition(partition_of_key(key, partitions))),
        (None, None) => Ok(Destination::Sticky(topic)),
    }
}

fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(-1)
}

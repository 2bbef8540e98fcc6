//! Reading records.

mod buffer;
mod fetcher;
mod position;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use highwater_record::{Offset, TopicName, TopicPartition};

use crate::cluster::Cluster;
use crate::error::{ConsumeError, MetadataError};

use fetcher::Fetcher;

pub use position::StartAt;

/// A record that was read. Key, value and headers share the memory of what was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// From which partition.
    pub partition: TopicPartition,
    /// At which offset.
    pub offset: Offset,
    /// In milliseconds since the Unix epoch, -1 if there is none.
    pub timestamp_ms: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// The headers, in order, duplicates too.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What happens when a position is outside of what its partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// [`ConsumeError::OffsetOutOfRange`]: records may have been missed, somebody must decide.
    #[default]
    Fail,
    /// Goes on with the first record there is.
    Earliest,
    /// Goes on with the next record that comes.
    Latest,
}

/// Configures a consumer. Made by [`crate::Client::consumer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder {
    cluster: Arc<Cluster>,
    options: ConsumerOptions,
}

#[derive(Debug, Clone)]
struct ConsumerOptions {
    max_wait: Duration,
    min_bytes: usize,
    partition_bytes_max: usize,
    request_bytes_max: usize,
    prefetch_bytes: usize,
    out_of_range: OutOfRange,
}

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            options: ConsumerOptions {
                max_wait: Duration::from_millis(500),
                min_bytes: 1,
                partition_bytes_max: 2 << 20,
                request_bytes_max: 16 << 20,
                prefetch_bytes: 32 << 20,
                out_of_range: OutOfRange::Fail,
            },
        }
    }

    /// How long a broker waits for [`ConsumerBuilder::min_bytes`] before it answers. Default:
    /// 500 ms.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.options.max_wait = wait;
        self
    }

    /// With how many bytes of records a broker answers at once. Default: 1.
    pub fn min_bytes(mut self, bytes: usize) -> Self {
        self.options.min_bytes = bytes;
        self
    }

    /// Bytes of one partition in one answer; a larger batch comes alone. Default: 2 MiB, so that
    /// an answer holds more than one batch of the size that busy producers send: a busy broker takes
    /// as long for a small one. Larger ones cost more, since they do not lie in a processor's cache.
    pub fn partition_bytes_max(mut self, bytes: usize) -> Self {
        self.options.partition_bytes_max = bytes;
        self
    }

    /// Bytes of records in one answer. Default: 16 MiB.
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.options.request_bytes_max = bytes;
        self
    }

    /// Bytes that may lie here, as they came, before the next are asked for; what is asked for
    /// meanwhile comes on top, one answer from each broker. Default: 32 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// What happens when a position is outside of what its partition holds. Default: an error.
    pub fn out_of_range(mut self, policy: OutOfRange) -> Self {
        self.options.out_of_range = policy;
        self
    }

    /// A consumer to which nothing is assigned yet.
    #[must_use]
    pub fn build(self) -> Consumer {
        Consumer {
            cluster: Arc::clone(&self.cluster),
            fetcher: Fetcher::new(self.cluster, self.options),
        }
    }
}

/// Reads partitions that it was told to read, each in order.
///
/// Nothing runs in the background: requests for more go out while records are taken, and their
/// answers arrive meanwhile.
///
/// ```no_run
/// # async fn run(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use highwater_client::{StartAt, TopicName};
///
/// let mut consumer = client.consumer().build();
/// consumer.assign_topic(&TopicName::new("flights")?, StartAt::Earliest).await?;
/// loop {
///     let record = consumer.recv().await?;
///     println!("{} {}: {:?}", record.partition, record.offset, record.value);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    cluster: Arc<Cluster>,
    fetcher: Fetcher,
}

impl Consumer {
    /// Reads a partition too, from `start`; one that is read already goes there.
    ///
    /// # Errors
    /// [`ConsumeError::Metadata`] if there is no such partition.
    pub async fn assign(
        &mut self,
        partition: TopicPartition,
        start: StartAt,
    ) -> Result<(), ConsumeError> {
        let topic = self.cluster.topic(&partition.topic).await?;
        if !topic.partitions.contains_key(&partition.partition) {
            return Err(ConsumeError::Metadata(MetadataError::UnknownPartition {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                partitions: topic.partition_count(),
            }));
        }
        self.fetcher.assign(partition, start);
        Ok(())
    }

    /// Reads all partitions of a topic too, from `start`.
    ///
    /// # Errors
    /// [`ConsumeError::Metadata`] if there is no such topic.
    pub async fn assign_topic(
        &mut self,
        topic: &TopicName,
        start: StartAt,
    ) -> Result<(), ConsumeError> {
        let description = self.cluster.topic(topic).await?;
        for &partition in description.partitions.keys() {
            let topic = topic.clone();
            self.fetcher
                .assign(TopicPartition { topic, partition }, start);
        }
        Ok(())
    }

    /// Does not read a partition any more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.fetcher.unassign(partition);
    }

    /// What is read.
    pub fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.fetcher.assigned()
    }

    /// Goes on at another place. What was fetched before it is dropped.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`] if the partition is not read.
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<(), ConsumeError> {
        self.fetcher.seek(partition, to)
    }

    /// The offset of the next record that is given out, if it is known yet: it is not between an
    /// assignment from the beginning, the end or a time and the first answer.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.fetcher.position(partition)
    }

    /// The end of what is committed in a partition, as of the last answer about it.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.fetcher.high_watermark(partition)
    }

    /// The next record; waits for one. May be dropped and called again without missing any.
    ///
    /// # Errors
    /// [`ConsumeError`]; unless it says otherwise the consumer stays usable and the next call
    /// tries again. Brokers that cannot be reached are no error here: they are tried again
    /// for ever.
    pub async fn recv(&mut self) -> Result<ConsumedRecord, ConsumeError> {
        std::future::poll_fn(|context| self.fetcher.poll_record(context)).await
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    /// Never ends.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().fetcher.poll_record(context).map(Some)
    }
}

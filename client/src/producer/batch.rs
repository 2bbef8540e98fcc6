//! A batch on its way: from the first record to the outcome.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Shared;
use highwater_record::{
    AppendError, Compression, Header, Offset, ProducerStamp, RecordBatchBuilder, SealError,
    TopicPartition, set_producer,
};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::ProduceError;

/// What became of a batch.
pub(super) type BatchOutcome = Result<BatchReceipt, ProduceError>;

/// Waits for a batch's outcome; cloned for each of its records.
pub(super) type BatchReceiver = Shared<oneshot::Receiver<BatchOutcome>>;

/// Where an acknowledged batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchReceipt {
    pub(super) base_offset: Offset,
    pub(super) log_append_time_ms: Option<i64>,
}

/// Numbers batches in the order in which they were begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId(pub(super) u64);

/// Numbers the partitions that a producer has sent to, in the order in which it met them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) usize);

/// What is known about a batch's earlier attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// None, or all were refused: it is not in the log.
    NotWritten,
    /// One got no answer: it may be in the log, so its sequence must never change.
    Unknown,
}

#[derive(Debug)]
enum Body {
    /// Not sealed yet: without a stamp, not compressed.
    Records(RecordBatchBuilder),
    Sealed(Bytes),
    /// Sealing failed; the batch is about to be given up.
    Gone,
}

/// Memory that a batch's records have reserved, given back when this is dropped. One for all of
/// them: each record would share the semaphore else.
#[derive(Debug)]
struct Reserved {
    memory: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.add_permits(self.bytes);
    }
}

/// Records that travel together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) slot: Slot,
    pub(super) partition: TopicPartition,
    pub(super) begun: Instant,
    pub(super) attempts: Attempts,
    /// What went wrong last.
    pub(super) last_error: Option<String>,
    body: Body,
    records_count: u32,
    stamp: Option<ProducerStamp>,
    memory: Reserved,
    outcome: oneshot::Sender<BatchOutcome>,
}

impl Batch {
    pub(super) fn new(
        id: BatchId,
        (slot, partition): (Slot, TopicPartition),
        compression: Compression,
        bytes_max: usize,
        begun: Instant,
        memory: Arc<Semaphore>,
    ) -> (Self, BatchReceiver) {
        let (outcome, receiver) = oneshot::channel();
        let batch = Self {
            id,
            slot,
            partition,
            begun,
            attempts: Attempts::NotWritten,
            last_error: None,
            body: Body::Records(RecordBatchBuilder::new(compression, bytes_max)),
            records_count: 0,
            stamp: None,
            memory: Reserved { memory, bytes: 0 },
            outcome,
        };
        (batch, receiver.shared())
    }

    /// Adds a record and says its place in the batch.
    pub(super) fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<u32, AppendError> {
        let Body::Records(builder) = &mut self.body else {
            unreachable!("a sealed batch has left the accumulator");
        };
        let index = builder.records_count();
        builder.append(timestamp_ms, key, value, headers)?;
        self.records_count = builder.records_count();
        Ok(index)
    }

    /// Keeps a record's memory reserved until the batch's outcome is known.
    pub(super) fn charge(&mut self, memory: SemaphorePermit<'_>) {
        self.memory.bytes += memory.num_permits();
        memory.forget();
    }

    pub(super) fn records_count(&self) -> u32 {
        self.records_count
    }

    pub(super) fn stamp(&self) -> Option<ProducerStamp> {
        self.stamp
    }

    /// Takes the sequence back, so that another one can be given.
    ///
    /// # Panics
    /// If the batch may be in the log under it.
    pub(super) fn clear_stamp(&mut self) {
        assert_eq!(
            self.attempts,
            Attempts::NotWritten,
            "a batch that may be in the log keeps its sequence"
        );
        self.stamp = None;
    }

    /// Sets who sends the batch and where in the sequence it stands.
    pub(super) fn set_stamp(&mut self, stamp: ProducerStamp) {
        assert!(self.stamp.is_none(), "a sequence is given once");
        self.stamp = Some(stamp);
        match &mut self.body {
            Body::Records(builder) => builder.set_producer(stamp),
            Body::Sealed(bytes) => {
                let mut owned = Vec::from(std::mem::take(bytes));
                set_producer(&mut owned, stamp);
                *bytes = Bytes::from(owned);
            }
            Body::Gone => {}
        }
    }

    /// The batch's bytes; compresses it at the first call.
    pub(super) fn bytes(&mut self) -> Result<Bytes, SealError> {
        if let Body::Records(_) = self.body {
            let Body::Records(builder) = std::mem::replace(&mut self.body, Body::Gone) else {
                unreachable!("just looked");
            };
            self.body = Body::Sealed(Bytes::from(builder.seal()?));
        }
        match &self.body {
            Body::Sealed(bytes) => Ok(bytes.clone()),
            Body::Records(_) | Body::Gone => Err(SealError::Empty),
        }
    }

    /// Tells everybody who waits. Nobody may wait any more.
    pub(super) fn finish(self, outcome: BatchOutcome) {
        let _ = self.outcome.send(outcome);
    }
}

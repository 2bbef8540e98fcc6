//! Records that wait to be sent, by partition. Filled by callers, emptied by the sender's task.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_record::{AppendError, BATCH_HEADER_BYTES, Compression, Header, TopicPartition};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::batch::{Batch, BatchId, BatchReceiver};
use super::partitioner::Sticky;
use super::{Delivery, ProducerOptions};
use crate::cluster::TopicDescription;
use crate::error::ProduceError;

/// A record and its size.
pub(super) struct NewRecord<'a> {
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header<'a>],
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Accumulator {
    compression: Compression,
    batch_bytes: usize,
    linger: Duration,
    state: Mutex<State>,
    /// Wakes the sender: a batch was begun, is full, or must go.
    pub(super) wake: Notify,
}

#[derive(Debug)]
struct State {
    /// The last batch of each row takes records, those before it are full.
    waiting: BTreeMap<TopicPartition, VecDeque<Waiting>>,
    /// Every batch whose outcome is not known, sent or not.
    outstanding: BTreeMap<BatchId, BatchReceiver>,
    sticky: Sticky,
    next_id: u64,
    /// Batches below this id go at once.
    flush_below: BatchId,
    /// Callers who wait for memory: while there are any, everything goes at once.
    hurried: u32,
    /// Whether the last producer handle is gone.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    full: bool,
}

impl Accumulator {
    pub(super) fn new(options: &ProducerOptions) -> Self {
        Self {
            compression: options.compression,
            batch_bytes: options.batch_bytes,
            linger: options.linger,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                outstanding: BTreeMap::new(),
                sticky: Sticky::new(options.seed, options.batch_bytes),
                next_id: 0,
                flush_below: BatchId(0),
                hurried: 0,
                closed: false,
            }),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for memory for a record. While somebody waits, nothing lingers.
    pub(super) async fn reserve(
        &self,
        memory: &Arc<Semaphore>,
        bytes: usize,
    ) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes).expect("records are limited to less than 4 GiB");
        if let Ok(permit) = Arc::clone(memory).try_acquire_many_owned(permits) {
            return permit;
        }
        let _hurry = Hurry::new(self);
        let permit = Arc::clone(memory).acquire_many_owned(permits).await;
        permit.expect("the semaphore is never closed")
    }

    pub(super) fn choose_sticky(&self, topic: &TopicDescription, bytes: usize) -> u32 {
        self.lock().sticky.choose(topic, bytes)
    }

    /// Puts a record into its partition's batch, or into a new one.
    pub(super) fn append(
        &self,
        partition: TopicPartition,
        record: NewRecord<'_>,
        memory: OwnedSemaphorePermit,
    ) -> Result<Delivery, ProduceError> {
        let mut state = self.lock();
        let state = &mut *state;
        let row = state.waiting.entry(partition.clone()).or_default();
        if let Some(last) = row.back_mut().filter(|last| !last.full) {
            match append_to(&mut last.batch, &record) {
                Ok(index) => {
                    last.batch.charge(memory);
                    let batch = state.outstanding[&last.batch.id].clone();
                    return Ok(Delivery {
                        partition,
                        batch,
                        index,
                    });
                }
                Err(_) => last.full = true,
            }
        }
        let id = BatchId(state.next_id);
        // A record that alone exceeds the limit shares its batch, and its fate, with none.
        let alone = record.bytes + BATCH_HEADER_BYTES;
        let full = alone > self.batch_bytes;
        let bytes_max = self.batch_bytes.max(alone);
        let now = Instant::now();
        let (mut batch, receiver) =
            Batch::new(id, partition.clone(), self.compression, bytes_max, now);
        let index = append_to(&mut batch, &record).map_err(|error| ProduceError::Encode {
            reason: error.to_string(),
        })?;
        state.next_id += 1;
        batch.charge(memory);
        row.push_back(Waiting { batch, full });
        state.outstanding.insert(id, receiver.clone());
        self.wake.notify_one();
        Ok(Delivery {
            partition,
            batch: receiver,
            index,
        })
    }

    /// Lets everything go that was taken so far; gives what to wait for.
    pub(super) fn flush(&self) -> Vec<BatchReceiver> {
        let mut state = self.lock();
        state.flush_below = BatchId(state.next_id);
        let outstanding = state.outstanding.values().cloned().collect();
        drop(state);
        self.wake.notify_one();
        outstanding
    }

    /// The last producer handle is gone.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Whether nothing can come any more and nothing is on the way.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.closed && state.outstanding.is_empty()
    }

    /// Forgets a batch whose outcome is known.
    pub(super) fn forget(&self, id: BatchId) {
        self.lock().outstanding.remove(&id);
    }

    /// The partitions that have a batch which should go now, and when the next one is due.
    pub(super) fn due(&self, now: Instant) -> (Vec<TopicPartition>, Option<Instant>) {
        let state = self.lock();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (partition, row) in &state.waiting {
            let Some(first) = row.front() else {
                continue;
            };
            let at = first.batch.begun + self.linger;
            if state.goes_at_once(first) || at <= now {
                due.push(partition.clone());
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        (due, next)
    }

    /// Whether the first batch of a partition should go now.
    pub(super) fn is_due(&self, partition: &TopicPartition, now: Instant) -> bool {
        let state = self.lock();
        let first = state.waiting.get(partition).and_then(VecDeque::front);
        first.is_some_and(|first| {
            state.goes_at_once(first) || first.batch.begun + self.linger <= now
        })
    }

    /// Takes every batch that was begun longer than `timeout` ago.
    pub(super) fn take_expired(&self, now: Instant, timeout: Duration) -> Vec<Batch> {
        let mut state = self.lock();
        let mut expired = Vec::new();
        for row in state.waiting.values_mut() {
            while row
                .front()
                .is_some_and(|first| first.batch.begun + timeout <= now)
            {
                expired.extend(row.pop_front().map(|waiting| waiting.batch));
            }
        }
        state.waiting.retain(|_, row| !row.is_empty());
        expired
    }

    /// Takes the first batch of a partition, if it should go now.
    pub(super) fn take(&self, partition: &TopicPartition, now: Instant) -> Option<Batch> {
        let mut state = self.lock();
        let first = state.waiting.get(partition)?.front()?;
        if !state.goes_at_once(first) && first.batch.begun + self.linger > now {
            return None;
        }
        let row = state.waiting.get_mut(partition)?;
        let taken = row.pop_front();
        if row.is_empty() {
            state.waiting.remove(partition);
        }
        taken.map(|waiting| waiting.batch)
    }
}

impl State {
    fn goes_at_once(&self, waiting: &Waiting) -> bool {
        waiting.full || self.closed || self.hurried > 0 || waiting.batch.id < self.flush_below
    }
}

fn append_to(batch: &mut Batch, record: &NewRecord<'_>) -> Result<u32, AppendError> {
    batch.append(
        record.timestamp_ms,
        record.key,
        record.value,
        record.headers,
    )
}

/// Somebody waits for memory, until dropped.
struct Hurry<'a> {
    accumulator: &'a Accumulator,
}

impl<'a> Hurry<'a> {
    fn new(accumulator: &'a Accumulator) -> Self {
        accumulator.lock().hurried += 1;
        accumulator.wake.notify_one();
        Self { accumulator }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.accumulator.lock().hurried -= 1;
    }
}

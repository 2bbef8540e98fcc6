//! Records that wait to be sent, by partition. Filled by callers, emptied by the sender's task.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_record::{
    AppendError, BATCH_HEADER_BYTES, Compression, Header, TopicName, TopicPartition,
};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::batch::{Batch, BatchId, BatchReceiver, Slot};
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

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination<'a> {
    Partition(u32),
    /// To any partition of the topic.
    Sticky(&'a TopicDescription),
}

#[derive(Debug)]
pub(super) struct Accumulator {
    compression: Compression,
    batch_bytes: usize,
    linger: Duration,
    /// Bytes that records may still take up.
    memory: Arc<Semaphore>,
    state: Mutex<State>,
    /// Wakes the sender: a batch was begun, is full, or must go.
    pub(super) wake: Notify,
}

#[derive(Debug)]
struct State {
    rows: Rows,
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
    /// For its next records.
    receiver: BatchReceiver,
    full: bool,
}

/// The batches that wait, by partition. What is due is found without a look at each partition:
/// thousands of them may wait for a broker.
#[derive(Debug, Default)]
struct Rows {
    slots: BTreeMap<TopicName, BTreeMap<u32, Slot>>,
    rows: Vec<Row>,
    /// The first batch of each row that has one. Their order is that in which they were begun.
    fronts: BTreeMap<BatchId, Slot>,
    /// Which of those are full.
    full: BTreeSet<BatchId>,
}

#[derive(Debug)]
struct Row {
    partition: TopicPartition,
    /// The last one takes records, those before it are full.
    waiting: VecDeque<Waiting>,
}

impl Rows {
    fn slot(&mut self, partition: &TopicPartition) -> Slot {
        let known = self.slots.get(&partition.topic);
        if let Some(&slot) = known.and_then(|slots| slots.get(&partition.partition)) {
            return slot;
        }
        let slot = Slot(self.rows.len());
        self.rows.push(Row {
            partition: partition.clone(),
            waiting: VecDeque::new(),
        });
        let slots = self.slots.entry(partition.topic.clone()).or_default();
        slots.insert(partition.partition, slot);
        slot
    }

    fn front(&self, slot: Slot) -> Option<&Waiting> {
        self.rows.get(slot.0)?.waiting.front()
    }

    /// The last batch of a row, if it takes records.
    fn open_batch(&mut self, slot: Slot) -> Option<&mut Waiting> {
        let last = self.rows[slot.0].waiting.back_mut()?;
        (!last.full).then_some(last)
    }

    /// The last batch of a row takes no more records.
    fn close_batch(&mut self, slot: Slot) {
        let waiting = &mut self.rows[slot.0].waiting;
        let is_front = waiting.len() == 1;
        if let Some(last) = waiting.back_mut() {
            last.full = true;
            if is_front {
                self.full.insert(last.batch.id);
            }
        }
    }

    fn push(&mut self, slot: Slot, batch: Batch, receiver: BatchReceiver) {
        let waiting = &mut self.rows[slot.0].waiting;
        if waiting.is_empty() {
            self.fronts.insert(batch.id, slot);
        }
        waiting.push_back(Waiting {
            batch,
            receiver,
            full: false,
        });
    }

    fn pop(&mut self, slot: Slot) -> Option<Batch> {
        let waiting = &mut self.rows[slot.0].waiting;
        let Waiting { batch, .. } = waiting.pop_front()?;
        self.fronts.remove(&batch.id);
        self.full.remove(&batch.id);
        if let Some(next) = waiting.front() {
            self.fronts.insert(next.batch.id, slot);
            if next.full {
                self.full.insert(next.batch.id);
            }
        }
        Some(batch)
    }
}

impl Accumulator {
    pub(super) fn new(options: &ProducerOptions) -> Self {
        Self {
            compression: options.compression,
            batch_bytes: options.batch_bytes,
            linger: options.linger,
            memory: Arc::new(Semaphore::new(options.memory_bytes)),
            state: Mutex::new(State {
                rows: Rows::default(),
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
    pub(super) async fn reserve(&self, bytes: usize) -> SemaphorePermit<'_> {
        let permits = u32::try_from(bytes).expect("records are limited to less than 4 GiB");
        if let Ok(permit) = self.memory.try_acquire_many(permits) {
            return permit;
        }
        let _hurry = Hurry::new(self);
        let permit = self.memory.acquire_many(permits).await;
        permit.expect("the semaphore is never closed")
    }

    /// How many bytes are not reserved.
    pub(super) fn free_bytes(&self) -> usize {
        self.memory.available_permits()
    }

    /// Puts a record into its partition's batch, or into a new one.
    pub(super) fn append(
        &self,
        topic: TopicName,
        to: Destination<'_>,
        record: NewRecord<'_>,
        memory: SemaphorePermit<'_>,
    ) -> Result<Delivery, ProduceError> {
        let mut state = self.lock();
        let state = &mut *state;
        let partition = match to {
            Destination::Partition(partition) => partition,
            Destination::Sticky(topic) => state.sticky.choose(topic, record.bytes),
        };
        let partition = TopicPartition { topic, partition };
        let slot = state.rows.slot(&partition);
        if let Some(open) = state.rows.open_batch(slot) {
            match append_to(&mut open.batch, &record) {
                Ok(index) => {
                    open.batch.charge(memory);
                    let batch = open.receiver.clone();
                    return Ok(Delivery {
                        partition,
                        batch,
                        index,
                    });
                }
                Err(_) => state.rows.close_batch(slot),
            }
        }
        let id = BatchId(state.next_id);
        // A record that alone exceeds the limit shares its batch, and its fate, with none.
        let alone = record.bytes + BATCH_HEADER_BYTES;
        let full = alone > self.batch_bytes;
        let bytes_max = self.batch_bytes.max(alone);
        let now = Instant::now();
        let place = (slot, partition.clone());
        let memory_of = Arc::clone(&self.memory);
        let (mut batch, receiver) =
            Batch::new(id, place, self.compression, bytes_max, now, memory_of);
        let index = append_to(&mut batch, &record).map_err(|error| ProduceError::Encode {
            reason: error.to_string(),
        })?;
        state.next_id += 1;
        batch.charge(memory);
        state.rows.push(slot, batch, receiver.clone());
        if full {
            state.rows.close_batch(slot);
        }
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

    /// The partitions that have a batch which should go now, the one that was begun first before the
    /// others, and when the next one is due.
    pub(super) fn due(&self, now: Instant) -> (Vec<Slot>, Option<Instant>) {
        let state = self.lock();
        let rows = &state.rows;
        let mut due = Vec::with_capacity(rows.fronts.len());
        for (&id, &slot) in &rows.fronts {
            if state.all_go_at_once() || id < state.flush_below {
                due.push(slot);
                continue;
            }
            let begun = rows.front(slot).map(|front| front.batch.begun);
            let at = begun.map(|begun| begun + self.linger);
            if at.is_none_or(|at| at <= now) {
                due.push(slot);
                continue;
            }
            // Those behind it were begun later.
            let full = rows.full.range(id..).map(|id| rows.fronts[id]);
            due.extend(full);
            return (due, at);
        }
        (due, None)
    }

    /// The partition of a slot.
    pub(super) fn partition(&self, slot: Slot) -> TopicPartition {
        self.lock().rows.rows[slot.0].partition.clone()
    }

    /// Whether the first batch of a partition should go now.
    pub(super) fn is_due(&self, slot: Slot, now: Instant) -> bool {
        self.lock().is_due(slot, now, self.linger)
    }

    /// Takes every batch that was begun longer than `timeout` ago.
    pub(super) fn take_expired(&self, now: Instant, timeout: Duration) -> Vec<Batch> {
        let mut state = self.lock();
        let mut expired = Vec::new();
        while let Some((_, &slot)) = state.rows.fronts.first_key_value() {
            let begun = state.rows.front(slot).map(|front| front.batch.begun);
            if begun.is_some_and(|begun| begun + timeout > now) {
                break;
            }
            expired.extend(state.rows.pop(slot));
        }
        expired
    }

    /// Takes the first batch of a partition, if it should go now.
    pub(super) fn take(&self, slot: Slot, now: Instant) -> Option<Batch> {
        let mut state = self.lock();
        match state.is_due(slot, now, self.linger) {
            true => state.rows.pop(slot),
            false => None,
        }
    }
}

impl State {
    fn all_go_at_once(&self) -> bool {
        self.closed || self.hurried > 0
    }

    fn is_due(&self, slot: Slot, now: Instant, linger: Duration) -> bool {
        self.rows.front(slot).is_some_and(|front| {
            front.full
                || self.all_go_at_once()
                || front.batch.id < self.flush_below
                || front.batch.begun + linger <= now
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);

    fn accumulator() -> Accumulator {
        Accumulator::new(&ProducerOptions {
            linger: LINGER,
            batch_bytes: 300,
            record_bytes_max: 1_000,
            memory_bytes: Semaphore::MAX_PERMITS,
            compression: Compression::None,
            idempotent: true,
            delivery_timeout: Duration::from_secs(1),
            seed: 0,
        })
    }

    fn append(accumulator: &Accumulator, partition: u32, bytes: usize) {
        let memory = accumulator.memory.try_acquire().unwrap();
        let topic = TopicName::new("t").unwrap();
        let to = Destination::Partition(partition);
        let record = NewRecord {
            timestamp_ms: 0,
            key: None,
            value: Some(&vec![0; bytes]),
            headers: &[],
            bytes: bytes + 30,
        };
        drop(accumulator.append(topic, to, record, memory).unwrap());
    }

    fn partitions(accumulator: &Accumulator, due: &[Slot]) -> Vec<u32> {
        let partitions = due.iter().map(|&slot| accumulator.partition(slot));
        partitions.map(|it| it.partition).collect()
    }

    #[test]
    fn what_has_waited_longest_goes_first_and_what_is_full_need_not_wait() {
        let accumulator = accumulator();
        for partition in [9, 3, 7, 1] {
            append(&accumulator, partition, 10);
        }
        let now = Instant::now();
        let at = |now| {
            let (due, next) = accumulator.due(now);
            (partitions(&accumulator, &due), next.is_some())
        };
        assert_eq!(at(now), (vec![], true));
        assert_eq!(at(now + LINGER), (vec![9, 3, 7, 1], false));
        append(&accumulator, 7, 400);
        append(&accumulator, 5, 400);
        assert_eq!(at(now), (vec![7, 5], true));
    }

    /// Whatever is done, what is due is what a look at each row finds.
    #[test]
    fn what_is_due_is_what_every_row_says() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let accumulator = accumulator();
            let mut hurry = None;
            for _ in 0..300 {
                let now = Instant::now() + rng.choice([Duration::ZERO, LINGER]).unwrap();
                match rng.u32(0..20) {
                    0 => _ = accumulator.flush(),
                    1 => hurry = Some(Hurry::new(&accumulator)),
                    2 => hurry = None,
                    3 => drop(accumulator.take_expired(now, Duration::from_millis(1))),
                    4..8 => {
                        let (due, _) = accumulator.due(now);
                        let taken = rng.choice(due).map(|slot| accumulator.take(slot, now));
                        assert!(taken.is_none_or(|taken| taken.is_some()));
                    }
                    _ => append(&accumulator, rng.u32(0..12), rng.usize(1..400)),
                }
                let (due, next) = accumulator.due(now);
                let state = accumulator.lock();
                let rows = (0..state.rows.rows.len()).map(Slot);
                let mut all: Vec<Slot> =
                    rows.filter(|&it| state.rows.front(it).is_some()).collect();
                all.sort_by_key(|&slot| state.rows.front(slot).unwrap().batch.id);
                let expected = all.iter().filter(|&&slot| state.is_due(slot, now, LINGER));
                assert!(due.iter().eq(expected), "seed {seed}");
                assert_eq!(state.rows.fronts.len(), all.len());
                assert!(due.len() == all.len() || next.is_some_and(|next| next > now));
            }
            drop(hurry);
        }
    }
}

//! What a partition knows of its idempotent producers: enough to tell a batch that is new from
//! one that is sent again, and from one before which another is missing.
//!
//! The state is a function of the *appended* log, not of the committed one: a leader must know a
//! batch again that it has appended and not yet committed. So [`ProducerStates::appended`] is told
//! of every data batch, on every replica, in the order of the log. Each footer holds the state as
//! [`encode`](ProducerStates::encode) gives it; after a start, and after a truncation, it is
//! [decoded](ProducerStates::decode) from the last footer below and the batches behind are told
//! again. Time is the log's own, the `append_time` in its entries, hence equal on all replicas.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_record::{BatchHeader, Offset, sequence_after};

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::{PRODUCER_SNAPSHOT_VERSION, ProducerSnapshotError};

/// How many batches of a producer are remembered. Kafka's number: a producer has at most this
/// many requests in flight for a partition, so none that it may send again is older.
pub const PRODUCER_BATCHES_MAX: usize = 5;

/// How many producers a node remembers over all its partitions; beyond it those that have not
/// written for the longest time are forgotten.
pub const PRODUCERS_PER_NODE_MAX: usize = 100_000;

/// How long a producer that writes nothing is remembered, in seconds of the log's time: a day,
/// as Kafka's `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRATION_SECONDS: u32 = 24 * 60 * 60;

/// How many producers a partition remembers however long they have been idle: those that wrote
/// last. Age is told by leaders' clocks, and one that is a day ahead would make a partition forget
/// all who write to it at that moment; a batch of theirs that is sent again would be stored twice.
/// Age is for the many that come, write once and go.
pub const PRODUCERS_PER_PARTITION_KEPT: usize = 1_000;

/// Why a batch of an idempotent producer was refused. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// The batch neither follows the producer's last one nor repeats one of its last five.
    #[error("producer {id}: sequence {got} does not follow {expected}")]
    OutOfOrderSequence {
        /// The producer's id.
        id: i64,
        /// The sequence of the batch's first record.
        got: i32,
        /// The sequence that would follow.
        expected: i32,
    },
    /// A newer instance of the producer has written.
    #[error("producer {id}: epoch {got} is over, it is {current} now")]
    InvalidEpoch {
        /// The producer's id.
        id: i64,
        /// The epoch of the batch.
        got: i16,
        /// The current one.
        current: i16,
    },
    /// Nothing is known of the producer, and the batch is not its first. It has been forgotten,
    /// or what it wrote before never arrived: whether this batch is new cannot be told, so it is
    /// not accepted (Kafka does accept it, and may so append it twice).
    #[error("producer {id} is not known here")]
    UnknownProducer {
        /// The producer's id.
        id: i64,
    },
}

/// Where a batch stands in the sequence of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerFacts {
    /// The producer's id, not negative.
    pub id: i64,
    /// The producer's epoch, not negative.
    pub epoch: i16,
    /// The sequence number of the batch's first record, not negative.
    pub base_sequence: i32,
    /// The sequence number of its last record; it wraps around to 0 after `i32::MAX`.
    pub last_sequence: i32,
}

impl ProducerFacts {
    /// What a batch's header says; `None` if its producer is not idempotent.
    #[must_use]
    pub fn of(header: &BatchHeader) -> Option<ProducerFacts> {
        let stamp = header.producer()?;
        Some(ProducerFacts {
            id: stamp.producer_id,
            epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            last_sequence: sequence_after(stamp.base_sequence, header.offset_span() - 1),
        })
    }
}

/// What to do with a batch of an idempotent producer that may not be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It comes next: append it.
    Append,
    /// It has been appended before: answer as then, once that is committed.
    Duplicate(RememberedBatch),
}

/// A batch that has been appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    /// The sequence number of its first record, not negative.
    pub first_sequence: i32,
    /// The sequence number of its last record; below the first if it wrapped around.
    pub last_sequence: i32,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its largest timestamp, in milliseconds since the Unix epoch: with `LogAppendTime` when it
    /// was appended.
    pub max_timestamp: i64,
    /// When it was appended, in seconds since the Unix epoch, by the largest append time of the log
    /// so far: a clock that was ahead once must not make all that follows look old.
    pub append_time: u32,
}

impl RememberedBatch {
    /// The offset after its last record: a duplicate is answered once this is committed.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.span()))
    }

    /// How many records it has. A produced batch has as many offsets and sequence numbers.
    fn span(&self) -> u32 {
        const SEQUENCES: i64 = 1 << 31;
        let distance = i64::from(self.last_sequence) - i64::from(self.first_sequence);
        u32::try_from(distance.rem_euclid(SEQUENCES) + 1).expect("at most 2^31")
    }
}

/// How many producers the partitions of a node remember together.
#[derive(Debug, Clone)]
pub struct ProducerCount {
    count: Arc<AtomicUsize>,
    limit: usize,
}

impl ProducerCount {
    /// Nothing is remembered yet, at most `limit` producers will be, and one more for each
    /// partition that has no other: a partition's only producer is never forgotten for the sake
    /// of another partition's.
    #[must_use]
    pub fn new(limit: usize) -> ProducerCount {
        ProducerCount {
            count: Arc::default(),
            limit,
        }
    }

    /// How many are remembered now.
    #[must_use]
    pub fn get(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.get() > self.limit
    }
}

impl Default for ProducerCount {
    fn default() -> ProducerCount {
        ProducerCount::new(PRODUCERS_PER_NODE_MAX)
    }
}

/// The producers of one partition.
#[derive(Debug)]
pub struct ProducerStates {
    producers: BTreeMap<i64, Producer>,
    /// The producers in the order in which they last wrote: the base offset of a producer's last
    /// batch, which no other producer's batch can have.
    by_last_batch: BTreeMap<Offset, i64>,
    /// The largest append time so far, in seconds. It never goes back, though leaders' clocks do.
    log_time: u32,
    /// How many stay, whatever their age: [`PRODUCERS_PER_PARTITION_KEPT`].
    kept: usize,
    count: ProducerCount,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// From the oldest to the newest, all of `epoch`; 1 to [`PRODUCER_BATCHES_MAX`] of them.
    batches: VecDeque<RememberedBatch>,
}

impl Producer {
    fn last(&self) -> &RememberedBatch {
        self.batches.back().expect("a producer is known by a batch")
    }
}

impl ProducerStates {
    /// Nobody has written yet.
    #[must_use]
    pub fn new(count: ProducerCount) -> ProducerStates {
        ProducerStates {
            producers: BTreeMap::new(),
            by_last_batch: BTreeMap::new(),
            log_time: 0,
            kept: PRODUCERS_PER_PARTITION_KEPT,
            count,
        }
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Whether a batch may be appended next. Changes nothing: when it is appended,
    /// [`appended`](Self::appended) tells so.
    ///
    /// # Errors
    ///
    /// [`ProducerError`] if it must be refused.
    pub fn check(&self, batch: &ProducerFacts) -> Result<Verdict, ProducerError> {
        let Some(producer) = self.producers.get(&batch.id) else {
            return match batch.base_sequence {
                0 => Ok(Verdict::Append),
                _ => Err(ProducerError::UnknownProducer { id: batch.id }),
            };
        };
        if batch.epoch < producer.epoch {
            return Err(ProducerError::InvalidEpoch {
                id: batch.id,
                got: batch.epoch,
                current: producer.epoch,
            });
        }
        let expected = if batch.epoch > producer.epoch {
            0
        } else if let Some(original) = producer.find(batch) {
            return Ok(Verdict::Duplicate(*original));
        } else {
            sequence_after(producer.last().last_sequence, 1)
        };
        if batch.base_sequence == expected {
            return Ok(Verdict::Append);
        }
        Err(ProducerError::OutOfOrderSequence {
            id: batch.id,
            got: batch.base_sequence,
            expected,
        })
    }

    /// A data batch is in the log now, at its end; of an idempotent producer or not.
    ///
    /// `append_time` is the entry's, in seconds. Whether the batch should have been there is not
    /// asked: what a leader has appended is so.
    pub fn appended(
        &mut self,
        batch: Option<&ProducerFacts>,
        base_offset: Offset,
        max_timestamp: i64,
        append_time: u32,
    ) {
        self.log_time = self.log_time.max(append_time);
        if let Some(batch) = batch {
            let remembered = RememberedBatch {
                first_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence,
                base_offset,
                max_timestamp,
                // Not the entry's own time: once a leader's clock was ahead by a day, all that
                // leaders with good clocks append would be forgotten at once, and a batch that
                // is sent again taken for a new one.
                append_time: self.log_time,
            };
            self.remember(batch.id, batch.epoch, remembered);
        }
        self.expire();
    }

    fn remember(&mut self, id: i64, epoch: i16, batch: RememberedBatch) {
        if let Some((&last, _)) = self.by_last_batch.last_key_value() {
            assert!(batch.base_offset > last, "the log only grows");
        }
        let producer = match self.producers.get_mut(&id) {
            Some(producer) => {
                self.by_last_batch.remove(&producer.last().base_offset);
                producer
            }
            None => {
                self.count.count.fetch_add(1, Ordering::Relaxed);
                self.producers.entry(id).or_insert(Producer {
                    epoch,
                    batches: VecDeque::with_capacity(PRODUCER_BATCHES_MAX),
                })
            }
        };
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == PRODUCER_BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(batch);
        self.by_last_batch.insert(batch.base_offset, id);
        while self.count.is_full() && self.producers.len() > 1 {
            self.forget_oldest();
        }
    }

    /// Forgets who has not written for [`PRODUCER_EXPIRATION_SECONDS`] of the log's time and is not
    /// among the [`PRODUCERS_PER_PARTITION_KEPT`] that wrote last.
    fn expire(&mut self) {
        let Some(horizon) = self.log_time.checked_sub(PRODUCER_EXPIRATION_SECONDS) else {
            return;
        };
        while self.producers.len() > self.kept
            && let Some((_, id)) = self.by_last_batch.first_key_value()
            && self.producers[id].last().append_time < horizon
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let (_, id) = self
            .by_last_batch
            .pop_first()
            .expect("asked only while there are producers");
        let known = self.producers.remove(&id);
        assert!(known.is_some(), "both maps hold the same producers");
        self.count.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ProducerStates {
    fn drop(&mut self) {
        self.count
            .count
            .fetch_sub(self.producers.len(), Ordering::Relaxed);
    }
}

impl Producer {
    fn find(&self, batch: &ProducerFacts) -> Option<&RememberedBatch> {
        let skipped = usize::from(mutant!(ProducerWindowOfFour) && self.batches.len() > 4);
        self.batches.iter().skip(skipped).find(|remembered| {
            remembered.first_sequence == batch.base_sequence
                && remembered.last_sequence == batch.last_sequence
        })
    }
}

//! The state of a partition's producers as bytes, for footers and bases.
//!
//! Little-endian. Version 1:
//!
//! | field | |
//! |---|---|
//! | version u16 | 1 |
//! | log time u32 | seconds |
//! | producers u32 | then as many, ascending by id: |
//! | · id i64, epoch i16 | not negative |
//! | · batches u8 | 1 to 5, then as many, from the oldest: |
//! | · · first sequence i32, last sequence i32 | not negative |
//! | · · base offset u64 | ascending; a producer's last is no other's last |
//! | · · max timestamp i64 | milliseconds |
//! | · · append time u32 | seconds |
//!
//! There is no checksum: the file that holds it has one.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use highwater_record::Offset;

use super::{PRODUCER_BATCHES_MAX, Producer, ProducerCount, ProducerStates, RememberedBatch};
use crate::codec::{Put, Take, Truncated};

/// The version that is written, and the only one that is read.
pub const PRODUCER_SNAPSHOT_VERSION: u16 = 1;

const BATCH_BYTES: usize = 4 + 4 + 8 + 8 + 4;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 1 + BATCH_BYTES;

/// Why bytes are no state of producers. They come from a footer or from the leader, under a
/// checksum, so somebody wrote them wrongly: the state is to be rebuilt from the log, or the base
/// refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerSnapshotError {
    /// A version that this program does not know.
    #[error("producer snapshot of version {0}; this program reads {PRODUCER_SNAPSHOT_VERSION}")]
    Version(u16),
    /// The bytes end too early.
    #[error("producer snapshot: {0}")]
    Truncated(#[from] Truncated),
    /// More bytes than producers.
    #[error("{0} bytes follow the producer snapshot")]
    TrailingBytes(usize),
    /// A value that no state has.
    #[error("producer {id}: impossible {field}")]
    Impossible {
        /// Whose.
        id: i64,
        /// Which.
        field: &'static str,
    },
}

impl ProducerStates {
    /// The state as bytes, equal for equal states.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.producers.len() * PRODUCER_BYTES_MIN);
        bytes.put_u16(PRODUCER_SNAPSHOT_VERSION);
        bytes.put_u32(self.log_time);
        bytes.put_u32(u32::try_from(self.producers.len()).expect("bounded per node"));
        for (id, producer) in &self.producers {
            bytes.put_i64(*id);
            bytes.put_i16(producer.epoch);
            bytes.put_u8(u8::try_from(producer.batches.len()).expect("at most 5"));
            for batch in &producer.batches {
                bytes.put_i32(batch.first_sequence);
                bytes.put_i32(batch.last_sequence);
                bytes.put_u64(batch.base_offset.0);
                bytes.put_i64(batch.max_timestamp);
                bytes.put_u32(batch.append_time);
            }
        }
        bytes
    }

    /// The state that [`encode`](Self::encode) has written. Memory is taken for what is there,
    /// not for what is announced.
    ///
    /// # Errors
    ///
    /// [`ProducerSnapshotError`] if the bytes hold none.
    pub fn decode(
        mut bytes: &[u8],
        count: ProducerCount,
    ) -> Result<ProducerStates, ProducerSnapshotError> {
        let from = &mut bytes;
        let version = from.take_u16()?;
        if version != PRODUCER_SNAPSHOT_VERSION {
            return Err(ProducerSnapshotError::Version(version));
        }
        let mut states = ProducerStates::new(count);
        states.log_time = from.take_u32()?;
        for _ in 0..from.take_u32()? {
            let (id, producer) = decode_producer(from)?;
            states.restore(id, producer)?;
        }
        match bytes.len() {
            0 => Ok(states),
            left => Err(ProducerSnapshotError::TrailingBytes(left)),
        }
    }

    fn restore(&mut self, id: i64, producer: Producer) -> Result<(), ProducerSnapshotError> {
        let impossible = |field| ProducerSnapshotError::Impossible { id, field };
        if let Some((&last, _)) = self.producers.last_key_value()
            && last >= id
        {
            return Err(impossible("place: ids ascend"));
        }
        let last_batch = producer.last().base_offset;
        if self.by_last_batch.insert(last_batch, id).is_some() {
            // Whatever was counted is counted off again when the state is dropped.
            return Err(impossible("last batch: another producer's"));
        }
        self.count.count.fetch_add(1, Ordering::Relaxed);
        self.producers.insert(id, producer);
        Ok(())
    }
}

fn decode_producer(from: &mut &[u8]) -> Result<(i64, Producer), ProducerSnapshotError> {
    let id = from.take_i64()?;
    let impossible = |field| ProducerSnapshotError::Impossible { id, field };
    let epoch = from.take_i16()?;
    if id < 0 || epoch < 0 {
        return Err(impossible("id or epoch"));
    }
    let count = usize::from(from.take_u8()?);
    if !(1..=PRODUCER_BATCHES_MAX).contains(&count) {
        return Err(impossible("number of batches"));
    }
    let mut batches = VecDeque::<RememberedBatch>::with_capacity(PRODUCER_BATCHES_MAX);
    for _ in 0..count {
        let batch = RememberedBatch {
            first_sequence: from.take_i32()?,
            last_sequence: from.take_i32()?,
            base_offset: Offset(from.take_u64()?),
            max_timestamp: from.take_i64()?,
            append_time: from.take_u32()?,
        };
        if batch.first_sequence < 0 || batch.last_sequence < 0 {
            return Err(impossible("sequence"));
        }
        if batch
            .base_offset
            .checked_advance(u64::from(batch.span()))
            .is_none()
        {
            return Err(impossible("base offset"));
        }
        if let Some(before) = batches.back()
            && before.base_offset >= batch.base_offset
        {
            return Err(impossible("order of batches"));
        }
        batches.push_back(batch);
    }
    Ok((id, Producer { epoch, batches }))
}

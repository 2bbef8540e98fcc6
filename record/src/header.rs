//! The fixed part of a batch, decoded.

use crate::compression::Compression;
use crate::error::{BatchError, ProducedBatchError};
use crate::ids::{LeaderEpoch, Offset};
use crate::layout::{
    ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_HEADER_BYTES, BATCH_LENGTH,
    BATCH_OVERHEAD_BYTES, CODEC_MASK, CONTROL, CRC, DELETE_HORIZON, LAST_OFFSET_DELTA,
    LEADER_EPOCH, LOG_APPEND_TIME, MAGIC, MAGIC_AT, MAX_TIMESTAMP, PRODUCER_EPOCH, PRODUCER_ID,
    RECORD_BYTES_MIN, RECORDS_COUNT, RESERVED, TRANSACTIONAL, field,
};

/// Who decides on a record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer; each record has its own.
    CreateTime,
    /// The broker; all records have the batch's max timestamp.
    LogAppendTime,
}

/// Which producer made a batch, and where in its sequence the batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Given by the broker, never negative.
    pub producer_id: i64,
    /// Counts the producer's lives; never negative.
    pub producer_epoch: i16,
    /// The sequence number of the first record, per partition; never negative.
    pub base_sequence: i32,
}

/// The sequence number `count` records after `sequence`. After `i32::MAX` comes 0.
///
/// ```
/// use highwater_record::sequence_after;
///
/// assert_eq!(sequence_after(5, 3), 8);
/// assert_eq!(sequence_after(i32::MAX, 1), 0);
/// ```
///
/// # Panics
///
/// If `sequence` is negative.
#[must_use]
pub fn sequence_after(sequence: i32, count: u32) -> i32 {
    let sequence = u64::try_from(sequence).expect("sequence numbers are not negative");
    let wrapped = (sequence + u64::from(count)) % (1 << 31);
    i32::try_from(wrapped).expect("a remainder below 2^31")
}

/// The first 61 bytes of a batch. Each field is possible, and so are they together; that the
/// CRC holds and the records are what the header says is [`RecordBatch`](crate::RecordBatch)'s
/// matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    base_offset: Offset,
    total_bytes: usize,
    leader_epoch: Option<LeaderEpoch>,
    crc: u32,
    attributes: i16,
    compression: Compression,
    last_offset_delta: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    records_count: u32,
}

impl BatchHeader {
    /// Decodes the header at the front of `bytes`, of which the rest of the batch need not be
    /// there. Cheap: for finding one's way in batches that were checked before.
    ///
    /// # Errors
    ///
    /// [`BatchError`], all variants but those about the CRC, the size limit, the records and
    /// their compression.
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let total_bytes = total_bytes(bytes)?;
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: BATCH_HEADER_BYTES,
            });
        }
        let attributes = i16::from_be_bytes(field(bytes, ATTRIBUTES));
        if attributes & RESERVED != 0 {
            return Err(BatchError::ReservedAttributes { attributes });
        }
        let (base_offset, last_offset_delta) = offsets(bytes)?;
        let compression = compression(attributes)?;
        Ok(BatchHeader {
            base_offset,
            total_bytes,
            leader_epoch: LeaderEpoch::from_wire(i32::from_be_bytes(field(bytes, LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(bytes, CRC)),
            attributes,
            compression,
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, BASE_SEQUENCE)),
            records_count: records_count(bytes, compression, last_offset_delta, total_bytes)?,
        })
    }

    /// The first offset. Compaction may have removed its record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The last offset delta: the last offset minus the first. Compaction keeps it.
    #[must_use]
    pub fn last_offset_delta(&self) -> u32 {
        self.last_offset_delta
    }

    /// The last offset.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.advance(self.last_offset_delta.into())
    }

    /// How many offsets the batch takes, at least 1: the last offset delta + 1.
    #[must_use]
    pub fn offset_span(&self) -> u32 {
        self.last_offset_delta + 1
    }

    /// The offset after the last, where the next batch begins.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(self.offset_span().into())
    }

    /// The size of the whole batch in bytes, header and all.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// The leader's epoch; nothing if negative, as clients send it.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.leader_epoch
    }

    /// The CRC-32C that the batch claims for everything behind its first 21 bytes.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// All attribute bits, as they stand.
    #[must_use]
    pub fn attributes(&self) -> i16 {
        self.attributes
    }

    /// How the records are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Whose timestamps these are.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the records are markers that users never see.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether compaction has replaced the base timestamp's meaning by a delete horizon
    /// (KIP-534); the records' timestamps are relative to it all the same.
    #[must_use]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// What the records' timestamp deltas are relative to, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The largest timestamp, as the header claims, in milliseconds since the Unix epoch; -1 if
    /// there is none.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The producer's id, negative if it has none.
    #[must_use]
    pub fn producer_id(&self) -> i64 {
        self.producer_id
    }

    /// The producer's epoch; means nothing without an id.
    #[must_use]
    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch
    }

    /// The first record's sequence number; means nothing without a producer id.
    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence
    }

    /// Producer, epoch and sequence; nothing if the batch is not idempotent, or if one of the
    /// three is negative (see [`check_produced`](BatchHeader::check_produced)).
    #[must_use]
    pub fn producer(&self) -> Option<ProducerStamp> {
        let whole = self.producer_id >= 0 && self.producer_epoch >= 0 && self.base_sequence >= 0;
        whole.then_some(ProducerStamp {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        })
    }

    /// How many records there are. Compaction lowers it, down to 0.
    #[must_use]
    pub fn records_count(&self) -> u32 {
        self.records_count
    }

    /// Whether a client may send this batch to be appended.
    ///
    /// # Errors
    ///
    /// [`ProducedBatchError`] names the first rule that it breaks.
    pub fn check_produced(&self) -> Result<(), ProducedBatchError> {
        if self.is_control() {
            return Err(ProducedBatchError::Control);
        }
        if self.has_delete_horizon() {
            return Err(ProducedBatchError::DeleteHorizon);
        }
        if self.timestamp_type() == TimestampType::LogAppendTime {
            return Err(ProducedBatchError::LogAppendTime);
        }
        self.check_produced_offsets()?;
        self.check_produced_producer()
    }

    fn check_produced_offsets(&self) -> Result<(), ProducedBatchError> {
        if self.base_offset != Offset::ZERO {
            return Err(ProducedBatchError::BaseOffset {
                base_offset: self.base_offset.0,
            });
        }
        if self.records_count == 0 {
            return Err(ProducedBatchError::Empty);
        }
        if self.records_count != self.offset_span() {
            return Err(ProducedBatchError::Gaps {
                count: self.records_count,
                offsets: self.offset_span(),
            });
        }
        Ok(())
    }

    fn check_produced_producer(&self) -> Result<(), ProducedBatchError> {
        // Without an id the other two mean nothing, and clients do write various things there.
        if self.producer_id < 0 {
            return match self.is_transactional() {
                true => Err(ProducedBatchError::TransactionalWithoutProducer),
                false => Ok(()),
            };
        }
        if self.producer().is_none() {
            return Err(ProducedBatchError::Sequence {
                producer_id: self.producer_id,
                producer_epoch: self.producer_epoch,
                base_sequence: self.base_sequence,
            });
        }
        Ok(())
    }
}

/// The size of the whole batch at the front of `bytes`, which need not be there whole.
pub(crate) fn total_bytes(bytes: &[u8]) -> Result<usize, BatchError> {
    // The magic first: old formats have other lengths, and their senders want to hear why.
    if let Some(&magic) = bytes.get(MAGIC_AT)
        && magic != MAGIC
    {
        return Err(BatchError::Magic { magic });
    }
    if bytes.len() < BATCH_OVERHEAD_BYTES {
        return Err(BatchError::Truncated {
            have: bytes.len(),
            need: BATCH_HEADER_BYTES,
        });
    }
    let length = i32::from_be_bytes(field(bytes, BATCH_LENGTH));
    usize::try_from(length)
        .ok()
        .and_then(|rest| rest.checked_add(BATCH_OVERHEAD_BYTES))
        .filter(|&total| total >= BATCH_HEADER_BYTES)
        .ok_or(BatchError::Length { length })
}

fn compression(attributes: i16) -> Result<Compression, BatchError> {
    let [_, codec] = (attributes & CODEC_MASK).to_be_bytes();
    Compression::from_codec(codec).ok_or(BatchError::Codec { codec })
}

fn offsets(bytes: &[u8]) -> Result<(Offset, u32), BatchError> {
    let base_offset = i64::from_be_bytes(field(bytes, BASE_OFFSET));
    let delta = i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA));
    let last = u32::try_from(delta).map_err(|_| BatchError::LastOffsetDelta { delta })?;
    Offset::from_wire(base_offset)
        .filter(|base| base.checked_advance(u64::from(last) + 1).is_some())
        .map(|base| (base, last))
        .ok_or(BatchError::BaseOffset { base_offset, delta })
}

fn records_count(
    bytes: &[u8],
    compression: Compression,
    last_offset_delta: u32,
    total_bytes: usize,
) -> Result<u32, BatchError> {
    let count = i32::from_be_bytes(field(bytes, RECORDS_COUNT));
    let offsets = last_offset_delta + 1;
    let bytes = total_bytes - BATCH_HEADER_BYTES;
    let least = |count: u32| usize::try_from(count).ok()?.checked_mul(RECORD_BYTES_MIN);
    let fits = |&count: &u32| {
        let hold = least(count).is_some_and(|least| least <= bytes);
        count <= offsets && (compression != Compression::None || hold)
    };
    u32::try_from(count)
        .ok()
        .filter(fits)
        .ok_or(BatchError::RecordsCount {
            count,
            offsets,
            bytes,
        })
}

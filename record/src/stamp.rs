//! Changes to a batch that leave its records alone.
//!
//! A leader writes base offset and epoch, which no CRC of Kafka's covers. Fields behind byte
//! 21 are covered; as CRC-32C is linear, the new CRC follows from the old one and the changed
//! header alone, without a second pass over the records.

use crate::crc::{crc32c, crc32c_combine};
use crate::header::ProducerStamp;
use crate::ids::{LeaderEpoch, Offset};
use crate::layout::{
    ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, CRC,
    LEADER_EPOCH, LOG_APPEND_TIME, MAX_TIMESTAMP, PRODUCER_EPOCH, PRODUCER_ID, field,
};

/// Writes the offset and epoch that a leader gives to a batch. No checksum of the batch's own
/// changes.
///
/// # Panics
///
/// If `batch` is shorter than [`BATCH_PREFIX_BYTES`].
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= BATCH_PREFIX_BYTES, "a batch has its header");
    batch[BASE_OFFSET].copy_from_slice(&base_offset.to_wire().to_be_bytes());
    batch[LEADER_EPOCH].copy_from_slice(&leader_epoch.to_wire().to_be_bytes());
}

/// The CRC-32C of a whole batch, every byte of it, from its stamped first 21 bytes and its own
/// CRC, already checked, which covers the `rest_len` bytes that follow them.
///
/// ```
/// use highwater_record::{
///     BATCH_PREFIX_BYTES, Compression, LeaderEpoch, Offset, RecordBatchBuilder, body_crc, crc32c,
///     stamp,
/// };
///
/// let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
/// builder.append(0, None, Some(b"value"), &[])?;
/// let mut batch = builder.seal()?;
/// let epoch = LeaderEpoch::new(3).expect("3 is small");
/// stamp(&mut batch, Offset(1000), epoch);
///
/// let (prefix, rest) = batch.split_first_chunk::<BATCH_PREFIX_BYTES>().expect("61 and more");
/// assert_eq!(body_crc(prefix, crc32c(rest), rest.len()), crc32c(&batch));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn body_crc(prefix: &[u8; BATCH_PREFIX_BYTES], batch_crc: u32, rest_len: usize) -> u32 {
    crc32c_combine(crc32c(prefix), batch_crc, wide(rest_len))
}

/// Makes `time_ms` (milliseconds since the Unix epoch) the timestamp of all records of a batch:
/// sets the type LogAppendTime and the max timestamp, and mends the CRC.
///
/// # Panics
///
/// If `batch` is shorter than [`BATCH_HEADER_BYTES`].
pub fn set_log_append_time(batch: &mut [u8], time_ms: i64) {
    rewrite_header(batch, |batch| {
        let attributes = i16::from_be_bytes(field(batch, ATTRIBUTES)) | LOG_APPEND_TIME;
        batch[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
        batch[MAX_TIMESTAMP].copy_from_slice(&time_ms.to_be_bytes());
    });
}

/// Replaces the max timestamp, in milliseconds since the Unix epoch, and mends the CRC: for a
/// client that miscounted, as Kafka does.
///
/// # Panics
///
/// If `batch` is shorter than [`BATCH_HEADER_BYTES`].
pub fn set_max_timestamp(batch: &mut [u8], time_ms: i64) {
    rewrite_header(batch, |batch| {
        batch[MAX_TIMESTAMP].copy_from_slice(&time_ms.to_be_bytes());
    });
}

/// Replaces producer, epoch and sequence, and mends the CRC: for a sealed batch that is sent
/// again under a new epoch.
///
/// # Panics
///
/// If `batch` is shorter than [`BATCH_HEADER_BYTES`].
pub fn set_producer(batch: &mut [u8], producer: ProducerStamp) {
    rewrite_header(batch, |batch| {
        batch[PRODUCER_ID].copy_from_slice(&producer.producer_id.to_be_bytes());
        batch[PRODUCER_EPOCH].copy_from_slice(&producer.producer_epoch.to_be_bytes());
        batch[BASE_SEQUENCE].copy_from_slice(&producer.base_sequence.to_be_bytes());
    });
}

/// Changes fields in the covered part of the header. A CRC that was wrong before stays wrong.
fn rewrite_header(batch: &mut [u8], change: impl FnOnce(&mut [u8])) {
    assert!(batch.len() >= BATCH_HEADER_BYTES, "a batch has its header");
    let covered = BATCH_PREFIX_BYTES..BATCH_HEADER_BYTES;
    let before = crc32c(&batch[covered.clone()]);
    change(&mut batch[..BATCH_HEADER_BYTES]);
    let after = crc32c(&batch[covered]);
    let stored = u32::from_be_bytes(field(batch, CRC));
    // crc(front, rest) is shift(crc(front)) ^ crc(rest), so the difference of the fronts,
    // shifted over the rest, is the difference of the wholes.
    let rest_len = wide(batch.len() - BATCH_HEADER_BYTES);
    let mended = crc32c_combine(before ^ after, stored, rest_len);
    batch[CRC].copy_from_slice(&mended.to_be_bytes());
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("memory is below 2^64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchLimits, Compression, Header, RecordBatch, RecordBatchBuilder, TimestampType};

    fn batch() -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
        for time in [5000, 7000, 6000] {
            let headers = [Header::new("k", Some(b"v"))];
            builder
                .append(time, Some(b"key"), Some(b"value"), &headers)
                .expect("small");
        }
        builder.seal().expect("not empty")
    }

    #[test]
    fn stamping_changes_neither_crc_nor_records() {
        let mut bytes = batch();
        let limits = BatchLimits::default();
        let before = RecordBatch::parse(&bytes, &limits).expect("valid").crc();
        stamp(&mut bytes, Offset(1 << 40), LeaderEpoch::MAX);
        let after = RecordBatch::parse(&bytes, &limits).expect("still valid");
        assert_eq!(after.crc(), before);
        assert_eq!(after.base_offset(), Offset(1 << 40));
        assert_eq!(after.end_offset(), Offset((1 << 40) + 3));
        assert_eq!(after.leader_epoch(), Some(LeaderEpoch::MAX));
        let (prefix, rest) = bytes.split_first_chunk().expect("a header");
        assert_eq!(body_crc(prefix, after.crc(), rest.len()), crc32c(&bytes));
    }

    #[test]
    fn log_append_time_replaces_every_timestamp() {
        let mut bytes = batch();
        set_log_append_time(&mut bytes, 9999);
        let limits = BatchLimits::default();
        let batch = RecordBatch::parse(&bytes, &limits).expect("its CRC was mended");
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.max_timestamp(), 9999);
        assert_eq!(batch.records_max_timestamp(), Some(9999));
        for record in &batch.records(&limits).expect("not compressed") {
            assert_eq!(record.expect("valid").timestamp, 9999);
        }
    }

    #[test]
    fn a_new_producer_and_a_corrected_timestamp_keep_the_batch_valid() {
        let mut bytes = batch();
        let producer = ProducerStamp {
            producer_id: 77,
            producer_epoch: 2,
            base_sequence: i32::MAX,
        };
        set_producer(&mut bytes, producer);
        set_max_timestamp(&mut bytes, 7001);
        let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("still valid");
        assert_eq!(batch.producer(), Some(producer));
        assert_eq!(batch.max_timestamp(), 7001);
        assert_eq!(batch.records_max_timestamp(), Some(7000));
    }

    #[test]
    fn a_wrong_crc_is_not_made_right() {
        let mut bytes = batch();
        *bytes.last_mut().expect("not empty") ^= 1;
        set_log_append_time(&mut bytes, 1);
        assert!(RecordBatch::parse(&bytes, &BatchLimits::default()).is_err());
    }
}

//! Where things lie in a Kafka v2 record batch, magic 2, all big-endian
//! (Kafka's `DefaultRecordBatch`, KIP-98).
//!
//! | at | bytes | field | under the CRC |
//! |---|---|---|---|
//! | 0 | 8 | base offset | no |
//! | 8 | 4 | length of what follows this field | no |
//! | 12 | 4 | partition leader epoch, -1 from clients | no |
//! | 16 | 1 | magic, 2 | no |
//! | 17 | 4 | CRC-32C of all that follows this field | no |
//! | 21 | 2 | attributes | yes |
//! | 23 | 4 | last offset delta | yes |
//! | 27 | 8 | base timestamp, in milliseconds | yes |
//! | 35 | 8 | max timestamp, in milliseconds | yes |
//! | 43 | 8 | producer id, -1 for none | yes |
//! | 51 | 2 | producer epoch | yes |
//! | 53 | 4 | base sequence | yes |
//! | 57 | 4 | number of records | yes |
//! | 61 | | records, compressed as one if the attributes say so | yes |

use std::ops::Range;

/// The bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;

/// The first bytes of a batch, which its own CRC does not cover, but the last four of which
/// are that CRC: what a leader stamps lies in here.
pub const BATCH_PREFIX_BYTES: usize = 21;

/// What of a batch its length field does not count: base offset and the field itself.
pub const BATCH_OVERHEAD_BYTES: usize = 12;

/// The least bytes that an uncompressed record takes: its length and six fields.
pub const RECORD_BYTES_MIN: usize = 7;

/// The only batch format that is spoken.
pub const MAGIC: u8 = 2;

pub(crate) const BASE_OFFSET: Range<usize> = 0..8;
pub(crate) const BATCH_LENGTH: Range<usize> = 8..12;
pub(crate) const LEADER_EPOCH: Range<usize> = 12..16;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC: Range<usize> = 17..21;
pub(crate) const ATTRIBUTES: Range<usize> = 21..23;
pub(crate) const LAST_OFFSET_DELTA: Range<usize> = 23..27;
pub(crate) const BASE_TIMESTAMP: Range<usize> = 27..35;
pub(crate) const MAX_TIMESTAMP: Range<usize> = 35..43;
pub(crate) const PRODUCER_ID: Range<usize> = 43..51;
pub(crate) const PRODUCER_EPOCH: Range<usize> = 51..53;
pub(crate) const BASE_SEQUENCE: Range<usize> = 53..57;
pub(crate) const RECORDS_COUNT: Range<usize> = 57..61;

const _: () = assert!(CRC.end == BATCH_PREFIX_BYTES);
const _: () = assert!(BATCH_LENGTH.end == BATCH_OVERHEAD_BYTES);
const _: () = assert!(RECORDS_COUNT.end == BATCH_HEADER_BYTES);

/// The codec's bits of the attributes.
pub(crate) const CODEC_MASK: i16 = 0x07;
/// Set if timestamps are the broker's (LogAppendTime).
pub(crate) const LOG_APPEND_TIME: i16 = 0x08;
/// Set if the batch is part of a transaction.
pub(crate) const TRANSACTIONAL: i16 = 0x10;
/// Set if the records are markers for brokers and consumers, not users' data.
pub(crate) const CONTROL: i16 = 0x20;
/// Set by compaction if the base timestamp is the time when tombstones may go (KIP-534).
pub(crate) const DELETE_HORIZON: i16 = 0x40;
/// Bits without a meaning yet.
pub(crate) const RESERVED: i16 = !0x7f;

/// The `N` bytes of a field.
///
/// # Panics
///
/// If `bytes` end before it or it is not of `N` bytes: callers check the length first.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: Range<usize>) -> [u8; N] {
    bytes[at]
        .try_into()
        .expect("the field's width is in its type")
}

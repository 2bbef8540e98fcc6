//! What can be wrong with a batch. Always its sender's fault (or the disk's, if the batch was
//! good before); Kafka answers CORRUPT_MESSAGE or INVALID_RECORD, and nothing is appended.

use crate::compression::Compression;

/// Why bytes are no valid batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end within the batch. More of them may come; a consumer ignores such a tail.
    #[error("batch is cut short: {have} bytes of {need}")]
    Truncated {
        /// How many bytes there are.
        have: usize,
        /// How many there must be, as far as can be told.
        need: usize,
    },
    /// The length field is negative or smaller than a header.
    #[error("batch length {length} is impossible; at least 49 bytes follow the field")]
    Length {
        /// The field.
        length: i32,
    },
    /// The batch is above [`BatchLimits::batch_bytes_max`](crate::BatchLimits::batch_bytes_max).
    /// Kafka answers MESSAGE_TOO_LARGE.
    #[error("batch of {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// The whole batch's bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An old or unknown format.
    #[error("batch has magic {magic}; only 2 is supported")]
    Magic {
        /// The magic byte.
        magic: u8,
    },
    /// The content does not match its checksum.
    #[error("batch has CRC {stored:#010x}, but its content {computed:#010x}")]
    Crc {
        /// The batch's field.
        stored: u32,
        /// What the bytes have.
        computed: u32,
    },
    /// Attribute bits are set that mean nothing yet.
    #[error("batch has reserved attribute bits set: {attributes:#06x}")]
    ReservedAttributes {
        /// All attributes.
        attributes: i16,
    },
    /// The codec's bits say none that exists.
    #[error("batch has compression codec {codec}, which does not exist")]
    Codec {
        /// The three bits.
        codec: u8,
    },
    /// The base offset is negative, or base offset and last offset delta pass 2^63 - 1.
    #[error("batch has impossible base offset {base_offset} (last offset delta {delta})")]
    BaseOffset {
        /// The field.
        base_offset: i64,
        /// The last offset delta.
        delta: i32,
    },
    /// The last offset delta is negative.
    #[error("batch has negative last offset delta {delta}")]
    LastOffsetDelta {
        /// The field.
        delta: i32,
    },
    /// The number of records is negative, or above the number of offsets, or more than the
    /// bytes can hold.
    #[error(
        "batch claims {count} records in {offsets} offsets and {bytes} bytes \
         (uncompressed ones take 7 or more each)"
    )]
    RecordsCount {
        /// The field.
        count: i32,
        /// Last offset delta + 1.
        offsets: u32,
        /// The bytes of the records, compressed or not.
        bytes: usize,
    },
    /// A record is broken.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        error: RecordError,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes follow the last of {count} records")]
    TrailingBytes {
        /// How many.
        bytes: usize,
        /// The number of records.
        count: u32,
    },
    /// The records cannot be decompressed.
    #[error("cannot decompress the batch's {codec} records: {error}")]
    Decompress {
        /// How they are compressed.
        codec: Compression,
        /// Why not.
        error: DecompressError,
    },
}

/// A part of a record, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordField {
    /// The length in front.
    Length,
    /// The attributes, a byte without meaning.
    Attributes,
    /// The timestamp, relative to the batch's base.
    TimestampDelta,
    /// The offset, relative to the batch's base.
    OffsetDelta,
    /// The key or its length.
    Key,
    /// The value or its length.
    Value,
    /// The number of headers.
    HeadersCount,
    /// A header's key or its length.
    HeaderKey,
    /// A header's value or its length.
    HeaderValue,
}

impl std::fmt::Display for RecordField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordField::Length => "length",
            RecordField::Attributes => "attributes",
            RecordField::TimestampDelta => "timestamp delta",
            RecordField::OffsetDelta => "offset delta",
            RecordField::Key => "key",
            RecordField::Value => "value",
            RecordField::HeadersCount => "headers count",
            RecordField::HeaderKey => "header key",
            RecordField::HeaderValue => "header value",
        })
    }
}

/// Why bytes are no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A varint does not end within its bytes or its width.
    #[error("{field} is no valid varint")]
    Varint {
        /// Which part.
        field: RecordField,
    },
    /// A part is longer than what is left of the record, or the record than the batch.
    #[error("{field} of {need} bytes, but only {have} are left")]
    Truncated {
        /// Which part.
        field: RecordField,
        /// Its length.
        need: usize,
        /// What is left.
        have: usize,
    },
    /// A length or count is negative where that means nothing (keys and values may be -1, null).
    #[error("{field} has impossible length {length}")]
    Length {
        /// Which part.
        field: RecordField,
        /// What it says.
        length: i32,
    },
    /// The record's parts end before its length does.
    #[error("{bytes} bytes follow the record's last header")]
    TrailingBytes {
        /// How many bytes too many.
        bytes: usize,
    },
    /// The offset delta is not above the previous record's or above the batch's last.
    #[error("offset delta {delta} is not between {least} and {last}")]
    OffsetDelta {
        /// What it says.
        delta: i32,
        /// The least it may be.
        least: u32,
        /// The batch's last offset delta.
        last: u32,
    },
    /// Base timestamp and delta have no sum.
    #[error("timestamp delta {delta} overflows from base {base}")]
    Timestamp {
        /// The delta, in milliseconds.
        delta: i64,
        /// The batch's base timestamp.
        base: i64,
    },
    /// More headers than
    /// [`BatchLimits::headers_per_record_max`](crate::BatchLimits::headers_per_record_max).
    #[error("{count} headers; at most {limit} are allowed")]
    TooManyHeaders {
        /// What the record claims.
        count: u32,
        /// The limit.
        limit: u32,
    },
}

/// Why compressed records did not come out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// More comes out than
    /// [`BatchLimits::decompressed_bytes_max`](crate::BatchLimits::decompressed_bytes_max).
    #[error("more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// What comes out is out of proportion to what went in: a bomb.
    #[error("{compressed} bytes become more than {ratio} times as many")]
    Ratio {
        /// The compressed size in bytes.
        compressed: usize,
        /// The limit,
        /// [`BatchLimits::decompression_ratio_max`](crate::BatchLimits::decompression_ratio_max).
        ratio: usize,
    },
    /// The stream is malformed, or asks for more memory than its decoder may take.
    #[error("{reason}")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
}

/// Why a batch, well formed as it is, may not be appended for a client.
///
/// These are the rules of Kafka's `LogValidator` for batches from clients, and what follows
/// from them. Kafka answers INVALID_RECORD or, for the timestamp type, INVALID_TIMESTAMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducedBatchError {
    /// There are no records.
    #[error("batch has no records")]
    Empty,
    /// Only brokers write control batches.
    #[error("batch is a control batch, which clients may not send")]
    Control,
    /// Offsets are given by the broker, from 0 in the batch.
    #[error("batch has base offset {base_offset}; clients send 0")]
    BaseOffset {
        /// What it has.
        base_offset: u64,
    },
    /// Only compaction leaves gaps.
    #[error("batch has {count} records for {offsets} offsets")]
    Gaps {
        /// The number of records.
        count: u32,
        /// Last offset delta + 1.
        offsets: u32,
    },
    /// Only brokers set the time of appending.
    #[error("batch says LogAppendTime, which only brokers set")]
    LogAppendTime,
    /// Only compaction sets a delete horizon.
    #[error("batch has a delete horizon, which only compaction sets")]
    DeleteHorizon,
    /// An idempotent batch needs a sequence and an epoch.
    #[error("batch of producer {producer_id} has epoch {producer_epoch}, sequence {base_sequence}")]
    Sequence {
        /// The producer.
        producer_id: i64,
        /// Its epoch, negative or not.
        producer_epoch: i16,
        /// The first record's sequence number, negative or not.
        base_sequence: i32,
    },
    /// A transaction needs a producer.
    #[error("batch is transactional but has no producer id")]
    TransactionalWithoutProducer,
}

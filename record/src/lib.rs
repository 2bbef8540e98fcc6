//! What a record is: Kafka v2 batches, compression, checksums, and the buffers they lie in.
//!
//! - Memory: a [`BufferPool`] gives [`BufferMut`]s, which share what they hold as [`Buffer`]s;
//!   all of it charged to a [`Budget`].
//! - Reading: [`SplitBatches`] cuts a row of batches, [`RecordBatch::parse`] checks one whole,
//!   [`RecordBatch::records`] goes through its records, decompressed within [`BatchLimits`].
//! - Writing: a [`RecordBatchBuilder`] seals records as a batch; [`stamp`] and its neighbours
//!   change header fields later without touching records.
//!
//! This crate knows no files, sockets, clocks or log indexes. Everything here works on bytes
//! that somebody else has read, and trusts none of them: whatever they claim, the answer is a
//! typed error, never a panic, and no memory is taken on the word of a number in them.

mod allocator;
mod batch;
mod budget;
mod buffer;
mod builder;
mod compression;
mod crc;
mod error;
mod header;
mod ids;
mod layout;
mod limits;
mod record;
mod region;
mod stamp;
mod varint;

pub use allocator::let_allocator_keep;
pub use batch::{RecordBatch, Records, SplitBatches, split_buffer};
pub use budget::{Budget, BudgetExhausted, Charge};
pub use buffer::{ALIGNMENT_MAX, ALIGNMENT_MIN, BUFFER_BYTES_MAX, Buffer, BufferMut, BufferPool};
pub use builder::{AppendError, RecordBatchBuilder, SealError};
pub use compression::{Compression, UnknownCompression};
pub use crc::{crc32c, crc32c_combine};
pub use error::{BatchError, DecompressError, ProducedBatchError, RecordError, RecordField};
pub use header::{BatchHeader, ProducerStamp, TimestampType, sequence_after};
pub use ids::{
    InvalidTopicName, LeaderEpoch, Offset, TOPIC_NAME_BYTES_MAX, TopicName, TopicPartition,
};
pub use layout::{
    BATCH_HEADER_BYTES, BATCH_OVERHEAD_BYTES, BATCH_PREFIX_BYTES, MAGIC, RECORD_BYTES_MIN,
};
pub use limits::BatchLimits;
pub use record::{Header, Headers, HeadersIter, Record, RecordIter};
pub use stamp::{body_crc, set_log_append_time, set_max_timestamp, set_producer, stamp};

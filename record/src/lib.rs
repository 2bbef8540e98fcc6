//! What a record is: Kafka v2 batches, compression, checksums, and the buffers they lie in.
//!
//! This crate knows no files, sockets, clocks or log indexes. Everything here works on bytes
//! that somebody else has read, and trusts none of them.

mod buffer;
mod crc;
mod ids;

pub use buffer::{
    ALIGNMENT_MAX, ALIGNMENT_MIN, BUFFER_BYTES_MAX, Budget, BudgetExhausted, Buffer, BufferMut,
    BufferPool, Charge,
};
pub use crc::{crc32c, crc32c_combine};
pub use ids::{
    InvalidTopicName, LeaderEpoch, Offset, TOPIC_NAME_BYTES_MAX, TopicName, TopicPartition,
};

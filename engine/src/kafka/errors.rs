//! What came of an operation, in Kafka's error codes.

use highwater_protocol::ErrorCode;
use highwater_record::{BatchError, ProducedBatchError};

use crate::ops::OpError;
use crate::producer_state::ProducerError;

/// The code for an operation that failed.
///
/// A refusal that says "not appended" must be true (P82): where the outcome is open the code is
/// REQUEST_TIMED_OUT, which promises nothing.
pub(crate) fn code_of(error: &OpError) -> ErrorCode {
    match error {
        // The metadata named this node, but it has no replica: the client's are old, or ours.
        OpError::UnknownGroup | OpError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        OpError::Indefinite | OpError::Cancelled => ErrorCode::RequestTimedOut,
        OpError::Busy(_) => ErrorCode::NotEnoughReplicas,
        OpError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        OpError::OffsetOutOfRange { .. } | OpError::BelowLogStart { .. } => {
            ErrorCode::OffsetOutOfRange
        }
        OpError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        OpError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        OpError::Producer(ProducerError::OutOfOrderSequence { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        OpError::Producer(ProducerError::InvalidEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        OpError::Producer(ProducerError::UnknownProducer { .. }) => ErrorCode::UnknownProducerId,
        OpError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        OpError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

/// The code for a batch that cannot be read.
pub(crate) fn code_of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::Magic { .. } => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Codec { .. } => ErrorCode::UnsupportedCompressionType,
        BatchError::Truncated { .. }
        | BatchError::Length { .. }
        | BatchError::Crc { .. }
        | BatchError::Decompress { .. } => ErrorCode::CorruptMessage,
        BatchError::ReservedAttributes { .. }
        | BatchError::BaseOffset { .. }
        | BatchError::LastOffsetDelta { .. }
        | BatchError::RecordsCount { .. }
        | BatchError::Record { .. }
        | BatchError::TrailingBytes { .. } => ErrorCode::InvalidRecord,
    }
}

/// The code for a batch that is well formed but that a client may not send.
pub(crate) fn code_of_produced(error: &ProducedBatchError) -> ErrorCode {
    match error {
        ProducedBatchError::LogAppendTime => ErrorCode::InvalidTimestamp,
        _ => ErrorCode::InvalidRecord,
    }
}

//! What a partition knows of its idempotent producers.

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
    /// Nothing is known of the producer, and the batch is not its first.
    #[error("producer {id} is not known here")]
    UnknownProducer {
        /// The producer's id.
        id: i64,
    },
}

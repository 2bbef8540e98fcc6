//! What can go wrong, by operation.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use highwater_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode, FrameError};
use highwater_record::{BatchError, Offset, TopicPartition};
use thiserror::Error;

/// An I/O error that can be handed to everybody who waited for the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoFailure {
    /// The error's kind.
    pub kind: io::ErrorKind,
    /// What the system said.
    pub message: String,
}

impl From<io::Error> for IoFailure {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

impl fmt::Display for IoFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for IoFailure {}

/// No connection to a broker could be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The broker could not be reached, or did not want to talk.
    #[error("cannot connect to {address}: {source}")]
    Dial {
        /// Host and port.
        address: String,
        /// Why.
        source: IoFailure,
    },
    /// The broker did not answer in time.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit: [`crate::ClientBuilder::connect_timeout`].
        after: Duration,
    },
    /// The broker answered, but not as a Kafka broker does.
    #[error("{address} does not speak Kafka's protocol: {source}")]
    Handshake {
        /// Host and port.
        address: String,
        /// Why.
        source: Box<CallError>,
    },
    /// None of the bootstrap addresses could be reached.
    #[error("no broker can be reached, the last one tried: {0}")]
    Bootstrap(Box<ConnectError>),
    /// The cluster's metadata does not name a broker of this id (any more).
    #[error("broker {broker} is not in the cluster's metadata")]
    UnknownBroker {
        /// The id.
        broker: i32,
    },
    /// An address that is not `host:port`.
    #[error("{address:?} is not an address: write host:port")]
    Address {
        /// As given.
        address: String,
    },
    /// QUIC encrypts, and nobody said whose certificates to believe.
    #[error("whom to trust over QUIC? Name the cluster's CA file, or set HIGHWATER_CA, or use TCP")]
    NoTrust,
    /// The file of the authority to trust is of no use.
    #[error("cannot trust {}: {reason}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No bootstrap address was given.
    #[error("no broker to start from: give at least one host:port")]
    NoBootstrap,
}

/// A request got no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// No connection to the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer came. The request may or may not have been served.
    #[error("the connection to {address} was lost: {reason}")]
    ConnectionLost {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The answer did not come in time. The request may or may not have been served.
    #[error("{address} did not answer {key} within {after:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// What was asked.
        key: ApiKey,
        /// The limit: [`crate::ClientBuilder::request_timeout`].
        after: Duration,
    },
    /// The broker and this client have no version of this request in common.
    #[error("{address} does not serve {key} in a version that this client speaks")]
    Unsupported {
        /// Host and port.
        address: String,
        /// What was to be asked.
        key: ApiKey,
    },
    /// The answer's bytes do not hold the format.
    #[error("{address} answered {key} with bytes that make no sense: {source}")]
    Decode {
        /// Host and port.
        address: String,
        /// What was asked.
        key: ApiKey,
        /// What is wrong.
        source: DecodeError,
    },
    /// The request cannot be written in the version agreed on.
    #[error("the request cannot be sent to {address}: {source}")]
    Encode {
        /// Host and port.
        address: String,
        /// What is wrong.
        source: EncodeError,
    },
    /// The broker answered with an error.
    #[error("{address} answered {key} with {error}")]
    Refused {
        /// Host and port.
        address: String,
        /// What was asked.
        key: ApiKey,
        /// The broker's error.
        error: ErrorCode,
    },
}

impl CallError {
    /// Whether the same request may succeed on another connection, or at another broker.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect(error) => !matches!(
                error,
                ConnectError::NoBootstrap
                    | ConnectError::Address { .. }
                    | ConnectError::NoTrust
                    | ConnectError::Trust { .. }
            ),
            Self::ConnectionLost { .. } | Self::Timeout { .. } => true,
            Self::Unsupported { .. } | Self::Decode { .. } | Self::Encode { .. } => false,
            Self::Refused { error, .. } => error.is_retriable(),
        }
    }

    /// Whether the broker may have done what was asked although no answer says so.
    #[must_use]
    pub(crate) fn leaves_outcome_open(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLost { .. } | Self::Timeout { .. } | Self::Decode { .. }
        )
    }
}

/// Why a connection's bytes could not be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum StreamError {
    #[error("{0}")]
    Io(IoFailure),
    #[error("the broker closed it")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("response {received} came where {expected} was due")]
    OutOfOrder { received: i32, expected: i32 },
    #[error("response {received} came where none was due")]
    Unexpected { received: i32 },
    #[error("{0}")]
    Header(#[from] DecodeError),
    #[error("request {correlation_id} was not answered in time")]
    Overdue { correlation_id: i32 },
    #[error("it did not answer, and another broker leads now")]
    Deposed,
    #[error("the client was closed")]
    Shutdown,
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        Self::Io(error.into())
    }
}

/// The metadata of a topic could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// No broker answered.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The topic does not exist, and was not created by asking for it.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic cannot be used.
    #[error("topic {topic}: {error}")]
    Topic {
        /// Its name.
        topic: String,
        /// The broker's error.
        error: ErrorCode,
    },
    /// The topic exists, the partition does not.
    #[error("topic {topic} has {partitions} partitions, there is no {partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
}

/// A record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProduceError {
    /// The topic is not there. Nothing was sent.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The record exceeds [`crate::ProducerBuilder::record_bytes_max`]. Nothing was sent.
    #[error("a record of {bytes} bytes exceeds the limit of {bytes_max}")]
    RecordTooLarge {
        /// The record's size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The record cannot be put into a batch. Nothing was sent.
    #[error("the record cannot be encoded: {reason}")]
    Encode {
        /// What the encoder says.
        reason: String,
    },
    /// The broker refused the batch for good. The record is not in the log.
    #[error("{partition} refused the batch: {error}{}", detail(.message))]
    Refused {
        /// Where it should have gone.
        partition: TopicPartition,
        /// The broker's error.
        error: ErrorCode,
        /// The broker's words, if it had any.
        message: Option<String>,
    },
    /// The broker gives out no producer ids, which an idempotent producer needs. The record is
    /// not in the log, unless an earlier attempt got no answer.
    #[error("no producer id: {source}")]
    NoProducerId {
        /// Why.
        source: CallError,
    },
    /// The delivery timeout passed before the batch was sent, or after refusals only. The record
    /// is not in the log.
    #[error("{partition}: not delivered within {after:?}: {reason}")]
    Expired {
        /// Where it should have gone.
        partition: TopicPartition,
        /// The limit: [`crate::ProducerBuilder::delivery_timeout`].
        after: Duration,
        /// What went wrong last.
        reason: String,
    },
    /// The delivery timeout passed after an attempt without an answer, or an earlier batch was
    /// given up after one. **The record may be in the log or not.**
    #[error("{partition}: unknown whether it was delivered: {reason}")]
    OutcomeUnknown {
        /// Where it should have gone.
        partition: TopicPartition,
        /// What went wrong last.
        reason: String,
    },
}

fn detail(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|message| format!(" ({message})"))
        .unwrap_or_default()
}

/// Records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConsumeError {
    /// A topic is not there.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The position is outside of what the partition holds, and the policy is
    /// [`crate::OutOfRange::Fail`]. Seek, then go on.
    #[error("{partition}: offset {offset} is not there any more, or not yet")]
    OffsetOutOfRange {
        /// Where.
        partition: TopicPartition,
        /// The position.
        offset: Offset,
    },
    /// What the broker sent is not a record batch, or not whole. Nothing of the batch was given
    /// out; the position stays at its beginning. Seek beyond it to go on without its records.
    #[error("{partition}: the batch at offset {offset} cannot be read: {source}")]
    CorruptBatch {
        /// Where.
        partition: TopicPartition,
        /// The position.
        offset: Offset,
        /// What is wrong.
        source: BatchError,
    },
    /// A batch is larger than [`crate::ConsumerBuilder::partition_bytes_max`] and the broker cuts
    /// it off instead of sending it whole.
    #[error("{partition}: the batch at offset {offset} exceeds {bytes_max} bytes")]
    BatchTooLarge {
        /// Where.
        partition: TopicPartition,
        /// The position.
        offset: Offset,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The broker refused for good.
    #[error("{partition}: {error}")]
    Refused {
        /// Where.
        partition: TopicPartition,
        /// The broker's error.
        error: ErrorCode,
    },
    /// A broker's answer could not be used and trying again does not help.
    #[error(transparent)]
    Call(CallError),
    /// The partition was not assigned to this consumer.
    #[error("{partition} is not assigned")]
    NotAssigned {
        /// Which.
        partition: TopicPartition,
    },
    /// Nothing is assigned, so no record can ever come.
    #[error("nothing is assigned")]
    NothingAssigned,
}

/// A task of administration failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// No usable answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A topic is not there.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The broker refused.
    #[error("{subject}: {error}{}", detail(.message))]
    Refused {
        /// What it was about: a topic, a broker.
        subject: String,
        /// The broker's error.
        error: ErrorCode,
        /// The broker's words, if it had any.
        message: Option<String>,
    },
    /// The broker's answer says nothing about what was asked.
    #[error("the answer does not mention {subject}")]
    Missing {
        /// What it was about.
        subject: String,
    },
}

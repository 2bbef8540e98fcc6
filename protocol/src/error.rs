//! What can be wrong with bytes that claim to be Kafka messages.

use thiserror::Error;

use crate::ApiKey;

/// A request's or response's bytes do not follow Kafka's format. The sender's fault: answer or
/// close, never trust the rest of the frame. Positions count from the start of the frame, behind
/// its length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame ends before a field that it announces.
    #[error("byte {at}: {needed} bytes are announced, the frame has {remaining} left")]
    Truncated {
        /// Where the field begins.
        at: usize,
        /// Bytes the field needs at least.
        needed: usize,
        /// Bytes that are there.
        remaining: usize,
    },
    /// A length below -1.
    #[error("byte {at}: length {length} is negative")]
    NegativeLength {
        /// Where the length stands.
        at: usize,
        /// The length as sent.
        length: i32,
    },
    /// Null where a value must be.
    #[error("byte {at}: null is not allowed here")]
    Null {
        /// Where the value should be.
        at: usize,
    },
    /// An unsigned varint of more than 32 bits.
    #[error("byte {at}: the varint does not end within 32 bits")]
    VarintTooLong {
        /// Where the varint begins.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("byte {at}: the string is not UTF-8")]
    NotUtf8 {
        /// Where the string begins.
        at: usize,
    },
    /// More array elements than a message may hold: [`crate::REQUEST_ELEMENTS_MAX`] or
    /// [`crate::RESPONSE_ELEMENTS_MAX`].
    #[error("more than {elements_max} array elements in one message")]
    TooManyElements {
        /// The limit.
        elements_max: usize,
    },
    /// More tagged fields than a message may hold: [`crate::TAGGED_FIELDS_MAX`].
    #[error("more than {tagged_fields_max} tagged fields in one message")]
    TooManyTaggedFields {
        /// The limit.
        tagged_fields_max: usize,
    },
    /// Bytes behind the message's end.
    #[error("byte {at}: {count} bytes follow the end of the message")]
    TrailingBytes {
        /// Where the message ends.
        at: usize,
        /// Bytes that follow.
        count: usize,
    },
    /// The version is not one that this crate decodes.
    #[error("{key} version {version} is not supported")]
    UnsupportedVersion {
        /// Which request.
        key: ApiKey,
        /// The version as sent.
        version: i16,
    },
    /// The structure holds, a value in it does not.
    #[error("{key} version {version}: {reason}")]
    Invalid {
        /// Which request.
        key: ApiKey,
        /// Its version.
        version: i16,
        /// What the decoder says.
        reason: String,
    },
}

/// A message cannot be written in the version asked for. The caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The version is not one that this crate encodes.
    #[error("{key} version {version} cannot be encoded")]
    UnsupportedVersion {
        /// Which message.
        key: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// A field is set that the version does not have, or a value is out of the format's range.
    #[error("{key} version {version}: {reason}")]
    Unrepresentable {
        /// Which message.
        key: ApiKey,
        /// The version asked for.
        version: i16,
        /// What the encoder says.
        reason: String,
    },
    /// The frame's length does not fit its INT32 prefix.
    #[error("{key}: a frame of {length} bytes exceeds Kafka's {max}", max = i32::MAX)]
    FrameTooLarge {
        /// Which message.
        key: ApiKey,
        /// The frame's length in bytes.
        length: usize,
    },
}

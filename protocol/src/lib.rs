//! Kafka's requests and answers: versions, codecs, error codes.
//!
//! This crate knows bytes and their meaning in the protocol, and nothing of who sends them or
//! what a server does about them. It does no I/O and takes no time.
//!
//! - [`ApiKey`] and its [`Versions`] are the table of what is spoken.
//! - A server reads a frame's [`RequestHeader`], decodes a [`Request`], and encodes a
//!   [`Response`]. A client encodes a [`Call`] and decodes its answer.
//! - Produce and Fetch are written by hand, so that records are never copied. All other messages
//!   come from [`messages`].
//! - Bytes from the wire are never trusted: see [`DecodeError`], and the limits
//!   [`REQUEST_ELEMENTS_MAX`] and [`TAGGED_FIELDS_MAX`].
//!
//! ```
//! use bytes::Bytes;
//! use highwater_protocol::messages::MetadataRequest;
//! use highwater_protocol::{ApiKey, Call, Request, RequestHeader, LENGTH_BYTES};
//!
//! let header = RequestHeader {
//!     key: ApiKey::Metadata,
//!     version: 9,
//!     correlation_id: 1,
//!     client_id: None,
//! };
//! let chunks = MetadataRequest::default().with_topics(None).encode(&header)?;
//!
//! // The receiver takes the length off and decodes what follows.
//! let frame = Bytes::from(chunks.concat()).slice(LENGTH_BYTES..);
//! let (received, body) = RequestHeader::decode(&frame)?;
//! assert_eq!(received, header);
//! let Request::Metadata(metadata) = Request::decode(&received, &frame, body)? else {
//!     unreachable!("the header says Metadata");
//! };
//! assert!(metadata.topics.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod error_code;
mod fetch;
mod frame;
mod header;
pub mod messages;
mod produce;
mod request;
mod schema;
#[cfg(test)]
mod tests;
mod versions;
mod wire;

pub use error::{DecodeError, EncodeError};
pub use error_code::ErrorCode;
pub use fetch::{
    AbortedTransaction, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse,
    FetchTopic, FetchTopicResponse, ForgottenTopic, IsolationLevel,
};
pub use frame::{Frame, FrameError, LENGTH_BYTES, frame_length, split_frame};
pub use header::{HeaderError, RequestHeader, decode_response_header};
pub use produce::{
    Acks, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    ProduceTopic, ProduceTopicResponse, RecordError,
};
pub use request::{Call, Request, Response, encode_unsupported_api_versions};
pub use versions::{ApiKey, Versions, api_versions_request, api_versions_response};
pub use wire::{REQUEST_ELEMENTS_MAX, RESPONSE_ELEMENTS_MAX, TAGGED_FIELDS_MAX};

//! Comparison with the generated crate, and bytes that lie.

mod hand_written;
mod hostile;
mod schemas;

use bytes::Bytes;

use crate::{Call, ErrorCode, LENGTH_BYTES, RequestHeader};

/// A frame in one piece, its length checked and taken off.
fn body_of(chunks: &[Bytes]) -> Bytes {
    let frame = Bytes::from(chunks.concat());
    let length = u32::from_be_bytes(frame[..LENGTH_BYTES].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), frame.len() - LENGTH_BYTES);
    frame.slice(LENGTH_BYTES..)
}

fn header<C: Call>(version: i16) -> RequestHeader {
    RequestHeader {
        key: C::KEY,
        version,
        correlation_id: 11,
        client_id: Some("tests".into()),
    }
}

/// An error code by chance, unknown ones among them.
fn error_code(rng: &mut fastrand::Rng) -> ErrorCode {
    ErrorCode::from_code(rng.i16(-1..140))
}

//! Frames: a message behind its length, an INT32, on a byte stream. Without I/O.

use std::ops::{Deref, Range};

use bytes::{BufMut, Bytes, BytesMut};
use highwater_record::Buffer;
use thiserror::Error;

use crate::{ApiKey, EncodeError};

/// Bytes of the length in front of every message.
pub const LENGTH_BYTES: usize = 4;

/// Refcounted bytes that can be cut without copying: a server's pooled
/// [`Buffer`], a client's [`Bytes`].
pub trait Frame: Deref<Target = [u8]> + Clone {
    /// A part of these bytes that shares their memory.
    ///
    /// # Panics
    /// If the range goes beyond the end.
    #[must_use]
    fn cut(&self, range: Range<usize>) -> Self;
}

impl Frame for Buffer {
    fn cut(&self, range: Range<usize>) -> Self {
        self.slice(range)
    }
}

impl Frame for Bytes {
    fn cut(&self, range: Range<usize>) -> Self {
        self.slice(range)
    }
}

/// A length prefix that no message of ours has. The stream cannot be followed any further: close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A length below zero.
    #[error("frame length {length} is negative")]
    Negative {
        /// The length as sent.
        length: i32,
    },
    /// A length above the receiver's limit.
    #[error("frame of {length} bytes exceeds the limit of {length_max}")]
    TooLarge {
        /// The length as sent, in bytes.
        length: usize,
        /// The limit, in bytes.
        length_max: usize,
    },
}

/// Reads the length prefix of the next frame: how many bytes the message has.
///
/// Nothing is allocated; the receiver reserves memory for the answer against its own budget.
///
/// # Errors
/// [`FrameError`] if the length is negative or above `length_max` bytes.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], length_max: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Err(_) => Err(FrameError::Negative { length }),
        Ok(length) if length > length_max => Err(FrameError::TooLarge { length, length_max }),
        Ok(length) => Ok(length),
    }
}

/// Takes the first whole message off `stream`, without its length; `None` if more bytes must
/// arrive first. For receivers that gather into one growing buffer.
///
/// # Errors
/// [`FrameError`] if the length is negative or above `length_max` bytes.
pub fn split_frame(stream: &mut BytesMut, length_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(&prefix) = stream.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = frame_length(prefix, length_max)?;
    if stream.len() - LENGTH_BYTES < length {
        return Ok(None);
    }
    let mut frame = stream.split_to(LENGTH_BYTES + length);
    Ok(Some(frame.split_off(LENGTH_BYTES).freeze()))
}

/// A frame under construction: small encoded parts with refcounted spans between them.
///
/// Large spans are spliced in without copying and leave as chunks of their own; the length prefix
/// is filled in at the end.
pub(crate) struct FrameBuilder {
    /// The part that begins with the length, once a span has cut it off.
    first: Option<BytesMut>,
    rest: Vec<Bytes>,
    rest_bytes: usize,
}

/// Spans shorter than this are copied into the encoded part before them: a chunk of its own costs
/// more (an entry of a gathering write, a packet's boundary) than moving so few bytes.
pub(crate) const SPLICE_BYTES_MIN: usize = 1_024;

/// Room for the encoded part of a small message, so that most frames are one allocation.
const ENCODED_BYTES_USUAL: usize = 256;

impl FrameBuilder {
    /// An empty frame and the buffer to encode into, which begins with room for the length.
    pub(crate) fn begin() -> (Self, BytesMut) {
        let mut bytes = BytesMut::with_capacity(ENCODED_BYTES_USUAL);
        bytes.put_i32(0);
        let builder = Self {
            first: None,
            rest: Vec::new(),
            rest_bytes: 0,
        };
        (builder, bytes)
    }

    /// Puts a span behind what has been encoded so far.
    pub(crate) fn splice(&mut self, bytes: &mut BytesMut, span: &Bytes) {
        if span.len() < SPLICE_BYTES_MIN {
            bytes.extend_from_slice(span);
            return;
        }
        self.push_encoded(bytes.split());
        self.push(span.clone());
    }

    /// Fills in the length. The first chunk begins with it.
    pub(crate) fn finish(
        mut self,
        key: ApiKey,
        bytes: BytesMut,
    ) -> Result<Vec<Bytes>, EncodeError> {
        self.push_encoded(bytes);
        let mut first = self
            .first
            .expect("the encoded part that begins with the length was just pushed");
        let length = first.len() - LENGTH_BYTES + self.rest_bytes;
        let prefix =
            i32::try_from(length).map_err(|_| EncodeError::FrameTooLarge { key, length })?;
        first[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
        let mut chunks = self.rest;
        chunks.insert(0, first.freeze());
        Ok(chunks)
    }

    fn push_encoded(&mut self, part: BytesMut) {
        if self.first.is_none() {
            self.first = Some(part);
        } else if !part.is_empty() {
            self.push(part.freeze());
        }
    }

    fn push(&mut self, chunk: Bytes) {
        self.rest_bytes += chunk.len();
        self.rest.push(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_anything_else() {
        assert_eq!(frame_length([0, 0, 1, 0], 256), Ok(256));
        assert_eq!(
            frame_length([0, 0, 1, 1], 256),
            Err(FrameError::TooLarge {
                length: 257,
                length_max: 256
            })
        );
        assert_eq!(
            frame_length([0xff; 4], 256),
            Err(FrameError::Negative { length: -1 })
        );
        assert_eq!(frame_length([0; 4], 256), Ok(0));
    }

    #[test]
    fn frames_split_off_a_stream_as_they_become_whole() {
        let mut stream = BytesMut::from(&b"\0\0\0\x03ab"[..]);
        assert_eq!(split_frame(&mut stream, 8), Ok(None));
        stream.extend_from_slice(b"c\0\0\0\0\0\0");
        assert_eq!(split_frame(&mut stream, 8), Ok(Some(Bytes::from("abc"))));
        assert_eq!(split_frame(&mut stream, 8), Ok(Some(Bytes::new())));
        assert_eq!(split_frame(&mut stream, 8), Ok(None));
        assert_eq!(&stream[..], b"\0\0");
    }

    #[test]
    fn spans_are_spliced_and_short_ones_copied() {
        let (mut builder, mut bytes) = FrameBuilder::begin();
        bytes.extend_from_slice(b"head");
        let long = Bytes::from(vec![7_u8; SPLICE_BYTES_MIN]);
        builder.splice(&mut bytes, &Bytes::from_static(b"short"));
        builder.splice(&mut bytes, &long);
        bytes.extend_from_slice(b"tail");
        let chunks = builder.finish(ApiKey::Fetch, bytes).unwrap();
        assert_eq!(&chunks[0][..], b"\0\0\x04\x0dheadshort");
        assert_eq!(chunks[1].as_ptr(), long.as_ptr());
        assert_eq!(&chunks[2][..], b"tail");
        assert_eq!(chunks.len(), 3);
    }
}

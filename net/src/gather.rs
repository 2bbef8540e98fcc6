//! Reads a QUIC stream as it came: the packets' own bytes, copied once into their place.

use bytes::Bytes;
use highwater_record::BufferMut;
use quinn::{ReadError, RecvStream};

/// How many pieces are taken from the connection at once: each time costs its lock.
const CHUNKS: usize = 16;

/// A stream and the pieces of it that have been taken but not used.
pub(crate) struct Gather {
    stream: RecvStream,
    chunks: [Bytes; CHUNKS],
    /// The pieces in `at..filled` are still to be used.
    at: usize,
    filled: usize,
}

impl Gather {
    pub(crate) fn new(stream: RecvStream) -> Gather {
        Gather {
            stream,
            chunks: std::array::from_fn(|_| Bytes::new()),
            at: 0,
            filled: 0,
        }
    }

    /// The next bytes, at least one; nothing when the stream has been finished. Nothing is lost
    /// if this is dropped before it is done.
    pub(crate) async fn fill(&mut self) -> Result<Option<&mut Bytes>, ReadError> {
        while self.at < self.filled && self.chunks[self.at].is_empty() {
            self.at += 1;
        }
        if self.at == self.filled {
            match self.stream.read_chunks(&mut self.chunks).await? {
                None => return Ok(None),
                Some(filled) => {
                    self.at = 0;
                    self.filled = filled;
                }
            }
        }
        Ok(self.chunks[..self.filled].get_mut(self.at))
    }

    /// Fills `target` from `*done` on; `false` when the stream ends before. `done` counts what is
    /// there, so that this may be dropped and called again.
    pub(crate) async fn read_array(
        &mut self,
        target: &mut [u8],
        done: &mut usize,
    ) -> Result<bool, ReadError> {
        while *done < target.len() {
            let Some(chunk) = self.fill().await? else {
                return Ok(false);
            };
            let piece = chunk.split_to(chunk.len().min(target.len() - *done));
            target[*done..*done + piece.len()].copy_from_slice(&piece);
            *done += piece.len();
        }
        Ok(true)
    }

    /// Appends to `buffer` until it has `length` bytes; `false` when the stream ends before. May
    /// be dropped and called again.
    pub(crate) async fn read_buffer(
        &mut self,
        buffer: &mut BufferMut,
        length: usize,
    ) -> Result<bool, ReadError> {
        while buffer.len() < length {
            let Some(chunk) = self.fill().await? else {
                return Ok(false);
            };
            let piece = chunk.split_to(chunk.len().min(length - buffer.len()));
            buffer.extend_from_slice(&piece);
            buffer.sum_written();
        }
        Ok(true)
    }
}

//! Ways to a broker: something that dials, and carries frames both ways.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// A stream to a broker.
pub struct Link {
    /// What comes from the broker.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes to it.
    pub writer: Box<dyn ChunkWriter>,
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Link")
    }
}

/// The sending side of a [`Link`]. Takes refcounted chunks, so that records need not be copied.
pub trait ChunkWriter: Send {
    /// Writes all chunks, in order, and gives them up.
    fn write<'a>(&'a mut self, chunks: Vec<Bytes>) -> BoxFuture<'a, io::Result<()>>;
}

/// Dials brokers. One per [`crate::Client`].
pub trait Transport: fmt::Debug + Send + Sync {
    /// Opens a stream to a broker; each call makes a new one.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Link>>;
}

/// Plain TCP, as every Kafka broker serves it. Nothing is encrypted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Tcp {
    /// The transport, shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Transport> {
        Arc::new(Self)
    }
}

impl Transport for Tcp {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            Ok(Link {
                reader: Box::new(reader),
                writer: Box::new(TcpWriter { writer }),
            })
        })
    }
}

struct TcpWriter {
    writer: OwnedWriteHalf,
}

/// Chunks that one gathering write takes at most; the system's own limit is 1,024.
const GATHERED_CHUNKS_MAX: usize = 64;

impl ChunkWriter for TcpWriter {
    fn write<'a>(&'a mut self, chunks: Vec<Bytes>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut chunks = chunks;
            let mut first = 0;
            while first < chunks.len() {
                if chunks[first].is_empty() {
                    first += 1;
                    continue;
                }
                let end = chunks.len().min(first + GATHERED_CHUNKS_MAX);
                let slices: Vec<_> = chunks[first..end]
                    .iter()
                    .map(|chunk| io::IoSlice::new(chunk))
                    .collect();
                let written = self.writer.write_vectored(&slices).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                first = advance(&mut chunks, first, written);
            }
            Ok(())
        })
    }
}

/// Takes `written` bytes off the front and says which chunk comes next.
fn advance(chunks: &mut [Bytes], mut first: usize, mut written: usize) -> usize {
    while written > 0 {
        let chunk = &mut chunks[first];
        let taken = written.min(chunk.len());
        chunk.advance(taken);
        written -= taken;
        if chunk.is_empty() {
            first += 1;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_goes_on_within_its_chunk() {
        let mut chunks = vec![Bytes::from("abc"), Bytes::from("de"), Bytes::from("f")];
        assert_eq!(advance(&mut chunks, 0, 4), 1);
        assert_eq!(chunks[1], "e");
        assert_eq!(advance(&mut chunks, 1, 1), 2);
        assert_eq!(advance(&mut chunks, 2, 1), 3);
    }
}

//! Ways to a broker: something that dials, and carries frames both ways.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use highwater_net::kafka::write_chunks;
use tokio::io::AsyncRead;
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
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;
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

impl ChunkWriter for TcpWriter {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(write_chunks(&mut self.writer, chunks))
    }
}

//! Brokers over QUIC, as Highwater's own serve it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use highwater_net::kafka::{ChunkWrite, QuicDialer, QuicStream, QuicWriter};
use highwater_net::{ClientTls, Datagrams, TlsError, Trust};

use crate::transport::{ChunkWriter, Link, Transport};

/// QUIC, encrypted; a broker must show a certificate that a trusted authority has signed for the
/// host that is dialled. The port is that of Kafka over TCP, in UDP.
///
/// Each producer, consumer and what they share has a connection of its own to a broker: QUIC's
/// windows count over all streams of a connection, so records that are read slowly would hold up
/// others.
#[derive(Debug)]
pub struct Quic {
    dialer: QuicDialer,
}

/// How long one address of a host is tried before the next is tried beside it. Where nobody
/// listens, UDP gives no answer at all.
const STAGGER: Duration = Duration::from_millis(200);

impl Quic {
    /// The transport, shared; it believes what the authorities of `trust` have signed.
    ///
    /// # Errors
    /// If an authority's certificate cannot be used.
    pub fn shared(trust: &Trust) -> Result<Arc<dyn Transport>, TlsError> {
        Self::shared_with(trust, Datagrams::default())
    }

    /// The same, with other sizes of UDP payloads to try.
    ///
    /// # Errors
    /// If an authority's certificate cannot be used.
    pub fn shared_with(
        trust: &Trust,
        datagrams: Datagrams,
    ) -> Result<Arc<dyn Transport>, TlsError> {
        let tls = ClientTls::new(trust)?;
        Ok(Arc::new(Self {
            dialer: QuicDialer::new(tls, datagrams),
        }))
    }

    async fn open(&self, address: SocketAddr, name: &str) -> io::Result<QuicStream> {
        let connection = self
            .dialer
            .connect(address, name)
            .await
            .map_err(io::Error::other)?;
        connection.open().await
    }

    /// The first of a host's addresses that answers.
    async fn open_any(&self, host: &str, port: u16) -> io::Result<QuicStream> {
        let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        // Most listeners are bound to one family, and that is the older.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut addresses = addresses.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        loop {
            let next = addresses.next();
            let is_last = next.is_none();
            attempts.extend(next.map(|address| self.open(address, host)));
            let wait = match is_last {
                // All have begun: there is nothing to wait for but them.
                true => attempts.next().await,
                false => match tokio::time::timeout(STAGGER, attempts.next()).await {
                    Ok(attempt) => attempt,
                    Err(_) => continue,
                },
            };
            match wait {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None if is_last => return Err(last),
                None => {}
            }
        }
    }
}

impl Transport for Quic {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let stream = self.open_any(host, port).await?;
            Ok(Link {
                reader: Box::new(stream.reader),
                writer: Box::new(Writer {
                    stream: stream.writer,
                }),
            })
        })
    }
}

struct Writer {
    stream: QuicWriter,
}

impl ChunkWriter for Writer {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.stream.write_chunks(chunks))
    }
}

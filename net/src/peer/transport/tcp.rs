//! Lanes over TCP with TLS 1.3: a connection each, and in it [segments](super::segment).
//!
//! The kernel's keepalives and `TCP_USER_TIMEOUT` are not used. The first are answered for a
//! process that hangs; the second (since Linux 5.11) also ends a connection whose other end is
//! there but does not read, which is what a follower with a slow disk does. So the ends say
//! themselves that they are there, and a reader counts the silence while it waits.
//!
//! Socket buffers are left to the kernel, which grows them as far as its administrator allows
//! (`net.ipv4.tcp_rmem` and `tcp_wmem`, 6 and 4 MiB by default): a size of our own would switch
//! that off and is cut to `net.core.rmem_max`, a thirtieth of it by default.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use highwater_record::BufferMut;
use rustls::CommonState;
use rustls_pki_types::ServerName;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{self, watch};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::segment::{SEGMENT_BYTES_MAX, SegmentReader, SegmentWriter};
use super::{Goodbye, KEEP_ALIVE, Lost, Receiver, Sender, Target, Written};
use crate::identity::NodeIdentity;
use crate::kafka::bind_tcp;
use crate::peer::PeerConfig;
use crate::quic::socket_closed;
use crate::tls::{self, CertificateError, PeerDialTls, PeerTls};

/// How long to wait after accept(2) has failed: what is missing (a file descriptor, memory) is
/// not there a moment later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a goodbye may take. It goes into an empty buffer, or nobody reads.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

/// What TLS takes of us at once, in bytes, before it is given to the kernel: a segment and what
/// TLS adds to it.
const TLS_BUFFER_BYTES: usize = SEGMENT_BYTES_MAX + (16 << 10);

pub(in crate::peer) struct TcpEndpoint {
    /// Nothing if it only connects, or is closed.
    listener: Mutex<Option<Arc<TcpListener>>>,
    closing: watch::Sender<bool>,
    /// Where connections come from, as far as the others can see.
    from: IpAddr,
}

impl TcpEndpoint {
    pub(super) fn listen(config: &PeerConfig) -> io::Result<TcpEndpoint> {
        let listener = TcpListener::from_std(bind_tcp(config.listen, false)?)?;
        let endpoint = TcpEndpoint::dialer(config);
        *endpoint.handle() = Some(Arc::new(listener));
        Ok(endpoint)
    }

    pub(super) fn dialer(config: &PeerConfig) -> TcpEndpoint {
        TcpEndpoint {
            listener: Mutex::default(),
            closing: watch::Sender::new(false),
            from: config.listen.ip(),
        }
    }

    fn handle(&self) -> MutexGuard<'_, Option<Arc<TcpListener>>> {
        self.listener
            .lock()
            .expect("nothing panics while it holds the listener")
    }

    fn open(&self) -> Option<Arc<TcpListener>> {
        self.handle().clone()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.open() {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) async fn accept(&self) -> Option<TcpIncoming> {
        let mut closing = self.closing.subscribe();
        loop {
            let listener = self.open()?;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return None,
            };
            match accepted {
                Ok((stream, address)) => return Some(TcpIncoming { stream, address }),
                Err(error) => {
                    tracing::warn!(%error, "a peer cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    pub(super) async fn connect(
        &self,
        tls: &PeerDialTls,
        to: Target<'_>,
    ) -> Result<TcpConnection, Lost> {
        let name = ServerName::try_from(to.name.to_owned()).map_err(Lost::new)?;
        let stream = self.dial(to.address).await.map_err(Lost::new)?;
        let connector = TlsConnector::from(tls.tcp.clone());
        let connected = connector.connect(name, stream).await.map_err(Lost::new)?;
        Ok(TcpConnection::new(TlsStream::Client(connected)))
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.from.is_ipv4() == address.is_ipv4() && !self.from.is_unspecified() {
            socket.bind(SocketAddr::new(self.from, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        self.handle().take();
    }

    pub(super) async fn shut(&self) {
        let listener = self.open().map(|listener| Arc::downgrade(&listener));
        self.close();
        if let Some(listener) = listener {
            socket_closed(listener).await;
        }
    }
}

pub(in crate::peer) struct TcpIncoming {
    stream: TcpStream,
    address: SocketAddr,
}

impl TcpIncoming {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn accept(self, tls: &PeerTls) -> Result<TcpConnection, Lost> {
        self.stream.set_nodelay(true).map_err(Lost::new)?;
        let acceptor = TlsAcceptor::from(tls.server.tcp.clone());
        let accepted = acceptor.accept(self.stream).await.map_err(Lost::new)?;
        Ok(TcpConnection::new(TlsStream::Server(accepted)))
    }
}

type Stream = TlsStream<TcpStream>;

/// Written by one task; by another, once that has ended, for the goodbye.
type Writer = Arc<sync::Mutex<SegmentWriter<WriteHalf<Stream>>>>;

pub(in crate::peer) struct TcpConnection {
    identity: Result<NodeIdentity, CertificateError>,
    writer: Writer,
    /// Until its stream is taken.
    reader: Option<TcpReceiver>,
}

impl TcpConnection {
    fn new(mut stream: Stream) -> TcpConnection {
        match &mut stream {
            TlsStream::Client(stream) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES))
            }
            TlsStream::Server(stream) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES))
            }
        }
        let identity = identity(stream.get_ref().1);
        let (read, write) = split(stream);
        TcpConnection {
            identity,
            writer: Arc::new(sync::Mutex::new(SegmentWriter::new(write))),
            reader: Some(TcpReceiver(SegmentReader::new(read))),
        }
    }

    pub(super) fn identity(&self) -> Result<NodeIdentity, CertificateError> {
        self.identity.clone()
    }

    /// The one stream that a connection has.
    pub(super) fn stream(&mut self) -> (Sender, Receiver) {
        let reader = self.reader.take().expect("a lane's stream is taken once");
        let sender = TcpSender(self.writer.clone());
        (Sender::Tcp(sender), Receiver::Tcp(reader))
    }

    /// A farewell is of use only where nobody writes any more, and where what was being written
    /// came to its end.
    pub(super) async fn close(self, why: Goodbye) {
        if let Ok(mut writer) = self.writer.try_lock() {
            // Who does not hear it notices that the connection has ended.
            let _ = timeout(GOODBYE_TIMEOUT, writer.goodbye(why)).await;
        }
    }
}

/// By the certificate that TLS has verified.
fn identity(tls: &CommonState) -> Result<NodeIdentity, CertificateError> {
    match tls.peer_certificates() {
        Some([certificate, ..]) => tls::identity_of(certificate),
        _ => Err(CertificateError::NotANode { found: 0 }),
    }
}

pub(in crate::peer) struct TcpSender(Writer);

impl TcpSender {
    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<Written, Lost> {
        self.0.lock().await.write(chunks).await
    }

    #[cfg(test)]
    pub(super) async fn finish(&mut self) {
        self.0.lock().await.finish().await.unwrap();
    }

    pub(super) async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Lost> {
        let mut next = std::pin::pin!(next);
        loop {
            match timeout(KEEP_ALIVE, next.as_mut()).await {
                Ok(next) => return Ok(next),
                Err(_) => self.0.lock().await.alive().await?,
            }
        }
    }
}

pub(in crate::peer) struct TcpReceiver(SegmentReader<ReadHalf<Stream>>);

impl TcpReceiver {
    pub(super) async fn read_array(&mut self, target: &mut [u8]) -> Result<bool, Lost> {
        self.0.read_array(target).await
    }

    pub(super) async fn read_buffer(
        &mut self,
        buffer: &mut BufferMut,
        length: usize,
    ) -> Result<bool, Lost> {
        self.0.read_buffer(buffer, length).await
    }
}

//! Kafka's protocol over QUIC: each bidirectional stream is a pipeline of requests and answers,
//! as a TCP connection is. A client opens one for each pipeline, never one for a request.
//!
//! The listener proves by its certificate that it is the cluster's; the client, which trusts the
//! cluster's authority, shows none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::admission::{Admission, Permit};
use super::frame::ChunkWrite;
use crate::quic::{self, Datagrams, IncomingLimits, Path, Shape};
use crate::tls::{ClientTls, ListenerTls};

/// How many pipelines a connection may have at once.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 16;

/// How many connections may be in their handshake at once.
const HANDSHAKES_MAX: usize = 256;

/// With fewer places left, a newcomer must first prove that its address is its own.
const RETRY_BELOW: usize = HANDSHAKES_MAX / 2;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many new streams wait to be taken by the server before no more are accepted.
const STREAMS_WAITING_MAX: usize = 64;

/// What is kept of newcomers before they are let in, in bytes.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFER_BYTES_TOTAL: u64 = 4 << 20;

/// What a client may send before it has been read, in bytes, its streams together. QUIC holds it
/// beside the memory budget, so it is little, and times the number of connections not little.
const SERVER_RECEIVE_WINDOW: u32 = 2 << 20;

/// What may be on its way to a client, in bytes: refcounted spans, not copies.
const SERVER_SEND_WINDOW: u64 = 8 << 20;

const CLIENT_STREAM_RECEIVE_WINDOW: u32 = 16 << 20;
const CLIENT_RECEIVE_WINDOW: u32 = 32 << 20;
const CLIENT_SEND_WINDOW: u64 = 16 << 20;

/// A client says that it is there after so much silence; a server that does not answer is given
/// up after so much.
const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(5);
const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Application error codes of closed connections and streams.
const CLOSED: VarInt = VarInt::from_u32(0);
const REFUSED: VarInt = VarInt::from_u32(1);
const IDLE: VarInt = VarInt::from_u32(2);

/// What a listener is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicListenerConfig {
    /// The UDP address: the number of the Kafka port.
    pub listen: SocketAddr,
    /// How long a connection may be silent, or have no stream.
    pub idle: Duration,
    /// The largest UDP payloads to try towards clients.
    pub datagrams: Datagrams,
}

/// Takes Kafka clients in over QUIC. Closes when it is dropped.
pub struct QuicListener {
    endpoint: Endpoint,
    listening: SocketAddr,
    socket: Weak<dyn AsyncUdpSocket>,
    server: Arc<Mutex<ServerConfig>>,
    streams: mpsc::Receiver<QuicStream>,
}

/// A pipeline: one stream of a connection.
#[derive(Debug)]
pub struct QuicStream {
    /// What comes from the other side.
    pub reader: QuicReader,
    /// What goes there.
    pub writer: QuicWriter,
    /// Where the other side is. It may move.
    pub address: SocketAddr,
}

/// The receiving half of a pipeline. Its other half ends by itself.
#[derive(Debug)]
pub struct QuicReader {
    stream: RecvStream,
    /// The place that the pipeline takes, as server.
    _place: Option<Arc<Place>>,
}

/// The sending half of a pipeline. Dropping it ends the stream, after what was written.
#[derive(Debug)]
pub struct QuicWriter {
    stream: SendStream,
    _place: Option<Arc<Place>>,
}

/// A stream's own permit, and the sign of life for its connection.
#[derive(Debug)]
struct Place {
    _stream: Permit,
    _connection: Arc<Permit>,
}

impl QuicListener {
    /// Listens. All its work is done by the tokio runtime in whose context this is called.
    /// `admission` is shared with the listeners over TCP: a connection takes a place, and each of
    /// its streams another.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on.
    pub fn bind(
        config: QuicListenerConfig,
        tls: &ListenerTls,
        admission: Admission,
    ) -> io::Result<QuicListener> {
        let limits = IncomingLimits {
            connections: HANDSHAKES_MAX,
            buffer_bytes: INCOMING_BUFFER_BYTES,
            buffer_bytes_total: INCOMING_BUFFER_BYTES_TOTAL,
        };
        let shape = server_shape(config.idle);
        let server = quic::server_config(tls.server.clone(), shape.over(Path::Loopback), limits);
        let quic::BoundEndpoint { endpoint, socket } =
            quic::endpoint(config.listen, Some(&tls.secret), Some(server.clone()))?;
        let (to_server, streams) = mpsc::channel(STREAMS_WAITING_MAX);
        let server = Arc::new(Mutex::new(server));
        let door = Arc::new(Door {
            server: server.clone(),
            config,
            admission,
            to_server,
        });
        tokio::spawn(accept_all(endpoint.clone(), door));
        Ok(QuicListener {
            listening: endpoint.local_addr()?,
            endpoint,
            socket,
            server,
            streams,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listening
    }

    /// The next pipeline that a client has begun; nothing once the listener is closed. None is
    /// lost if this is dropped before it is done.
    pub async fn accept(&mut self) -> Option<QuicStream> {
        self.streams.recv().await
    }

    /// Uses another certificate from the next handshake on. Connections that stand are not
    /// touched.
    pub fn replace_tls(&self, tls: &ListenerTls) {
        lock(&self.server).crypto = tls.server.clone();
    }

    /// Closes all connections, tells the clients, and waits until the port is free.
    pub async fn close(self) {
        self.endpoint.close(CLOSED, b"the listener is closed");
        self.endpoint.wait_idle().await;
        let socket = self.socket.clone();
        drop(self);
        quic::socket_closed(socket).await;
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.endpoint.close(CLOSED, b"the listener is closed");
    }
}

impl std::fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicListener({})", self.listening)
    }
}

fn server_shape(idle: Duration) -> Shape {
    Shape {
        stream_receive_window: SERVER_RECEIVE_WINDOW,
        receive_window: SERVER_RECEIVE_WINDOW,
        send_window: SERVER_SEND_WINDOW,
        streams_max: STREAMS_PER_CONNECTION_MAX,
        keep_alive: None,
        idle_timeout: idle,
    }
}

/// What newcomers meet.
struct Door {
    server: Arc<Mutex<ServerConfig>>,
    config: QuicListenerConfig,
    admission: Admission,
    to_server: mpsc::Sender<QuicStream>,
}

async fn accept_all(endpoint: Endpoint, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        if places.available_permits() < RETRY_BELOW && incoming.may_retry() {
            incoming.retry().expect("it may retry");
            continue;
        }
        let address = incoming.remote_address().ip();
        let permit = match door.admission.admit(address, Instant::now()) {
            Ok(permit) => Arc::new(permit),
            Err(refused) => {
                tracing::debug!(%address, %refused, "QUIC client refused");
                incoming.refuse();
                continue;
            }
        };
        let door = door.clone();
        tokio::spawn(async move {
            let connected = timeout(HANDSHAKE_TIMEOUT, door.shake_hands(incoming)).await;
            drop(place);
            match connected {
                Ok(Ok(connection)) => door.serve(connection, permit).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "QUIC handshake failed"),
                Err(_) => tracing::debug!(%address, "QUIC handshake timed out"),
            }
        });
    }
}

impl Door {
    async fn shake_hands(&self, incoming: Incoming) -> Result<Connection, quinn::ConnectionError> {
        let path = self
            .config
            .datagrams
            .path_to(incoming.remote_address().ip());
        let mut server = lock(&self.server).clone();
        server.transport_config(server_shape(self.config.idle).over(path));
        incoming.accept_with(Arc::new(server))?.await
    }

    /// Takes a connection's streams until it ends, or has had none for too long.
    async fn serve(&self, connection: Connection, permit: Arc<Permit>) {
        loop {
            let Ok(accepted) = timeout(self.config.idle, connection.accept_bi()).await else {
                // Every stream holds the connection's permit.
                if Arc::strong_count(&permit) == 1 {
                    connection.close(IDLE, b"no stream for too long");
                    return;
                }
                continue;
            };
            let Ok((send, receive)) = accepted else {
                return;
            };
            let address = connection.remote_address();
            match self.admission.admit(address.ip(), Instant::now()) {
                Err(refused) => refuse_stream(send, receive, refused),
                Ok(stream) => {
                    let place = Place {
                        _stream: stream,
                        _connection: permit.clone(),
                    };
                    let stream = QuicStream::new(send, receive, address, Some(Arc::new(place)));
                    if self.to_server.send(stream).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn refuse_stream(mut send: SendStream, mut receive: RecvStream, refused: super::Refused) {
    tracing::debug!(%refused, "QUIC stream refused");
    // Either fails only if the client has given the stream up first.
    let _ = send.reset(REFUSED);
    let _ = receive.stop(REFUSED);
}

/// Dials listeners over QUIC. Its connections are driven by the tokio runtime in whose context
/// the first of them was made.
pub struct QuicDialer {
    tls: ClientTls,
    datagrams: Datagrams,
    /// One socket for each family of addresses, made when it is first needed.
    endpoints: Mutex<[Option<Endpoint>; 2]>,
}

/// A connection to a listener, good for several pipelines.
#[derive(Debug, Clone)]
pub struct QuicConnection {
    connection: Connection,
}

/// A listener cannot be reached, or not be believed.
#[derive(Debug, thiserror::Error)]
pub enum QuicConnectError {
    /// No socket to dial from.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// The name or address cannot be dialled.
    #[error("cannot dial {name} at {address}: {source}")]
    Dial {
        /// The name that the certificate is to carry.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What QUIC says.
        source: quinn::ConnectError,
    },
    /// The handshake failed: nobody there, a certificate of another authority or for other names,
    /// another protocol.
    #[error("no connection to {name} at {address}: {source}")]
    Handshake {
        /// The name that the certificate is to carry.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What QUIC says.
        source: quinn::ConnectionError,
    },
}

impl QuicDialer {
    /// A dialer that believes whom `tls` believes, and tries payloads of up to `datagrams`.
    #[must_use]
    pub fn new(tls: ClientTls, datagrams: Datagrams) -> QuicDialer {
        QuicDialer {
            tls,
            datagrams,
            endpoints: Mutex::default(),
        }
    }

    /// Connects to the listener at `address`, whose certificate must carry `name`: a host name or
    /// an address in text.
    ///
    /// # Errors
    ///
    /// [`QuicConnectError`]. Nobody listening is known by silence only, after 20 s; set a
    /// deadline.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> Result<QuicConnection, QuicConnectError> {
        let path = self.datagrams.path_to(address.ip());
        let config = quic::client_config(self.tls.client.clone(), client_shape().over(path));
        let connecting = self
            .endpoint(address.ip())?
            .connect_with(config, address, name)
            .map_err(|source| QuicConnectError::Dial {
                name: name.to_owned(),
                address,
                source,
            })?;
        match connecting.await {
            Ok(connection) => Ok(QuicConnection { connection }),
            Err(source) => Err(QuicConnectError::Handshake {
                name: name.to_owned(),
                address,
                source,
            }),
        }
    }

    fn endpoint(&self, remote: IpAddr) -> io::Result<Endpoint> {
        let (family, any) = match remote {
            IpAddr::V4(_) => (0, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (1, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        let mut endpoints = lock(&self.endpoints);
        if let Some(endpoint) = &endpoints[family] {
            return Ok(endpoint.clone());
        }
        let endpoint = quic::endpoint(SocketAddr::new(any, 0), None, None)?.endpoint;
        endpoints[family] = Some(endpoint.clone());
        Ok(endpoint)
    }
}

impl std::fmt::Debug for QuicDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicDialer")
    }
}

/// Every change is one step, so what a panic leaves is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client_shape() -> Shape {
    Shape {
        stream_receive_window: CLIENT_STREAM_RECEIVE_WINDOW,
        receive_window: CLIENT_RECEIVE_WINDOW,
        send_window: CLIENT_SEND_WINDOW,
        streams_max: 0,
        keep_alive: Some(CLIENT_KEEP_ALIVE),
        idle_timeout: CLIENT_IDLE_TIMEOUT,
    }
}

impl QuicConnection {
    /// Begins a pipeline; waits while there are [`STREAMS_PER_CONNECTION_MAX`] already. The
    /// server learns of it with its first bytes.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub async fn open(&self) -> io::Result<QuicStream> {
        let (send, receive) = self.connection.open_bi().await?;
        let address = self.connection.remote_address();
        Ok(QuicStream::new(send, receive, address, None))
    }

    /// Whether it can still be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Ends it with all its pipelines.
    pub fn close(&self) {
        self.connection.close(CLOSED, b"the client has finished");
    }
}

impl QuicStream {
    fn new(
        send: SendStream,
        receive: RecvStream,
        address: SocketAddr,
        place: Option<Arc<Place>>,
    ) -> QuicStream {
        QuicStream {
            reader: QuicReader {
                stream: receive,
                _place: place.clone(),
            },
            writer: QuicWriter {
                stream: send,
                _place: place,
            },
            address,
        }
    }
}

impl AsyncRead for QuicReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Copies; [`ChunkWrite`] does not.
impl AsyncWrite for QuicWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl ChunkWrite for QuicWriter {
    async fn write_chunks(&mut self, mut chunks: Vec<Bytes>) -> io::Result<()> {
        self.stream.write_all_chunks(&mut chunks).await?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "quic_tests.rs"]
mod tests;

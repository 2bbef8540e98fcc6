//! Lanes over QUIC: a connection each, with one bidirectional stream.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, ConnectionError, ReadError, RecvStream, SendStream, ServerConfig, VarInt,
    WriteError,
};

use super::{Goodbye, IDLE_TIMEOUT, KEEP_ALIVE, Lost, Receiver, Sender, Target, Written};
use crate::gather::Gather;
use crate::identity::NodeIdentity;
use crate::peer::{INCOMING_MAX, Lane, PeerConfig};
use crate::quic::{self, Datagrams, IncomingLimits, Path, Shape};
use crate::tls::{self, CertificateError, PeerDialTls, PeerTls};

/// What is kept of newcomers before they are let in, in bytes.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFER_BYTES_TOTAL: u64 = 1 << 20;

/// The application error code of connections whose endpoint has been closed.
const ENDPOINT_CLOSED: VarInt = VarInt::from_u32(2);

/// Windows by lane. The append lane's hold what Raft may have in flight to a peer; control has
/// little, catch-up is not to fill the network's queues.
fn lane_shape(lane: Lane) -> Shape {
    const MIB: u32 = 1 << 20;
    let (stream, connection, send) = match lane {
        Lane::Control => (MIB, MIB, MIB),
        Lane::Append => (8 * MIB, 32 * MIB, 16 * MIB),
        Lane::Bulk => (8 * MIB, 8 * MIB, 8 * MIB),
    };
    Shape {
        stream_receive_window: stream,
        receive_window: connection,
        send_window: send.into(),
        streams_max: 1,
        // The dialer's word is answered by the acceptor's acknowledgement.
        keep_alive: Some(KEEP_ALIVE),
        idle_timeout: IDLE_TIMEOUT,
    }
}

pub(in crate::peer) struct QuicEndpoint {
    /// Nothing once it is closed, so that its socket is given back although handles remain.
    endpoint: Mutex<Option<quinn::Endpoint>>,
    socket: Weak<dyn AsyncUdpSocket>,
    datagrams: Datagrams,
}

impl QuicEndpoint {
    pub(super) fn listen(config: &PeerConfig, tls: &PeerTls) -> io::Result<QuicEndpoint> {
        let server = server_config(tls, Path::Loopback);
        let bound = quic::endpoint(config.listen, Some(&tls.secret), Some(server))?;
        Ok(QuicEndpoint::new(bound, config))
    }

    /// On any port of the address that is listened on.
    pub(super) fn dialer(config: &PeerConfig) -> io::Result<QuicEndpoint> {
        let from = SocketAddr::new(config.listen.ip(), 0);
        let bound = quic::endpoint(from, None, None)?;
        Ok(QuicEndpoint::new(bound, config))
    }

    fn new(bound: quic::BoundEndpoint, config: &PeerConfig) -> QuicEndpoint {
        QuicEndpoint {
            endpoint: Mutex::new(Some(bound.endpoint)),
            socket: bound.socket,
            datagrams: config.datagrams,
        }
    }

    fn handle(&self) -> MutexGuard<'_, Option<quinn::Endpoint>> {
        self.endpoint
            .lock()
            .expect("nothing panics while it holds the endpoint")
    }

    fn open(&self) -> Option<quinn::Endpoint> {
        self.handle().clone()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.open() {
            Some(endpoint) => endpoint.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) async fn accept(&self) -> Option<QuicIncoming> {
        let incoming = self.open()?.accept().await?;
        let path = self.datagrams.path_to(incoming.remote_address().ip());
        Some(QuicIncoming { incoming, path })
    }

    pub(super) async fn connect(
        &self,
        tls: &PeerDialTls,
        to: Target<'_>,
    ) -> Result<QuicConnection, Lost> {
        let transport = lane_shape(to.lane).over(self.datagrams.path_to(to.address.ip()));
        let config = quic::client_config(tls.quic.clone(), transport);
        let endpoint = self.open().ok_or_else(|| Lost::new("this end is closed"))?;
        let connecting = endpoint.connect_with(config, to.address, to.name);
        let connected = connecting.map_err(Lost::new)?.await;
        Ok(QuicConnection(connected.map_err(lost)?))
    }

    pub(super) fn close(&self) {
        if let Some(endpoint) = self.handle().take() {
            endpoint.close(ENDPOINT_CLOSED, b"the node's endpoint is closed");
        }
    }

    pub(super) async fn shut(&self) {
        let endpoint = self.open();
        self.close();
        if let Some(endpoint) = endpoint {
            endpoint.wait_idle().await;
        }
        quic::socket_closed(self.socket.clone()).await;
    }
}

fn server_config(tls: &PeerTls, path: Path) -> ServerConfig {
    let limits = IncomingLimits {
        connections: INCOMING_MAX,
        buffer_bytes: INCOMING_BUFFER_BYTES,
        buffer_bytes_total: INCOMING_BUFFER_BYTES_TOTAL,
    };
    // Settled before the lane is known; the append lane has the widest windows.
    let shape = Shape {
        keep_alive: None,
        ..lane_shape(Lane::Append)
    };
    let mut config = quic::server_config(tls.server.quic.clone(), shape.over(path), limits);
    // Peers stay where they are.
    config.migration(false);
    config
}

pub(in crate::peer) struct QuicIncoming {
    incoming: quinn::Incoming,
    path: Path,
}

impl QuicIncoming {
    pub(super) fn address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    pub(super) fn turn_away(self) {
        self.incoming.refuse();
    }

    pub(super) fn prove_address(self) -> Option<QuicIncoming> {
        if !self.incoming.may_retry() {
            return Some(self);
        }
        self.incoming.retry().expect("it may retry");
        None
    }

    pub(super) async fn accept(self, tls: &PeerTls) -> Result<QuicConnection, Lost> {
        // Settings for a connection that comes over this path, whichever lane it turns out to be.
        let config = Arc::new(server_config(tls, self.path));
        let connecting = self.incoming.accept_with(config).map_err(lost)?;
        connecting.await.map(QuicConnection).map_err(lost)
    }
}

pub(in crate::peer) struct QuicConnection(quinn::Connection);

impl QuicConnection {
    pub(super) fn identity(&self) -> Result<NodeIdentity, CertificateError> {
        tls::quic_peer_identity(&self.0)
    }

    pub(super) async fn open_stream(&self) -> Result<(Sender, Receiver), Lost> {
        self.0.open_bi().await.map(halves).map_err(lost)
    }

    pub(super) async fn accept_stream(&self) -> Result<(Sender, Receiver), Lost> {
        self.0.accept_bi().await.map(halves).map_err(lost)
    }

    /// Its stream window, settled before, stays that of the append lane.
    pub(super) fn set_lane(&self, lane: Lane) {
        let shape = lane_shape(lane);
        self.0.set_send_window(shape.send_window);
        self.0.set_receive_window(shape.receive_window.into());
    }

    pub(super) fn close(self, why: Goodbye) {
        let code = VarInt::from_u32(why.code());
        self.0.close(code, why.text().as_bytes());
    }
}

fn halves((send, receive): (SendStream, RecvStream)) -> (Sender, Receiver) {
    let receive = Gather::new(receive);
    (Sender::Quic(send), Receiver::Quic(Box::new(receive)))
}

pub(super) async fn write(stream: &mut SendStream, chunks: &mut [Bytes]) -> Result<Written, Lost> {
    let written = stream
        .write_chunks(chunks)
        .await
        .map_err(|error| match error {
            // quinn says "connection lost" and keeps the cause beneath.
            WriteError::ConnectionLost(cause) => lost(cause),
            error => Lost::new(error),
        })?;
    Ok(Written {
        bytes: written.bytes,
        chunks: written.chunks,
    })
}

pub(super) fn whole(read: Result<bool, ReadError>) -> Result<bool, Lost> {
    read.map_err(|error| match error {
        ReadError::ConnectionLost(cause) => lost(cause),
        error => Lost::new(error),
    })
}

fn lost(error: ConnectionError) -> Lost {
    let refusal = match &error {
        ConnectionError::ApplicationClosed(close) => {
            Goodbye::refusal(close.error_code.into_inner())
        }
        _ => None,
    };
    Lost {
        refusal,
        ..Lost::new(error)
    }
}

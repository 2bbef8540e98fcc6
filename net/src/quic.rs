//! QUIC endpoints with the settings that were measured to matter.
//!
//! The packet size matters most. On loopback (both ends on one machine, one connection) datagrams
//! of 1,452 bytes with segmentation offload carried 1.0 GB/s at 1.9 CPU-s/GB, datagrams of 65,000
//! bytes without it 3.0 GB/s at 0.6. Offload and large datagrams exclude each other: quinn sends
//! up to ten segments in one call without regard to the kernel's limit of 64 KiB, and what is
//! above it is dropped without a word. And a first packet of 12,000 bytes or more never completes
//! a handshake, so only the upper bound of path MTU discovery is raised.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, Runtime, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::EndpointSecret;

/// The largest UDP payload tried on this machine's own addresses, in bytes.
pub(crate) const LOOPBACK_DATAGRAM_BYTES_MAX: u16 = 65_000;

/// How much is sent on loopback before the first acknowledgement, in bytes: a few datagrams. The
/// default of ten Ethernet packets is less than one of these, and quinn then keeps back even the
/// packet that says why a connection is closed.
const LOOPBACK_INITIAL_WINDOW: u64 = 8 * LOOPBACK_DATAGRAM_BYTES_MAX as u64;

/// The largest UDP payload that an endpoint takes: QUIC's own limit, less than IPv4's.
const DATAGRAM_BYTES_MAX: u16 = 65_527;

/// The largest datagram of which ten still fit into one call with segmentation offload.
const OFFLOAD_DATAGRAM_BYTES_MAX: u16 = 6_500;

/// Asked of the kernel, which gives what its administrator allows.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Where the round-trip estimate starts: a local network's, not the Internet's 333 ms, which
/// would make the first lost packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(1);

/// Acknowledge every tenth packet, or after 2 ms: the default of 25 ms would enter every probe
/// timeout.
const ACK_ELICITING_THRESHOLD: u32 = 10;
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);

/// The largest UDP payload tried on networks, in bytes: Ethernet's 1,500 less the headers of IPv6
/// and UDP.
pub(crate) const NETWORK_DATAGRAM_BYTES_MAX: u16 = 1_452;

/// The largest UDP payloads to try, by where the other end is. Larger ones cost less, where the
/// network carries them; what it does not is found out (RFC 8899) and not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Towards other machines, in bytes. The default of 1,452 is right for Ethernet and the
    /// Internet. Up to 6,500 a system call takes ten of them, so that is better than more where
    /// the MTU is 9,000.
    pub network_bytes_max: u16,
    /// Towards this machine, in bytes; less than the default of 65,000 shows here what a network
    /// would cost.
    pub loopback_bytes_max: u16,
}

impl Default for Datagrams {
    fn default() -> Datagrams {
        Datagrams {
            network_bytes_max: NETWORK_DATAGRAM_BYTES_MAX,
            loopback_bytes_max: LOOPBACK_DATAGRAM_BYTES_MAX,
        }
    }
}

impl Datagrams {
    /// The same wherever the other end is.
    #[must_use]
    pub fn of(bytes_max: u16) -> Datagrams {
        Datagrams {
            network_bytes_max: bytes_max,
            loopback_bytes_max: bytes_max,
        }
    }

    /// The path to another end.
    pub(crate) fn path_to(self, remote: IpAddr) -> Path {
        let datagram_bytes_max = match remote.to_canonical().is_loopback() {
            false => self.network_bytes_max,
            true if self.loopback_bytes_max < LOOPBACK_DATAGRAM_BYTES_MAX => {
                self.loopback_bytes_max
            }
            true => return Path::Loopback,
        };
        Path::Network { datagram_bytes_max }
    }
}

/// What lies between us and an address, as far as the packet size goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// This machine.
    Loopback,
    /// A network that may carry UDP payloads of up to so many bytes.
    Network {
        /// The upper bound of discovery.
        datagram_bytes_max: u16,
    },
}

impl Path {
    fn congestion(self) -> CubicConfig {
        let mut cubic = CubicConfig::default();
        if self == Path::Loopback {
            cubic.initial_window(LOOPBACK_INITIAL_WINDOW);
        }
        cubic
    }

    fn datagram_bytes_max(self) -> u16 {
        match self {
            Path::Loopback => LOOPBACK_DATAGRAM_BYTES_MAX,
            Path::Network { datagram_bytes_max } => datagram_bytes_max,
        }
    }
}

/// How a connection is to behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// What a stream may send us before we have read it, in bytes.
    pub(crate) stream_receive_window: u32,
    /// What all streams of the connection may send us before we have read it, in bytes.
    pub(crate) receive_window: u32,
    /// What may be on its way from us without acknowledgement, in bytes.
    pub(crate) send_window: u64,
    /// How many streams the other side may open.
    pub(crate) streams_max: u32,
    /// After how much silence a packet is sent to keep the connection alive.
    pub(crate) keep_alive: Option<Duration>,
    /// After how much silence the connection is given up.
    pub(crate) idle_timeout: Duration,
}

impl Shape {
    /// The settings for a connection of this shape over `path`.
    pub(crate) fn over(&self, path: Path) -> Arc<TransportConfig> {
        let datagram_bytes_max = path.datagram_bytes_max();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(datagram_bytes_max);
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_THRESHOLD))
            .max_ack_delay(Some(ACK_DELAY_MAX));
        let idle_timeout = IdleTimeout::try_from(self.idle_timeout)
            .expect("timeouts of hours fit into 62 bits of milliseconds");
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(self.stream_receive_window.into())
            .receive_window(self.receive_window.into())
            .send_window(self.send_window)
            .send_fairness(false)
            .max_concurrent_bidi_streams(self.streams_max.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle_timeout))
            .keep_alive_interval(self.keep_alive)
            .initial_rtt(INITIAL_RTT)
            .ack_frequency_config(Some(acks))
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(path.congestion()))
            .enable_segmentation_offload(datagram_bytes_max <= OFFLOAD_DATAGRAM_BYTES_MAX);
        Arc::new(transport)
    }
}

/// How many connections may be in front of the door at once, and what is kept of them before
/// their address is known to be theirs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IncomingLimits {
    pub(crate) connections: usize,
    pub(crate) buffer_bytes: u64,
    pub(crate) buffer_bytes_total: u64,
}

/// A server's settings; the transport is replaced by that of the path at each accept.
pub(crate) fn server_config(
    crypto: Arc<dyn quinn::crypto::ServerConfig>,
    transport: Arc<TransportConfig>,
    limits: IncomingLimits,
) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(transport)
        .max_incoming(limits.connections)
        .incoming_buffer_size(limits.buffer_bytes)
        .incoming_buffer_size_total(limits.buffer_bytes_total);
    config
}

/// A client's settings for one connection.
pub(crate) fn client_config(
    crypto: Arc<dyn quinn::crypto::ClientConfig>,
    transport: Arc<TransportConfig>,
) -> ClientConfig {
    let mut config = ClientConfig::new(crypto);
    config.transport_config(transport);
    config
}

/// An endpoint on a socket of its own, and a way to tell when that has been closed.
pub(crate) struct BoundEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) socket: Weak<dyn AsyncUdpSocket>,
}

/// How long to wait for tasks of quinn that have nothing left to do but to end.
const SOCKET_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until an endpoint, all of whose handles are gone or about to go, has given back its
/// port; not for ever, since a handle may have been kept.
pub(crate) async fn socket_closed<S: ?Sized>(socket: Weak<S>) {
    let closed = async {
        while socket.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(SOCKET_CLOSE_TIMEOUT, closed)
        .await
        .is_err()
    {
        tracing::warn!("a socket is still open after its endpoint has been closed");
    }
}

/// An endpoint on a socket of its own, bound to `listen`, driven by the runtime of the caller.
pub(crate) fn endpoint(
    listen: SocketAddr,
    secret: Option<&EndpointSecret>,
    server: Option<ServerConfig>,
) -> io::Result<BoundEndpoint> {
    let mut config = match secret {
        None => EndpointConfig::default(),
        Some(secret) => {
            let mut config = EndpointConfig::new(secret.reset_key.clone());
            let key = secret.connection_id_key;
            config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
            config
        }
    };
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("it is QUIC's own limit");
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket(listen)?)?;
    let weak = Arc::downgrade(&socket);
    Ok(BoundEndpoint {
        endpoint: Endpoint::new_with_abstract_socket(config, server, socket, runtime)?,
        socket: weak,
    })
}

fn socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&listen.into())?;
    tracing::debug!(
        %listen,
        receive_buffer_bytes = socket.recv_buffer_size()?,
        send_buffer_bytes = socket.send_buffer_size()?,
        "UDP socket"
    );
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_by_the_address() {
        let network = Path::Network {
            datagram_bytes_max: 1_452,
        };
        for (address, path) in [
            ("127.0.0.1", Path::Loopback),
            ("127.9.9.9", Path::Loopback),
            ("::1", Path::Loopback),
            ("::ffff:127.0.0.1", Path::Loopback),
            ("10.0.0.1", network),
            ("::", network),
        ] {
            let found = Datagrams::default().path_to(address.parse().unwrap());
            assert_eq!(found, path, "{address}");
        }
        let small = Datagrams::of(1_300);
        for address in ["127.0.0.1", "10.0.0.1"] {
            let datagram_bytes_max = 1_300;
            let path = Path::Network { datagram_bytes_max };
            assert_eq!(small.path_to(address.parse().unwrap()), path, "{address}");
        }
    }

    /// quinn has no getters; its Debug form is what can be looked at.
    #[test]
    fn offload_ends_where_ten_segments_no_longer_fit() {
        let shape = Shape {
            stream_receive_window: 1,
            receive_window: 1,
            send_window: 1,
            streams_max: 1,
            keep_alive: None,
            idle_timeout: Duration::from_secs(1),
        };
        let offload = |path| {
            let text = format!("{:?}", shape.over(path));
            text.contains("enable_segmentation_offload: true")
        };
        let network = |datagram_bytes_max| Path::Network { datagram_bytes_max };
        assert!(offload(network(1_452)));
        assert!(offload(network(6_500)));
        assert!(!offload(network(6_501)));
        assert!(!offload(Path::Loopback));
    }
}

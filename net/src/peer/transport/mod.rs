//! The seam to what carries a lane: a connection of its own, and on it one stream of bytes each
//! way.
//!
//! What lies behind it knows neither sessions nor frames: it connects and accepts, says by
//! certificate who is at the other end, reads and writes bytes, notices silence
//! ([`IDLE_TIMEOUT`]), and tells the other end why it closes ([`Goodbye`]).

mod quic;
mod segment;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use highwater_record::BufferMut;

use super::handshake::RefusalReason;
use super::{Lane, PeerConfig, PeerTransport};
use crate::gather::Gather;
use crate::identity::NodeIdentity;
use crate::tls::{CertificateError, PeerDialTls, PeerTls};

/// After how much silence a lane is given up. A dead peer is noticed by Raft's beats long before,
/// and one that has been started anew says so itself, at once; this only ends what waits for a
/// machine that has gone. Shorter, and a thread that got no processor for some seconds would take
/// the silence that it has missed reading for its peer's.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// After how much silence an end says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Why this end closes a connection, as the other end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// The session that it was part of has ended.
    SessionEnded,
    /// Whoever is at the other end is refused.
    Refused(RefusalReason),
}

/// The first code that means a refusal; below it are those of other goodbyes.
const REFUSAL_CODE_BASE: u32 = 0x100;

impl Goodbye {
    /// Its number on the wire: QUIC's application error code.
    pub(super) fn code(self) -> u32 {
        match self {
            Goodbye::SessionEnded => 1,
            Goodbye::Refused(reason) => REFUSAL_CODE_BASE + reason as u32,
        }
    }

    /// The refusal behind a number.
    fn refusal(code: u64) -> Option<RefusalReason> {
        let index = code.checked_sub(u64::from(REFUSAL_CODE_BASE))?;
        RefusalReason::ALL
            .get(usize::try_from(index).ok()?)
            .copied()
    }

    fn text(self) -> String {
        match self {
            Goodbye::SessionEnded => "the session has ended".to_owned(),
            Goodbye::Refused(reason) => reason.to_string(),
        }
    }
}

/// A connection is not to be had, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Lost {
    /// Why the other end refuses us, if it has said so.
    pub(super) refusal: Option<RefusalReason>,
    /// What has happened, for a person.
    pub(super) text: String,
}

impl Lost {
    fn new(error: impl std::fmt::Display) -> Lost {
        Lost {
            refusal: None,
            text: error.to_string(),
        }
    }
}

/// Whom to connect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) address: SocketAddr,
    /// The DNS name that its certificate must bear.
    pub(super) name: &'a str,
    /// What the connection is for.
    pub(super) lane: Lane,
}

/// Listens for connections and makes them.
pub(super) enum Endpoint {
    Quic(quic::QuicEndpoint),
    Tcp(tcp::TcpEndpoint),
}

impl Endpoint {
    /// One that listens, driven by the runtime of the caller.
    pub(super) fn listen(config: &PeerConfig, tls: &PeerTls) -> io::Result<Endpoint> {
        match config.transport {
            PeerTransport::Quic => quic::QuicEndpoint::listen(config, tls).map(Endpoint::Quic),
            PeerTransport::Tcp => tcp::TcpEndpoint::listen(config).map(Endpoint::Tcp),
        }
    }

    /// One that only connects.
    pub(super) fn dialer(transport: PeerTransport, config: &PeerConfig) -> io::Result<Endpoint> {
        match transport {
            PeerTransport::Quic => quic::QuicEndpoint::dialer(config).map(Endpoint::Quic),
            PeerTransport::Tcp => Ok(Endpoint::Tcp(tcp::TcpEndpoint::dialer(config))),
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Endpoint::Quic(endpoint) => endpoint.local_addr(),
            Endpoint::Tcp(endpoint) => endpoint.local_addr(),
        }
    }

    /// The next newcomer; nothing once it is closed.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        match self {
            Endpoint::Quic(endpoint) => {
                let incoming = endpoint.accept().await?;
                Some(Incoming::Quic(Box::new(incoming)))
            }
            Endpoint::Tcp(endpoint) => endpoint.accept().await.map(Incoming::Tcp),
        }
    }

    /// Connects, TLS included.
    pub(super) async fn connect(
        &self,
        tls: &PeerDialTls,
        to: Target<'_>,
    ) -> Result<Connection, Lost> {
        match self {
            Endpoint::Quic(endpoint) => endpoint.connect(tls, to).await.map(Connection::Quic),
            Endpoint::Tcp(endpoint) => endpoint.connect(tls, to).await.map(Connection::Tcp),
        }
    }

    /// Closes it: nobody is accepted and nothing connected any more, and its port is about to be
    /// free.
    pub(super) fn close(&self) {
        match self {
            Endpoint::Quic(endpoint) => endpoint.close(),
            Endpoint::Tcp(endpoint) => endpoint.close(),
        }
    }

    /// Closes it, and waits until its port is free.
    pub(super) async fn shut(&self) {
        match self {
            Endpoint::Quic(endpoint) => endpoint.shut().await,
            Endpoint::Tcp(endpoint) => endpoint.shut().await,
        }
    }
}

/// Somebody at the door, of whom nothing is known but an address.
pub(super) enum Incoming {
    Quic(Box<quic::QuicIncoming>),
    Tcp(tcp::TcpIncoming),
}

impl Incoming {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Incoming::Quic(incoming) => incoming.address(),
            Incoming::Tcp(incoming) => incoming.address(),
        }
    }

    /// Closes the door, before anything has been computed.
    pub(super) fn turn_away(self) {
        match self {
            Incoming::Quic(incoming) => incoming.turn_away(),
            Incoming::Tcp(incoming) => drop(incoming),
        }
    }

    /// Asks for proof that the address is its own, if there is none yet; gives back who has given
    /// it.
    pub(super) fn prove_address(self) -> Option<Incoming> {
        match self {
            Incoming::Quic(incoming) => {
                let proven = incoming.prove_address()?;
                Some(Incoming::Quic(Box::new(proven)))
            }
            // TCP's own handshake has proven it.
            Incoming::Tcp(_) => Some(self),
        }
    }

    /// Does the handshake of TLS.
    pub(super) async fn accept(self, tls: &PeerTls) -> Result<Connection, Lost> {
        match self {
            Incoming::Quic(incoming) => incoming.accept(tls).await.map(Connection::Quic),
            Incoming::Tcp(incoming) => incoming.accept(tls).await.map(Connection::Tcp),
        }
    }
}

/// A connection whose other end has shown a certificate of the cluster's authority.
pub(super) enum Connection {
    Quic(quic::QuicConnection),
    Tcp(tcp::TcpConnection),
}

impl Connection {
    /// Who is at the other end, by its certificate.
    pub(super) fn identity(&self) -> Result<NodeIdentity, CertificateError> {
        match self {
            Connection::Quic(connection) => connection.identity(),
            Connection::Tcp(connection) => connection.identity(),
        }
    }

    /// As its dialer: opens its stream, once.
    pub(super) async fn open_stream(&mut self) -> Result<(Sender, Receiver), Lost> {
        match self {
            Connection::Quic(connection) => connection.open_stream().await,
            Connection::Tcp(connection) => Ok(connection.stream()),
        }
    }

    /// As its acceptor: takes its stream, once.
    pub(super) async fn accept_stream(&mut self) -> Result<(Sender, Receiver), Lost> {
        match self {
            Connection::Quic(connection) => connection.accept_stream().await,
            Connection::Tcp(connection) => Ok(connection.stream()),
        }
    }

    /// As its acceptor: what it turned out to be for.
    pub(super) fn set_lane(&self, lane: Lane) {
        match self {
            Connection::Quic(connection) => connection.set_lane(lane),
            // Every lane is as it is: see `tcp` on socket buffers.
            Connection::Tcp(_) => {}
        }
    }

    /// Closes it and tells the other end why, if that still hears.
    pub(super) async fn close(self, why: Goodbye) {
        match self {
            Connection::Quic(connection) => connection.close(why),
            Connection::Tcp(connection) => connection.close(why).await,
        }
    }
}

/// What one write has taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) bytes: usize,
    /// Chunks that have gone whole; the one behind them may have lost its front.
    pub(super) chunks: usize,
}

/// Sends the bytes of a lane.
pub(super) enum Sender {
    Quic(quinn::SendStream),
    Tcp(tcp::TcpSender),
}

impl Sender {
    /// Writes some of the chunks, at least one byte, without copying them together. Not to be
    /// dropped before it is done.
    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<Written, Lost> {
        match self {
            Sender::Quic(stream) => quic::write(stream, chunks).await,
            Sender::Tcp(stream) => stream.write(chunks).await,
        }
    }

    /// Writes all of the chunks.
    pub(super) async fn write_all(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        let mut rest = chunks;
        while !rest.is_empty() {
            let written = self.write(rest).await?;
            rest = &mut rest[written.chunks..];
        }
        Ok(())
    }

    /// Says that nothing more will come.
    #[cfg(test)]
    pub(super) async fn finish(&mut self) {
        match self {
            Sender::Quic(stream) => stream.finish().unwrap(),
            Sender::Tcp(stream) => stream.finish().await,
        }
    }

    /// Waits for `next`, and says meanwhile that this end is there.
    pub(super) async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Lost> {
        match self {
            // The connection does it by itself.
            Sender::Quic(_) => Ok(next.await),
            Sender::Tcp(stream) => stream.wait_for(next).await,
        }
    }
}

/// Receives the bytes of a lane.
pub(super) enum Receiver {
    Quic(Box<Gather>),
    Tcp(tcp::TcpReceiver),
}

impl Receiver {
    /// Fills `target`; `false` when the stream ends before.
    pub(super) async fn read_array(&mut self, target: &mut [u8]) -> Result<bool, Lost> {
        match self {
            Receiver::Quic(stream) => quic::whole(stream.read_array(target, &mut 0).await),
            Receiver::Tcp(stream) => stream.read_array(target).await,
        }
    }

    /// Appends to `buffer` until it has `length` bytes; `false` when the stream ends before.
    pub(super) async fn read_buffer(
        &mut self,
        buffer: &mut BufferMut,
        length: usize,
    ) -> Result<bool, Lost> {
        match self {
            Receiver::Quic(stream) => quic::whole(stream.read_buffer(buffer, length).await),
            Receiver::Tcp(stream) => stream.read_buffer(buffer, length).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_as_codes() {
        for reason in RefusalReason::ALL {
            let code = Goodbye::Refused(reason).code();
            assert_eq!(Goodbye::refusal(code.into()), Some(reason));
        }
        assert_eq!(Goodbye::refusal(Goodbye::SessionEnded.code().into()), None);
        assert_eq!(Goodbye::refusal(u64::MAX), None);
    }
}

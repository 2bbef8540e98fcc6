//! Kafka's listener over TCP.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Binds a listening socket without a runtime, so that a busy port is known before threads start.
///
/// With `shared`, several sockets may listen on the same address (`SO_REUSEPORT`, socket(7)): the
/// kernel spreads connections over them, and each shard accepts its own.
///
/// # Errors
/// When the address cannot be bound: [`io::ErrorKind::AddrInUse`] where somebody else has it.
pub fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections on the runtime of one thread.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
}

impl TcpAcceptor {
    /// Takes over a bound socket; call it within the runtime.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    pub fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(socket)?,
        })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, with Nagle's algorithm off: answers are whole when they are written.
    ///
    /// # Errors
    /// Those of accept(2). Most concern one connection or pass (`EMFILE`); go on after a pause.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_an_error_of_its_own_kind() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind_tcp(any, false).unwrap();
        let error = bind_tcp(first.local_addr().unwrap(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn shards_share_a_port() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind_tcp(any, true).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind_tcp(address, true).unwrap();
        let acceptors = [first, second].map(|socket| TcpAcceptor::new(socket).unwrap());
        assert_eq!(acceptors[1].local_addr().unwrap(), address);
        let client = TcpStream::connect(address).await.unwrap();
        let (stream, peer) = tokio::select! {
            accepted = acceptors[0].accept() => accepted.unwrap(),
            accepted = acceptors[1].accept() => accepted.unwrap(),
        };
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}

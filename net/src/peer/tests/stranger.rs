//! Somebody who says what they like.

use bytes::Bytes;

use super::*;
use crate::ca::Credentials;
use crate::identity::peer_name;
use crate::peer::handshake::Hello;
use crate::peer::transport::{Connection, Endpoint, Lost, Receiver, Sender, Target};
use crate::tls::{ALPN_PEER, ALPN_PEER_TCP, PeerDialTls, raw_client};

/// What nodes speak, over each transport.
pub(super) const PEER: [&[u8]; 2] = [ALPN_PEER, ALPN_PEER_TCP];

/// Somebody who speaks as nodes do and says what they like.
pub(super) struct Stranger {
    endpoint: Endpoint,
    tls: PeerDialTls,
}

impl Stranger {
    fn with(transport: PeerTransport, tls: PeerDialTls) -> Stranger {
        Stranger {
            endpoint: Endpoint::dialer(transport, &config(transport)).unwrap(),
            tls,
        }
    }

    /// That shows `credentials`, or none, and asks for one of `protocols`.
    pub(super) fn new(
        cluster: &Cluster,
        credentials: Option<&Credentials>,
        protocols: [&[u8]; 2],
    ) -> Stranger {
        let tls = raw_client(&cluster.ca.trust(), credentials, protocols);
        Stranger::with(cluster.transport, tls)
    }

    /// A good node that will say something else than it should.
    pub(super) fn node(cluster: &Cluster, node: u32) -> Stranger {
        Stranger::with(cluster.transport, cluster.tls(node).client)
    }

    pub(super) async fn connect(&self, to: &Node) -> Result<Connection, Lost> {
        let peer = to.as_peer();
        let name = peer_name(to.endpoint.owner_identity().cluster, peer.node);
        let target = Target {
            address: peer.address,
            name: &name,
            lane: Lane::Append,
        };
        self.endpoint.connect(&self.tls, target).await
    }

    /// Says `bytes` on a connection, and reports how that ends.
    pub(super) async fn say(&self, to: &Node, bytes: &[u8]) -> Lost {
        let mut connection = self.connect(to).await.unwrap();
        let (_send, receive) = open(&mut connection, bytes).await;
        ends(receive).await
    }
}

/// A stream whose dialer has said `bytes`.
pub(super) async fn open(connection: &mut Connection, bytes: &[u8]) -> (Sender, Receiver) {
    let (mut send, receive) = connection.open_stream().await.unwrap();
    let bytes = Bytes::copy_from_slice(bytes);
    send.write_all(&mut [bytes]).await.unwrap();
    (send, receive)
}

/// How a connection is lost on which nothing is said.
async fn ends(mut receive: Receiver) -> Lost {
    match receive.read_array(&mut [0]).await {
        Err(lost) => lost,
        Ok(more) => panic!("something was said: {more}"),
    }
}

/// How a connection ends whose other end does not know us yet.
pub(super) async fn turned_away(mut connection: Connection) -> Lost {
    match connection.open_stream().await {
        Ok((_send, receive)) => ends(receive).await,
        Err(lost) => lost,
    }
}

/// What node `from` should say to `to`.
pub(super) fn hello(cluster: &Cluster, from: u32, to: &Node) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        cluster: cluster.ca.cluster(),
        from: Life {
            node: id(from),
            incarnation: incarnation(from),
            boot: Boot(1),
        },
        to: to.id(),
        to_incarnation: None,
        session: SessionNumber(1 << 32 | 1),
        lane: Lane::Control,
    }
}

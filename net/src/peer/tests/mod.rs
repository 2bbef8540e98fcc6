//! Links between endpoints on loopback. Nothing here waits for time to pass: whoever waits, waits
//! for an event, and gives up loudly.

/// Runs tests over each transport, as `over_quic::NAME` and `over_tcp::NAME`.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod over_quic {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::peer::PeerTransport::Quic).await;
            })*
        }
        mod over_tcp {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::peer::PeerTransport::Tcp).await;
            })*
        }
    };
}

mod frames;
mod limits;
mod refusals;
mod sessions;
mod stranger;
mod tcp;

use std::net::SocketAddr;
use std::time::Duration;

use highwater_record::{Budget, BufferPool};
use tokio::time::timeout;

use super::*;
use crate::ca::ClusterCa;
use crate::identity::{ClusterId, NodeIdentity};
use crate::tls::PeerTls;

/// Far above what any wait takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn id(node: u32) -> NodeId {
    NodeId::new(node).unwrap()
}

/// The incarnation of node `node` unless a test says otherwise.
fn incarnation(node: u32) -> Incarnation {
    Incarnation::from_bytes([node as u8; 16])
}

/// A cluster's authority.
struct Cluster {
    ca: ClusterCa,
    transport: PeerTransport,
}

impl Cluster {
    fn new(transport: PeerTransport) -> Cluster {
        let cluster = ClusterId::random().unwrap();
        Cluster {
            ca: ClusterCa::generate(cluster).unwrap(),
            transport,
        }
    }

    fn identity(&self, node: u32) -> NodeIdentity {
        NodeIdentity {
            cluster: self.ca.cluster(),
            node: id(node),
            incarnation: incarnation(node),
        }
    }

    fn tls(&self, node: u32) -> PeerTls {
        self.tls_of(&self.identity(node))
    }

    fn tls_of(&self, identity: &NodeIdentity) -> PeerTls {
        let credentials = self.ca.issue_node(identity).unwrap();
        PeerTls::new(&self.ca.trust(), &credentials).unwrap()
    }

    /// A node that knows no peers yet.
    fn start(&self, node: u32) -> Node {
        Node::start(config(self.transport), self.tls(node))
    }

    /// Two nodes that know each other.
    fn pair(&self) -> (Node, Node) {
        let (first, second) = (self.start(1), self.start(2));
        introduce(&[&first, &second]);
        (first, second)
    }
}

fn config(transport: PeerTransport) -> PeerConfig {
    PeerConfig {
        transport,
        ..PeerConfig::new(loopback(), Boot(1), Vec::new(), pool(256 << 20))
    }
}

fn pool(bytes: usize) -> BufferPool {
    BufferPool::new(Budget::new(bytes), 4096)
}

/// An endpoint and its events.
struct Node {
    endpoint: PeerEndpoint,
    events: PeerEvents,
}

fn introduce(nodes: &[&Node]) {
    let peers: Vec<_> = nodes.iter().map(|node| node.as_peer()).collect();
    for node in nodes {
        node.endpoint.set_peers(&peers);
    }
}

impl Node {
    fn start(config: PeerConfig, tls: PeerTls) -> Node {
        let (endpoint, events) = PeerEndpoint::start(config, tls).unwrap();
        Node { endpoint, events }
    }

    fn id(&self) -> NodeId {
        self.endpoint.life().node
    }

    fn as_peer(&self) -> Peer {
        let life = self.endpoint.life();
        Peer {
            node: life.node,
            incarnation: Some(life.incarnation),
            address: self.endpoint.local_addr(),
        }
    }

    /// The first event that `pick` wants; others are dropped.
    #[track_caller]
    fn wait<T>(&mut self, mut pick: impl FnMut(PeerEvent) -> Option<T>) -> impl Future<Output = T> {
        let caller = std::panic::Location::caller();
        async move {
            let mut passed = Vec::new();
            let wanted = timeout(PATIENCE, async {
                loop {
                    let event = self.events.recv().await;
                    passed.push(format!("{event:.200?}"));
                    if let Some(wanted) = pick(event) {
                        return wanted;
                    }
                }
            });
            match wanted.await {
                Ok(wanted) => wanted,
                Err(_) => panic!("{caller}: the event did not come, only {passed:#?}"),
            }
        }
    }

    #[track_caller]
    fn up(&mut self) -> impl Future<Output = (Life, Session)> {
        self.wait(|event| match event {
            PeerEvent::Up { peer, session } => Some((peer, session)),
            _ => None,
        })
    }

    #[track_caller]
    fn down(&mut self) -> impl Future<Output = (NodeId, SessionNumber, DownReason)> {
        self.wait(|event| match event {
            PeerEvent::Down {
                peer,
                session,
                reason,
            } => Some((peer, session, reason)),
            _ => None,
        })
    }

    #[track_caller]
    fn refusal(&mut self) -> impl Future<Output = RefusalReason> {
        self.wait(|event| match event {
            PeerEvent::Refused { reason, .. } => Some(reason),
            PeerEvent::Up { peer, .. } => panic!("let in: {peer:?}"),
            _ => None,
        })
    }

    #[track_caller]
    fn dial_failure(&mut self) -> impl Future<Output = DialError> {
        self.wait(|event| match event {
            PeerEvent::DialFailed { reason, .. } => Some(reason),
            PeerEvent::Up { peer, .. } => panic!("let in: {peer:?}"),
            _ => None,
        })
    }

    /// The next frame on `lane`.
    #[track_caller]
    fn frame(&mut self, lane: Lane) -> impl Future<Output = highwater_record::Buffer> {
        self.wait(move |event| match event {
            PeerEvent::Frame {
                lane: from, body, ..
            } if from == lane => Some(body),
            PeerEvent::Down { reason, .. } => panic!("down: {reason}"),
            _ => None,
        })
    }
}

/// Both see the same session stand.
async fn both_up(first: &mut Node, second: &mut Node) -> Session {
    let (peer_of_first, session) = first.up().await;
    let (peer_of_second, same) = second.up().await;
    assert_eq!(session, same);
    assert_eq!(peer_of_first, second.endpoint.life());
    assert_eq!(peer_of_second, first.endpoint.life());
    session
}

/// Polls until `done`; what it waits for happens in other tasks of the runtime.
#[track_caller]
fn until(mut done: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let waited = timeout(PATIENCE, async {
            while !done() {
                tokio::task::yield_now().await;
            }
        });
        assert!(waited.await.is_ok(), "{caller}: it did not happen");
    }
}

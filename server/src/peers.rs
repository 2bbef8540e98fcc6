//! The links to the other nodes, on shard 0's thread: `net`'s words into the engine's and back.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use highwater_engine::{Input, Lane, NodeId, Session};
use highwater_log::Incarnation;
use highwater_log::storage::Storage;
use highwater_net::peer::{
    self, DialError, PeerCounters, PeerEndpoint, PeerEvent, PeerEvents, PeerTransport,
    RefusalReason, SendError, SessionNumber,
};
use highwater_record::Buffer;

use crate::mixed::Mixed;
use crate::thread::{Ended, Thread};

/// How many events of links are taken before the next turn.
const EVENTS_PER_TURN_MAX: usize = 256;

/// A node's end of its links, as shard 0's thread has it.
pub(crate) struct Peers {
    endpoint: PeerEndpoint,
    transport: PeerTransport,
    events: RefCell<Events>,
    mixed: RefCell<Mixed>,
}

struct Events {
    links: PeerEvents,
    /// One that the thread was woken by.
    first: Option<PeerEvent>,
}

impl Peers {
    pub(crate) fn new(endpoint: PeerEndpoint, transport: PeerTransport, links: PeerEvents) -> Self {
        let first = None;
        Self {
            endpoint,
            transport,
            events: RefCell::new(Events { links, first }),
            mixed: RefCell::default(),
        }
    }

    /// Waits until an event is there; [`drain`](Self::drain) takes it.
    pub(crate) async fn arrived(&self) {
        poll_fn(|cx| {
            let mut events = self.events.borrow_mut();
            if events.first.is_some() {
                return Poll::Ready(());
            }
            match events.links.poll_recv(cx) {
                Poll::Ready(event) => {
                    events.first = Some(event);
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Hands what has come to the shards, or ends the node if it does not fit its cluster.
    pub(crate) fn drain<S: Storage + 'static>(&self, thread: &Thread<S>) {
        self.hand_on_events(thread);
        let now = thread.clock.now().monotonic;
        if let Some(why) = self.mixed.borrow().verdict(now) {
            thread.end(Ended::Misconfigured(why.to_owned()));
        }
    }

    fn hand_on_events<S: Storage + 'static>(&self, thread: &Thread<S>) {
        for _ in 0..EVENTS_PER_TURN_MAX {
            let mut events = self.events.borrow_mut();
            let event = events.first.take().or_else(|| events.links.try_recv());
            drop(events);
            match event {
                Some(event) => {
                    self.compare_transports(&event, thread);
                    hand_on(event, thread);
                }
                None => return,
            }
        }
    }

    /// Notes whether the cluster has another `peer_transport` than this node.
    fn compare_transports<S: Storage + 'static>(&self, event: &PeerEvent, thread: &Thread<S>) {
        let who = match event {
            PeerEvent::Up { .. } => return self.mixed.borrow_mut().link_up(),
            PeerEvent::DialFailed {
                peer,
                reason: DialError::OtherTransport { .. },
            } => format!("node {peer}"),
            PeerEvent::Refused {
                address,
                reason: RefusalReason::OtherTransport,
            } => format!("a node at {}", address.ip()),
            _ => return,
        };
        let (ours, theirs) = (self.transport, self.transport.other());
        let what = format!(
            "peer_transport = \"{ours}\" here, and {who} of this cluster has \"{theirs}\"; all \
             nodes of a cluster must have the same"
        );
        let now = thread.clock.now().monotonic;
        if self.mixed.borrow_mut().tell(now, what.clone()) {
            tracing::warn!("{what}");
        }
    }

    /// Sends a frame, or not: consensus sends again what matters.
    pub(crate) fn send(&self, to: NodeId, session: Session, lane: Lane, chunks: Vec<Buffer>) {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        let number = SessionNumber(session.0);
        match self
            .endpoint
            .send(net_node(to), number, net_lane(lane), &chunks)
        {
            Ok(()) => {}
            Err(error @ SendError::TooLarge { .. }) => {
                tracing::error!(to = to.0, %error, "a frame cannot be sent");
            }
            Err(error) => tracing::debug!(to = to.0, %error, "a frame is dropped"),
        }
    }

    /// What the links have done.
    pub(crate) fn counters(&self) -> PeerCounters {
        self.endpoint.counters()
    }

    /// Ends all links and frees the port.
    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }
}

fn hand_on<S: Storage + 'static>(event: PeerEvent, thread: &Thread<S>) {
    match event {
        PeerEvent::Up { peer, session } => {
            tracing::info!(peer = %peer.node, session = %session.number, "link up");
            thread.push_to_all(|| Input::PeerUp {
                node: engine_node(peer.node),
                session: Session(session.number.0),
                incarnation: Incarnation(peer.incarnation.to_bytes()),
            });
        }
        PeerEvent::Down {
            peer,
            session,
            reason,
        } => {
            tracing::info!(%peer, %session, %reason, "link down");
            thread.push_to_all(|| Input::PeerDown {
                node: engine_node(peer),
                session: Session(session.0),
            });
        }
        PeerEvent::Frame {
            from,
            session,
            lane,
            body,
        } => thread.push_input(Input::PeerFrame {
            from: engine_node(from),
            session: Session(session.0),
            lane: engine_lane(lane),
            bytes: body,
        }),
        PeerEvent::DialFailed { peer, reason } => {
            tracing::debug!(%peer, %reason, "no link yet");
        }
        PeerEvent::Refused {
            reason: RefusalReason::OtherTransport,
            ..
        } => {}
        PeerEvent::Refused { address, reason } => {
            tracing::warn!(%address, %reason, "refused a peer");
        }
    }
}

fn engine_node(node: highwater_net::NodeId) -> NodeId {
    NodeId(node.get())
}

fn net_node(node: NodeId) -> highwater_net::NodeId {
    highwater_net::NodeId::new(node.0).expect("it came from the configuration, as net has it")
}

fn net_lane(lane: Lane) -> peer::Lane {
    match lane {
        Lane::Control => peer::Lane::Control,
        Lane::Append => peer::Lane::Append,
        Lane::Bulk => peer::Lane::Bulk,
    }
}

fn engine_lane(lane: peer::Lane) -> Lane {
    match lane {
        peer::Lane::Control => Lane::Control,
        peer::Lane::Append => Lane::Append,
        peer::Lane::Bulk => Lane::Bulk,
    }
}

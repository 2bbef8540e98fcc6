//! The queue between the links and whoever drives them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use highwater_record::Buffer;
use tokio::sync::Notify;

use super::handshake::RefusalReason;
use super::{DownReason, Lane, PeerTransport, Session, SessionNumber};
use crate::identity::{Life, NodeId};

/// How many bytes of frames wait at most on each lane before it is no longer read; a frame is let
/// into an empty queue whatever its size.
const QUEUED_BYTES_MAX: [usize; 3] = [8 << 20, 32 << 20, 16 << 20];

/// How many notices (refusals, failed dials) wait at most; later ones are counted, not told.
const NOTICES_MAX: usize = 256;

/// What happens on a node's links.
#[derive(Debug)]
pub enum PeerEvent {
    /// A session stands: frames may be sent in it, and will come.
    Up {
        /// Who is at the other end.
        peer: Life,
        /// The session.
        session: Session,
    },
    /// A frame has come.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// In which session.
        session: SessionNumber,
        /// On which lane.
        lane: Lane,
        /// Its bytes.
        body: Buffer,
    },
    /// A session has ended. Nothing of it comes after this.
    Down {
        /// Who was at the other end.
        peer: NodeId,
        /// Which session.
        session: SessionNumber,
        /// Why.
        reason: DownReason,
    },
    /// A notice: an attempt to begin a session with a peer failed. It goes on trying.
    DialFailed {
        /// The peer.
        peer: NodeId,
        /// Why, for a person.
        reason: DialError,
    },
    /// A notice: somebody was refused at this node's door.
    Refused {
        /// Where the connection came from.
        address: SocketAddr,
        /// Why.
        reason: RefusalReason,
    },
}

/// Why an attempt to begin a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The peer refuses us.
    #[error("refused by the peer: {0}")]
    Refused(RefusalReason),
    /// We refuse whom we have reached.
    #[error("who answers is not whom we dialled: {0}")]
    NotThePeer(RefusalReason),
    /// No connection, or it was lost.
    #[error("{0}")]
    Connection(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer is there, with its certificate, but by the other transport. The operator's
    /// mistake: all nodes of a cluster must have the same.
    #[error("its peer_transport is \"{theirs}\", this node's is \"{ours}\"")]
    OtherTransport {
        /// The peer's.
        theirs: PeerTransport,
        /// This node's.
        ours: PeerTransport,
    },
}

/// The receiving end of a node's links, for one reader.
///
/// It can be drained without waiting ([`try_recv`](PeerEvents::try_recv)) by a thread that has its
/// turns anyway, awaited, or polled. Link events and control frames overtake other frames; what is
/// promised is in the [module's documentation](crate::peer).
#[derive(Debug)]
pub struct PeerEvents {
    queue: Arc<EventQueue>,
}

impl PeerEvents {
    /// The next event, if there is one.
    pub fn try_recv(&mut self) -> Option<PeerEvent> {
        self.queue.pop()
    }

    /// The next event. Nothing is lost if this is dropped before it is done.
    pub async fn recv(&mut self) -> PeerEvent {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](PeerEvents::recv); only the last `cx` is woken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        if let Some(event) = self.queue.pop() {
            return Poll::Ready(event);
        }
        self.queue.arrived.register(cx.waker());
        // Between the first look and the registration one may have come.
        self.queue.pop().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Shared by all links of an endpoint.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    waiting: Mutex<Waiting>,
    arrived: AtomicWaker,
    room: [Notify; 3],
}

#[derive(Debug, Default)]
struct Waiting {
    /// Link events, notices and control frames.
    urgent: VecDeque<PeerEvent>,
    /// Frames of the other lanes.
    frames: VecDeque<PeerEvent>,
    /// Bytes of frames by lane, in both.
    bytes: [usize; 3],
    notices: usize,
}

impl EventQueue {
    pub(super) fn new() -> (Arc<EventQueue>, PeerEvents) {
        let queue = Arc::new(EventQueue::default());
        let events = PeerEvents {
            queue: queue.clone(),
        };
        (queue, events)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Tells that a session stands. Bounded by one `Up` and one `Down` a peer and backoff: the
    /// dialer waits between sessions.
    pub(super) fn push_up(&self, peer: Life, session: Session) {
        let up = PeerEvent::Up { peer, session };
        self.waiting().urgent.push_back(up);
        self.arrived.wake();
    }

    /// Tells that a session has ended, and forgets its frames that nobody has taken.
    pub(super) fn push_down(&self, peer: NodeId, ended: SessionNumber, reason: DownReason) {
        let mut waiting = self.waiting();
        waiting.forget(peer, ended);
        waiting.urgent.push_back(PeerEvent::Down {
            peer,
            session: ended,
            reason,
        });
        drop(waiting);
        self.arrived.wake();
        self.room.iter().for_each(Notify::notify_waiters);
    }

    /// Tells a notice if there is room for it.
    pub(super) fn push_notice(&self, notice: PeerEvent) {
        let mut waiting = self.waiting();
        if waiting.notices < NOTICES_MAX {
            waiting.notices += 1;
            waiting.urgent.push_back(notice);
            drop(waiting);
            self.arrived.wake();
        }
    }

    /// Hands a frame over, as soon as there is room on its lane.
    pub(super) async fn push_frame(
        &self,
        from: NodeId,
        session: SessionNumber,
        lane: Lane,
        body: Buffer,
    ) {
        loop {
            let mut room = pin!(self.room[lane.index()].notified());
            // From here on a pop is not missed.
            room.as_mut().enable();
            if self.has_room(lane, body.len()) {
                break;
            }
            room.await;
        }
        let mut waiting = self.waiting();
        waiting.bytes[lane.index()] += body.len();
        let frame = PeerEvent::Frame {
            from,
            session,
            lane,
            body,
        };
        match lane {
            Lane::Control => waiting.urgent.push_back(frame),
            Lane::Append | Lane::Bulk => waiting.frames.push_back(frame),
        }
        drop(waiting);
        self.arrived.wake();
    }

    fn has_room(&self, lane: Lane, bytes: usize) -> bool {
        let queued = self.waiting().bytes[lane.index()];
        queued == 0 || queued + bytes <= QUEUED_BYTES_MAX[lane.index()]
    }

    fn pop(&self) -> Option<PeerEvent> {
        let mut waiting = self.waiting();
        let event = match waiting.urgent.pop_front() {
            Some(event) => event,
            None => waiting.frames.pop_front()?,
        };
        match &event {
            PeerEvent::Frame { lane, body, .. } => {
                let lane = lane.index();
                waiting.bytes[lane] -= body.len();
                drop(waiting);
                self.room[lane].notify_waiters();
            }
            PeerEvent::DialFailed { .. } | PeerEvent::Refused { .. } => waiting.notices -= 1,
            PeerEvent::Up { .. } | PeerEvent::Down { .. } => {}
        }
        Some(event)
    }
}

impl Waiting {
    fn forget(&mut self, peer: NodeId, ended: SessionNumber) {
        let bytes = &mut self.bytes;
        let mut stays = |event: &PeerEvent| match event {
            PeerEvent::Frame {
                from,
                session,
                lane,
                body,
            } if *from == peer && *session == ended => {
                bytes[lane.index()] -= body.len();
                false
            }
            _ => true,
        };
        self.urgent.retain(&mut stays);
        self.frames.retain(&mut stays);
    }
}

//! One session, from the moment its three lanes stand: the same on both sides.

use std::sync::Arc;

use futures_util::future::join_all;
use highwater_record::Buffer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::link::Link;
use super::outbox::Outbox;
use super::transport::{Connection, Goodbye, Lost, Receiver, Sender};
use super::{DownReason, Lane, Session, SessionNumber, Shared};
use crate::identity::{Life, NodeId};
use crate::memory::reserve;

/// A lane that has been greeted on both sides.
pub(super) struct LaneStream {
    pub(super) connection: Connection,
    pub(super) send: Sender,
    pub(super) receive: Receiver,
}

/// A session that stands, as senders see it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) number: SessionNumber,
    /// By [`Lane::index`].
    pub(super) outboxes: [Arc<Outbox>; 3],
    /// Ends the session.
    pub(super) stop: watch::Sender<Option<DownReason>>,
}

impl Live {
    /// Ends the session; the first reason counts.
    pub(super) fn end(&self, reason: DownReason) {
        self.stop.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(reason);
            is_first
        });
    }
}

/// Lives a session to its end: announces it, moves frames, announces its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    link: Arc<Link>,
    session: Session,
    lanes: [LaneStream; 3],
) {
    let peer = session.other_end(shared.identity.node);
    let limits = shared.config.outbox;
    let outboxes =
        [limits.control, limits.append, limits.bulk].map(|limit| Outbox::new(limit).into());
    let (stop, mut stopped) = watch::channel(None);
    let live = Live {
        number: session.number,
        outboxes,
        stop,
    };
    let mut goodbyes = Vec::with_capacity(Lane::ALL.len());
    let streams = lanes.map(|lane| {
        goodbyes.push(lane.connection.close(Goodbye::SessionEnded));
        (lane.send, lane.receive)
    });
    // The peer may have been taken out of the membership, or begun a later session, meanwhile.
    if link.install(live.clone()) {
        announce(&shared, peer, session);
        let mut tasks = spawn_lanes(&shared, peer.node, &live, streams);
        let reason = tokio::select! {
            ended = tasks.join_next() => reason_of(ended),
            asked = stopped.wait_for(Option::is_some) => match asked {
                Ok(reason) => reason.clone().expect("it was waited for"),
                Err(_) => DownReason::Closed,
            },
        };
        // Nothing of this session may be delivered after its end.
        tasks.shutdown().await;
        link.remove(session.number);
        tracing::info!(peer = %peer.node, session = %session.number, %reason, "peer down");
        shared.queue.push_down(peer.node, session.number, reason);
    }
    join_all(goodbyes).await;
}

fn announce(shared: &Shared, peer: Life, session: Session) {
    let Life {
        node,
        incarnation,
        boot,
    } = peer;
    tracing::info!(peer = %node, %incarnation, %boot, session = %session.number, "peer up");
    shared.counters.sessions.add(1);
    shared.queue.push_up(peer, session);
}

fn spawn_lanes(
    shared: &Arc<Shared>,
    peer: NodeId,
    live: &Live,
    streams: [(Sender, Receiver); 3],
) -> JoinSet<DownReason> {
    let mut tasks = JoinSet::new();
    for ((sender, receiver), lane) in streams.into_iter().zip(Lane::ALL) {
        let outbox = live.outboxes[lane.index()].clone();
        tasks.spawn(send(outbox, lane, sender));
        let receiver = Reader {
            shared: shared.clone(),
            peer,
            session: live.number,
            lane,
            stream: receiver,
        };
        tasks.spawn(receiver.run());
    }
    tasks
}

fn reason_of(ended: Option<Result<DownReason, tokio::task::JoinError>>) -> DownReason {
    match ended.expect("six tasks were spawned") {
        Ok(reason) => reason,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => DownReason::Closed,
        },
    }
}

fn lost(lane: Lane, error: impl std::fmt::Display) -> DownReason {
    DownReason::ConnectionLost {
        lane,
        error: error.to_string(),
    }
}

async fn send(outbox: Arc<Outbox>, lane: Lane, mut stream: Sender) -> DownReason {
    loop {
        let mut chunks = match stream.wait_for(outbox.take()).await {
            Ok(chunks) => chunks,
            Err(error) => return lost(lane, error),
        };
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            match stream.write(rest).await {
                Err(error) => return lost(lane, error),
                Ok(written) => {
                    outbox.release(written.bytes);
                    rest = &mut rest[written.chunks..];
                }
            }
        }
    }
}

/// What part of the memory peers leave to the log: what they send is freed by being written, and a
/// write needs memory of its own.
const LOG_DIVISOR: usize = 16;

/// Reads one lane.
struct Reader {
    shared: Arc<Shared>,
    peer: NodeId,
    session: SessionNumber,
    lane: Lane,
    stream: Receiver,
}

impl Reader {
    async fn run(mut self) -> DownReason {
        loop {
            match self.frame().await {
                Err(reason) => return reason,
                Ok(body) => {
                    let counters = &self.shared.counters;
                    counters.frames_received.add(1);
                    counters.bytes_received.add(body.len() as u64);
                    let queue = &self.shared.queue;
                    queue
                        .push_frame(self.peer, self.session, self.lane, body)
                        .await;
                }
            }
        }
    }

    /// The length is believed only as far as the lane's limit and the budget go.
    async fn frame(&mut self) -> Result<Buffer, DownReason> {
        let lane = self.lane;
        let mut prefix = [0; 4];
        let whole = self.stream.read_array(&mut prefix).await;
        self.check(whole)?;
        let bytes = u32::from_le_bytes(prefix);
        let max = lane.frame_bytes_max();
        if bytes as usize > max {
            return Err(DownReason::FrameTooLarge { lane, bytes, max });
        }
        let (pool, others) = match lane {
            Lane::Control => (&self.shared.control_pool, 0),
            Lane::Append | Lane::Bulk => {
                let pool = &self.shared.config.pool;
                (pool, pool.budget().limit() / LOG_DIVISOR)
            }
        };
        let waits = &self.shared.counters.budget_waits;
        let mut body = reserve(pool, bytes as usize, others, waits)
            .await
            .map_err(|_| DownReason::AboveBudget { lane, bytes })?;
        let whole = self.stream.read_buffer(&mut body, bytes as usize).await;
        self.check(whole)?;
        Ok(body.freeze())
    }

    fn check(&self, whole: Result<bool, Lost>) -> Result<(), DownReason> {
        match whole {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(self.lane, "the peer has finished the stream")),
            Err(error) => Err(lost(self.lane, error)),
        }
    }
}

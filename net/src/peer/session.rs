//! One session, from the moment its three lanes stand: the same on both sides.

use std::sync::Arc;

use highwater_record::Buffer;
use quinn::{Connection, ReadError, SendStream, VarInt, WriteError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::link::Link;
use super::outbox::Outbox;
use super::{DownReason, Lane, Session, SessionNumber, Shared};
use crate::gather::Gather;
use crate::identity::{Life, NodeId};
use crate::memory::reserve;

/// The application error code of connections whose session has ended.
const SESSION_ENDED: VarInt = VarInt::from_u32(1);

/// A lane that has been greeted on both sides.
pub(super) struct LaneStream {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: Gather,
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
    let connections = lanes.each_ref().map(|lane| lane.connection.clone());
    let limits = shared.config.outbox;
    let outboxes =
        [limits.control, limits.append, limits.bulk].map(|limit| Outbox::new(limit).into());
    let (stop, mut stopped) = watch::channel(None);
    let live = Live {
        number: session.number,
        outboxes,
        stop,
    };
    // The peer may have been taken out of the membership, or begun a later session, meanwhile.
    if link.install(live.clone()) {
        announce(&shared, peer, session);
        let mut lanes = spawn_lanes(&shared, peer.node, &live, lanes);
        let reason = tokio::select! {
            ended = lanes.join_next() => reason_of(ended),
            asked = stopped.wait_for(Option::is_some) => match asked {
                Ok(reason) => reason.clone().expect("it was waited for"),
                Err(_) => DownReason::Closed,
            },
        };
        // Nothing of this session may be delivered after its end.
        lanes.shutdown().await;
        link.remove(session.number);
        tracing::info!(peer = %peer.node, session = %session.number, %reason, "peer down");
        shared.queue.push_down(peer.node, session.number, reason);
    }
    for connection in connections {
        connection.close(SESSION_ENDED, b"the session has ended");
    }
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
    lanes: [LaneStream; 3],
) -> JoinSet<DownReason> {
    let mut tasks = JoinSet::new();
    for (stream, lane) in lanes.into_iter().zip(Lane::ALL) {
        let outbox = live.outboxes[lane.index()].clone();
        tasks.spawn(send(outbox, lane, stream.send));
        let receiver = Receiver {
            shared: shared.clone(),
            peer,
            session: live.number,
            lane,
            stream: stream.receive,
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

/// quinn says "connection lost" and keeps the cause beneath.
fn write_lost(lane: Lane, error: WriteError) -> DownReason {
    match error {
        WriteError::ConnectionLost(cause) => lost(lane, cause),
        error => lost(lane, error),
    }
}

fn read_lost(lane: Lane, error: ReadError) -> DownReason {
    match error {
        ReadError::ConnectionLost(cause) => lost(lane, cause),
        error => lost(lane, error),
    }
}

async fn send(outbox: Arc<Outbox>, lane: Lane, mut stream: SendStream) -> DownReason {
    loop {
        let mut chunks = outbox.take().await;
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            match stream.write_chunks(rest).await {
                Err(error) => return write_lost(lane, error),
                Ok(written) => {
                    outbox.release(written.bytes);
                    rest = &mut rest[written.chunks..];
                }
            }
        }
    }
}

/// Reads one lane.
struct Receiver {
    shared: Arc<Shared>,
    peer: NodeId,
    session: SessionNumber,
    lane: Lane,
    stream: Gather,
}

impl Receiver {
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
        let whole = self.stream.read_array(&mut prefix, &mut 0).await;
        self.check(whole)?;
        let bytes = u32::from_le_bytes(prefix);
        let max = lane.frame_bytes_max();
        if bytes as usize > max {
            return Err(DownReason::FrameTooLarge { lane, bytes, max });
        }
        let pool = match lane {
            Lane::Control => &self.shared.control_pool,
            Lane::Append | Lane::Bulk => &self.shared.config.pool,
        };
        let mut body = reserve(pool, bytes as usize, 0, &self.shared.counters.budget_waits)
            .await
            .map_err(|_| DownReason::AboveBudget { lane, bytes })?;
        let whole = self.stream.read_buffer(&mut body, bytes as usize).await;
        self.check(whole)?;
        Ok(body.freeze())
    }

    fn check(&self, whole: Result<bool, ReadError>) -> Result<(), DownReason> {
        match whole {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(self.lane, "the peer has finished the stream")),
            Err(error) => Err(read_lost(self.lane, error)),
        }
    }
}

//! One shard's thread: its turns, its disk's completions, its clients' sockets, and on shard 0
//! the links to the peers, all on one runtime of one thread (DESIGN.md section 7).
//!
//! ```text
//!   clients ──┐                        ┌──> clients' writers
//!   mailbox ──┼──> Shard::turn ────────┼──> other shards' mailboxes
//!   disk    ──┤    (drive)             ├──> embedding service
//!   peers   ──┘                        └──> peers
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_engine::kafka::{Desk, KafkaService};
use highwater_engine::{
    ConnId, GroupId, Input, Lane, NodeId, Now, Op, OpResult, Output, Session, Shard, ShardId,
    Ticket, Turn,
};
use highwater_log::storage::Storage;
use highwater_net::kafka::{Admission, QuicListener, TcpAcceptor};
use highwater_record::Buffer;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

use crate::clients::{Clients, Host, Terms, serve};
use crate::mailbox::{Located, Mail, Mailbox, NotTaken, ThreadReport};
use crate::peers::Peers;

/// How much mail is taken before the next turn.
const MAIL_PER_TURN_MAX: usize = 256;

/// How long to wait before mail that another shard had no room for is offered again.
const MAIL_RETRY: Duration = Duration::from_millis(1);

/// How long to wait after accept(2) has failed, for instance for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a stopping shard waits for its groups to be led by others.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// The clocks of a node: monotonic since the node's start, and the wall's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |since| since.as_millis());
        Now {
            monotonic: self.origin.elapsed(),
            wall_ms: i64::try_from(wall_ms).unwrap_or(i64::MAX),
        }
    }

    fn instant(self, monotonic: Duration) -> tokio::time::Instant {
        (self.origin + monotonic).into()
    }
}

/// How a shard's thread has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it was told.
    Stopped,
    /// It cannot go on: the disk, or a broken invariant.
    Failed(String),
    /// It must not go on: its configuration does not fit the cluster.
    Misconfigured(String),
}

/// What a shard's thread drives.
pub(crate) struct Thread<S: Storage> {
    pub(crate) id: ShardId,
    pub(crate) clock: Clock,
    pub(crate) shard: RefCell<Shard<S, KafkaService<Desk>>>,
    pub(crate) mailbox: Mailbox,
    /// Of all shards, by number.
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) clients: Clients,
    pub(crate) terms: Terms,
    pub(crate) admission: Admission,
    /// The links, on shard 0.
    pub(crate) peers: Option<Peers>,
    state: RefCell<State>,
    wake: Notify,
}

/// What belongs to the driver alone.
#[derive(Default)]
struct State {
    asks: BTreeMap<Ticket, oneshot::Sender<OpResult>>,
    requests: BTreeMap<ConnId, oneshot::Sender<Vec<Bytes>>>,
    /// Who waits for a replica to be there.
    awaiting: Vec<(GroupId, oneshot::Sender<()>)>,
    /// Mail that another shard had no room for, by shard.
    held: BTreeMap<usize, VecDeque<Mail>>,
    /// When to give up the hand-over of leadership, once a stop was asked for.
    stop_by: Option<Duration>,
    /// Groups that are to be led by others before the end.
    handing_over: BTreeMap<Ticket, GroupId>,
    ended: Option<Ended>,
}

impl<S: Storage> Host for Thread<S> {
    fn push(&self, input: Input) {
        self.shard.borrow_mut().push(input);
        self.wake.notify_one();
    }

    fn accepts_input(&self) -> bool {
        self.shard.borrow().accepts_input() && self.state.borrow().held.is_empty()
    }
}

/// The parts of a [`Thread`] that come from outside.
pub(crate) struct Parts<S: Storage> {
    pub(crate) id: ShardId,
    pub(crate) clock: Clock,
    pub(crate) shard: Shard<S, KafkaService<Desk>>,
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) terms: Terms,
    pub(crate) admission: Admission,
    pub(crate) peers: Option<Peers>,
}

impl<S: Storage + 'static> Thread<S> {
    pub(crate) fn new(parts: Parts<S>) -> Rc<Self> {
        Rc::new(Self {
            id: parts.id,
            clock: parts.clock,
            shard: RefCell::new(parts.shard),
            mailbox: parts.mailboxes[usize::from(parts.id.0)].clone(),
            mailboxes: parts.mailboxes,
            clients: Clients::default(),
            terms: parts.terms,
            admission: parts.admission,
            peers: parts.peers,
            state: RefCell::default(),
            wake: Notify::new(),
        })
    }

    /// What is known of the time, in milliseconds since the Unix epoch.
    pub(crate) fn known_wall_ms(&self) -> i64 {
        self.shard.borrow().known_wall_ms(self.clock.now())
    }

    /// Accepts clients for ever. Runs on the thread's own task set.
    pub(crate) async fn accept(self: Rc<Self>, acceptor: TcpAcceptor) {
        loop {
            match acceptor.accept().await {
                Ok((stream, from)) => self.clone().admit(stream, from),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn admit(self: Rc<Self>, stream: tokio::net::TcpStream, from: SocketAddr) {
        let permit = match self.admission.admit(from.ip(), Instant::now()) {
            Ok(permit) => permit,
            Err(refused) => {
                tracing::debug!(%from, %refused, "connection refused");
                return;
            }
        };
        tokio::task::spawn_local(async move {
            let terms = self.terms.clone();
            serve(&*self, &self.clients, terms, stream.into_split(), from).await;
            drop(permit);
        });
    }

    /// Takes in clients over QUIC for ever.
    pub(crate) async fn accept_quic(self: Rc<Self>, mut listener: QuicListener) {
        while let Some(stream) = listener.accept().await {
            let thread = self.clone();
            tokio::task::spawn_local(async move {
                let terms = thread.terms.clone();
                let halves = (stream.reader, stream.writer);
                serve(&*thread, &thread.clients, terms, halves, stream.address).await;
            });
        }
    }

    /// Ends it after this turn.
    pub(crate) fn end(&self, ended: Ended) {
        self.state.borrow_mut().ended = Some(ended);
    }

    /// Takes turns until the shard is told to end, or cannot go on. `disk` is readable when the
    /// storage has completions.
    pub(crate) async fn drive(self: Rc<Self>, disk: OwnedFd) -> Ended {
        #[expect(
            deprecated,
            reason = "it is sound for an OwnedFd, which keeps its number; the other way is unsafe"
        )]
        let disk = match AsyncFd::new(disk) {
            Ok(disk) => disk,
            Err(error) => return Ended::Failed(format!("cannot watch the disk: {error}")),
        };
        let mut mail = Vec::new();
        loop {
            self.mailbox.take(MAIL_PER_TURN_MAX, &mut mail);
            let more_mail = mail.len() == MAIL_PER_TURN_MAX;
            mail.drain(..).for_each(|piece| self.open_mail(piece));
            if let Some(peers) = &self.peers {
                peers.drain(&*self);
            }
            let turn = self.shard.borrow_mut().turn(self.clock.now());
            self.deliver();
            self.tell_of_replicas();
            self.offer_held();
            self.check_stop();
            if let Some(ended) = self.state.borrow_mut().ended.take() {
                self.mailbox.close();
                return ended;
            }
            if turn.more || more_mail {
                // The sockets' tasks have their turn too.
                yield_now().await;
            } else {
                self.sleep(&turn, &disk).await;
            }
        }
    }

    /// Waits until there is something to do.
    async fn sleep(&self, turn: &Turn, disk: &AsyncFd<OwnedFd>) {
        let mut until = turn.next_deadline;
        if self.must_look_again() {
            let retry = self.clock.now().monotonic + MAIL_RETRY;
            until = Some(until.map_or(retry, |until| until.min(retry)));
        }
        let timer = async {
            match until {
                Some(until) => tokio::time::sleep_until(self.clock.instant(until)).await,
                None => std::future::pending().await,
            }
        };
        let peers = async {
            match &self.peers {
                Some(peers) => peers.arrived().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.mailbox.woken() => {}
            ready = disk.readable() => {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            () = peers => {}
            () = timer => {}
        }
    }

    /// Whether something waits that nobody will wake the thread for.
    fn must_look_again(&self) -> bool {
        let state = self.state.borrow();
        !state.held.is_empty() || state.stop_by.is_some()
    }

    fn open_mail(&self, mail: Mail) {
        let mut state = self.state.borrow_mut();
        match mail {
            Mail::Input(input) => self.shard.borrow_mut().push(input),
            Mail::Ask {
                ticket,
                group,
                op,
                reply,
            } => {
                state.asks.insert(ticket, reply);
                self.shard
                    .borrow_mut()
                    .push(Input::Local { ticket, group, op });
            }
            Mail::Forget { ticket, group } => {
                if state.asks.remove(&ticket).is_some() {
                    let cancel = Input::LocalCancel { ticket, group };
                    self.shard.borrow_mut().push(cancel);
                }
            }
            Mail::Request { frame, reply } => {
                let conn = self.clients.number();
                state.requests.insert(conn, reply);
                self.shard.borrow_mut().push(Input::Request { conn, frame });
            }
            Mail::Locate { partition, reply } => {
                let shard = self.shard.borrow();
                let controller = shard.service().cluster().controller();
                let topic = controller.topic(partition.topic.as_ref());
                let index = i32::try_from(partition.partition).unwrap_or(-1);
                let place = topic.and_then(|topic| topic.partition(index));
                // Whoever asked may have left.
                let _ = reply.send(place.map(|place| Located {
                    group: place.group,
                    replicas: place.replicas.clone(),
                }));
            }
            Mail::AwaitReplica { group, reply } => state.awaiting.push((group, reply)),
            Mail::Count { reply } => {
                let report = ThreadReport {
                    shard: self.shard.borrow().report(),
                    peers: self.peers.as_ref().map(Peers::counters),
                };
                // Whoever asked may have left.
                let _ = reply.send(report);
            }
            Mail::Send {
                to,
                session,
                lane,
                chunks,
            } => self.send(to, session, lane, chunks),
            Mail::Stop => {
                state.stop_by = Some(self.clock.now().monotonic + HAND_OVER_MAX);
                drop(state);
                self.hand_over();
            }
            Mail::Abort => state.ended = Some(Ended::Stopped),
        }
    }

    /// Gives what the turn has put out to whom it is for.
    fn deliver(&self) {
        loop {
            let output = self.shard.borrow_mut().poll_output();
            match output {
                None => return,
                Some(output) => self.give(output),
            }
        }
    }

    fn give(&self, output: Output) {
        match output {
            Output::PeerFrame {
                to,
                session,
                lane,
                chunks,
            } => self.send(to, session, lane, chunks),
            Output::Response { conn, chunks } => self.respond(conn, chunks),
            Output::Close { conn } => {
                self.state.borrow_mut().requests.remove(&conn);
                self.clients.close(conn);
            }
            Output::ToShard { to, message } => {
                let from = self.id;
                self.post(
                    usize::from(to.0),
                    Mail::Input(Input::FromShard { from, message }),
                );
            }
            Output::LocalDone { ticket, result } => {
                let mut state = self.state.borrow_mut();
                if result.is_err() {
                    // Nobody else could lead it.
                    state.handing_over.remove(&ticket);
                }
                if let Some(reply) = state.asks.remove(&ticket) {
                    // Whoever asked may have left.
                    let _ = reply.send(result);
                }
            }
            Output::Failed { reason } => {
                self.state.borrow_mut().ended = Some(Ended::Failed(reason));
            }
        }
    }

    /// Tells those who wait for a replica that it is there.
    fn tell_of_replicas(&self) {
        let (shard, mut state) = (self.shard.borrow(), self.state.borrow_mut());
        let there = |(group, reply): &mut (GroupId, oneshot::Sender<()>)| {
            reply.is_closed() || shard.status(*group).is_some()
        };
        for (_, reply) in state.awaiting.extract_if(.., there) {
            // Whoever asked may have left.
            let _ = reply.send(());
        }
    }

    fn respond(&self, conn: ConnId, chunks: Vec<Bytes>) {
        if self.clients.answer(conn, chunks.clone()) {
            return;
        }
        let reply = self.state.borrow_mut().requests.remove(&conn);
        if let Some(reply) = reply {
            let _ = reply.send(chunks);
            self.push(Input::ConnClosed { conn });
        }
    }

    fn send(&self, to: NodeId, session: Session, lane: Lane, chunks: Vec<Buffer>) {
        match &self.peers {
            Some(peers) => peers.send(to, session, lane, chunks),
            None => self.post(
                0,
                Mail::Send {
                    to,
                    session,
                    lane,
                    chunks,
                },
            ),
        }
    }

    /// Puts mail into another shard's box, behind what is held for it.
    fn post(&self, to: usize, mail: Mail) {
        let mut state = self.state.borrow_mut();
        if let Some(held) = state.held.get_mut(&to) {
            return held.push_back(mail);
        }
        if let Err(NotTaken::Full(mail)) = self.mailboxes[to].send(mail) {
            state.held.entry(to).or_default().push_back(*mail);
        }
    }

    fn offer_held(&self) {
        let mut state = self.state.borrow_mut();
        state.held.retain(|to, held| {
            while let Some(mail) = held.pop_front() {
                if let Err(NotTaken::Full(mail)) = self.mailboxes[*to].send(mail) {
                    held.push_front(*mail);
                    return true;
                }
            }
            false
        });
    }

    /// Hands something to this thread's shard, which is about to take its turn.
    pub(crate) fn push_input(&self, input: Input) {
        self.shard.borrow_mut().push(input);
    }

    /// Tells all links' ups and downs to the other shards too.
    pub(crate) fn push_to_all(&self, input: impl Fn() -> Input) {
        for (shard, _) in self.mailboxes.iter().enumerate() {
            if shard == usize::from(self.id.0) {
                self.shard.borrow_mut().push(input());
            } else {
                self.post(shard, Mail::Input(input()));
            }
        }
    }

    /// Asks every group that is led here to be led by another replica.
    fn hand_over(&self) {
        let mut shard = self.shard.borrow_mut();
        let led: Vec<GroupId> = shard.groups().filter(|g| leads(&shard, *g)).collect();
        let mut state = self.state.borrow_mut();
        for group in led {
            // Tickets of the node count up from 0 and never come here.
            let ticket = Ticket(u64::MAX - group.0);
            let op = Op::Transfer { to: None };
            shard.push(Input::Local { ticket, group, op });
            state.handing_over.insert(ticket, group);
        }
    }

    /// Ends a stopping shard once it leads nothing that another could lead.
    fn check_stop(&self) {
        let mut state = self.state.borrow_mut();
        let Some(stop_by) = state.stop_by else {
            return;
        };
        let shard = self.shard.borrow();
        state.handing_over.retain(|_, group| leads(&shard, *group));
        if state.handing_over.is_empty() || self.clock.now().monotonic >= stop_by {
            state.ended = Some(Ended::Stopped);
        }
    }
}

fn leads<S: Storage>(shard: &Shard<S, KafkaService<Desk>>, group: GroupId) -> bool {
    shard.status(group).is_some_and(|status| status.is_leader)
}

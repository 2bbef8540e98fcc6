//! Who serves requests on a shard: the other side of the seam in [`ops`](crate::ops).

use std::time::Duration;

use bytes::Bytes;
use highwater_consensus::{LogIndex, NodeId};
use highwater_record::Buffer;

use crate::io::{ConnId, LeaderHint, Now, ShardId};
use crate::ops::{GroupId, OpId, OpQueue, OpResult};

/// A state machine for requests, one on each shard, stepped within the shard's turn.
///
/// It never calls a partition: it puts operations into the queue and gets each answered by
/// [`handle_done`](Service::handle_done), perhaps within the same turn. After every call the
/// shard takes its outputs until there are none.
pub trait Service {
    /// Once, before everything else: the shard is there, with the groups it has recovered.
    fn handle_start(&mut self, now: Now, ops: &mut OpQueue);

    /// A client's request has come, whole, without its length prefix.
    fn handle_request(&mut self, now: Now, conn: ConnId, frame: Buffer, ops: &mut OpQueue);

    /// A client has gone. What it waited for may be cancelled.
    fn handle_closed(&mut self, now: Now, conn: ConnId, ops: &mut OpQueue);

    /// An operation is answered.
    fn handle_done(&mut self, now: Now, id: OpId, result: OpResult, ops: &mut OpQueue);

    /// A leader has become known, of any group of the cluster, whether it has a replica here or
    /// not. Older epochs than those already told are possible; the highest wins.
    fn handle_leader(&mut self, now: Now, hint: LeaderHint);

    /// A peer has become reachable, or is no longer. Nodes not told of yet are not.
    fn handle_peer(&mut self, now: Now, node: NodeId, reachable: bool);

    /// The service of another shard, of this or of another node, says something. Messages are
    /// delivered once or never, in the order they were sent as long as the link lives; what was
    /// promised in one is lost with it, hence askers wait for a bounded time.
    fn handle_message(
        &mut self,
        now: Now,
        from: ServiceAddress,
        message: Buffer,
        ops: &mut OpQueue,
    );

    /// A group's state, as [`snapshot`](Service::snapshot) gave it on this or on another node,
    /// is what there is instead of the entries up to and with `at`: after a start, or because
    /// this replica had fallen behind the leader's log start. Entries go on behind it.
    fn handle_restored(
        &mut self,
        now: Now,
        group: GroupId,
        at: LogIndex,
        state: Buffer,
        ops: &mut OpQueue,
    );

    /// The group's state with all entries up to and with the index, for the footer of a file;
    /// `None` for groups whose entries this service does not apply.
    fn snapshot(&self, group: GroupId) -> Option<(LogIndex, Vec<u8>)>;

    /// The time of [`next_timeout`](Service::next_timeout) has come. Too early a call does
    /// nothing.
    fn handle_timeout(&mut self, now: Now, ops: &mut OpQueue);

    /// When [`handle_timeout`](Service::handle_timeout) is to be called next.
    fn next_timeout(&self) -> Option<Duration>;

    /// The next thing to do for a client.
    fn poll_output(&mut self) -> Option<ServiceOutput>;
}

/// The largest message between services, in bytes: the state of the controller is the largest
/// thing that they tell each other, and travels in pieces.
pub const SERVICE_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Where a service is: one on each shard of each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
}

/// What a service wants done for its clients.
#[derive(Debug)]
pub enum ServiceOutput {
    /// Answer a client.
    Response {
        /// Whom.
        conn: ConnId,
        /// The whole frame, length prefix first, in pieces to be written in order. None for a
        /// request that wants no answer: it is done, and another may be read from the client.
        chunks: Vec<Bytes>,
    },
    /// Tell another service, or forget it if the link is down or the message would have to wait
    /// longer than others of its lane.
    Message {
        /// Whom; another than this one.
        to: ServiceAddress,
        /// What, at most [`SERVICE_MESSAGE_BYTES_MAX`] bytes.
        message: Buffer,
    },
    /// Close a client's connection once what was answered before is sent.
    Close {
        /// Whose.
        conn: ConnId,
    },
    /// The service cannot go on, and so the shard cannot: what the cluster has decided is not
    /// understood here.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A service for shards that have no clients of their own: requests close their connection.
/// Operations still come in by [`Input::Local`](crate::Input::Local).
#[derive(Debug, Default)]
pub struct NoService {
    close: Vec<ConnId>,
}

impl Service for NoService {
    fn handle_start(&mut self, _now: Now, _ops: &mut OpQueue) {}

    fn handle_request(&mut self, _now: Now, conn: ConnId, _frame: Buffer, _ops: &mut OpQueue) {
        self.close.push(conn);
    }

    fn handle_closed(&mut self, _now: Now, _conn: ConnId, _ops: &mut OpQueue) {}

    fn handle_done(&mut self, _now: Now, _id: OpId, _result: OpResult, _ops: &mut OpQueue) {}

    fn handle_leader(&mut self, _now: Now, _hint: LeaderHint) {}

    fn handle_peer(&mut self, _now: Now, _node: NodeId, _reachable: bool) {}

    fn handle_message(
        &mut self,
        _now: Now,
        _from: ServiceAddress,
        _message: Buffer,
        _ops: &mut OpQueue,
    ) {
    }

    fn handle_restored(
        &mut self,
        _now: Now,
        _group: GroupId,
        _at: LogIndex,
        _state: Buffer,
        _ops: &mut OpQueue,
    ) {
    }

    fn snapshot(&self, _group: GroupId) -> Option<(LogIndex, Vec<u8>)> {
        None
    }

    fn handle_timeout(&mut self, _now: Now, _ops: &mut OpQueue) {}

    fn next_timeout(&self) -> Option<Duration> {
        None
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.close.pop().map(|conn| ServiceOutput::Close { conn })
    }
}

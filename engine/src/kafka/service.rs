//! The service of a shard: connections, the requests on their way, and who answers them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use highwater_consensus::{LogIndex, NodeId};
use highwater_protocol::{
    ApiKey, ErrorCode, HeaderError, Request, RequestHeader, Response, api_versions_response,
    encode_unsupported_api_versions,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, Coordinator, FindCoordinatorRequest,
        FindCoordinatorResponse, StrBytes,
    },
};
use highwater_record::Buffer;

use super::cluster::Desk;
use super::connection::{Connection, Outgoing, RequestId};
use super::fetch::FetchHandler;
use super::handler::{Asked, Context, Directory, Handler, Step};
use super::offsets::{EpochEnds, ListOffsets, QuestionHandler};
use super::produce::ProduceHandler;
use super::quorum::Quorums;
use super::refusals::Refusals;
use crate::io::{ConnId, LeaderHint, Now};
use crate::ops::{GroupId, OpId, OpQueue, OpResult};
use crate::service::{Service, ServiceAddress, ServiceOutput};

/// Who knows the cluster's topics and nodes, and answers the requests about them.
///
/// It shares the shard's [`OpQueue`]; [`handle_done`](Cluster::handle_done) tells it only of
/// operations that it has asked itself.
pub trait Cluster: Directory {
    /// See [`Service::handle_start`].
    fn handle_start(&mut self, now: Now, ops: &mut OpQueue);

    /// A request about the cluster. It is answered by [`ClusterOutput::Answer`],
    /// exactly once, within a time that the request or a bound of its own sets.
    fn handle_request(
        &mut self,
        now: Now,
        id: RequestId,
        header: &RequestHeader,
        request: Request<Buffer>,
        ops: &mut OpQueue,
    );

    /// Nobody waits for that answer any more.
    fn handle_forgotten(&mut self, id: RequestId);

    /// See [`Service::handle_done`].
    fn handle_done(&mut self, now: Now, id: OpId, result: OpResult, ops: &mut OpQueue);

    /// The next thing to do.
    fn poll_output(&mut self) -> Option<ClusterOutput>;

    /// See [`Service::handle_leader`].
    fn handle_leader(&mut self, now: Now, hint: LeaderHint);

    /// See [`Service::handle_peer`].
    fn handle_peer(&mut self, now: Now, node: NodeId, reachable: bool);

    /// See [`Service::handle_message`].
    fn handle_message(
        &mut self,
        now: Now,
        from: ServiceAddress,
        message: Buffer,
        ops: &mut OpQueue,
    );

    /// See [`Service::handle_restored`].
    fn handle_restored(
        &mut self,
        now: Now,
        group: GroupId,
        at: LogIndex,
        state: Buffer,
        ops: &mut OpQueue,
    );

    /// See [`Service::snapshot`].
    fn snapshot(&self, group: GroupId) -> Option<(LogIndex, Vec<u8>)>;

    /// See [`Service::handle_timeout`].
    fn handle_timeout(&mut self, now: Now, ops: &mut OpQueue);

    /// See [`Service::next_timeout`].
    fn next_timeout(&self) -> Option<Duration>;
}

/// What the cluster's side wants done.
#[derive(Debug)]
pub enum ClusterOutput {
    /// A request is answered.
    Answer(RequestId, Response),
    /// See [`ServiceOutput::Message`].
    Message {
        /// Whom.
        to: ServiceAddress,
        /// What.
        message: Buffer,
    },
    /// See [`ServiceOutput::Failed`].
    Failed {
        /// Why.
        reason: String,
    },
}

/// Serves Kafka's clients on one shard.
pub struct KafkaService<C = Desk> {
    cluster: C,
    connections: BTreeMap<ConnId, Connection>,
    running: BTreeMap<RequestId, Running>,
    /// Operations asked by handlers: by which request, and for which place in it.
    asked: BTreeMap<OpId, (RequestId, usize)>,
    deadlines: BTreeSet<(Duration, RequestId)>,
    requests: u64,
    outputs: VecDeque<ServiceOutput>,
}

/// A request on its way.
struct Running {
    conn: ConnId,
    version: i16,
    correlation_id: i32,
    deadline: Option<Duration>,
    by: By,
    /// What its handler waits for.
    open: BTreeMap<OpId, GroupId>,
}

/// Who answers a request.
enum By {
    /// The cluster's side.
    Cluster,
    /// A handler; away while it is being stepped.
    Handler(Option<Box<dyn Handler>>),
}

/// What to do with a request.
enum Route {
    /// The answer is known.
    Answer(Response),
    /// It asks partitions.
    Handler(Box<dyn Handler>),
    /// It concerns the cluster.
    Cluster(Request<Buffer>),
}

/// Every kind of request has its rule here: a new one does not compile without.
fn route(version: i16, request: Request<Buffer>) -> Route {
    match request {
        Request::Produce(request) => {
            Route::Handler(Box::new(ProduceHandler::new(request, version)))
        }
        Request::Fetch(request) => Route::Handler(Box::new(FetchHandler::new(request))),
        Request::ListOffsets(request) => {
            let question = ListOffsets { request, version };
            Route::Handler(Box::new(QuestionHandler::new(question)))
        }
        Request::OffsetForLeaderEpoch(request) => {
            Route::Handler(Box::new(QuestionHandler::new(EpochEnds { request })))
        }
        Request::DescribeQuorum(request) => {
            Route::Handler(Box::new(QuestionHandler::new(Quorums { request })))
        }
        Request::ApiVersions(request) => Route::Answer(api_versions(version, &request)),
        Request::FindCoordinator(request) => Route::Answer(no_coordinator(version, &request)),
        request @ (Request::Metadata(_)
        | Request::CreateTopics(_)
        | Request::DeleteTopics(_)
        | Request::InitProducerId(_)
        | Request::DescribeConfigs(_)
        | Request::IncrementalAlterConfigs(_)
        | Request::DescribeCluster(_)) => Route::Cluster(request),
    }
}

/// What is spoken here, unless the client does not name its software as it must (KIP-511).
fn api_versions(version: i16, request: &ApiVersionsRequest) -> Response {
    /// From this version on clients name their software.
    const NAMED_SINCE: i16 = 3;
    let named = |name: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric();
        name.starts_with(letter)
            && name.ends_with(letter)
            && name.chars().all(|c| letter(c) || c == '-' || c == '.')
    };
    let names = [
        &request.client_software_name,
        &request.client_software_version,
    ];
    if version >= NAMED_SINCE && !names.iter().all(|name| named(name)) {
        let code = ErrorCode::InvalidRequest.code();
        return ApiVersionsResponse::default().with_error_code(code).into();
    }
    api_versions_response().into()
}

/// Groups do not exist yet. The request is known all the same, because librdkafka 2.0 takes it
/// as the sign that LZ4 is understood (KAFKA.md, rule 7). Nor do transactions: who asks for their
/// coordinator is refused for good, or it would go on asking until its time is up.
fn no_coordinator(version: i16, request: &FindCoordinatorRequest) -> Response {
    /// From this version on several keys are asked at once (KIP-699).
    const BATCHED_SINCE: i16 = 4;
    /// Kafka's number for coordinators of transactions.
    const TRANSACTION: i8 = 1;
    let code = match request.key_type {
        TRANSACTION => ErrorCode::TransactionalIdAuthorizationFailed.code(),
        _ => ErrorCode::CoordinatorNotAvailable.code(),
    };
    if version < BATCHED_SINCE {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id((-1).into())
            .with_port(-1)
            .into();
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id((-1).into())
            .with_host(StrBytes::from_static_str(""))
            .with_port(-1)
            .with_error_code(code)
    });
    FindCoordinatorResponse::default()
        .with_coordinators(coordinators.collect())
        .into()
}

impl<C: Cluster> KafkaService<C> {
    /// A service without connections.
    #[must_use]
    pub fn new(cluster: C) -> Self {
        Self {
            cluster,
            connections: BTreeMap::new(),
            running: BTreeMap::new(),
            asked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            requests: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Who knows the cluster.
    #[must_use]
    pub fn cluster(&self) -> &C {
        &self.cluster
    }

    /// How many requests are on their way.
    #[must_use]
    pub fn requests_running(&self) -> usize {
        self.running.len()
    }

    /// Takes the next request of a connection in, if the connection still takes any.
    fn open(&mut self, conn: ConnId) -> Option<RequestId> {
        self.requests += 1;
        let id = RequestId(self.requests);
        let connection = self.connections.entry(conn).or_default();
        connection.open(id).then_some(id)
    }

    fn begin(
        &mut self,
        now: Now,
        conn: ConnId,
        header: &RequestHeader,
        request: Request<Buffer>,
        ops: &mut OpQueue,
    ) {
        let Some(id) = self.open(conn) else {
            return self.flush(conn);
        };
        let mut running = Running {
            conn,
            version: header.version,
            correlation_id: header.correlation_id,
            deadline: None,
            by: By::Cluster,
            open: BTreeMap::new(),
        };
        match route(header.version, request) {
            Route::Answer(response) => {
                self.running.insert(id, running);
                self.finish(id, Some(&response), ops);
            }
            Route::Handler(handler) => {
                running.by = By::Handler(Some(handler));
                self.running.insert(id, running);
                self.step(now, id, ops, |handler, cx| handler.start(cx));
            }
            Route::Cluster(request) => {
                self.running.insert(id, running);
                self.cluster.handle_request(now, id, header, request, ops);
            }
        }
        self.take_cluster_outputs(ops);
    }

    /// Steps a request's handler and does what it wants.
    fn step(
        &mut self,
        now: Now,
        id: RequestId,
        ops: &mut OpQueue,
        step: impl FnOnce(&mut dyn Handler, &mut Context<'_>) -> Step,
    ) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let By::Handler(slot) = &mut running.by else {
            return;
        };
        let mut handler = slot.take().expect("a handler is stepped once at a time");
        let mut asked = Vec::new();
        let mut none = Refusals::default();
        let connection = self.connections.get_mut(&running.conn);
        let refusals = connection.map_or(&mut none, |connection| &mut connection.refusals);
        let mut cx = Context::new(now, &self.cluster, refusals, ops, &mut asked);
        let step = step(&mut *handler, &mut cx);
        *slot = Some(handler);
        for Asked {
            id: op,
            group,
            place,
        } in asked
        {
            running.open.insert(op, group);
            self.asked.insert(op, (id, place));
        }
        match step {
            Step::Wait(None) => {}
            Step::Wait(Some(deadline)) => {
                if let Some(old) = running.deadline.replace(deadline) {
                    self.deadlines.remove(&(old, id));
                }
                self.deadlines.insert((deadline, id));
            }
            Step::Answer(response) => self.finish(id, Some(&response), ops),
            Step::Silent => self.finish(id, None, ops),
            Step::Close => {
                let conn = running.conn;
                self.finish(id, None, ops);
                self.close(conn);
            }
        }
    }

    /// Ends a request and hands its answer to its connection.
    fn finish(&mut self, id: RequestId, response: Option<&Response>, ops: &mut OpQueue) {
        let Some(running) = self.forget(id, ops) else {
            return;
        };
        let encoded = response.map(|r| r.encode(running.version, running.correlation_id));
        match encoded.transpose() {
            Ok(chunks) => self.deliver(running.conn, id, chunks),
            Err(error) => {
                tracing::error!(conn = running.conn.0, %error, "an answer cannot be encoded");
                self.deliver(running.conn, id, None);
                self.close(running.conn);
            }
        }
    }

    /// Removes a request and cancels what it still waits for.
    fn forget(&mut self, id: RequestId, ops: &mut OpQueue) -> Option<Running> {
        let running = self.running.remove(&id)?;
        if let Some(deadline) = running.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        for (op, group) in &running.open {
            self.asked.remove(op);
            ops.cancel(*group, *op);
        }
        Some(running)
    }

    fn deliver(&mut self, conn: ConnId, id: RequestId, chunks: Option<Vec<Bytes>>) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.answer(id, chunks);
        }
        self.flush(conn);
    }

    /// Closes a connection once what is under way is answered.
    fn close(&mut self, conn: ConnId) {
        self.connections.entry(conn).or_default().close();
        self.flush(conn);
    }

    fn flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        while let Some(outgoing) = connection.poll() {
            self.outputs.push_back(match outgoing {
                Outgoing::Response(chunks) => ServiceOutput::Response { conn, chunks },
                Outgoing::Close => ServiceOutput::Close { conn },
            });
        }
    }

    fn take_cluster_outputs(&mut self, ops: &mut OpQueue) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                ClusterOutput::Answer(id, response) => self.finish(id, Some(&response), ops),
                ClusterOutput::Message { to, message } => {
                    let output = ServiceOutput::Message { to, message };
                    self.outputs.push_back(output);
                }
                ClusterOutput::Failed { reason } => {
                    self.outputs.push_back(ServiceOutput::Failed { reason });
                }
            }
        }
    }
}

impl<C: Cluster> Service for KafkaService<C> {
    fn handle_start(&mut self, now: Now, ops: &mut OpQueue) {
        self.cluster.handle_start(now, ops);
        self.take_cluster_outputs(ops);
    }

    fn handle_request(&mut self, now: Now, conn: ConnId, frame: Buffer, ops: &mut OpQueue) {
        let decoded = RequestHeader::decode(&frame).map(|(header, at)| {
            let request = Request::decode(&header, &frame, at);
            (header, request)
        });
        drop(frame);
        match decoded {
            Ok((header, Ok(request))) => self.begin(now, conn, &header, request, ops),
            Ok((header, Err(error))) => {
                tracing::debug!(conn = conn.0, key = %header.key, %error, "malformed request");
                self.close(conn);
            }
            // The one answer that a client of the future can read (KAFKA.md, rule 1).
            Err(HeaderError::UnsupportedVersion {
                key: ApiKey::ApiVersions,
                correlation_id,
                ..
            }) => {
                if let Some(id) = self.open(conn) {
                    let chunks = vec![encode_unsupported_api_versions(correlation_id)];
                    self.deliver(conn, id, Some(chunks));
                } else {
                    self.flush(conn);
                }
            }
            Err(error) => {
                tracing::debug!(conn = conn.0, %error, "not a request");
                self.close(conn);
            }
        }
    }

    fn handle_closed(&mut self, _now: Now, conn: ConnId, ops: &mut OpQueue) {
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        for id in connection.requests() {
            let by = self.forget(id, ops).map(|running| running.by);
            if let Some(By::Cluster) = by {
                self.cluster.handle_forgotten(id);
            }
        }
    }

    fn handle_done(&mut self, now: Now, id: OpId, result: OpResult, ops: &mut OpQueue) {
        if let Some((request, place)) = self.asked.remove(&id) {
            if let Some(running) = self.running.get_mut(&request) {
                running.open.remove(&id);
            }
            self.step(now, request, ops, |handler, cx| {
                handler.handle_done(place, result, cx)
            });
        } else {
            self.cluster.handle_done(now, id, result, ops);
        }
        self.take_cluster_outputs(ops);
    }

    fn handle_leader(&mut self, now: Now, hint: LeaderHint) {
        self.cluster.handle_leader(now, hint);
    }

    fn handle_peer(&mut self, now: Now, node: NodeId, reachable: bool) {
        self.cluster.handle_peer(now, node, reachable);
    }

    fn handle_message(
        &mut self,
        now: Now,
        from: ServiceAddress,
        message: Buffer,
        ops: &mut OpQueue,
    ) {
        self.cluster.handle_message(now, from, message, ops);
        self.take_cluster_outputs(ops);
    }

    fn handle_restored(
        &mut self,
        now: Now,
        group: GroupId,
        at: LogIndex,
        state: Buffer,
        ops: &mut OpQueue,
    ) {
        self.cluster.handle_restored(now, group, at, state, ops);
        self.take_cluster_outputs(ops);
    }

    fn snapshot(&self, group: GroupId) -> Option<(LogIndex, Vec<u8>)> {
        self.cluster.snapshot(group)
    }

    fn handle_timeout(&mut self, now: Now, ops: &mut OpQueue) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now.monotonic {
                break;
            }
            self.deadlines.pop_first();
            if let Some(running) = self.running.get_mut(&id) {
                running.deadline = None;
            }
            self.step(now, id, ops, |handler, cx| handler.handle_timeout(cx));
        }
        self.cluster.handle_timeout(now, ops);
        self.take_cluster_outputs(ops);
    }

    fn next_timeout(&self) -> Option<Duration> {
        let handlers = self.deadlines.first().map(|(deadline, _)| *deadline);
        let cluster = self.cluster.next_timeout();
        handlers.into_iter().chain(cluster).min()
    }

    fn poll_output(&mut self) -> Option<ServiceOutput> {
        self.outputs.pop_front()
    }
}

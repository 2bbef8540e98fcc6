//! The task that sends: takes batches that are due, puts those of one leader into one request,
//! and sorts the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use highwater_protocol::messages::{InitProducerIdRequest, StrBytes};
use highwater_protocol::{
    Acks, ErrorCode, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    ProduceTopic,
};
use highwater_record::{Offset, TopicName, TopicPartition};
use tokio::time::Instant;

use super::ProducerOptions;
use super::accumulator::Accumulator;
use super::batch::{Batch, BatchReceipt, Slot};
use super::lane::{GivenUp, Identity, Lane, Verdict, give_up};
use crate::cluster::{Backoff, Cluster, Lane as ConnectionLane, Metadata};
use crate::connection::Connection;
use crate::error::{CallError, ConnectError, ProduceError};

/// Requests that one broker has to answer at once. More would only move the queue from here,
/// where batches grow, to there.
const REQUESTS_IN_FLIGHT_MAX: usize = 5;

/// Bytes of batches in one request, unless a single batch is larger.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// How often the sender looks for records that have waited too long.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// A broker that has not answered for so long may have been deposed without our knowing: time to
/// look at the metadata.
const SLOW_AFTER: Duration = Duration::from_millis(500);

/// The same of a broker that is being dialled. It may be dead, and its successor known elsewhere.
const DIAL_SLOW_AFTER: Duration = Duration::from_millis(250);

/// How old metadata may become: a topic may have got more partitions.
const METADATA_AGE_MAX: Duration = Duration::from_secs(300);

/// What the sender waits for besides its caller.
enum Event {
    Connected {
        broker: i32,
        connection: Result<Connection, ConnectError>,
    },
    Answered {
        broker: i32,
        request: u64,
        batches: Vec<Batch>,
        answer: Result<ProduceResponse, CallError>,
    },
    Refreshed(Result<(), CallError>),
    Identified(Result<Identity, CallError>),
}

/// A broker, as far as sending to it goes.
#[derive(Default)]
struct Broker {
    connection: Option<Connection>,
    /// Since when it is being dialled.
    dialled: Option<Instant>,
    /// When each request was sent, and for which partitions, by its number.
    in_flight: BTreeMap<u64, (Instant, Vec<Slot>)>,
    /// Not to be dialled before this.
    retry_at: Option<Instant>,
    backoff: Backoff,
}

/// Who leads the partitions, as one answer about them said.
#[derive(Default)]
struct Leaders {
    generation: u64,
    by_slot: Vec<Option<i32>>,
}

impl Leaders {
    fn of(
        &mut self,
        slot: Slot,
        partitions: &[TopicPartition],
        metadata: &Metadata,
    ) -> Option<i32> {
        if self.generation != metadata.generation {
            self.generation = metadata.generation;
            self.by_slot.clear();
        }
        let unknown = partitions.get(self.by_slot.len()..).unwrap_or_default();
        let leaders = unknown
            .iter()
            .map(|of| metadata.leader(&of.topic, of.partition));
        self.by_slot.extend(leaders);
        self.by_slot.get(slot.0).copied().flatten()
    }
}

pub(super) struct Sender {
    cluster: Arc<Cluster>,
    accumulator: Arc<Accumulator>,
    options: ProducerOptions,
    connection_lane: ConnectionLane,
    /// By slot.
    lanes: Vec<Lane>,
    /// By slot, too.
    partitions: Vec<TopicPartition>,
    /// The lanes that need more than what waits in the accumulator: something is to be sent again,
    /// or nothing can be sent at all.
    troubled: BTreeSet<Slot>,
    leaders: Leaders,
    brokers: BTreeMap<i32, Broker>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// What new lanes send under. A lane whose sequence broke asks for another.
    identity: Option<Identity>,
    refreshing: bool,
    refresh_at: Option<Instant>,
    refresh_backoff: Backoff,
    metadata_ages_at: Instant,
    identifying: bool,
    identify_at: Option<Instant>,
    identify_backoff: Backoff,
    expire_at: Instant,
    next_request: u64,
}

impl Sender {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        accumulator: Arc<Accumulator>,
        options: ProducerOptions,
    ) -> Self {
        let connection_lane = cluster.new_lane();
        Self {
            cluster,
            accumulator,
            options,
            connection_lane,
            lanes: Vec::new(),
            partitions: Vec::new(),
            troubled: BTreeSet::new(),
            leaders: Leaders::default(),
            brokers: BTreeMap::new(),
            events: FuturesUnordered::new(),
            identity: None,
            refreshing: false,
            refresh_at: None,
            refresh_backoff: Backoff::default(),
            metadata_ages_at: Instant::now() + METADATA_AGE_MAX,
            identifying: false,
            identify_at: None,
            identify_backoff: Backoff::default(),
            expire_at: Instant::now() + EXPIRY_INTERVAL,
            next_request: 0,
        }
    }

    /// Runs until the last producer handle is gone and every batch has an outcome.
    pub(super) async fn run(mut self) {
        let accumulator = Arc::clone(&self.accumulator);
        while !accumulator.is_done() {
            let wake_at = self.work(Instant::now());
            tokio::select! {
                () = accumulator.wake.notified() => {}
                Some(event) = self.events.next() => self.handle(event),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.cluster.close_lane(self.connection_lane);
    }

    /// Starts whatever can be started now, and says when to look again at the latest.
    fn work(&mut self, now: Instant) -> Instant {
        self.expire(now);
        let (due, next_due) = self.accumulator.due(now);
        for &slot in &due {
            self.lane(slot);
        }
        self.calm_down(now);
        self.identify(now);
        self.abandon_deposed(now);
        self.refresh(now);
        // Few of many partitions have something to send at a time. What is to be sent again goes
        // first, and then what has waited longest: in any other order those at its end would wait
        // for ever while brokers have more to do than they can.
        let troubled = self.troubled.iter().copied();
        let queued: BTreeSet<Slot> = troubled
            .filter(|it| self.lanes[it.0].has_queued())
            .collect();
        let new = due.into_iter().filter(|slot| !queued.contains(slot));
        let ready: Vec<Slot> = queued.iter().copied().chain(new).collect();
        while self.send_round(&ready, now) {}
        self.next_deadline(now, next_due)
    }

    fn lane(&mut self, slot: Slot) -> &mut Lane {
        while self.lanes.len() <= slot.0 {
            let next = Slot(self.lanes.len());
            let mut lane = Lane::new(self.options.idempotent);
            match self.identity {
                Some(identity) => lane.set_identity(identity),
                None => _ = self.troubled.insert(next),
            }
            self.lanes.push(lane);
            self.partitions.push(self.accumulator.partition(next));
        }
        &mut self.lanes[slot.0]
    }

    /// The lane, which is looked at until it is calm again.
    fn troubled_lane(&mut self, slot: Slot) -> &mut Lane {
        self.troubled.insert(slot);
        self.lane(slot)
    }

    fn calm_down(&mut self, now: Instant) {
        let lanes = &self.lanes;
        self.troubled.retain(|slot| !lanes[slot.0].is_calm(now));
    }

    fn next_deadline(&self, now: Instant, next_due: Option<Instant>) -> Instant {
        let troubled = self.troubled.iter();
        let lanes = troubled.filter_map(|slot| self.lanes[slot.0].blocked_until());
        let brokers = self.brokers.values().flat_map(|broker| {
            let slow_at = broker.dialled.map(|at| at + DIAL_SLOW_AFTER);
            [broker.retry_at, slow_at].into_iter().flatten()
        });
        lanes
            .chain(brokers)
            .chain(
                [next_due, self.refresh_at, self.identify_at]
                    .into_iter()
                    .flatten(),
            )
            .filter(|at| *at > now)
            .fold(self.expire_at.min(self.metadata_ages_at), Instant::min)
    }

    /// One request to each leader that may have one; whether any was sent.
    fn send_round(&mut self, ready: &[Slot], now: Instant) -> bool {
        let metadata = self.cluster.metadata();
        let slots_max = REQUEST_BYTES_MAX / self.options.batch_bytes.max(1) + 1;
        // What each leader gets; nothing for those that cannot have a request now.
        let mut by_leader: BTreeMap<i32, Option<Vec<Slot>>> = BTreeMap::new();
        // How many leaders could take more. Those that were not met yet might; and without any, what
        // is known is of no use, and asking again is.
        let mut open = metadata.brokers.len().max(1);
        for &slot in ready {
            if open == 0 {
                break;
            }
            if !self.lanes[slot.0].may_send(now) {
                continue;
            }
            let Some(leader) = self.leaders.of(slot, &self.partitions, &metadata) else {
                self.want_refresh(now);
                continue;
            };
            let has_room = match by_leader.get(&leader) {
                Some(slots) => slots.as_ref().is_some_and(|it| it.len() < slots_max),
                None => true,
            };
            let has_batch =
                || self.lanes[slot.0].has_queued() || self.accumulator.is_due(slot, now);
            if !has_room || !has_batch() {
                continue;
            }
            let is_ready = || self.is_ready(leader, now).then(Vec::new);
            let slots = by_leader.entry(leader).or_insert_with(is_ready);
            let has_room = slots.as_mut().is_some_and(|slots| {
                slots.push(slot);
                slots.len() < slots_max
            });
            open -= usize::from(!has_room && metadata.brokers.contains_key(&leader));
        }
        let mut sent = false;
        for (leader, slots) in by_leader {
            sent |= slots.is_some_and(|slots| self.send_to(leader, &slots, now));
        }
        sent
    }

    /// Whether a request can go to a broker now; dials it if there is no connection.
    fn is_ready(&mut self, id: i32, now: Instant) -> bool {
        let broker = self.brokers.entry(id).or_default();
        if let Some(connection) = &broker.connection {
            if connection.is_usable() {
                return broker.in_flight.len() < REQUESTS_IN_FLIGHT_MAX;
            }
            broker.connection = None;
        }
        if broker.dialled.is_some() || broker.retry_at.is_some_and(|at| at > now) {
            return false;
        }
        broker.dialled = Some(now);
        broker.retry_at = None;
        let (cluster, lane) = (Arc::clone(&self.cluster), self.connection_lane);
        self.events.push(Box::pin(async move {
            let connection = cluster.connection(id, lane).await;
            Event::Connected {
                broker: id,
                connection,
            }
        }));
        false
    }

    /// Sends one request with at most one batch of each partition.
    fn send_to(&mut self, leader: i32, slots: &[Slot], now: Instant) -> bool {
        let mut batches: Vec<(Batch, Bytes)> = Vec::new();
        let mut bytes = 0;
        for &slot in slots {
            if !batches.is_empty() && bytes + self.options.batch_bytes > REQUEST_BYTES_MAX {
                break;
            }
            if let Some((batch, body)) = self.next_batch(slot, now) {
                bytes += body.len();
                batches.push((batch, body));
            }
        }
        if batches.is_empty() {
            return false;
        }
        batches.sort_by(|(one, _), (other, _)| one.partition.cmp(&other.partition));
        let request = produce_request(&batches, self.cluster.options.request_timeout);
        let batches = batches.into_iter().map(|(batch, _)| batch).collect();
        self.dispatch(leader, batches, &request, now);
        true
    }

    fn next_batch(&mut self, slot: Slot, now: Instant) -> Option<(Batch, Bytes)> {
        let accumulator = &self.accumulator;
        let lane = &mut self.lanes[slot.0];
        let mut batch = lane.next(now, || accumulator.take(slot, now))?;
        match batch.bytes() {
            Ok(bytes) => Some((batch, bytes)),
            Err(error) => {
                let reason = error.to_string();
                self.give_up(batch, ProduceError::Encode { reason });
                None
            }
        }
    }

    fn dispatch(
        &mut self,
        id: i32,
        batches: Vec<Batch>,
        request: &ProduceRequest<Bytes>,
        now: Instant,
    ) {
        let number = self.next_request;
        self.next_request += 1;
        let slots = batches.iter().map(|batch| batch.slot).collect();
        let broker = self.brokers.entry(id).or_default();
        broker.in_flight.insert(number, (now, slots));
        let timeout = self.cluster.options.request_timeout;
        // Requests leave in the order of these calls; only the answers are awaited elsewhere.
        let pending = broker
            .connection
            .as_ref()
            .expect("is_ready has seen the connection")
            .send(request);
        self.events.push(Box::pin(async move {
            let answer = match pending {
                Ok(pending) => pending.answer(timeout).await,
                Err(error) => Err(error),
            };
            Event::Answered {
                broker: id,
                request: number,
                batches,
                answer,
            }
        }));
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Connected { broker, connection } => self.connected(broker, connection, now),
            Event::Answered {
                broker,
                request,
                batches,
                answer,
            } => {
                let broker = self.brokers.entry(broker).or_default();
                broker.in_flight.remove(&request);
                match answer {
                    Ok(answer) => self.answered(batches, &answer, now),
                    Err(error) => self.unanswered(batches, &error, now),
                }
            }
            Event::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "no metadata");
                    self.want_refresh(now);
                }
            }
            Event::Identified(result) => self.identified(result, now),
        }
    }

    fn connected(&mut self, id: i32, connection: Result<Connection, ConnectError>, now: Instant) {
        let broker = self.brokers.entry(id).or_default();
        broker.dialled = None;
        match connection {
            Ok(connection) => {
                broker.connection = Some(connection);
                broker.backoff = Backoff::default();
            }
            Err(error) => {
                tracing::debug!(broker = id, %error, "cannot reach a leader");
                broker.retry_at = Some(now + broker.backoff.next());
                self.want_refresh(now);
            }
        }
    }

    fn unanswered(&mut self, batches: Vec<Batch>, error: &CallError, now: Instant) {
        let open = error.leaves_outcome_open();
        self.want_refresh(now);
        for batch in batches {
            if error.is_retriable() || open {
                self.retry(batch, open, error.to_string(), now);
            } else {
                let partition = batch.partition.clone();
                let reason = error.to_string();
                let after = self.options.delivery_timeout;
                let outcome = ProduceError::Expired {
                    partition,
                    after,
                    reason,
                };
                self.give_up(batch, outcome);
            }
        }
    }

    fn answered(&mut self, batches: Vec<Batch>, answer: &ProduceResponse, now: Instant) {
        for batch in batches {
            match find(answer, &batch.partition) {
                Some(result) if result.error.is_none() => self.acknowledged(batch, result),
                Some(result) => self.refused(batch, result, now),
                None => {
                    let error = "the broker's answer does not mention the partition".to_owned();
                    self.retry(batch, true, error, now);
                }
            }
        }
    }

    fn acknowledged(&mut self, batch: Batch, result: &ProducePartitionResponse) {
        self.refresh_backoff = Backoff::default();
        let timeout = self.options.delivery_timeout;
        let given_up = self.lane(batch.slot).acknowledged(batch.id, timeout);
        let outcome = match Offset::from_wire(result.base_offset) {
            Some(base_offset) => Ok(BatchReceipt {
                base_offset,
                log_append_time_ms: Some(result.log_append_time_ms).filter(|at| *at >= 0),
            }),
            None => Err(ProduceError::OutcomeUnknown {
                partition: batch.partition.clone(),
                reason: format!("acknowledged at offset {}", result.base_offset),
            }),
        };
        self.finish(batch, outcome);
        self.finish_all(given_up);
    }

    fn refused(&mut self, batch: Batch, result: &ProducePartitionResponse, now: Instant) {
        let error = result.error;
        tracing::debug!(partition = %batch.partition, %error, "a batch was not taken");
        let partition = batch.partition.clone();
        match Verdict::of(error) {
            Verdict::Retry { open } => {
                self.want_refresh(now);
                self.retry(batch, open, error.to_string(), now);
            }
            Verdict::Sequence if self.options.idempotent => {
                let timeout = self.options.delivery_timeout;
                let lane = self.troubled_lane(batch.slot);
                let given_up = lane.out_of_sequence(batch, error.to_string(), now, timeout);
                self.finish_all(given_up);
            }
            Verdict::Sequence | Verdict::Refused => {
                let message = result.error_message.as_ref().map(ToString::to_string);
                let outcome = ProduceError::Refused {
                    partition,
                    error,
                    message,
                };
                self.give_up(batch, outcome);
            }
            Verdict::Lost => {
                let reason = error.to_string();
                self.give_up(batch, ProduceError::OutcomeUnknown { partition, reason });
            }
        }
    }

    fn retry(&mut self, batch: Batch, open: bool, error: String, now: Instant) {
        let timeout = self.options.delivery_timeout;
        let lane = self.troubled_lane(batch.slot);
        let given_up = lane.failed(batch, open, error, now, timeout);
        self.finish_all(given_up);
    }

    fn give_up(&mut self, batch: Batch, outcome: ProduceError) {
        let timeout = self.options.delivery_timeout;
        let given_up = self.troubled_lane(batch.slot).gone(batch.id, timeout);
        self.finish(batch, Err(outcome));
        self.finish_all(given_up);
    }

    fn expire(&mut self, now: Instant) {
        if now < self.expire_at {
            return;
        }
        self.expire_at = now + EXPIRY_INTERVAL;
        let timeout = self.options.delivery_timeout;
        let mut expired: Vec<GivenUp> = Vec::new();
        for &slot in &self.troubled {
            expired.extend(self.lanes[slot.0].expire(now, timeout));
        }
        let unsent = self.accumulator.take_expired(now, timeout);
        expired.extend(unsent.into_iter().map(|batch| give_up(batch, timeout)));
        self.finish_all(expired);
    }

    fn finish_all(&self, given_up: Vec<GivenUp>) {
        for (batch, error) in given_up {
            self.finish(batch, Err(error));
        }
    }

    fn finish(&self, batch: Batch, outcome: Result<BatchReceipt, ProduceError>) {
        self.accumulator.forget(batch.id);
        batch.finish(outcome);
    }

    /// Looks for brokers that owe an answer, or a connection, for long: they may be gone. Once the metadata says that another leads a
    /// partition they were sent for, their connection is given up and the batches go there.
    fn abandon_deposed(&mut self, now: Instant) {
        let metadata = self.cluster.metadata();
        let mut slow = false;
        for (&id, broker) in &mut self.brokers {
            let overdue = broker
                .in_flight
                .values()
                .filter(|(at, _)| *at + SLOW_AFTER <= now);
            let mut owed = overdue.flat_map(|(_, slots)| slots).peekable();
            slow |= owed.peek().is_some();
            slow |= broker.dialled.is_some_and(|at| at + DIAL_SLOW_AFTER <= now);
            let deposed = owed.any(|&slot| {
                let leader = self.leaders.of(slot, &self.partitions, &metadata);
                leader.is_some_and(|leader| leader != id)
            });
            if deposed && broker.connection.take().is_some() {
                tracing::debug!(broker = id, "gives no answer and was deposed");
                self.cluster.abandon(id, self.connection_lane);
            }
        }
        if slow {
            self.want_refresh(now);
        }
    }

    fn want_refresh(&mut self, now: Instant) {
        if self.refresh_at.is_none() && !self.refreshing {
            self.refresh_at = Some(now + self.refresh_backoff.next());
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.metadata_ages_at <= now {
            self.metadata_ages_at = now + METADATA_AGE_MAX;
            self.refresh_at = Some(now);
        }
        if self.refreshing || self.refresh_at.is_none_or(|at| at > now) {
            return;
        }
        self.refreshing = true;
        self.refresh_at = None;
        let topics: BTreeSet<&TopicName> = self.partitions.iter().map(|of| &of.topic).collect();
        let topics: Vec<TopicName> = topics.into_iter().cloned().collect();
        let cluster = Arc::clone(&self.cluster);
        self.events.push(Box::pin(async move {
            Event::Refreshed(cluster.refresh(&topics).await)
        }));
    }

    /// Asks for a producer id, if a lane needs one.
    fn identify(&mut self, now: Instant) {
        let needed = (self.troubled.iter()).any(|slot| self.lanes[slot.0].needs_identity());
        if !needed || self.identifying || self.identify_at.is_some_and(|at| at > now) {
            return;
        }
        self.identifying = true;
        self.identify_at = None;
        let cluster = Arc::clone(&self.cluster);
        self.events.push(Box::pin(async move {
            Event::Identified(init_producer_id(&cluster).await)
        }));
    }

    fn identified(&mut self, result: Result<Identity, CallError>, now: Instant) {
        self.identifying = false;
        match result {
            Ok(identity) => {
                tracing::debug!(producer_id = identity.producer_id, "got a producer id");
                self.identify_backoff = Backoff::default();
                self.identity = Some(identity);
                for &slot in &self.troubled {
                    self.lanes[slot.0].set_identity(identity);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot get a producer id");
                self.identify_at = Some(now + self.identify_backoff.next());
                if !error.is_retriable() {
                    self.give_up_everything(now, &error);
                }
            }
        }
    }

    /// There will be no producer id, so nothing that waits can be sent.
    fn give_up_everything(&mut self, now: Instant, error: &CallError) {
        let mut batches = self.accumulator.take_expired(now, Duration::ZERO);
        for &slot in &self.troubled {
            let queued = self.lanes[slot.0].expire(now, Duration::ZERO);
            batches.extend(queued.into_iter().map(|(batch, _)| batch));
        }
        for batch in batches {
            let source = error.clone();
            self.finish(batch, Err(ProduceError::NoProducerId { source }));
        }
    }
}

async fn init_producer_id(cluster: &Cluster) -> Result<Identity, CallError> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX);
    let (connection, answer) = cluster.call_any(&request).await?;
    ErrorCode::from_code(answer.error_code)
        .into_result()
        .map_err(|error| connection.refused(highwater_protocol::ApiKey::InitProducerId, error))?;
    Ok(Identity {
        producer_id: answer.producer_id.0,
        producer_epoch: answer.producer_epoch,
    })
}

/// One request of batches whose partitions are in order, so that topics come together.
fn produce_request(batches: &[(Batch, Bytes)], timeout: Duration) -> ProduceRequest<Bytes> {
    let mut topics: Vec<ProduceTopic<Bytes>> = Vec::new();
    for (batch, bytes) in batches {
        let partition = ProducePartition {
            index: i32::try_from(batch.partition.partition).unwrap_or(i32::MAX),
            records: Some(bytes.clone()),
        };
        let name = batch.partition.topic.as_str();
        match topics.last_mut().filter(|topic| *topic.name == *name) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(ProduceTopic {
                name: StrBytes::from_string(name.to_owned()),
                partitions: vec![partition],
            }),
        }
    }
    ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topics,
    }
}

fn find<'a>(
    answer: &'a ProduceResponse,
    partition: &TopicPartition,
) -> Option<&'a ProducePartitionResponse> {
    let topic = answer
        .topics
        .iter()
        .find(|topic| *topic.name == *partition.topic.as_str())?;
    topic
        .partitions
        .iter()
        .find(|result| u32::try_from(result.index) == Ok(partition.partition))
}

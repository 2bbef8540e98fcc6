//! Asks the leaders for records, one request at a time each, and keeps what came until it is
//! taken. Driven by whoever polls it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use highwater_protocol::messages::StrBytes;
use highwater_protocol::{
    ErrorCode, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic,
};
use highwater_record::{BatchLimits, Offset, TopicName, TopicPartition};
use tokio::time::Instant;

use super::buffer::{Fetched, NextBatch};
use super::{ConsumedRecord, ConsumerOptions, OutOfRange, StartAt};
use crate::cluster::{Backoff, Cluster, Lane};
use crate::connection::Connection;
use crate::error::{CallError, ConnectError, ConsumeError};
use crate::offsets::{OffsetQuery, list_offsets};

/// An answer to a Fetch, for partitions as they were when it was sent.
type Answer = Result<FetchResponse<Option<Bytes>>, CallError>;

enum Event {
    Connected {
        broker: i32,
        fetch: u64,
        asked: Vec<Asked>,
        connection: Result<Connection, ConnectError>,
    },
    Fetched {
        fetch: u64,
        asked: Vec<Asked>,
        answer: Answer,
    },
    Located {
        asked: Vec<Asked>,
        answers: Vec<Result<Offset, CallError>>,
    },
    Refreshed(Result<(), CallError>),
    /// A wait is over.
    Rested,
    /// Time to look after fetches that are on the way.
    Watched,
}

/// A partition that something was asked about. A seek meanwhile makes the answer worthless.
#[derive(Debug)]
struct Asked {
    partition: TopicPartition,
    epoch: u64,
    offset: Offset,
}

/// Where a partition is read.
#[derive(Debug)]
struct Assigned {
    place: Place,
    /// Counts assignments and seeks.
    epoch: u64,
    /// What came and was not yet opened.
    fetched: VecDeque<Fetched>,
    /// The records of the batch that was opened last.
    records: VecDeque<ConsumedRecord>,
    /// Behind the records above: where the next batch is opened from.
    opened_to: Offset,
    high_watermark: Option<Offset>,
    asked: bool,
    /// The number of the fetch that asked last.
    fetched_from: Option<u64>,
    /// Something failed here: not before this wait is over.
    resting: bool,
    backoff: Backoff,
    error: Option<ConsumeError>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// To be found out by asking for a timestamp.
    Unknown { timestamp: i64 },
    /// The next offset to ask for.
    At(Offset),
}

/// A fetch that is on the way.
#[derive(Debug, Clone, Copy)]
struct Fetching {
    number: u64,
    stage: Stage,
    /// Since when it is at this stage.
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The broker is being dialled, unless there is a connection.
    Connecting,
    /// The request was sent.
    Asked,
}

pub(super) struct Fetcher {
    cluster: Arc<Cluster>,
    options: ConsumerOptions,
    lane: Lane,
    limits: BatchLimits,
    partitions: BTreeMap<TopicPartition, Assigned>,
    /// The partition whose turn it is.
    current: Option<TopicPartition>,
    next_epoch: u64,
    /// The fetches that are on the way: of each broker at most one.
    fetching: BTreeMap<i32, Fetching>,
    watching: bool,
    next_fetch: u64,
    refreshing: bool,
    refresh_wanted: bool,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fetcher")
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.cluster.close_lane(self.lane);
    }
}

impl Assigned {
    fn new(start: StartAt, epoch: u64) -> Self {
        let place = match start.timestamp() {
            Ok(offset) => Place::At(offset),
            Err(timestamp) => Place::Unknown { timestamp },
        };
        let opened_to = match place {
            Place::At(offset) => offset,
            Place::Unknown { .. } => Offset::ZERO,
        };
        Self {
            place,
            epoch,
            fetched: VecDeque::new(),
            records: VecDeque::new(),
            opened_to,
            high_watermark: None,
            asked: false,
            fetched_from: None,
            resting: false,
            backoff: Backoff::default(),
            error: None,
        }
    }

    fn position(&self) -> Option<Offset> {
        match (self.records.front(), self.place) {
            (Some(record), _) => Some(record.offset),
            (None, Place::At(_)) => Some(self.opened_to),
            (None, Place::Unknown { .. }) => None,
        }
    }

    fn has_something(&self) -> bool {
        !self.records.is_empty() || !self.fetched.is_empty() || self.error.is_some()
    }

    fn buffered_bytes(&self) -> usize {
        self.fetched.iter().map(Fetched::len).sum()
    }

    /// Forgets what was fetched and goes on at `offset`. The new epoch makes answers worthless
    /// that are on the way: what they bring would leave a gap behind `offset`.
    fn go_to(&mut self, offset: Offset, epoch: u64) {
        self.epoch = epoch;
        self.asked = false;
        self.fetched.clear();
        self.records.clear();
        self.place = Place::At(offset);
        self.opened_to = offset;
    }
}

impl Fetcher {
    pub(super) fn new(cluster: Arc<Cluster>, options: ConsumerOptions) -> Self {
        let lane = cluster.new_lane();
        Self {
            cluster,
            options,
            lane,
            limits: BatchLimits::consumer(),
            partitions: BTreeMap::new(),
            current: None,
            next_epoch: 0,
            fetching: BTreeMap::new(),
            watching: false,
            next_fetch: 0,
            refreshing: false,
            refresh_wanted: false,
            events: FuturesUnordered::new(),
        }
    }

    pub(super) fn assign(&mut self, partition: TopicPartition, start: StartAt) {
        let assigned = Assigned::new(start, self.next_epoch);
        self.next_epoch += 1;
        self.partitions.insert(partition, assigned);
    }

    pub(super) fn unassign(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    pub(super) fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    pub(super) fn seek(
        &mut self,
        partition: &TopicPartition,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        if !self.partitions.contains_key(partition) {
            let partition = partition.clone();
            return Err(ConsumeError::NotAssigned { partition });
        }
        self.assign(partition.clone(), to);
        Ok(())
    }

    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.position()
    }

    pub(super) fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.high_watermark
    }

    /// The next record. Takes the answers that have come, asks for more where there is room, and
    /// opens batches as they are needed.
    pub(super) fn poll_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ConsumedRecord, ConsumeError>> {
        // The usual way, and the quick one: a batch is open.
        if let Some(record) = self.take_opened() {
            return Poll::Ready(Ok(record));
        }
        if self.partitions.is_empty() {
            return Poll::Ready(Err(ConsumeError::NothingAssigned));
        }
        loop {
            while let Poll::Ready(Some(event)) = self.events.poll_next_unpin(context) {
                self.handle(event);
            }
            self.ask();
            match self.open_next() {
                Some(Ok(())) => {
                    if let Some(record) = self.take_opened() {
                        return Poll::Ready(Ok(record));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                // What was just begun has to be polled once, to wake us.
                None => match self.events.poll_next_unpin(context) {
                    Poll::Ready(Some(event)) => self.handle(event),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    fn take_opened(&mut self) -> Option<ConsumedRecord> {
        let assigned = self.partitions.get_mut(self.current.as_ref()?)?;
        assigned.records.pop_front()
    }

    /// Opens the next batch of the partition whose turn it is; nothing if none has any.
    fn open_next(&mut self) -> Option<Result<(), ConsumeError>> {
        let partition = self.next_partition()?;
        self.current = Some(partition.clone());
        let assigned = self.partitions.get_mut(&partition)?;
        if !assigned.records.is_empty() {
            return Some(Ok(()));
        }
        let Some(fetched) = assigned.fetched.front_mut() else {
            return assigned.error.take().map(Err);
        };
        let offset = assigned.opened_to;
        let epoch = self.next_epoch;
        match fetched.next_batch(&partition, offset, &self.limits) {
            Ok(NextBatch::Records { records, end }) => {
                assigned.records = records;
                assigned.opened_to = end.max(offset);
            }
            Ok(NextBatch::End) => {
                assigned.fetched.pop_front();
            }
            Err(source) => {
                // Ask again: what was flipped on the way may come whole the next time.
                self.next_epoch += 1;
                assigned.go_to(offset, epoch);
                return Some(Err(ConsumeError::CorruptBatch {
                    partition,
                    offset,
                    source,
                }));
            }
        }
        Some(Ok(()))
    }

    /// The partition behind the current one, in a ring, that has something.
    fn next_partition(&self) -> Option<TopicPartition> {
        use std::ops::Bound::{Excluded, Unbounded};
        let has = |(_, assigned): &(&TopicPartition, &Assigned)| assigned.has_something();
        let behind = self.current.as_ref().and_then(|current| {
            self.partitions
                .range((Excluded(current), Unbounded))
                .find(has)
        });
        behind
            .or_else(|| self.partitions.iter().find(has))
            .map(|(partition, _)| partition.clone())
    }

    /// Begins every request that is wanted and has room.
    fn ask(&mut self) {
        if self.refresh_wanted && !self.refreshing {
            self.refresh();
        }
        self.locate();
        let buffered: usize = self.partitions.values().map(Assigned::buffered_bytes).sum();
        if buffered >= self.options.prefetch_bytes {
            return;
        }
        let share = self.options.prefetch_bytes / self.partitions.len().max(1);
        let mut by_leader: BTreeMap<i32, Vec<Asked>> = BTreeMap::new();
        let metadata = self.cluster.metadata();
        for (partition, assigned) in &self.partitions {
            let Place::At(offset) = assigned.place else {
                continue;
            };
            let full = assigned.buffered_bytes() > share;
            if assigned.asked || assigned.resting || assigned.error.is_some() || full {
                continue;
            }
            match metadata.leader(&partition.topic, partition.partition) {
                Some(leader) if self.fetching.contains_key(&leader) => {}
                Some(leader) => by_leader.entry(leader).or_default().push(Asked {
                    partition: partition.clone(),
                    epoch: assigned.epoch,
                    offset,
                }),
                None => self.refresh_wanted = true,
            }
        }
        for (leader, asked) in by_leader {
            self.fetch(leader, asked);
        }
        if self.refresh_wanted && !self.refreshing {
            self.refresh();
        }
    }

    fn fetch(&mut self, broker: i32, asked: Vec<Asked>) {
        let fetch = self.next_fetch;
        self.next_fetch += 1;
        for asked in &asked {
            if let Some(assigned) = self.partitions.get_mut(&asked.partition) {
                assigned.asked = true;
                assigned.fetched_from = Some(fetch);
            }
        }
        self.enter(broker, fetch, Stage::Connecting);
        let (cluster, lane) = (Arc::clone(&self.cluster), self.lane);
        self.events.push(Box::pin(async move {
            let connection = cluster.connection(broker, lane).await;
            Event::Connected {
                broker,
                fetch,
                asked,
                connection,
            }
        }));
        self.watch();
    }

    /// Sends the request, for those partitions that still wait for it.
    fn connected(
        &mut self,
        broker: i32,
        fetch: u64,
        mut asked: Vec<Asked>,
        connection: Result<Connection, ConnectError>,
    ) {
        asked.retain(|asked| current_mut(&mut self.partitions, asked).is_some());
        let connection = match connection {
            Ok(connection) if !asked.is_empty() => connection,
            Ok(_) => return self.ended(fetch),
            Err(error) => {
                self.ended(fetch);
                return self.fetched(&asked, Err(error.into()));
            }
        };
        self.enter(broker, fetch, Stage::Asked);
        let request = fetch_request(&asked, &self.options);
        let timeout = self.cluster.options.request_timeout + self.options.max_wait;
        self.events.push(Box::pin(async move {
            let answer = connection.call_within(&request, timeout).await;
            Event::Fetched {
                fetch,
                asked,
                answer,
            }
        }));
    }

    fn enter(&mut self, broker: i32, number: u64, stage: Stage) {
        let since = Instant::now();
        let fetching = Fetching {
            number,
            stage,
            since,
        };
        self.fetching.insert(broker, fetching);
    }

    fn ended(&mut self, fetch: u64) {
        self.fetching.retain(|_, fetching| fetching.number != fetch);
    }

    /// Looks after the fetches in a while.
    fn watch(&mut self) {
        if std::mem::replace(&mut self.watching, true) {
            return;
        }
        self.events.push(Box::pin(async {
            tokio::time::sleep(WATCH_INTERVAL).await;
            Event::Watched
        }));
    }

    /// Looks for brokers that owe a connection or an answer for long. What the metadata says to be
    /// led by another meanwhile is asked of that one.
    fn leave_deposed(&mut self) {
        self.watching = false;
        for (broker, fetching) in self.fetching.clone() {
            if fetching.since.elapsed() < self.patience(fetching.stage) {
                continue;
            }
            if !self.release_moved(broker, fetching.number) {
                self.refresh_wanted = true;
                continue;
            }
            tracing::debug!(broker, stage = ?fetching.stage, "is silent and was deposed");
            if fetching.stage == Stage::Asked {
                self.cluster.abandon(broker, self.lane);
            }
        }
        if !self.fetching.is_empty() {
            self.watch();
        }
    }

    fn patience(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Connecting => DIAL_SLOW_AFTER,
            Stage::Asked => self.options.max_wait + SLOW_AFTER,
        }
    }

    /// Lets partitions of a fetch be asked for elsewhere, if another leads them now; whether there
    /// are any. The new epoch makes the answer worthless, should one come.
    fn release_moved(&mut self, broker: i32, fetch: u64) -> bool {
        let metadata = self.cluster.metadata();
        let mut any = false;
        for (of, assigned) in &mut self.partitions {
            let leader = metadata.leader(&of.topic, of.partition);
            let moved = leader.is_some_and(|leader| leader != broker);
            if assigned.asked && assigned.fetched_from == Some(fetch) && moved {
                assigned.asked = false;
                assigned.epoch = self.next_epoch;
                self.next_epoch += 1;
                any = true;
            }
        }
        any
    }

    /// Asks where the partitions whose place is not known begin.
    fn locate(&mut self) {
        let mut asked = Vec::new();
        let mut queries = Vec::new();
        for (partition, assigned) in &mut self.partitions {
            let Place::Unknown { timestamp } = assigned.place else {
                continue;
            };
            if assigned.asked || assigned.resting || assigned.error.is_some() {
                continue;
            }
            assigned.asked = true;
            asked.push(Asked {
                partition: partition.clone(),
                epoch: assigned.epoch,
                offset: Offset::ZERO,
            });
            queries.push(OffsetQuery {
                partition: partition.clone(),
                timestamp,
            });
        }
        if asked.is_empty() {
            return;
        }
        let cluster = Arc::clone(&self.cluster);
        self.events.push(Box::pin(async move {
            let answers = list_offsets(&cluster, &queries).await;
            Event::Located { asked, answers }
        }));
    }

    fn refresh(&mut self) {
        self.refreshing = true;
        self.refresh_wanted = false;
        let mut topics: Vec<TopicName> =
            self.partitions.keys().map(|of| of.topic.clone()).collect();
        topics.dedup();
        let cluster = Arc::clone(&self.cluster);
        self.events.push(Box::pin(async move {
            let refreshed = cluster.refresh(&topics).await;
            // A leader that is not there yet is asked for again, but not in a tight loop.
            tokio::time::sleep(REFRESH_INTERVAL).await;
            Event::Refreshed(refreshed)
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Rested => {
                for assigned in self.partitions.values_mut() {
                    assigned.resting = false;
                }
            }
            Event::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "no metadata");
                    self.refresh_wanted = true;
                }
            }
            Event::Located { asked, answers } => {
                for (asked, answer) in asked.iter().zip(answers) {
                    self.located(asked, answer);
                }
            }
            Event::Watched => self.leave_deposed(),
            Event::Connected {
                broker,
                fetch,
                asked,
                connection,
            } => self.connected(broker, fetch, asked, connection),
            Event::Fetched {
                fetch,
                asked,
                answer,
            } => {
                self.ended(fetch);
                self.fetched(&asked, answer);
            }
        }
    }

    fn located(&mut self, asked: &Asked, answer: Result<Offset, CallError>) {
        let Some(assigned) = current_mut(&mut self.partitions, asked) else {
            return;
        };
        assigned.asked = false;
        match answer {
            Ok(offset) => {
                let epoch = assigned.epoch;
                assigned.go_to(offset, epoch);
                assigned.backoff = Backoff::default();
            }
            Err(error) if error.is_retriable() => {
                tracing::debug!(partition = %asked.partition, %error, "no offset yet");
                self.rest(&asked.partition.clone());
            }
            Err(error) => assigned.error = Some(ConsumeError::Call(error)),
        }
    }

    fn fetched(&mut self, asked: &[Asked], answer: Answer) {
        let answer = match answer {
            Ok(answer) if answer.error.is_none() => Ok(answer),
            Ok(answer) => Err(ConsumeErrorKind::Code(answer.error)),
            Err(error) => Err(ConsumeErrorKind::Call(error)),
        };
        for asked in asked {
            let Some(assigned) = current_mut(&mut self.partitions, asked) else {
                continue;
            };
            assigned.asked = false;
            match &answer {
                Ok(answer) => match find(answer, &asked.partition) {
                    Some(found) => self.fetched_partition(asked, found),
                    None => self.rest(&asked.partition),
                },
                Err(kind) => self.failed(asked, kind),
            }
        }
    }

    fn fetched_partition(&mut self, asked: &Asked, found: &FetchPartitionResponse<Option<Bytes>>) {
        if !found.error.is_none() {
            return self.failed(asked, &ConsumeErrorKind::Code(found.error));
        }
        let bytes_max = self.options.partition_bytes_max;
        let Some(assigned) = current_mut(&mut self.partitions, asked) else {
            return;
        };
        assigned.backoff = Backoff::default();
        assigned.high_watermark = Offset::from_wire(found.high_watermark);
        let Some(bytes) = found.records.clone().filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        match end_of_whole_batches(&bytes) {
            Some(end) => {
                assigned.place = Place::At(end.max(asked.offset));
                assigned.fetched.push_back(Fetched::new(bytes));
            }
            None => {
                assigned.error = Some(ConsumeError::BatchTooLarge {
                    partition: asked.partition.clone(),
                    offset: asked.offset,
                    bytes_max,
                });
            }
        }
    }

    fn failed(&mut self, asked: &Asked, kind: &ConsumeErrorKind) {
        tracing::debug!(partition = %asked.partition, error = ?kind, "nothing fetched");
        match kind {
            ConsumeErrorKind::Code(ErrorCode::OffsetOutOfRange) => self.out_of_range(asked),
            ConsumeErrorKind::Code(error) if error.is_retriable() => {
                self.refresh_wanted = true;
                self.rest(&asked.partition);
            }
            ConsumeErrorKind::Code(error) => {
                let (partition, error) = (asked.partition.clone(), *error);
                self.set_error(asked, ConsumeError::Refused { partition, error });
            }
            ConsumeErrorKind::Call(error) if error.is_retriable() => {
                self.refresh_wanted = true;
                self.rest(&asked.partition);
            }
            ConsumeErrorKind::Call(error) => {
                self.set_error(asked, ConsumeError::Call(error.clone()));
            }
        }
    }

    fn out_of_range(&mut self, asked: &Asked) {
        let start = match self.options.out_of_range {
            OutOfRange::Fail => {
                let (partition, offset) = (asked.partition.clone(), asked.offset);
                let error = ConsumeError::OffsetOutOfRange { partition, offset };
                return self.set_error(asked, error);
            }
            OutOfRange::Earliest => StartAt::Earliest,
            OutOfRange::Latest => StartAt::Latest,
        };
        let Some(assigned) = current_mut(&mut self.partitions, asked) else {
            return;
        };
        // What lies here was in range and is given out first.
        match start.timestamp() {
            Err(timestamp) if !assigned.has_something() => {
                assigned.place = Place::Unknown { timestamp };
            }
            _ => self.rest(&asked.partition),
        }
    }

    fn set_error(&mut self, asked: &Asked, error: ConsumeError) {
        if let Some(assigned) = current_mut(&mut self.partitions, asked) {
            assigned.error = Some(error);
        }
    }

    /// Leaves a partition alone for a moment.
    fn rest(&mut self, partition: &TopicPartition) {
        let Some(assigned) = self.partitions.get_mut(partition) else {
            return;
        };
        assigned.resting = true;
        let wait = assigned.backoff.next();
        self.events.push(Box::pin(async move {
            tokio::time::sleep(wait).await;
            Event::Rested
        }));
    }
}

/// A broker that owes an answer for so long, beyond the wait it was asked for, may have been
/// deposed without our knowing: time to look at the metadata.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// The same of a broker that is being dialled. Over QUIC a dead one is silent, and its successor
/// is known elsewhere long before the attempt ends.
const DIAL_SLOW_AFTER: Duration = Duration::from_millis(250);

/// Between two looks at the fetches that are on the way.
const WATCH_INTERVAL: Duration = DIAL_SLOW_AFTER;

/// Between two looks at the metadata.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum ConsumeErrorKind {
    Code(ErrorCode),
    Call(CallError),
}

/// A partition, unless it was assigned anew or went elsewhere since the question.
fn current_mut<'a>(
    partitions: &'a mut BTreeMap<TopicPartition, Assigned>,
    asked: &Asked,
) -> Option<&'a mut Assigned> {
    partitions
        .get_mut(&asked.partition)
        .filter(|assigned| assigned.epoch == asked.epoch)
}

/// The offset behind the last batch that is there whole; nothing if none is. Headers that make no
/// sense end the row: opening it will say what is wrong.
fn end_of_whole_batches(bytes: &[u8]) -> Option<Offset> {
    let mut end = None;
    let mut split = highwater_record::SplitBatches::new(bytes);
    for batch in &mut split {
        let header = batch.and_then(highwater_record::BatchHeader::read);
        match header {
            Ok(header) => end = Some(header.end_offset()),
            Err(_) => return end.or(Some(Offset::ZERO)),
        }
    }
    end
}

fn find<'a>(
    answer: &'a FetchResponse<Option<Bytes>>,
    partition: &TopicPartition,
) -> Option<&'a FetchPartitionResponse<Option<Bytes>>> {
    let topic = answer
        .topics
        .iter()
        .find(|topic| *topic.name == *partition.topic.as_str())?;
    topic
        .partitions
        .iter()
        .find(|found| u32::try_from(found.index) == Ok(partition.partition))
}

fn fetch_request(asked: &[Asked], options: &ConsumerOptions) -> FetchRequest {
    let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for asked in asked {
        let partition = FetchPartition {
            index: i32::try_from(asked.partition.partition).unwrap_or(i32::MAX),
            current_leader_epoch: -1,
            fetch_offset: asked.offset.to_wire(),
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: bytes(options.partition_bytes_max),
        };
        let name = asked.partition.topic.as_str();
        match topics.last_mut().filter(|topic| *topic.name == *name) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                name: StrBytes::from_string(name.to_owned()),
                partitions: vec![partition],
            }),
        }
    }
    FetchRequest {
        max_wait_ms: i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: bytes(options.min_bytes),
        max_bytes: bytes(options.request_bytes_max),
        topics,
        ..FetchRequest::default()
    }
}

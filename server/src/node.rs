//! The embedded node: a replica of the cluster inside the process that uses it.

mod topics;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_engine::{
    Batch, Fetch, Fetched, GroupId, Op, OpError, Outcome, Produce, ReadFrom, ReplicaStatus,
    ShardId, Ticket,
};
use highwater_protocol::ErrorCode;
use highwater_record::{
    AppendError, BatchLimits, Buffer, Compression, Offset, RecordBatch, RecordBatchBuilder,
    SealError, TopicPartition,
};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::counters::NodeCounters;
use crate::mailbox::{Closed, Mail};
use crate::metrics::exposition;
use crate::start::{Common, Running, StartError, start};
use crate::thread::Ended;

/// A batch that [`Node::append`] builds is no larger, in bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A node of a Highwater cluster, in this process.
///
/// It serves Kafka's clients on its listeners, and the process that embeds it by the methods
/// here, which need no particular runtime: their futures can be awaited on any. Dropping the last
/// handle stops the node as [`stop`](Node::stop) does.
///
/// A node never ends its host: when its disk fails, or an invariant of its own is broken, it
/// closes for good and every call returns [`NodeError::Failed`].
#[derive(Clone)]
pub struct Node {
    owner: Arc<Owner>,
}

struct Owner {
    common: Arc<Common>,
    threads: Mutex<Vec<JoinHandle<Ended>>>,
    failure: Arc<Mutex<Option<NodeError>>>,
    tickets: AtomicU64,
}

/// A record to be appended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Groups records and, in compacted topics, replaces older ones.
    pub key: Option<Vec<u8>>,
    /// What is said; none is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A record that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// When it was made, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Why a call of a [`Node`] did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// There is no such topic or partition, as far as this node knows. Just after a start a node
    /// may not know yet; [`Node::ensure_topic`] waits until it does.
    #[error("no partition {0}")]
    NotFound(TopicPartition),
    /// The partition's replicas are on other nodes. Nothing was done; ask one of those.
    #[error("this node has no replica of {0}")]
    NoReplica(TopicPartition),
    /// Another replica leads the partition. Nothing was done; ask that node. If no leader is
    /// known, an election is under way: [`Node::leader`] waits for its end.
    #[error("another node leads (node {leader:?})")]
    NotLeader {
        /// The leader's id, if known.
        leader: Option<u32>,
    },
    /// Leadership was lost while the records were on their way: they may be committed, or not,
    /// and which of both is seen only by reading on. Whoever appends them again may append them
    /// twice, so either a record may be applied twice without harm, or it carries an id by which
    /// the second is known.
    #[error("leadership was lost before the outcome was known")]
    Indefinite,
    /// Memory or disk is full at the moment. Nothing was done; try again later.
    #[error("busy: {0}")]
    Busy(String),
    /// The offset is before the log's start or behind its end.
    #[error("offset {offset} is outside of {log_start_offset}..{log_end_offset}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first one there.
        log_start_offset: Offset,
        /// The one behind the last.
        log_end_offset: Offset,
    },
    /// The records cannot be one batch.
    #[error("{0}")]
    Records(String),
    /// The cluster refuses: a topic that exists, a value out of range.
    #[error("{code:?}: {message}")]
    Refused {
        /// Kafka's code.
        code: ErrorCode,
        /// What a person is told.
        message: String,
    },
    /// The disk cannot give what was asked for.
    #[error("storage: {0}")]
    Storage(String),
    /// The node has stopped, or has closed itself for good.
    #[error("the node has failed: {0}")]
    Failed(String),
    /// The node has ended because its configuration does not fit its cluster.
    #[error("{0}")]
    Misconfigured(String),
}

impl NewRecord {
    /// A record with a key and a value.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
        }
    }
}

impl Node {
    /// Starts a node on a formatted data directory ([`make_cluster`](crate::setup::make_cluster)).
    /// When this returns it takes part in its cluster and accepts clients.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(config: Config) -> Result<Node, StartError> {
        let Running { common, threads } = start(config)?;
        let failure = Arc::new(Mutex::new(None));
        let owner = Owner {
            common,
            threads: Mutex::new(threads),
            failure,
            tickets: AtomicU64::new(0),
        };
        Ok(Node {
            owner: Arc::new(owner),
        })
    }

    /// This node's id in its cluster.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.owner.common.config.node.id
    }

    /// Where Kafka's clients reach it.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        self.owner.common.kafka
    }

    /// Where its metrics are served, in Prometheus' text format over HTTP.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.owner.common.metrics
    }

    /// Appends records to a partition that this node leads, as one batch, and ends when they are
    /// on disk on a quorum. Gives the first one's offset; the others follow it.
    ///
    /// # Errors
    /// [`NodeError`]. After [`NodeError::Indefinite`], and if the future is dropped, the records
    /// may be there or not; after every other error they are not.
    pub async fn append(
        &self,
        partition: &TopicPartition,
        records: &[NewRecord],
    ) -> Result<Offset, NodeError> {
        let batch = build_batch(records, wall_ms())?;
        let group = self.locate(partition).await?;
        let produce = Produce {
            batches: vec![batch],
        };
        match self.ask(group, Op::Produce(produce)).await? {
            Outcome::Produced { base_offset, .. } => Ok(base_offset),
            other => unreachable!("a produce is answered by Produced, not {other:?}"),
        }
    }

    /// Reads committed records from this node's own replica, leader or not: whole batches from
    /// `from` on, about `max_bytes` of them. Empty if there is nothing there yet.
    ///
    /// # Errors
    /// [`NodeError::OutOfRange`] before the log's start; others as the replica stands.
    pub async fn read(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, NodeError> {
        let group = self.locate(partition).await?;
        let fetched = self.fetch(group, from, max_bytes).await?;
        records_of(&fetched, from)
    }

    /// Follows a partition's commits on this node's own replica, in order, from `from` on.
    #[must_use]
    pub fn follow(&self, partition: TopicPartition, from: Offset) -> Follow {
        Follow {
            node: self.clone(),
            partition,
            next: from,
        }
    }

    /// Establishes a read point (linearizable; read index, Raft thesis 6.4): every append that
    /// was acknowledged before this call lies before the offset that it gives. Apply records up
    /// to there, then read. Only the partition's leader can give it.
    ///
    /// # Errors
    /// [`NodeError::NotLeader`] names who can.
    pub async fn barrier(&self, partition: &TopicPartition) -> Result<Offset, NodeError> {
        let group = self.locate(partition).await?;
        match self.ask(group, Op::Barrier).await? {
            Outcome::Barrier { high_watermark, .. } => Ok(high_watermark),
            other => unreachable!("a barrier is answered by Barrier, not {other:?}"),
        }
    }

    /// How this node's replica of a partition stands, and who leads.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] if it has none.
    pub async fn replica(&self, partition: &TopicPartition) -> Result<ReplicaStatus, NodeError> {
        let group = self.locate(partition).await?;
        match self.ask(group, Op::Status).await? {
            Outcome::Status(status) => Ok(status),
            other => unreachable!("a status is answered by Status, not {other:?}"),
        }
    }

    /// What this node has done since it was started, in numbers. Each shard is asked between two
    /// of its turns, so it costs nothing while nobody asks; the numbers of different shards may
    /// be a turn apart.
    ///
    /// # Errors
    /// [`NodeError::Failed`] once the node has stopped.
    pub async fn counters(&self) -> Result<NodeCounters, NodeError> {
        let gathered = NodeCounters::gather(&self.owner.common).await;
        gathered.map_err(|Closed| self.owner.gone())
    }

    /// [`counters`](Node::counters) in Prometheus' text format, each labelled with the node's id:
    /// what a scrape of `listen.metrics` gives.
    ///
    /// # Errors
    /// [`NodeError::Failed`] once the node has stopped.
    pub async fn metrics(&self) -> Result<String, NodeError> {
        Ok(exposition(self.id(), &self.counters().await?))
    }

    /// Stops: leadership is handed over first, for a few seconds at most. Blocks until all
    /// threads have ended; calls under way end with [`NodeError::Failed`].
    ///
    /// # Errors
    /// If the node had failed before: why.
    pub fn stop(&self) -> Result<(), NodeError> {
        self.owner.end(|| Mail::Stop)
    }

    /// Stops at once, as a crash would: nothing is flushed, nothing handed over.
    ///
    /// # Errors
    /// If the node had failed before: why.
    pub fn abort(&self) -> Result<(), NodeError> {
        self.owner.end(|| Mail::Abort)
    }

    /// Why the node has closed itself, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<NodeError> {
        self.owner.reap();
        self.owner.failure()
    }

    async fn fetch(
        &self,
        group: GroupId,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Fetched, NodeError> {
        let fetch = Fetch {
            offset,
            max_bytes,
            must_progress: true,
            current_leader_epoch: None,
            from: ReadFrom::AnyReplica,
        };
        match self.ask(group, Op::Fetch(fetch)).await? {
            Outcome::Fetched(fetched) => Ok(fetched),
            other => unreachable!("a fetch is answered by Fetched, not {other:?}"),
        }
    }

    /// Asks an operation of a group, wherever it lives on this node.
    async fn ask(&self, group: GroupId, op: Op) -> Result<Outcome, NodeError> {
        let shard = self.shard_of(group);
        let ticket = Ticket(self.owner.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let mail = Mail::Ask {
            ticket,
            group,
            op,
            reply,
        };
        self.send(shard, mail).await?;
        let mut forget = Forget {
            node: self,
            shard,
            ticket,
            group,
            is_answered: false,
        };
        let result = answer.await.map_err(|_| self.owner.gone())?;
        forget.is_answered = true;
        result.map_err(NodeError::from)
    }

    fn shard_of(&self, group: GroupId) -> usize {
        let shards = self.owner.common.mailboxes.len();
        let shards = u16::try_from(shards).expect("shards are counted in u16");
        usize::from(ShardId::of_group(group, shards).0)
    }

    async fn send(&self, shard: usize, mail: Mail) -> Result<(), NodeError> {
        let delivered = self.owner.common.mailboxes[shard].deliver(mail).await;
        delivered.map_err(|Closed| self.owner.gone())
    }
}

/// Cancels an operation whose future is dropped.
struct Forget<'a> {
    node: &'a Node,
    shard: usize,
    ticket: Ticket,
    group: GroupId,
    is_answered: bool,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let (ticket, group) = (self.ticket, self.group);
            // A full or closed mailbox: it is answered to nobody then.
            let _ =
                self.node.owner.common.mailboxes[self.shard].send(Mail::Forget { ticket, group });
        }
    }
}

impl Owner {
    fn end(&self, mail: impl Fn() -> Mail) -> Result<(), NodeError> {
        for mailbox in &self.common.mailboxes {
            // One that has ended takes no mail.
            let _ = mailbox.send(mail());
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.into_iter().for_each(|thread| self.note(thread));
        self.failure().map_or(Ok(()), Err)
    }

    /// Notes how threads have ended that have.
    fn reap(&self) {
        let mut threads = lock(&self.threads);
        let (ended, running) = std::mem::take(&mut *threads)
            .into_iter()
            .partition(|thread| thread.is_finished());
        *threads = running;
        drop(threads);
        let ended: Vec<JoinHandle<Ended>> = ended;
        ended.into_iter().for_each(|thread| self.note(thread));
    }

    fn note(&self, thread: JoinHandle<Ended>) {
        let reason = match thread.join() {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Failed(reason)) => NodeError::Failed(reason),
            Ok(Ended::Misconfigured(reason)) => NodeError::Misconfigured(reason),
            Err(_) => NodeError::Failed("a shard has panicked".to_owned()),
        };
        let mut failure = lock(&self.failure);
        failure.get_or_insert(reason);
        drop(failure);
        // A node with a dead shard is no node: the others end too.
        for mailbox in &self.common.mailboxes {
            let _ = mailbox.send(Mail::Abort);
        }
    }

    fn failure(&self) -> Option<NodeError> {
        lock(&self.failure).clone()
    }

    fn gone(&self) -> NodeError {
        self.reap();
        let failure = self.failure();
        failure.unwrap_or_else(|| NodeError::Failed("it has stopped".to_owned()))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Nobody is left to be told how it ended.
        let _ = self.end(|| Mail::Stop);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.id())
    }
}

/// Every change is one step, so what a panic leaves is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The commits of one partition, in order. Made by [`Node::follow`].
#[derive(Debug, Clone)]
pub struct Follow {
    node: Node,
    partition: TopicPartition,
    next: Offset,
}

impl Follow {
    /// The offset that the next records begin at.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// Waits for the next committed records: one batch at least, about a mebibyte at most.
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`NodeError`]; [`NodeError::OutOfRange`] if retention has overtaken the position.
    pub async fn next(&mut self) -> Result<Vec<Record>, NodeError> {
        let group = self.node.locate(&self.partition).await?;
        loop {
            let fetched = self.node.fetch(group, self.next, BATCH_BYTES_MAX).await?;
            if !fetched.spans.is_empty() {
                let records = records_of(&fetched, self.next)?;
                self.next = fetched.next_offset;
                return Ok(records);
            }
            let above = self.next;
            match self.node.ask(group, Op::WatchOffset { above }).await {
                // The second: nobody leads yet. There may be commits all the same.
                Ok(_) | Err(NodeError::NotLeader { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// One batch of records that are made `now`, in milliseconds since the Unix epoch.
pub(crate) fn build_batch(records: &[NewRecord], now: i64) -> Result<Batch, NodeError> {
    let wrong = |error: &dyn std::fmt::Display| NodeError::Records(error.to_string());
    let mut builder = RecordBatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
    for record in records {
        builder
            .append(now, record.key.as_deref(), record.value.as_deref(), &[])
            .map_err(|error: AppendError| wrong(&error))?;
    }
    let bytes = builder.seal().map_err(|error: SealError| wrong(&error))?;
    let limits = BatchLimits::consumer();
    let parsed = RecordBatch::parse(&bytes, &limits).map_err(|error| wrong(&error))?;
    let header = *parsed.header();
    Ok(Batch {
        bytes: Buffer::from(bytes),
        header,
    })
}

pub(crate) fn records_of(fetched: &Fetched, from: Offset) -> Result<Vec<Record>, NodeError> {
    let limits = BatchLimits::consumer();
    let damaged = |error: &dyn std::fmt::Display| NodeError::Storage(error.to_string());
    let mut out = Vec::new();
    for span in &fetched.spans {
        let mut rest: &[u8] = span;
        while !rest.is_empty() {
            let batch = RecordBatch::parse(rest, &limits).map_err(|error| damaged(&error))?;
            let records = batch.records(&limits).map_err(|error| damaged(&error))?;
            for record in &records {
                let record = record.map_err(|error| damaged(&error))?;
                let offset = batch.base_offset().advance(u64::from(record.offset_delta));
                if offset >= from {
                    out.push(Record {
                        offset,
                        timestamp: record.timestamp,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                    });
                }
            }
            rest = &rest[batch.as_bytes().len()..];
        }
    }
    Ok(out)
}

impl From<OpError> for NodeError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::NotLeader { leader, .. } => Self::NotLeader {
                leader: leader.map(|node| node.0),
            },
            // It is asked only where there is to be one.
            OpError::UnknownGroup => Self::Busy("the replica is not open yet".to_owned()),
            OpError::Indefinite | OpError::Cancelled => Self::Indefinite,
            OpError::Busy(what) => Self::Busy(what.to_owned()),
            OpError::OffsetNotAvailable => Self::Busy(OpError::OffsetNotAvailable.to_string()),
            OpError::OffsetOutOfRange {
                offset,
                log_start_offset,
                log_end_offset,
            } => Self::OutOfRange {
                offset,
                log_start_offset,
                log_end_offset,
            },
            OpError::TooLarge { .. } => Self::Records(error.to_string()),
            OpError::Storage(what) => Self::Storage(what),
            OpError::BelowLogStart { .. }
            | OpError::FencedLeaderEpoch { .. }
            | OpError::UnknownLeaderEpoch { .. }
            | OpError::Producer(_) => Self::Storage(error.to_string()),
        }
    }
}

//! What is known of the cluster, and the connections to it. Shared by everything that one client
//! makes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use highwater_protocol::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
    MetadataResponseTopic, StrBytes, Uuid,
};
use highwater_protocol::{ApiKey, Call, ErrorCode};
use highwater_record::TopicName;
use tokio::time::Instant;

use crate::connection::{Connection, ConnectionOptions};
use crate::error::{CallError, ConnectError, MetadataError};
use crate::transport::Transport;

/// How long a topic that does not exist is asked for again, since creating one by asking for it
/// takes a moment.
const CREATION_WAIT: Duration = Duration::from_secs(5);

/// How long a topic that does not exist, and is not created by asking for it, is asked for again: the
/// broker that answers may not have heard of it yet. It has registered with the cluster a moment ago,
/// perhaps, or was not reached when the topic was created.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// How long a topic without an answer or without any leader is asked for again.
const METADATA_WAIT: Duration = Duration::from_secs(30);

/// How long one broker is asked for metadata while there are others to ask. A hung broker must
/// not hide from us that it was deposed.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a broker may be silent before another is asked too. Over QUIC nobody tells that a
/// process has gone, so a dead broker is a silent one.
const SILENT_AFTER: Duration = Duration::from_millis(250);

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Where it listens.
    pub host: String,
    /// On which port: TCP, and UDP for QUIC.
    pub port: u16,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its id, nil from brokers that have none.
    pub id: Uuid,
    /// Whether the cluster itself made it.
    pub is_internal: bool,
    /// Its partitions, by number.
    pub partitions: BTreeMap<u32, PartitionDescription>,
}

impl TopicDescription {
    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("partitions are numbered by an i32")
    }
}

/// A partition as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// The broker that leads it, if there is one.
    pub leader: Option<i32>,
    /// The leader's epoch, -1 if unknown.
    pub leader_epoch: i32,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync_replicas: Vec<i32>,
}

/// What the last metadata response said.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    topics: BTreeMap<TopicName, Arc<TopicDescription>>,
    /// Counts the responses.
    pub(crate) generation: u64,
}

impl Metadata {
    pub(crate) fn topic(&self, name: &TopicName) -> Option<&Arc<TopicDescription>> {
        self.topics.get(name)
    }

    /// Who leads a partition, as far as is known.
    pub(crate) fn leader(&self, topic: &TopicName, partition: u32) -> Option<i32> {
        self.topics.get(topic)?.partitions.get(&partition)?.leader
    }
}

/// What a connection is for. A Fetch that waits at the broker holds up everything behind it, so
/// consumers and producers have connections of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Metadata, offsets, administration.
    Control,
    /// The records of one producer or consumer.
    Own(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Broker(i32),
    Bootstrap(usize),
}

/// The place of a connection; the lock lets one caller connect while the others wait for it.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The cluster as one client sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) options: ConnectionOptions,
    transport: Arc<dyn Transport>,
    bootstrap: Vec<(String, u16)>,
    allow_auto_topic_creation: bool,
    metadata: Mutex<Arc<Metadata>>,
    refreshing: tokio::sync::Mutex<()>,
    connections: Mutex<BTreeMap<(Peer, Lane), Slot>>,
    next_lane: AtomicU64,
    next_peer: AtomicUsize,
}

impl Cluster {
    pub(crate) fn new(
        options: ConnectionOptions,
        transport: Arc<dyn Transport>,
        bootstrap: Vec<(String, u16)>,
        allow_auto_topic_creation: bool,
    ) -> Self {
        Self {
            options,
            transport,
            bootstrap,
            allow_auto_topic_creation,
            metadata: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            connections: Mutex::default(),
            next_lane: AtomicU64::new(0),
            next_peer: AtomicUsize::new(0),
        }
    }

    /// What is known now.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        Arc::clone(&lock(&self.metadata))
    }

    /// A lane for one producer or consumer.
    pub(crate) fn new_lane(&self) -> Lane {
        Lane::Own(self.next_lane.fetch_add(1, Ordering::Relaxed))
    }

    /// Closes a lane's connections.
    pub(crate) fn close_lane(&self, lane: Lane) {
        lock(&self.connections).retain(|(_, of), _| *of != lane);
    }

    /// A connection to a broker that the metadata names, made if there is none.
    pub(crate) async fn connection(
        &self,
        broker: i32,
        lane: Lane,
    ) -> Result<Connection, ConnectError> {
        self.connect(Peer::Broker(broker), lane).await
    }

    /// Gives up a lane's connection to a broker that does not answer and was deposed.
    pub(crate) fn abandon(&self, broker: i32, lane: Lane) {
        let slot = lock(&self.connections).remove(&(Peer::Broker(broker), lane));
        // A slot that is locked has no connection yet: it is being made, which ends by itself.
        if let Some(slot) = slot
            && let Ok(connection) = slot.try_lock()
            && let Some(connection) = connection.as_ref()
        {
            connection.abandon();
        }
    }

    /// Every broker, beginning at another one each time, so that a dead one does not cost each
    /// caller; then the addresses to start from.
    fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> = self
            .metadata()
            .brokers
            .keys()
            .map(|&broker| Peer::Broker(broker))
            .collect();
        if !peers.is_empty() {
            let turn = self.next_peer.fetch_add(1, Ordering::Relaxed);
            let first = turn % peers.len();
            peers.rotate_left(first);
        }
        peers.extend((0..self.bootstrap.len()).map(Peer::Bootstrap));
        peers
    }

    /// A connection to any broker, for requests that every broker answers.
    pub(crate) async fn any_connection(&self) -> Result<Connection, ConnectError> {
        let connected = first(self.peers(), |peer| self.connect(peer, Lane::Control)).await;
        connected.map_err(|last| {
            let last = last.unwrap_or(ConnectError::NoBootstrap);
            ConnectError::Bootstrap(Box::new(last))
        })
    }

    async fn connect(&self, peer: Peer, lane: Lane) -> Result<Connection, ConnectError> {
        let (host, port) = self.address(peer)?;
        let slot = Arc::clone(lock(&self.connections).entry((peer, lane)).or_default());
        let mut slot = slot.lock().await;
        let address = format!("{host}:{port}");
        if let Some(connection) = slot.as_ref()
            && connection.is_usable()
            && connection.address() == address
        {
            return Ok(connection.clone());
        }
        let transport = self.transport.as_ref();
        let connection = Connection::open(transport, &host, port, &self.options).await?;
        tracing::debug!(%address, ?lane, "connected");
        *slot = Some(connection.clone());
        Ok(connection)
    }

    fn address(&self, peer: Peer) -> Result<(String, u16), ConnectError> {
        match peer {
            Peer::Bootstrap(index) => Ok(self.bootstrap[index].clone()),
            Peer::Broker(broker) => self
                .metadata()
                .brokers
                .get(&broker)
                .map(|broker| (broker.host.clone(), broker.port))
                .ok_or(ConnectError::UnknownBroker { broker }),
        }
    }

    /// Asks any broker, and the next one too while it is silent: only for what does no harm when
    /// it is done twice.
    pub(crate) async fn call_any<C: Call>(
        &self,
        request: &C,
    ) -> Result<(Connection, C::Answer), CallError> {
        let ask = |peer| async move {
            let connection = self.connect(peer, Lane::Control).await?;
            let answer = connection.call(request).await?;
            Ok((connection, answer))
        };
        first(self.peers(), ask).await.map_err(nobody)
    }

    /// A connection to the controller; brokers forward, so any other will do if it is unknown or
    /// gone.
    pub(crate) async fn controller_connection(&self) -> Result<Connection, CallError> {
        if self.metadata().generation == 0 {
            self.refresh(&[]).await?;
        }
        if let Some(broker) = self.metadata().controller
            && let Ok(connection) = self.connection(broker, Lane::Control).await
        {
            return Ok(connection);
        }
        Ok(self.any_connection().await?)
    }

    /// Asks for some topics again, unless somebody else did meanwhile. No topics: brokers only.
    pub(crate) async fn refresh(&self, topics: &[TopicName]) -> Result<(), CallError> {
        let seen = self.metadata().generation;
        let _turn = self.refreshing.lock().await;
        let metadata = self.metadata();
        let known = topics.iter().all(|name| metadata.topics.contains_key(name));
        if metadata.generation > seen && known {
            return Ok(());
        }
        let topics = topics.iter().map(requested_topic).collect();
        self.ask(Some(topics)).await.map(drop)
    }

    /// The description of every topic.
    pub(crate) async fn all_topics(&self) -> Result<Vec<Arc<TopicDescription>>, CallError> {
        let _turn = self.refreshing.lock().await;
        self.ask(None).await?;
        Ok(self.metadata().topics.values().cloned().collect())
    }

    /// The description of a topic, from what is known or else from the cluster.
    pub(crate) async fn topic(
        &self,
        name: &TopicName,
    ) -> Result<Arc<TopicDescription>, MetadataError> {
        let known = lock(&self.metadata).topic(name).map(Arc::clone);
        match known {
            Some(topic) => Ok(topic),
            None => self.fetch_topic(name, self.allow_auto_topic_creation).await,
        }
    }

    /// Asks for a topic until it is there or cannot be had.
    pub(crate) async fn fetch_topic(
        &self,
        name: &TopicName,
        may_be_created: bool,
    ) -> Result<Arc<TopicDescription>, MetadataError> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let turn = self.refreshing.lock().await;
            let answer = self.ask(Some(vec![requested_topic(name)])).await;
            drop(turn);
            let (error, wait) = match answer {
                Ok(answer) => match topic_error(&answer, name) {
                    ErrorCode::None => {
                        if let Some(topic) = self.metadata().topic(name) {
                            return Ok(Arc::clone(topic));
                        }
                        (unknown_topic(name), CREATION_WAIT)
                    }
                    ErrorCode::UnknownTopicOrPartition if !may_be_created => {
                        (unknown_topic(name), UNKNOWN_WAIT)
                    }
                    ErrorCode::UnknownTopicOrPartition => (unknown_topic(name), CREATION_WAIT),
                    error => {
                        let topic = name.to_string();
                        let failed = MetadataError::Topic { topic, error };
                        if !error.is_retriable() {
                            return Err(failed);
                        }
                        (failed, METADATA_WAIT)
                    }
                },
                Err(error) if error.is_retriable() => (error.into(), METADATA_WAIT),
                Err(error) => return Err(error.into()),
            };
            if started.elapsed() >= wait {
                return Err(error);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Waits until every broker that answers knows a topic that was just created, or for
    /// [`CREATION_WAIT`]: whoever asks one of them next is not to be told that there is none.
    pub(crate) async fn settle_topic(&self, name: &TopicName) {
        let brokers: Vec<i32> = self.metadata().brokers.keys().copied().collect();
        let waits = brokers
            .into_iter()
            .map(|broker| self.await_topic(broker, name));
        // What is late will be known later: the topic is created all the same.
        let _ = tokio::time::timeout(CREATION_WAIT, join_all(waits)).await;
    }

    async fn await_topic(&self, broker: i32, name: &TopicName) {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![requested_topic(name)]))
            .with_allow_auto_topic_creation(false);
        let mut backoff = Backoff::default();
        // A broker that cannot be asked now learns of the topic before it can.
        while let Ok(answer) = self.ask_peer(Peer::Broker(broker), &request, false).await {
            if topic_error(&answer, name) != ErrorCode::UnknownTopicOrPartition {
                return;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn ask(
        &self,
        topics: Option<Vec<MetadataRequestTopic>>,
    ) -> Result<MetadataResponse, CallError> {
        let every = topics.is_none();
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(self.allow_auto_topic_creation);
        let peers = self.peers();
        let patiently = peers.len() == 1;
        match first(peers, |peer| self.ask_peer(peer, &request, patiently)).await {
            Ok(answer) => {
                self.learn(&answer, every);
                Ok(answer)
            }
            Err(last) => Err(nobody(last)),
        }
    }

    async fn ask_peer(
        &self,
        peer: Peer,
        request: &MetadataRequest,
        patiently: bool,
    ) -> Result<MetadataResponse, CallError> {
        let asking = async {
            let connection = self.connect(peer, Lane::Control).await?;
            let timeout = match patiently {
                true => self.options.request_timeout,
                false => METADATA_TIMEOUT,
            };
            let answer = connection.call_within(request, timeout).await?;
            ErrorCode::from_code(answer.error_code)
                .into_result()
                .map_err(|error| connection.refused(ApiKey::Metadata, error))?;
            Ok(answer)
        };
        if patiently {
            return asking.await;
        }
        // Connecting counts too.
        let limit = METADATA_TIMEOUT + METADATA_TIMEOUT / 2;
        tokio::time::timeout(limit, asking)
            .await
            .unwrap_or_else(|_| {
                let address = self
                    .address(peer)
                    .map(|(host, port)| format!("{host}:{port}"));
                Err(CallError::Timeout {
                    address: address.unwrap_or_default(),
                    key: ApiKey::Metadata,
                    after: limit,
                })
            })
    }

    fn learn(&self, answer: &MetadataResponse, every: bool) {
        let mut metadata = lock(&self.metadata);
        let mut topics = match every {
            true => BTreeMap::new(),
            false => metadata.topics.clone(),
        };
        for answered in &answer.topics {
            let Some(name) = topic_name(answered) else {
                continue;
            };
            match describe(&name, answered) {
                Some(topic) => topics.insert(name, Arc::new(topic)),
                None => topics.remove(&name),
            };
        }
        let cluster_id = answer.cluster_id.as_ref().map(ToString::to_string);
        *metadata = Arc::new(Metadata {
            cluster_id,
            controller: Some(answer.controller_id.0).filter(|id| *id >= 0),
            brokers: brokers_of(answer),
            topics,
            generation: metadata.generation + 1,
        });
    }
}

/// Asks one peer after the other, the next when one fails or has been silent for
/// [`SILENT_AFTER`]; the first answer counts. Without one, the last error.
async fn first<T, E, F>(peers: Vec<Peer>, mut ask: impl FnMut(Peer) -> F) -> Result<T, Option<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut last = None;
    let mut asked = FuturesUnordered::new();
    for peer in peers {
        asked.push(ask(peer));
        // One that is silent may answer yet: it is listened to beside the next.
        match tokio::time::timeout(SILENT_AFTER, asked.next()).await {
            Ok(Some(Ok(answer))) => return Ok(answer),
            Ok(Some(Err(error))) => last = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(answered) = asked.next().await {
        match answered {
            Ok(answer) => return Ok(answer),
            Err(error) => last = Some(error),
        }
    }
    Err(last)
}

/// What to say when no peer has answered, by the last error.
fn nobody(last: Option<CallError>) -> CallError {
    match last.unwrap_or(CallError::Connect(ConnectError::NoBootstrap)) {
        CallError::Connect(error) => ConnectError::Bootstrap(Box::new(error)).into(),
        error => error,
    }
}

/// Waits that double from 50 ms up to 400 ms, so that a new leader is found soon after it was
/// elected.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        const FIRST: Duration = Duration::from_millis(50);
        const DOUBLINGS_MAX: u32 = 3;
        let wait = FIRST * (1 << self.attempts.min(DOUBLINGS_MAX));
        self.attempts = self.attempts.saturating_add(1);
        wait
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics with the value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn requested_topic(name: &TopicName) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(wire_name(name)))
}

/// A topic's name as the messages carry it.
pub(crate) fn wire_name(name: &TopicName) -> highwater_protocol::messages::TopicName {
    StrBytes::from_string(name.as_str().to_owned()).into()
}

fn unknown_topic(name: &TopicName) -> MetadataError {
    MetadataError::UnknownTopic {
        topic: name.to_string(),
    }
}

fn topic_name(answered: &MetadataResponseTopic) -> Option<TopicName> {
    let name = answered.name.as_ref()?;
    TopicName::new(name).ok()
}

fn topic_error(answer: &MetadataResponse, name: &TopicName) -> ErrorCode {
    answer
        .topics
        .iter()
        .find(|topic| topic.name.as_ref().is_some_and(|of| **of == *name.as_str()))
        .map_or(ErrorCode::UnknownTopicOrPartition, |topic| {
            ErrorCode::from_code(topic.error_code)
        })
}

/// A topic, unless the broker says that there is something wrong with it as a whole.
fn describe(name: &TopicName, answered: &MetadataResponseTopic) -> Option<TopicDescription> {
    if answered.error_code != ErrorCode::None.code() || answered.partitions.is_empty() {
        return None;
    }
    let partitions = answered
        .partitions
        .iter()
        .filter_map(|partition| {
            let index = u32::try_from(partition.partition_index).ok()?;
            Some((index, describe_partition(partition)))
        })
        .collect();
    Some(TopicDescription {
        name: name.clone(),
        id: answered.topic_id,
        is_internal: answered.is_internal,
        partitions,
    })
}

fn describe_partition(answered: &MetadataResponsePartition) -> PartitionDescription {
    let ids = |brokers: &[highwater_protocol::messages::BrokerId]| {
        brokers.iter().map(|broker| broker.0).collect()
    };
    PartitionDescription {
        leader: Some(answered.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: answered.leader_epoch,
        replicas: ids(&answered.replica_nodes),
        in_sync_replicas: ids(&answered.isr_nodes),
    }
}

fn brokers_of(answer: &MetadataResponse) -> BTreeMap<i32, Broker> {
    answer
        .brokers
        .iter()
        .filter_map(|broker| {
            let described = Broker {
                id: broker.node_id.0,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).ok()?,
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            Some((described.id, described))
        })
        .collect()
}

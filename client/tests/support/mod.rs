//! A small cluster in this process, for what cannot be asked of a real one: answers that get
//! lost, leaders that move at the worst moment. It keeps logs in memory and checks sequences as
//! Kafka does. It is no judge of the protocol; librdkafka's mock cluster is (`.ci/run`).

#![allow(
    dead_code,
    reason = "each test binary uses another part of the support"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_net::kafka::{
    Admission, AdmissionLimits, ChunkWrite, QuicListener, QuicListenerConfig,
};
use highwater_net::{ClusterCa, Datagrams, ListenerTls};
use highwater_protocol::messages::*;
use highwater_protocol::{
    ErrorCode, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
    ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse, Request,
    RequestHeader, Response, api_versions_response, split_frame,
};
use highwater_record::{BatchLimits, LeaderEpoch, Offset, RecordBatch, sequence_after, stamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;

/// What the cluster does instead of answering well. Chances are out of 100, per partition of a
/// Produce or per Fetch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Appends, then closes the connection.
    pub(crate) lose_answer: u8,
    /// Closes the connection.
    pub(crate) lose_request: u8,
    /// Makes another broker the leader and refuses.
    pub(crate) move_leader: u8,
    /// Appends, then answers REQUEST_TIMED_OUT.
    pub(crate) time_out: u8,
}

pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    pub(crate) bootstrap: String,
}

struct State {
    ports: Vec<i32>,
    topics: BTreeMap<String, Vec<Log>>,
    next_producer_id: i64,
    faults: Faults,
    rng: fastrand::Rng,
    /// Batches with more bytes are MESSAGE_TOO_LARGE.
    batch_bytes_max: usize,
    /// Takes requests and never answers.
    hung: Option<usize>,
    /// How often nobody has heard of any topic yet that is asked for.
    unheard: u32,
}

#[derive(Default)]
struct Log {
    leader: usize,
    start: u64,
    end: u64,
    batches: Vec<(u64, Bytes)>,
    producers: BTreeMap<i64, VecDeque<Sequence>>,
}

#[derive(Clone, Copy)]
struct Sequence {
    base: i32,
    count: u32,
    offset: u64,
}

/// What a broker does with a request.
enum Reaction {
    Answer(Response),
    Close,
}

impl Cluster {
    /// Brokers on loopback, with topics of so many partitions.
    pub(crate) async fn start(brokers: usize, topics: &[(&str, usize)], seed: u64) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..brokers {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        let cluster = Self::describe(&ports, topics, seed);
        for (broker, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(listen(broker, listener, Arc::clone(&cluster.state)));
        }
        cluster
    }

    /// As [`Cluster::start`], over QUIC.
    pub(crate) fn start_quic(
        brokers: usize,
        topics: &[(&str, usize)],
        seed: u64,
        ca: &ClusterCa,
    ) -> Self {
        let credentials = ca.issue_listener(&["localhost", "127.0.0.1"]).unwrap();
        let tls = ListenerTls::new(&credentials).unwrap();
        let config = QuicListenerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            idle: Duration::from_secs(60),
            datagrams: Datagrams::default(),
        };
        let admission = Admission::new(AdmissionLimits::default());
        let bind = || QuicListener::bind(config, &tls, admission.clone()).unwrap();
        let listeners: Vec<_> = std::iter::repeat_with(bind).take(brokers).collect();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().port())
            .collect();
        let cluster = Self::describe(&ports, topics, seed);
        for (broker, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(listen_quic(broker, listener, Arc::clone(&cluster.state)));
        }
        cluster
    }

    fn describe(ports: &[u16], topics: &[(&str, usize)], seed: u64) -> Self {
        let brokers = ports.len();
        let logs = |partitions: usize| {
            let led = |partition: usize| Log {
                leader: partition % brokers,
                ..Log::default()
            };
            (0..partitions).map(led).collect()
        };
        let state = State {
            ports: ports.iter().map(|port| i32::from(*port)).collect(),
            topics: topics
                .iter()
                .map(|(name, partitions)| ((*name).to_owned(), logs(*partitions)))
                .collect(),
            next_producer_id: 1_000,
            faults: Faults::default(),
            rng: fastrand::Rng::with_seed(seed),
            batch_bytes_max: usize::MAX,
            hung: None,
            unheard: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let addresses: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        Self {
            state,
            bootstrap: addresses.join(","),
        }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }

    /// So many requests are told that there is no such topic.
    pub(crate) fn set_unheard(&self, requests: u32) {
        self.state.lock().unwrap().unheard = requests;
    }

    pub(crate) fn set_batch_bytes_max(&self, bytes: usize) {
        self.state.lock().unwrap().batch_bytes_max = bytes;
    }

    /// Forgets what lies below an offset.
    pub(crate) fn delete_below(&self, topic: &str, partition: usize, offset: u64) {
        let mut state = self.state.lock().unwrap();
        let log = &mut state.topics.get_mut(topic).unwrap()[partition];
        log.start = offset;
        log.batches.retain(|(base, _)| *base >= offset);
    }

    /// Flips the last bit of a batch.
    pub(crate) fn corrupt(&self, topic: &str, partition: usize, batch: usize) {
        let mut state = self.state.lock().unwrap();
        let log = &mut state.topics.get_mut(topic).unwrap()[partition];
        let mut bytes = log.batches[batch].1.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        log.batches[batch].1 = Bytes::from(bytes);
    }

    /// Lets a broker take requests and answer none, and another one lead in its place.
    pub(crate) fn hang(&self, broker: usize, successor: usize) {
        let mut state = self.state.lock().unwrap();
        state.hung = Some(broker);
        for log in state.topics.values_mut().flatten() {
            if log.leader == broker {
                log.leader = successor;
            }
        }
    }

    /// Takes the leaders away, or gives them back.
    pub(crate) fn set_led(&self, led: bool) {
        let mut state = self.state.lock().unwrap();
        for log in state.topics.values_mut().flatten() {
            log.leader = if led { 0 } else { usize::MAX };
        }
    }

    /// The values in a partition's log, in order.
    pub(crate) fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let mut values = Vec::new();
        for (_, bytes) in &state.topics[topic][partition].batches {
            let limits = BatchLimits::consumer();
            let batch = RecordBatch::parse(bytes, &limits).unwrap();
            for record in &batch.records(&limits).unwrap() {
                let value = record.unwrap().value.unwrap();
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        values
    }

    pub(crate) fn batches(&self, topic: &str, partition: usize) -> usize {
        self.state.lock().unwrap().topics[topic][partition]
            .batches
            .len()
    }
}

async fn listen(broker: usize, listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (reader, writer) = stream.into_split();
        tokio::spawn(serve(broker, reader, writer, Arc::clone(&state)));
    }
}

async fn listen_quic(broker: usize, mut listener: QuicListener, state: Arc<Mutex<State>>) {
    while let Some(stream) = listener.accept().await {
        let (reader, writer) = (stream.reader, stream.writer);
        tokio::spawn(serve(broker, reader, writer, Arc::clone(&state)));
    }
}

async fn serve(
    broker: usize,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl ChunkWrite,
    state: Arc<Mutex<State>>,
) {
    let mut bytes = BytesMut::new();
    loop {
        while let Some(frame) = split_frame(&mut bytes, 64 << 20).unwrap() {
            let (header, at) = RequestHeader::decode(&frame).unwrap();
            let request = Request::decode(&header, &frame, at).unwrap();
            let waits = matches!(request, Request::Fetch(_));
            if state.lock().unwrap().hung == Some(broker) {
                std::future::pending::<()>().await;
            }
            let reaction = state.lock().unwrap().react(broker, request);
            let Reaction::Answer(response) = reaction else {
                return;
            };
            if waits && is_empty(&response) {
                // A broker would wait for records here.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let chunks = response.encode(header.version, header.correlation_id);
            if writer.write_chunks(chunks.unwrap()).await.is_err() {
                return;
            }
        }
        match reader.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn is_empty(response: &Response) -> bool {
    match response {
        Response::Fetch(response) => response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .all(|partition| partition.records.is_empty()),
        _ => false,
    }
}

impl State {
    fn react(&mut self, broker: usize, request: Request<Bytes>) -> Reaction {
        let response = match request {
            Request::ApiVersions(_) => api_versions_response().into(),
            Request::Metadata(request) => self.metadata(&request).into(),
            Request::InitProducerId(_) => {
                self.next_producer_id += 1;
                InitProducerIdResponse::default()
                    .with_producer_id(self.next_producer_id.into())
                    .with_producer_epoch(0)
                    .into()
            }
            Request::Produce(request) => return self.produce(broker, &request),
            Request::Fetch(request) => return self.fetch(broker, &request),
            Request::ListOffsets(request) => self.list_offsets(broker, &request).into(),
            other => panic!("the tests ask for no {:?}", other.key()),
        };
        Reaction::Answer(response)
    }

    fn metadata(&mut self, request: &MetadataRequest) -> MetadataResponse {
        let asks = request.topics.as_ref().is_some_and(|it| !it.is_empty());
        let is_unheard = asks && self.unheard > 0;
        self.unheard -= u32::from(is_unheard);
        let brokers = self.ports.iter().zip(0..).map(|(port, id)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(*port)
        });
        let names: Vec<String> = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| topic.name.as_ref().unwrap().to_string())
                .collect(),
            None => self.topics.keys().cloned().collect(),
        };
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_controller_id(BrokerId(0))
            .with_topics(
                names
                    .iter()
                    .map(|name| self.topic_metadata(name, is_unheard))
                    .collect(),
            )
    }

    fn topic_metadata(&self, name: &str, is_unheard: bool) -> MetadataResponseTopic {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(StrBytes::from_string(name.to_owned()).into()));
        let Some(logs) = self.topics.get(name).filter(|_| !is_unheard) else {
            return topic.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        };
        let partitions = logs.iter().zip(0..).map(|(log, index)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(i32::try_from(log.leader).unwrap_or(-1)))
        });
        topic.with_partitions(partitions.collect())
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    fn produce(&mut self, broker: usize, request: &ProduceRequest<Bytes>) -> Reaction {
        let mut response = ProduceResponse::default();
        let mut lost = false;
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                if self.chance(self.faults.lose_request) {
                    return Reaction::Close;
                }
                let records = partition.records.as_ref().unwrap();
                let result = self.append(broker, &topic.name, partition.index, records);
                lost |= self.chance(self.faults.lose_answer);
                partitions.push(match result {
                    Ok(offset) if self.chance(self.faults.time_out) => {
                        let _ = offset;
                        let error = ErrorCode::RequestTimedOut;
                        ProducePartitionResponse::refused(partition.index, error)
                    }
                    Ok(offset) => ProducePartitionResponse {
                        base_offset: i64::try_from(offset).unwrap(),
                        ..ProducePartitionResponse::refused(partition.index, ErrorCode::None)
                    },
                    Err(error) => ProducePartitionResponse::refused(partition.index, error),
                });
            }
            response.topics.push(ProduceTopicResponse {
                name: topic.name.clone(),
                partitions,
            });
        }
        match lost {
            true => Reaction::Close,
            false => Reaction::Answer(response.into()),
        }
    }

    /// The log, if the broker leads it now.
    fn led(&mut self, broker: usize, topic: &str, index: i32) -> Result<&mut Log, ErrorCode> {
        let brokers = self.ports.len();
        let moves = self.chance(self.faults.move_leader);
        let logs = self.topics.get_mut(topic);
        let index = usize::try_from(index).unwrap();
        let log = logs
            .and_then(|logs| logs.get_mut(index))
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if log.leader != broker {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if moves {
            log.leader = (broker + 1) % brokers;
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(log)
    }

    fn append(
        &mut self,
        broker: usize,
        topic: &str,
        index: i32,
        records: &Bytes,
    ) -> Result<u64, ErrorCode> {
        if records.len() > self.batch_bytes_max {
            return Err(ErrorCode::MessageTooLarge);
        }
        let log = self.led(broker, topic, index)?;
        let header = *RecordBatch::parse(records, &BatchLimits::consumer())
            .unwrap()
            .header();
        if let Some(producer) = header.producer() {
            let known = log.producers.entry(producer.producer_id).or_default();
            let duplicate = known
                .iter()
                .find(|known| known.base == producer.base_sequence);
            if let Some(duplicate) = duplicate {
                return Ok(duplicate.offset);
            }
            let expected = known
                .back()
                .map_or(0, |last| sequence_after(last.base, last.count));
            if producer.base_sequence != expected {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            known.push_back(Sequence {
                base: producer.base_sequence,
                count: header.records_count(),
                offset: log.end,
            });
            if known.len() > 5 {
                known.pop_front();
            }
        }
        let base = log.end;
        let mut stamped = records.to_vec();
        stamp(&mut stamped, Offset(base), LeaderEpoch::ZERO);
        log.end += u64::from(header.offset_span());
        log.batches.push((base, Bytes::from(stamped)));
        Ok(base)
    }

    fn fetch(&mut self, broker: usize, request: &FetchRequest) -> Reaction {
        if self.chance(self.faults.lose_answer) {
            return Reaction::Close;
        }
        let mut response = FetchResponse::failed(ErrorCode::None);
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let read = self.led(broker, &topic.name, asked.index);
                let read = read.and_then(|log| log.read(asked.fetch_offset, asked.max_bytes));
                partitions.push(match read {
                    Ok((records, end)) => FetchPartitionResponse {
                        high_watermark: i64::try_from(end).unwrap(),
                        records,
                        ..FetchPartitionResponse::refused(asked.index, ErrorCode::None)
                    },
                    Err(error) => FetchPartitionResponse::refused(asked.index, error),
                });
            }
            response.topics.push(FetchTopicResponse {
                name: topic.name.clone(),
                partitions,
            });
        }
        Reaction::Answer(response.into())
    }

    fn list_offsets(&mut self, broker: usize, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut topics = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let found = self.led(broker, &topic.name, asked.partition_index);
                let found = found.map(|log| match asked.timestamp {
                    -2 => i64::try_from(log.start).unwrap(),
                    -1 => i64::try_from(log.end).unwrap(),
                    timestamp => log.offset_of_time(timestamp),
                });
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index);
                partitions.push(match found {
                    Ok(offset) => answer.with_offset(offset),
                    Err(error) => answer.with_error_code(error.code()),
                });
            }
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        ListOffsetsResponse::default().with_topics(topics)
    }
}

impl Log {
    /// The first record at or behind a time, -1 if there is none.
    fn offset_of_time(&self, timestamp: i64) -> i64 {
        let limits = BatchLimits::consumer();
        for (base, bytes) in &self.batches {
            let batch = RecordBatch::parse(bytes, &limits).unwrap();
            for record in &batch.records(&limits).unwrap() {
                let record = record.unwrap();
                if record.timestamp >= timestamp {
                    return i64::try_from(*base).unwrap() + i64::from(record.offset_delta);
                }
            }
        }
        -1
    }

    /// Whole batches from the one that holds the offset on.
    fn read(&self, offset: i64, max_bytes: i32) -> Result<(Vec<Bytes>, u64), ErrorCode> {
        let offset = u64::try_from(offset).unwrap();
        if offset < self.start || offset > self.end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let max_bytes = usize::try_from(max_bytes).unwrap();
        let first = self.batches.partition_point(|(base, _)| *base <= offset);
        let first = first.saturating_sub(1);
        let mut spans = Vec::new();
        let mut bytes = 0;
        if offset < self.end {
            for (_, batch) in &self.batches[first..] {
                if !spans.is_empty() && bytes + batch.len() > max_bytes {
                    break;
                }
                bytes += batch.len();
                spans.push(batch.clone());
            }
        }
        Ok((spans, self.end))
    }
}

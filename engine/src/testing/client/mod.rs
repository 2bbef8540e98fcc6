//! Clients of the simulated world. They speak Kafka's frames, and write down what they asked and
//! were told. A client sends one request and waits for the answer, but for producers with several
//! batches under way, which send them one behind the other.

mod admin;
mod consumer;
mod producer;

use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use highwater_protocol::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, StrBytes, TopicName,
};
use highwater_protocol::{Call, ErrorCode, LENGTH_BYTES, RequestHeader};
use highwater_record::{BatchLimits, RecordBatch, SplitBatches};

use super::history::{History, Partition, ReadRecord};
use super::oracle::{Violation, demand};
use super::reached::Reached;
use crate::NodeId;

pub(super) use admin::Admin;
pub(super) use consumer::Consumer;
pub(super) use producer::{Load, Manner, Producer};

/// What clients share with the world while they are asked.
pub(super) struct Scene<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) history: &'a mut History,
    pub(super) reached: &'a mut Reached,
    pub(super) nodes: u32,
    /// The last value that was sent.
    pub(super) last_value: &'a mut u64,
    /// What the client's clock says, in milliseconds since the Unix epoch.
    pub(super) wall_ms: i64,
    /// How many records are known to be acknowledged.
    pub(super) acked: &'a mut u64,
    /// The topic that is there for now, if topics come and go.
    pub(super) passing: &'a mut Option<Arc<str>>,
    /// Whether what is known of a producer may be lost, because its records are deleted.
    pub(super) forgets_producers: bool,
    /// The faults are over.
    pub(super) calm: bool,
}

impl Scene<'_> {
    pub(super) fn any_node(&mut self) -> NodeId {
        NodeId(self.rng.u32(1..=self.nodes))
    }
}

/// Requests to a node, one behind the other on a connection: frames without their length.
pub(super) struct Wish {
    pub(super) node: NodeId,
    pub(super) frames: Vec<Vec<u8>>,
}

/// A client.
pub(super) enum Client {
    Admin(Admin),
    Producer(Producer),
    Consumer(Consumer),
}

impl Client {
    /// What it asks next; nothing if it has nothing to ask now.
    pub(super) fn wish(&mut self, scene: &mut Scene<'_>) -> Option<Wish> {
        match self {
            Client::Admin(admin) => admin.wish(scene),
            Client::Producer(producer) => producer.wish(scene),
            Client::Consumer(consumer) => Some(consumer.wish(scene)),
        }
    }

    /// It is answered, or its connection is lost, or it has waited long enough: then answers are
    /// missing.
    pub(super) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        answers: &[Bytes],
    ) -> Result<(), Violation> {
        match self {
            Client::Admin(admin) => admin.told(scene, answers.first()),
            Client::Producer(producer) => producer.told(scene, answers),
            Client::Consumer(consumer) => consumer.told(scene, answers.first()),
        }
    }

    /// Whether it has nothing more to do once the faults are over.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Client::Admin(admin) => admin.is_done(),
            Client::Producer(producer) => producer.is_done(),
            Client::Consumer(_) => true,
        }
    }

    /// The run is over: what is open will not be known.
    pub(super) fn give_up(&mut self, history: &mut History) {
        match self {
            Client::Admin(_) => {}
            Client::Producer(producer) => producer.give_up(history),
            Client::Consumer(consumer) => consumer.give_up(history),
        }
    }

    /// For a failure's report.
    pub(super) fn describe(&self) -> String {
        match self {
            Client::Admin(admin) => format!("{admin:?}"),
            Client::Producer(producer) => format!("{producer:?}"),
            Client::Consumer(consumer) => format!("{consumer:?}"),
        }
    }
}

/// Where a client believes its partition's leader to be.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) process: u64,
    pub(super) partition: Partition,
    leader: Option<NodeId>,
}

/// The version of Metadata that is spoken.
const METADATA_VERSION: i16 = 9;

impl Seat {
    pub(super) fn new(process: u64, partition: Partition) -> Seat {
        Seat {
            process,
            partition,
            leader: None,
        }
    }

    pub(super) fn topic(&self) -> StrBytes {
        text(&self.partition.topic)
    }

    /// Whom it asks for its partition; nobody if it must look first.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// It must look again.
    pub(super) fn lose_leader(&mut self) {
        self.leader = None;
    }

    /// The question who leads.
    pub(super) fn look(&self, scene: &mut Scene<'_>) -> Wish {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(self.topic())));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        wish(scene.any_node(), &request, METADATA_VERSION)
    }

    /// The answer to it; the code of the topic, if it was understood.
    pub(super) fn looked(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Option<&Bytes>,
    ) -> Result<Option<ErrorCode>, Violation> {
        let Some(answer) = answer else {
            return Ok(None);
        };
        let answer: MetadataResponse = read::<MetadataRequest>(METADATA_VERSION, answer)?;
        let topic = answer.topics.first();
        let code = topic.map(|topic| ErrorCode::from_code(topic.error_code));
        let mut partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
        let partition = partitions.find(|it| it.partition_index == self.partition.index);
        let leader = partition.and_then(|it| u32::try_from(it.leader_id.0).ok());
        self.leader = leader.map(NodeId);
        match self.leader {
            Some(_) => scene.reached.hit("a client finds its leader"),
            None => scene.reached.hit("a client finds no leader"),
        }
        Ok(code)
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One request.
pub(super) fn wish<C: Call>(node: NodeId, call: &C, version: i16) -> Wish {
    let frames = vec![frame(call, version, 0)];
    Wish { node, frames }
}

/// The request of this number of a connection, as a frame without its length.
fn frame<C: Call>(call: &C, version: i16, number: usize) -> Vec<u8> {
    let header = RequestHeader {
        key: C::KEY,
        version,
        correlation_id: i32::try_from(number).expect("few requests"),
        client_id: None,
    };
    let chunks = call.encode(&header).expect("versions that are spoken");
    chunks.concat()[LENGTH_BYTES..].to_vec()
}

/// The number of the request that is answered.
pub(super) fn number_of(answer: &[u8]) -> Option<usize> {
    let correlation_id = answer.get(LENGTH_BYTES..)?.first_chunk()?;
    usize::try_from(i32::from_be_bytes(*correlation_id)).ok()
}

/// Reads an answer, length first.
pub(super) fn read<C: Call>(version: i16, answer: &Bytes) -> Result<C::Answer, Violation> {
    let frame = answer.slice(LENGTH_BYTES..);
    C::decode_answer(version, &frame).map_err(|error| Violation {
        rule: "answers can be read",
        what: format!("{:?} version {version}: {error}", C::KEY),
    })
}

/// What an answer must have.
pub(super) fn the<T>(found: Option<T>, what: &'static str) -> Result<T, Violation> {
    found.ok_or(Violation {
        rule: "answers fit their questions",
        what: what.to_owned(),
    })
}

/// The records of batches, from an offset on.
pub(super) fn records_from(bytes: &[u8], from: i64) -> Result<Vec<ReadRecord>, Violation> {
    let damaged = |error: &dyn std::fmt::Display| Violation {
        rule: "D2 only whole batches are served",
        what: error.to_string(),
    };
    let limits = BatchLimits::consumer();
    let mut records = Vec::new();
    for batch in SplitBatches::new(bytes) {
        let batch = batch.map_err(|error| damaged(&error))?;
        let batch = RecordBatch::parse(batch, &limits).map_err(|error| damaged(&error))?;
        let base = batch.header().base_offset().to_wire();
        let body = batch.records(&limits).map_err(|error| damaged(&error))?;
        records.reserve(usize::try_from(batch.header().records_count()).unwrap_or_default());
        for (offset, record) in (base..).zip(&body) {
            let record = record.map_err(|error| damaged(&error))?;
            let value = value_of(record.value)?;
            if offset >= from {
                records.push(ReadRecord { offset, value });
            }
        }
    }
    Ok(records)
}

fn value_of(bytes: Option<&[u8]>) -> Result<u64, Violation> {
    let front = bytes.and_then(|bytes| bytes.first_chunk::<8>());
    let value = front
        .map(|front| u64::from_be_bytes(*front))
        .unwrap_or_default();
    demand(value > 0, "S3 only what was sent is there", || {
        format!("{bytes:?}")
    })?;
    Ok(value)
}

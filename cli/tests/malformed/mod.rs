//! What no client would send, made from a seed.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use fastrand::Rng;
use highwater_protocol::messages::{
    AlterConfigsResource, AlterableConfig, ApiVersionsRequest, CreatableTopic,
    CreatableTopicConfig, CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeConfigsResource,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest,
    MetadataRequestTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
    OffsetForLeaderTopic, StrBytes, TopicName,
};
use highwater_protocol::{
    Acks, Call, FetchPartition, FetchRequest, FetchTopic, LENGTH_BYTES, ProducePartition,
    ProduceRequest, ProduceTopic, RequestHeader,
};
use highwater_record::{Compression, RecordBatchBuilder};

/// The largest request that a node reads by default, in bytes.
const REQUEST_BYTES_MAX: i32 = 16 << 20;

/// What is sent, and what the sender does then.
pub(crate) struct Attack {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Waits for an answer, or for the end of the connection.
    Listen,
    /// Says nothing more, for as long as it may.
    Silence,
    /// Hangs up.
    Close,
}

/// Makes attacks out of good requests.
pub(crate) struct Attacks {
    samples: Vec<Vec<u8>>,
    rng: Rng,
}

impl Attacks {
    /// All attacks follow from the seed. Good requests are of a topic that exists, but for those
    /// that change something.
    pub(crate) fn new(topic: &str, seed: u64) -> Self {
        Self {
            samples: samples(topic),
            rng: Rng::with_seed(seed),
        }
    }

    pub(crate) fn next_attack(&mut self) -> Attack {
        let rng = &mut self.rng;
        let mut frame = self.samples[rng.usize(..self.samples.len())].clone();
        let mut then = Then::Listen;
        match rng.u8(..10) {
            0 => frame = random_bytes(rng, 1..2_000),
            1 => frame
                .splice(LENGTH_BYTES.., random_bytes(rng, 0..2_000))
                .for_each(drop),
            2 => flip_bits(rng, &mut frame),
            3 => frame.truncate(rng.usize(LENGTH_BYTES..frame.len())),
            4 => frame.extend(random_bytes(rng, 1..2_000)),
            5 => overwrite(rng, &mut frame, &i32::MAX.to_be_bytes()),
            6 => overwrite(rng, &mut frame, &[0xff, 0xff, 0xff, 0xff, 0x07]),
            7 => overwrite_key_and_version(rng, &mut frame),
            _ => {
                then = *rng
                    .choice(&[Then::Silence, Then::Close, Then::Close])
                    .unwrap();
                return Attack {
                    bytes: unfinished(rng, frame),
                    then,
                };
            }
        }
        let length = i32::try_from(frame.len().saturating_sub(LENGTH_BYTES)).unwrap();
        if frame.len() >= LENGTH_BYTES && rng.u8(..10) > 0 {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        Attack { bytes: frame, then }
    }
}

fn random_bytes(rng: &mut Rng, lengths: std::ops::Range<usize>) -> Vec<u8> {
    let length = rng.usize(lengths);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn flip_bits(rng: &mut Rng, frame: &mut [u8]) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(LENGTH_BYTES..frame.len());
        frame[at] ^= 1 << rng.u8(..8);
    }
}

/// Most counts and lengths are four bytes, or a varint.
fn overwrite(rng: &mut Rng, frame: &mut [u8], with: &[u8]) {
    let at = rng.usize(LENGTH_BYTES..frame.len() - with.len());
    frame[at..at + with.len()].copy_from_slice(with);
}

fn overwrite_key_and_version(rng: &mut Rng, frame: &mut [u8]) {
    let (key, version) = (rng.i16(-1..100), rng.i16(-1..20));
    frame[4..6].copy_from_slice(&key.to_be_bytes());
    frame[6..8].copy_from_slice(&version.to_be_bytes());
}

/// A length that lies, or a frame that is not all there.
fn unfinished(rng: &mut Rng, mut frame: Vec<u8>) -> Vec<u8> {
    let lies = [
        i32::MAX,
        i32::MIN,
        -1,
        REQUEST_BYTES_MAX + 1,
        REQUEST_BYTES_MAX,
        1 << 20,
    ];
    if rng.bool() {
        let lie = *rng.choice(&lies).unwrap();
        frame[..LENGTH_BYTES].copy_from_slice(&lie.to_be_bytes());
    } else {
        frame.truncate(rng.usize(1..frame.len()));
    }
    frame
}

/// Good requests, each in every version that is served.
fn samples(topic: &str) -> Vec<Vec<u8>> {
    let name = || TopicName(text(topic));
    let mut all = Vec::new();
    add(&mut all, |_| produce(topic));
    add(&mut all, |_| fetch(topic));
    add(&mut all, |_| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(name());
        let topic = topic.with_partitions(vec![partition]);
        ListOffsetsRequest::default().with_topics(vec![topic])
    });
    add(&mut all, |_| {
        let topic = MetadataRequestTopic::default().with_name(Some(name()));
        MetadataRequest::default().with_topics(Some(vec![topic]))
    });
    add(&mut all, |version| {
        let request = FindCoordinatorRequest::default();
        match version {
            0..4 => request.with_key(text("group")),
            _ => request.with_coordinator_keys(vec![text("group")]),
        }
    });
    add(&mut all, |_| ApiVersionsRequest::default());
    add(&mut all, |_| {
        let config = CreatableTopicConfig::default().with_name(text("retention.ms"));
        let topic = CreatableTopic::default()
            .with_name(TopicName(text("never made")))
            .with_num_partitions(3)
            .with_replication_factor(3)
            .with_configs(vec![config.with_value(Some(text("1000")))]);
        CreateTopicsRequest::default().with_topics(vec![topic])
    });
    add(&mut all, |version| {
        let name = TopicName(text("never made"));
        let request = DeleteTopicsRequest::default();
        match version {
            0..6 => request.with_topic_names(vec![name]),
            _ => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
        }
    });
    add(&mut all, |_| InitProducerIdRequest::default());
    add(&mut all, |_| {
        let topic = OffsetForLeaderTopic::default().with_topic(name());
        let topic = topic.with_partitions(vec![OffsetForLeaderPartition::default()]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    });
    add(&mut all, |_| {
        let resource = DescribeConfigsResource::default().with_resource_type(2);
        let resource = resource.with_resource_name(text(topic));
        DescribeConfigsRequest::default().with_resources(vec![resource])
    });
    add(&mut all, |_| {
        let config = AlterableConfig::default().with_name(text("retention.ms"));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("never made"))
            .with_configs(vec![config.with_value(Some(text("1000")))]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    });
    add(&mut all, |_| DescribeClusterRequest::default());
    all
}

fn add<C: Call>(all: &mut Vec<Vec<u8>>, request: impl Fn(i16) -> C) {
    let versions = C::KEY.versions();
    for version in versions.served_min..=versions.max {
        let header = RequestHeader {
            key: C::KEY,
            version,
            correlation_id: 7,
            client_id: Some(text("stranger")),
        };
        all.push(request(version).encode(&header).unwrap().concat());
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn produce(topic: &str) -> ProduceRequest<bytes::Bytes> {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    let appended = builder.append(1_000, Some(b"key"), Some(b"value"), &[]);
    appended.unwrap();
    ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 1_000,
        topics: vec![ProduceTopic {
            name: text(topic),
            partitions: vec![ProducePartition {
                index: 0,
                records: Some(builder.seal().unwrap().into()),
            }],
        }],
    }
}

fn fetch(topic: &str) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 10,
        topics: vec![FetchTopic {
            name: text(topic),
            partitions: vec![FetchPartition {
                index: 0,
                current_leader_epoch: -1,
                fetch_offset: 0,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes: 1 << 20,
            }],
        }],
        ..FetchRequest::default()
    }
}

//! What a client of one topic with one partition says, as frames, and what it is answered.

use bytes::Bytes;
use highwater_protocol::messages::{CreatableTopic, CreateTopicsRequest, StrBytes, TopicName};
use highwater_protocol::{
    Acks, Call, ErrorCode, LENGTH_BYTES, ProducePartition, ProduceRequest, ProduceTopic,
    RequestHeader,
};
use highwater_record::{Buffer, Compression, ProducerStamp, RecordBatchBuilder, sequence_after};

const TOPIC: &str = "flights";
const CREATE_VERSION: i16 = 5;
const PRODUCE_VERSION: i16 = 9;

/// The value of every record, in bytes.
const VALUE_BYTES: usize = 1024;

/// What frames are aligned to, as a listener's pool does.
const FRAME_ALIGNMENT: usize = 4096;

/// Asks for the topic, with a replica on every node.
pub(crate) fn create_topic(nodes: u32) -> Buffer {
    let replication = i16::try_from(nodes).expect("few nodes");
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_num_partitions(1)
        .with_replication_factor(replication);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    frame(&request, CREATE_VERSION)
}

/// Whether the topic was created.
pub(crate) fn created(answer: &[Bytes]) -> ErrorCode {
    let answer = read::<CreateTopicsRequest>(answer, CREATE_VERSION);
    ErrorCode::from_code(answer.topics[0].error_code)
}

/// Whether a batch was appended.
pub(crate) fn produced(answer: &[Bytes]) -> ErrorCode {
    let answer = read::<ProduceRequest<Bytes>>(answer, PRODUCE_VERSION);
    answer.topics[0].partitions[0].error
}

/// An idempotent producer, as Kafka's clients are unless they are told otherwise.
pub(crate) struct Producer {
    time_ms: i64,
    next_sequence: i32,
}

impl Producer {
    /// Its records are of this time, in milliseconds since the Unix epoch.
    pub(crate) fn new(time_ms: i64) -> Producer {
        Producer {
            time_ms,
            next_sequence: 0,
        }
    }

    /// Its next batch, of `records` records of 1 KiB, not compressed, as a request.
    pub(crate) fn produce(&mut self, records: usize) -> Buffer {
        let request = ProduceRequest {
            transactional_id: None,
            acks: Acks::All,
            timeout_ms: 10_000,
            topics: vec![ProduceTopic {
                name: StrBytes::from_static_str(TOPIC),
                partitions: vec![ProducePartition {
                    index: 0,
                    records: Some(self.batch(records)),
                }],
            }],
        };
        frame(&request, PRODUCE_VERSION)
    }

    fn batch(&mut self, records: usize) -> Bytes {
        let mut builder = RecordBatchBuilder::new(Compression::None, 2 << 20);
        builder.set_producer(ProducerStamp {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: self.next_sequence,
        });
        for record in 0..records {
            let key = record.to_le_bytes();
            let appended = builder.append(self.time_ms, Some(&key), Some(&[7; VALUE_BYTES]), &[]);
            appended.expect("2 MiB are enough");
        }
        let count = u32::try_from(records).expect("few records");
        self.next_sequence = sequence_after(self.next_sequence, count);
        Bytes::from(builder.seal().expect("not empty"))
    }
}

/// A request without its length, in memory like that of a listener.
fn frame<C: Call>(call: &C, version: i16) -> Buffer {
    let header = RequestHeader {
        key: C::KEY,
        version,
        correlation_id: 1,
        client_id: None,
    };
    let chunks = call.encode(&header).expect("a version that is spoken");
    Buffer::aligned_copy(&chunks.concat()[LENGTH_BYTES..], FRAME_ALIGNMENT)
}

fn read<C: Call>(answer: &[Bytes], version: i16) -> C::Answer {
    let frame = Bytes::from(answer.concat()).slice(LENGTH_BYTES..);
    C::decode_answer(version, &frame).expect("our own answer")
}

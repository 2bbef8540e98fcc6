//! What requests and answers with records cost: nothing of it should grow with the records' bytes.
//!
//! `cargo bench -p highwater-protocol --bench protocol`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_main};
use highwater_protocol::messages::StrBytes;
use highwater_protocol::{
    Acks, ApiKey, Call, ErrorCode, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
    LENGTH_BYTES, ProducePartition, ProduceRequest, ProduceTopic, Request, RequestHeader, Response,
};
use highwater_record::Buffer;

const MIB: usize = 1 << 20;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const TOPIC: &str = "flights";

/// A produce request as a server has it: without its length, in one piece.
fn produce_frame(partitions: usize) -> Buffer {
    let records = Bytes::from(vec![7; MIB / partitions]);
    let partition = |index| ProducePartition {
        index,
        records: Some(records.clone()),
    };
    let request = ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic {
            name: StrBytes::from_static_str(TOPIC),
            partitions: (0..).take(partitions).map(partition).collect(),
        }],
    };
    let header = RequestHeader {
        key: ApiKey::Produce,
        version: PRODUCE_VERSION,
        correlation_id: 1,
        client_id: Some(StrBytes::from_static_str("bench")),
    };
    let frame = request.encode(&header).expect("a version that is spoken");
    Buffer::from(frame.concat()[LENGTH_BYTES..].to_vec())
}

fn decode(frame: &Buffer) -> Request<Buffer> {
    let (header, body) = RequestHeader::decode(frame).expect("our own header");
    Request::decode(&header, frame, body).expect("our own request")
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_produce_of_1MiB");
    for partitions in [1, 64] {
        let frame = produce_frame(partitions);
        group.bench_with_input(
            BenchmarkId::new("partitions", partitions),
            &frame,
            |bencher, frame| bencher.iter(|| decode(black_box(frame))),
        );
    }
    group.finish();
}

/// An answer with a MiB of records, each batch in memory of its own.
fn fetched(batches: usize) -> Response {
    let partition = FetchPartitionResponse {
        index: 0,
        error: ErrorCode::None,
        high_watermark: 1_000,
        last_stable_offset: 1_000,
        log_start_offset: 0,
        aborted_transactions: None,
        preferred_read_replica: -1,
        records: vec![Bytes::from(vec![7; MIB / batches]); batches],
    };
    Response::from(FetchResponse {
        throttle_time_ms: 0,
        error: ErrorCode::None,
        session_id: 0,
        topics: vec![FetchTopicResponse {
            name: StrBytes::from_static_str(TOPIC),
            partitions: vec![partition],
        }],
    })
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_fetched_1MiB");
    for batches in [1, 64] {
        let response = fetched(batches);
        group.bench_with_input(
            BenchmarkId::new("batches", batches),
            &response,
            |bencher, response| {
                bencher.iter(|| black_box(response).encode(FETCH_VERSION, 1));
            },
        );
    }
    group.finish();
}

/// In a module of their own, since the macro makes them public without a description.
mod groups {
    use super::{decoding, encoding};

    criterion::criterion_group!(benches, decoding, encoding);
}

criterion_main!(groups::benches);

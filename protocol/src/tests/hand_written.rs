//! Produce and Fetch by hand against the generated codec: the same bytes both ways, in every
//! version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as generated;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{body_of, error_code, header};
use crate::frame::SPLICE_BYTES_MIN;
use crate::messages::StrBytes;
use crate::{
    AbortedTransaction, Acks, ApiKey, Call, FetchPartition, FetchPartitionResponse, FetchRequest,
    FetchResponse, FetchTopic, FetchTopicResponse, ForgottenTopic, IsolationLevel,
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicResponse, RecordError, Request, RequestHeader, Response,
};

const ROUNDS: u64 = 200;

fn text(rng: &mut fastrand::Rng) -> StrBytes {
    let length = rng.usize(0..150);
    let text: String = (0..length).map(|_| rng.alphanumeric()).collect();
    StrBytes::from_string(text)
}

fn nullable<T>(rng: &mut fastrand::Rng, make: impl FnOnce(&mut fastrand::Rng) -> T) -> Option<T> {
    rng.bool().then(|| make(rng))
}

fn many<T>(rng: &mut fastrand::Rng, mut make: impl FnMut(&mut fastrand::Rng) -> T) -> Vec<T> {
    (0..rng.usize(0..4)).map(|_| make(rng)).collect()
}

fn span(rng: &mut fastrand::Rng) -> Bytes {
    let length = rng.usize(0..2 * SPLICE_BYTES_MIN);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn produce_request(rng: &mut fastrand::Rng) -> ProduceRequest<Bytes> {
    ProduceRequest {
        transactional_id: nullable(rng, text),
        acks: Acks::from_code(rng.i16(-2..3)),
        timeout_ms: rng.i32(..),
        topics: many(rng, |rng| ProduceTopic {
            name: text(rng),
            partitions: many(rng, |rng| ProducePartition {
                index: rng.i32(..),
                records: nullable(rng, span),
            }),
        }),
    }
}

fn produce_response(rng: &mut fastrand::Rng, version: i16) -> ProduceResponse {
    ProduceResponse {
        topics: many(rng, |rng| ProduceTopicResponse {
            name: text(rng),
            partitions: many(rng, |rng| {
                let mut partition = ProducePartitionResponse {
                    base_offset: rng.i64(..),
                    log_append_time_ms: rng.i64(..),
                    ..ProducePartitionResponse::refused(rng.i32(..), error_code(rng))
                };
                if version >= 5 {
                    partition.log_start_offset = rng.i64(..);
                }
                if version >= 8 {
                    partition.error_message = nullable(rng, text);
                    partition.record_errors = many(rng, |rng| RecordError {
                        batch_index: rng.i32(..),
                        message: nullable(rng, text),
                    });
                }
                partition
            }),
        }),
        throttle_time_ms: rng.i32(..),
    }
}

fn fetch_request(rng: &mut fastrand::Rng, version: i16) -> FetchRequest {
    let mut request = FetchRequest {
        replica_id: rng.i32(..),
        max_wait_ms: rng.i32(..),
        min_bytes: rng.i32(..),
        max_bytes: rng.i32(..),
        isolation: IsolationLevel::from_code(rng.i8(0..3)),
        topics: many(rng, |rng| FetchTopic {
            name: text(rng),
            partitions: many(rng, |rng| FetchPartition {
                index: rng.i32(..),
                current_leader_epoch: if version >= 9 { rng.i32(..) } else { -1 },
                fetch_offset: rng.i64(..),
                last_fetched_epoch: if version >= 12 { rng.i32(..) } else { -1 },
                log_start_offset: if version >= 5 { rng.i64(..) } else { -1 },
                max_bytes: rng.i32(..),
            }),
        }),
        ..FetchRequest::default()
    };
    if version >= 7 {
        request.session_id = rng.i32(..);
        request.session_epoch = rng.i32(..);
        request.forgotten_topics = many(rng, |rng| ForgottenTopic {
            name: text(rng),
            partitions: many(rng, |rng| rng.i32(..)),
        });
    }
    if version >= 11 {
        request.rack_id = text(rng);
    }
    request
}

fn fetch_response(rng: &mut fastrand::Rng, version: i16) -> FetchResponse<Vec<Bytes>> {
    let mut response = FetchResponse {
        throttle_time_ms: rng.i32(..),
        topics: many(rng, |rng| FetchTopicResponse {
            name: text(rng),
            partitions: many(rng, |rng| FetchPartitionResponse {
                high_watermark: rng.i64(..),
                last_stable_offset: rng.i64(..),
                log_start_offset: if version >= 5 { rng.i64(..) } else { -1 },
                aborted_transactions: nullable(rng, |rng| {
                    many(rng, |rng| AbortedTransaction {
                        producer_id: rng.i64(..),
                        first_offset: rng.i64(..),
                    })
                }),
                preferred_read_replica: if version >= 11 { rng.i32(..) } else { -1 },
                records: many(rng, span),
                ..FetchPartitionResponse::refused(rng.i32(..), error_code(rng))
            }),
        }),
        ..FetchResponse::failed(crate::ErrorCode::None)
    };
    if version >= 7 {
        response.error = error_code(rng);
        response.session_id = rng.i32(..);
    }
    response
}

/// Bytes that the generated codec decodes whole and encodes to the same bytes again.
fn agree<M: Decodable + Encodable>(version: i16, body: &Bytes) {
    let mut rest = body.clone();
    let message = M::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    let mut again = BytesMut::new();
    message.encode(&mut again, version).unwrap();
    assert_eq!(again, body);
}

fn every_version(key: ApiKey, mut check: impl FnMut(i16, &mut fastrand::Rng)) {
    let versions = key.versions();
    for version in versions.served_min..=versions.max {
        for seed in 0..ROUNDS {
            check(version, &mut fastrand::Rng::with_seed(seed));
        }
    }
}

#[test]
fn produce_requests() {
    every_version(ApiKey::Produce, |version, rng| {
        let request = produce_request(rng);
        let chunks = Call::encode(&request, &header::<ProduceRequest<Bytes>>(version)).unwrap();
        let frame = body_of(&chunks);
        let (read, at) = RequestHeader::decode(&frame).unwrap();
        agree::<generated::ProduceRequest>(version, &frame.slice(at..));
        let decoded = Request::decode(&read, &frame, at).unwrap();
        assert_eq!(decoded, Request::Produce(request.clone()));
        let ranges = ProduceRequest::decode_ranges(version, &frame, at).unwrap();
        for (topic, expected) in ranges.topics.iter().zip(&request.topics) {
            for (partition, expected) in topic.partitions.iter().zip(&expected.partitions) {
                let records = partition.records.clone().map(|range| frame.slice(range));
                assert_eq!(records, expected.records);
            }
        }
    });
}

#[test]
fn produce_responses() {
    every_version(ApiKey::Produce, |version, rng| {
        let response = produce_response(rng, version);
        let chunks = Response::from(response.clone())
            .encode(version, 11)
            .unwrap();
        assert_eq!(chunks.len(), 1);
        let frame = body_of(&chunks);
        let (correlation_id, at) =
            crate::decode_response_header(ApiKey::Produce, version, &frame).unwrap();
        assert_eq!(correlation_id, 11);
        agree::<generated::ProduceResponse>(version, &frame.slice(at..));
        let decoded = ProduceRequest::<Bytes>::decode_answer(version, &frame).unwrap();
        assert_eq!(decoded, response);
    });
}

#[test]
fn fetch_requests() {
    every_version(ApiKey::Fetch, |version, rng| {
        let request = fetch_request(rng, version);
        let chunks = Call::encode(&request, &header::<FetchRequest>(version)).unwrap();
        let frame = body_of(&chunks);
        let (read, at) = RequestHeader::decode(&frame).unwrap();
        agree::<generated::FetchRequest>(version, &frame.slice(at..));
        let decoded = Request::decode(&read, &frame, at).unwrap();
        assert_eq!(decoded, Request::Fetch(request));
    });
}

#[test]
fn fetch_responses() {
    every_version(ApiKey::Fetch, |version, rng| {
        let response = fetch_response(rng, version);
        let chunks = Response::from(response.clone())
            .encode(version, 11)
            .unwrap();
        let frame = body_of(&chunks);
        let (_, at) = crate::decode_response_header(ApiKey::Fetch, version, &frame).unwrap();
        agree::<generated::FetchResponse>(version, &frame.slice(at..));
        let decoded = FetchRequest::decode_answer(version, &frame).unwrap();
        assert_eq!(decoded.error, response.error);
        assert_eq!(decoded.session_id, response.session_id);
        assert_eq!(decoded.topics.len(), response.topics.len());
        for (topic, expected) in decoded.topics.iter().zip(&response.topics) {
            assert_eq!(topic.name, expected.name);
            assert_eq!(topic.partitions.len(), expected.partitions.len());
            for (partition, expected) in topic.partitions.iter().zip(&expected.partitions) {
                let joined = Some(Bytes::from(expected.records.concat()));
                assert_eq!(partition.records, joined);
                assert_eq!(partition.error, expected.error);
                assert_eq!(partition.high_watermark, expected.high_watermark);
                assert_eq!(partition.log_start_offset, expected.log_start_offset);
                assert_eq!(
                    partition.aborted_transactions,
                    expected.aborted_transactions
                );
            }
        }
    });
}

#[test]
fn records_are_not_copied() {
    let records = Bytes::from(vec![3; SPLICE_BYTES_MIN]);
    let request = ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic {
            name: "t".into(),
            partitions: vec![ProducePartition {
                index: 0,
                records: Some(records.clone()),
            }],
        }],
    };
    let chunks = Call::encode(&request, &header::<ProduceRequest<Bytes>>(9)).unwrap();
    assert!(
        chunks
            .iter()
            .any(|chunk| chunk.as_ptr() == records.as_ptr())
    );

    let frame = body_of(&chunks);
    let (header, at) = RequestHeader::decode(&frame).unwrap();
    let Ok(Request::Produce(decoded)) = Request::decode(&header, &frame, at) else {
        panic!("a Produce request");
    };
    let cut = decoded.topics[0].partitions[0].records.clone().unwrap();
    let inside = frame.as_ptr_range();
    assert!(inside.contains(&cut.as_ptr()));
}

#[test]
fn golden_bytes_of_a_flexible_produce_request() {
    let request = ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 1_500,
        topics: vec![ProduceTopic {
            name: "logs".into(),
            partitions: vec![ProducePartition {
                index: 2,
                records: Some(Bytes::from_static(b"rec")),
            }],
        }],
    };
    let header = RequestHeader {
        key: ApiKey::Produce,
        version: 9,
        correlation_id: 1,
        client_id: Some("hw".into()),
    };
    let chunks = Call::encode(&request, &header).unwrap();
    let expected = b"\0\0\0\x26\
        \0\0\0\x09\0\0\0\x01\0\x02hw\0\
        \0\xff\xff\0\0\x05\xdc\
        \x02\x05logs\x02\0\0\0\x02\x04rec\0\0\0";
    assert_eq!(chunks.concat(), expected);
}

#[test]
fn golden_bytes_of_an_old_fetch_response() {
    let response = FetchResponse {
        topics: vec![FetchTopicResponse {
            name: "t".into(),
            partitions: vec![FetchPartitionResponse {
                high_watermark: 5,
                last_stable_offset: 5,
                records: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")],
                ..FetchPartitionResponse::refused(1, crate::ErrorCode::None)
            }],
        }],
        ..FetchResponse::failed(crate::ErrorCode::None)
    };
    let chunks = Response::from(response).encode(4, 9).unwrap();
    let expected = b"\0\0\0\x34\0\0\0\x09\0\0\0\0\
        \0\0\0\x01\0\x01t\0\0\0\x01\
        \0\0\0\x01\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\
        \0\0\0\x03abc";
    assert_eq!(chunks.concat(), expected);
}

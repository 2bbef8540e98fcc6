//! Requests as frames in, operations as a partition would see them, answers as frames out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use highwater_consensus::{LogIndex, NodeId};
use highwater_protocol::messages::{
    ApiVersionsRequest, FindCoordinatorRequest, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsTopic, MetadataRequest, MetadataResponse, StrBytes,
};
use highwater_protocol::{
    Acks, ApiKey, Call, ErrorCode, FetchPartition, FetchRequest, FetchTopic, IsolationLevel,
    LENGTH_BYTES, ProducePartition, ProduceRequest, ProduceTopic, Request, RequestHeader,
};
use highwater_record::{Buffer, Compression, LeaderEpoch, Offset, RecordBatch, RecordBatchBuilder};

use super::*;
use crate::config::{ConfigChange, TopicConfigs};
use crate::io::{ConnId, LeaderHint, Now};
use crate::ops::{
    Asked, Fetched, GroupId, Op, OpError, OpId, OpQueue, OpResult, Outcome, ReadFrom,
};
use crate::service::{Service, ServiceAddress, ServiceOutput};

const CONN: ConnId = ConnId(1);
const WALL_MS: i64 = 1_700_000_000_000;

/// A cluster with the topic `flights` of some partitions, partition p being group p + 1.
struct Topics {
    partitions: i32,
    configs: TopicConfigs,
    metadata_asked: Vec<RequestId>,
}

impl Directory for Topics {
    fn partition(&self, topic: &str, index: i32) -> Result<PartitionRef<'_>, ErrorCode> {
        let known = topic == "flights" && (0..self.partitions).contains(&index);
        let group = u64::try_from(index + 1).map(GroupId);
        match group {
            Ok(group) if known => Ok(PartitionRef {
                group,
                configs: &self.configs,
            }),
            _ => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }
}

impl Cluster for Topics {
    fn handle_start(&mut self, _: Now, _: &mut OpQueue) {}
    fn handle_request(
        &mut self,
        _: Now,
        id: RequestId,
        _: &RequestHeader,
        _: Request<Buffer>,
        _: &mut OpQueue,
    ) {
        self.metadata_asked.push(id);
    }
    fn handle_forgotten(&mut self, id: RequestId) {
        self.metadata_asked.retain(|asked| *asked != id);
    }
    fn handle_done(&mut self, _: Now, id: OpId, _: OpResult, _: &mut OpQueue) {
        panic!("{id:?} is not the cluster's");
    }
    fn poll_output(&mut self) -> Option<ClusterOutput> {
        let id = self.metadata_asked.pop()?;
        Some(ClusterOutput::Answer(
            id,
            MetadataResponse::default().into(),
        ))
    }
    fn handle_leader(&mut self, _: Now, _: LeaderHint) {}
    fn handle_peer(&mut self, _: Now, _: NodeId, _: bool) {}
    fn handle_message(&mut self, _: Now, _: ServiceAddress, _: Buffer, _: &mut OpQueue) {}
    fn handle_restored(&mut self, _: Now, _: GroupId, _: LogIndex, _: Buffer, _: &mut OpQueue) {}
    fn snapshot(&self, _: GroupId) -> Option<(LogIndex, Vec<u8>)> {
        None
    }
    fn handle_timeout(&mut self, _: Now, _: &mut OpQueue) {}
    fn next_timeout(&self) -> Option<Duration> {
        None
    }
}

/// A service, and the partitions' side played by the test.
struct Bench {
    service: KafkaService<Topics>,
    ops: OpQueue,
    now: Now,
}

impl Bench {
    fn new(partitions: i32) -> Self {
        let mut configs = TopicConfigs::default();
        let size = ConfigChange::Set("65536");
        configs.change("max.message.bytes", size, 1).unwrap();
        Self {
            service: KafkaService::new(Topics {
                partitions,
                configs,
                metadata_asked: Vec::new(),
            }),
            ops: OpQueue::new(),
            now: Now {
                monotonic: Duration::from_secs(1),
                wall_ms: WALL_MS,
            },
        }
    }

    fn send<R: Call>(&mut self, request: &R, version: i16, correlation_id: i32) {
        let header = RequestHeader {
            key: R::KEY,
            version,
            correlation_id,
            client_id: None,
        };
        let frame = request.encode(&header).unwrap().concat();
        self.send_frame(&frame[LENGTH_BYTES..]);
    }

    fn send_frame(&mut self, frame: &[u8]) {
        let frame = Buffer::from(frame.to_vec());
        self.service
            .handle_request(self.now, CONN, frame, &mut self.ops);
    }

    /// What has been asked of partitions, cancellations left out.
    fn asked(&mut self) -> Vec<(OpId, GroupId, Op)> {
        std::iter::from_fn(|| self.ops.take())
            .filter_map(|asked| match asked {
                Asked::Op { id, group, op } => Some((id, group, op)),
                Asked::Cancel { .. } | Asked::Group(_) => None,
            })
            .collect()
    }

    fn answer(&mut self, id: OpId, result: OpResult) {
        self.service
            .handle_done(self.now, id, result, &mut self.ops);
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.service.handle_timeout(self.now, &mut self.ops);
    }

    /// The next answer's correlation id and bytes, without the length prefix.
    fn response(&mut self) -> Option<(i32, Bytes)> {
        match self.service.poll_output()? {
            ServiceOutput::Response { chunks, .. } if chunks.is_empty() => self.response(),
            ServiceOutput::Response { chunks, .. } => {
                let frame = Bytes::from(chunks.concat()).slice(LENGTH_BYTES..);
                let correlation = i32::from_be_bytes(frame[..4].try_into().unwrap());
                Some((correlation, frame))
            }
            other => panic!("{other:?}"),
        }
    }

    fn expect<R: Call>(&mut self, version: i16) -> R::Answer {
        let (_, frame) = self.response().expect("an answer");
        R::decode_answer(version, &frame).unwrap()
    }

    fn is_closed(&mut self) -> bool {
        matches!(
            self.service.poll_output(),
            Some(ServiceOutput::Close { .. })
        )
    }
}

fn batch(timestamp: i64) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    builder
        .append(timestamp, Some(b"UA"), Some(b"row"), &[])
        .unwrap();
    Bytes::from(builder.seal().unwrap())
}

fn produce(acks: Acks, parts: &[(i32, Bytes)]) -> ProduceRequest<Bytes> {
    let partitions = parts.iter().map(|(index, records)| ProducePartition {
        index: *index,
        records: Some(records.clone()),
    });
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 1_000,
        topics: vec![ProduceTopic {
            name: StrBytes::from_static_str("flights"),
            partitions: partitions.collect(),
        }],
    }
}

fn produced(offset: u64) -> OpResult {
    Ok(Outcome::Produced {
        base_offset: Offset(offset),
        log_append_time_ms: None,
        log_start_offset: Offset::ZERO,
    })
}

fn fetch(max_wait_ms: i32, max_bytes: i32, offsets: &[i64]) -> FetchRequest {
    let partitions = offsets
        .iter()
        .zip(0..)
        .map(|(offset, index)| FetchPartition {
            index,
            current_leader_epoch: -1,
            fetch_offset: *offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1 << 20,
        });
    FetchRequest {
        replica_id: -1,
        max_wait_ms,
        min_bytes: 1,
        max_bytes,
        isolation: IsolationLevel::ReadUncommitted,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            name: StrBytes::from_static_str("flights"),
            partitions: partitions.collect(),
        }],
        forgotten_topics: Vec::new(),
        rack_id: StrBytes::from_static_str(""),
    }
}

fn fetched(spans: &[&[u8]], high_watermark: u64) -> OpResult {
    let spans: Vec<Buffer> = spans
        .iter()
        .map(|span| Buffer::from(span.to_vec()))
        .collect();
    Ok(Outcome::Fetched(Fetched {
        next_offset: Offset(high_watermark),
        spans,
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset::ZERO,
    }))
}

fn produce_codes(bench: &mut Bench, version: i16) -> Vec<(i32, ErrorCode, i64)> {
    let answer = bench.expect::<ProduceRequest<Bytes>>(version);
    let parts = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    parts
        .map(|part| (part.index, part.error, part.base_offset))
        .collect()
}

#[test]
fn a_produce_is_answered_when_every_partition_has_answered() {
    let mut bench = Bench::new(2);
    let request = produce(Acks::All, &[(0, batch(WALL_MS)), (1, batch(WALL_MS))]);
    bench.send(&request, 9, 7);
    let asked = bench.asked();
    let groups: Vec<GroupId> = asked.iter().map(|(_, group, _)| *group).collect();
    assert_eq!(groups, [GroupId(1), GroupId(2)]);
    bench.answer(asked[1].0, produced(20));
    assert!(bench.response().is_none(), "one is missing");
    bench.answer(asked[0].0, produced(10));
    let codes = produce_codes(&mut bench, 9);
    assert_eq!(codes, [(0, ErrorCode::None, 10), (1, ErrorCode::None, 20)]);
}

#[test]
fn what_may_not_be_appended_never_reaches_a_partition() {
    let mut twice = batch(WALL_MS).to_vec();
    twice.extend_from_slice(&batch(WALL_MS));
    let mut broken = batch(WALL_MS).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let large = Bytes::from(vec![0_u8; 1 << 17]);
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    builder.append(WALL_MS, None, Some(&large), &[]).unwrap();
    let cases = [
        (0, Bytes::from(twice), ErrorCode::InvalidRecord),
        (0, Bytes::from(broken), ErrorCode::CorruptMessage),
        (
            0,
            Bytes::from(builder.seal().unwrap()),
            ErrorCode::MessageTooLarge,
        ),
        (0, batch(WALL_MS + 3_600_001), ErrorCode::InvalidTimestamp),
        (9, batch(WALL_MS), ErrorCode::UnknownTopicOrPartition),
    ];
    for (index, records, code) in cases {
        let mut bench = Bench::new(1);
        bench.send(&produce(Acks::All, &[(index, records)]), 9, 1);
        assert!(bench.asked().is_empty(), "{code:?}");
        assert_eq!(produce_codes(&mut bench, 9), [(index, code, -1)]);
    }
}

#[test]
fn a_transactional_produce_and_unknown_acks_are_refused() {
    let mut bench = Bench::new(1);
    let mut request = produce(Acks::All, &[(0, batch(WALL_MS))]);
    request.transactional_id = Some(StrBytes::from_static_str("t"));
    bench.send(&request, 9, 1);
    let code = ErrorCode::TransactionalIdAuthorizationFailed;
    assert_eq!(produce_codes(&mut bench, 9), [(0, code, -1)]);
    bench.send(&produce(Acks::Invalid(2), &[(0, batch(WALL_MS))]), 9, 2);
    assert_eq!(
        produce_codes(&mut bench, 9),
        [(0, ErrorCode::InvalidRequiredAcks, -1)]
    );
    assert!(bench.asked().is_empty());
}

#[test]
fn a_late_quorum_is_an_open_outcome_never_a_refusal() {
    for error in [OpError::Indefinite, OpError::Cancelled] {
        let mut bench = Bench::new(1);
        bench.send(&produce(Acks::All, &[(0, batch(WALL_MS))]), 9, 1);
        let (id, ..) = bench.asked()[0];
        bench.answer(id, Err(error));
        assert_eq!(
            produce_codes(&mut bench, 9),
            [(0, ErrorCode::RequestTimedOut, -1)]
        );
    }
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::All, &[(0, batch(WALL_MS))]), 9, 1);
    bench.pass(Duration::from_millis(1_001));
    assert_eq!(
        produce_codes(&mut bench, 9),
        [(0, ErrorCode::RequestTimedOut, -1)]
    );
}

#[test]
fn acks_0_has_no_answer_and_still_makes_room() {
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::None, &[(0, batch(WALL_MS))]), 9, 1);
    let (id, ..) = bench.asked()[0];
    bench.answer(id, produced(0));
    let output = bench.service.poll_output();
    assert!(matches!(output, Some(ServiceOutput::Response { chunks, .. }) if chunks.is_empty()));
}

#[test]
fn a_wrong_largest_timestamp_is_mended() {
    let mut lying = batch(WALL_MS).to_vec();
    highwater_record::set_max_timestamp(&mut lying, i64::MAX);
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::All, &[(0, Bytes::from(lying))]), 9, 1);
    let (_, _, op) = bench.asked().remove(0);
    let Op::Produce(produce) = op else {
        panic!("{op:?}")
    };
    assert_eq!(produce.batches[0].header.max_timestamp(), WALL_MS);
    let parsed = RecordBatch::parse(&produce.batches[0].bytes, &Default::default()).unwrap();
    assert_eq!(parsed.max_timestamp(), WALL_MS);
}

#[test]
fn a_fetch_waits_for_records_and_wakes() {
    let mut bench = Bench::new(1);
    bench.send(&fetch(500, 1 << 20, &[5]), 12, 1);
    let (id, _, op) = bench.asked().remove(0);
    assert!(matches!(op, Op::Fetch(f) if f.offset == Offset(5) && f.from == ReadFrom::Leader));
    bench.answer(id, fetched(&[], 5));
    assert!(bench.response().is_none());
    let (watch, _, op) = bench.asked().remove(0);
    assert!(matches!(op, Op::WatchOffset { above } if above == Offset(5)));
    bench.answer(watch, Ok(Outcome::Moved));
    let (id, ..) = bench.asked().remove(0);
    bench.answer(id, fetched(&[b"batch"], 6));
    let answer = bench.expect::<FetchRequest>(12);
    let part = &answer.topics[0].partitions[0];
    assert_eq!(part.records.as_deref(), Some(&b"batch"[..]));
    assert_eq!((part.high_watermark, part.error), (6, ErrorCode::None));
}

#[test]
fn a_poll_ends_empty_when_its_time_is_over() {
    let mut bench = Bench::new(1);
    bench.send(&fetch(500, 1 << 20, &[5]), 12, 1);
    let (id, ..) = bench.asked().remove(0);
    bench.answer(id, fetched(&[], 5));
    assert_eq!(
        bench.service.next_timeout(),
        Some(Duration::from_millis(1_500))
    );
    bench.pass(Duration::from_millis(500));
    let answer = bench.expect::<FetchRequest>(12);
    assert!(
        answer.topics[0].partitions[0]
            .records
            .as_ref()
            .is_none_or(|r| r.is_empty())
    );
}

#[test]
fn the_first_batch_always_goes_the_others_only_if_they_fit() {
    let mut bench = Bench::new(3);
    bench.send(&fetch(0, 10, &[0, 0, 0]), 12, 1);
    // Each may bring all that fits, so they are read one after the other.
    let results = [
        (fetched(&[], 0), 10, true),
        (fetched(&[b"twelve bytes", b"x"], 2), 10, true),
        (fetched(&[b"y"], 1), 0, false),
    ];
    for (result, room, must) in results {
        let asked = bench.asked();
        let [(id, _, Op::Fetch(op))] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!((op.max_bytes, op.must_progress), (room, must));
        bench.answer(*id, result);
    }
    let answer = bench.expect::<FetchRequest>(12);
    let parts = &answer.topics[0].partitions;
    let bytes: Vec<usize> = parts
        .iter()
        .map(|part| part.records.as_ref().map_or(0, Bytes::len))
        .collect();
    assert_eq!(bytes, [0, 12, 0]);
}

#[test]
fn an_error_ends_a_poll_at_once() {
    let mut bench = Bench::new(2);
    bench.send(&fetch(500, 2 << 20, &[5, 5]), 12, 1);
    let asked = bench.asked();
    bench.answer(asked[0].0, fetched(&[], 5));
    let epoch = LeaderEpoch::new(3).unwrap();
    let leader = Some(NodeId(2));
    bench.answer(asked[1].0, Err(OpError::NotLeader { leader, epoch }));
    let answer = bench.expect::<FetchRequest>(12);
    assert_eq!(
        answer.topics[0].partitions[1].error,
        ErrorCode::NotLeaderOrFollower
    );
}

#[test]
fn a_client_that_poses_as_a_replica_is_refused() {
    let mut bench = Bench::new(1);
    let mut request = fetch(0, 1 << 20, &[0]);
    request.replica_id = 1;
    bench.send(&request, 12, 1);
    assert_eq!(
        bench.expect::<FetchRequest>(12).error,
        ErrorCode::InvalidRequest
    );
    assert!(bench.asked().is_empty());
}

#[cfg(feature = "mutants")]
#[test]
fn planted_a_replica_id_is_believed() {
    crate::mutants::is_found(
        crate::mutants::Mutant::ReplicaIdBelieved,
        a_client_that_poses_as_a_replica_is_refused,
    );
}

#[test]
fn offsets_are_listed_by_kafkas_special_timestamps() {
    let mut bench = Bench::new(4);
    let partitions = [-1, -2, 7, -9].iter().zip(0..).map(|(timestamp, index)| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(*timestamp)
    });
    let topic = ListOffsetsTopic::default()
        .with_name(StrBytes::from_static_str("flights").into())
        .with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    bench.send(&request, 4, 1);
    let asked = bench.asked();
    assert_eq!(asked.len(), 3, "-9 is not asked");
    let listed = Outcome::Listed {
        offset: Some(Offset(3)),
        timestamp: -1,
        leader_epoch: None,
    };
    bench.answer(asked[0].0, Ok(listed));
    bench.answer(asked[1].0, Err(OpError::OffsetNotAvailable));
    let none = Outcome::Listed {
        offset: None,
        timestamp: -1,
        leader_epoch: None,
    };
    bench.answer(asked[2].0, Ok(none));
    let answer = bench.expect::<ListOffsetsRequest>(4);
    let parts = &answer.topics[0].partitions;
    let codes: Vec<ErrorCode> = parts
        .iter()
        .map(|part| ErrorCode::from_code(part.error_code))
        .collect();
    let old_client = ErrorCode::LeaderNotAvailable;
    let unsupported = ErrorCode::UnsupportedVersion;
    assert_eq!(
        codes,
        [ErrorCode::None, old_client, ErrorCode::None, unsupported]
    );
    assert_eq!((parts[0].offset, parts[2].offset), (3, -1));
}

#[test]
fn answers_keep_the_order_of_requests() {
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::All, &[(0, batch(WALL_MS))]), 9, 1);
    bench.send(&MetadataRequest::default(), 9, 2);
    bench.send(&ApiVersionsRequest::default(), 3, 3);
    assert!(bench.response().is_none(), "the first is on its way");
    let (id, ..) = bench.asked()[0];
    bench.answer(id, produced(0));
    let order: Vec<i32> = std::iter::from_fn(|| bench.response().map(|(id, _)| id)).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut bench = Bench::new(1);
    bench.send_frame(b"\0\x12\0\x63\0\0\0\x05\xff\xff\0");
    let (correlation, frame) = bench.response().unwrap();
    assert_eq!(correlation, 5);
    let answer = ApiVersionsRequest::decode_answer(0, &frame).unwrap();
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
    let codes: BTreeMap<i16, (i16, i16)> = answer
        .api_keys
        .iter()
        .map(|key| (key.api_key, (key.min_version, key.max_version)))
        .collect();
    assert_eq!(codes[&ApiKey::Produce.code()], (0, 9));
}

#[test]
fn what_is_not_a_request_closes_the_connection_after_the_answers() {
    for frame in [
        &b""[..],
        b"\0\x03",
        b"\x7f\xff\0\0\0\0\0\x01",
        b"\0\x03\0\x09\0\0\0\x01",
    ] {
        let mut bench = Bench::new(1);
        bench.send(&produce(Acks::All, &[(0, batch(WALL_MS))]), 9, 1);
        bench.send_frame(frame);
        assert!(bench.response().is_none());
        let (id, ..) = bench.asked()[0];
        bench.answer(id, produced(0));
        assert_eq!(bench.response().map(|(id, _)| id), Some(1));
        assert!(bench.is_closed());
    }
}

#[test]
fn a_coordinator_is_not_available_in_every_version() {
    for version in 0..=4 {
        let mut bench = Bench::new(1);
        let key = StrBytes::from_static_str("group");
        let request = match version {
            4 => FindCoordinatorRequest::default().with_coordinator_keys(vec![key]),
            _ => FindCoordinatorRequest::default().with_key(key),
        };
        bench.send(&request, version, 1);
        let answer = bench.expect::<FindCoordinatorRequest>(version);
        let code = match version {
            4 => answer.coordinators[0].error_code,
            _ => answer.error_code,
        };
        assert_eq!(
            ErrorCode::from_code(code),
            ErrorCode::CoordinatorNotAvailable
        );
    }
}

#[test]
fn a_client_that_leaves_takes_its_questions_along() {
    let mut bench = Bench::new(1);
    bench.send(&fetch(500, 1 << 20, &[5]), 12, 1);
    let (id, group, _) = bench.asked().remove(0);
    bench.service.handle_closed(bench.now, CONN, &mut bench.ops);
    let cancelled = bench.ops.take();
    assert!(matches!(cancelled, Some(Asked::Cancel { id: i, group: g }) if (i, g) == (id, group)));
    assert_eq!(bench.service.next_timeout(), None);
}

#[test]
fn watches_that_fail_together_are_each_looked_into() {
    let mut bench = Bench::new(2);
    bench.send(&fetch(500, 2 << 20, &[5, 5]), 12, 1);
    for (id, ..) in bench.asked() {
        bench.answer(id, fetched(&[], 5));
    }
    let epoch = LeaderEpoch::new(3).unwrap();
    let not_leader = || OpError::NotLeader {
        leader: None,
        epoch,
    };
    let watches = bench.asked();
    assert_eq!(watches.len(), 2);
    for (id, ..) in watches {
        bench.answer(id, Err(not_leader()));
    }
    for (id, _, op) in bench.asked() {
        assert!(matches!(op, Op::Fetch(_)));
        bench.answer(id, Err(not_leader()));
    }
    let answer = bench.expect::<FetchRequest>(12);
    let codes: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|p| p.error)
        .collect();
    assert_eq!(codes, [ErrorCode::NotLeaderOrFollower; 2]);
}

#[test]
fn only_what_has_moved_is_read_again() {
    let mut bench = Bench::new(2);
    bench.send(&fetch(500, 2 << 20, &[5, 5]), 12, 1);
    for (id, ..) in bench.asked() {
        bench.answer(id, fetched(&[], 5));
    }
    let watches = bench.asked();
    bench.answer(watches[1].0, Ok(Outcome::Moved));
    let asked = bench.asked();
    let [(id, group, Op::Fetch(_))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(*group, GroupId(2));
    bench.answer(*id, fetched(&[b"batch"], 6));
    let answer = bench.expect::<FetchRequest>(12);
    let parts = &answer.topics[0].partitions;
    assert_eq!(parts[0].records.as_ref().map_or(0, Bytes::len), 0);
    assert_eq!(parts[1].records.as_deref(), Some(&b"batch"[..]));
}

#[test]
fn a_request_for_very_many_partitions_is_answered_in_time() {
    let mut bench = Bench::new(1);
    // As many as a request may name; quadratic work would take minutes.
    let offsets = vec![0; 60_000];
    bench.send(&fetch(0, 1 << 20, &offsets), 12, 1);
    let (id, ..) = bench.asked().remove(0);
    bench.answer(id, fetched(&[], 0));
    let answer = bench.expect::<FetchRequest>(12);
    assert_eq!(answer.topics[0].partitions.len(), offsets.len());
}

#[test]
fn a_silent_produce_that_fails_closes_the_connection() {
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::None, &[(7, batch(WALL_MS))]), 9, 1);
    let outputs: Vec<_> = std::iter::from_fn(|| bench.service.poll_output()).collect();
    assert!(matches!(outputs.last(), Some(ServiceOutput::Close { .. })));
}

#[test]
fn batches_of_transactions_and_early_zstd_are_refused() {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    builder.append(WALL_MS, None, None, &[]).unwrap();
    builder.set_producer(highwater_record::ProducerStamp {
        producer_id: 1,
        producer_epoch: 0,
        base_sequence: 0,
    });
    builder.set_transactional(true);
    let transactional = Bytes::from(builder.seal().unwrap());
    let mut builder = RecordBatchBuilder::new(Compression::Zstd, 1 << 20);
    builder.append(WALL_MS, None, Some(&[7; 500]), &[]).unwrap();
    let zstd = Bytes::from(builder.seal().unwrap());
    let cases = [
        (9, &transactional, ErrorCode::InvalidTxnState),
        (6, &zstd, ErrorCode::UnsupportedCompressionType),
    ];
    for (version, records, code) in cases {
        let mut bench = Bench::new(1);
        bench.send(&produce(Acks::All, &[(0, records.clone())]), version, 1);
        assert!(bench.asked().is_empty());
        assert_eq!(produce_codes(&mut bench, version), [(0, code, -1)]);
    }
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::All, &[(0, zstd)]), 7, 1);
    assert_eq!(bench.asked().len(), 1);
}

#[test]
fn a_producer_that_is_not_known_is_told_an_offset() {
    let mut bench = Bench::new(1);
    bench.send(&produce(Acks::All, &[(0, batch(WALL_MS))]), 9, 1);
    let (id, ..) = bench.asked().remove(0);
    let unknown = crate::ProducerError::UnknownProducer { id: 9 };
    bench.answer(id, Err(OpError::Producer(unknown)));
    let answer = bench.expect::<ProduceRequest<Bytes>>(9);
    let part = &answer.topics[0].partitions[0];
    assert_eq!(part.error, ErrorCode::UnknownProducerId);
    assert_eq!(part.log_start_offset, 0, "Java's producer hangs on -1");
}

#[test]
fn a_time_is_found_to_the_record_unless_it_would_have_to_be_decompressed() {
    for (compression, expected) in [(Compression::None, (12, 70)), (Compression::Gzip, (10, 80))] {
        let mut builder = RecordBatchBuilder::new(compression, 1 << 20);
        for timestamp in [50, 60, 70, 80] {
            builder.append(timestamp, None, Some(b"x"), &[]).unwrap();
        }
        let mut batch = builder.seal().unwrap();
        highwater_record::stamp(&mut batch, Offset(10), LeaderEpoch::ZERO);
        let mut bench = Bench::new(1);
        let partition = ListOffsetsPartition::default()
            .with_current_leader_epoch(-1)
            .with_timestamp(65);
        let topic = ListOffsetsTopic::default()
            .with_name(StrBytes::from_static_str("flights").into())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        bench.send(&request, 7, 1);
        let (id, ..) = bench.asked().remove(0);
        let told = Outcome::Listed {
            offset: Some(Offset(10)),
            timestamp: 80,
            leader_epoch: None,
        };
        bench.answer(id, Ok(told));
        let (id, _, op) = bench.asked().remove(0);
        assert!(matches!(op, Op::Fetch(f) if f.offset == Offset(10) && f.must_progress));
        bench.answer(id, fetched(&[&batch], 14));
        let answer = bench.expect::<ListOffsetsRequest>(7);
        let found = &answer.topics[0].partitions[0];
        assert_eq!((found.offset, found.timestamp), expected);
    }
}

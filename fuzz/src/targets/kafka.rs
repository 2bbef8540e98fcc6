//! Kafka's requests and responses.

use bytes::Bytes;
use highwater_protocol::messages::*;
use highwater_protocol::{
    ApiKey, Call, DecodeError, FetchRequest, LENGTH_BYTES, ProduceRequest, REQUEST_ELEMENTS_MAX,
    RESPONSE_ELEMENTS_MAX, Request, RequestHeader,
};
use highwater_record::{BatchLimits, SplitBatches};

use super::memory::{self, SMALL};
use super::{generated, records};

/// What an element of an array may take once it is decoded, with what it takes while a list grows.
const ELEMENT_BYTES: usize = 1_000;

/// Two bytes can announce an element; their number is limited beside that of bytes.
fn bound(bytes: usize, elements_max: usize) -> usize {
    SMALL + 2 * bytes + ELEMENT_BYTES * bytes.min(elements_max)
}

/// A frame without its length.
pub(crate) fn request(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let bound = bound(frame.len(), REQUEST_ELEMENTS_MAX);
    let decoded = memory::at_most(bound, "a request", || {
        let (header, at) = RequestHeader::decode(&frame).ok()?;
        let request = Request::decode(&header, &frame, at).ok()?;
        Some((header, at, request))
    });
    let Some((header, at, request)) = decoded else {
        return;
    };
    let written = write(&header, &request);
    let (header_again, at_again) = RequestHeader::decode(&written).expect("what we write, we read");
    assert_eq!(header_again, header);
    let again = Request::decode(&header, &written, at_again).expect("what we write, we read");
    assert_eq!(again, request);
    let body = match header.key.is_flexible(header.version) {
        true => written.slice(at_again..),
        false => frame.slice(at..),
    };
    generated::compare_request(&header, &body, &request);
}

/// The request as our client would send it, without its length.
fn write(header: &RequestHeader, request: &Request<Bytes>) -> Bytes {
    let chunks = match request {
        Request::Produce(call) => call.encode(header),
        Request::Fetch(call) => Call::encode(call, header),
        Request::ListOffsets(call) => Call::encode(call, header),
        Request::Metadata(call) => Call::encode(call, header),
        Request::FindCoordinator(call) => Call::encode(call, header),
        Request::ApiVersions(call) => Call::encode(call, header),
        Request::CreateTopics(call) => Call::encode(call, header),
        Request::DeleteTopics(call) => Call::encode(call, header),
        Request::InitProducerId(call) => Call::encode(call, header),
        Request::OffsetForLeaderEpoch(call) => Call::encode(call, header),
        Request::DescribeConfigs(call) => Call::encode(call, header),
        Request::IncrementalAlterConfigs(call) => Call::encode(call, header),
        Request::DescribeQuorum(call) => Call::encode(call, header),
        Request::DescribeCluster(call) => Call::encode(call, header),
    };
    let whole = chunks
        .expect("what was read in a version can be written in it")
        .concat();
    Bytes::from(whole).slice(LENGTH_BYTES..)
}

/// The first two bytes say what was asked, and in which version.
pub(crate) fn answer(data: &[u8]) {
    let Some((&[key, version], frame)) = data.split_first_chunk() else {
        return;
    };
    let key = ApiKey::ALL[usize::from(key) % ApiKey::ALL.len()];
    let versions = key.versions();
    let span = versions.max - versions.served_min + 1;
    let version = versions.served_min + i16::from(version) % span;
    let frame = Bytes::copy_from_slice(frame);
    let bound = bound(frame.len(), RESPONSE_ELEMENTS_MAX);
    let decoded = memory::at_most(bound, "a response", || {
        read_answer(key, version, &frame).is_ok()
    });
    if decoded {
        generated::compare_answer(key, version, &frame);
    }
}

/// What is fetched is read on, as the consumer does.
fn read_answer(key: ApiKey, version: i16, frame: &Bytes) -> Result<(), DecodeError> {
    match key {
        ApiKey::Produce => ProduceRequest::decode_answer(version, frame).map(drop),
        ApiKey::Fetch => {
            let answer = FetchRequest::decode_answer(version, frame)?;
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            for fetched in partitions.filter_map(|partition| partition.records.as_ref()) {
                SplitBatches::new(fetched)
                    .map_while(Result::ok)
                    .for_each(|batch| drop(records::read(batch, &BatchLimits::default())));
            }
            Ok(())
        }
        ApiKey::ListOffsets => ListOffsetsRequest::decode_answer(version, frame).map(drop),
        ApiKey::Metadata => MetadataRequest::decode_answer(version, frame).map(drop),
        ApiKey::FindCoordinator => FindCoordinatorRequest::decode_answer(version, frame).map(drop),
        ApiKey::ApiVersions => ApiVersionsRequest::decode_answer(version, frame).map(drop),
        ApiKey::CreateTopics => CreateTopicsRequest::decode_answer(version, frame).map(drop),
        ApiKey::DeleteTopics => DeleteTopicsRequest::decode_answer(version, frame).map(drop),
        ApiKey::InitProducerId => InitProducerIdRequest::decode_answer(version, frame).map(drop),
        ApiKey::OffsetForLeaderEpoch => {
            OffsetForLeaderEpochRequest::decode_answer(version, frame).map(drop)
        }
        ApiKey::DescribeConfigs => DescribeConfigsRequest::decode_answer(version, frame).map(drop),
        ApiKey::IncrementalAlterConfigs => {
            IncrementalAlterConfigsRequest::decode_answer(version, frame).map(drop)
        }
        ApiKey::DescribeQuorum => DescribeQuorumRequest::decode_answer(version, frame).map(drop),
        ApiKey::DescribeCluster => DescribeClusterRequest::decode_answer(version, frame).map(drop),
    }
}

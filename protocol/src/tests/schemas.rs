//! Each schema of the walk against the generated codec: bytes made along our schema must decode
//! there and encode to the same bytes again, in every version. A field that is missing, doubled,
//! of another width or in another version breaks that.

use bytes::{BufMut, Bytes, BytesMut};

use super::{body_of, header};
use crate::messages::*;
use crate::schema::{Field, Shape, check_request, check_response, request_fields, response_fields};
use crate::wire::Writer;
use crate::{ApiKey, Call, Request, RequestHeader, Response};

const ROUNDS: u64 = 50;

/// Bytes along a schema, with chance for the values.
struct Generator {
    rng: fastrand::Rng,
    version: i16,
    writer: Writer,
}

impl Generator {
    fn structure(&mut self, fields: &'static [Field]) {
        let version = self.version;
        let mut tagged = Vec::new();
        for field in fields.iter().filter(|field| field.is_in(version)) {
            match &field.shape {
                Shape::TaggedStructures(tag, elements) => tagged.push((*tag, *elements)),
                // Left out, as the generated encoder does with those that say nothing new.
                Shape::TaggedFixed(..) => {}
                shape => self.shape(shape),
            }
        }
        if tagged.is_empty() {
            return self.writer.no_tagged_fields();
        }
        self.writer
            .unsigned_varint(u32::try_from(tagged.len()).unwrap());
        for (tag, elements) in tagged {
            self.tagged_structures(tag, elements);
        }
    }

    /// A tagged field; never empty, as the generated encoder leaves empty ones out.
    fn tagged_structures(&mut self, tag: u32, elements: &'static [Field]) {
        let outer = std::mem::take(&mut self.writer.bytes);
        let count = self.rng.usize(1..4);
        self.writer.count(count);
        for _ in 0..count {
            self.structure(elements);
        }
        let value = std::mem::replace(&mut self.writer.bytes, outer);
        self.writer.unsigned_varint(tag);
        self.writer
            .unsigned_varint(u32::try_from(value.len()).unwrap());
        self.writer.bytes.put_slice(&value);
    }

    fn shape(&mut self, shape: &'static Shape) {
        match shape {
            // A byte may be a boolean, which decodes to 0 or 1.
            Shape::Fixed(1) => {
                let byte = self.rng.i8(0..2);
                self.writer.i8(byte);
            }
            Shape::Fixed(bytes) => {
                for _ in 0..*bytes {
                    let byte = self.rng.i8(..);
                    self.writer.i8(byte);
                }
            }
            Shape::Text => {
                let length = self.rng.usize(0..200);
                let text: String = (0..length).map(|_| self.rng.alphanumeric()).collect();
                self.writer.text(&text);
            }
            Shape::Scalars(element) => {
                let count = self.count();
                for _ in 0..count {
                    self.shape(element);
                }
            }
            Shape::Structures(fields) => {
                let count = self.count();
                for _ in 0..count {
                    self.structure(fields);
                }
            }
            Shape::TaggedStructures(..) | Shape::TaggedFixed(..) => {
                unreachable!("written by structure")
            }
        }
    }

    fn count(&mut self) -> usize {
        let count = self.rng.usize(0..4);
        self.writer.count(count);
        count
    }
}

/// A body along a schema.
pub(super) fn generate(fields: &'static [Field], key: ApiKey, version: i16, seed: u64) -> Bytes {
    let mut generator = Generator {
        rng: fastrand::Rng::with_seed(seed),
        version,
        writer: Writer::new(BytesMut::new(), key.is_flexible(version)),
    };
    generator.structure(fields);
    generator.writer.bytes.freeze()
}

fn check_call<C: Call>(wrap: impl Fn(C::Answer) -> Response, unwrap: impl Fn(Request<Bytes>) -> C) {
    let versions = C::KEY.versions();
    for version in versions.served_min..=versions.max {
        for seed in 0..ROUNDS {
            check_request_bytes(version, seed, &unwrap);
            check_response_bytes::<C>(version, seed, &wrap);
        }
    }
}

fn check_request_bytes<C: Call>(version: i16, seed: u64, unwrap: &impl Fn(Request<Bytes>) -> C) {
    let body = generate(request_fields(C::KEY), C::KEY, version, seed);
    check_request(C::KEY, version, &body, 0).unwrap();
    let header = header::<C>(version);
    let decoded = Request::decode(&header, &body, 0)
        .unwrap_or_else(|error| panic!("{} {version} seed {seed}: {error}", C::KEY));
    assert_eq!(decoded.key(), C::KEY);
    let frame = body_of(&unwrap(decoded).encode(&header).unwrap());
    let (read, at) = RequestHeader::decode(&frame).unwrap();
    assert_eq!(read, header);
    assert_eq!(frame.slice(at..), body, "{} {version} seed {seed}", C::KEY);
}

fn check_response_bytes<C: Call>(version: i16, seed: u64, wrap: &impl Fn(C::Answer) -> Response) {
    let body = generate(response_fields(C::KEY), C::KEY, version, seed);
    check_response(C::KEY, version, &body, 0).unwrap();
    let mut frame = BytesMut::new();
    crate::header::encode_response_header(C::KEY, version, 11, &mut frame);
    frame.extend_from_slice(&body);
    let frame = frame.freeze();
    let decoded = C::decode_answer(version, &frame)
        .unwrap_or_else(|error| panic!("{} {version} seed {seed}: {error}", C::KEY));
    let response = wrap(decoded);
    assert_eq!(response.key(), C::KEY);
    let again = body_of(&response.encode(version, 11).unwrap());
    assert_eq!(again, frame, "{} {version} seed {seed}", C::KEY);
}

macro_rules! check_calls {
    ($($name:ident: $variant:ident($request:ident);)*) => {
        $(#[test]
        fn $name() {
            check_call::<$request>(Response::$variant, |request| match request {
                Request::$variant(request) => request,
                other => panic!("decoded to {other:?}"),
            });
        })*
    };
}

check_calls! {
    list_offsets: ListOffsets(ListOffsetsRequest);
    metadata: Metadata(MetadataRequest);
    find_coordinator: FindCoordinator(FindCoordinatorRequest);
    api_versions: ApiVersions(ApiVersionsRequest);
    create_topics: CreateTopics(CreateTopicsRequest);
    delete_topics: DeleteTopics(DeleteTopicsRequest);
    init_producer_id: InitProducerId(InitProducerIdRequest);
    offset_for_leader_epoch: OffsetForLeaderEpoch(OffsetForLeaderEpochRequest);
    describe_configs: DescribeConfigs(DescribeConfigsRequest);
    incremental_alter_configs: IncrementalAlterConfigs(IncrementalAlterConfigsRequest);
    describe_quorum: DescribeQuorum(DescribeQuorumRequest);
    describe_cluster: DescribeCluster(DescribeClusterRequest);
}

#[test]
fn unsupported_api_versions_is_answered_in_the_first_form() {
    let frame = crate::encode_unsupported_api_versions(5);
    let keys = ApiKey::ALL.len();
    assert_eq!(frame.len(), 4 + 4 + 2 + 4 + 6 * keys);
    assert_eq!(&frame[4..10], b"\0\0\0\x05\0\x23");
    let answer = ApiVersionsRequest::decode_answer(0, &frame.slice(4..)).unwrap();
    assert_eq!(answer.api_keys.len(), keys);
    // A client that asked in version 4 understands it too.
    let asked_in_4 = ApiVersionsRequest::decode_answer(4, &frame.slice(4..));
    assert_eq!(asked_in_4.as_ref(), Ok(&answer));
    let own = answer.api_keys.iter().find(|range| range.api_key == 18);
    assert_eq!(
        own.map(|range| (range.min_version, range.max_version)),
        Some((0, 4))
    );
}

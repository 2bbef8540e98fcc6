//! Bytes that lie: decoding ends in a value or a typed error, never in a panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::schemas::generate;
use crate::messages::*;
use crate::schema::{Field, Shape, check_request, request_fields, response_fields};
use crate::wire::{Allowance, Reader};
use crate::{
    ApiKey, Call, DecodeError, FetchRequest, ProduceRequest, Request, RequestHeader,
    TAGGED_FIELDS_MAX,
};

fn decode_anything(key: ApiKey, version: i16, body: &Bytes) {
    let header = RequestHeader {
        key,
        version,
        correlation_id: 0,
        client_id: None,
    };
    let _ = Request::decode(&header, body, 0);
    let _ = ProduceRequest::decode_ranges(version, body, 0);
    let _ = decode_answer(key, version, body);
    if let Ok((header, at)) = RequestHeader::decode(body) {
        let _ = Request::decode(&header, body, at);
    }
}

/// Decodes bytes as a response of any kind, and drops what comes out.
fn decode_answer(key: ApiKey, version: i16, frame: &Bytes) -> Result<(), DecodeError> {
    match key {
        ApiKey::Produce => ProduceRequest::decode_answer(version, frame).map(drop),
        ApiKey::Fetch => FetchRequest::decode_answer(version, frame).map(drop),
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

fn any_key() -> impl Strategy<Value = ApiKey> {
    prop::sample::select(ApiKey::ALL)
}

/// What a mutation does to a valid message.
#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Truncate(prop::sample::Index),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (
            any::<prop::sample::Index>(),
            prop::sample::select(vec![0xff_u8, 0x7f, 0x80, 0])
        )
            .prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (
            any::<prop::sample::Index>(),
            prop::collection::vec(any::<u8>(), 1..8)
        )
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        any::<prop::sample::Index>().prop_map(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Mutation::Insert(at, inserted) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, inserted.iter().copied());
        }
        Mutation::Truncate(at) => bytes.truncate(at.index(bytes.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_a_value_or_an_error(
        key in any_key(),
        version in -1_i16..14,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_anything(key, version, &Bytes::from(bytes));
    }

    #[test]
    fn mutated_messages_end_in_a_value_or_an_error(
        key in any_key(),
        version in 0_i16..13,
        seed in any::<u64>(),
        response in any::<bool>(),
        mutations in prop::collection::vec(any_mutation(), 1..4),
    ) {
        let fields = if response { response_fields(key) } else { request_fields(key) };
        let version = version.clamp(key.versions().served_min, key.versions().max);
        let mut bytes = generate(fields, key, version, seed).to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        decode_anything(key, version, &Bytes::from(bytes));
    }
}

#[test]
fn every_prefix_of_a_message_is_an_error() {
    for &key in ApiKey::ALL {
        let versions = key.versions();
        for version in versions.served_min..=versions.max {
            let body = generate(request_fields(key), key, version, 3);
            if key == ApiKey::Produce || key == ApiKey::Fetch {
                continue;
            }
            let header = RequestHeader {
                key,
                version,
                correlation_id: 0,
                client_id: None,
            };
            assert!(Request::decode(&header, &body, 0).is_ok());
            for end in 0..body.len() {
                let prefix = body.slice(..end);
                assert!(
                    Request::decode(&header, &prefix, 0).is_err(),
                    "{key} {version}: {end} of {} bytes",
                    body.len()
                );
            }
            let longer = Bytes::from([&body[..], &[0]].concat());
            assert_eq!(
                Request::decode(&header, &longer, 0),
                Err(DecodeError::TrailingBytes {
                    at: body.len(),
                    count: 1
                })
            );
        }
    }
}

#[test]
fn null_where_a_value_must_be_is_an_error() {
    // The array of topics is null.
    let header = RequestHeader {
        key: ApiKey::ListOffsets,
        version: 7,
        correlation_id: 0,
        client_id: None,
    };
    let body = Bytes::from_static(b"\xff\xff\xff\xff\0\0\0");
    assert!(matches!(
        Request::decode(&header, &body, 0),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        ProduceRequest::decode(9, &Bytes::from_static(b"\0\0\x01\0\0\0\0\0\0"), 0),
        Err(DecodeError::Null { at: 7 })
    ));
}

#[test]
fn tagged_fields_are_limited() {
    let mut bytes = Vec::new();
    let count = u16::try_from(TAGGED_FIELDS_MAX + 1).unwrap();
    let [high, low] = (count << 1).to_be_bytes();
    bytes.extend([(low >> 1) | 0x80, high]);
    for _ in 0..count {
        bytes.extend([9, 0]);
    }
    let mut reader = Reader::new(&bytes, 0, true, Allowance::request());
    assert_eq!(
        reader.skip_tagged_fields(),
        Err(DecodeError::TooManyTaggedFields {
            tagged_fields_max: TAGGED_FIELDS_MAX
        })
    );
}

#[test]
fn a_known_tagged_field_stays_within_its_bounds() {
    // ApiVersions 3: no error, no keys, no throttling; tag 0 announces one feature that would
    // reach beyond its four bytes.
    let frame = Bytes::from_static(b"\0\0\0\x01\0\0\x01\0\0\0\0\x01\0\x04\x02\x03ab\0\0\0\0\0");
    assert!(matches!(
        ApiVersionsRequest::decode_answer(3, &frame),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn a_known_tagged_field_is_as_long_as_its_type() {
    // ApiVersions 3: no keys, no throttling; two tagged fields. The epoch (tag 1) says that it has
    // no bytes, and the generated decoder would take eight, and then the last five for a count of
    // features.
    let lie = b"\0\0\0\x01\0\0\x01\0\0\0\0\x02\x01\0\x09\x08abcdefgh\xff\xff\xff\xff\x0f";
    assert!(matches!(
        ApiVersionsRequest::decode_answer(3, &Bytes::from_static(lie)),
        Err(DecodeError::Truncated { .. })
    ));
    let truth = b"\0\0\0\x01\0\0\x01\0\0\0\0\x02\x01\x08\0\0\0\0\0\0\0\x07\x03\x01\x01";
    let answer = ApiVersionsRequest::decode_answer(3, &Bytes::from_static(truth)).unwrap();
    assert_eq!(answer.finalized_features_epoch, 7);
    assert!(answer.zk_migration_ready);
}

#[test]
fn unknown_tagged_fields_are_not_kept() {
    // Metadata 10 for all topics, without and with tagged fields: 8, and one that is no number of
    // 31 bits. The generated encoder would count the second, and not write it.
    let bare = Bytes::from_static(b"\0\x01\0\x01\0");
    let tagged = Bytes::from_static(b"\0\x01\0\x01\x02\x08\x03abc\xff\xff\xff\xff\x0f\x01d");
    let header = RequestHeader {
        key: ApiKey::Metadata,
        version: 10,
        correlation_id: 7,
        client_id: None,
    };
    let decoded = Request::decode(&header, &tagged, 0).unwrap();
    assert_eq!(Ok(&decoded), Request::decode(&header, &bare, 0).as_ref());
    let Request::Metadata(request) = decoded else {
        panic!("{decoded:?}");
    };
    let written = super::body_of(&request.encode(&header).unwrap());
    let (_, at) = RequestHeader::decode(&written).unwrap();
    assert_eq!(written.slice(at..), bare);
}

#[test]
fn tagged_fields_of_inner_structures_are_not_kept() {
    // DescribeQuorum 0: one topic, "t", with one partition, each with a tagged field.
    let bare = Bytes::from_static(b"\x02\x02t\x02\0\0\0\0\0\0\0");
    let tagged = b"\x02\x02t\x02\0\0\0\0\x01\x05\0\x01\x06\x01a\x01\x07\x02bc";
    let tagged = Bytes::from_static(tagged);
    let check = |body: &Bytes| check_request(ApiKey::DescribeQuorum, 0, body, 0);
    assert_eq!(check(&tagged), Ok(bare.clone()));
    assert_eq!(check(&bare), Ok(bare));
}

#[test]
fn no_request_has_tagged_fields_of_its_own() {
    fn has_tagged(fields: &[Field]) -> bool {
        fields.iter().any(|field| match field.shape {
            Shape::TaggedStructures(..) | Shape::TaggedFixed(..) => true,
            Shape::Structures(fields) => has_tagged(fields),
            Shape::Fixed(_) | Shape::Text | Shape::Scalars(_) => false,
        })
    }
    for key in ApiKey::ALL {
        assert!(!has_tagged(request_fields(*key)), "{key} would lose them");
    }
}

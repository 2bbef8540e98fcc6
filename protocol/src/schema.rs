//! A walk over a message before it is decoded.
//!
//! The generated decoder reserves memory for an array's announced count before it looks at the
//! elements, keeps unknown tagged fields, and does not mind bytes behind the message. So each
//! message that arrives is first walked along its schema, almost without allocating: every length must
//! lie within the frame, every counted element must be there, the sum of elements and of tagged
//! fields is limited, and a request ends where its frame ends. What passes can be decoded with
//! memory of at most a constant times the limit on elements, plus the frame.

use bytes::Bytes;

use crate::wire::{Allowance, Reader};
use crate::{ApiKey, DecodeError};

/// A type of the protocol, as far as its extent goes.
pub(crate) enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Elements without a structure of their own.
    Scalars(&'static Shape),
    /// Structures, each closed by tagged fields in flexible versions.
    Structures(&'static [Field]),
    /// A tagged field whose value is an array of structures; absent in the main sequence.
    TaggedStructures(u32, &'static [Field]),
    /// A tagged field whose value is so many bytes. The generated decoder takes them whatever the
    /// field's own size says, and would read on from another place than the walk.
    TaggedFixed(u32, usize),
}

/// A field and the versions that have it, both ends inclusive.
pub(crate) struct Field {
    pub(crate) shape: Shape,
    since: i16,
    until: i16,
}

const fn field(shape: Shape) -> Field {
    Field {
        shape,
        since: 0,
        until: i16::MAX,
    }
}

impl Field {
    const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    pub(crate) const fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

const TEXT: Field = field(Shape::Text);
const BOOL: Field = field(Shape::Fixed(1));
const INT8: Field = field(Shape::Fixed(1));
const INT16: Field = field(Shape::Fixed(2));
const INT32: Field = field(Shape::Fixed(4));
const INT64: Field = field(Shape::Fixed(8));
const UUID: Field = field(Shape::Fixed(16));
const INT32_ARRAY: Field = field(Shape::Scalars(&Shape::Fixed(4)));
const TEXT_ARRAY: Field = field(Shape::Scalars(&Shape::Text));

const fn structures(fields: &'static [Field]) -> Field {
    field(Shape::Structures(fields))
}

const fn tagged_structures(tag: u32, fields: &'static [Field]) -> Field {
    field(Shape::TaggedStructures(tag, fields))
}

const fn tagged_fixed(tag: u32, bytes: usize) -> Field {
    field(Shape::TaggedFixed(tag, bytes))
}

/// Walks the body of a request from byte `at` of its frame to the end. Gives it in memory of its
/// own and without tagged fields: no request of ours has one that we know, and what is not known
/// is not kept (CVE-2022-34917). The generated decoder would, and could not write those whose tag
/// is 2^31 or more.
pub(crate) fn check_request(
    key: ApiKey,
    version: i16,
    frame: &[u8],
    at: usize,
) -> Result<Bytes, DecodeError> {
    let allowance = Allowance::request();
    let reader = check(key, version, frame, at, request_fields(key), allowance)?;
    reader.finish()?;
    Ok(reader.copy_without_tagged_fields(at))
}

/// Walks the body of a response from byte `at` of its frame. Bytes behind it are ignored, as by
/// all clients: there are brokers (librdkafka's mock cluster is one) that send some.
pub(crate) fn check_response(
    key: ApiKey,
    version: i16,
    frame: &[u8],
    at: usize,
) -> Result<(), DecodeError> {
    let allowance = Allowance::response();
    check(key, version, frame, at, response_fields(key), allowance).map(drop)
}

fn check<'a>(
    key: ApiKey,
    version: i16,
    frame: &'a [u8],
    at: usize,
    fields: &'static [Field],
    allowance: Allowance,
) -> Result<Reader<'a>, DecodeError> {
    if !key.versions().serves(version) {
        return Err(DecodeError::UnsupportedVersion { key, version });
    }
    let mut reader = Reader::new(frame, at, key.is_flexible(version), allowance);
    walk_structure(fields, version, &mut reader)?;
    Ok(reader)
}

/// Recursion is as deep as the schemas nest, three levels.
fn walk_structure(
    fields: &'static [Field],
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    for field in fields.iter().filter(|field| field.is_in(version)) {
        walk_shape(&field.shape, version, reader)?;
    }
    let mut known = Vec::new();
    reader.tagged_fields(|tag, range| {
        if let Some(shape) = known_tagged_field(fields, version, tag) {
            known.push((shape, range));
        }
        Ok(())
    })?;
    for (shape, range) in known {
        reader.within(range, |reader| match shape {
            Shape::TaggedStructures(_, elements) => walk_structures(elements, version, reader),
            Shape::TaggedFixed(_, bytes) => reader.take(*bytes).map(drop),
            _ => unreachable!("only tagged fields are looked up"),
        })?;
    }
    Ok(())
}

fn known_tagged_field(
    fields: &'static [Field],
    version: i16,
    wanted: u32,
) -> Option<&'static Shape> {
    let mut present = fields.iter().filter(|field| field.is_in(version));
    let is_wanted = |field: &&Field| match field.shape {
        Shape::TaggedStructures(tag, _) | Shape::TaggedFixed(tag, _) => tag == wanted,
        _ => false,
    };
    present.find(is_wanted).map(|field| &field.shape)
}

fn walk_shape(
    shape: &'static Shape,
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    match shape {
        Shape::Fixed(bytes) => reader.take(*bytes).map(drop),
        Shape::Text => reader.text_range().map(drop),
        Shape::Scalars(element) => {
            let count = reader.nullable_count(1)?.unwrap_or(0);
            for _ in 0..count {
                walk_shape(element, version, reader)?;
            }
            Ok(())
        }
        Shape::Structures(fields) => walk_structures(fields, version, reader),
        Shape::TaggedStructures(..) | Shape::TaggedFixed(..) => Ok(()),
    }
}

fn walk_structures(
    fields: &'static [Field],
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    let count = reader.nullable_count(1)?.unwrap_or(0);
    for _ in 0..count {
        walk_structure(fields, version, reader)?;
    }
    Ok(())
}

/// The fields of a request. Produce and Fetch have decoders of their own and are not walked.
pub(crate) const fn request_fields(key: ApiKey) -> &'static [Field] {
    match key {
        ApiKey::Produce | ApiKey::Fetch => &[],
        ApiKey::ListOffsets => LIST_OFFSETS_REQUEST,
        ApiKey::Metadata => METADATA_REQUEST,
        ApiKey::FindCoordinator => FIND_COORDINATOR_REQUEST,
        ApiKey::ApiVersions => API_VERSIONS_REQUEST,
        ApiKey::CreateTopics => CREATE_TOPICS_REQUEST,
        ApiKey::DeleteTopics => DELETE_TOPICS_REQUEST,
        ApiKey::InitProducerId => INIT_PRODUCER_ID_REQUEST,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH_REQUEST,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS_REQUEST,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS_REQUEST,
        ApiKey::DescribeQuorum => DESCRIBE_QUORUM_REQUEST,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER_REQUEST,
    }
}

/// The fields of a response.
pub(crate) const fn response_fields(key: ApiKey) -> &'static [Field] {
    match key {
        ApiKey::Produce | ApiKey::Fetch => &[],
        ApiKey::ListOffsets => LIST_OFFSETS_RESPONSE,
        ApiKey::Metadata => METADATA_RESPONSE,
        ApiKey::FindCoordinator => FIND_COORDINATOR_RESPONSE,
        ApiKey::ApiVersions => API_VERSIONS_RESPONSE,
        ApiKey::CreateTopics => CREATE_TOPICS_RESPONSE,
        ApiKey::DeleteTopics => DELETE_TOPICS_RESPONSE,
        ApiKey::InitProducerId => INIT_PRODUCER_ID_RESPONSE,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH_RESPONSE,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS_RESPONSE,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS_RESPONSE,
        ApiKey::DescribeQuorum => DESCRIBE_QUORUM_RESPONSE,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER_RESPONSE,
    }
}

// The fields of each message, in the order of Kafka's schemas
// (<https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message>). The
// tests below compare each with the generated encoder in every version.

const LIST_OFFSETS_REQUEST: &[Field] = &[
    INT32,
    INT8.since(2),
    structures(&[TEXT, structures(&[INT32, INT32.since(4), INT64])]),
];

const METADATA_REQUEST: &[Field] = &[
    structures(&[UUID.since(10), TEXT]),
    BOOL.since(4),
    BOOL.since(8).until(10),
    BOOL.since(8),
];

const FIND_COORDINATOR_REQUEST: &[Field] = &[TEXT.until(3), INT8.since(1), TEXT_ARRAY.since(4)];

const API_VERSIONS_REQUEST: &[Field] = &[TEXT.since(3), TEXT.since(3)];

const CREATE_TOPICS_REQUEST: &[Field] = &[
    structures(&[
        TEXT,
        INT32,
        INT16,
        structures(&[INT32, INT32_ARRAY]),
        structures(&[TEXT, TEXT]),
    ]),
    INT32,
    BOOL,
];

const DELETE_TOPICS_REQUEST: &[Field] = &[
    structures(&[TEXT, UUID]).since(6),
    TEXT_ARRAY.until(5),
    INT32,
];

const INIT_PRODUCER_ID_REQUEST: &[Field] = &[TEXT, INT32, INT64.since(3), INT16.since(3)];

const OFFSET_FOR_LEADER_EPOCH_REQUEST: &[Field] = &[
    INT32.since(3),
    structures(&[TEXT, structures(&[INT32, INT32, INT32])]),
];

const DESCRIBE_CONFIGS_REQUEST: &[Field] =
    &[structures(&[INT8, TEXT, TEXT_ARRAY]), BOOL, BOOL.since(3)];

const INCREMENTAL_ALTER_CONFIGS_REQUEST: &[Field] = &[
    structures(&[INT8, TEXT, structures(&[TEXT, INT8, TEXT])]),
    BOOL,
];

const DESCRIBE_QUORUM_REQUEST: &[Field] = &[structures(&[TEXT, structures(&[INT32])])];

const DESCRIBE_CLUSTER_REQUEST: &[Field] = &[BOOL, INT8.since(1)];

const LIST_OFFSETS_RESPONSE: &[Field] = &[
    INT32.since(2),
    structures(&[
        TEXT,
        structures(&[INT32, INT16, INT64, INT64, INT32.since(4)]),
    ]),
];

const METADATA_RESPONSE: &[Field] = &[
    INT32.since(3),
    structures(&[INT32, TEXT, INT32, TEXT.since(1)]),
    TEXT.since(2),
    INT32.since(1),
    structures(&[
        INT16,
        TEXT,
        UUID.since(10),
        BOOL.since(1),
        structures(&[
            INT16,
            INT32,
            INT32,
            INT32.since(7),
            INT32_ARRAY,
            INT32_ARRAY,
            INT32_ARRAY.since(5),
        ]),
        INT32.since(8),
    ]),
    INT32.since(8).until(10),
];

const FIND_COORDINATOR_RESPONSE: &[Field] = &[
    INT32.since(1),
    INT16.until(3),
    TEXT.since(1).until(3),
    INT32.until(3),
    TEXT.until(3),
    INT32.until(3),
    structures(&[TEXT, INT32, TEXT, INT32, INT16, TEXT]).since(4),
];

const API_VERSIONS_RESPONSE: &[Field] = &[
    INT16,
    structures(&[INT16, INT16, INT16]),
    INT32.since(1),
    tagged_structures(0, &[TEXT, INT16, INT16]).since(3),
    tagged_fixed(1, 8).since(3),
    tagged_structures(2, &[TEXT, INT16, INT16]).since(3),
    tagged_fixed(3, 1).since(3),
];

const CREATE_TOPICS_RESPONSE: &[Field] = &[
    INT32,
    structures(&[
        TEXT,
        UUID.since(7),
        INT16,
        TEXT,
        INT32.since(5),
        INT16.since(5),
        structures(&[TEXT, TEXT, BOOL, INT8, BOOL]).since(5),
        tagged_fixed(0, 2).since(5),
    ]),
];

const DELETE_TOPICS_RESPONSE: &[Field] = &[
    INT32,
    structures(&[TEXT, UUID.since(6), INT16, TEXT.since(5)]),
];

const INIT_PRODUCER_ID_RESPONSE: &[Field] = &[INT32, INT16, INT64, INT16];

const OFFSET_FOR_LEADER_EPOCH_RESPONSE: &[Field] = &[
    INT32,
    structures(&[TEXT, structures(&[INT16, INT32, INT32, INT64])]),
];

const DESCRIBE_CONFIGS_RESPONSE: &[Field] = &[
    INT32,
    structures(&[
        INT16,
        TEXT,
        INT8,
        TEXT,
        structures(&[
            TEXT,
            TEXT,
            BOOL,
            INT8,
            BOOL,
            structures(&[TEXT, TEXT, INT8]),
            INT8.since(3),
            TEXT.since(3),
        ]),
    ]),
];

const INCREMENTAL_ALTER_CONFIGS_RESPONSE: &[Field] =
    &[INT32, structures(&[INT16, TEXT, INT8, TEXT])];

const QUORUM_REPLICA: &[Field] = &[INT32, INT64, INT64.since(1), INT64.since(1)];

const DESCRIBE_QUORUM_RESPONSE: &[Field] = &[
    INT16,
    structures(&[
        TEXT,
        structures(&[
            INT32,
            INT16,
            INT32,
            INT32,
            INT64,
            structures(QUORUM_REPLICA),
            structures(QUORUM_REPLICA),
        ]),
    ]),
];

const DESCRIBE_CLUSTER_RESPONSE: &[Field] = &[
    INT32,
    INT16,
    TEXT,
    INT8.since(1),
    TEXT,
    INT32,
    structures(&[INT32, TEXT, INT32, TEXT]),
    INT32,
];

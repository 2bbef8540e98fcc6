//! Kafka's messages as structures: the one module that names the `kafka-protocol` crate, which is
//! generated from Kafka's own schemas, so that it can be replaced.
//!
//! Produce and Fetch are not here: they carry records and are written by hand over bytes
//! ([`crate::ProduceRequest`], [`crate::FetchRequest`]).
//!
//! Nothing decoded by that crate comes straight from the wire. It trusts array counts, so every
//! message is walked first ([`crate::DecodeError`] says what the walk refuses).

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::{ApiKey, DecodeError, EncodeError};

pub use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
pub use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
pub use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
pub use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
pub use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
pub use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
pub use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
pub use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
pub use kafka_protocol::messages::describe_quorum_request::{
    PartitionData as QuorumPartition, TopicData as QuorumTopic,
};
pub use kafka_protocol::messages::describe_quorum_response::{
    PartitionData as QuorumPartitionResponse, ReplicaState, TopicData as QuorumTopicResponse,
};
pub use kafka_protocol::messages::find_coordinator_response::Coordinator;
pub use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
pub use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
pub use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
pub use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
pub use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
pub use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
pub use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
pub use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
pub use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProducerId, TopicName,
    TransactionalId,
};
pub use kafka_protocol::protocol::StrBytes;
pub use uuid::Uuid;

/// Decodes a message that the walk has passed.
pub(crate) fn decode<M: Decodable>(
    key: ApiKey,
    version: i16,
    mut body: Bytes,
) -> Result<M, DecodeError> {
    M::decode(&mut body, version).map_err(|error| DecodeError::Invalid {
        key,
        version,
        reason: error.to_string(),
    })
}

/// Appends a message to `bytes`.
pub(crate) fn encode<M: Encodable>(
    key: ApiKey,
    version: i16,
    message: &M,
    bytes: &mut BytesMut,
) -> Result<(), EncodeError> {
    let unrepresentable = |error: &dyn std::fmt::Display| EncodeError::Unrepresentable {
        key,
        version,
        reason: error.to_string(),
    };
    let size = message
        .compute_size(version)
        .map_err(|error| unrepresentable(&error))?;
    bytes.reserve(size);
    message
        .encode(bytes, version)
        .map_err(|error| unrepresentable(&error))
}

/// The generated crate's name and retriable flag of an error code.
#[cfg(test)]
pub(crate) fn known_error(code: i16) -> Option<(String, bool)> {
    use kafka_protocol::error::ResponseError;
    match ResponseError::try_from_code(code)? {
        ResponseError::Unknown(_) => None,
        known => Some((known.to_string(), known.is_retriable())),
    }
}

/// The versions that the generated crate can decode.
#[cfg(test)]
pub(crate) fn generated_versions(key: ApiKey) -> (i16, i16) {
    let generated = kafka_protocol::messages::ApiKey::try_from(key.code()).unwrap();
    let range = generated.valid_versions();
    (range.min, range.max)
}

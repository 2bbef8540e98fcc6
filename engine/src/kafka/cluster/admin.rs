//! CreateTopics, DeleteTopics and IncrementalAlterConfigs: clients' requests as commands to the
//! controller, and its answers as responses.
//!
//! They are carried out where the controller's leader is, in Kafka's own form: what is sent there
//! is a request frame in the client's version, and what comes back is the response frame.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::messages::{
    AlterConfigsResource, AlterConfigsResourceResponse, CreatableTopic, CreatableTopicConfigs,
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, DeletableTopicResult,
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, StrBytes, TopicName, Uuid,
};
use highwater_protocol::{
    ApiKey, Call, DecodeError, EncodeError, ErrorCode, HeaderError, LENGTH_BYTES, Request,
    RequestHeader, Response,
};
use highwater_record::Buffer;

use super::configs::{SOURCE_DEFAULT, SOURCE_TOPIC, TOPIC_RESOURCE};
use crate::config::TOPIC_CONFIGS;
use crate::controller::{
    Answer, AssignedReplicas, Command, ConfigChanges, CreatedTopic, NewTopic, OwnedConfigChange,
    Refusal, RefusalReason, TopicId, TopicRef,
};

/// How long a client waits at least, whatever it says: less than an election could never be
/// waited out.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// How long a client waits at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a client waits whose request has no timeout.
const WAIT_USUAL: Duration = Duration::from_secs(30);

/// Why a forwarded request or its answer cannot be read. It was written by another node, so its
/// program is of another version, or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdminError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Body(#[from] DecodeError),
    #[error("{0} does not change topics")]
    OtherRequest(ApiKey),
}

/// A client's request that changes topics.
#[derive(Debug)]
pub(super) struct AdminRequest {
    header: RequestHeader,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Create(CreateTopicsRequest),
    /// With the topics as the newest version names them.
    Delete(DeleteTopicsRequest, Vec<DeleteTopicState>),
    Alter(IncrementalAlterConfigsRequest),
}

impl AdminRequest {
    /// The request in a frame, without its length.
    pub(super) fn decode(frame: &Buffer) -> Result<AdminRequest, AdminError> {
        let (header, at) = RequestHeader::decode(frame)?;
        let request = Request::decode(&header, frame, at)?;
        let key = header.key;
        AdminRequest::new(&header, request).ok_or(AdminError::OtherRequest(key))
    }

    /// The request, if it is one that changes topics.
    pub(super) fn new(header: &RequestHeader, request: Request<Buffer>) -> Option<AdminRequest> {
        let body = match request {
            Request::CreateTopics(request) => Body::Create(request),
            Request::DeleteTopics(request) => {
                let topics = deleted_topics(&request, header.version);
                Body::Delete(request, topics)
            }
            Request::IncrementalAlterConfigs(request) => Body::Alter(request),
            _ => return None,
        };
        let header = header.clone();
        Some(AdminRequest { header, body })
    }

    /// The request as a frame without its length, as [`decode`](Self::decode) takes it.
    pub(super) fn question(&self) -> Result<Buffer, EncodeError> {
        let chunks = match &self.body {
            Body::Create(request) => request.encode(&self.header),
            Body::Delete(request, _) => request.encode(&self.header),
            Body::Alter(request) => request.encode(&self.header),
        };
        Ok(Buffer::from(chunks?.concat()).slice(LENGTH_BYTES..))
    }

    /// The response in a whole frame, as [`answer`](Self::answer) makes it.
    pub(super) fn response(&self, frame: &Buffer) -> Result<Response, DecodeError> {
        let version = self.header.version;
        let frame = Bytes::from(frame.slice(LENGTH_BYTES.min(frame.len())..));
        Ok(match &self.body {
            Body::Create(_) => CreateTopicsRequest::decode_answer(version, &frame)?.into(),
            Body::Delete(..) => DeleteTopicsRequest::decode_answer(version, &frame)?.into(),
            Body::Alter(_) => {
                IncrementalAlterConfigsRequest::decode_answer(version, &frame)?.into()
            }
        })
    }

    /// How long the client waits.
    pub(super) fn wait(&self) -> Duration {
        match &self.body {
            Body::Create(request) => wait(request.timeout_ms),
            Body::Delete(request, _) => wait(request.timeout_ms),
            Body::Alter(_) => WAIT_USUAL,
        }
    }

    /// What the controller is to do.
    pub(super) fn command(&self) -> Command {
        match &self.body {
            Body::Create(request) => Command::CreateTopics {
                topics: request.topics.iter().map(new_topic).collect(),
                validate_only: request.validate_only,
            },
            Body::Delete(_, topics) => Command::DeleteTopics {
                topics: topics.iter().map(topic_ref).collect(),
            },
            Body::Alter(request) => Command::AlterConfigs {
                topics: request.resources.iter().filter_map(changes).collect(),
                validate_only: request.validate_only,
            },
        }
    }

    /// The response frame for the controller's answer.
    pub(super) fn answer(&self, answer: &Answer) -> Buffer {
        let response: Response = match (&self.body, answer) {
            (Body::Create(request), Answer::Created(topics)) => {
                let topics = request.topics.iter().zip(topics);
                let topics = topics.map(|(asked, created)| created_result(asked, created));
                CreateTopicsResponse::default()
                    .with_topics(topics.collect())
                    .into()
            }
            (Body::Delete(_, asked), Answer::Deleted(topics)) => {
                let topics = asked.iter().zip(topics);
                let topics = topics.map(|(asked, deleted)| match deleted {
                    Ok((name, id)) => deletable(asked)
                        .with_name(Some(topic_name(name.as_str())))
                        .with_topic_id(Uuid::from_u128(id.0)),
                    Err(refusal) => deletable(asked)
                        .with_error_code(refusal_code(refusal.reason).code())
                        .with_error_message(Some(text(&refusal.message))),
                });
                DeleteTopicsResponse::default()
                    .with_responses(topics.collect())
                    .into()
            }
            (Body::Alter(request), Answer::Altered(topics)) => {
                altered_response(request, topics).into()
            }
            (body, answer) => unreachable!("{answer:?} answers no {body:?}"),
        };
        self.encode(&response)
    }

    /// The response that says the same of everything that was asked for.
    pub(super) fn refuse_all(&self, code: ErrorCode, message: &str) -> Response {
        let refusal = Some(text(message));
        match &self.body {
            Body::Create(request) => {
                let topics = request.topics.iter().map(|topic| {
                    failed_creation(&topic.name, code).with_error_message(refusal.clone())
                });
                CreateTopicsResponse::default()
                    .with_topics(topics.collect())
                    .into()
            }
            Body::Delete(_, topics) => {
                let topics = topics.iter().map(|topic| {
                    deletable(topic)
                        .with_error_code(code.code())
                        .with_error_message(refusal.clone())
                });
                DeleteTopicsResponse::default()
                    .with_responses(topics.collect())
                    .into()
            }
            Body::Alter(request) => {
                let resources = request.resources.iter().map(|resource| {
                    resource_response(resource)
                        .with_error_code(code.code())
                        .with_error_message(refusal.clone())
                });
                IncrementalAlterConfigsResponse::default()
                    .with_responses(resources.collect())
                    .into()
            }
        }
    }

    fn encode(&self, response: &Response) -> Buffer {
        let (version, correlation_id) = (self.header.version, self.header.correlation_id);
        let chunks = response
            .encode(version, correlation_id)
            .expect("the version was decoded, and what is answered is bounded by what was asked");
        Buffer::from(chunks.concat())
    }
}

/// For a part of a command that the controller has refused.
fn refusal_code(reason: RefusalReason) -> ErrorCode {
    match reason {
        RefusalReason::InvalidTopic => ErrorCode::InvalidTopicException,
        RefusalReason::TopicExists => ErrorCode::TopicAlreadyExists,
        RefusalReason::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        RefusalReason::UnknownTopicId => ErrorCode::UnknownTopicId,
        RefusalReason::InvalidPartitions => ErrorCode::InvalidPartitions,
        RefusalReason::InvalidReplication => ErrorCode::InvalidReplicationFactor,
        RefusalReason::InvalidAssignment => ErrorCode::InvalidReplicaAssignment,
        RefusalReason::InvalidConfig => ErrorCode::InvalidConfig,
        RefusalReason::InvalidRequest => ErrorCode::InvalidRequest,
        RefusalReason::Limit => ErrorCode::PolicyViolation,
        RefusalReason::Identity => ErrorCode::DuplicateBrokerRegistration,
    }
}

fn wait(timeout_ms: i32) -> Duration {
    let ms = u64::try_from(timeout_ms).unwrap_or(0);
    Duration::from_millis(ms).clamp(WAIT_MIN, WAIT_MAX)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignment = topic.assignments.iter().map(|assigned| AssignedReplicas {
        partition: assigned.partition_index,
        replicas: assigned.broker_ids.iter().map(|id| id.0).collect(),
    });
    let configs = topic.configs.iter().map(|config| {
        let value = config.value.as_ref().map(ToString::to_string);
        (config.name.to_string(), value)
    });
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication: topic.replication_factor,
        assignment: assignment.collect(),
        configs: configs.collect(),
    }
}

fn created_result(
    asked: &CreatableTopic,
    created: &Result<CreatedTopic, Refusal>,
) -> CreatableTopicResult {
    let created = match created {
        Ok(created) => created,
        Err(refusal) => {
            return failed_creation(&asked.name, refusal_code(refusal.reason))
                .with_error_message(Some(text(&refusal.message)));
        }
    };
    let configs = TOPIC_CONFIGS.iter().map(|key| {
        let own = created.configs.own_value(key).is_some();
        let value = created.configs.get(key, created.replication);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_read_only(key.is_read_only())
            .with_config_source(if own { SOURCE_TOPIC } else { SOURCE_DEFAULT })
    });
    CreatableTopicResult::default()
        .with_name(asked.name.clone())
        .with_topic_id(Uuid::from_u128(created.id.0))
        .with_num_partitions(i32::try_from(created.partitions).expect("bounded"))
        .with_replication_factor(i16::try_from(created.replication).expect("bounded"))
        .with_configs(Some(configs.collect()))
}

fn failed_creation(name: &TopicName, code: ErrorCode) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(code.code())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

/// Version 6 (KIP-516) names topics one way, older ones another.
fn deleted_topics(request: &DeleteTopicsRequest, version: i16) -> Vec<DeleteTopicState> {
    if version >= 6 {
        return request.topics.clone();
    }
    let names = request.topic_names.iter().cloned();
    names
        .map(|name| DeleteTopicState::default().with_name(Some(name)))
        .collect()
}

fn topic_ref(topic: &DeleteTopicState) -> TopicRef {
    match &topic.name {
        Some(name) => TopicRef::Name(name.to_string()),
        None => TopicRef::Id(TopicId(topic.topic_id.as_u128())),
    }
}

fn deletable(asked: &DeleteTopicState) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(asked.name.clone())
        .with_topic_id(asked.topic_id)
}

/// Kafka's numbers of what is to be done with a config (KIP-339).
mod operation {
    pub(super) const SET: i8 = 0;
    pub(super) const DELETE: i8 = 1;
    pub(super) const APPEND: i8 = 2;
    pub(super) const SUBTRACT: i8 = 3;
}

/// The changes to a topic; `None` if the resource is no topic, or what is to be done is unclear.
fn changes(resource: &AlterConfigsResource) -> Option<ConfigChanges> {
    if resource.resource_type != TOPIC_RESOURCE {
        return None;
    }
    let changes = resource.configs.iter().map(|config| {
        let value = || config.value.as_ref().map(ToString::to_string);
        let change = match config.config_operation {
            operation::SET => OwnedConfigChange::Set(value()?),
            operation::DELETE => OwnedConfigChange::Unset,
            operation::APPEND => OwnedConfigChange::Append(value()?),
            operation::SUBTRACT => OwnedConfigChange::Subtract(value()?),
            _ => return None,
        };
        Some((config.name.to_string(), change))
    });
    Some(ConfigChanges {
        topic: resource.resource_name.to_string(),
        changes: changes.collect::<Option<_>>()?,
    })
}

/// Why a resource has no [`changes`].
fn unclear(resource: &AlterConfigsResource) -> (ErrorCode, &'static str) {
    if resource.resource_type == TOPIC_RESOURCE {
        let message = "a value is missing, or what is to be done is none of SET, DELETE, \
                       APPEND, SUBTRACT";
        (ErrorCode::InvalidConfig, message)
    } else {
        let message = "only topics' configs can be changed; nodes have theirs in a file";
        (ErrorCode::InvalidRequest, message)
    }
}

fn resource_response(resource: &AlterConfigsResource) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

fn altered_response(
    request: &IncrementalAlterConfigsRequest,
    topics: &[Result<(), Refusal>],
) -> IncrementalAlterConfigsResponse {
    let mut topics = topics.iter();
    let responses = request.resources.iter().map(|resource| {
        let response = resource_response(resource);
        let (code, message) = if changes(resource).is_none() {
            unclear(resource)
        } else {
            match topics.next().expect("an answer for each that was asked") {
                Ok(()) => return response,
                Err(refusal) => (refusal_code(refusal.reason), refusal.message.as_str()),
            }
        };
        response
            .with_error_code(code.code())
            .with_error_message(Some(text(message)))
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

/// A request to create topics with everything left open, as a frame: for topics that come into
/// being because somebody asked for them.
pub(super) fn auto_creation(names: &[StrBytes]) -> Buffer {
    let key = ApiKey::CreateTopics;
    let header = RequestHeader {
        key,
        version: key.versions().max,
        correlation_id: 0,
        client_id: None,
    };
    let topics = names.iter().map(|name| {
        CreatableTopic::default()
            .with_name(TopicName(name.clone()))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
    });
    let request = CreateTopicsRequest::default().with_topics(topics.collect());
    let chunks = request
        .encode(&header)
        .expect("every field is in this version");
    Buffer::from(chunks.concat()).slice(LENGTH_BYTES..)
}

/// What became of [`auto_creation`]: names and codes.
pub(super) fn auto_created(frame: &Buffer) -> Vec<(StrBytes, ErrorCode)> {
    let version = ApiKey::CreateTopics.versions().max;
    let answer = Bytes::from(frame.slice(LENGTH_BYTES.min(frame.len())..));
    match CreateTopicsRequest::decode_answer(version, &answer) {
        Ok(response) => {
            let topics = response.topics.into_iter();
            topics
                .map(|topic| (topic.name.0, ErrorCode::from_code(topic.error_code)))
                .collect()
        }
        Err(error) => {
            tracing::warn!(%error, "the controller's answer cannot be read");
            Vec::new()
        }
    }
}

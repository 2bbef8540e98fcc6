//! Topics, configurations, offsets, the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::messages::{
    AlterConfigsResource, AlterableConfig, CreatableTopic, CreatableTopicConfig,
    CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, StrBytes,
};
use highwater_protocol::{ApiKey, ErrorCode};
use highwater_record::{Offset, TopicName, TopicPartition};

use crate::StartAt;
use crate::cluster::{Broker, Cluster, Lane, TopicDescription, wire_name};
use crate::error::{AdminError, CallError};
use crate::offsets::{OffsetQuery, list_offsets};
use crate::quorum::{QuorumDescription, describe_quorums};

/// How long the cluster may take to carry out a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Kafka's number for configurations of topics.
const TOPIC_RESOURCE: i8 = 2;

/// Kafka's number for configurations of a broker.
const BROKER_RESOURCE: i8 = 4;

/// Kafka's number of the source of what was set for a topic.
const SET_FOR_TOPIC: i8 = 1;

/// Kafka's number of the source of what stands in a broker's configuration file.
const SET_FOR_BROKER: i8 = 4;

/// Tasks of administration. Made by [`crate::Client::admin`].
///
/// ```no_run
/// # async fn run(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use highwater_client::{NewTopic, TopicName};
///
/// let flights = TopicName::new("flights")?;
/// let admin = client.admin();
/// admin.create_topic(NewTopic::new(&flights).partitions(6).config("retention.ms", "-1")).await?;
/// println!("{:?}", admin.describe_topic(&flights).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

/// A topic to be created.
#[derive(Debug, Clone)]
#[must_use]
pub struct NewTopic {
    name: TopicName,
    partitions: i32,
    replication_factor: i16,
    configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the cluster's default numbers of partitions and replicas.
    pub fn new(name: &TopicName) -> Self {
        const CLUSTERS_DEFAULT: i16 = -1;
        Self {
            name: name.clone(),
            partitions: CLUSTERS_DEFAULT.into(),
            replication_factor: CLUSTERS_DEFAULT,
            configs: BTreeMap::new(),
        }
    }

    /// How many partitions it has.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self
    }

    /// How many replicas each partition has.
    pub fn replication_factor(mut self, replicas: u16) -> Self {
        self.replication_factor = i16::try_from(replicas).unwrap_or(i16::MAX);
        self
    }

    /// Sets a configuration, by Kafka's names.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// A configuration of a topic or a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value, if the broker says it.
    pub value: Option<String>,
    /// Whether it was not set for this topic or broker.
    pub is_default: bool,
    /// Whether it cannot be changed.
    pub is_read_only: bool,
    /// What it is for, where the broker says so.
    pub documentation: Option<String>,
}

/// A change of one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets a value.
    Set {
        /// Of which configuration.
        name: String,
        /// To what.
        value: String,
    },
    /// Goes back to the default.
    Delete {
        /// Of which configuration.
        name: String,
    },
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id, if it has one.
    pub cluster_id: Option<String>,
    /// The broker that takes changes, if there is one now.
    pub controller: Option<i32>,
    /// Its brokers, by id.
    pub brokers: Vec<Broker>,
}

impl Admin {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Creates a topic. Ends when all brokers that can be asked know it, or after some seconds.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with `TOPIC_ALREADY_EXISTS` if it is there, and with what else the
    /// cluster does not like.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<(), AdminError> {
        let subject = format!("topic {}", topic.name);
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| {
                CreatableTopicConfig::default()
                    .with_name(owned(name))
                    .with_value(Some(owned(value)))
            })
            .collect();
        let name = wire_name(&topic.name);
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(millis(CHANGE_TIMEOUT))
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(name.clone())
                    .with_num_partitions(topic.partitions)
                    .with_replication_factor(topic.replication_factor)
                    .with_configs(configs),
            ]);
        let answer = self.change(&request).await?;
        let result = answer.topics.iter().find(|result| result.name == name);
        let result = result.ok_or_else(|| missing(&subject))?;
        check(subject, result.error_code, result.error_message.as_ref())?;
        self.cluster.settle_topic(&topic.name).await;
        Ok(())
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with `UNKNOWN_TOPIC_OR_PARTITION` if it is not there.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        let subject = format!("topic {topic}");
        let name = wire_name(topic);
        // Version 6 has a list of its own, and the encoder refuses a list that its version does
        // not have: so the names go where the agreed version wants them.
        let controller = self.cluster.controller_connection().await?;
        let timeout_ms = millis(CHANGE_TIMEOUT);
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
        let request = match controller.version(ApiKey::DeleteTopics) {
            Some(version) if version >= 6 => request.with_topics(vec![
                DeleteTopicState::default().with_name(Some(name.clone())),
            ]),
            _ => request.with_topic_names(vec![name.clone()]),
        };
        let answer = controller.call_within(&request, self.timeout()).await?;
        let result = answer
            .responses
            .iter()
            .find(|result| result.name.as_ref() == Some(&name));
        let result = result.ok_or_else(|| missing(&subject))?;
        check(subject, result.error_code, result.error_message.as_ref())
    }

    /// All topics.
    ///
    /// # Errors
    /// [`AdminError::Call`] if no broker answers.
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicDescription>>, AdminError> {
        Ok(self.cluster.all_topics().await?)
    }

    /// A topic as it is now. Does not create it.
    ///
    /// # Errors
    /// [`AdminError::Metadata`] if it is not there.
    pub async fn describe_topic(
        &self,
        topic: &TopicName,
    ) -> Result<Arc<TopicDescription>, AdminError> {
        // Asking for all topics never creates one.
        let topics = self.cluster.all_topics().await?;
        topics
            .into_iter()
            .find(|described| described.name == *topic)
            .ok_or_else(|| {
                AdminError::Metadata(crate::MetadataError::UnknownTopic {
                    topic: topic.to_string(),
                })
            })
    }

    /// The configurations of a topic, with their defaults.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with `UNKNOWN_TOPIC_OR_PARTITION` if it is not there.
    pub async fn describe_configs(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<ConfigEntry>, AdminError> {
        let request = configs_of(TOPIC_RESOURCE, topic.as_str());
        let (_, answer) = self.cluster.call_any(&request).await?;
        config_entries(format!("topic {topic}"), &answer, SET_FOR_TOPIC)
    }

    /// The settings of a broker, as it says them itself. The broker must be one that
    /// [`describe_cluster`](Admin::describe_cluster) or the topics have named.
    ///
    /// # Errors
    /// [`AdminError::Call`] if it does not answer.
    pub async fn describe_broker_configs(
        &self,
        broker: i32,
    ) -> Result<Vec<ConfigEntry>, AdminError> {
        let request = configs_of(BROKER_RESOURCE, &broker.to_string());
        let connection = self.cluster.connection(broker, Lane::Control).await;
        let answer = connection.map_err(CallError::from)?.call(&request).await?;
        config_entries(format!("broker {broker}"), &answer, SET_FOR_BROKER)
    }

    /// How far the replicas of partitions are, as their leaders know: an answer for each, in
    /// order. Leaders are asked that the last description of the topics has named.
    ///
    /// For each partition: [`CallError::Unsupported`] from a broker that does not know the
    /// request, [`CallError::Refused`] from one that tells it of its own metadata only, as Kafka's
    /// do, or that leads no more.
    pub async fn describe_quorums(
        &self,
        partitions: &[TopicPartition],
    ) -> Vec<Result<QuorumDescription, CallError>> {
        describe_quorums(&self.cluster, partitions).await
    }

    /// Changes configurations of a topic; those that are not named stay as they are.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if the topic or a configuration is not there, or a value is not
    /// allowed; then nothing was changed.
    pub async fn alter_configs(
        &self,
        topic: &TopicName,
        changes: &[ConfigChange],
    ) -> Result<(), AdminError> {
        let subject = format!("topic {topic}");
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(owned(topic.as_str()))
                .with_configs(changes.iter().map(alterable).collect()),
        ]);
        let answer = self.change(&request).await?;
        let result = answer.responses.first().ok_or_else(|| missing(&subject))?;
        check(subject, result.error_code, result.error_message.as_ref())
    }

    /// The brokers of the cluster, and which takes changes.
    ///
    /// # Errors
    /// [`AdminError::Call`] if no broker answers.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let connection = self.cluster.any_connection().await;
        let connection = connection.map_err(CallError::from)?;
        if connection.version(ApiKey::DescribeCluster).is_none() {
            // Brokers before Kafka 2.8 say it in their metadata.
            self.cluster.refresh(&[]).await?;
            let metadata = self.cluster.metadata();
            return Ok(ClusterDescription {
                cluster_id: metadata.cluster_id.clone(),
                controller: metadata.controller,
                brokers: metadata.brokers.values().cloned().collect(),
            });
        }
        let answer = connection.call(&DescribeClusterRequest::default()).await?;
        let message = answer.error_message.as_ref();
        check("the cluster".to_owned(), answer.error_code, message)?;
        let brokers = answer.brokers.iter().filter_map(|broker| {
            Some(Broker {
                id: broker.broker_id.0,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).ok()?,
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
        });
        Ok(ClusterDescription {
            cluster_id: Some(answer.cluster_id.to_string()),
            controller: Some(answer.controller_id.0).filter(|id| *id >= 0),
            brokers: brokers.collect(),
        })
    }

    /// The offset at which reading a partition from `at` would begin. For [`StartAt::Latest`]
    /// that is the end of what is committed.
    ///
    /// # Errors
    /// [`AdminError::Call`] if the leader does not answer, or has no such partition.
    pub async fn offset(
        &self,
        partition: &TopicPartition,
        at: StartAt,
    ) -> Result<Offset, AdminError> {
        let timestamp = match at.timestamp() {
            Ok(offset) => return Ok(offset),
            Err(timestamp) => timestamp,
        };
        let query = OffsetQuery {
            partition: partition.clone(),
            timestamp,
        };
        let answers = list_offsets(&self.cluster, &[query]).await;
        let answer = answers.into_iter().next();
        Ok(answer.expect("one question has one answer")?)
    }

    fn timeout(&self) -> Duration {
        self.cluster.options.request_timeout + CHANGE_TIMEOUT
    }

    async fn change<C: highwater_protocol::Call>(
        &self,
        request: &C,
    ) -> Result<C::Answer, CallError> {
        let connection = self.cluster.controller_connection().await?;
        connection.call_within(request, self.timeout()).await
    }
}

fn configs_of(kind: i8, name: &str) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(vec![
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(owned(name))
            .with_configuration_keys(None),
    ])
}

fn config_entries(
    subject: String,
    answer: &DescribeConfigsResponse,
    set_here: i8,
) -> Result<Vec<ConfigEntry>, AdminError> {
    let result = answer.results.first().ok_or_else(|| missing(&subject))?;
    check(subject, result.error_code, result.error_message.as_ref())?;
    let entries = result.configs.iter().map(|config| ConfigEntry {
        name: config.name.to_string(),
        value: config.value.as_ref().map(ToString::to_string),
        is_default: config.config_source != set_here,
        is_read_only: config.read_only,
        documentation: config.documentation.as_ref().map(ToString::to_string),
    });
    Ok(entries.collect())
}

fn alterable(change: &ConfigChange) -> AlterableConfig {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let (name, operation, value) = match change {
        ConfigChange::Set { name, value } => (name, SET, Some(owned(value))),
        ConfigChange::Delete { name } => (name, DELETE, None),
    };
    AlterableConfig::default()
        .with_name(owned(name))
        .with_config_operation(operation)
        .with_value(value)
}

fn check(subject: String, code: i16, message: Option<&StrBytes>) -> Result<(), AdminError> {
    ErrorCode::from_code(code)
        .into_result()
        .map_err(|error| AdminError::Refused {
            subject,
            error,
            message: message.map(ToString::to_string),
        })
}

fn missing(subject: &str) -> AdminError {
    AdminError::Missing {
        subject: subject.to_owned(),
    }
}

fn owned(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

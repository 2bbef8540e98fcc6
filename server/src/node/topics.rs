//! What the embedding service asks about topics: that they are there, and who leads.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use highwater_engine::{GroupId, Op};
use highwater_protocol::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, StrBytes,
};
use highwater_protocol::{Call, ErrorCode, LENGTH_BYTES, RequestHeader};
use highwater_record::{Buffer, Offset, TopicName, TopicPartition};
use tokio::sync::oneshot;

use super::{Node, NodeError};
use crate::mailbox::{Located, Mail, pause};

/// How long one attempt to create a topic may take.
const CREATE_TIMEOUT_MS: i32 = 30_000;

/// How long to wait after an attempt that the cluster could not decide: some of them end at once.
const CREATE_RETRY: Duration = Duration::from_millis(100);

impl Node {
    /// Creates a topic with as many replicas as the cluster gives by default. When this returns,
    /// the cluster has decided so, and this node knows it: an [`append`](Node::append) finds the
    /// partition.
    ///
    /// # Errors
    /// [`NodeError::Refused`] with the reason. With [`ErrorCode::RequestTimedOut`] the cluster
    /// had nobody who could decide, for 30 s, or did not say so in time: the topic may be there.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> Result<(), NodeError> {
        let answer = self
            .request(&create_request(name, partitions, configs))
            .await?;
        let result = answer.topics.first();
        let code = result.map_or(ErrorCode::UnknownServerError, |topic| {
            ErrorCode::from_code(topic.error_code)
        });
        let message = result.and_then(|topic| topic.error_message.as_ref());
        match code {
            ErrorCode::None => Ok(()),
            code => Err(NodeError::Refused {
                code,
                message: message.map_or_else(String::new, ToString::to_string),
            }),
        }
    }

    /// Sees to it that a topic is there: creates it if there is none of this name, and leaves an
    /// existing one as it is. When this returns, this node knows the topic and its own replicas
    /// of it are open. What a service calls first, on every node and at every start.
    ///
    /// It waits for as long as the cluster has no majority, or fewer nodes than replicas, as when
    /// the others have not been started yet; drop the future to stop waiting.
    ///
    /// # Errors
    /// [`NodeError::Refused`] with the reason; [`NodeError::Failed`].
    pub async fn ensure_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> Result<(), NodeError> {
        let topic = TopicName::new(name).map_err(|error| NodeError::Records(error.to_string()))?;
        let partition = |partition| TopicPartition {
            topic: topic.clone(),
            partition,
        };
        while self.located(&partition(0)).await?.is_none() {
            match self.create_topic(name, partitions, configs).await {
                Err(NodeError::Refused {
                    code: ErrorCode::RequestTimedOut | ErrorCode::InvalidReplicationFactor,
                    ..
                }) => pause(CREATE_RETRY).await,
                // Answers come once this node has applied what they rest on, so it is known now.
                Ok(())
                | Err(NodeError::Refused {
                    code: ErrorCode::TopicAlreadyExists,
                    ..
                }) => break,
                Err(error) => return Err(error),
            }
        }
        for number in 0..partitions {
            if let Some(located) = self.located(&partition(number)).await?
                && self.hosts(&located)
            {
                self.opened(located.group).await?;
            }
        }
        Ok(())
    }

    /// Waits until somebody leads a partition, and tells who: [`id`](Node::id) if it is this
    /// node, which is then certain to lead (it costs a round trip to a majority). Others may have
    /// been succeeded since.
    ///
    /// # Errors
    /// [`NodeError::NotFound`], [`NodeError::NoReplica`]; others as the replica stands.
    pub async fn leader(&self, partition: &TopicPartition) -> Result<u32, NodeError> {
        let group = self.locate(partition).await?;
        loop {
            // Both reach the shard in this order, so no change falls between them.
            let above = Offset::MAX;
            let changed = pin!(self.ask(group, Op::WatchOffset { above }));
            let point = pin!(self.ask(group, Op::Barrier));
            let changed = match select(changed, point).await {
                Either::Left((changed, _)) => changed,
                Either::Right((Ok(_), _)) => return Ok(self.id()),
                Either::Right((Err(NodeError::NotLeader { leader: None }), changed)) => {
                    changed.await
                }
                Either::Right((Err(NodeError::NotLeader { leader: Some(id) }), _)) => {
                    return Ok(id);
                }
                Either::Right((Err(error), _)) => return Err(error),
            };
            match changed {
                // The second: a partition that never had a leader has waited in vain for one.
                Ok(_) | Err(NodeError::NotLeader { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The partition's group, if there is a replica of it here.
    pub(super) async fn locate(&self, partition: &TopicPartition) -> Result<GroupId, NodeError> {
        match self.located(partition).await? {
            None => Err(NodeError::NotFound(partition.clone())),
            Some(located) if self.hosts(&located) => Ok(located.group),
            Some(_) => Err(NodeError::NoReplica(partition.clone())),
        }
    }

    async fn located(&self, partition: &TopicPartition) -> Result<Option<Located>, NodeError> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail::Locate {
            partition: partition.clone(),
            reply,
        };
        self.send(0, mail).await?;
        answer.await.map_err(|_| self.owner.gone())
    }

    fn hosts(&self, located: &Located) -> bool {
        located.replicas.iter().any(|node| node.0 == self.id())
    }

    /// Waits until this node's replica of a group is open.
    async fn opened(&self, group: GroupId) -> Result<(), NodeError> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail::AwaitReplica { group, reply };
        self.send(self.shard_of(group), mail).await?;
        answer.await.map_err(|_| self.owner.gone())
    }

    /// A Kafka request of the process itself, in its highest version.
    async fn request<R: Call>(&self, request: &R) -> Result<R::Answer, NodeError> {
        let header = RequestHeader {
            key: R::KEY,
            version: R::KEY.versions().max,
            correlation_id: 0,
            client_id: None,
        };
        let frame = request.encode(&header);
        let frame = frame.map_err(|error| NodeError::Records(error.to_string()))?;
        let frame = Buffer::from(Bytes::from(frame.concat()).slice(LENGTH_BYTES..));
        let (reply, answer) = oneshot::channel();
        self.send(0, Mail::Request { frame, reply }).await?;
        let chunks = answer.await.map_err(|_| self.owner.gone())?;
        let answer = Bytes::from(chunks.concat()).slice(LENGTH_BYTES..);
        R::decode_answer(header.version, &answer)
            .map_err(|error| NodeError::Failed(format!("an answer of its own: {error}")))
    }
}

fn create_request(name: &str, partitions: u32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(text(name).into())
        .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
        .with_replication_factor(-1)
        .with_configs(configs.collect());
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(CREATE_TIMEOUT_MS)
}

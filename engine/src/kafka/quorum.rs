//! DescribeQuorum: how far each replica of a partition is, as its leader knows (KIP-595).
//!
//! Kafka answers it for its metadata log only. Here every partition is a quorum of the same kind,
//! so it is answered for all, and for Kafka's tools under the name of that log too.

use highwater_protocol::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, QuorumPartitionResponse, QuorumTopicResponse,
    ReplicaState,
};
use highwater_protocol::{ErrorCode, Response};

use super::cluster::broker_id;
use super::errors::code_of;
use super::handler::Directory;
use super::offsets::Question;
use crate::ops::{CONTROLLER, GroupId, Op, OpResult, Outcome, Quorum, QuorumReplica};

/// What Kafka calls the log of the cluster's metadata: the controller's group, its partition 0.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Kafka's word for an offset or a time that is not known.
const UNKNOWN: i64 = -1;

/// Kafka's word for an epoch that is not known.
const NO_EPOCH: i32 = -1;

/// The question.
#[derive(Debug)]
pub(crate) struct Quorums {
    pub(crate) request: DescribeQuorumRequest,
}

impl Question for Quorums {
    type Part = QuorumPartitionResponse;

    fn partitions(&self) -> Vec<(&str, i32, Result<Op, ErrorCode>)> {
        let topics = self.request.topics.iter();
        topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| (&**topic.topic_name, p.partition_index, Ok(Op::Quorum)))
            })
            .collect()
    }

    fn group(
        &self,
        directory: &dyn Directory,
        topic: &str,
        index: i32,
    ) -> Result<GroupId, ErrorCode> {
        match (topic, index) {
            (METADATA_TOPIC, 0) => Ok(CONTROLLER),
            _ => directory.partition(topic, index).map(|found| found.group),
        }
    }

    fn refused(&self, index: i32, code: ErrorCode) -> Self::Part {
        QuorumPartitionResponse::default()
            .with_partition_index(index)
            .with_error_code(code.code())
            .with_leader_id(broker_id(None))
            .with_leader_epoch(NO_EPOCH)
            .with_high_watermark(UNKNOWN)
    }

    fn told(&self, index: i32, result: OpResult) -> Self::Part {
        match result {
            Ok(Outcome::Quorum(quorum)) => described(index, &quorum),
            Ok(other) => unreachable!("Quorum is answered by Quorum, not {other:?}"),
            Err(error) => self.refused(index, code_of(&error)),
        }
    }

    fn response(&self, mut parts: impl Iterator<Item = Self::Part>) -> Response {
        let topics = self.request.topics.iter().map(|topic| {
            QuorumTopicResponse::default()
                .with_topic_name(topic.topic_name.clone())
                .with_partitions(parts.by_ref().take(topic.partitions.len()).collect())
        });
        DescribeQuorumResponse::default()
            .with_topics(topics.collect())
            .into()
    }
}

fn described(index: i32, quorum: &Quorum) -> QuorumPartitionResponse {
    QuorumPartitionResponse::default()
        .with_partition_index(index)
        .with_leader_id(broker_id(Some(quorum.leader)))
        .with_leader_epoch(quorum.leader_epoch.to_wire())
        .with_high_watermark(quorum.high_watermark.to_wire())
        .with_current_voters(quorum.voters.iter().map(replica).collect())
}

/// When a replica was last heard or caught up is not kept on a clock that others could read.
fn replica(replica: &QuorumReplica) -> ReplicaState {
    let end = replica.log_end_offset;
    ReplicaState::default()
        .with_replica_id(broker_id(Some(replica.node)))
        .with_log_end_offset(end.map_or(UNKNOWN, |end| end.to_wire()))
        .with_last_fetch_timestamp(UNKNOWN)
        .with_last_caught_up_timestamp(UNKNOWN)
}

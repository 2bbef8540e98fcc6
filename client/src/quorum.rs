//! How far the replicas of partitions are.

use std::collections::BTreeMap;

use highwater_protocol::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, QuorumPartition, QuorumPartitionResponse,
    QuorumTopic,
};
use highwater_protocol::{ApiKey, ErrorCode};
use highwater_record::{Offset, TopicPartition};

use crate::cluster::{Cluster, Lane, wire_name};
use crate::error::CallError;
use crate::offsets::no_leader;

/// How many partitions one request asks about; more are asked in several.
const PARTITIONS_PER_REQUEST_MAX: usize = 1_000;

/// A partition's replicas, as its leader knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumDescription {
    /// Who leads, and has answered.
    pub leader: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    /// Its replicas, the leader among them.
    pub voters: Vec<ReplicaProgress>,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The broker that holds it.
    pub broker: i32,
    /// The offset behind what it holds; nothing if the leader does not know.
    pub log_end_offset: Option<Offset>,
}

impl QuorumDescription {
    /// How many records a replica is behind the leader; nothing if that is not known.
    #[must_use]
    pub fn lag(&self, broker: i32) -> Option<u64> {
        let end = |broker| {
            let mut voters = self.voters.iter();
            voters.find(|voter| voter.broker == broker)?.log_end_offset
        };
        let (own, leaders) = (end(broker)?, end(self.leader)?);
        Some(own.distance_to(leaders).unwrap_or(0))
    }
}

/// Asks the leaders that the metadata names; an answer for each partition, in order.
pub(crate) async fn describe_quorums(
    cluster: &Cluster,
    partitions: &[TopicPartition],
) -> Vec<Result<QuorumDescription, CallError>> {
    let metadata = cluster.metadata();
    let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (index, of) in partitions.iter().enumerate() {
        if let Some(leader) = metadata.leader(&of.topic, of.partition) {
            by_leader.entry(leader).or_default().push(index);
        }
    }
    let mut answers = vec![Err(no_leader()); partitions.len()];
    for (leader, indexes) in by_leader {
        for indexes in indexes.chunks(PARTITIONS_PER_REQUEST_MAX) {
            let asked: Vec<&TopicPartition> = indexes.iter().map(|&at| &partitions[at]).collect();
            let told = ask_leader(cluster, leader, &asked).await;
            for (&index, answer) in indexes.iter().zip(told) {
                answers[index] = answer;
            }
        }
    }
    answers
}

async fn ask_leader(
    cluster: &Cluster,
    leader: i32,
    partitions: &[&TopicPartition],
) -> Vec<Result<QuorumDescription, CallError>> {
    let connection = match cluster.connection(leader, Lane::Control).await {
        Ok(connection) => connection,
        Err(error) => return vec![Err(error.into()); partitions.len()],
    };
    let answer = match connection.call(&request(partitions)).await {
        Ok(answer) => answer,
        Err(error) => return vec![Err(error); partitions.len()],
    };
    let refused = |error| connection.refused(ApiKey::DescribeQuorum, error);
    let top = ErrorCode::from_code(answer.error_code).into_result();
    if let Err(error) = top {
        return vec![Err(refused(error)); partitions.len()];
    }
    partitions
        .iter()
        .map(|of| described(find(&answer, of)).map_err(refused))
        .collect()
}

fn request(partitions: &[&TopicPartition]) -> DescribeQuorumRequest {
    let mut topics: Vec<QuorumTopic> = Vec::new();
    for of in partitions {
        let index = i32::try_from(of.partition).unwrap_or(i32::MAX);
        let partition = QuorumPartition::default().with_partition_index(index);
        let name = wire_name(&of.topic);
        match topics.last_mut().filter(|topic| topic.topic_name == name) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(
                QuorumTopic::default()
                    .with_topic_name(name)
                    .with_partitions(vec![partition]),
            ),
        }
    }
    DescribeQuorumRequest::default().with_topics(topics)
}

fn find<'a>(
    answer: &'a DescribeQuorumResponse,
    of: &TopicPartition,
) -> Option<&'a QuorumPartitionResponse> {
    let mut topics = answer.topics.iter();
    let topic = topics.find(|topic| **topic.topic_name == *of.topic.as_str())?;
    let mut partitions = topic.partitions.iter();
    partitions.find(|found| u32::try_from(found.partition_index) == Ok(of.partition))
}

fn described(found: Option<&QuorumPartitionResponse>) -> Result<QuorumDescription, ErrorCode> {
    let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    ErrorCode::from_code(found.error_code).into_result()?;
    let voters = found.current_voters.iter().map(|voter| ReplicaProgress {
        broker: voter.replica_id.0,
        log_end_offset: Offset::from_wire(voter.log_end_offset),
    });
    Ok(QuorumDescription {
        leader: found.leader_id.0,
        leader_epoch: found.leader_epoch,
        high_watermark: Offset::from_wire(found.high_watermark).unwrap_or(Offset::ZERO),
        voters: voters.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(broker: i32, end: Option<u64>) -> ReplicaProgress {
        ReplicaProgress {
            broker,
            log_end_offset: end.map(Offset),
        }
    }

    #[test]
    fn a_lag_is_told_where_both_ends_are_known() {
        let quorum = QuorumDescription {
            leader: 1,
            leader_epoch: 3,
            high_watermark: Offset(9),
            voters: vec![voter(1, Some(10)), voter(2, Some(7)), voter(3, None)],
        };
        let lags = [1, 2, 3, 4].map(|broker| quorum.lag(broker));
        assert_eq!(lags, [Some(0), Some(3), None, None]);
    }

    #[test]
    fn what_is_missing_or_refused_is_an_error() {
        assert_eq!(described(None), Err(ErrorCode::UnknownTopicOrPartition));
        let code = ErrorCode::NotLeaderOrFollower;
        let refused = QuorumPartitionResponse::default().with_error_code(code.code());
        assert_eq!(described(Some(&refused)), Err(code));
    }
}

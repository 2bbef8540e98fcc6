//! Where partitions begin and end, and where a time lies in them.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use highwater_protocol::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_protocol::messages::{ListOffsetsPartitionResponse, ListOffsetsResponse};
use highwater_protocol::{ApiKey, ErrorCode};
use highwater_record::{Offset, TopicPartition};

use crate::cluster::{Cluster, Lane, wire_name};
use crate::error::CallError;

/// Kafka's timestamp for the end of a partition.
const LATEST: i64 = -1;

/// A question about one partition.
#[derive(Debug, Clone)]
pub(crate) struct OffsetQuery {
    pub(crate) partition: TopicPartition,
    /// Milliseconds since the Unix epoch, -1 for the end, -2 for the beginning.
    pub(crate) timestamp: i64,
}

/// Asks the leaders; one answer for each question, in order. A time behind the last record is
/// answered with the end.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    queries: &[OffsetQuery],
) -> Vec<Result<Offset, CallError>> {
    let mut answers = ask(cluster, queries).await;
    let beyond: Vec<usize> = (0..queries.len())
        .filter(|&index| answers[index] == Ok(None))
        .collect();
    if !beyond.is_empty() {
        let ends: Vec<_> = beyond
            .iter()
            .map(|&index| OffsetQuery {
                partition: queries[index].partition.clone(),
                timestamp: LATEST,
            })
            .collect();
        for (index, end) in beyond.into_iter().zip(ask(cluster, &ends).await) {
            answers[index] = end;
        }
    }
    answers
        .into_iter()
        .map(|answer| answer.map(|offset| offset.unwrap_or(Offset::ZERO)))
        .collect()
}

/// As [`list_offsets`], with nothing for a time behind the last record.
async fn ask(cluster: &Cluster, queries: &[OffsetQuery]) -> Vec<Result<Option<Offset>, CallError>> {
    let mut answers = vec![Ok(None); queries.len()];
    let mut by_leader: BTreeMap<Option<i32>, Vec<usize>> = BTreeMap::new();
    let mut topics: Vec<_> = queries
        .iter()
        .map(|of| of.partition.topic.clone())
        .collect();
    topics.sort();
    topics.dedup();
    let unknown = |metadata: &crate::cluster::Metadata| {
        queries.iter().any(|query| {
            let of = &query.partition;
            metadata.leader(&of.topic, of.partition).is_none()
        })
    };
    if unknown(&cluster.metadata())
        && let Err(error) = cluster.refresh(&topics).await
    {
        return vec![Err(error); queries.len()];
    }
    let metadata = cluster.metadata();
    for (index, query) in queries.iter().enumerate() {
        let leader = metadata.leader(&query.partition.topic, query.partition.partition);
        by_leader.entry(leader).or_default().push(index);
    }
    // All at once: a broker that is dead costs its own time-out, not the others' too.
    let asked = by_leader.into_iter().map(|(leader, indexes)| async move {
        let asked: Vec<&OffsetQuery> = indexes.iter().map(|&index| &queries[index]).collect();
        let results = match leader {
            Some(leader) => ask_leader(cluster, leader, &asked).await,
            None => vec![Err(no_leader()); asked.len()],
        };
        (indexes, results)
    });
    let mut stale = false;
    for (indexes, results) in join_all(asked).await {
        for (index, result) in indexes.into_iter().zip(results) {
            stale |= result.is_err();
            answers[index] = result;
        }
    }
    if stale {
        // The caller decides whether to ask again; then it should ask the right leader.
        let _ = cluster.refresh(&topics).await;
    }
    answers
}

pub(crate) fn no_leader() -> CallError {
    CallError::Refused {
        address: "the cluster".to_owned(),
        key: ApiKey::Metadata,
        error: ErrorCode::LeaderNotAvailable,
    }
}

async fn ask_leader(
    cluster: &Cluster,
    leader: i32,
    queries: &[&OffsetQuery],
) -> Vec<Result<Option<Offset>, CallError>> {
    let connection = match cluster.connection(leader, Lane::Control).await {
        Ok(connection) => connection,
        Err(error) => return vec![Err(error.into()); queries.len()],
    };
    let answer = match connection.call(&request(queries)).await {
        Ok(answer) => answer,
        Err(error) => return vec![Err(error); queries.len()],
    };
    queries
        .iter()
        .map(|query| {
            let found = find(&answer, &query.partition);
            let error = found.map_or(ErrorCode::UnknownTopicOrPartition, |found| {
                ErrorCode::from_code(found.error_code)
            });
            error
                .into_result()
                .map_err(|error| connection.refused(ApiKey::ListOffsets, error))?;
            Ok(found.and_then(|found| Offset::from_wire(found.offset)))
        })
        .collect()
}

fn request(queries: &[&OffsetQuery]) -> ListOffsetsRequest {
    const CONSUMER: i32 = -1;
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for query in queries {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(i32::try_from(query.partition.partition).unwrap_or(i32::MAX))
            .with_current_leader_epoch(-1)
            .with_timestamp(query.timestamp);
        let name = wire_name(&query.partition.topic);
        match topics.last_mut().filter(|topic| topic.name == name) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(
                ListOffsetsTopic::default()
                    .with_name(name)
                    .with_partitions(vec![partition]),
            ),
        }
    }
    ListOffsetsRequest::default()
        .with_replica_id(CONSUMER.into())
        .with_topics(topics)
}

fn find<'a>(
    answer: &'a ListOffsetsResponse,
    partition: &TopicPartition,
) -> Option<&'a ListOffsetsPartitionResponse> {
    let topic = answer
        .topics
        .iter()
        .find(|topic| **topic.name == *partition.topic.as_str())?;
    topic
        .partitions
        .iter()
        .find(|found| u32::try_from(found.partition_index) == Ok(partition.partition))
}

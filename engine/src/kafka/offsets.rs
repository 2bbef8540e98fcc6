//! ListOffsets and OffsetForLeaderEpoch: one question a partition, all asked at once.

use std::time::Duration;

use highwater_protocol::messages::{
    EpochEndOffset, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopicResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use highwater_protocol::{ErrorCode, Response};
use highwater_record::{BatchHeader, BatchLimits, Compression, LeaderEpoch, Offset, RecordBatch};

use super::errors::code_of;
use super::handler::{Context, Directory, Handler, Join, Step};
use crate::ops::{Fetch, GroupId, OffsetSpec, Op, OpResult, Outcome, ReadFrom};

/// How long a question may take before it is answered with REQUEST_TIMED_OUT.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The first version of ListOffsets that knows OFFSET_NOT_AVAILABLE (KIP-207).
const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;

/// The first version of ListOffsets whose answer has a leader epoch (KIP-320).
const LEADER_EPOCH_SINCE: i16 = 4;

/// A request that asks each of its partitions one thing.
pub(crate) trait Question {
    /// The answer for one partition.
    type Part;

    /// The partitions in order, by topic and index, with what to ask; or why not to.
    fn partitions(&self) -> Vec<(&str, i32, Result<Op, ErrorCode>)>;

    /// The group that is asked about a partition.
    fn group(
        &self,
        directory: &dyn Directory,
        topic: &str,
        index: i32,
    ) -> Result<GroupId, ErrorCode> {
        directory.partition(topic, index).map(|found| found.group)
    }

    /// The answer for a partition that cannot be asked or does not answer.
    fn refused(&self, index: i32, code: ErrorCode) -> Self::Part;

    /// What a partition has answered.
    fn told(&self, index: i32, result: OpResult) -> Self::Part;

    /// The batch that must be looked into for the answer to be exact.
    fn look_into(&self, _asked: &Op, _told: &Outcome) -> Option<Offset> {
        None
    }

    /// The exact answer, from that batch.
    fn seen(&self, _asked: &Op, told: Outcome, _batch: &[u8]) -> Outcome {
        told
    }

    /// The whole answer; `parts` are in the order of the partitions.
    fn response(&self, parts: impl Iterator<Item = Self::Part>) -> Response;
}

/// A [`Question`] on its way.
#[derive(Debug)]
pub(crate) struct QuestionHandler<Q: Question> {
    question: Q,
    parts: Join<Q::Part>,
    indexes: Vec<i32>,
    /// What was asked, by place; nothing where it was refused.
    asked: Vec<Option<Asked>>,
}

#[derive(Debug)]
struct Asked {
    group: GroupId,
    op: Op,
    /// What was told, while a batch is being looked into.
    told: Option<Outcome>,
}

impl<Q: Question> QuestionHandler<Q> {
    pub(crate) fn new(question: Q) -> Self {
        Self {
            question,
            parts: Join::default(),
            indexes: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// The final answer of a place; `None` if a batch is to be looked into first.
    fn conclude(
        &mut self,
        place: usize,
        result: OpResult,
        cx: &mut Context<'_>,
    ) -> Option<OpResult> {
        let asked = self.asked[place].as_mut();
        let asked = asked.expect("only what was asked is answered");
        match (asked.told.take(), result) {
            (None, Ok(told)) => {
                let Some(offset) = self.question.look_into(&asked.op, &told) else {
                    return Some(Ok(told));
                };
                asked.told = Some(told);
                cx.ask(place, asked.group, one_batch(offset));
                None
            }
            (Some(told), Ok(Outcome::Fetched(fetched))) => Some(Ok(match fetched.spans.first() {
                Some(span) => self.question.seen(&asked.op, told, span),
                None => told,
            })),
            // It cannot be read just now: what was told is right, if not exact.
            (Some(told), _) => Some(Ok(told)),
            (None, error) => Some(error),
        }
    }

    fn finish(&mut self) -> Step {
        let (question, indexes) = (&self.question, &self.indexes);
        let late = |place: usize| question.refused(indexes[place], ErrorCode::RequestTimedOut);
        let parts = self.parts.take(late);
        Step::Answer(self.question.response(parts.into_iter()))
    }

    fn step(&mut self) -> Step {
        match self.parts.is_complete() {
            true => self.finish(),
            false => Step::Wait(None),
        }
    }
}

impl<Q: Question> Handler for QuestionHandler<Q> {
    fn start(&mut self, cx: &mut Context<'_>) -> Step {
        for (topic, index, op) in self.question.partitions() {
            let place = self.parts.add();
            self.indexes.push(index);
            let group = self.question.group(cx.directory, topic, index);
            match (group, op) {
                (Ok(group), Ok(op)) => {
                    cx.ask(place, group, op.clone());
                    let told = None;
                    self.asked.push(Some(Asked { group, op, told }));
                }
                (Err(code), _) | (_, Err(code)) => {
                    self.parts.set(place, self.question.refused(index, code));
                    self.asked.push(None);
                }
            }
        }
        match self.step() {
            Step::Wait(_) => Step::Wait(Some(cx.now.monotonic + TIMEOUT)),
            step => step,
        }
    }

    fn handle_done(&mut self, place: usize, result: OpResult, cx: &mut Context<'_>) -> Step {
        let Some(result) = self.conclude(place, result, cx) else {
            return Step::Wait(None);
        };
        let part = self.question.told(self.indexes[place], result);
        self.parts.set(place, part);
        self.step()
    }

    fn handle_timeout(&mut self, _cx: &mut Context<'_>) -> Step {
        self.finish()
    }
}

/// Reads the batch at an offset, whatever its size.
fn one_batch(offset: Offset) -> Op {
    Op::Fetch(Fetch {
        offset,
        max_bytes: 0,
        must_progress: true,
        current_leader_epoch: None,
        from: ReadFrom::Leader,
    })
}

/// ListOffsets: where a partition begins, ends, or was at a time.
#[derive(Debug)]
pub(crate) struct ListOffsets {
    pub(crate) request: ListOffsetsRequest,
    pub(crate) version: i16,
}

impl Question for ListOffsets {
    type Part = ListOffsetsPartitionResponse;

    fn partitions(&self) -> Vec<(&str, i32, Result<Op, ErrorCode>)> {
        let topics = self.request.topics.iter();
        topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| (&**topic.name, p.partition_index, list_op(p)))
            })
            .collect()
    }

    fn refused(&self, index: i32, code: ErrorCode) -> Self::Part {
        let code = match code {
            ErrorCode::OffsetNotAvailable if self.version < OFFSET_NOT_AVAILABLE_SINCE => {
                ErrorCode::LeaderNotAvailable
            }
            code => code,
        };
        ListOffsetsPartitionResponse::default()
            .with_partition_index(index)
            .with_error_code(code.code())
            .with_offset(-1)
            .with_timestamp(-1)
            .with_leader_epoch(-1)
    }

    fn told(&self, index: i32, result: OpResult) -> Self::Part {
        match result {
            Ok(Outcome::Listed {
                offset,
                timestamp,
                leader_epoch,
            }) => ListOffsetsPartitionResponse::default()
                .with_partition_index(index)
                .with_offset(offset.map_or(-1, |offset| offset.to_wire()))
                .with_timestamp(timestamp)
                .with_leader_epoch(
                    leader_epoch
                        .filter(|_| self.version >= LEADER_EPOCH_SINCE)
                        .map_or(-1, LeaderEpoch::to_wire),
                ),
            Ok(other) => unreachable!("ListOffset is answered by Listed, not {other:?}"),
            Err(error) => self.refused(index, code_of(&error)),
        }
    }

    /// The log finds the batch; which record it is, is written in the batch.
    fn look_into(&self, asked: &Op, told: &Outcome) -> Option<Offset> {
        match (asked, told) {
            (
                Op::ListOffset {
                    spec: OffsetSpec::Timestamp(_) | OffsetSpec::MaxTimestamp,
                    ..
                },
                Outcome::Listed { offset, .. },
            ) => *offset,
            _ => None,
        }
    }

    fn seen(&self, asked: &Op, told: Outcome, batch: &[u8]) -> Outcome {
        let Op::ListOffset { spec, .. } = asked else {
            return told;
        };
        match (told, record_of(*spec, batch)) {
            (Outcome::Listed { leader_epoch, .. }, Some((offset, timestamp))) => Outcome::Listed {
                offset: Some(offset),
                timestamp,
                leader_epoch,
            },
            (told, _) => told,
        }
    }

    fn response(&self, mut parts: impl Iterator<Item = Self::Part>) -> Response {
        let topics = self.request.topics.iter().map(|topic| {
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(parts.by_ref().take(topic.partitions.len()).collect())
        });
        ListOffsetsResponse::default()
            .with_topics(topics.collect())
            .into()
    }
}

/// The record in a batch that is looked for, with its timestamp. Nothing if the records are
/// compressed: a turn decompresses nothing, so the answer is the batch's first offset, at or before
/// the record, as a consumer must expect anyway if records are not in order of time.
fn record_of(spec: OffsetSpec, batch: &[u8]) -> Option<(Offset, i64)> {
    let limits = BatchLimits::consumer();
    let header = BatchHeader::read(batch).ok()?;
    if header.compression() != Compression::None {
        return None;
    }
    let batch = RecordBatch::parse(batch, &limits).ok()?;
    let wanted = match spec {
        OffsetSpec::Timestamp(timestamp) => timestamp,
        OffsetSpec::MaxTimestamp => batch.max_timestamp(),
        OffsetSpec::Earliest | OffsetSpec::Latest => return None,
    };
    let records = batch.records(&limits).ok()?;
    let found = records
        .iter()
        .filter_map(Result::ok)
        .find(|record| record.timestamp >= wanted)?;
    let offset = header.base_offset().advance(found.offset_delta.into());
    Some((offset, found.timestamp))
}

/// Timestamps below zero have meanings of their own (Kafka's ListOffsetsRequest).
fn list_op(partition: &ListOffsetsPartition) -> Result<Op, ErrorCode> {
    let spec = match partition.timestamp {
        -1 => OffsetSpec::Latest,
        -2 => OffsetSpec::Earliest,
        -3 => OffsetSpec::MaxTimestamp,
        timestamp if timestamp >= 0 => OffsetSpec::Timestamp(timestamp),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let current_leader_epoch = LeaderEpoch::from_wire(partition.current_leader_epoch);
    Ok(Op::ListOffset {
        spec,
        current_leader_epoch,
    })
}

/// OffsetForLeaderEpoch: where an epoch ends (KIP-101, KIP-320).
#[derive(Debug)]
pub(crate) struct EpochEnds {
    pub(crate) request: OffsetForLeaderEpochRequest,
}

impl Question for EpochEnds {
    type Part = EpochEndOffset;

    fn partitions(&self) -> Vec<(&str, i32, Result<Op, ErrorCode>)> {
        let topics = self.request.topics.iter();
        topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| (&**topic.topic, p.partition, epoch_op(p)))
            })
            .collect()
    }

    fn refused(&self, index: i32, code: ErrorCode) -> Self::Part {
        EpochEndOffset::default()
            .with_partition(index)
            .with_error_code(code.code())
            .with_leader_epoch(-1)
            .with_end_offset(-1)
    }

    fn told(&self, index: i32, result: OpResult) -> Self::Part {
        match result {
            Ok(Outcome::EpochEnd { epoch, end_offset }) => EpochEndOffset::default()
                .with_partition(index)
                .with_leader_epoch(epoch.map_or(-1, LeaderEpoch::to_wire))
                .with_end_offset(end_offset.map_or(-1, |offset| offset.to_wire())),
            Ok(other) => unreachable!("EpochEnd is answered by EpochEnd, not {other:?}"),
            Err(error) => self.refused(index, code_of(&error)),
        }
    }

    fn response(&self, mut parts: impl Iterator<Item = Self::Part>) -> Response {
        let topics = self.request.topics.iter().map(|topic| {
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(parts.by_ref().take(topic.partitions.len()).collect())
        });
        OffsetForLeaderEpochResponse::default()
            .with_topics(topics.collect())
            .into()
    }
}

fn epoch_op(partition: &OffsetForLeaderPartition) -> Result<Op, ErrorCode> {
    // A negative epoch is none: there is no end to tell, and nothing is wrong.
    let epoch = LeaderEpoch::from_wire(partition.leader_epoch).ok_or(ErrorCode::None)?;
    let current_leader_epoch = LeaderEpoch::from_wire(partition.current_leader_epoch);
    Ok(Op::EpochEnd {
        epoch,
        current_leader_epoch,
    })
}

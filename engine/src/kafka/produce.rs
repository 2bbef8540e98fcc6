//! Produce: batches are checked here, appended by their partitions, and answered together.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::messages::StrBytes;
use highwater_protocol::{
    Acks, ErrorCode, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    ProduceTopicResponse,
};
use highwater_record::{BatchLimits, Buffer, RecordBatch, SplitBatches, set_max_timestamp};

use super::errors::{code_of, code_of_batch, code_of_produced};
use super::handler::{Context, Handler, Join, ProduceRules, Step};
use crate::io::Now;
use crate::ops::{Batch, Op, OpResult, Outcome, Produce};

/// How long a produce waits for its quorum at most, whatever the client asks for.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A Produce request on its way.
#[derive(Debug)]
pub(crate) struct ProduceHandler {
    request: ProduceRequest<Buffer>,
    parts: Join<ProducePartitionResponse>,
    /// The partition's index by place.
    indexes: Vec<i32>,
}

impl ProduceHandler {
    pub(crate) fn new(request: ProduceRequest<Buffer>) -> Self {
        Self {
            request,
            parts: Join::default(),
            indexes: Vec::new(),
        }
    }

    /// What forbids the request as a whole.
    fn refusal(&self) -> Option<ErrorCode> {
        if let Acks::Invalid(_) = self.request.acks {
            return Some(ErrorCode::InvalidRequiredAcks);
        }
        // Transactions do not exist here yet. This code is fatal in every client.
        self.request
            .transactional_id
            .as_ref()
            .map(|_| ErrorCode::TransactionalIdAuthorizationFailed)
    }

    fn finish(&mut self) -> Step {
        let indexes = &self.indexes;
        let mut parts = self
            .parts
            .take(|place| {
                let index = indexes[place];
                ProducePartitionResponse::refused(index, ErrorCode::RequestTimedOut)
            })
            .into_iter();
        if self.request.acks == Acks::None {
            return Step::Silent;
        }
        let topics = self
            .request
            .topics
            .iter()
            .map(|topic| ProduceTopicResponse {
                name: topic.name.clone(),
                partitions: parts.by_ref().take(topic.partitions.len()).collect(),
            });
        Step::Answer(
            ProduceResponse {
                topics: topics.collect(),
                throttle_time_ms: 0,
            }
            .into(),
        )
    }

    fn step(&mut self, now: Now) -> Step {
        if self.parts.is_complete() {
            return self.finish();
        }
        let asked = u64::try_from(self.request.timeout_ms).unwrap_or(0);
        let timeout = Duration::from_millis(asked).min(TIMEOUT_MAX);
        Step::Wait(Some(now.monotonic + timeout))
    }
}

impl Handler for ProduceHandler {
    fn start(&mut self, cx: &mut Context<'_>) -> Step {
        let refusal = self.refusal();
        for topic in &mut self.request.topics {
            for partition in &mut topic.partitions {
                let place = self.parts.add();
                self.indexes.push(partition.index);
                // Taken, so that the frame's memory is freed once the log has its own copy.
                let records = partition.records.take();
                let found = match refusal {
                    Some(code) => Err(Refused::new(code)),
                    None => cx
                        .directory
                        .partition(&topic.name, partition.index)
                        .ok_or(Refused::new(ErrorCode::UnknownTopicOrPartition)),
                };
                let checked = found.and_then(|partition| {
                    check(records, &partition.rules, cx.now).map(|batch| (partition.group, batch))
                });
                match checked {
                    Ok((group, batch)) => {
                        let batches = vec![batch];
                        cx.ask(place, group, Op::Produce(Produce { batches }));
                    }
                    Err(refused) => {
                        self.parts.set(place, refused.response(partition.index));
                    }
                }
            }
        }
        self.step(cx.now)
    }

    fn handle_done(&mut self, place: usize, result: OpResult, _cx: &mut Context<'_>) -> Step {
        let response = answer(self.indexes[place], result);
        self.parts.set(place, response);
        if self.parts.is_complete() {
            return self.finish();
        }
        Step::Wait(None)
    }

    fn handle_timeout(&mut self, _cx: &mut Context<'_>) -> Step {
        self.finish()
    }
}

fn answer(index: i32, result: OpResult) -> ProducePartitionResponse {
    match result {
        Ok(Outcome::Produced {
            base_offset,
            log_append_time_ms,
            log_start_offset,
        }) => ProducePartitionResponse {
            base_offset: base_offset.to_wire(),
            log_append_time_ms: log_append_time_ms.unwrap_or(-1),
            log_start_offset: log_start_offset.to_wire(),
            ..ProducePartitionResponse::refused(index, ErrorCode::None)
        },
        Ok(other) => unreachable!("a produce is answered by Produced, not {other:?}"),
        Err(error) => Refused {
            code: code_of(&error),
            message: Some(error.to_string()),
        }
        .response(index),
    }
}

/// Why a partition's records are not appended.
#[derive(Debug)]
struct Refused {
    code: ErrorCode,
    message: Option<String>,
}

impl Refused {
    const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
        }
    }

    fn because(code: ErrorCode, message: &dyn std::fmt::Display) -> Self {
        Self {
            code,
            message: Some(message.to_string()),
        }
    }

    fn response(self, index: i32) -> ProducePartitionResponse {
        ProducePartitionResponse {
            error_message: self.message.map(StrBytes::from_string),
            ..ProducePartitionResponse::refused(index, self.code)
        }
    }
}

/// The one batch in a partition's records, if a client may send it (Kafka's rule since Produce
/// version 3: exactly one).
fn check(records: Option<Buffer>, rules: &ProduceRules, now: Now) -> Result<Batch, Refused> {
    let invalid = |message: &str| Refused::because(ErrorCode::InvalidRecord, &message);
    let bytes = records.ok_or_else(|| invalid("no records"))?;
    let limits = BatchLimits {
        batch_bytes_max: rules.max_message_bytes,
        ..BatchLimits::default()
    };
    let batch = RecordBatch::parse(&bytes, &limits)
        .map_err(|error| Refused::because(code_of_batch(&error), &error))?;
    if batch.as_bytes().len() != bytes.len() {
        let more = SplitBatches::new(&bytes).count() > 1;
        let what = ["bytes after the batch", "more than one batch"][usize::from(more)];
        return Err(invalid(what));
    }
    batch
        .check_produced()
        .map_err(|error| Refused::because(code_of_produced(&error), &error))?;
    let header = *batch.header();
    let truth = batch.records_max_timestamp();
    if !rules.log_append_time {
        check_timestamp(truth.unwrap_or(header.max_timestamp()), rules, now)?;
    }
    match truth {
        Some(truth) if truth != header.max_timestamp() && !rules.log_append_time => {
            mend(&bytes, truth)
        }
        _ => Ok(Batch { bytes, header }),
    }
}

/// Writes the true largest timestamp into a copy: it must not poison the time index (F32).
fn mend(bytes: &Buffer, max_timestamp: i64) -> Result<Batch, Refused> {
    let mut copy = bytes.to_vec();
    set_max_timestamp(&mut copy, max_timestamp);
    let bytes = Buffer::from(Bytes::from(copy));
    let header = *RecordBatch::parse(&bytes, &BatchLimits::consumer())
        .map_err(|error| Refused::because(code_of_batch(&error), &error))?
        .header();
    Ok(Batch { bytes, header })
}

fn check_timestamp(timestamp: i64, rules: &ProduceRules, now: Now) -> Result<(), Refused> {
    // -1: the producer gave none.
    if timestamp == -1 {
        return Ok(());
    }
    let ahead = timestamp.saturating_sub(now.wall_ms);
    let behind = now.wall_ms.saturating_sub(timestamp);
    if ahead > rules.timestamp_after_max_ms || behind > rules.timestamp_before_max_ms {
        return Err(Refused::because(
            ErrorCode::InvalidTimestamp,
            &format_args!(
                "timestamp {timestamp} is too far from this server's {}",
                now.wall_ms
            ),
        ));
    }
    Ok(())
}

//! Produce: batches are checked here, appended by their partitions, and answered together.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::messages::StrBytes;
use highwater_protocol::{
    Acks, ErrorCode, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    ProduceTopicResponse,
};
use highwater_record::{
    BatchHeader, BatchLimits, Buffer, Compression, RecordBatch, SplitBatches, set_max_timestamp,
};

use super::errors::{code_of, code_of_batch, code_of_produced};
use super::handler::{Context, Handler, Join, Step};
use crate::config::TopicConfigs;
use crate::io::Now;
use crate::ops::{Batch, Op, OpResult, Outcome, Produce};
use crate::producer_state::ProducerFacts;

/// How long a produce waits for its quorum at most, whatever the client asks for.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// The first version in which zstd may be used (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// A Produce request on its way.
#[derive(Debug)]
pub(crate) struct ProduceHandler {
    request: ProduceRequest<Buffer>,
    version: i16,
    parts: Join<ProducePartitionResponse>,
    /// The parts by place.
    places: Vec<Part>,
}

/// A partition's part of a request.
#[derive(Debug)]
struct Part {
    /// Which topic of the request.
    topic: usize,
    index: i32,
    /// Where its batch stands in its producer's sequence, if that is known.
    facts: Option<ProducerFacts>,
}

impl Part {
    /// What is answered, in the light of what the connection was refused before.
    fn settle(
        &self,
        topic: &str,
        response: ProducePartitionResponse,
        cx: &mut Context<'_>,
    ) -> ProducePartitionResponse {
        let Some(facts) = &self.facts else {
            return response;
        };
        let settled = cx
            .refusals
            .settle((topic, self.index), facts, response.error);
        if settled == response.error {
            return response;
        }
        let message = "the batch before it was refused, and is to come first";
        Refused::because(settled, &message).response(self.index)
    }
}

impl ProduceHandler {
    pub(crate) fn new(request: ProduceRequest<Buffer>, version: i16) -> Self {
        Self {
            request,
            version,
            parts: Join::default(),
            places: Vec::new(),
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
        let places = &self.places;
        let mut parts = self
            .parts
            .take(|place| {
                ProducePartitionResponse::refused(places[place].index, ErrorCode::RequestTimedOut)
            })
            .into_iter();
        if self.request.acks == Acks::None {
            // As Kafka does: a client that wants no answers learns by the closed connection that
            // it must look for the leader.
            return match parts.all(|part| part.error.is_none()) {
                true => Step::Silent,
                false => Step::Close,
            };
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
        for (number, topic) in self.request.topics.iter_mut().enumerate() {
            for partition in &mut topic.partitions {
                let place = self.parts.add();
                // Taken, so that the frame's memory is freed once the log has its own copy.
                let records = partition.records.take();
                let found = match refusal {
                    Some(code) => Err(code),
                    None => cx.directory.partition(&topic.name, partition.index),
                };
                let (facts, checked) = match found {
                    Ok(found) => {
                        let batch = check(records, found.configs, self.version, cx.now);
                        let header = batch.as_ref().ok().map(|batch| &batch.header);
                        let facts = header.and_then(ProducerFacts::of);
                        (facts, batch.map(|batch| (found.group, batch)))
                    }
                    // Nobody has read it, and what comes behind it needs to know.
                    Err(code) => (facts_of(records.as_ref()), Err(Refused::new(code))),
                };
                let part = Part {
                    topic: number,
                    index: partition.index,
                    facts,
                };
                match checked {
                    Ok((group, batch)) => {
                        let batches = vec![batch];
                        cx.ask(place, group, Op::Produce(Produce { batches }));
                    }
                    Err(refused) => {
                        let response = refused.response(partition.index);
                        let response = part.settle(&topic.name, response, cx);
                        self.parts.set(place, response);
                    }
                }
                self.places.push(part);
            }
        }
        self.step(cx.now)
    }

    fn handle_done(&mut self, place: usize, result: OpResult, cx: &mut Context<'_>) -> Step {
        let part = &self.places[place];
        let topic = &self.request.topics[part.topic].name;
        let response = part.settle(topic, answer(part.index, result), cx);
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

/// Where the first batch of records stands in its producer's sequence, if it has a header.
fn facts_of(records: Option<&Buffer>) -> Option<ProducerFacts> {
    ProducerFacts::of(&BatchHeader::read(records?).ok()?)
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
        Err(error) => {
            let code = code_of(&error);
            let refused = Refused::because(code, &error).response(index);
            // With -1 Java's producer only repeats the request (TransactionManager::canRetry);
            // with any offset it goes on under a new epoch.
            let log_start_offset = match code {
                ErrorCode::UnknownProducerId => 0,
                _ => -1,
            };
            ProducePartitionResponse {
                log_start_offset,
                ..refused
            }
        }
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
fn check(
    records: Option<Buffer>,
    configs: &TopicConfigs,
    version: i16,
    now: Now,
) -> Result<Batch, Refused> {
    let invalid = |message: &str| Refused::because(ErrorCode::InvalidRecord, &message);
    let bytes = records.ok_or_else(|| invalid("no records"))?;
    let limits = BatchLimits {
        batch_bytes_max: configs.max_message_bytes(),
        ..BatchLimits::default()
    };
    let batch = RecordBatch::parse_buffer(&bytes, &limits)
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
    if header.is_transactional() {
        let message = "there are no transactions yet";
        return Err(Refused::because(ErrorCode::InvalidTxnState, &message));
    }
    if header.compression() == Compression::Zstd && version < ZSTD_SINCE {
        let message = "zstd needs a newer version of Produce";
        let code = ErrorCode::UnsupportedCompressionType;
        return Err(Refused::because(code, &message));
    }
    let truth = batch.records_max_timestamp();
    if !configs.log_append_time() {
        check_timestamp(header.base_timestamp(), configs, now)?;
        check_timestamp(truth.unwrap_or(header.max_timestamp()), configs, now)?;
    }
    match truth {
        Some(truth) if truth != header.max_timestamp() && !configs.log_append_time() => {
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

fn check_timestamp(timestamp: i64, configs: &TopicConfigs, now: Now) -> Result<(), Refused> {
    let now_ms = now.wall_ms;
    if configs.timestamp_is_near(timestamp, now_ms) {
        return Ok(());
    }
    let message = format_args!("timestamp {timestamp} is too far from this server's {now_ms}");
    Err(Refused::because(ErrorCode::InvalidTimestamp, &message))
}

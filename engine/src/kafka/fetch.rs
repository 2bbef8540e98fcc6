//! Fetch: whole batches below the high watermark, as they lie on disk, and long polling.
//!
//! A round reads the partitions in the request's order, a few at once. If what it found is less
//! than `min_bytes` and the time has not run out, the handler watches all partitions and begins
//! another round when one of them has moved.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::{
    ErrorCode, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
};
use highwater_record::{Buffer, LeaderEpoch, Offset};

use super::errors::code_of;
use super::handler::{Context, Handler, Step};
use crate::ops::{Fetch, Fetched, GroupId, Op, OpError, OpResult, Outcome, ReadFrom};

/// A response carries no more, whatever the client asks for (RULES.md 6.2).
pub(crate) const RESPONSE_BYTES_MAX: usize = 50 << 20;

/// No poll waits longer, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How many partitions are read at once: more would read what the response has no room for,
/// fewer would wait for each other's disks and shards.
const READS_AT_ONCE: usize = 8;

/// A Fetch request on its way.
#[derive(Debug)]
pub(crate) struct FetchHandler {
    request: FetchRequest,
    parts: Vec<Part>,
    phase: Phase,
    deadline: Duration,
}

#[derive(Debug)]
struct Part {
    group: GroupId,
    offset: Offset,
    max_bytes: usize,
    current_leader_epoch: Option<LeaderEpoch>,
    index: i32,
    answer: Option<Result<Fetched, ErrorCode>>,
}

#[derive(Debug)]
enum Phase {
    /// A round: parts below `next` are asked, of which `open` are not answered.
    Reading { next: usize, open: usize },
    /// All partitions are watched.
    Watching,
}

impl FetchHandler {
    pub(crate) fn new(request: FetchRequest) -> Self {
        Self {
            request,
            parts: Vec::new(),
            phase: Phase::Watching,
            deadline: Duration::ZERO,
        }
    }

    /// What forbids the request as a whole.
    fn refusal(&self) -> Option<ErrorCode> {
        // Replicas speak another protocol; a client that claims to be one could move what
        // counts as replicated (CVE-2018-1288).
        if self.request.replica_id >= 0 {
            return Some(ErrorCode::InvalidRequest);
        }
        // No sessions are kept: 0 is given to all who ask for one (KIP-227).
        (self.request.session_id != 0 && self.request.session_epoch > 0)
            .then_some(ErrorCode::FetchSessionIdNotFound)
    }

    fn part(topic: &str, partition: &highwater_protocol::FetchPartition, cx: &Context<'_>) -> Part {
        let found = cx.directory.partition(topic, partition.index);
        let offset = Offset::from_wire(partition.fetch_offset);
        let answer = match (found, offset) {
            (None, _) => Some(Err(ErrorCode::UnknownTopicOrPartition)),
            (_, None) => Some(Err(ErrorCode::OffsetOutOfRange)),
            _ => None,
        };
        Part {
            group: found.map_or(crate::ops::CONTROLLER, |found| found.group),
            offset: offset.unwrap_or_default(),
            max_bytes: usize::try_from(partition.max_bytes).unwrap_or(0),
            current_leader_epoch: LeaderEpoch::from_wire(partition.current_leader_epoch),
            index: partition.index,
            answer,
        }
    }

    /// Bytes that the response still has room for, behind what is answered.
    fn room(&self) -> usize {
        let limit = usize::try_from(self.request.max_bytes).unwrap_or(0);
        limit
            .min(RESPONSE_BYTES_MAX)
            .saturating_sub(self.found_bytes())
    }

    fn found_bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    fn begin_round(&mut self, cx: &mut Context<'_>) -> Step {
        for part in &mut self.parts {
            if matches!(part.answer, Some(Ok(_))) {
                part.answer = None;
            }
        }
        self.phase = Phase::Reading { next: 0, open: 0 };
        self.read_on(cx)
    }

    /// Asks the next partitions, and ends the round when all are answered.
    fn read_on(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Reading { mut next, mut open } = self.phase else {
            return Step::Wait(Some(self.deadline));
        };
        while open < READS_AT_ONCE && next < self.parts.len() {
            let (room, found) = (self.room(), self.found_bytes());
            let part = &mut self.parts[next];
            if part.answer.is_none() {
                let must_progress = found == 0;
                cx.ask(next, part.group, part.fetch(room, must_progress));
                open += 1;
            }
            next += 1;
        }
        self.phase = Phase::Reading { next, open };
        match open {
            0 => self.end_round(cx),
            _ => Step::Wait(Some(self.deadline)),
        }
    }

    fn end_round(&mut self, cx: &mut Context<'_>) -> Step {
        let refused = self
            .parts
            .iter()
            .any(|part| matches!(part.answer, Some(Err(_))));
        let wanted = usize::try_from(self.request.min_bytes).unwrap_or(0);
        let enough = self.found_bytes() >= wanted;
        if enough || refused || self.parts.is_empty() || cx.now.monotonic >= self.deadline {
            return self.finish();
        }
        self.phase = Phase::Watching;
        for (place, part) in self.parts.iter().enumerate() {
            let above = part.end();
            cx.ask(place, part.group, Op::WatchOffset { above });
        }
        Step::Wait(Some(self.deadline))
    }

    fn finish(&mut self) -> Step {
        let mut room = RESPONSE_BYTES_MAX.min(usize::try_from(self.request.max_bytes).unwrap_or(0));
        let mut first = true;
        let parts = std::mem::take(&mut self.parts).into_iter().map(|part| {
            let response = part.response(room, first);
            let bytes: usize = response.records.iter().map(Bytes::len).sum();
            room = room.saturating_sub(bytes);
            first &= bytes == 0;
            response
        });
        let parts: Vec<_> = parts.collect();
        let mut parts = parts.into_iter();
        let topics = self.request.topics.iter().map(|topic| FetchTopicResponse {
            name: topic.name.clone(),
            partitions: parts.by_ref().take(topic.partitions.len()).collect(),
        });
        respond(ErrorCode::None, topics.collect())
    }
}

fn respond(error: ErrorCode, topics: Vec<FetchTopicResponse<Vec<Bytes>>>) -> Step {
    Step::Answer(
        FetchResponse {
            throttle_time_ms: 0,
            error,
            session_id: 0,
            topics,
        }
        .into(),
    )
}

impl Handler for FetchHandler {
    fn start(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(code) = self.refusal() {
            return respond(code, Vec::new());
        }
        let wait = u64::try_from(self.request.max_wait_ms).unwrap_or(0);
        self.deadline = cx.now.monotonic + Duration::from_millis(wait).min(WAIT_MAX);
        self.parts = self
            .request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |p| (&topic.name, p)))
            .map(|(topic, partition)| Self::part(topic, partition, cx))
            .collect();
        self.begin_round(cx)
    }

    fn handle_done(&mut self, place: usize, result: OpResult, cx: &mut Context<'_>) -> Step {
        match &mut self.phase {
            Phase::Watching => self.begin_round(cx),
            Phase::Reading { open, .. } => match result {
                // A watch of the time before this round.
                Ok(Outcome::Moved) | Err(OpError::Cancelled) => Step::Wait(Some(self.deadline)),
                result => {
                    *open -= 1;
                    self.parts[place].answer = Some(fetched(result));
                    self.read_on(cx)
                }
            },
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Step {
        match self.phase {
            Phase::Watching => self.finish(),
            // The disk is slower than the client's patience; what it reads is waited for.
            Phase::Reading { .. } => Step::Wait(Some(cx.now.monotonic + WAIT_MAX)),
        }
    }
}

fn fetched(result: OpResult) -> Result<Fetched, ErrorCode> {
    match result {
        Ok(Outcome::Fetched(fetched)) => Ok(fetched),
        Ok(other) => unreachable!("a fetch is answered by Fetched, not {other:?}"),
        Err(error) => Err(code_of(&error)),
    }
}

impl Part {
    fn fetch(&self, room: usize, must_progress: bool) -> Op {
        Op::Fetch(Fetch {
            offset: self.offset,
            max_bytes: self.max_bytes.min(room),
            must_progress,
            current_leader_epoch: self.current_leader_epoch,
            from: ReadFrom::Leader,
        })
    }

    fn bytes(&self) -> usize {
        match &self.answer {
            Some(Ok(fetched)) => fetched.spans.iter().map(|span| span.len()).sum(),
            _ => 0,
        }
    }

    /// The high watermark as the last round saw it: below it there is nothing new.
    fn end(&self) -> Offset {
        match &self.answer {
            Some(Ok(fetched)) => fetched.high_watermark.max(self.offset),
            _ => self.offset,
        }
    }

    /// What of this part fits into `room`; its first batch always does if it is the first of
    /// the response (KIP-74).
    fn response(self, mut room: usize, mut first: bool) -> FetchPartitionResponse<Vec<Bytes>> {
        let fetched = match self.answer {
            Some(Ok(fetched)) => fetched,
            Some(Err(code)) => return FetchPartitionResponse::refused(self.index, code),
            None => return FetchPartitionResponse::refused(self.index, ErrorCode::RequestTimedOut),
        };
        let fits = move |span: &Buffer| {
            let fits = first || span.len() <= room;
            room = room.saturating_sub(span.len());
            first = false;
            fits
        };
        let spans = fetched.spans.into_iter();
        FetchPartitionResponse {
            high_watermark: fetched.high_watermark.to_wire(),
            last_stable_offset: fetched.high_watermark.to_wire(),
            log_start_offset: fetched.log_start_offset.to_wire(),
            records: spans.take_while(fits).map(Bytes::from).collect(),
            ..FetchPartitionResponse::refused(self.index, ErrorCode::None)
        }
    }
}

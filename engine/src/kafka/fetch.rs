//! Fetch: whole batches below the high watermark, as they lie on disk, and long polling.
//!
//! Partitions are read in waves, so that what is read and not yet sent stays within the
//! response's limit: a wave asks for the partitions next in order as long as their limits fit
//! into what is left. When everything is read and it is too little, every partition is watched,
//! and one that moves is read again.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::{
    ErrorCode, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse,
    FetchTopicResponse, IsolationLevel,
};
use highwater_record::{Buffer, LeaderEpoch, Offset};

use super::errors::code_of;
use super::handler::{Context, Handler, Step};
use crate::ops::{Fetch, Fetched, GroupId, Op, OpError, OpResult, Outcome, ReadFrom};

/// The most bytes of batches in a response, whatever the client asks for (RULES.md 6.2).
pub const RESPONSE_BYTES_MAX: usize = 50 << 20;

/// No poll waits longer, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A Fetch request on its way.
#[derive(Debug)]
pub(crate) struct FetchHandler {
    request: FetchRequest,
    parts: Vec<Part>,
    bytes_min: usize,
    bytes_max: usize,
    deadline: Duration,
    /// Bytes in all parts that are read.
    bytes: usize,
    /// Bytes that the reads under way may bring.
    promised: usize,
    /// Reads under way.
    reading: usize,
    /// The first part that was never read.
    next: usize,
}

/// A partition of the request.
#[derive(Debug)]
struct Part {
    index: i32,
    max_bytes: usize,
    current_leader_epoch: Option<LeaderEpoch>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To be read.
    Unread(Place),
    /// It is being read; so many bytes may come.
    Reading(Place, usize),
    /// Read, and not watched.
    Read(Place, Fetched),
    /// Read, and watched for more.
    Watched(Place, Fetched),
    /// It cannot be read.
    Failed(ErrorCode),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    group: GroupId,
    offset: Offset,
}

impl Part {
    fn new(topic: &str, request: &FetchPartition, cx: &Context<'_>) -> Part {
        let found = cx.directory.partition(topic, request.index);
        let state = match (found, Offset::from_wire(request.fetch_offset)) {
            (Ok(found), Some(offset)) => State::Unread(Place {
                group: found.group,
                offset,
            }),
            (Ok(_), None) => State::Failed(ErrorCode::OffsetOutOfRange),
            (Err(code), _) => State::Failed(code),
        };
        Part {
            index: request.index,
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
            current_leader_epoch: LeaderEpoch::from_wire(request.current_leader_epoch),
            state,
        }
    }

    fn bytes(&self) -> usize {
        match &self.state {
            State::Read(_, fetched) | State::Watched(_, fetched) => {
                fetched.spans.iter().map(|span| span.len()).sum()
            }
            State::Unread(_) | State::Reading(..) | State::Failed(_) => 0,
        }
    }

    fn response(self) -> FetchPartitionResponse<Vec<Bytes>> {
        match self.state {
            State::Read(_, fetched) | State::Watched(_, fetched) => FetchPartitionResponse {
                high_watermark: fetched.high_watermark.to_wire(),
                // There are no transactions, so none is open.
                last_stable_offset: fetched.high_watermark.to_wire(),
                log_start_offset: fetched.log_start_offset.to_wire(),
                records: fetched.spans.into_iter().map(Bytes::from).collect(),
                ..FetchPartitionResponse::refused(self.index, ErrorCode::None)
            },
            State::Failed(code) => FetchPartitionResponse::refused(self.index, code),
            State::Unread(_) | State::Reading(..) => {
                unreachable!("a response is made when everything was read")
            }
        }
    }
}

impl FetchHandler {
    pub(crate) fn new(request: FetchRequest) -> Self {
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
        let bytes_max = bytes_max.min(RESPONSE_BYTES_MAX);
        let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
        Self {
            request,
            parts: Vec::new(),
            bytes_min: bytes_min.min(bytes_max),
            bytes_max,
            deadline: Duration::ZERO,
            bytes: 0,
            promised: 0,
            reading: 0,
            next: 0,
        }
    }

    /// What forbids the request as a whole.
    fn refusal(&self) -> Option<ErrorCode> {
        // Replicas speak another protocol; a client that claims to be one could move what
        // counts as replicated (CVE-2018-1288).
        if self.request.replica_id >= 0 && !mutant!(ReplicaIdBelieved) {
            return Some(ErrorCode::InvalidRequest);
        }
        if matches!(self.request.isolation, IsolationLevel::Invalid(_)) {
            return Some(ErrorCode::InvalidRequest);
        }
        // No sessions are kept: 0 is given to all who ask for one (KIP-227).
        (self.request.session_id != 0 && self.request.session_epoch > 0)
            .then_some(ErrorCode::FetchSessionIdNotFound)
    }

    /// Says the same of every partition, as old versions have no place for it but there.
    fn refuse(&self, code: ErrorCode) -> Step {
        let topics = self.request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let refused = partitions.map(|p| FetchPartitionResponse::refused(p.index, code));
            FetchTopicResponse {
                name: topic.name.clone(),
                partitions: refused.collect(),
            }
        });
        respond(code, topics.collect())
    }

    /// Reads what was not read yet, answers if that is enough, waits for more otherwise.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Step {
        while self.next < self.parts.len() && self.may_read_more() {
            self.read(self.next, cx);
            self.next += 1;
        }
        if self.reading > 0 {
            return Step::Wait(None);
        }
        let failed = |part: &Part| matches!(part.state, State::Failed(_));
        if self.bytes >= self.bytes_min
            || cx.now.monotonic >= self.deadline
            || self.parts.is_empty()
            || self.parts.iter().any(failed)
        {
            return self.finish();
        }
        self.watch(cx);
        Step::Wait(None)
    }

    fn may_read_more(&self) -> bool {
        // Once the response is full, what is left is asked for its offsets only.
        let full = self.bytes >= self.bytes_max;
        full || self.reading == 0 || self.bytes + self.promised < self.bytes_max
    }

    /// Reads a part, anew if it was read before.
    fn read(&mut self, at: usize, cx: &mut Context<'_>) {
        let part = &mut self.parts[at];
        self.bytes -= part.bytes();
        let (State::Unread(place) | State::Read(place, _) | State::Watched(place, _)) = part.state
        else {
            return;
        };
        let room = self.bytes_max.saturating_sub(self.bytes + self.promised);
        let max_bytes = part.max_bytes.min(room);
        let op = Op::Fetch(Fetch {
            offset: place.offset,
            max_bytes,
            // The first batch goes through whatever its size (KIP-74), or a consumer would never
            // get past a large one. Which part has the first shows when all have come.
            must_progress: self.bytes == 0,
            current_leader_epoch: part.current_leader_epoch,
            from: ReadFrom::Leader,
        });
        part.state = State::Reading(place, max_bytes);
        self.promised += max_bytes;
        self.reading += 1;
        cx.ask(at, place.group, op);
    }

    /// Takes in what reading a part has brought.
    fn take_read(&mut self, at: usize, result: Result<Fetched, OpError>) {
        let part = &mut self.parts[at];
        let State::Reading(place, promised) = part.state else {
            unreachable!("{:?} is not being read", part.state);
        };
        self.reading -= 1;
        self.promised -= promised;
        part.state = match result {
            Ok(mut fetched) => {
                let room = self.bytes_max.saturating_sub(self.bytes);
                let first = match self.bytes {
                    0 => fetched.spans.first().map_or(0, |span| span.len()),
                    _ => 0,
                };
                fit(&mut fetched.spans, room.min(part.max_bytes).max(first));
                State::Read(place, fetched)
            }
            Err(error) => State::Failed(code_of(&error)),
        };
        self.bytes += part.bytes();
    }

    /// Watches every part that is not watched yet.
    fn watch(&mut self, cx: &mut Context<'_>) {
        for (at, part) in self.parts.iter_mut().enumerate() {
            let unread = State::Failed(ErrorCode::None);
            part.state = match std::mem::replace(&mut part.state, unread) {
                State::Read(place, fetched) => {
                    // What lies below is known already; more than that is wanted.
                    let above = fetched.high_watermark.max(place.offset);
                    cx.ask(at, place.group, Op::WatchOffset { above });
                    State::Watched(place, fetched)
                }
                state => state,
            };
        }
    }

    fn finish(&mut self) -> Step {
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        let topics = self.request.topics.iter().map(|topic| FetchTopicResponse {
            name: topic.name.clone(),
            partitions: parts
                .by_ref()
                .take(topic.partitions.len())
                .map(Part::response)
                .collect(),
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

/// Drops the spans that do not fit, from the first of them on.
fn fit(spans: &mut Vec<Buffer>, bytes_max: usize) {
    let mut bytes = 0;
    let kept = spans.iter().take_while(|span| {
        bytes += span.len();
        bytes <= bytes_max
    });
    let kept = kept.count();
    spans.truncate(kept);
}

impl Handler for FetchHandler {
    fn start(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(code) = self.refusal() {
            return self.refuse(code);
        }
        let wait = u64::try_from(self.request.max_wait_ms).unwrap_or(0);
        self.deadline = cx.now.monotonic + Duration::from_millis(wait).min(WAIT_MAX);
        for topic in &self.request.topics {
            let partitions = topic.partitions.iter();
            self.parts
                .extend(partitions.map(|partition| Part::new(&topic.name, partition, cx)));
        }
        match self.go_on(cx) {
            Step::Wait(_) => Step::Wait(Some(self.deadline)),
            step => step,
        }
    }

    fn handle_done(&mut self, place: usize, result: OpResult, cx: &mut Context<'_>) -> Step {
        match (&self.parts[place].state, result) {
            (State::Reading(..), Ok(Outcome::Fetched(fetched))) => {
                self.take_read(place, Ok(fetched));
            }
            (State::Reading(..), Err(error)) => self.take_read(place, Err(error)),
            // It has moved; or it cannot be watched, and reading it says why.
            (State::Watched(..), Ok(Outcome::Moved) | Err(_)) => self.read(place, cx),
            (state, result) => unreachable!("{result:?} for a part that is {state:?}"),
        }
        self.go_on(cx)
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Step {
        // Reads that are under way are waited for: they are bound to end.
        self.go_on(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_as_far_as_they_fit() {
        let fitted = |bytes_max| {
            let mut spans = vec![Buffer::from(vec![0; 10]), Buffer::from(vec![0; 5])];
            fit(&mut spans, bytes_max);
            spans.len()
        };
        let kept = [0, 9, 10, 14, 15].map(fitted);
        assert_eq!(kept, [0, 0, 1, 1, 2]);
    }

    #[test]
    fn who_poses_as_a_replica_or_names_a_session_is_refused() {
        let good = FetchRequest::default();
        let refusal = |request| FetchHandler::new(request).refusal();
        assert_eq!(refusal(good.clone()), None);
        let wants_a_session = FetchRequest {
            session_epoch: 0,
            ..good.clone()
        };
        assert_eq!(refusal(wants_a_session), None);
        let replica = FetchRequest {
            replica_id: 0,
            ..good.clone()
        };
        assert_eq!(refusal(replica), Some(ErrorCode::InvalidRequest));
        let in_a_session = FetchRequest {
            session_id: 5,
            session_epoch: 1,
            ..good.clone()
        };
        assert_eq!(
            refusal(in_a_session),
            Some(ErrorCode::FetchSessionIdNotFound)
        );
        let isolated = FetchRequest {
            isolation: IsolationLevel::Invalid(2),
            ..good
        };
        assert_eq!(refusal(isolated), Some(ErrorCode::InvalidRequest));
    }
}

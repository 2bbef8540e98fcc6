//! Reads of the log, for clients and followers: looked up in the turn, from memory or a mapping
//! if the bytes are there, else when the disk has delivered them.

use highwater_consensus::{Lane, LogIndex, NodeId, Session};
use highwater_log::storage::Storage;
use highwater_log::{self as log, Entry, EntryKind, Lookup, Read, ReadError, TimestampOffset};
use highwater_record::Offset;

use super::waiting::ReadPoint;
use super::{Effects, Env, Origin, Partition};
use crate::ops::{
    CommittedEntry, CommittedKind, Fetch, Fetched, OpError, OpResult, Outcome, ReadFrom,
};
use crate::positions::{self, Control};

/// How many reads of the disk may be under way in a partition; more are refused as busy.
const READS_MAX: usize = 1_024;

/// What a read that is under way is for.
#[derive(Debug)]
pub(super) enum PendingRead {
    /// The message at the front of a queue.
    Send { to: NodeId, lane: Lane },
    /// A follower that is far behind.
    CatchUp { to: NodeId, session: Session },
    /// A consumer.
    Fetch { origin: Origin, fetch: Fetch },
    /// A follower of committed entries.
    Entries { origin: Origin },
    /// A search by time.
    Timestamp { origin: Origin },
}

/// Where a fetch begins.
enum Start {
    /// At this entry.
    At(log::LogIndex),
    /// There is nothing to read yet.
    Nothing,
    /// Beyond the log's end, if this replica really leads.
    Beyond,
}

/// Fetching.
impl Partition {
    pub(super) fn fetch<S: Storage>(&mut self, env: &mut Env<'_, S>, origin: Origin, fetch: Fetch) {
        match self.fetch_start(env, &fetch) {
            Ok(Start::At(index)) => self.fetch_from(env, origin, fetch, index),
            Ok(Start::Nothing) => {
                let nothing = self.fetched(Vec::new(), fetch.offset);
                env.effects.done.push((origin, Ok(nothing)));
            }
            Ok(Start::Beyond) => self.read_point(env, origin, ReadPoint::Beyond(fetch.offset)),
            Err(error) => env.effects.done.push((origin, Err(error))),
        }
    }

    fn fetch_start<S: Storage>(&self, env: &Env<'_, S>, fetch: &Fetch) -> Result<Start, OpError> {
        if fetch.from == ReadFrom::Leader && !self.is_leader() {
            return Err(self.not_leader());
        }
        self.check_epoch(fetch.current_leader_epoch)?;
        if fetch.offset < self.log_start_offset {
            return Err(self.out_of_range(fetch.offset));
        }
        if fetch.offset > self.positions.end_offset() && self.raft.leads_with_commit() {
            return Ok(Start::Beyond);
        }
        // Between high watermark and log end, or above it before the leader has committed in its
        // term, a consumer may only be ahead of what this replica knows: it waits.
        if fetch.offset >= self.positions.high_watermark() {
            return Ok(Start::Nothing);
        }
        let index = env.store.index_of_offset(self.group, fetch.offset);
        index
            .map(Start::At)
            .map_err(|error| self.read_failed(error))
    }

    /// The answer to a fetch from beyond the log's end, once it is certain that this replica
    /// still led when it was asked. Without that a leader that has been deposed and does not
    /// know it would tell a consumer that what it has read elsewhere is not there.
    pub(super) fn fetched_beyond(&self, offset: Offset) -> OpResult {
        if offset > self.positions.end_offset() {
            Err(self.out_of_range(offset))
        } else {
            Ok(self.fetched(Vec::new(), offset))
        }
    }

    pub(super) fn out_of_range(&self, offset: Offset) -> OpError {
        OpError::OffsetOutOfRange {
            offset,
            log_start_offset: self.log_start_offset,
            log_end_offset: self.positions.end_offset(),
        }
    }

    fn fetch_from<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        fetch: Fetch,
        mut from: log::LogIndex,
    ) {
        loop {
            if self.reads.len() >= READS_MAX {
                let busy = OpError::Busy("too many reads are under way");
                return env.effects.done.push((origin, Err(busy)));
            }
            let ticket = self.new_ticket();
            match env
                .store
                .read(self.group, from, fetch.max_bytes.max(1), ticket)
            {
                Ok(Read::Ready(entries)) => match self.fetch_done(&fetch, entries) {
                    Ok(outcome) => return env.effects.done.push((origin, Ok(outcome))),
                    Err(next) => from = next,
                },
                Ok(Read::Pending) => {
                    let read = PendingRead::Fetch { origin, fetch };
                    self.reads.insert(ticket.0, read);
                    return;
                }
                Err(error) => {
                    let error = self.read_failed(error);
                    return env.effects.done.push((origin, Err(error)));
                }
            }
        }
    }

    /// The answer from what was read; or where to read on, if that was control entries only.
    fn fetch_done(&self, fetch: &Fetch, entries: Vec<Entry>) -> Result<Outcome, log::LogIndex> {
        let commit = positions::index_to_log(self.raft.commit_index());
        let high_watermark = self.positions.high_watermark();
        let mut spans = Vec::new();
        let mut bytes = 0;
        let mut next_offset = fetch.offset;
        let mut next_index = None;
        for entry in entries {
            if entry.id.index > commit || entry.end_offset() > high_watermark {
                return Ok(self.fetched(spans, next_offset));
            }
            next_index = Some(entry.id.index.next());
            if entry.kind != EntryKind::Data || entry.end_offset() <= fetch.offset {
                continue;
            }
            let fits = bytes + entry.body.len() <= fetch.max_bytes;
            let must_have = spans.is_empty() && fetch.must_progress;
            if !(fits || must_have) {
                return Ok(self.fetched(spans, next_offset));
            }
            bytes += entry.body.len();
            next_offset = entry.end_offset();
            spans.push(entry.body);
        }
        match next_index {
            Some(next) if spans.is_empty() && next <= commit => Err(next),
            _ => Ok(self.fetched(spans, next_offset)),
        }
    }

    fn fetched(&self, spans: Vec<highwater_record::Buffer>, next_offset: Offset) -> Outcome {
        Outcome::Fetched(Fetched {
            spans,
            next_offset,
            high_watermark: self.positions.high_watermark(),
            log_start_offset: self.log_start_offset,
        })
    }
}

/// Reading committed entries.
impl Partition {
    pub(super) fn read_entries<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        from: LogIndex,
        max_bytes: usize,
    ) {
        if from > self.raft.commit_index() {
            let nothing = self.entries_done(Vec::new());
            return env.effects.done.push((origin, Ok(nothing)));
        }
        if self.reads.len() >= READS_MAX {
            let busy = OpError::Busy("too many reads are under way");
            return env.effects.done.push((origin, Err(busy)));
        }
        let ticket = self.new_ticket();
        let from = positions::index_to_log(from);
        let result = match env.store.read(self.group, from, max_bytes.max(1), ticket) {
            Ok(Read::Ready(entries)) => Ok(self.entries_done(entries)),
            Ok(Read::Pending) => {
                let read = PendingRead::Entries { origin };
                self.reads.insert(ticket.0, read);
                return;
            }
            Err(error) => Err(self.read_failed(error)),
        };
        env.effects.done.push((origin, result));
    }

    fn entries_done(&self, entries: Vec<Entry>) -> Outcome {
        let commit_index = self.raft.commit_index();
        let commit = positions::index_to_log(commit_index);
        let committed = entries
            .into_iter()
            .take_while(|entry| entry.id.index <= commit)
            .map(committed_entry)
            .collect();
        Outcome::Entries {
            entries: committed,
            commit_index,
        }
    }
}

/// Completions.
impl Partition {
    pub(super) fn new_ticket(&mut self) -> log::Ticket {
        self.next_read += 1;
        log::Ticket(self.next_read)
    }

    pub(super) fn await_timestamp(&mut self, ticket: log::Ticket, origin: Origin) {
        self.reads
            .insert(ticket.0, PendingRead::Timestamp { origin });
    }

    /// What was read is there.
    pub(crate) fn handle_read_done<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        ticket: log::Ticket,
        result: Result<Vec<Entry>, ReadError>,
    ) {
        match self.reads.remove(&ticket.0) {
            Some(PendingRead::Send { to, lane }) => self.send_read(env, to, lane, result),
            Some(PendingRead::CatchUp { to, session }) => self.chunk_read(to, session, result),
            Some(PendingRead::Fetch { origin, fetch }) => match result {
                Ok(entries) => match self.fetch_done(&fetch, entries) {
                    Ok(outcome) => env.effects.done.push((origin, Ok(outcome))),
                    Err(next) => self.fetch_from(env, origin, fetch, next),
                },
                // A cut below the high watermark cannot be; a base can, and moves the start.
                Err(ReadError::Cut) => self.fetch(env, origin, fetch),
                Err(error) => self.done(env.effects, origin, Err(self.read_failed(error))),
            },
            Some(PendingRead::Entries { origin }) => {
                let result = result
                    .map(|entries| self.entries_done(entries))
                    .map_err(|error| self.read_failed(error));
                self.done(env.effects, origin, result);
            }
            Some(PendingRead::Timestamp { .. }) | None => {}
        }
    }

    /// A search by time has ended.
    pub(crate) fn handle_timestamp_done(
        &mut self,
        effects: &mut Effects,
        ticket: log::Ticket,
        result: Result<Option<TimestampOffset>, ReadError>,
    ) {
        if let Some(PendingRead::Timestamp { origin }) = self.reads.remove(&ticket.0) {
            let result = result
                .map(|found| self.timestamp_found(found))
                .map_err(|error| self.read_failed(error));
            self.done(effects, origin, result);
        }
    }

    /// A batch found by its time, if it is committed.
    pub(super) fn timestamp_found(&self, found: Option<TimestampOffset>) -> Outcome {
        let found = found.filter(|found| found.offset < self.positions.high_watermark());
        let term = found.and_then(|it| self.raft.term_at(positions::index_from_log(it.index)));
        Outcome::Listed {
            offset: found.map(|found| found.offset),
            timestamp: found.map_or(-1, |found| found.timestamp),
            leader_epoch: term.map(positions::epoch),
        }
    }

    pub(super) fn lookup_timestamp<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        timestamp: i64,
    ) {
        let ticket = self.new_ticket();
        match env
            .store
            .offset_for_timestamp(self.group, timestamp, ticket)
        {
            Ok(Lookup::Ready(found)) => {
                let outcome = self.timestamp_found(found);
                self.done(env.effects, origin, Ok(outcome));
            }
            Ok(Lookup::Pending) => self.await_timestamp(ticket, origin),
            Err(error) => self.done(env.effects, origin, Err(self.read_failed(error))),
        }
    }

    fn done(&self, effects: &mut Effects, origin: Origin, result: OpResult) {
        effects.done.push((origin, result));
    }

    pub(super) fn read_failed(&self, error: ReadError) -> OpError {
        match error {
            ReadError::BelowStart { start, .. } => OpError::BelowLogStart {
                first: positions::index_from_log(start),
            },
            ReadError::Busy { .. } | ReadError::Cut => {
                OpError::Busy("the log could not be read just now")
            }
            other => OpError::Storage(other.to_string()),
        }
    }
}

fn committed_entry(entry: Entry) -> CommittedEntry {
    let index = positions::index_from_log(entry.id.index);
    let (kind, body) = match (entry.kind, Control::read(&entry.body)) {
        (EntryKind::Data, _) => (
            CommittedKind::Data {
                base_offset: entry.base_offset,
                offset_span: entry.offset_span,
            },
            entry.body,
        ),
        (EntryKind::Control, Some(Control::Owner(bytes))) => (CommittedKind::Control, bytes),
        (EntryKind::Control, _) => (CommittedKind::Internal, highwater_record::Buffer::new()),
    };
    CommittedEntry { index, kind, body }
}

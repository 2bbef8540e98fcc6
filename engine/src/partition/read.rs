//! Reads of the log, for clients and followers: looked up in the turn, from memory or a mapping
//! if the bytes are there, else when the disk has delivered them.

use highwater_consensus::{Lane, LogIndex, NodeId, Session};
use highwater_log::storage::Storage;
use highwater_log::{self as log, Entry, EntryKind, Lookup, Read, ReadError, TimestampOffset};
use highwater_record::{Buffer, BufferPool, Charge, Offset};

use super::waiting::ReadPoint;
use super::{Effects, Env, Origin, Partition};
use crate::counters::count;
use crate::ops::{
    CommittedEntry, CommittedKind, Fetch, Fetched, OpError, OpResult, Outcome, ReadFrom,
};
use crate::positions::{self, Control};

/// How many reads of the disk may be under way in a partition; more are refused as busy.
pub(super) const READS_MAX: usize = 1_024;

/// How many eighths of the memory may be in use when more is read for clients. What is read is held
/// until the client has taken it, and clients take their time: what they hold must not stop those
/// who write. An eighth is always left to reads beside a tail cache of half the memory, the most
/// that it may have.
const FETCH_EIGHTHS: usize = 5;

/// How many bytes are read for a fetch at once; it goes on from there.
const FETCH_STEP_BYTES_MAX: usize = 8 << 20;

/// How often a read is tried before its failure is told. What a disk refuses once it may give
/// the next time (F19); what is damaged is quarantined at the first try, and refused at once then.
pub(super) const READ_ATTEMPTS_MAX: u8 = 3;

/// What a read that is under way is for.
#[derive(Debug)]
pub(super) enum PendingRead {
    /// The message at the front of a queue.
    Send { to: NodeId, lane: Lane },
    /// A follower that is far behind.
    CatchUp { to: NodeId, session: Session },
    /// A consumer.
    Fetch(Gather),
    /// A follower of committed entries.
    Entries {
        origin: Origin,
        from: LogIndex,
        max_bytes: usize,
        attempt: u8,
    },
    /// A search by time.
    Timestamp { origin: Origin },
    /// A peer whose log has a hole, and the last entry that it lacks.
    Supply {
        to: NodeId,
        session: Session,
        last: log::LogIndex,
    },
}

/// A fetch that gathers batches, over the files that they lie in.
#[derive(Debug)]
pub(super) struct Gather {
    origin: Origin,
    fetch: Fetch,
    spans: Vec<Buffer>,
    bytes: usize,
    /// Offsets that the spans hold.
    records: u64,
    next_offset: Offset,
    /// The entry to read on from.
    from: log::LogIndex,
    attempt: u8,
    /// Memory for what the disk is to deliver, set aside as long as nobody has taken it.
    promised: Option<Charge>,
}

/// How many bytes may still be read for clients.
fn left_for_clients(pool: &BufferPool) -> usize {
    let budget = pool.budget();
    let most = budget.limit() / 8 * FETCH_EIGHTHS;
    most.saturating_sub(budget.used())
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
            Ok(Start::At(from)) => self.gather(
                env,
                Gather {
                    origin,
                    fetch,
                    spans: Vec::new(),
                    bytes: 0,
                    records: 0,
                    next_offset: fetch.offset,
                    from,
                    attempt: 1,
                    promised: None,
                },
            ),
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
        if fetch.offset >= self.visible_end() {
            return Ok(Start::Nothing);
        }
        let index = env.store.index_of_offset(self.group, fetch.offset);
        index
            .map(Start::At)
            .map_err(|error| self.read_failed(error))
    }

    /// The offset below which consumers see records.
    fn visible_end(&self) -> Offset {
        if mutant!(VisibleBeforeCommit) {
            return self.positions.end_offset();
        }
        self.positions.high_watermark()
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

    /// Reads on until the fetch has what it may have, or the disk is to deliver it.
    fn gather<S: Storage>(&mut self, env: &mut Env<'_, S>, mut gather: Gather) {
        loop {
            gather.promised = None;
            let left = left_for_clients(env.pool) / 2;
            if left == 0 {
                // As if there were nothing more yet: the consumer waits, and asks again.
                return self.fetch_done(env.effects, gather);
            }
            if self.reads.len() >= READS_MAX {
                let busy = OpError::Busy("too many reads are under way");
                return env.effects.done.push((gather.origin, Err(busy)));
            }
            let ticket = self.new_ticket();
            let room = gather.fetch.max_bytes.saturating_sub(gather.bytes);
            let room = room.clamp(1, left.min(FETCH_STEP_BYTES_MAX));
            match env.store.read(self.group, gather.from, room, ticket) {
                Ok(Read::Ready(entries)) => {
                    if self.gathered(&mut gather, entries) {
                        return self.fetch_done(env.effects, gather);
                    }
                }
                Ok(Read::Pending) => {
                    // Once for the buffer that the disk will fill, which is not there yet, and once
                    // while both count.
                    gather.promised = env.pool.budget().charge(2 * room).ok();
                    self.reads.insert(ticket.0, PendingRead::Fetch(gather));
                    return;
                }
                Err(error) => return self.fetch_failed(env.effects, gather, error),
            }
        }
    }

    /// Takes what was read. Whether the fetch has all that it may have.
    fn gathered(&self, gather: &mut Gather, entries: Vec<Entry>) -> bool {
        let commit = positions::index_to_log(self.raft.commit_index());
        let high_watermark = self.visible_end();
        let Gather { fetch, .. } = *gather;
        let mut last = 0;
        for entry in entries {
            if (entry.id.index > commit && !mutant!(VisibleBeforeCommit))
                || entry.end_offset() > high_watermark
            {
                return true;
            }
            gather.from = entry.id.index.next();
            if entry.kind != EntryKind::Data || entry.end_offset() <= fetch.offset {
                continue;
            }
            let must_have = gather.spans.is_empty() && fetch.must_progress;
            if gather.bytes + entry.body.len() > fetch.max_bytes && !must_have {
                return true;
            }
            last = entry.body.len();
            gather.bytes += last;
            gather.records += u64::from(entry.offset_span);
            gather.next_offset = entry.end_offset();
            gather.spans.push(entry.body);
        }
        // What comes next is likely as large as the last, and then it would be read for nothing.
        let full = gather.bytes + last.max(1) > fetch.max_bytes;
        let must_go_on = gather.spans.is_empty() && fetch.must_progress;
        (full && !must_go_on) || gather.from > commit
    }

    fn fetch_done(&self, effects: &mut Effects, gather: Gather) {
        if !gather.spans.is_empty() {
            effects.counters.fetches += 1;
            effects.counters.fetched_records += gather.records;
            effects.counters.fetched_bytes += count(gather.bytes);
        }
        let outcome = self.fetched(gather.spans, gather.next_offset);
        effects.done.push((gather.origin, Ok(outcome)));
    }

    /// What was gathered before the failure is given; it is met again at the front of the next
    /// fetch.
    fn fetch_failed(&self, effects: &mut Effects, gather: Gather, error: ReadError) {
        if gather.spans.is_empty() {
            let error = self.read_failed(error);
            effects.done.push((gather.origin, Err(error)));
        } else {
            self.fetch_done(effects, gather);
        }
    }

    fn fetched(&self, spans: Vec<Buffer>, next_offset: Offset) -> Outcome {
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
        attempt: u8,
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
        let first = positions::index_to_log(from);
        let result = match env.store.read(self.group, first, max_bytes.max(1), ticket) {
            Ok(Read::Ready(entries)) => Ok(self.entries_done(entries)),
            Ok(Read::Pending) => {
                let read = PendingRead::Entries {
                    origin,
                    from,
                    max_bytes,
                    attempt,
                };
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
            Some(PendingRead::Send { to, lane }) => self.send_read(env, to, lane, ticket, result),
            Some(PendingRead::CatchUp { to, session }) => self.chunk_read(to, session, result),
            Some(PendingRead::Fetch(mut gather)) => match result {
                Ok(entries) => {
                    gather.attempt = 1;
                    if self.gathered(&mut gather, entries) {
                        self.fetch_done(env.effects, gather);
                    } else {
                        self.gather(env, gather);
                    }
                }
                // A cut below the high watermark cannot be; a base can, and moves the start.
                Err(ReadError::Cut) => self.fetch(env, gather.origin, gather.fetch),
                Err(_) if gather.attempt < READ_ATTEMPTS_MAX => {
                    gather.attempt += 1;
                    self.gather(env, gather);
                }
                Err(error) => self.fetch_failed(env.effects, gather, error),
            },
            Some(PendingRead::Entries {
                origin,
                from,
                max_bytes,
                attempt,
            }) => match result {
                Ok(entries) => {
                    let outcome = self.entries_done(entries);
                    self.done(env.effects, origin, Ok(outcome));
                }
                Err(_) if attempt < READ_ATTEMPTS_MAX => {
                    self.read_entries(env, origin, from, max_bytes, attempt + 1);
                }
                Err(error) => self.done(env.effects, origin, Err(self.read_failed(error))),
            },
            Some(PendingRead::Supply { to, session, last }) => {
                self.supply_read(env.effects, (to, session), last, result);
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
        (EntryKind::Control, _) => (CommittedKind::Internal, Buffer::new()),
    };
    CommittedEntry { index, kind, body }
}

//! What is to be appended: queued when it comes, admitted in order once a turn.

use highwater_consensus::{EntryKind, LogIndex, ProposeError, ProposedEntry};
use highwater_log::storage::Storage;
use highwater_log::{self as log, NewEntry};
use highwater_record::{
    BATCH_PREFIX_BYTES, BatchHeader, Buffer, LeaderEpoch, Offset, body_crc, crc32c,
    set_log_append_time, stamp,
};

use super::waiting::{Proposal, Queued, ReadPoint};
use super::{Arriving, Effects, Env, Origin, Partition};
use crate::counters::count;
use crate::io::Now;
use crate::ops::{Batch, OpError, Outcome};
use crate::positions::{self, Control};
use crate::producer_state::{RememberedBatch, Verdict};

/// How many bytes may be queued in a partition before more is refused as busy.
const QUEUED_BYTES_MAX: usize = 16 << 20;

/// The largest entry of a group's owner, in bytes.
const OWNER_BYTES_MAX: usize = 8 << 20;

/// What became of the proposal at the front of the queue.
enum Admitted {
    /// It is proposed.
    Proposed,
    /// It is answered, or waits for the original of which it is a duplicate.
    Answered,
    /// There is no room now; it stays where it is.
    NoRoom,
}

impl Partition {
    /// Takes something to be appended, or refuses it at once.
    pub(super) fn enqueue(&mut self, origin: Origin, what: Proposal, effects: &mut Effects) {
        let bytes = what.bytes();
        let limit = match what {
            Proposal::Batches(_) => self.spec.config.max_message_bytes,
            Proposal::Owner(_) | Proposal::LogStart(_) => OWNER_BYTES_MAX,
        };
        let error = if bytes > limit {
            OpError::TooLarge { bytes, limit }
        } else if self.queued_bytes.saturating_add(bytes) > QUEUED_BYTES_MAX
            && !mutant!(QueueUnbounded)
        {
            OpError::Busy("too much waits to be appended")
        } else {
            self.queued_bytes += bytes;
            self.queued.push_back(Queued { origin, what });
            return;
        };
        effects.done.push((origin, Err(error)));
    }

    /// Proposes what is queued, as far as there is room. Whether consensus was told anything.
    pub(super) fn admit_queued<S: Storage>(&mut self, env: &mut Env<'_, S>) -> bool {
        let mut acted = false;
        while let Some(queued) = self.queued.pop_front() {
            let bytes = queued.what.bytes();
            match self.admit(env, &queued) {
                Ok(Admitted::Proposed | Admitted::Answered) => acted = true,
                Ok(Admitted::NoRoom) => {
                    self.queued.push_front(queued);
                    break;
                }
                Err(error) => env.effects.done.push((queued.origin, Err(error))),
            }
            self.queued_bytes -= bytes;
        }
        acted
    }

    fn admit<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        queued: &Queued,
    ) -> Result<Admitted, OpError> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        if self.waiting.is_full() {
            return Ok(Admitted::NoRoom);
        }
        match &queued.what {
            Proposal::Batches(batches) => self.admit_batches(env, queued.origin, batches),
            Proposal::Owner(body) => {
                let control = Control::Owner(body.clone());
                let Some(index) = self.propose_control(env, EntryKind::Control, &control)? else {
                    return Ok(Admitted::NoRoom);
                };
                let outcome = Outcome::Proposed { index };
                self.waiting
                    .await_commit(index, Some(queued.origin), outcome);
                Ok(Admitted::Proposed)
            }
            &Proposal::LogStart(offset) => {
                let control = Control::LogStart(offset);
                let Some(index) = self.propose_control(env, EntryKind::LogStart, &control)? else {
                    return Ok(Admitted::NoRoom);
                };
                let outcome = Outcome::LogStart {
                    log_start_offset: offset,
                };
                self.waiting
                    .await_commit(index, Some(queued.origin), outcome);
                Ok(Admitted::Proposed)
            }
        }
    }

    fn admit_batches<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        origin: Origin,
        batches: &[Batch],
    ) -> Result<Admitted, OpError> {
        let headers = batches.iter().map(|batch| &batch.header);
        match self.producers.check(headers) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate(original)) => {
                self.answer_duplicate(env.effects, origin, &original);
                return Ok(Admitted::Answered);
            }
            // A leader that is deposed and does not know it lacks what the producer has written
            // since; its refusal would be final for many producers.
            Err(error) => {
                self.read_point(env, origin, ReadPoint::Refused(error));
                return Ok(Admitted::Answered);
            }
        }
        let bytes = batches.iter().map(|batch| batch.bytes.len()).sum();
        self.reserve(env, bytes)?;
        let epoch = positions::epoch(self.raft.term());
        let base_offset = self.positions_end();
        let bodies = self.stamp_all(env, batches, base_offset, epoch)?;
        let proposed: Vec<ProposedEntry> = batches
            .iter()
            .map(|batch| ProposedEntry {
                kind: EntryKind::Data,
                size: positions::size(batch.bytes.len()),
            })
            .collect();
        let Some(first) = self.propose(&proposed)? else {
            return Ok(Admitted::NoRoom);
        };
        let append_time = append_time(env.now);
        let mut index = first;
        let mut offset = base_offset;
        let counters = &mut env.effects.counters;
        counters.produces += 1;
        for (body, header) in bodies {
            counters.produced_batches += 1;
            counters.produced_records += u64::from(header.records_count());
            counters.produced_bytes += count(body.len());
            self.producers.append(index, offset, &header, append_time);
            let next = offset.advance(u64::from(header.offset_span()));
            self.arrive_proposal(NewEntry {
                id: positions::id_to_log(highwater_consensus::EntryId {
                    index,
                    term: self.raft.term(),
                }),
                kind: log::EntryKind::Data,
                base_offset: offset,
                offset_span: header.offset_span(),
                append_time,
                body_crc: crc_of(&body, &header),
                body,
                chain: None,
            });
            (index, offset) = (index.next(), next);
        }
        self.admitted_end = Some(offset);
        let outcome = Outcome::Produced {
            base_offset,
            log_append_time_ms: self.spec.config.log_append_time.then_some(env.now.wall_ms),
            log_start_offset: self.log_start_offset,
        };
        if mutant!(AckBeforeCommit) {
            env.effects.done.push((origin, Ok(outcome)));
            return Ok(Admitted::Proposed);
        }
        self.waiting
            .await_commit(index.previous(), Some(origin), outcome);
        Ok(Admitted::Proposed)
    }

    /// Copies of the batches with their places in them. The one copy on a produce's way but for
    /// the log's, into its write buffer.
    fn stamp_all<S: Storage>(
        &self,
        env: &Env<'_, S>,
        batches: &[Batch],
        base_offset: Offset,
        epoch: LeaderEpoch,
    ) -> Result<Vec<(Buffer, BatchHeader)>, OpError> {
        let mut offset = base_offset;
        let mut stamped = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut copy = env
                .pool
                .get(batch.bytes.len())
                .map_err(|_| OpError::Busy("the memory budget is exhausted"))?;
            copy.extend_from_slice(&batch.bytes);
            let bytes = copy.unshared_mut(0..batch.bytes.len());
            stamp(bytes, offset, epoch);
            if self.spec.config.log_append_time {
                set_log_append_time(bytes, env.now.wall_ms);
            }
            let body = copy.freeze();
            let header = BatchHeader::read(&body).expect("a validated batch stays one");
            offset = offset.advance(u64::from(header.offset_span()));
            stamped.push((body, header));
        }
        Ok(stamped)
    }

    /// A duplicate has the original's answer, and has it when the original is committed.
    fn answer_duplicate(
        &mut self,
        effects: &mut Effects,
        origin: Origin,
        original: &RememberedBatch,
    ) {
        let end = original.end_offset();
        let outcome = Outcome::Produced {
            base_offset: original.base_offset,
            log_append_time_ms: self
                .spec
                .config
                .log_append_time
                .then_some(original.max_timestamp),
            log_start_offset: self.log_start_offset,
        };
        if end <= self.positions.high_watermark() {
            effects.done.push((origin, Ok(outcome)));
        } else {
            self.waiting.await_original(end, origin, outcome);
        }
    }

    /// Proposes a control entry; `None` if there is no room now.
    pub(super) fn propose_control<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        kind: EntryKind,
        control: &Control,
    ) -> Result<Option<LogIndex>, OpError> {
        let body = control.body();
        self.reserve(env, body.len())?;
        let size = positions::size(body.len());
        let Some(index) = self.propose(&[ProposedEntry { kind, size }])? else {
            return Ok(None);
        };
        let base_offset = self.positions_end();
        let term = self.raft.term();
        let id = highwater_consensus::EntryId { index, term };
        self.arrive_proposal(control_entry(id, base_offset, env.now, body));
        Ok(Some(index))
    }

    fn arrive_proposal(&mut self, entry: NewEntry) {
        let key = (entry.id.index.0, entry.id.term.0);
        let arriving = Arriving {
            entry,
            is_proposal: true,
        };
        let replaced = self.arriving.insert(key, arriving);
        assert!(replaced.is_none(), "an entry is proposed once");
    }

    fn propose(&mut self, entries: &[ProposedEntry]) -> Result<Option<LogIndex>, OpError> {
        match self.raft.propose(entries) {
            Ok(first) => Ok(Some(first.index)),
            Err(ProposeError::Busy { .. }) => Ok(None),
            Err(ProposeError::Transferring { .. }) => {
                Err(OpError::Busy("leadership is being handed over"))
            }
            Err(ProposeError::NotLeader { .. }) => Err(self.not_leader()),
            Err(ProposeError::Malformed) => {
                panic!("a proposal has entries, and none is a no-op")
            }
        }
    }

    fn reserve<S: Storage>(&self, env: &mut Env<'_, S>, bytes: usize) -> Result<(), OpError> {
        match env.store.reserve(self.group, bytes) {
            Ok(()) => Ok(()),
            Err(log::ReserveError::NoSpace { .. }) => Err(OpError::Busy("the disk is full")),
            Err(error) => Err(OpError::Storage(error.to_string())),
        }
    }

    /// Where the next proposal of this step begins.
    fn positions_end(&self) -> Offset {
        self.admitted_end
            .unwrap_or_else(|| self.positions.end_offset())
    }

    pub(super) fn not_leader(&self) -> OpError {
        OpError::NotLeader {
            leader: self.raft.leader(),
            epoch: positions::epoch(self.raft.term()),
        }
    }
}

/// A control entry as the leader makes it.
pub(super) fn control_entry(
    id: highwater_consensus::EntryId,
    base_offset: Offset,
    now: Now,
    body: Buffer,
) -> NewEntry {
    NewEntry {
        id: positions::id_to_log(id),
        kind: log::EntryKind::Control,
        base_offset,
        offset_span: 0,
        append_time: append_time(now),
        body_crc: crc32c(&body),
        body,
        chain: None,
    }
}

/// The leader's clock as entries carry it, in seconds. A clock before 1970 or after 2106 gives
/// the nearest that can be said.
fn append_time(now: Now) -> u32 {
    let seconds = now.wall_ms.div_euclid(1_000).max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The CRC of a stamped batch: only its first bytes are read again.
fn crc_of(body: &Buffer, header: &BatchHeader) -> u32 {
    let prefix: &[u8; BATCH_PREFIX_BYTES] = body.first_chunk().expect("a batch has a header");
    body_crc(prefix, header.crc(), body.len() - BATCH_PREFIX_BYTES)
}

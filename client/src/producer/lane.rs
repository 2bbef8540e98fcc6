//! The way of one partition's batches: in order, a few at a time, and in the same order again
//! when some must be sent again. Without I/O: the sender asks and tells.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use highwater_protocol::ErrorCode;
use highwater_record::{ProducerStamp, sequence_after};
use tokio::time::Instant;

use super::batch::{Attempts, Batch, BatchId};
use crate::cluster::Backoff;
use crate::error::ProduceError;

/// Batches of one partition from the oldest whose fate is open to the newest that was sent, if the
/// producer is idempotent: brokers remember as many. One that is older than the last five in the
/// log would not be known again when it is sent again.
const IN_FLIGHT_MAX: usize = 5;

/// Who the broker thinks we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
}

/// One partition's batches that have left the accumulator.
///
/// A batch is `queued` (to be sent again), in flight, or `returned` (its attempt failed).
///
/// | event | what follows |
/// |---|---|
/// | sent | in flight, under a sequence that never changes while the batch may be in the log |
/// | acknowledged | gone |
/// | failed, may be tried again | returned; nothing is sent until all of the flight has come back |
/// | refused for good | gone; its sequence leaves a hole that no later batch can pass |
/// | the flight is back | what returned is queued again, in its old order; behind a hole under a new identity, and what may be in the log already is given up there |
#[derive(Debug)]
pub(super) struct Lane {
    idempotent: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    queued: VecDeque<Batch>,
    in_flight: BTreeSet<BatchId>,
    /// Acknowledged, although the fate of an older one is open.
    passed: BTreeSet<BatchId>,
    returned: Vec<Batch>,
    /// Set when a sequence was given that the broker will never see.
    hole: bool,
    blocked_until: Option<Instant>,
    backoff: Backoff,
}

/// What a broker's error means for the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try again. The batch may be in the log if `open`.
    Retry { open: bool },
    /// The broker misses an earlier sequence, or does not know the producer.
    Sequence,
    /// Never.
    Refused,
    /// Never, and the batch may be in the log.
    Lost,
}

impl Verdict {
    /// Sorts the errors of Produce. A leader that is deposed after it has appended answers
    /// NOT_LEADER_OR_FOLLOWER too, so most retriable errors leave the outcome open.
    pub(super) fn of(error: ErrorCode) -> Self {
        match error {
            ErrorCode::OutOfOrderSequenceNumber
            | ErrorCode::UnknownProducerId
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidProducerIdMapping => Self::Sequence,
            ErrorCode::NotEnoughReplicas
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::ThrottlingQuotaExceeded => Self::Retry { open: false },
            ErrorCode::DuplicateSequenceNumber | ErrorCode::UnknownServerError => Self::Lost,
            error if error.is_retriable() => Self::Retry { open: true },
            _ => Self::Refused,
        }
    }
}

/// A batch that is given up, and why.
pub(super) type GivenUp = (Batch, ProduceError);

impl Lane {
    pub(super) fn new(idempotent: bool) -> Self {
        Self {
            idempotent,
            identity: None,
            next_sequence: 0,
            queued: VecDeque::new(),
            in_flight: BTreeSet::new(),
            passed: BTreeSet::new(),
            returned: Vec::new(),
            hole: false,
            blocked_until: None,
            backoff: Backoff::default(),
        }
    }

    /// Whether a batch, queued or new, may be sent now.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        let limit = if self.idempotent { IN_FLIGHT_MAX } else { 1 };
        self.in_flight.len() + self.passed.len() < limit
            && self.returned.is_empty()
            && !self.hole
            && !self.needs_identity()
            && self.blocked_until.is_none_or(|until| until <= now)
    }

    /// Whether the lane must be told an identity before it can send.
    pub(super) fn needs_identity(&self) -> bool {
        self.idempotent && self.identity.is_none()
    }

    pub(super) fn set_identity(&mut self, identity: Identity) {
        if self.needs_identity() {
            self.identity = Some(identity);
            self.next_sequence = 0;
        }
    }

    /// Whether there is something to be sent again.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether all it needs is batches to be sent.
    pub(super) fn is_calm(&self, now: Instant) -> bool {
        self.queued.is_empty()
            && self.returned.is_empty()
            && !self.hole
            && !self.needs_identity()
            && self.blocked_until.is_none_or(|until| until <= now)
    }

    /// When a wait ends, if there is something to send then.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// Takes the next batch to send: one that waits to be sent again, else a new one.
    pub(super) fn next(
        &mut self,
        now: Instant,
        new: impl FnOnce() -> Option<Batch>,
    ) -> Option<Batch> {
        if !self.may_send(now) {
            return None;
        }
        let mut batch = self.queued.pop_front().or_else(new)?;
        if let Some(identity) = self.identity
            && batch.stamp().is_none()
        {
            batch.set_stamp(ProducerStamp {
                producer_id: identity.producer_id,
                producer_epoch: identity.producer_epoch,
                base_sequence: self.next_sequence,
            });
            self.next_sequence = sequence_after(self.next_sequence, batch.records_count());
        }
        self.in_flight.insert(batch.id);
        Some(batch)
    }

    /// The broker has appended the batch.
    pub(super) fn acknowledged(&mut self, id: BatchId, timeout: Duration) -> Vec<GivenUp> {
        self.in_flight.remove(&id);
        self.passed.insert(id);
        self.backoff = Backoff::default();
        let given_up = self.settle(timeout);
        self.forget_passed();
        given_up
    }

    /// What was acknowledged counts only behind one whose fate is open.
    fn forget_passed(&mut self) {
        let in_flight = self.in_flight.first().copied();
        let waiting = self.queued.iter().chain(&self.returned);
        let open = waiting.map(|batch| batch.id).chain(in_flight).min();
        match open {
            Some(open) => self.passed.retain(|id| *id > open),
            None => self.passed.clear(),
        }
    }

    /// The attempt failed, but the batch may be tried again.
    pub(super) fn failed(
        &mut self,
        mut batch: Batch,
        open: bool,
        error: String,
        now: Instant,
        timeout: Duration,
    ) -> Vec<GivenUp> {
        self.in_flight.remove(&batch.id);
        if open {
            batch.attempts = Attempts::Unknown;
        }
        batch.last_error = Some(error);
        self.returned.push(batch);
        self.blocked_until = Some(now + self.backoff.next());
        self.settle(timeout)
    }

    /// The broker misses what came before the batch. If that is still on its way back, so is
    /// this; otherwise the broker has forgotten us.
    pub(super) fn out_of_sequence(
        &mut self,
        mut batch: Batch,
        error: String,
        now: Instant,
        timeout: Duration,
    ) -> Vec<GivenUp> {
        self.in_flight.remove(&batch.id);
        self.blocked_until = Some(now + self.backoff.next());
        let earlier_is_open = self
            .in_flight
            .first()
            .is_some_and(|first| *first < batch.id)
            || self.returned.iter().any(|earlier| earlier.id < batch.id);
        if !earlier_is_open {
            self.hole = true;
        }
        batch.last_error = Some(error);
        self.returned.push(batch);
        self.settle(timeout)
    }

    /// The batch is given up, by the broker's word or after too long.
    pub(super) fn gone(&mut self, id: BatchId, timeout: Duration) -> Vec<GivenUp> {
        self.in_flight.remove(&id);
        self.hole |= self.idempotent;
        let given_up = self.settle(timeout);
        self.forget_passed();
        given_up
    }

    /// Gives up what has waited too long to be sent again.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<GivenUp> {
        let mut expired = Vec::new();
        while let Some(first) = self.queued.front()
            && first.begun + timeout <= now
        {
            let batch = self.queued.pop_front().expect("the front was just seen");
            self.hole |= batch.stamp().is_some();
            expired.push(give_up(batch, timeout));
        }
        if !expired.is_empty() {
            expired.extend(self.settle(timeout));
            self.forget_passed();
        }
        expired
    }

    /// Once the whole flight is back: queues again what returned, in its old order.
    fn settle(&mut self, timeout: Duration) -> Vec<GivenUp> {
        if !self.in_flight.is_empty() {
            return Vec::new();
        }
        self.returned.sort_by_key(|batch| batch.id);
        for batch in self.returned.drain(..).rev() {
            self.queued.push_front(batch);
        }
        if !std::mem::take(&mut self.hole) {
            return Vec::new();
        }
        // Behind a hole the old sequences are worth nothing. What may be in the log cannot be
        // sent under a new one: the broker would not know it again.
        self.identity = None;
        self.passed.clear();
        let (lost, queued): (VecDeque<_>, _) = std::mem::take(&mut self.queued)
            .into_iter()
            .partition(|batch: &Batch| batch.attempts == Attempts::Unknown);
        self.queued = queued;
        for batch in &mut self.queued {
            batch.clear_stamp();
        }
        lost.into_iter()
            .map(|batch| give_up(batch, timeout))
            .collect()
    }
}

/// The end of a batch that is not tried any more.
pub(super) fn give_up(batch: Batch, after: Duration) -> GivenUp {
    let partition = batch.partition.clone();
    let reason = batch
        .last_error
        .clone()
        .unwrap_or_else(|| "its leader was not known or not reachable".to_owned());
    let error = match batch.attempts {
        Attempts::NotWritten => ProduceError::Expired {
            partition,
            after,
            reason,
        },
        Attempts::Unknown => ProduceError::OutcomeUnknown { partition, reason },
    };
    (batch, error)
}

#[cfg(test)]
mod tests;

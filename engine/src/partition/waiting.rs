//! Operations that wait: for a commit, for records, for a leader.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_consensus::{LogIndex, ReadId};
use highwater_record::{Buffer, LeaderEpoch, Offset};

use super::{Effects, Origin};
use crate::ops::{Batch, Op, OpError, Outcome};
use crate::producer_state::ProducerError;

/// How many operations of one kind may wait in a partition; more are refused as busy.
pub(super) const WAITING_MAX: usize = 16_384;

/// Something to be appended that has not been admitted yet.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) origin: Origin,
    pub(super) what: Proposal,
}

/// What is to be appended.
#[derive(Debug)]
pub(super) enum Proposal {
    /// Batches of a producer.
    Batches(Vec<Batch>),
    /// An entry of the group's owner.
    Owner(Buffer),
    /// A move of the log start.
    LogStart(Offset),
}

impl Proposal {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Proposal::Batches(batches) => batches.iter().map(|batch| batch.bytes.len()).sum(),
            Proposal::Owner(body) => body.len(),
            Proposal::LogStart(_) => size_of::<Offset>(),
        }
    }
}

/// What a confirmed read point is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPoint {
    /// [`Op::Barrier`].
    Barrier,
    /// [`Op::ListOffset`] of the latest.
    Latest,
    /// An [`Op::Fetch`] from beyond the log's end.
    Beyond(Offset),
    /// A batch that does not follow its producer's last one here.
    Refused(ProducerError),
}

/// Something appended that waits for its commit.
#[derive(Debug)]
struct Uncommitted {
    last: LogIndex,
    /// `None` if nobody asked: a retention of the leader's own.
    origin: Option<Origin>,
    outcome: Outcome,
}

/// All that waits in one partition.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order of their indexes.
    uncommitted: VecDeque<Uncommitted>,
    /// Duplicates of what is not committed yet, by the offset behind the original.
    duplicates: BTreeMap<Offset, Vec<(Origin, Outcome)>>,
    /// By the offset that the high watermark is to pass.
    offsets: BTreeMap<Offset, Vec<Origin>>,
    /// By the index that the commit index is to pass.
    indexes: BTreeMap<LogIndex, Vec<Origin>>,
    pub(super) barriers: BTreeMap<ReadId, (Origin, ReadPoint)>,
    /// Asked while nobody had been elected yet, until when they wait for a leader.
    pub(super) held: VecDeque<(Origin, Op, Duration)>,
    watches: usize,
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.uncommitted.len() >= WAITING_MAX
    }

    /// `outcome` is the answer once everything up to `last` is committed.
    pub(super) fn await_commit(
        &mut self,
        last: LogIndex,
        origin: Option<Origin>,
        outcome: Outcome,
    ) {
        let in_order = self.uncommitted.back().is_none_or(|back| back.last < last);
        assert!(in_order, "appends wait in the order of their indexes");
        self.uncommitted.push_back(Uncommitted {
            last,
            origin,
            outcome,
        });
    }

    /// `outcome` is the answer once the high watermark has reached `end`.
    pub(super) fn await_original(&mut self, end: Offset, origin: Origin, outcome: Outcome) {
        self.duplicates
            .entry(end)
            .or_default()
            .push((origin, outcome));
    }

    pub(super) fn watch_offset(&mut self, above: Offset, origin: Origin) -> Result<(), OpError> {
        self.count_watch()?;
        self.offsets.entry(above).or_default().push(origin);
        Ok(())
    }

    pub(super) fn watch_index(&mut self, above: LogIndex, origin: Origin) -> Result<(), OpError> {
        self.count_watch()?;
        self.indexes.entry(above).or_default().push(origin);
        Ok(())
    }

    fn count_watch(&mut self) -> Result<(), OpError> {
        if self.watches >= WAITING_MAX {
            return Err(OpError::Busy("too many wait for records"));
        }
        self.watches += 1;
        Ok(())
    }

    /// Everything up to `index` is committed, and the high watermark is there.
    pub(super) fn committed(
        &mut self,
        index: LogIndex,
        high_watermark: Offset,
        effects: &mut Effects,
    ) {
        while self.uncommitted.front().is_some_and(|it| it.last <= index) {
            let front = self.uncommitted.pop_front().expect("there is a front");
            if let Some(origin) = front.origin {
                effects.done.push((origin, Ok(front.outcome)));
            }
        }
        while let Some(entry) = self.duplicates.first_entry() {
            if *entry.key() > high_watermark {
                break;
            }
            let answers = entry.remove().into_iter();
            effects
                .done
                .extend(answers.map(|(origin, outcome)| (origin, Ok(outcome))));
        }
        while let Some(entry) = self.offsets.first_entry() {
            if *entry.key() >= high_watermark {
                break;
            }
            let origins = entry.remove();
            self.watches -= origins.len();
            effects.moved(origins);
        }
        while let Some(entry) = self.indexes.first_entry() {
            if *entry.key() >= index {
                break;
            }
            let origins = entry.remove();
            self.watches -= origins.len();
            effects.moved(origins);
        }
    }

    /// The term or the leader has changed. What was appended here and is not committed may be
    /// yet, by another leader: the answer admits either outcome. Who watches looks again.
    pub(super) fn leadership_lost(&mut self, effects: &mut Effects) {
        let appended = self.uncommitted.drain(..).filter_map(|it| it.origin);
        let duplicates = std::mem::take(&mut self.duplicates).into_values();
        let duplicates = duplicates.flatten().map(|(origin, _)| origin);
        let error = match mutant!(DefiniteErrorAfterAppend) {
            false => OpError::Indefinite,
            true => OpError::NotLeader {
                leader: None,
                epoch: LeaderEpoch::ZERO,
            },
        };
        for origin in appended.chain(duplicates) {
            effects.done.push((origin, Err(error.clone())));
        }
    }

    /// Something that watchers cannot see in offsets has changed.
    pub(super) fn wake_watchers(&mut self, effects: &mut Effects) {
        for origins in std::mem::take(&mut self.offsets).into_values() {
            self.watches -= origins.len();
            effects.moved(origins);
        }
    }

    /// `origin` no longer waits, if it only waited.
    pub(super) fn cancel(&mut self, origin: Origin, effects: &mut Effects) {
        let before = self.watches + self.held.len();
        for origins in self.offsets.values_mut() {
            origins.retain(|&other| other != origin);
        }
        for origins in self.indexes.values_mut() {
            origins.retain(|&other| other != origin);
        }
        self.offsets.retain(|_, origins| !origins.is_empty());
        self.indexes.retain(|_, origins| !origins.is_empty());
        self.held.retain(|(other, ..)| *other != origin);
        let in_offsets: usize = self.offsets.values().map(Vec::len).sum();
        let in_indexes: usize = self.indexes.values().map(Vec::len).sum();
        self.watches = in_offsets + in_indexes;
        if self.watches + self.held.len() < before {
            effects.done.push((origin, Err(OpError::Cancelled)));
        }
    }

    /// When the first of those that wait for a leader gives up.
    pub(super) fn held_until(&self) -> Option<Duration> {
        self.held.front().map(|(_, _, until)| *until)
    }

    /// Those whose patience for a leader has ended are told so.
    pub(super) fn expire_held(
        &mut self,
        now: Duration,
        effects: &mut Effects,
        error: impl Fn() -> OpError,
    ) {
        while self.held.front().is_some_and(|(_, _, until)| *until <= now) {
            let (origin, ..) = self.held.pop_front().expect("there is a front");
            effects.done.push((origin, Err(error())));
        }
    }

    /// Nothing of this partition is answered by itself any more: it is dropped, or frozen.
    pub(super) fn end(&mut self, effects: &mut Effects) {
        self.leadership_lost(effects);
        self.wake_watchers(effects);
        for origins in std::mem::take(&mut self.indexes).into_values() {
            self.watches -= origins.len();
            effects.moved(origins);
        }
        let barriers = std::mem::take(&mut self.barriers).into_values();
        let barriers = barriers.map(|(origin, _)| origin);
        let held = self.held.drain(..).map(|(origin, ..)| origin);
        for origin in barriers.chain(held) {
            effects.done.push((origin, Err(OpError::UnknownGroup)));
        }
    }
}

impl Effects {
    fn moved(&mut self, origins: Vec<Origin>) {
        let answers = origins
            .into_iter()
            .map(|origin| (origin, Ok(Outcome::Moved)));
        self.done.extend(answers);
    }
}

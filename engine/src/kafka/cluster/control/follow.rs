//! Applying what the controller has committed: read, apply, wait for more.

use std::time::Duration;

use highwater_consensus::LogIndex;

use crate::controller::{Applied, ApplyError, Change, Controller};
use crate::io::Now;
use crate::ops::{
    CONTROLLER, CommittedEntry, CommittedKind, Op, OpError, OpId, OpQueue, OpResult, Outcome,
};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// How long to wait after group 0 could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a step of following has brought.
#[derive(Debug, Default, PartialEq)]
pub(in crate::kafka::cluster) struct Followed {
    /// What is different now, in order.
    pub(in crate::kafka::cluster) changes: Vec<Change>,
    /// Entries were applied or passed over.
    pub(in crate::kafka::cluster) advanced: bool,
    /// Everything committed that this node knows of is applied.
    pub(in crate::kafka::cluster) caught_up: bool,
}

/// Follows group 0 by reading its committed entries, wherever on this node it lives.
#[derive(Debug, Default)]
pub(in crate::kafka::cluster) struct Follower {
    /// The question under way; there is one at a time.
    asked: Option<OpId>,
    retry_at: Option<Duration>,
    /// The last record that was applied, and whether it held: what a leader wants to know of its
    /// own.
    last: Option<(LogIndex, bool)>,
}

impl Follower {
    /// Begins, or goes on when [`next_timeout`](Follower::next_timeout) has come.
    pub(in crate::kafka::cluster) fn read(&mut self, state: &Controller, ops: &mut OpQueue) {
        self.retry_at = None;
        let read = Op::ReadEntries {
            from: state.applied().next(),
            max_bytes: READ_BYTES,
        };
        self.asked = Some(ops.submit(CONTROLLER, read));
    }

    /// When to read again after a failure.
    pub(in crate::kafka::cluster) fn next_timeout(&self) -> Option<Duration> {
        self.retry_at
    }

    /// Whether the record at `index` held; `None` if it is not the last one applied.
    pub(in crate::kafka::cluster) fn outcome_of(&self, index: LogIndex) -> Option<bool> {
        let (last, held) = self.last?;
        (last == index).then_some(held)
    }

    /// Whether this operation is one of the follower's; [`handle_done`](Follower::handle_done)
    /// wants its result then.
    pub(in crate::kafka::cluster) fn has_asked(&self, id: OpId) -> bool {
        self.asked == Some(id)
    }

    /// Takes a result in.
    pub(in crate::kafka::cluster) fn handle_done(
        &mut self,
        now: Now,
        result: OpResult,
        state: &mut Controller,
        ops: &mut OpQueue,
    ) -> Result<Followed, ApplyError> {
        self.asked = None;
        let mut followed = Followed::default();
        match result {
            Ok(Outcome::Entries {
                entries,
                commit_index,
            }) => {
                let nothing = entries.is_empty();
                for entry in entries {
                    self.apply(&entry, state, &mut followed)?;
                }
                followed.caught_up = state.applied() >= commit_index;
                if nothing || followed.caught_up {
                    let above = state.applied();
                    self.asked = Some(ops.submit(CONTROLLER, Op::WatchIndex { above }));
                } else {
                    self.read(state, ops);
                }
            }
            Ok(Outcome::Moved) => self.read(state, ops),
            Ok(other) => unreachable!("{other:?} answers neither reading nor watching"),
            Err(error) => {
                if !matches!(error, OpError::Cancelled) {
                    tracing::debug!(%error, "the controller's log cannot be read");
                }
                self.retry_at = Some(now.monotonic + RETRY_AFTER);
            }
        }
        Ok(followed)
    }

    fn apply(
        &mut self,
        entry: &CommittedEntry,
        state: &mut Controller,
        followed: &mut Followed,
    ) -> Result<(), ApplyError> {
        // A restored state may have overtaken a read that was under way.
        if entry.index <= state.applied() {
            return Ok(());
        }
        followed.advanced = true;
        if entry.kind != CommittedKind::Control {
            state.pass(entry.index);
            return Ok(());
        }
        let applied = state.apply(entry.index, &entry.body)?;
        self.last = Some((entry.index, applied != Applied::Void));
        match applied {
            Applied::Changed(changes) => followed.changes.extend(changes),
            Applied::Void => tracing::info!(index = %entry.index, "a decision was overtaken"),
        }
        Ok(())
    }
}

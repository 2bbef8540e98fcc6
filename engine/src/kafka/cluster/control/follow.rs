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

/// How long group 0 could not be read before its leader, if it is here, is to make way: a
/// leader that cannot apply what it commits stops the whole cluster.
const UNREADABLE_MAX: Duration = Duration::from_secs(5);

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
    /// When another is to lead group 0, if it could not be read here last.
    make_way_at: Option<Duration>,
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
        self.note_unreadable(now, &result, ops);
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

    /// What is damaged or gone stays so, unless it is repaired. Whether the leader is here, group 0
    /// knows; else it refuses.
    fn note_unreadable(&mut self, now: Now, result: &OpResult, ops: &mut OpQueue) {
        let is_lost = matches!(
            result,
            Err(OpError::Storage(_) | OpError::BelowLogStart { .. })
        );
        if !is_lost {
            self.make_way_at = None;
            return;
        }
        let due = self
            .make_way_at
            .get_or_insert(now.monotonic + UNREADABLE_MAX);
        if now.monotonic >= *due {
            *due = now.monotonic + UNREADABLE_MAX;
            ops.submit(CONTROLLER, Op::Transfer { to: None });
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Asked;

    /// How often a follower that reads every second, with these results, has the leader make way.
    fn ways_made(results: impl IntoIterator<Item = OpResult>) -> usize {
        let (mut follower, mut state) = (Follower::default(), Controller::new());
        let mut ops = OpQueue::new();
        for (result, second) in results.into_iter().zip(0..) {
            let now = Now {
                monotonic: Duration::from_secs(second),
                wall_ms: 0,
            };
            follower.read(&state, &mut ops);
            follower
                .handle_done(now, result, &mut state, &mut ops)
                .unwrap();
        }
        let asked = std::iter::from_fn(|| ops.take());
        let is_transfer = |asked: &Asked| {
            let op = match asked {
                Asked::Op { op, .. } => op,
                _ => return false,
            };
            matches!(op, Op::Transfer { to: None })
        };
        asked.filter(is_transfer).count()
    }

    fn nothing() -> OpResult {
        Ok(Outcome::Entries {
            entries: Vec::new(),
            commit_index: LogIndex(0),
        })
    }

    #[test]
    fn a_leader_that_cannot_apply_makes_way() {
        let first = LogIndex(9);
        let damaged: OpResult = Err(OpError::Storage(
            "entries from 1 are quarantined".to_owned(),
        ));
        let gone: OpResult = Err(OpError::BelowLogStart { first });
        for lost in [damaged, gone] {
            assert_eq!(ways_made(vec![lost.clone(); 5]), 0);
            assert_eq!(ways_made(vec![lost.clone(); 6]), 1);
            assert_eq!(ways_made(vec![lost.clone(); 11]), 2);
            let mut mended = vec![lost; 10];
            mended[4] = nothing();
            assert_eq!(ways_made(mended), 0);
        }
    }

    #[test]
    fn who_is_busy_does_not() {
        assert_eq!(ways_made(vec![Err(OpError::Busy("just now")); 20]), 0);
        assert_eq!(ways_made(vec![Err(OpError::UnknownGroup); 20]), 0);
        assert_eq!(ways_made(vec![nothing(); 20]), 0);
    }
}

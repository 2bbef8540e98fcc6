//! Retention: the leader decides what may go and replicates it as a move of the log start.

use std::time::Duration;

use highwater_consensus::EntryKind;
use highwater_log::Retention;
use highwater_log::storage::Storage;

use super::{Env, Partition};
use crate::ops::Outcome;
use crate::positions::Control;

/// How often a leader looks for what may go.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

impl Partition {
    /// Looks for whole files that are too old or too many, when it is time.
    pub(super) fn propose_retention<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        if env.now.monotonic < self.retention_due {
            return;
        }
        self.retention_due = env.now.monotonic + INTERVAL;
        let config = &self.spec.config;
        let is_doubted = env.is_wall_doubted && !mutant!(RetentionBelievesClock);
        let retention = Retention {
            bytes: config.retention_bytes,
            // Nothing is deleted on the word of a clock that has jumped.
            age_ms: config.retention_ms.filter(|_| !is_doubted),
        };
        if !self.raft.leads_with_commit() || retention == Retention::default() {
            return;
        }
        let candidate = env
            .store
            .retention_start(self.group, &retention, env.now.wall_ms);
        let high_watermark = self.positions.high_watermark();
        let Some(offset) = candidate.map(|offset| offset.min(high_watermark)) else {
            return;
        };
        if offset <= self.log_start_offset {
            return;
        }
        // No room now is no harm: the next look finds the same.
        let control = Control::LogStart(offset);
        if let Ok(Some(index)) = self.propose_control(env, EntryKind::LogStart, &control) {
            let outcome = Outcome::LogStart {
                log_start_offset: offset,
            };
            self.waiting.await_commit(index, None, outcome);
            self.apply_outputs(env);
        }
    }
}

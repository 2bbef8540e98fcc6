//! What the log reports about this replica.

use highwater_log::storage::Storage;
use highwater_log::{self as log};

use super::{Env, Partition};
use crate::io::Now;
use crate::positions;

impl Partition {
    /// Everything up to `write` is durable.
    pub(crate) fn handle_persisted(&mut self, now: Now, write: log::WriteId) {
        if self.frozen.is_none() {
            let write = positions::write_from_log(write);
            self.raft.handle_persisted(now.monotonic, write);
            // A write that went through shows that there is room again.
            self.is_disk_full = false;
            self.raft.handle_disk_full(false);
        }
    }

    /// There is no room on the disk for what is staged.
    pub(crate) fn handle_no_space(&mut self) {
        self.is_disk_full = true;
        self.raft.handle_disk_full(true);
    }

    /// A file is full; it is sealed once all in it is committed.
    pub(crate) fn handle_closed<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        sequence: log::Sequence,
        last: log::LogIndex,
    ) {
        self.closed.push_back((sequence, last));
        self.seal_closed(env);
    }

    /// Consensus has its log whole again.
    pub(super) fn quarantine_ended<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        tracing::info!(group = self.group.0, "quarantine ended");
        if let Err(error) = env.store.end_quarantine(self.group) {
            self.freeze(error.to_string());
        }
    }

    /// What was bad may have gone with what was cut. Of a hole that was found while it ran only
    /// the log knows, so that consensus does not say that it has ended.
    pub(super) fn holes_cut<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        if !self.raft.is_quarantined() && env.store.first_hole(self.group).is_none() {
            self.quarantine_ended(env);
        }
    }
}

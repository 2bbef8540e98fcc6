//! What a node's links have done, for metrics.

use super::handshake::RefusalReason;
use crate::counter::Counter;

/// Counts since the endpoint was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Sessions that came up.
    pub sessions: u64,
    /// Attempts to begin a session, as dialer, that failed.
    pub dials_failed: u64,
    /// Connections and handshakes that were refused, as acceptor, by [`RefusalReason::index`].
    pub refused: [u64; RefusalReason::COUNT],
    /// Frames taken into outboxes.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames handed to the event queue.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames refused because an outbox was full.
    pub outbox_full: u64,
    /// How often a lane was not read because the memory budget was exhausted.
    pub budget_waits: u64,
}

impl PeerCounters {
    /// How many connections were refused for `reason`.
    #[must_use]
    pub fn refused_for(&self, reason: RefusalReason) -> u64 {
        self.refused[reason.index()]
    }
}

/// The counters themselves.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) sessions: Counter,
    pub(super) dials_failed: Counter,
    refused: [Counter; RefusalReason::COUNT],
    pub(super) frames_sent: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) frames_received: Counter,
    pub(super) bytes_received: Counter,
    pub(super) outbox_full: Counter,
    pub(super) budget_waits: Counter,
}

impl Counters {
    pub(super) fn refuse(&self, reason: RefusalReason) {
        self.refused[reason.index()].add(1);
    }

    pub(super) fn snapshot(&self) -> PeerCounters {
        PeerCounters {
            sessions: self.sessions.get(),
            dials_failed: self.dials_failed.get(),
            refused: std::array::from_fn(|reason| self.refused[reason].get()),
            frames_sent: self.frames_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            frames_received: self.frames_received.get(),
            bytes_received: self.bytes_received.get(),
            outbox_full: self.outbox_full.get(),
            budget_waits: self.budget_waits.get(),
        }
    }
}

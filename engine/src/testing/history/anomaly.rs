//! What can be wrong with a history.

use std::collections::BTreeMap;
use std::fmt;

/// A promise that a history breaks. The letters are those of the project's catalogue of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnomalyKind {
    /// An acknowledged record, or one of a batch of which another was read, was read by nobody,
    /// though records behind it were (S1).
    LostWrite,
    /// An acknowledged record was read by nobody, nor anything behind it (S1).
    Unseen,
    /// A record was read whose send failed for good (G1a, S3).
    AbortedRead,
    /// A record was read that nobody had sent by then (S3).
    Phantom,
    /// One offset has two values (S2).
    InconsistentOffsets,
    /// A value is at two offsets (S5). Allowed where its producer is not idempotent.
    Duplicate,
    /// Between two polls a consumer was led past a record (S4).
    PollSkip,
    /// Within a poll it was (S4).
    IntPollSkip,
    /// A poll gave a consumer what lies before its position (S4).
    NonmonotonicPoll,
    /// Within a poll offsets do not rise (S4).
    IntNonmonotonicPoll,
    /// A later send of a producer lies before an earlier one (S4). Allowed where it is not
    /// idempotent.
    NonmonotonicSend,
    /// The records of a batch are not in its order (S4).
    IntNonmonotonicSend,
    /// Records of others lie between those of a batch.
    IntSendSkip,
    /// The leader's end of the log lacks what was acknowledged or visible before the question
    /// (S7).
    StaleLatest,
    /// The end of the log lies behind what was sent by then (S6).
    PrematureLatest,
    /// The leader gives nothing at an offset that was acknowledged before the question (S7).
    StaleRead,
    /// A replica lacks what lies before all that it has.
    LostOnNodePrefix,
    /// A replica lacks something between what it has.
    LostOnNodeMiddle,
    /// A replica lacks what lies behind all that it has.
    LostOnNodePostfix,
    /// Offsets of a replica have a gap, and nobody knows what was there.
    Hole,
    /// A replica's log starts behind all that anybody asked to delete.
    UnaskedDelete,
    /// A consumer was told that its position is out of range, though it lies at or above the
    /// log start (S6).
    OffsetReset,
    /// A group's position is not the one that was stored last (S8).
    GroupRegress,
    /// The history itself is wrong: an end without its beginning, or the other way.
    Malformed,
}

impl AnomalyKind {
    /// All of them.
    pub const ALL: [AnomalyKind; 24] = [
        AnomalyKind::LostWrite,
        AnomalyKind::Unseen,
        AnomalyKind::AbortedRead,
        AnomalyKind::Phantom,
        AnomalyKind::InconsistentOffsets,
        AnomalyKind::Duplicate,
        AnomalyKind::PollSkip,
        AnomalyKind::IntPollSkip,
        AnomalyKind::NonmonotonicPoll,
        AnomalyKind::IntNonmonotonicPoll,
        AnomalyKind::NonmonotonicSend,
        AnomalyKind::IntNonmonotonicSend,
        AnomalyKind::IntSendSkip,
        AnomalyKind::StaleLatest,
        AnomalyKind::PrematureLatest,
        AnomalyKind::StaleRead,
        AnomalyKind::LostOnNodePrefix,
        AnomalyKind::LostOnNodeMiddle,
        AnomalyKind::LostOnNodePostfix,
        AnomalyKind::Hole,
        AnomalyKind::UnaskedDelete,
        AnomalyKind::OffsetReset,
        AnomalyKind::GroupRegress,
        AnomalyKind::Malformed,
    ];

    /// Its name, as Jepsen's where it has one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AnomalyKind::LostWrite => "lost-write",
            AnomalyKind::Unseen => "unseen",
            AnomalyKind::AbortedRead => "G1a",
            AnomalyKind::Phantom => "phantom",
            AnomalyKind::InconsistentOffsets => "inconsistent-offsets",
            AnomalyKind::Duplicate => "duplicate",
            AnomalyKind::PollSkip => "poll-skip",
            AnomalyKind::IntPollSkip => "int-poll-skip",
            AnomalyKind::NonmonotonicPoll => "nonmonotonic-poll",
            AnomalyKind::IntNonmonotonicPoll => "int-nonmonotonic-poll",
            AnomalyKind::NonmonotonicSend => "nonmonotonic-send",
            AnomalyKind::IntNonmonotonicSend => "int-nonmonotonic-send",
            AnomalyKind::IntSendSkip => "int-send-skip",
            AnomalyKind::StaleLatest => "stale-latest",
            AnomalyKind::PrematureLatest => "premature-latest",
            AnomalyKind::StaleRead => "stale-read",
            AnomalyKind::LostOnNodePrefix => "lost-on-node-prefix",
            AnomalyKind::LostOnNodeMiddle => "lost-on-node-middle",
            AnomalyKind::LostOnNodePostfix => "lost-on-node-postfix",
            AnomalyKind::Hole => "hole",
            AnomalyKind::UnaskedDelete => "unasked-delete",
            AnomalyKind::OffsetReset => "offset-reset",
            AnomalyKind::GroupRegress => "group-regress",
            AnomalyKind::Malformed => "malformed",
        }
    }
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken promise, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {what} (events {events:?})")]
pub struct Anomaly {
    /// Which promise.
    pub kind: AnomalyKind,
    /// What happened.
    pub what: String,
    /// The numbers of the events that show it, from 0.
    pub events: Vec<u64>,
}

/// How many anomalies of a kind are kept; the others are only counted.
const KEPT_MAX: u64 = 16;

/// What a checker has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong, up to sixteen of a kind.
    pub anomalies: Vec<Anomaly>,
    /// How many of each kind there are.
    pub counts: BTreeMap<AnomalyKind, u64>,
    /// What would be wrong of a stronger producer, and is not of this one: how often.
    pub allowed: BTreeMap<AnomalyKind, u64>,
    /// How many events there were.
    pub events: u64,
    /// How many records were acknowledged.
    pub acked: u64,
    /// How many records were read, each time counted.
    pub read: u64,
    /// How many records the final reads found, over all replicas.
    pub read_finally: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether something of this kind is wrong.
    #[must_use]
    pub fn has(&self, kind: AnomalyKind) -> bool {
        self.counts.contains_key(&kind)
    }

    pub(super) fn add(&mut self, kind: AnomalyKind, events: &[u64], what: String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= KEPT_MAX {
            let events = events.to_vec();
            self.anomalies.push(Anomaly { kind, what, events });
        }
    }

    pub(super) fn allow(&mut self, kind: AnomalyKind) {
        *self.allowed.entry(kind).or_default() += 1;
    }
}

//! Where consumers are, and whether they are led past something.

use super::anomaly::{AnomalyKind, Verdict};
use super::event::ReadRecord;

/// Offsets that a consumer was led past; wrong if something lies there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) kind: AnomalyKind,
    /// From here.
    pub(super) from: i64,
    /// To here, exclusive.
    pub(super) to: i64,
    /// By which poll.
    pub(super) event: u64,
}

/// A consumer of a partition.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// The first offset that it has not read, once it has begun.
    position: Option<i64>,
}

impl Consumer {
    /// Its position is set by somebody, itself or whoever assigns partitions.
    pub(super) fn assign(&mut self, offset: i64) {
        self.position = Some(offset);
    }

    /// It was given records; what it was led past is put into `gaps`.
    pub(super) fn polled(
        &mut self,
        event: u64,
        from: i64,
        records: &[ReadRecord],
        gaps: &mut Vec<Gap>,
        verdict: &mut Verdict,
    ) {
        let mut expected = self.position.unwrap_or(from);
        let mut skip = AnomalyKind::PollSkip;
        let mut back = AnomalyKind::NonmonotonicPoll;
        for record in records {
            let offset = record.offset;
            if offset < expected {
                let what = format!("offset {offset} was given where {expected} was next");
                verdict.add(back, &[event], what);
            } else if offset > expected {
                let (kind, from, to) = (skip, expected, offset);
                gaps.push(Gap {
                    kind,
                    from,
                    to,
                    event,
                });
            }
            expected = offset + 1;
            skip = AnomalyKind::IntPollSkip;
            back = AnomalyKind::IntNonmonotonicPoll;
        }
        self.position = Some(expected);
    }

    /// It was told that its position is out of range, and that the log starts at `log_start`.
    pub(super) fn refused(&mut self, event: u64, from: i64, log_start: i64, verdict: &mut Verdict) {
        if from >= log_start {
            let what =
                format!("position {from} is out of range, though the log starts at {log_start}");
            verdict.add(AnomalyKind::OffsetReset, &[event], what);
        }
        self.position = Some(log_start);
    }
}

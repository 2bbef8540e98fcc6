//! The positions of consumer groups: a register for each group and partition.

use std::collections::BTreeMap;

use super::anomaly::{AnomalyKind, Verdict};

/// When something was under way: the numbers of its first and last event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) invoke: u64,
    /// `u64::MAX` if nobody knows.
    pub(super) end: u64,
}

/// What was stored and what was read of one position.
#[derive(Debug, Default)]
pub(super) struct Register {
    stored: Vec<(i64, Span)>,
    read: Vec<(Option<i64>, Span)>,
}

impl Register {
    /// A position was stored, or may have been.
    pub(super) fn store(&mut self, offset: i64, span: Span) {
        self.stored.push((offset, span));
    }

    /// A position was read.
    pub(super) fn read(&mut self, offset: Option<i64>, span: Span) {
        self.read.push((offset, span));
    }

    /// Each read must give what was stored last before it, or at the same time as it.
    pub(super) fn finish(mut self, name: &str, verdict: &mut Verdict) {
        self.stored.sort_by_key(|(_, span)| span.end);
        // The latest beginning among those that ended first: what ended before that is over.
        let mut latest = 0;
        let overwritten: Vec<(u64, u64)> = self
            .stored
            .iter()
            .map(|(_, span)| {
                latest = latest.max(span.invoke);
                (span.end, latest)
            })
            .collect();
        let mut by_value: BTreeMap<i64, Vec<Span>> = BTreeMap::new();
        for (offset, span) in &self.stored {
            by_value.entry(*offset).or_default().push(*span);
        }
        for (offset, read) in self.read {
            let done = overwritten.partition_point(|(end, _)| *end < read.invoke);
            let over_before = done.checked_sub(1).map(|last| overwritten[last].1);
            let is_possible = match offset {
                None => over_before.is_none(),
                Some(offset) => by_value.get(&offset).is_some_and(|spans| {
                    let current = |span: &Span| over_before.is_none_or(|over| span.end >= over);
                    let mut begun = spans.iter().filter(|span| span.invoke < read.end);
                    begun.any(current)
                }),
            };
            if !is_possible {
                let what = format!("{name}: {offset:?} was read, and is not what was stored last");
                let mut events = vec![read.end];
                events.extend(over_before);
                verdict.add(AnomalyKind::GroupRegress, &events, what);
            }
        }
    }
}

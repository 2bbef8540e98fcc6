//! Takes events one by one, pairs beginnings with ends, and tells partitions, consumers and
//! groups of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::anomaly::{AnomalyKind, Verdict};
use super::consumer::Consumer;
use super::event::{Action, Event, History, Partition, Phase};
use super::group::{Register, Span};
use super::partition::Log;

/// What is allowed in a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether records may be removed though nobody asks: topics have a retention.
    pub retention: bool,
}

/// An operation that has begun.
#[derive(Debug)]
struct Open {
    event: u64,
    process: u64,
    action: Action,
    /// How the partition stood when it began: behind what was acknowledged, and behind what was
    /// visible.
    acked_end: i64,
    visible_end: i64,
}

/// Judges a history, event by event.
///
/// Its memory grows with the number of records, not with how often they are read.
#[derive(Debug, Default)]
pub struct Checker {
    rules: Rules,
    event: u64,
    now: Duration,
    open: BTreeMap<u64, Open>,
    partitions: BTreeMap<Partition, usize>,
    logs: Vec<Log>,
    consumers: BTreeMap<(u64, usize), Consumer>,
    groups: BTreeMap<(Arc<str>, usize), Register>,
    verdict: Verdict,
}

/// Judges a whole history.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Verdict {
    let mut checker = Checker::new(rules);
    for event in &history.events {
        checker.observe(event);
    }
    checker.finish()
}

impl Checker {
    /// A checker that has seen nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Checker {
        Checker {
            rules,
            ..Checker::default()
        }
    }

    /// The next event.
    pub fn observe(&mut self, event: &Event) {
        if event.time < self.now {
            self.malformed(format!("{:?} after {:?}", event.time, self.now));
        }
        self.now = event.time;
        match event.phase {
            Phase::Invoke => self.begin(event),
            Phase::Ok => self.end(event, Checker::happened),
            Phase::Fail => self.end(event, Checker::refused),
            Phase::Info => self.end(event, Checker::unknown),
        }
        self.event += 1;
    }

    /// What is wrong with all of it.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let mut verdict = std::mem::take(&mut self.verdict);
        for open in self.open.values() {
            let what = "an operation has no end; if nobody knows it, it ends in info".to_owned();
            verdict.add(AnomalyKind::Malformed, &[open.event], what);
        }
        for log in self.logs {
            log.finish(self.rules.retention, &mut verdict);
        }
        for ((group, _), register) in self.groups {
            register.finish(&group, &mut verdict);
        }
        verdict.events = self.event;
        verdict
    }

    fn malformed(&mut self, what: String) {
        let event = self.event;
        self.verdict.add(AnomalyKind::Malformed, &[event], what);
    }

    fn id(&mut self, partition: &Partition) -> usize {
        if let Some(id) = self.partitions.get(partition) {
            return *id;
        }
        let id = self.logs.len();
        self.logs.push(Log::new(partition.clone()));
        self.partitions.insert(partition.clone(), id);
        id
    }

    fn log(&mut self, partition: &Partition) -> &mut Log {
        let id = self.id(partition);
        &mut self.logs[id]
    }

    fn begin(&mut self, event: &Event) {
        let number = self.event;
        let mut open = Open {
            event: number,
            process: event.process,
            action: event.action.clone(),
            acked_end: 0,
            visible_end: 0,
        };
        match &event.action {
            Action::Send {
                partition,
                values,
                idempotent,
                ..
            } => {
                let log = self.log(partition);
                if !log.send(event.process, number, values, *idempotent) {
                    self.malformed(format!("{partition}: one of {values:?} was sent before"));
                }
            }
            Action::Poll { partition, .. } | Action::ListOffsets { partition, .. } => {
                let log = self.log(partition);
                (open.acked_end, open.visible_end) = (log.acked_end, log.visible_end);
            }
            Action::DeleteRecords { partition, before } => {
                let log = self.log(partition);
                log.deletable = log.deletable.max(*before);
            }
            Action::DeleteTopic { topic } => self.delete_topic(topic),
            Action::Assign { .. }
            | Action::CommitOffset { .. }
            | Action::FetchOffset { .. }
            | Action::FinalRead { .. } => {}
        }
        if self.open.insert(event.op, open).is_some() {
            self.malformed(format!("operation {} has begun before", event.op));
        }
    }

    fn delete_topic(&mut self, topic: &str) {
        for (partition, id) in &self.partitions {
            if &*partition.topic == topic {
                self.logs[*id].is_deleted = true;
            }
        }
    }

    fn end(&mut self, event: &Event, judge: fn(&mut Checker, &Open, &Event)) {
        let Some(open) = self.open.remove(&event.op) else {
            return self.malformed(format!("operation {} has not begun", event.op));
        };
        if open.process != event.process || !event.action.asks_the_same(&open.action) {
            self.malformed(format!("operation {} is not what has begun", event.op));
        }
        judge(self, &open, event);
    }

    /// An operation has happened.
    fn happened(&mut self, open: &Open, event: &Event) {
        let number = self.event;
        match &event.action {
            Action::Send {
                partition,
                values,
                base_offset: Some(base),
                ..
            } => {
                let id = self.id(partition);
                self.logs[id].acked(number, values, *base, &mut self.verdict);
            }
            Action::Poll {
                partition,
                from,
                leader,
                records,
                high_watermark,
                log_start: None,
            } => {
                let end = records.last().map_or(*from, |last| last.offset + 1);
                let is_all = high_watermark.map_or(records.is_empty(), |high| high <= end);
                if *leader && is_all && end < open.acked_end {
                    let what = format!("{partition}: nothing at {end}, acknowledged before");
                    self.stale(AnomalyKind::StaleRead, open, what);
                }
                let id = self.id(partition);
                let log = &mut self.logs[id];
                log.read(number, records, &mut self.verdict);
                let consumer = self.consumers.entry((event.process, id)).or_default();
                consumer.polled(number, *from, records, &mut log.gaps, &mut self.verdict);
            }
            Action::Assign { partition, offset } => {
                let key = (event.process, self.id(partition));
                self.consumers.entry(key).or_default().assign(*offset);
            }
            Action::ListOffsets {
                partition,
                latest: Some(latest),
            } => {
                if *latest < open.visible_end {
                    let end = open.visible_end;
                    let what = format!("{partition}: the end is {latest}, and was {end} before");
                    self.stale(AnomalyKind::StaleLatest, open, what);
                }
                self.log(partition).listed(number, *latest);
            }
            Action::FinalRead {
                partition,
                node,
                start,
                records,
                refused,
            } => {
                let id = self.id(partition);
                let log = &mut self.logs[id];
                log.read_finally(number, *node, *start, records, &mut self.verdict);
                log.refused(*node, refused);
            }
            Action::CommitOffset { .. } => self.stored(open, event, number),
            Action::FetchOffset {
                group,
                partition,
                offset,
            } => {
                let key = (Arc::clone(group), self.id(partition));
                let span = Span {
                    invoke: open.event,
                    end: number,
                };
                self.groups.entry(key).or_default().read(*offset, span);
            }
            Action::DeleteRecords { .. } | Action::DeleteTopic { .. } => {}
            Action::Send { .. } | Action::Poll { .. } | Action::ListOffsets { .. } => {
                self.malformed("what has happened has no result".to_owned());
            }
        }
    }

    fn stale(&mut self, kind: AnomalyKind, open: &Open, what: String) {
        let events = [open.event, self.event];
        self.verdict.add(kind, &events, what);
    }

    /// A group's position is stored, or may be until `end`.
    fn stored(&mut self, open: &Open, event: &Event, end: u64) {
        let Action::CommitOffset {
            group,
            partition,
            offset,
        } = &event.action
        else {
            return;
        };
        let key = (Arc::clone(group), self.id(partition));
        let span = Span {
            invoke: open.event,
            end,
        };
        self.groups.entry(key).or_default().store(*offset, span);
    }

    /// An operation has not happened.
    fn refused(&mut self, _open: &Open, event: &Event) {
        let number = self.event;
        match &event.action {
            Action::Send {
                partition, values, ..
            } => self.log(partition).failed(values),
            Action::Poll {
                partition,
                from,
                log_start: Some(log_start),
                ..
            } => {
                let id = self.id(partition);
                let log = &mut self.logs[id];
                log.log_start = log.log_start.max(*log_start);
                let consumer = self.consumers.entry((event.process, id)).or_default();
                consumer.refused(number, *from, *log_start, &mut self.verdict);
            }
            _ => {}
        }
    }

    /// Nobody knows whether an operation has happened.
    fn unknown(&mut self, open: &Open, event: &Event) {
        self.stored(open, event, u64::MAX);
    }
}

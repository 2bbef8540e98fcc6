//! What is known of one partition's log.

use std::collections::BTreeMap;

use super::anomaly::{AnomalyKind, Verdict};
use super::consumer::Gap;
use super::event::{Partition, ReadRecord};
use super::paged::Paged;

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unknown,
    Acked,
    Failed,
}

/// A record that somebody has sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    process: u64,
    invoke: u64,
    /// Its place in its batch.
    place: usize,
    idempotent: bool,
    fate: Fate,
    /// Where it was acknowledged or read first, and by which event.
    found: Option<(i64, u64)>,
    /// Who has read it first.
    read: Option<u64>,
}

/// The log of one replica, at the end.
#[derive(Debug, Default)]
struct Replica {
    event: u64,
    start: i64,
    /// Offsets that it has, in pieces without a gap.
    pieces: Vec<(i64, i64)>,
    /// Offsets that it refuses to tell.
    refused: Vec<(i64, i64)>,
}

impl Replica {
    /// Whether it refuses to tell these offsets.
    fn refuses(&self, from: i64, to: i64) -> bool {
        self.refused.iter().any(|it| it.0 <= from && to <= it.1)
    }
}

/// All that is known of a partition.
#[derive(Debug)]
pub(super) struct Log {
    name: Partition,
    sent: Paged<u64, Sent>,
    /// The value at each offset, and the event that told it first.
    offsets: Paged<i64, (u64, u64)>,
    /// Behind everything that was acknowledged.
    pub(super) acked_end: i64,
    /// Behind everything that was acknowledged, read, or said to be there.
    pub(super) visible_end: i64,
    read_end: i64,
    /// The largest offset before which somebody wanted records deleted.
    pub(super) deletable: i64,
    /// The largest log start that anybody was told.
    pub(super) log_start: i64,
    pub(super) is_deleted: bool,
    pub(super) gaps: Vec<Gap>,
    /// Ends of the log as the leader told them, and by which event.
    latests: Vec<(i64, u64)>,
    replicas: BTreeMap<u32, Replica>,
}

impl Log {
    pub(super) fn new(name: Partition) -> Log {
        Log {
            name,
            sent: Paged::new(),
            offsets: Paged::new(),
            acked_end: 0,
            visible_end: 0,
            read_end: 0,
            deletable: 0,
            log_start: 0,
            is_deleted: false,
            gaps: Vec::new(),
            latests: Vec::new(),
            replicas: BTreeMap::new(),
        }
    }

    /// A batch is sent; false if one of its values was sent before.
    pub(super) fn send(&mut self, process: u64, invoke: u64, values: &[u64], once: bool) -> bool {
        let mut is_new = true;
        for (place, value) in values.iter().enumerate() {
            let sent = Sent {
                process,
                invoke,
                place,
                idempotent: once,
                fate: Fate::Unknown,
                found: None,
                read: None,
            };
            is_new &= self.sent.insert(*value, sent).is_none();
        }
        is_new
    }

    /// A batch is acknowledged.
    pub(super) fn acked(&mut self, event: u64, values: &[u64], base: i64, verdict: &mut Verdict) {
        for (offset, value) in (base..).zip(values) {
            self.set_fate(*value, Fate::Acked);
            self.learn(event, offset, *value, false, verdict);
            self.acked_end = self.acked_end.max(offset + 1);
            verdict.acked += 1;
        }
        self.visible_end = self.visible_end.max(self.acked_end);
    }

    /// A batch was refused for good.
    pub(super) fn failed(&mut self, values: &[u64]) {
        for value in values {
            self.set_fate(*value, Fate::Failed);
        }
    }

    fn set_fate(&mut self, value: u64, fate: Fate) {
        if let Some(sent) = self.sent.get_mut(value) {
            sent.fate = fate;
        }
    }

    /// Records were read by a client.
    pub(super) fn read(&mut self, event: u64, records: &[ReadRecord], verdict: &mut Verdict) {
        for record in records {
            self.learn(event, record.offset, record.value, true, verdict);
            self.read_end = self.read_end.max(record.offset + 1);
            verdict.read += 1;
        }
        self.visible_end = self.visible_end.max(self.read_end);
    }

    /// The leader has told the end of the log.
    pub(super) fn listed(&mut self, event: u64, latest: i64) {
        self.latests.push((latest, event));
        self.visible_end = self.visible_end.max(latest);
    }

    /// Somebody knows what lies at an offset.
    fn learn(&mut self, event: u64, offset: i64, value: u64, is_read: bool, verdict: &mut Verdict) {
        let name = &self.name;
        let first = *self.offsets.get_or_insert(offset, (value, event));
        if first.0 != value {
            let what = format!("{name} offset {offset} is {} and {value}", first.0);
            verdict.add(AnomalyKind::InconsistentOffsets, &[first.1, event], what);
        }
        let Some(sent) = self.sent.get_mut(value) else {
            let what = format!("{name} offset {offset}: nobody has sent {value}");
            return verdict.add(AnomalyKind::Phantom, &[event], what);
        };
        if is_read {
            sent.read.get_or_insert(event);
        }
        let (place, told) = *sent.found.get_or_insert((offset, event));
        if place == offset {
            return;
        }
        if sent.idempotent {
            let what = format!("{name}: {value} is at {place} and at {offset}");
            verdict.add(AnomalyKind::Duplicate, &[told, event], what);
        } else {
            verdict.allow(AnomalyKind::Duplicate);
        }
    }

    /// A replica's whole log was read.
    pub(super) fn read_finally(
        &mut self,
        event: u64,
        node: u32,
        start: i64,
        records: &[ReadRecord],
        verdict: &mut Verdict,
    ) {
        self.read(event, records, verdict);
        verdict.read_finally += records.len() as u64;
        let mut replica = Replica {
            event,
            start,
            pieces: Vec::new(),
            refused: Vec::new(),
        };
        for record in records {
            let offset = record.offset;
            match replica.pieces.last_mut() {
                Some((_, end)) if offset == *end => *end += 1,
                Some((_, end)) if offset < *end => {
                    let what = format!("{} on node {node}: {offset} before {end}", self.name);
                    verdict.add(AnomalyKind::IntNonmonotonicPoll, &[event], what);
                }
                _ => replica.pieces.push((offset, offset + 1)),
            }
        }
        self.log_start = self.log_start.max(start);
        self.replicas.insert(node, replica);
    }

    /// A replica that was just read refuses to tell these offsets.
    pub(super) fn refused(&mut self, node: u32, refused: &[(i64, i64)]) {
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.refused = refused.to_vec();
        }
    }

    /// Whether some replica refuses to tell this offset: then nobody says that it is not there.
    fn is_refused(&self, offset: i64) -> bool {
        let mut replicas = self.replicas.values();
        replicas.any(|replica| replica.refuses(offset, offset + 1))
    }

    /// Judges what can only be judged at the end.
    pub(super) fn finish(mut self, retention: bool, verdict: &mut Verdict) {
        self.judge_order(verdict);
        self.judge_gaps(verdict);
        self.judge_latests(verdict);
        self.judge_aborted(verdict);
        if self.is_deleted {
            return;
        }
        self.judge_lost(verdict);
        for (node, replica) in std::mem::take(&mut self.replicas) {
            if !retention && replica.start > self.deletable {
                let (start, asked) = (replica.start, self.deletable);
                let what = format!(
                    "{} on node {node} starts at {start}, {asked} was asked",
                    self.name
                );
                verdict.add(AnomalyKind::UnaskedDelete, &[replica.event], what);
            }
            self.judge_replica(node, &replica, verdict);
        }
    }

    /// The records of each producer lie in the order it sent them.
    fn judge_order(&self, verdict: &mut Verdict) {
        let found = self.sent.iter().filter_map(|(_, it)| Some((it, it.found?)));
        let mut by_producer: Vec<_> = found.collect();
        by_producer.sort_by_key(|(sent, _)| (sent.process, sent.invoke, sent.place));
        for pair in by_producer.windows(2) {
            let [(one, (before, told)), (next, (offset, event))] = pair else {
                continue;
            };
            if one.process != next.process {
                continue;
            }
            let is_batch = one.invoke == next.invoke;
            let kind = match is_batch {
                true if *offset == before + 1 => continue,
                true if offset > before => AnomalyKind::IntSendSkip,
                true => AnomalyKind::IntNonmonotonicSend,
                false if offset > before => continue,
                false => AnomalyKind::NonmonotonicSend,
            };
            if !next.idempotent && !is_batch {
                verdict.allow(kind);
                continue;
            }
            let what = format!("{}: offset {offset} after offset {before}", self.name);
            verdict.add(kind, &[one.invoke, next.invoke, *told, *event], what);
        }
    }

    fn judge_gaps(&self, verdict: &mut Verdict) {
        for gap in &self.gaps {
            // What lay below the log start may be gone.
            let from = gap.from.max(self.log_start);
            if from >= gap.to {
                continue;
            }
            if let Some((offset, (value, told))) = self.offsets.first_in(from..gap.to) {
                let what = format!("{} offset {offset} ({value}) was passed over", self.name);
                verdict.add(gap.kind, &[gap.event, *told], what);
            }
        }
    }

    /// No end of the log was told before what lies in front of it was sent.
    fn judge_latests(&self, verdict: &mut Verdict) {
        let mut latest_invoke = 0;
        let sent_by: Vec<(i64, u64)> = self
            .offsets
            .iter()
            .map(|(offset, (value, _))| {
                let invoke = self.sent.get(*value).map_or(0, |sent| sent.invoke);
                latest_invoke = latest_invoke.max(invoke);
                (offset, latest_invoke)
            })
            .collect();
        let known_end = sent_by.last().map_or(0, |(offset, _)| offset + 1);
        let end = known_end.max(self.log_start);
        for (latest, event) in &self.latests {
            let below = sent_by.partition_point(|(offset, _)| offset < latest);
            let sent = below.checked_sub(1).map_or(0, |last| sent_by[last].1);
            let is_beyond =
                *latest > end && !self.replicas.is_empty() && !self.is_refused(latest - 1);
            if sent > *event || is_beyond {
                let what = format!("{}: the log cannot have ended at {latest} then", self.name);
                verdict.add(AnomalyKind::PrematureLatest, &[*event, sent], what);
            }
        }
    }

    fn judge_aborted(&self, verdict: &mut Verdict) {
        for (value, sent) in self.sent.iter() {
            if let (Fate::Failed, Some(event)) = (sent.fate, sent.read) {
                let what = format!("{}: {value} was refused, and is there", self.name);
                verdict.add(AnomalyKind::AbortedRead, &[sent.invoke, event], what);
            }
        }
    }

    /// What was acknowledged was read by somebody, and batches are there whole.
    fn judge_lost(&self, verdict: &mut Verdict) {
        let read = self
            .sent
            .iter()
            .map(|(_, sent)| sent)
            .filter(|sent| sent.read.is_some());
        let batches: BTreeMap<u64, i64> = read
            .filter_map(|sent| Some((sent.invoke, sent.found?.0)))
            .collect();
        for (value, sent) in self.sent.iter() {
            let mate = batches.get(&sent.invoke);
            let is_there = sent.fate == Fate::Acked || mate.is_some();
            if sent.read.is_some() || !is_there || sent.fate == Fate::Failed {
                continue;
            }
            let offset = sent.found.map(|(offset, _)| offset).or(mate.copied());
            let offset = offset.unwrap_or_default();
            if offset < self.log_start || self.is_refused(offset) {
                continue;
            }
            let kind = match mate.is_some() || offset < self.read_end {
                true => AnomalyKind::LostWrite,
                false => AnomalyKind::Unseen,
            };
            let mut events = vec![sent.invoke];
            events.extend(sent.found.map(|(_, event)| event));
            let what = format!("{}: {value}, at about {offset}, was never read", self.name);
            verdict.add(kind, &events, what);
        }
    }

    /// A replica has all that is known to be at or above its start.
    fn judge_replica(&self, node: u32, replica: &Replica, verdict: &mut Verdict) {
        let first = replica.pieces.first().map(|(from, _)| *from);
        let last = replica.pieces.last().map(|(_, to)| *to);
        let known = self.offsets.last_key().map_or(0, |last| last + 1);
        let mut at = replica.start;
        let mut missing = Vec::new();
        let mut told: Vec<(i64, i64)> = [&replica.pieces[..], &replica.refused[..]].concat();
        told.sort_unstable();
        for (from, to) in told.into_iter().chain([(known, known)]) {
            if from > at {
                missing.push((at, from));
            }
            at = at.max(to);
        }
        for (from, to) in missing {
            let lost = self.offsets.first_in(from..to);
            let lost = lost.map(|(_, (_, event))| *event);
            let kind = match (lost.is_none(), first, last) {
                (true, _, _) => AnomalyKind::Hole,
                (false, Some(first), _) if to <= first => AnomalyKind::LostOnNodePrefix,
                (false, Some(_), Some(last)) if from < last => AnomalyKind::LostOnNodeMiddle,
                (false, _, _) => AnomalyKind::LostOnNodePostfix,
            };
            let mut events = vec![replica.event];
            events.extend(lost);
            let what = format!("{} on node {node}: {from} to {to} are not there", self.name);
            verdict.add(kind, &events, what);
        }
    }
}

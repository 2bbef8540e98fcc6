//! What a client was told, as events of a history.
//!
//! Clients tell one record at a time; neighbours that were acknowledged at neighbouring offsets
//! become one event, which is what keeps a history of millions of records small. It begins when
//! the first of them was sent and ends when the last was acknowledged, so nothing is demanded of
//! it that was not demanded of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_engine::testing::history::{Action, Event, Partition, Phase, ReadRecord};

use super::sorted::Sorter;
use crate::clock::now;
use crate::history::write_event;

/// How many records one event has at most.
const EVENT_RECORDS_MAX: usize = 512;

/// Values and operations of clients are told apart by what stands above these bits.
const CLIENT_SHIFT: u32 = 40;

/// The first value of a client; those that follow are its own, too.
pub(crate) fn first_value(client: u64) -> u64 {
    client << CLIENT_SHIFT
}

/// A record that was sent, and of which nothing is known yet.
#[derive(Debug, Clone, Copy)]
struct Sent {
    partition: usize,
    at: u64,
    /// Whether its producer promises that it is there once.
    once: bool,
}

/// Neighbours that were acknowledged.
#[derive(Debug)]
struct Group {
    values: Vec<u64>,
    once: bool,
    base: i64,
    sent_at: u64,
    acked_at: u64,
}

/// Writes down what one client is told.
#[derive(Debug)]
pub(crate) struct Recorder {
    process: u64,
    partitions: Vec<Partition>,
    idempotent: bool,
    events: Sorter,
    ops: u64,
    sent: BTreeMap<u64, Sent>,
    groups: BTreeMap<usize, Group>,
}

impl Recorder {
    /// For a client with a number of its own; partitions are named by their place in the list.
    pub(crate) fn new(
        folder: &Path,
        client: u64,
        partitions: &[Partition],
        idempotent: bool,
    ) -> Self {
        Self {
            process: client,
            partitions: partitions.to_vec(),
            idempotent,
            events: Sorter::new(folder, &format!("client-{client}")),
            ops: first_value(client),
            sent: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// A record is about to be sent.
    pub(crate) fn sends(&mut self, at: u64, partition: usize, value: u64) {
        let once = self.idempotent;
        self.sent.insert(
            value,
            Sent {
                partition,
                at,
                once,
            },
        );
    }

    /// The producer says that it sends what has no end yet again under another producer id or
    /// epoch: no broker can tell that from new records, so these may be there twice.
    pub(crate) fn begins_anew(&mut self, partition: usize) {
        let open = self.sent.values_mut();
        for sent in open.filter(|sent| sent.partition == partition) {
            sent.once = false;
        }
    }

    /// It was acknowledged.
    pub(crate) fn acked(&mut self, at: u64, value: u64, offset: i64) -> anyhow::Result<()> {
        let Some(sent) = self.sent.remove(&value) else {
            anyhow::bail!("{value} was acknowledged, and not sent");
        };
        if let Some(group) = self.groups.get_mut(&sent.partition) {
            let len = group.values.len();
            let is_next = i64::try_from(len).is_ok_and(|len| group.base + len == offset);
            // A client's values rise: what was sent later is not to hide in front.
            let is_later = group.values.last() < Some(&value);
            // Of a producer that is not idempotent one record may be there twice, and its
            // neighbour once: they are no batch.
            let may_join = sent.once && group.once && len < EVENT_RECORDS_MAX;
            if is_next && is_later && may_join {
                group.values.push(value);
                group.sent_at = group.sent_at.min(sent.at);
                group.acked_at = group.acked_at.max(at);
                return Ok(());
            }
        }
        let begun = Group {
            values: vec![value],
            once: sent.once,
            base: offset,
            sent_at: sent.at,
            acked_at: at,
        };
        match self.groups.insert(sent.partition, begun) {
            Some(whole) => self.write_group(sent.partition, whole),
            None => Ok(()),
        }
    }

    /// It was refused for good.
    pub(crate) fn failed(&mut self, at: u64, value: u64) -> anyhow::Result<()> {
        self.ended(at, value, Phase::Fail)
    }

    /// Nobody knows what became of it.
    pub(crate) fn unknown(&mut self, at: u64, value: u64) -> anyhow::Result<()> {
        self.ended(at, value, Phase::Info)
    }

    fn ended(&mut self, at: u64, value: u64, phase: Phase) -> anyhow::Result<()> {
        let Some(sent) = self.sent.remove(&value) else {
            anyhow::bail!("{value} has an end, and no beginning");
        };
        let action = self.send(sent.partition, vec![value], sent.once, None);
        self.write(sent.at, at, phase, action.clone(), action)
    }

    fn send(
        &self,
        partition: usize,
        values: Vec<u64>,
        once: bool,
        base_offset: Option<i64>,
    ) -> Action {
        Action::Send {
            partition: self.partitions[partition].clone(),
            values,
            idempotent: once,
            base_offset,
        }
    }

    fn write_group(&mut self, partition: usize, group: Group) -> anyhow::Result<()> {
        let begin = self.send(partition, group.values.clone(), group.once, None);
        let end = self.send(partition, group.values, group.once, Some(group.base));
        self.write(group.sent_at, group.acked_at, Phase::Ok, begin, end)
    }

    /// Records were read, in this order, from a position on. Nothing is demanded of how fresh
    /// they are: consumers ask ahead.
    pub(crate) fn polled(
        &mut self,
        at: u64,
        partition: usize,
        from: i64,
        records: Vec<ReadRecord>,
    ) -> anyhow::Result<()> {
        let partition = self.partitions[partition].clone();
        let poll = |records| Action::Poll {
            partition: partition.clone(),
            from,
            leader: false,
            records,
            high_watermark: None,
            log_start: None,
        };
        self.write(at, at, Phase::Ok, poll(Vec::new()), poll(records))
    }

    /// A consumer's position was refused, though nothing is ever removed.
    pub(crate) fn out_of_range(
        &mut self,
        at: u64,
        partition: usize,
        from: i64,
    ) -> anyhow::Result<()> {
        let partition = self.partitions[partition].clone();
        let poll = |log_start| Action::Poll {
            partition: partition.clone(),
            from,
            leader: false,
            records: Vec::new(),
            high_watermark: None,
            log_start,
        };
        self.write(at, at, Phase::Fail, poll(None), poll(Some(0)))
    }

    /// Somebody asked for the end of the log, and was told.
    pub(crate) fn listed(
        &mut self,
        asked_at: u64,
        at: u64,
        partition: usize,
        latest: i64,
    ) -> anyhow::Result<()> {
        let partition = self.partitions[partition].clone();
        let list = |latest| Action::ListOffsets {
            partition: partition.clone(),
            latest,
        };
        self.write(asked_at, at, Phase::Ok, list(None), list(Some(latest)))
    }

    fn write(
        &mut self,
        begins: u64,
        ends: u64,
        phase: Phase,
        question: Action,
        answer: Action,
    ) -> anyhow::Result<()> {
        self.ops += 1;
        let event = |time, phase, action| Event {
            time: Duration::from_nanos(time),
            process: self.process,
            op: self.ops,
            phase,
            action,
        };
        let begin = write_event(&event(begins, Phase::Invoke, question));
        // Its end is not before its beginning, nor at the same time in another run.
        let ends = ends.max(begins);
        let end = write_event(&event(ends, phase, answer));
        self.events.push(begins, begin)?;
        self.events.push(ends, end)
    }

    /// The client ends: what it has not heard of, nobody knows. Gives the runs of its lines.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<PathBuf>> {
        let at = now();
        let open: Vec<u64> = self.sent.keys().copied().collect();
        for value in open {
            self.unknown(at, value)?;
        }
        for (partition, group) in std::mem::take(&mut self.groups) {
            self.write_group(partition, group)?;
        }
        self.events.finish()
    }
}

#[cfg(test)]
mod tests {
    use highwater_engine::testing::history::{Checker, Rules, Verdict};

    use super::super::sorted::merge;
    use super::*;
    use crate::history::read_event;

    fn judged(tell: impl FnOnce(&mut Recorder)) -> Verdict {
        judged_of(true, tell)
    }

    fn judged_of(idempotent: bool, tell: impl FnOnce(&mut Recorder)) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let partitions = [Partition::new("t", 0), Partition::new("t", 1)];
        let mut recorder = Recorder::new(folder.path(), 3, &partitions, idempotent);
        tell(&mut recorder);
        let runs = recorder.finish().unwrap();
        let mut checker = Checker::new(Rules::default());
        merge(&runs, |line| {
            checker.observe(&read_event(line)?);
            Ok(())
        })
        .unwrap();
        checker.finish()
    }

    fn send(recorder: &mut Recorder, partition: usize, values: std::ops::Range<u64>) {
        for value in values {
            recorder.sends(value, partition, value);
        }
    }

    fn read(offsets: std::ops::Range<i64>, first: u64) -> Vec<ReadRecord> {
        let record = |(offset, value)| ReadRecord { offset, value };
        offsets.zip(first..).map(record).collect()
    }

    #[test]
    fn neighbours_become_one_event() {
        let verdict = judged(|recorder| {
            send(recorder, 0, 100..200);
            for (value, offset) in (100..200).zip(0..) {
                recorder.acked(300, value, offset).unwrap();
            }
            recorder.polled(400, 0, 0, read(0..100, 100)).unwrap();
        });
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acked, verdict.events), (100, 4));
    }

    #[test]
    fn records_out_of_order_are_not_hidden_in_a_group() {
        let verdict = judged(|recorder| {
            send(recorder, 0, 100..102);
            recorder.acked(300, 101, 0).unwrap();
            recorder.acked(301, 100, 1).unwrap();
            let swapped = [read(0..1, 101), read(1..2, 100)].concat();
            recorder.polled(400, 0, 0, swapped).unwrap();
        });
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_plain_record_that_came_twice_is_no_hole_in_a_batch() {
        let verdict = judged_of(false, |recorder| {
            send(recorder, 0, 100..102);
            recorder.polled(290, 0, 0, read(0..1, 100)).unwrap();
            recorder.acked(300, 100, 1).unwrap();
            recorder.acked(301, 101, 2).unwrap();
            recorder.polled(400, 0, 1, read(1..3, 100)).unwrap();
        });
        assert!(verdict.is_clean(), "{verdict:?}");
    }

    /// Records 100 and 101 are there twice; the producer begins anew, or not, and sends the
    /// second before that, or after it.
    fn doubled(is_anew: bool, is_late: bool) -> Verdict {
        judged(|recorder| {
            send(recorder, 0, 100..101);
            send(recorder, 1, 200..201);
            if !is_late {
                send(recorder, 0, 101..102);
            }
            if is_anew {
                recorder.begins_anew(0);
            }
            if is_late {
                send(recorder, 0, 101..102);
            }
            for (value, offset) in [(100, 2), (101, 3), (200, 0)] {
                recorder.acked(300, value, offset).unwrap();
            }
            recorder.polled(400, 1, 0, read(0..1, 200)).unwrap();
            let twice = [read(0..2, 100), read(2..4, 100)].concat();
            recorder.polled(400, 0, 0, twice).unwrap();
        })
    }

    #[test]
    fn what_is_open_when_a_producer_begins_anew_may_be_there_twice() {
        let verdict = doubled(true, false);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert!(!doubled(false, false).is_clean());
        assert!(!doubled(true, true).is_clean());
    }

    #[test]
    fn what_is_not_heard_of_may_be_there_or_not() {
        let verdict = judged(|recorder| {
            send(recorder, 1, 100..102);
            recorder.polled(400, 1, 0, read(0..1, 100)).unwrap();
        });
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.acked, 0);
    }

    #[test]
    fn a_refused_record_must_not_be_there() {
        let verdict = judged(|recorder| {
            send(recorder, 1, 100..101);
            recorder.failed(300, 100).unwrap();
            recorder.polled(400, 1, 0, read(0..1, 100)).unwrap();
        });
        assert!(!verdict.is_clean());
    }
}

use highwater_record::{Offset, sequence_after};
use proptest::prelude::*;

use super::*;

fn facts(id: i64, epoch: i16, base_sequence: i32, count: u32) -> ProducerFacts {
    ProducerFacts {
        id,
        epoch,
        base_sequence,
        last_sequence: sequence_after(base_sequence, count - 1),
    }
}

/// A log of one partition: appends what is accepted.
struct Log {
    states: ProducerStates,
    end: Offset,
}

impl Log {
    fn new() -> Log {
        Log {
            states: ProducerStates::new(ProducerCount::default()),
            end: Offset::ZERO,
        }
    }

    /// What comes of a batch: its offset, or that of the batch it repeats.
    fn produce(&mut self, batch: ProducerFacts) -> Result<(Verdict, u64), ProducerError> {
        self.produce_at(batch, 0)
    }

    fn produce_at(
        &mut self,
        batch: ProducerFacts,
        time: u32,
    ) -> Result<(Verdict, u64), ProducerError> {
        let verdict = self.states.check(&batch)?;
        match verdict {
            Verdict::Duplicate(original) => Ok((verdict, original.base_offset.0)),
            Verdict::Append => {
                let base = self.end;
                self.states.appended(Some(&batch), base, 7, time);
                self.end = self.states.producers[&batch.id].last().end_offset();
                Ok((verdict, base.0))
            }
        }
    }

    fn appends(&mut self, batch: ProducerFacts) -> u64 {
        let (verdict, offset) = self.produce(batch).unwrap();
        assert_eq!(verdict, Verdict::Append);
        offset
    }

    fn repeats(&mut self, batch: ProducerFacts) -> u64 {
        let (verdict, offset) = self.produce(batch).unwrap();
        assert!(matches!(verdict, Verdict::Duplicate(_)), "{verdict:?}");
        offset
    }
}

#[test]
fn each_of_the_last_five_batches_is_known_again_with_its_offset() {
    let mut log = Log::new();
    let batches: Vec<_> = (0..7).map(|n| facts(9, 0, n * 10, 10)).collect();
    for batch in &batches {
        log.appends(*batch);
    }
    for (n, batch) in (0_u64..).zip(&batches).skip(2) {
        assert_eq!(log.repeats(*batch), n * 10);
    }
    assert_eq!(
        log.produce(batches[1]),
        Err(ProducerError::OutOfOrderSequence {
            id: 9,
            got: 10,
            expected: 70
        })
    );
}

#[cfg(feature = "mutants")]
#[test]
fn planted_four_batches_are_remembered() {
    crate::mutants::is_found(
        crate::mutants::Mutant::ProducerWindowOfFour,
        each_of_the_last_five_batches_is_known_again_with_its_offset,
    );
}

#[test]
fn gaps_and_other_borders_are_refused() {
    let mut log = Log::new();
    log.appends(facts(9, 0, 0, 10));
    for (first, count) in [(11, 1), (5, 5), (0, 5), (0, 11), (9, 2)] {
        assert!(matches!(
            log.produce(facts(9, 0, first, count)),
            Err(ProducerError::OutOfOrderSequence { expected: 10, .. })
        ));
    }
    assert_eq!(log.appends(facts(9, 0, 10, 1)), 10);
}

#[test]
fn sequences_wrap_around_at_the_largest_number() {
    let mut log = Log::new();
    let last = RememberedBatch {
        first_sequence: i32::MAX - 4,
        last_sequence: i32::MAX - 3,
        base_offset: Offset(0),
        max_timestamp: 0,
        append_time: 0,
    };
    log.states.remember(9, 0, last);
    log.end = Offset(2);
    let over = facts(9, 0, i32::MAX - 2, 5);
    assert_eq!(over.last_sequence, 1);
    assert_eq!(log.appends(over), 2);
    assert_eq!(log.end, Offset(7));
    assert_eq!(log.repeats(over), 2);
    assert_eq!(log.appends(facts(9, 0, 2, 1)), 7);

    let mut log = Log::new();
    let to_the_end = RememberedBatch {
        last_sequence: i32::MAX,
        ..last
    };
    log.states.remember(9, 0, to_the_end);
    log.end = Offset(5);
    assert_eq!(log.appends(facts(9, 0, 0, 1)), 5);
}

#[test]
fn a_new_epoch_begins_at_zero_and_ends_the_old_one() {
    let mut log = Log::new();
    log.appends(facts(9, 0, 0, 3));
    assert!(matches!(
        log.produce(facts(9, 1, 3, 1)),
        Err(ProducerError::OutOfOrderSequence { expected: 0, .. })
    ));
    assert_eq!(log.appends(facts(9, 1, 0, 3)), 3);
    assert_eq!(log.repeats(facts(9, 1, 0, 3)), 3);
    assert_eq!(
        log.produce(facts(9, 0, 0, 3)),
        Err(ProducerError::InvalidEpoch {
            id: 9,
            got: 0,
            current: 1
        })
    );
}

#[test]
fn who_is_not_known_begins_at_zero() {
    let mut log = Log::new();
    assert_eq!(
        log.produce(facts(9, 0, 1, 1)),
        Err(ProducerError::UnknownProducer { id: 9 })
    );
    log.appends(facts(9, 0, 0, 1));
}

#[test]
fn the_idle_are_forgotten_by_the_time_of_the_log() {
    let mut log = Log::new();
    log.states.kept = 0;
    log.produce_at(facts(1, 0, 0, 1), 1_000).unwrap();
    log.produce_at(facts(2, 0, 0, 1), 1_001).unwrap();
    let end = log.end;
    let later = 1_000 + PRODUCER_EXPIRATION_SECONDS;
    log.states.appended(None, end, 0, later);
    assert_eq!(log.states.len(), 2);
    log.states.appended(None, end.advance(1), 0, later + 1);
    assert!(!log.states.producers.contains_key(&1));
    assert!(log.states.producers.contains_key(&2));
    // A leader whose clock is behind brings nobody back and forgets nobody.
    log.states.appended(None, end.advance(2), 0, 5);
    assert_eq!(log.states.len(), 1);
    assert_eq!(log.states.count.get(), 1);
}

#[test]
fn who_writes_after_a_clock_was_ahead_for_a_while_is_remembered() {
    let mut log = Log::new();
    let ahead = 1_000 + 2 * PRODUCER_EXPIRATION_SECONDS;
    log.states.appended(None, log.end, 0, ahead);
    log.end = log.end.advance(1);
    let first = log.produce_at(facts(1, 0, 0, 1), 1_000).unwrap();
    let again = log.produce_at(facts(1, 0, 0, 1), 1_001).unwrap();
    assert!(matches!(again.0, Verdict::Duplicate(_)), "{again:?}");
    assert_eq!(again.1, first.1);
}

#[test]
fn those_who_wrote_last_are_remembered_though_a_clock_jumps_ahead() {
    let mut log = Log::new();
    let many = i64::try_from(PRODUCERS_PER_PARTITION_KEPT).unwrap() + 1;
    for id in 0..many {
        log.produce_at(facts(id, 0, 0, 1), 1_000).unwrap();
    }
    // A new leader's clock is two days ahead.
    log.states
        .appended(None, log.end, 0, 1_000 + 2 * PRODUCER_EXPIRATION_SECONDS);
    log.end = log.end.advance(1);
    assert_eq!(log.states.len(), PRODUCERS_PER_PARTITION_KEPT);
    assert!(!log.states.producers.contains_key(&0), "the oldest goes");
    assert_eq!(log.repeats(facts(1, 0, 0, 1)), 1);
    log.appends(facts(1, 0, 1, 1));
}

#[test]
fn a_node_remembers_a_bounded_number_over_all_partitions() {
    let count = ProducerCount::new(4);
    let mut first = ProducerStates::new(count.clone());
    let mut second = ProducerStates::new(count.clone());
    let write = |states: &mut ProducerStates, id, offset| {
        states.appended(Some(&facts(id, 0, 0, 1)), Offset(offset), 0, 0);
    };
    for id in 0..4 {
        write(&mut first, id, id.unsigned_abs());
    }
    assert_eq!((first.len(), count.get()), (4, 4));
    write(&mut first, 4, 4);
    assert_eq!((first.len(), count.get()), (4, 4));
    assert!(!first.producers.contains_key(&0), "the oldest goes");
    // Another partition's first producer is let in, its second replaces the first.
    write(&mut second, 100, 0);
    write(&mut second, 101, 1);
    assert_eq!((second.len(), count.get()), (1, 5));
    assert!(second.producers.contains_key(&101));
    drop(first);
    assert_eq!(count.get(), 1);
}

#[test]
fn golden_snapshot() {
    let mut log = Log::new();
    log.produce_at(facts(0x0102, 3, 0, 2), 0x0a0b_0c0d).unwrap();
    let expected = [
        &[1, 0][..],
        &[0x0d, 0x0c, 0x0b, 0x0a],
        &[1, 0, 0, 0],
        &[2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 1],
        &[0, 0, 0, 0, 1, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0],
        &[0x0d, 0x0c, 0x0b, 0x0a],
    ]
    .concat();
    assert_eq!(log.states.encode(), expected);
}

#[test]
fn snapshots_that_lie_are_refused() {
    let decode = |bytes: &[u8]| ProducerStates::decode(bytes, ProducerCount::default());
    let mut log = Log::new();
    log.appends(facts(1, 0, 0, 2));
    log.appends(facts(2, 0, 0, 2));
    let good = log.states.encode();
    assert!(decode(&good).is_ok());
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_err(), "cut at {length}");
    }
    assert!(matches!(
        decode(&[&good[..], &[0]].concat()),
        Err(ProducerSnapshotError::TrailingBytes(1))
    ));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes).err()
    };
    assert_eq!(with(0, 2), Some(ProducerSnapshotError::Version(2)));
    assert!(with(9, 0xff).is_some(), "four thousand million producers");
    assert!(with(17, 0x80).is_some(), "a negative id");
    assert!(with(20, 6).is_some(), "six batches");
    assert!(with(20, 0).is_some(), "no batch");
    assert!(with(36, 0x80).is_some(), "an offset beyond Kafka's");
    assert!(with(10, 3).is_some(), "ids in the wrong order");
    let second_offset = good.len() - 4 - 8 - 8;
    assert!(with(second_offset, 0).is_some(), "a batch of two producers");
}

/// How many producers write in the random test.
const PRODUCERS: i64 = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Producer, epoch and count of a batch that continues its producer's, skips or goes back.
    Produce(i64, i16, u32, i32),
    /// Somebody without an id appends, later.
    Plain(u32),
    /// The state goes through a snapshot.
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..PRODUCERS, 0..2_i16, 1..4_u32, -6..2_i32)
            .prop_map(|(id, epoch, count, shift)| Step::Produce(id, epoch, count, shift.min(1))),
        1 => (0..40_000_u32).prop_map(Step::Plain),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 0..200)
}

/// Keeps every batch ever appended and decides by looking through all of them.
#[derive(Default)]
struct Model {
    batches: Vec<(ProducerFacts, u64, u32)>,
    /// How many batches there were when a producer was last forgotten.
    forgotten: BTreeMap<i64, usize>,
    time: u32,
}

impl Model {
    /// Something was appended: who has been idle for too long is forgotten, but for the one that
    /// wrote last.
    fn forget(&mut self) {
        let newest = self.batches.last().map(|batch| batch.0.id);
        for id in (0..PRODUCERS).filter(|id| Some(*id) != newest) {
            let idle = self
                .known(id)
                .last()
                .is_some_and(|last| self.time.saturating_sub(PRODUCER_EXPIRATION_SECONDS) > last.2);
            if idle {
                self.forgotten.insert(id, self.batches.len());
            }
        }
    }

    /// The batches by which a producer is known now: those of its last epoch, since it was last
    /// forgotten.
    fn known(&self, id: i64) -> Vec<&(ProducerFacts, u64, u32)> {
        let since = self.forgotten.get(&id).copied().unwrap_or(0);
        let mut known: Vec<&(ProducerFacts, u64, u32)> = Vec::new();
        for batch in self.batches[since..]
            .iter()
            .filter(|batch| batch.0.id == id)
        {
            if known
                .last()
                .is_some_and(|before| before.0.epoch != batch.0.epoch)
            {
                known.clear();
            }
            known.push(batch);
        }
        known
    }

    /// `Ok(None)` to append, `Ok(Some(offset))` for a duplicate.
    fn check(&self, batch: &ProducerFacts) -> Result<Option<u64>, ()> {
        let known = self.known(batch.id);
        let Some((newest, ..)) = known.last() else {
            return if batch.base_sequence == 0 {
                Ok(None)
            } else {
                Err(())
            };
        };
        if batch.epoch < newest.epoch {
            return Err(());
        }
        if batch.epoch > newest.epoch {
            return if batch.base_sequence == 0 {
                Ok(None)
            } else {
                Err(())
            };
        }
        for (old, offset, _) in known.iter().rev().take(PRODUCER_BATCHES_MAX) {
            if old == batch {
                return Ok(Some(*offset));
            }
        }
        let follows = i64::from(batch.base_sequence) == i64::from(newest.last_sequence) + 1;
        if follows { Ok(None) } else { Err(()) }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_forgets_nothing(steps in steps()) {
        let mut log = Log::new();
        log.states.kept = 1;
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Produce(id, epoch, count, shift) => {
                    let known = log.states.producers.get(&id);
                    let next = match known {
                        Some(known) if known.epoch == epoch => known.last().last_sequence + 1,
                        _ => 0,
                    };
                    let batch = facts(id, epoch, (next + shift).max(0), count);
                    let expected = model.check(&batch);
                    let got = log.produce_at(batch, model.time);
                    match (expected, got) {
                        (Ok(None), Ok((Verdict::Append, offset))) => {
                            model.batches.push((batch, offset, model.time));
                            model.forget();
                        }
                        (Ok(Some(original)), Ok((Verdict::Duplicate(_), offset))) => {
                            prop_assert_eq!(original, offset);
                        }
                        (Err(()), Err(_)) => {}
                        (expected, got) => prop_assert!(false, "{expected:?} but {got:?}"),
                    }
                }
                Step::Plain(later) => {
                    model.time += later;
                    log.states.appended(None, log.end, 0, model.time);
                    log.end = log.end.advance(1);
                    model.forget();
                }
                Step::Reload => {
                    let bytes = log.states.encode();
                    let count = ProducerCount::default();
                    log.states = ProducerStates::decode(&bytes, count).unwrap();
                    log.states.kept = 1;
                    prop_assert_eq!(log.states.encode(), bytes);
                }
            }
        }
    }
}

//! The lane, event by event, and against a broker that does what brokers may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_record::{Compression, TopicName, TopicPartition};
use tokio::sync::Semaphore;

use super::super::batch::Slot;
use super::*;

const TIMEOUT: Duration = Duration::from_secs(100);

struct Fixture {
    lane: Lane,
    now: Instant,
    next_id: u64,
    records: u32,
}

impl Fixture {
    fn new() -> Self {
        let mut lane = Lane::new(true);
        lane.set_identity(Identity {
            producer_id: 1,
            producer_epoch: 0,
        });
        Self {
            lane,
            now: Instant::now(),
            next_id: 0,
            records: 2,
        }
    }

    /// Sends the next batch, a queued one or a new one.
    fn send(&mut self) -> Option<Batch> {
        let (id, records, now) = (self.next_id, self.records, self.now);
        let sent = self.lane.next(now, || Some(batch(id, records, now)));
        if sent.as_ref().is_some_and(|batch| batch.id.0 == id) {
            self.next_id += 1;
        }
        sent
    }

    fn fail(&mut self, batch: Batch, open: bool) -> Vec<GivenUp> {
        let gone = self
            .lane
            .failed(batch, open, "no".to_owned(), self.now, TIMEOUT);
        self.now += Duration::from_secs(2);
        gone
    }
}

fn batch(id: u64, records: u32, now: Instant) -> Batch {
    let partition = TopicPartition {
        topic: TopicName::new("t").unwrap(),
        partition: 0,
    };
    let (mut batch, _) = Batch::new(
        BatchId(id),
        (Slot(0), partition),
        Compression::None,
        1_000,
        now,
        Arc::new(Semaphore::new(0)),
    );
    for _ in 0..records {
        batch.append(0, None, Some(b"v"), &[]).unwrap();
    }
    batch
}

fn sequence(batch: &Batch) -> i32 {
    batch.stamp().unwrap().base_sequence
}

#[test]
fn five_are_on_the_way_and_their_sequences_follow_each_other() {
    let mut fixture = Fixture::new();
    let sent: Vec<_> = std::iter::from_fn(|| fixture.send()).collect();
    assert_eq!(
        sent.iter().map(sequence).collect::<Vec<_>>(),
        [0, 2, 4, 6, 8]
    );
    assert!(fixture.lane.acknowledged(sent[0].id, TIMEOUT).is_empty());
    assert_eq!(fixture.send().map(|batch| sequence(&batch)), Some(10));
}

#[test]
fn without_idempotence_one_is_on_the_way() {
    let mut fixture = Fixture::new();
    fixture.lane = Lane::new(false);
    let sent = fixture.send().unwrap();
    assert_eq!(sent.stamp(), None);
    assert!(fixture.send().is_none());
    fixture.lane.acknowledged(sent.id, TIMEOUT);
    assert!(fixture.send().is_some());
}

#[test]
fn what_failed_goes_again_in_order_under_its_sequence() {
    let mut fixture = Fixture::new();
    let mut flight: Vec<_> = std::iter::from_fn(|| fixture.send()).take(3).collect();
    let third = flight.pop().unwrap();
    let second = flight.pop().unwrap();
    let first = flight.pop().unwrap();
    assert!(fixture.fail(second, true).is_empty());
    assert!(fixture.send().is_none(), "the flight is not back yet");
    let out_of_order = fixture
        .lane
        .out_of_sequence(third, "gap".to_owned(), fixture.now, TIMEOUT);
    assert!(out_of_order.is_empty());
    assert!(fixture.lane.acknowledged(first.id, TIMEOUT).is_empty());
    fixture.now += Duration::from_secs(2);
    let again: Vec<_> = std::iter::from_fn(|| fixture.send()).take(3).collect();
    let ids: Vec<_> = again.iter().map(|batch| batch.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(again.iter().map(sequence).collect::<Vec<_>>(), [2, 4, 6]);
}

#[test]
fn waits_before_it_tries_again() {
    let mut fixture = Fixture::new();
    let sent = fixture.send().unwrap();
    fixture
        .lane
        .failed(sent, true, "no".to_owned(), fixture.now, TIMEOUT);
    assert!(fixture.send().is_none());
    fixture.now = fixture.lane.blocked_until().unwrap();
    assert!(fixture.send().is_some());
}

#[test]
fn behind_a_refusal_the_refused_rest_goes_under_a_new_identity() {
    let mut fixture = Fixture::new();
    let first = fixture.send().unwrap();
    let second = fixture.send().unwrap();
    assert!(fixture.lane.gone(first.id, TIMEOUT).is_empty());
    assert!(fixture.send().is_none());
    let lost = fixture
        .lane
        .out_of_sequence(second, "gap".to_owned(), fixture.now, TIMEOUT);
    assert!(lost.is_empty());
    assert!(fixture.lane.needs_identity());
    fixture.now = fixture.lane.blocked_until().unwrap();
    assert!(fixture.send().is_none());
    fixture.lane.set_identity(Identity {
        producer_id: 2,
        producer_epoch: 0,
    });
    let again = fixture.send().unwrap();
    assert_eq!(again.id, BatchId(1));
    assert_eq!(again.stamp().unwrap().producer_id, 2);
    assert_eq!(sequence(&again), 0);
}

#[test]
fn behind_a_hole_what_may_be_written_is_given_up() {
    let mut fixture = Fixture::new();
    let first = fixture.send().unwrap();
    let second = fixture.send().unwrap();
    assert!(fixture.fail(second, true).is_empty());
    let mut lost = fixture.lane.gone(first.id, TIMEOUT);
    assert_eq!(lost.len(), 1);
    let (batch, error) = lost.pop().unwrap();
    assert_eq!(batch.id, BatchId(1));
    assert!(matches!(error, ProduceError::OutcomeUnknown { .. }));
}

#[test]
fn a_broker_that_forgot_us_gets_a_new_identity() {
    let mut fixture = Fixture::new();
    let sent = fixture.send().unwrap();
    let lost = fixture
        .lane
        .out_of_sequence(sent, "unknown".to_owned(), fixture.now, TIMEOUT);
    assert!(lost.is_empty());
    assert!(fixture.lane.needs_identity());
    assert!(fixture.lane.has_queued());
}

#[test]
fn too_old_is_given_up_and_says_whether_it_may_be_written() {
    for open in [false, true] {
        let mut fixture = Fixture::new();
        let sent = fixture.send().unwrap();
        assert!(fixture.fail(sent, open).is_empty());
        assert!(fixture.lane.expire(fixture.now, TIMEOUT).is_empty());
        let (_, error) = fixture
            .lane
            .expire(fixture.now + TIMEOUT, TIMEOUT)
            .pop()
            .unwrap();
        match error {
            ProduceError::OutcomeUnknown { .. } => assert!(open),
            ProduceError::Expired { .. } => assert!(!open),
            other => panic!("{other}"),
        }
        assert!(fixture.lane.needs_identity(), "a sequence is missing now");
    }
}

#[test]
fn errors_are_sorted_by_what_they_say_of_the_log() {
    use ErrorCode as E;
    assert_eq!(
        Verdict::of(E::NotLeaderOrFollower),
        Verdict::Retry { open: true }
    );
    assert_eq!(
        Verdict::of(E::RequestTimedOut),
        Verdict::Retry { open: true }
    );
    assert_eq!(
        Verdict::of(E::NotEnoughReplicas),
        Verdict::Retry { open: false }
    );
    assert_eq!(Verdict::of(E::MessageTooLarge), Verdict::Refused);
    assert_eq!(Verdict::of(E::OutOfOrderSequenceNumber), Verdict::Sequence);
    assert_eq!(Verdict::of(E::UnknownServerError), Verdict::Lost);
}

/// A broker that checks sequences as Kafka does, behind a connection that breaks.
struct Model {
    lane: Lane,
    rng: fastrand::Rng,
    now: Instant,
    next_id: u64,
    next_producer_id: i64,
    /// Sent, in order, on the connection there is now.
    on_the_way: VecDeque<Batch>,
    /// Sent on connections that broke; the broker may still read them.
    adrift: Vec<(BatchId, ProducerStamp, u32)>,
    log: Vec<BatchId>,
    /// The last five batches of each producer: first sequence and count.
    known: BTreeMap<i64, VecDeque<(i32, u32)>>,
    acknowledged: Vec<BatchId>,
    refused: BTreeSet<BatchId>,
    expired: BTreeSet<BatchId>,
    unknown: BTreeSet<BatchId>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            lane: Lane::new(true),
            rng: fastrand::Rng::with_seed(seed),
            now: Instant::now(),
            next_id: 0,
            next_producer_id: 0,
            on_the_way: VecDeque::new(),
            adrift: Vec::new(),
            log: Vec::new(),
            known: BTreeMap::new(),
            acknowledged: Vec::new(),
            refused: BTreeSet::new(),
            expired: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..40 => self.send(),
            40..75 => self.answer(),
            75..80 => self.break_connection(),
            80..85 => self.drift_ashore(),
            85..88 => {
                let gone = self.lane.expire(self.now, Duration::from_secs(2));
                self.give_up(gone);
            }
            _ => self.now += Duration::from_millis(self.rng.u64(0..800)),
        }
        if self.lane.needs_identity() && self.rng.bool() {
            self.next_producer_id += 1;
            self.lane.set_identity(Identity {
                producer_id: self.next_producer_id,
                producer_epoch: 0,
            });
        }
    }

    fn send(&mut self) {
        let (id, now, records) = (self.next_id, self.now, self.rng.u32(1..4));
        if let Some(sent) = self.lane.next(now, || Some(batch(id, records, now))) {
            self.next_id = self.next_id.max(sent.id.0 + 1);
            self.on_the_way.push_back(sent);
        }
    }

    /// Every tenth batch is too large, however often it comes.
    fn is_poison(id: BatchId) -> bool {
        id.0 % 10 == 7
    }

    /// What the broker does with a batch that it reads; whether it has it.
    fn append(&mut self, id: BatchId, stamp: ProducerStamp, records: u32) -> bool {
        let known = self.known.entry(stamp.producer_id).or_default();
        if known.iter().any(|(base, _)| *base == stamp.base_sequence) {
            return true;
        }
        let expected = known
            .back()
            .map_or(0, |(base, count)| sequence_after(*base, *count));
        if stamp.base_sequence != expected {
            return false;
        }
        known.push_back((stamp.base_sequence, records));
        if known.len() > 5 {
            known.pop_front();
        }
        self.log.push(id);
        true
    }

    fn answer(&mut self) {
        let Some(batch) = self.on_the_way.pop_front() else {
            return;
        };
        let (id, now) = (batch.id, self.now);
        let gone = if Self::is_poison(id) {
            self.refused.insert(id);
            self.lane.gone(id, TIMEOUT)
        } else if self.rng.u32(0..20) == 0 {
            let open = self.rng.bool();
            if open {
                self.append(id, batch.stamp().unwrap(), batch.records_count());
            }
            self.lane
                .failed(batch, open, "later".to_owned(), now, TIMEOUT)
        } else if self.append(id, batch.stamp().unwrap(), batch.records_count()) {
            self.acknowledged.push(id);
            self.lane.acknowledged(id, TIMEOUT)
        } else {
            let error = "out of order".to_owned();
            self.lane.out_of_sequence(batch, error, now, TIMEOUT)
        };
        self.give_up(gone);
    }

    /// No answer comes any more; the broker has read none, some or all of it, or will.
    fn break_connection(&mut self) {
        let sent = std::mem::take(&mut self.on_the_way);
        for batch in sent {
            let stamp = batch.stamp().unwrap();
            if !Self::is_poison(batch.id) {
                self.adrift.push((batch.id, stamp, batch.records_count()));
            }
            let reason = "broken".to_owned();
            let gone = self.lane.failed(batch, true, reason, self.now, TIMEOUT);
            self.give_up(gone);
        }
    }

    fn drift_ashore(&mut self) {
        if !self.adrift.is_empty() {
            let (id, stamp, records) = self.adrift.remove(0);
            self.append(id, stamp, records);
        }
    }

    fn give_up(&mut self, gone: Vec<GivenUp>) {
        for (batch, error) in gone {
            match error {
                ProduceError::Expired { .. } => self.expired.insert(batch.id),
                ProduceError::OutcomeUnknown { .. } => self.unknown.insert(batch.id),
                other => panic!("{other}"),
            };
        }
    }

    fn check(&self) {
        let once: BTreeSet<_> = self.log.iter().collect();
        assert_eq!(once.len(), self.log.len(), "a batch is in the log twice");
        let told: BTreeSet<_> = self.acknowledged.iter().collect();
        assert_eq!(told.len(), self.acknowledged.len(), "acknowledged twice");
        let in_log: Vec<_> = self.log.iter().filter(|id| told.contains(id)).collect();
        assert_eq!(in_log.len(), told.len(), "acknowledged, not in the log");
        assert!(in_log.is_sorted(), "out of order: {in_log:?}");
        for id in &self.log {
            assert!(!self.refused.contains(id), "{id:?} was called refused");
            assert!(!self.expired.contains(id), "{id:?} was called expired");
        }
    }
}

#[test]
fn whatever_happens_the_lane_says_the_truth_about_the_log() {
    let (mut acknowledged, mut refused, mut expired, mut unknown) = (0, 0, 0, 0);
    for seed in 0..2_000 {
        let mut model = Model::new(seed);
        for _ in 0..400 {
            model.step();
        }
        while !model.adrift.is_empty() {
            model.drift_ashore();
        }
        model.check();
        acknowledged += model.acknowledged.len();
        refused += model.refused.len();
        expired += model.expired.len();
        unknown += model.unknown.len();
    }
    // The walk has been everywhere.
    assert!(acknowledged > 10_000, "{acknowledged}");
    assert!(refused > 1_000, "{refused}");
    assert!(expired > 10, "{expired}");
    assert!(unknown > 100, "{unknown}");
}

/// A broker knows the last five batches again. One whose answer was lost must be among them for as
/// long as it takes, however quickly those behind it are acknowledged.
#[test]
fn nothing_is_sent_that_would_push_an_open_batch_out_of_the_brokers_memory() {
    let mut fixture = Fixture::new();
    let mut flight: Vec<_> = std::iter::from_fn(|| fixture.send()).collect();
    assert_eq!(flight.len(), IN_FLIGHT_MAX);
    let oldest = flight.remove(0);
    for batch in flight {
        assert!(fixture.lane.acknowledged(batch.id, TIMEOUT).is_empty());
    }
    assert!(fixture.send().is_none(), "the oldest is open");
    assert!(fixture.fail(oldest, true).is_empty());
    let again = fixture.send().unwrap();
    assert_eq!(sequence(&again), 0);
    assert!(fixture.send().is_none(), "it is open still");
    assert!(fixture.lane.acknowledged(again.id, TIMEOUT).is_empty());
    assert_eq!(fixture.send().map(|batch| sequence(&batch)), Some(10));
}

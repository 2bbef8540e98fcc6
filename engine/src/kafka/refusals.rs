//! Which batches a connection was refused for a reason that passes, so that what is behind them is
//! refused alike.
//!
//! A producer has several batches under way. The first may meet a node that does not lead its
//! partition, or does not know it yet, and the second the same node when it has just been elected. By
//! its sequence number the second comes too early, and that is no answer after which a producer asks
//! again: librdkafka begins a new epoch and sends all that is open as new, also what other partitions
//! have appended and not yet acknowledged, hence twice; if the producer has not written to the
//! partition before, it gives up for good. Refused for the reason of the first, both are sent again, in
//! their order.

use std::collections::VecDeque;

use highwater_protocol::ErrorCode;
use highwater_record::sequence_after;

use crate::producer_state::ProducerFacts;

/// Of how many partitions a connection remembers what it was refused. Those that are forgotten get the
/// answer that Kafka gives.
const REFUSED_MAX: usize = 128;

/// What one connection was refused, for each partition one batch behind the other, until the first of
/// them is appended.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    last: VecDeque<Refusal>,
}

/// A partition: the topic's name and the index.
pub(crate) type Place<'a> = (&'a str, i32);

#[derive(Debug)]
struct Refusal {
    topic: String,
    index: i32,
    producer: i64,
    epoch: i16,
    /// The first sequence number.
    first: i32,
    /// The one behind the last.
    next: i32,
    why: ErrorCode,
}

impl Refusal {
    fn is_of(&self, (topic, index): Place<'_>, batch: &ProducerFacts) -> bool {
        self.producer == batch.id && self.index == index && self.topic == topic
    }

    fn goes_before(&self, batch: &ProducerFacts) -> bool {
        self.epoch == batch.epoch && self.next == batch.base_sequence
    }
}

impl Refusals {
    /// What is to be said of a batch that has this result.
    pub(crate) fn settle(
        &mut self,
        place: Place<'_>,
        batch: &ProducerFacts,
        result: ErrorCode,
    ) -> ErrorCode {
        match result {
            ErrorCode::None => {
                self.appended(place, batch);
                result
            }
            ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId => {
                let before = self.before(place, batch).map(|it| it.why);
                if let Some(why) = before {
                    self.note(place, batch, why);
                }
                before.unwrap_or(result)
            }
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::UnknownTopicOrPartition => {
                self.note(place, batch, result);
                result
            }
            _ => result,
        }
    }

    fn note(&mut self, place: Place<'_>, batch: &ProducerFacts, why: ErrorCode) {
        let first = match self.before(place, batch) {
            Some(before) => before.first,
            None => batch.base_sequence,
        };
        self.last.retain(|refusal| !refusal.is_of(place, batch));
        if self.last.len() == REFUSED_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Refusal {
            topic: place.0.to_owned(),
            index: place.1,
            producer: batch.id,
            epoch: batch.epoch,
            first,
            next: sequence_after(batch.last_sequence, 1),
            why,
        });
    }

    /// What was refused, if this batch follows it.
    fn before(&self, place: Place<'_>, batch: &ProducerFacts) -> Option<&Refusal> {
        let refusal = self.last.iter().find(|it| it.is_of(place, batch))?;
        refusal.goes_before(batch).then_some(refusal)
    }

    /// If it is the first that was refused, come again, or of another epoch, what follows is measured
    /// by that. It may be an earlier one that waited for its quorum.
    fn appended(&mut self, place: Place<'_>, batch: &ProducerFacts) {
        self.last.retain(|refusal| {
            let is_earlier = refusal.epoch == batch.epoch && refusal.first != batch.base_sequence;
            !refusal.is_of(place, batch) || is_earlier
        });
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    const HERE: Place<'_> = ("topic", 0);

    fn batch(id: i64, epoch: i16, sequences: RangeInclusive<i32>) -> ProducerFacts {
        ProducerFacts {
            id,
            epoch,
            base_sequence: *sequences.start(),
            last_sequence: *sequences.end(),
        }
    }

    fn refusals_of(batch: &ProducerFacts) -> Refusals {
        let mut refused = Refusals::default();
        let why = ErrorCode::NotLeaderOrFollower;
        assert_eq!(refused.settle(HERE, batch, why), why);
        refused
    }

    #[test]
    fn only_what_follows_directly_shares_the_fate() {
        let too_early = ErrorCode::OutOfOrderSequenceNumber;
        let mut refused = refusals_of(&batch(1, 0, 5..=9));
        for (place, other) in [
            (HERE, batch(1, 0, 11..=11)),
            (HERE, batch(1, 0, 5..=9)),
            (HERE, batch(1, 1, 10..=10)),
            (HERE, batch(2, 0, 10..=10)),
            (("topic", 1), batch(1, 0, 10..=10)),
            (("other", 0), batch(1, 0, 10..=10)),
        ] {
            let said = refused.settle(place, &other, too_early);
            assert_eq!(said, too_early, "{place:?} {other:?}");
        }
        let said = refused.settle(HERE, &batch(1, 0, 10..=10), too_early);
        assert_eq!(said, ErrorCode::NotLeaderOrFollower);
    }

    #[test]
    fn a_chain_of_refusals_ends_when_its_first_batch_is_appended() {
        let unknown = ErrorCode::UnknownProducerId;
        let mut refused = refusals_of(&batch(1, 0, 2..=4));
        let behind = batch(1, 0, 5..=i32::MAX);
        let earlier = refused.settle(HERE, &batch(1, 0, 0..=1), ErrorCode::None);
        assert_eq!(earlier, ErrorCode::None);
        let why = ErrorCode::NotLeaderOrFollower;
        assert_eq!(refused.settle(HERE, &behind, unknown), why);
        let around = batch(1, 0, 0..=0);
        assert_eq!(
            refused.settle(HERE, &around, unknown),
            why,
            "it wraps around"
        );
        let again = refused.settle(HERE, &batch(1, 0, 2..=4), ErrorCode::None);
        assert_eq!(again, ErrorCode::None);
        assert_eq!(refused.settle(HERE, &batch(1, 0, 1..=1), unknown), unknown);
    }

    #[test]
    fn another_epoch_ends_a_chain() {
        let mut refused = refusals_of(&batch(1, 0, 5..=9));
        refused.settle(HERE, &batch(1, 1, 0..=0), ErrorCode::None);
        let too_early = ErrorCode::OutOfOrderSequenceNumber;
        assert_eq!(
            refused.settle(HERE, &batch(1, 0, 10..=10), too_early),
            too_early
        );
    }

    #[test]
    fn what_does_not_pass_is_not_remembered() {
        let mut refused = Refusals::default();
        let too_early = ErrorCode::OutOfOrderSequenceNumber;
        for why in [
            ErrorCode::MessageTooLarge,
            ErrorCode::RequestTimedOut,
            too_early,
        ] {
            assert_eq!(refused.settle(HERE, &batch(1, 0, 0..=4), why), why);
            let behind = refused.settle(HERE, &batch(1, 0, 5..=9), too_early);
            assert_eq!(behind, too_early);
        }
    }

    #[test]
    fn as_many_partitions_as_the_bound_says_are_remembered() {
        let mut refused = Refusals::default();
        let most = i32::try_from(REFUSED_MAX).unwrap();
        for index in 0..=most {
            let why = ErrorCode::NotEnoughReplicas;
            refused.settle(("topic", index), &batch(1, 0, 0..=0), why);
        }
        assert_eq!(refused.last.len(), REFUSED_MAX);
        let too_early = ErrorCode::OutOfOrderSequenceNumber;
        let mut said = |index| refused.settle(("topic", index), &batch(1, 0, 1..=1), too_early);
        assert_eq!(said(0), too_early);
        assert_eq!(said(most), ErrorCode::NotEnoughReplicas);
    }
}

//! Which batches were refused for a reason that passes, so that what is behind them is refused alike.
//!
//! A producer has several batches under way. The first may meet a replica that does not lead, and the
//! second the same replica when it has just been elected. By its sequence number the second comes too
//! early, and that answer is no matter of asking again: librdkafka begins a new epoch and sends all
//! that is open as new, also what other partitions have appended and not yet acknowledged, hence
//! twice; if the producer has not written here before, it gives up for good. Refused for the reason of
//! the first, both are sent again, in their order.

use std::collections::VecDeque;

use crate::ops::OpError;
use crate::producer_state::ProducerFacts;

/// Of how many producers a partition remembers what it has refused. Those that are forgotten get the
/// answer that they would get of Kafka.
const REFUSED_MAX: usize = 64;

/// The last batch of each producer that was refused, until one of its batches is appended.
#[derive(Debug, Default)]
pub(super) struct Refused {
    last: VecDeque<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    id: i64,
    epoch: i16,
    /// The first sequence number behind the batch.
    next: i32,
    why: OpError,
}

impl Refused {
    /// A batch was refused; if it was for a reason that passes, those behind it are to be as well.
    pub(super) fn note(&mut self, batch: &ProducerFacts, why: &OpError) {
        if !matches!(why, OpError::NotLeader { .. } | OpError::Busy(_)) {
            return;
        }
        self.forget(batch.id);
        if self.last.len() == REFUSED_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Refusal {
            id: batch.id,
            epoch: batch.epoch,
            next: highwater_record::sequence_after(batch.last_sequence, 1),
            why: why.clone(),
        });
    }

    /// Why the batch before this one was refused, if it was.
    pub(super) fn before(&self, batch: &ProducerFacts) -> Option<&OpError> {
        let refusal = self.last.iter().find(|refusal| refusal.id == batch.id)?;
        let follows = refusal.epoch == batch.epoch && refusal.next == batch.base_sequence;
        follows.then_some(&refusal.why)
    }

    /// A batch of a producer is appended: what it sends next is measured by that.
    pub(super) fn forget(&mut self, id: i64) {
        self.last.retain(|refusal| refusal.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::{REFUSED_MAX, Refused};
    use crate::ops::OpError;
    use crate::producer_state::ProducerFacts;

    const BUSY: OpError = OpError::Busy("too much waits to be appended");

    fn batch(id: i64, epoch: i16, sequences: std::ops::RangeInclusive<i32>) -> ProducerFacts {
        ProducerFacts {
            id,
            epoch,
            base_sequence: *sequences.start(),
            last_sequence: *sequences.end(),
        }
    }

    #[test]
    fn only_what_follows_directly_shares_the_fate() {
        let mut refused = Refused::default();
        refused.note(&batch(1, 0, 5..=9), &BUSY);
        assert_eq!(refused.before(&batch(1, 0, 10..=10)), Some(&BUSY));
        for other in [
            batch(1, 0, 11..=11),
            batch(1, 0, 5..=9),
            batch(1, 1, 10..=10),
            batch(2, 0, 10..=10),
        ] {
            assert_eq!(refused.before(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_chain_of_refusals_ends_with_the_first_append() {
        let mut refused = Refused::default();
        refused.note(&batch(1, 0, 0..=4), &BUSY);
        refused.note(&batch(1, 0, 5..=i32::MAX), &BUSY);
        assert_eq!(
            refused.before(&batch(1, 0, 0..=0)),
            Some(&BUSY),
            "it wraps around"
        );
        assert_eq!(refused.before(&batch(1, 0, 5..=9)), None);
        refused.forget(1);
        assert_eq!(refused.before(&batch(1, 0, 0..=0)), None);
    }

    #[test]
    fn what_does_not_pass_is_not_remembered() {
        let mut refused = Refused::default();
        let too_large = OpError::TooLarge { bytes: 2, limit: 1 };
        refused.note(&batch(1, 0, 0..=4), &too_large);
        assert_eq!(refused.before(&batch(1, 0, 5..=9)), None);
    }

    #[test]
    fn as_many_producers_as_the_bound_says_are_remembered() {
        let mut refused = Refused::default();
        let most = i64::try_from(REFUSED_MAX).unwrap();
        for id in 0..=most {
            refused.note(&batch(id, 0, 0..=0), &BUSY);
        }
        assert_eq!(refused.before(&batch(0, 0, 1..=1)), None);
        assert_eq!(refused.before(&batch(1, 0, 1..=1)), Some(&BUSY));
        assert_eq!(refused.before(&batch(most, 0, 1..=1)), Some(&BUSY));
    }
}

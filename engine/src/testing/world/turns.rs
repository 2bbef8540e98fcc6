//! When shards are to take turns.

use std::time::Duration;

use super::Place;
use crate::NodeId;

/// When each shard is to take its next turn.
///
/// A turn is put off and brought forward all the time, so it is no event among the others: that
/// would leave one behind each time.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// One for a shard at most; in no order, since there are few.
    due: Vec<(Duration, Place)>,
}

impl Turns {
    /// A shard is to take a turn at this time, if none of its is due before.
    pub(super) fn add(&mut self, at: Duration, place: Place) {
        match self.due.iter_mut().find(|(_, of)| *of == place) {
            Some((due, _)) => *due = at.min(*due),
            None => self.due.push((at, place)),
        }
    }

    /// Which turn is next, and when.
    pub(super) fn first(&self) -> Option<(Duration, Place)> {
        self.due.iter().min().copied()
    }

    /// A shard takes its turn.
    pub(super) fn remove(&mut self, place: Place) {
        self.due.retain(|(_, of)| *of != place);
    }

    /// A node dies.
    pub(super) fn remove_all(&mut self, node: NodeId) {
        self.due.retain(|(_, of)| of.node != node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShardId;

    fn place(node: u32, shard: u16) -> Place {
        Place {
            node: NodeId(node),
            shard: ShardId(shard),
        }
    }

    #[test]
    fn a_shard_has_one_turn_and_the_earlier_word_counts() {
        let ms = Duration::from_millis;
        let mut turns = Turns::default();
        turns.add(ms(5), place(1, 0));
        turns.add(ms(7), place(2, 0));
        turns.add(ms(9), place(1, 0));
        assert_eq!(turns.first(), Some((ms(5), place(1, 0))));
        turns.add(ms(3), place(2, 0));
        assert_eq!(turns.first(), Some((ms(3), place(2, 0))));
        turns.remove(place(2, 0));
        turns.add(ms(5), place(2, 1));
        assert_eq!(
            turns.first(),
            Some((ms(5), place(1, 0))),
            "in order of places"
        );
        turns.remove_all(NodeId(1));
        assert_eq!(turns.first(), Some((ms(5), place(2, 1))));
        turns.remove_all(NodeId(2));
        assert_eq!(turns.first(), None);
    }
}

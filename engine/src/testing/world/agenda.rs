//! What is going to happen in the world, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;
use highwater_log::storage::MemoryDisk;

use super::super::network::Pair;
use super::Place;
use crate::{ConnId, Input, Lane, NodeId};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A message between two shards of a node arrives.
    Cross { to: Place, life: u64, input: Input },
    /// A frame arrives.
    Deliver {
        from: NodeId,
        to: NodeId,
        session: u64,
        lane: Lane,
        bytes: Vec<u8>,
    },
    /// A node notices that a link is up.
    LinkUp {
        node: NodeId,
        peer: NodeId,
        session: u64,
    },
    /// A node notices that a link is down.
    LinkDown {
        node: NodeId,
        peer: NodeId,
        session: u64,
    },
    /// Two nodes try to link.
    Connect { pair: Pair },
    /// A link is mended.
    Mend { pair: Pair },
    /// The fault of this number of the plan happens.
    Fault { number: usize },
    /// A flapping link goes down again.
    Flap {
        pair: Pair,
        times: u32,
        period: Duration,
    },
    /// Something of what a node's disk had some time ago is damaged, if this is still its life.
    Decay {
        node: NodeId,
        life: u64,
        older: MemoryDisk,
        pick: u64,
    },
    /// A node is started again.
    Restart { node: NodeId },
    /// A node's own disk is put back, and it is started.
    PutBack { node: NodeId },
    /// A paused node goes on.
    Resume { node: NodeId },
    /// A node's disk has room again, and is as fast as before.
    Recover { node: NodeId },
    /// A client may go on, or has waited long enough.
    Client { index: usize, turn: u64 },
    /// A client's request arrives.
    Request {
        to: Place,
        life: u64,
        conn: ConnId,
        frame: Vec<u8>,
    },
    /// Somebody closes a connection without having read an answer.
    Leave { at: Place, conn: ConnId },
    /// An answer arrives at a client; none if its connection is lost.
    Answer {
        index: usize,
        turn: u64,
        answer: Option<Bytes>,
    },
    /// Somebody looks at what is durable, as planned or because of an election.
    LookAtDisks { is_planned: bool },
    /// The auditor looks.
    Audit,
}

/// What is going to happen, ordered by time, then as it was made, but for turns of shards
/// ([`Turns`](super::turns::Turns)).
///
/// The heap has small keys only: events are large, and would be moved at each step of it.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Reverse<Key>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: Duration,
    /// How many were made before it.
    sequence: u64,
    /// Where it is among the events.
    slot: usize,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Duration, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.sequence += 1;
        self.due.push(Reverse(Key {
            at,
            sequence: self.sequence,
            slot,
        }));
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.due.peek().map(|next| next.0.at)
    }

    /// The next event, if it is due by `end`.
    pub(super) fn next_by(&mut self, end: Duration) -> Option<(Duration, Event)> {
        if self.next_at().is_none_or(|at| at > end) {
            return None;
        }
        let Reverse(Key { at, slot, .. }) = self.due.pop()?;
        self.free.push(slot);
        let event = self.events[slot].take().expect("each has one key");
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restart(node: u32) -> Event {
        Event::Restart { node: NodeId(node) }
    }

    #[test]
    fn what_is_due_first_comes_first_and_at_one_time_what_was_made_first() {
        let mut agenda = Agenda::default();
        let second = Duration::from_secs(1);
        agenda.add(second * 2, restart(3));
        agenda.add(second, restart(1));
        agenda.add(second, restart(2));
        let mut taken = Vec::new();
        while let Some((_, Event::Restart { node })) = agenda.next_by(second) {
            taken.push(node.0);
        }
        agenda.add(second, restart(4));
        while let Some((_, Event::Restart { node })) = agenda.next_by(second * 2) {
            taken.push(node.0);
        }
        assert_eq!(taken, [1, 2, 4, 3]);
        assert_eq!(agenda.events.len(), 3, "slots are used again");
    }
}

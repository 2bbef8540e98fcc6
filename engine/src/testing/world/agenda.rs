//! What is going to happen in the world, in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use highwater_log::storage::MemoryDisk;

use super::super::network::Pair;
use super::Place;
use crate::{ConnId, Input, Lane, NodeId};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A shard is to take a turn.
    Wake { at: Place, life: u64 },
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

/// What is going to happen, ordered by time, then as it was made.
///
/// The heap has small keys only: events are large, and would be moved at each step of it. What is
/// due at once, as every second turn is, does without it.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// When the last event was due.
    now: Duration,
    /// Events that are due then too, and were made since: all others of that time were before.
    at_once: VecDeque<Event>,
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
    /// An event is to happen.
    ///
    /// # Panics
    ///
    /// If it is due before one that has happened.
    pub(super) fn add(&mut self, at: Duration, event: Event) {
        assert!(at >= self.now, "time does not go back");
        if at == self.now {
            self.at_once.push_back(event);
            return;
        }
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

    /// The next event, if it is due by `end`.
    pub(super) fn next_by(&mut self, end: Duration) -> Option<(Duration, Event)> {
        let next = self.due.peek().map(|next| next.0.at);
        if !self.at_once.is_empty() && next.is_none_or(|at| at > self.now) {
            let event = (self.now <= end).then(|| self.at_once.pop_front());
            return event.flatten().map(|event| (self.now, event));
        }
        if next.is_none_or(|at| at > end) {
            return None;
        }
        let Reverse(Key { at, slot, .. }) = self.due.pop()?;
        self.now = at;
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

    fn take(agenda: &mut Agenda, end: Duration) -> Option<u32> {
        match agenda.next_by(end)?.1 {
            Event::Restart { node } => Some(node.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_due_first_comes_first_and_at_one_time_what_was_made_first() {
        let mut agenda = Agenda::default();
        let second = Duration::from_secs(1);
        agenda.add(second * 3, restart(6));
        agenda.add(second, restart(1));
        agenda.add(second, restart(2));
        assert_eq!(take(&mut agenda, second), Some(1));
        agenda.add(second, restart(3));
        agenda.add(second * 2, restart(5));
        agenda.add(second, restart(4));
        let taken: Vec<u32> = std::iter::from_fn(|| take(&mut agenda, second * 2)).collect();
        assert_eq!(taken, [2, 3, 4, 5]);
        agenda.add(second * 4, restart(7));
        assert_eq!(take(&mut agenda, second * 2), None, "it is not due");
        assert_eq!(take(&mut agenda, second * 4), Some(6));
        assert_eq!(agenda.events.len(), 3, "slots are used again");
    }
}

//! A node and its disk: what is written, what is durable, and what a crash leaves of it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::Essence;
use super::world::NODES;
use crate::{
    Config, EntryKind, EntryMeta, LogIndex, Membership, NodeId, Quarantine, Raft, Restored, Term,
    WriteId,
};

/// Hard state and log. The log begins at index 1; an entry is its term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) term: u32,
    pub(super) vote: Option<NodeId>,
    pub(super) log: Vec<u32>,
    /// An entry that cannot be read.
    pub(super) hole: Option<usize>,
    /// The log was unreadable to its end, and the node has not rejoined.
    pub(super) must_rejoin: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    HardState(Term, Option<NodeId>),
    Append(Vec<u32>),
    Cut(usize),
    /// The driver forgets the quarantine.
    Rejoined,
}

/// A node, running or not, and its disk.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) raft: Option<Raft>,
    pub(super) clock: Duration,
    /// What is written, and what of it is durable, and the writes between the two.
    pub(super) memory: Image,
    pub(super) durable: Image,
    pub(super) queue: VecDeque<(Option<WriteId>, Op)>,
    pub(super) essence: u64,
}

/// What a disk has lost of its log by itself. Places are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rot {
    Entry(usize),
    ToEnd(usize),
}

impl Image {
    /// The term of the entry at this place, counted from 0, if it can be read.
    pub(super) fn reads(&self, place: usize) -> Option<u32> {
        let is_hole = self.hole == Some(place);
        self.log.get(place).copied().filter(|_| !is_hole)
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::HardState(term, vote) => (self.term, self.vote) = (term.get(), *vote),
            Op::Append(terms) => {
                for &term in terms {
                    assert!(term <= self.term, "an entry before its term (P04)");
                    self.log.push(term);
                }
            }
            Op::Cut(len) => {
                self.log.truncate(*len);
                self.hole = self.hole.filter(|hole| hole < len);
            }
            Op::Rejoined => self.must_rejoin = false,
        }
    }

    pub(super) fn quarantine(&self) -> Quarantine {
        let place = |at: usize| LogIndex(at as u64 + 1);
        match self.hole {
            Some(hole) => Quarantine::Hole { first: place(hole) },
            None if self.must_rejoin => Quarantine::ToEnd {
                first: place(self.log.len()),
            },
            None => Quarantine::None,
        }
    }

    pub(super) fn restored(&self) -> Restored {
        let mut epochs: Vec<(Term, LogIndex)> = Vec::new();
        for (&term, index) in self.log.iter().zip(1..) {
            let term = Term::new(term).expect("small");
            if epochs.last().map(|epoch| epoch.0) != Some(term) {
                epochs.push((term, LogIndex(index)));
            }
        }
        Restored {
            term: Term::new(self.term).expect("small"),
            vote: self.vote,
            epochs,
            last: LogIndex(self.log.len() as u64),
            quarantine: self.quarantine(),
            ..Restored::default()
        }
    }

    pub(super) fn entries_from(&self, next: LogIndex) -> Vec<EntryMeta> {
        let skip = usize::try_from(next.0).expect("small") - 1;
        let places = skip..self.log.len();
        places
            .map_while(|place| Some((place, self.reads(place)?)))
            .map(|(place, term)| EntryMeta {
                id: crate::EntryId {
                    index: LogIndex(place as u64 + 1),
                    term: Term::new(term).expect("small"),
                },
                kind: EntryKind::Data,
                size: 0,
            })
            .collect()
    }
}

impl Node {
    /// Whether its disk has lost something that it has not got back.
    pub(super) fn is_ill(&self) -> bool {
        self.durable.must_rejoin || self.durable.hole.is_some()
    }

    pub(super) fn restart(&mut self, node: NodeId) {
        self.memory = self.durable.clone();
        let config = Config::new(node, Membership::of_voters(NODES));
        let seed = u64::from(node.0);
        let raft = Raft::new(config, self.durable.restored(), seed, self.clock);
        self.raft = Some(raft.expect("what a crash leaves can be restored"));
    }

    /// Parts of log writes, and hard states, that are on their way.
    pub(super) fn parts(&self) -> (usize, usize) {
        let logs = self.queue.iter().map(|(_, op)| log_parts(op)).sum();
        let is_hard = |(_, op): &&(Option<WriteId>, Op)| matches!(op, Op::HardState(..));
        (logs, self.queue.iter().filter(is_hard).count())
    }

    /// How many hard states must be durable for the first `logs` parts to be.
    pub(super) fn hard_states_before(&self, logs: usize) -> usize {
        let (mut left, mut hard_states) = (logs, 0);
        for (_, op) in &self.queue {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(log_parts(op));
            hard_states += usize::from(matches!(op, Op::HardState(..)));
        }
        hard_states
    }

    pub(super) fn crash(&mut self, mut logs: usize, mut hard_states: usize) {
        // Hard states first: none of them is behind an entry that needs it.
        let (hard, log): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue)
            .into_iter()
            .map(|(_, op)| op)
            .partition(|op| matches!(op, Op::HardState(..)));
        for op in hard {
            if hard_states > 0 {
                hard_states -= 1;
                self.durable.apply(&op);
            }
        }
        for op in log {
            let kept = log_parts(&op).min(logs);
            logs -= kept;
            match op {
                Op::Append(terms) => self.durable.apply(&Op::Append(terms[..kept].to_vec())),
                op if kept > 0 => self.durable.apply(&op),
                _ => {}
            }
        }
    }

    pub(super) fn rot(&mut self, rot: Rot) {
        match rot {
            Rot::Entry(place) => self.durable.hole = Some(place),
            Rot::ToEnd(first) => {
                self.durable.log.truncate(first);
                self.durable.must_rejoin = true;
            }
        }
    }

    pub(super) fn sum_up(&mut self) {
        let mut hasher = DefaultHasher::new();
        (&self.memory, &self.durable).hash(&mut hasher);
        for (_, op) in &self.queue {
            op.hash(&mut hasher);
        }
        if let Some(raft) = &self.raft {
            raft.essence(&raft.writes, &mut hasher);
        }
        self.essence = hasher.finish();
    }
}

fn log_parts(op: &Op) -> usize {
    match op {
        Op::HardState(..) => 0,
        Op::Append(terms) => terms.len(),
        Op::Cut(_) | Op::Rejoined => 1,
    }
}

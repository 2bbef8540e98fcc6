//! A disk: what is durable, what is only in memory, and the writes between the two.

use std::collections::{BTreeSet, VecDeque};

use highwater_consensus::{
    EntryId, EntryMeta, LogIndex, NodeId, Quarantine, Restored, Term, WriteId,
};

/// An entry with a number in place of its body, so that a mix-up is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) meta: EntryMeta,
    pub(crate) body: u64,
}

/// Hard state and log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) before: EntryId,
    pub(crate) entries: Vec<Stored>,
    /// Entries that are there and cannot be read.
    pub(crate) holes: BTreeSet<LogIndex>,
}

/// A change of an [`Image`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    HardState(Term, Option<NodeId>),
    Append(Vec<Stored>),
    Cut(LogIndex),
    Base(EntryId),
}

impl Image {
    pub(crate) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.before, |e| e.meta.id)
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<&Stored> {
        let at = index.0.checked_sub(self.before.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Whether the entry can be read here, or could until retention removed it.
    pub(crate) fn has(&self, id: EntryId) -> bool {
        if self.holes.contains(&id.index) {
            return false;
        }
        id == self.before
            || id.index < self.before.index
            || self.get(id.index).is_some_and(|e| e.meta.id == id)
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::HardState(term, vote) => (self.term, self.vote) = (*term, *vote),
            Op::Append(entries) => {
                for entry in entries {
                    let id = entry.meta.id;
                    assert_eq!(id.index, self.last().index.next(), "a gap on disk");
                    assert!(id.term >= self.last().term, "terms fall on disk");
                    assert!(id.term <= self.term, "an entry before its term (P04)");
                    self.entries.push(*entry);
                }
            }
            Op::Cut(first) => {
                assert!(*first > self.before.index);
                self.entries.retain(|e| e.meta.id.index < *first);
                self.holes.retain(|hole| hole < first);
            }
            Op::Base(before) => {
                self.holes.clear();
                self.before = *before;
                self.entries.clear();
            }
        }
    }

    /// Retention: the log starts at `first`.
    pub(crate) fn start_at(&mut self, first: LogIndex) {
        if first <= self.before.index.next() || first > self.last().index.next() {
            return;
        }
        self.before = self.get(first.previous()).expect("in the log").meta.id;
        self.entries.retain(|e| e.meta.id.index >= first);
        self.holes.retain(|hole| *hole >= first);
    }

    pub(crate) fn restored(&self, quarantine: Quarantine) -> Restored {
        let mut epochs: Vec<(Term, LogIndex)> = Vec::new();
        let last = match quarantine {
            Quarantine::ToEnd { first } => first.previous(),
            _ => self.last().index,
        };
        for entry in self.entries.iter().filter(|e| e.meta.id.index <= last) {
            if epochs.last().map(|epoch| epoch.0) != Some(entry.meta.id.term) {
                epochs.push((entry.meta.id.term, entry.meta.id.index));
            }
        }
        Restored {
            term: self.term,
            vote: self.vote,
            before: self.before,
            epochs,
            last,
            quarantine,
            promises_lost: false,
        }
    }

    /// Terms of the entries, for short assertions.
    pub(crate) fn terms(&self) -> Vec<u32> {
        self.entries.iter().map(|e| e.meta.id.term.get()).collect()
    }
}

/// An image in memory, one that survives, and the writes that make the one into the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) memory: Image,
    pub(crate) durable: Image,
    pub(crate) queue: VecDeque<(WriteId, Op)>,
}

impl Disk {
    pub(crate) fn write(&mut self, write: WriteId, op: Op) {
        self.memory.apply(&op);
        self.queue.push_back((write, op));
    }

    /// Makes the oldest write durable.
    pub(crate) fn sync_one(&mut self) -> Option<WriteId> {
        let (write, op) = self.queue.pop_front()?;
        self.durable.apply(&op);
        Some(write)
    }

    /// Everything from `first` on turns out to be unreadable, and what it was unknown.
    pub(crate) fn lose_from(&mut self, first: LogIndex) {
        self.durable.entries.retain(|e| e.meta.id.index < first);
        self.durable.holes.retain(|hole| *hole < first);
        self.crash();
    }

    /// A repaired copy takes the place of `entry`, if that is still in the log.
    pub(crate) fn repair(&mut self, entry: &Stored) {
        for image in [&mut self.memory, &mut self.durable] {
            if image.get(entry.meta.id.index) == Some(entry) {
                image.holes.remove(&entry.meta.id.index);
            }
        }
    }

    /// Loses what is not durable.
    pub(crate) fn crash(&mut self) {
        self.queue.clear();
        self.memory = self.durable.clone();
    }
}

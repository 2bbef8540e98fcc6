//! What has been written and what of it is durable.

use std::collections::VecDeque;

use crate::types::{LogIndex, WriteId};

/// The writes of one group, in order, and how far the log is synced.
///
/// A completion is cumulative, and it counts for what its write still means: a cut lowers all
/// earlier appends to below the cut when it is *issued*, so that no completion, however late,
/// can claim bytes that are being replaced (P22, P23).
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    issued: WriteId,
    durable: WriteId,
    /// All entries up to here are durable, and none of them is about to be replaced.
    synced: LogIndex,
    /// Appends and bases that are not durable, with the index up to which the log is synced
    /// when they are.
    pending: VecDeque<(WriteId, LogIndex)>,
    /// The last base; until it is durable nothing counts.
    base: WriteId,
}

impl Writes {
    /// The writes of a log that is synced through `last`.
    pub(crate) fn restore(last: LogIndex) -> Writes {
        Writes {
            synced: last,
            ..Writes::default()
        }
    }

    /// A write of the hard state.
    pub(crate) fn hard_state(&mut self) -> WriteId {
        self.issued = self.issued.next();
        self.issued
    }

    /// An append that ends with `last`.
    pub(crate) fn append(&mut self, last: LogIndex) -> WriteId {
        self.issued = self.issued.next();
        self.pending.push_back((self.issued, last));
        self.issued
    }

    /// A cut of everything from `first` on.
    pub(crate) fn cut(&mut self, first: LogIndex) -> WriteId {
        if !mutant!("fsync vouches for what replaced its bytes") {
            self.lower(first.previous());
        }
        self.issued = self.issued.next();
        self.issued
    }

    /// A base: an empty log behind `before`.
    pub(crate) fn base(&mut self, before: LogIndex) -> WriteId {
        self.lower(LogIndex::ZERO);
        self.base = self.append(before);
        self.base
    }

    /// Everything up to `write` is durable. Returns whether that is news.
    ///
    /// # Panics
    /// If there is no such write.
    pub(crate) fn persisted(&mut self, write: WriteId) -> bool {
        assert!(write <= self.issued, "a write that was never issued");
        if write <= self.durable {
            return false;
        }
        let write = match mutant!("fsync completion covers later writes") {
            true => self.issued,
            false => write,
        };
        self.durable = write;
        while let Some(&(pending, last)) = self.pending.front()
            && pending <= write
        {
            self.synced = self.synced.max(last);
            self.pending.pop_front();
        }
        true
    }

    /// Whether everything up to `write` is durable.
    pub(crate) fn is_durable(&self, write: WriteId) -> bool {
        write <= self.durable
    }

    /// Whether a base waits for the disk.
    pub(crate) fn base_is_pending(&self) -> bool {
        !self.is_durable(self.base)
    }

    /// All entries up to here are synced; 0 while a base waits for the disk.
    pub(crate) fn synced(&self) -> LogIndex {
        self.synced
    }

    /// How far behind the newest write `write` is: numbers that do not tell how many there were.
    #[cfg(test)]
    pub(crate) fn age(&self, write: WriteId) -> Option<u64> {
        (write > self.durable).then(|| self.issued.0 - write.0)
    }

    fn lower(&mut self, last: LogIndex) {
        self.synced = self.synced.min(last);
        for (_, claim) in &mut self.pending {
            *claim = (*claim).min(last);
        }
    }
}

#[cfg(test)]
impl crate::explore::Essence for Writes {
    fn essence(&self, _: &Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Writes {
            issued,
            durable,
            synced,
            pending,
            base,
        } = self;
        (issued.0 - durable.0, synced, self.age(*base)).hash(to);
        for &(write, claim) in pending {
            (self.age(write), claim).hash(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced_through(last: u64) -> Writes {
        Writes::restore(LogIndex(last))
    }

    #[test]
    fn p22_a_late_completion_of_replaced_entries_does_not_count_aba() {
        let mut writes = synced_through(3);
        let first = writes.append(LogIndex(6));
        writes.cut(LogIndex(4));
        writes.append(LogIndex(5));
        writes.cut(LogIndex(4));
        let again = writes.append(LogIndex(6));
        writes.persisted(first);
        assert_eq!(writes.synced(), LogIndex(3));
        writes.persisted(again);
        assert_eq!(writes.synced(), LogIndex(6));
    }

    #[test]
    fn p23_a_sync_in_flight_claims_nothing_above_a_cut() {
        let mut writes = synced_through(0);
        let all = writes.append(LogIndex(100));
        writes.cut(LogIndex(51));
        let replaced = writes.append(LogIndex(120));
        writes.persisted(all);
        assert_eq!(writes.synced(), LogIndex(50));
        writes.persisted(replaced);
        assert_eq!(writes.synced(), LogIndex(120));
    }

    #[test]
    fn p24_completions_out_of_order_neither_drop_nor_regress() {
        let mut writes = synced_through(0);
        let one = writes.append(LogIndex(1));
        let two = writes.append(LogIndex(2));
        assert!(writes.persisted(two));
        assert_eq!(writes.synced(), LogIndex(2));
        assert!(!writes.persisted(one));
        assert_eq!(writes.synced(), LogIndex(2));
    }

    #[test]
    fn p72_a_base_in_flight_is_superseded_by_a_newer_one() {
        let mut writes = synced_through(5);
        let ten = writes.base(LogIndex(10));
        assert_eq!(writes.synced(), LogIndex(0));
        let twenty = writes.base(LogIndex(20));
        writes.persisted(ten);
        assert!(writes.base_is_pending());
        assert_eq!(writes.synced(), LogIndex(0));
        writes.persisted(twenty);
        assert!(!writes.base_is_pending());
        assert_eq!(writes.synced(), LogIndex(20));
    }

    #[test]
    #[should_panic(expected = "never issued")]
    fn a_completion_of_nothing_is_our_bug() {
        synced_through(1).persisted(WriteId(1));
    }
}

//! What is remembered of the log: where each term begins, and the metas of recent entries.

use std::collections::VecDeque;

use crate::types::{EntryId, EntryMeta, LogIndex, Term};

/// A run of entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Epoch {
    term: Term,
    first: LogIndex,
}

/// The log as far as consensus knows it: the term of every entry, by way of the epoch history
/// (a few numbers per election, however long the log), and the sizes of the last ones.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Tail {
    /// The entry before the first one kept. Committed.
    before: EntryId,
    /// In ascending order of both numbers; the first begins at `before.index + 1`, unless the
    /// log is empty.
    epochs: VecDeque<Epoch>,
    last: EntryId,
    /// Consecutive, ending at `last`; perhaps none.
    metas: VecDeque<EntryMeta>,
    metas_max: usize,
}

impl Tail {
    /// The log behind `before` through `last`, whose terms begin where `epochs` says.
    pub(crate) fn restore(
        before: EntryId,
        epochs: &[(Term, LogIndex)],
        last: LogIndex,
        metas_max: usize,
    ) -> Result<Tail, &'static str> {
        let mut tail = Tail {
            before,
            epochs: VecDeque::new(),
            last: before,
            metas: VecDeque::new(),
            metas_max,
        };
        if last < before.index {
            return Err("the log ends before it starts");
        }
        for &(term, first) in epochs.iter().filter(|&&(_, first)| first <= last) {
            let first = first.max(before.index.next());
            match tail.epochs.back_mut() {
                Some(newest) if term <= newest.term || first < newest.first => {
                    return Err("the epoch history does not ascend");
                }
                // It began where the next one begins: all of it lies before the log's start.
                Some(newest) if first == newest.first => newest.term = term,
                _ => tail.epochs.push_back(Epoch { term, first }),
            }
        }
        let Some(oldest) = tail.epochs.front() else {
            return if last == before.index {
                Ok(tail)
            } else {
                Err("the log has entries of no epoch")
            };
        };
        if last == before.index {
            tail.epochs.clear();
            return Ok(tail);
        }
        if oldest.first != before.index.next() || oldest.term < before.term {
            return Err("the first epoch does not begin where the log does");
        }
        tail.last = EntryId {
            index: last,
            term: tail.epochs.back().map_or(before.term, |epoch| epoch.term),
        };
        Ok(tail)
    }

    /// The entry before the first one kept.
    pub(crate) fn before(&self) -> EntryId {
        self.before
    }

    /// The last entry; `before` if there is none.
    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    /// The term of the entry at `index`, `before` included; `None` elsewhere.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        if index < self.before.index || index > self.last.index {
            return None;
        }
        let at = self.epochs.partition_point(|epoch| epoch.first <= index);
        Some(self.epochs[at - 1].term)
    }

    /// The identity of the entry at `index`.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<EntryId> {
        self.term_at(index).map(|term| EntryId { index, term })
    }

    /// Whether this very entry is in the log, `before` included.
    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The first index of the term of the entry at `index`, as far as the log reaches back.
    pub(crate) fn first_of_term_at(&self, index: LogIndex) -> LogIndex {
        let at = self.epochs.partition_point(|epoch| epoch.first <= index);
        match at.checked_sub(1) {
            Some(at) => self.epochs[at].first,
            None => self.before.index,
        }
    }

    /// Where a log whose entry `at` belongs to a run that begins at `first` may agree with this
    /// one: no entry behind the answer can be in both. `None` if that lies before this log.
    ///
    /// Terms never fall along a log (paper, section 5.3). So below `at` only entries of at most
    /// its term can be common; and where this log has an older term than `at`, nothing of the
    /// other's run is in it. That skips a whole term at once, on either side.
    pub(crate) fn last_common(&self, at: EntryId, first: LogIndex) -> Option<EntryId> {
        let mut index = at.index.min(self.last.index);
        if index < self.before.index || self.before.term > at.term {
            return None;
        }
        if self.term_at(index) > Some(at.term) {
            let newer = self.epochs.partition_point(|epoch| epoch.term <= at.term);
            index = self.epochs[newer].first.previous();
        }
        if self.term_at(index) < Some(at.term) || index < first {
            index = index.min(first.previous());
        }
        self.id_at(index)
    }

    /// Appends one entry.
    ///
    /// # Panics
    /// If it does not follow the last one, or its term is older.
    pub(crate) fn push(&mut self, meta: EntryMeta) {
        assert_eq!(meta.id.index, self.last.index.next(), "a gap in the log");
        assert!(meta.id.term >= self.last.term, "terms fall along the log");
        let newest = self.epochs.back().map(|epoch| epoch.term);
        if newest != Some(meta.id.term) {
            self.epochs.push_back(Epoch {
                term: meta.id.term,
                first: meta.id.index,
            });
        }
        self.last = meta.id;
        if self.metas.len() == self.metas_max {
            self.metas.pop_front();
        }
        self.metas.push_back(meta);
    }

    /// Learns where each term begins, of entries too that it could not see before.
    pub(crate) fn learn_epochs(&mut self, epochs: &[(Term, LogIndex)]) -> Result<(), &'static str> {
        let found = Tail::restore(self.before, epochs, self.last.index, self.metas_max)?;
        if found.last != self.last {
            return Err("the epoch history does not end with the last entry");
        }
        self.epochs = found.epochs;
        Ok(())
    }

    /// Removes all entries from `first` on.
    ///
    /// # Panics
    /// If `first` is not in the log or directly behind it.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        assert!(first > self.before.index, "a cut of what is committed");
        assert!(first <= self.last.index.next(), "a cut behind the log");
        while self.epochs.back().is_some_and(|e| e.first >= first) {
            self.epochs.pop_back();
        }
        while self.metas.back().is_some_and(|m| m.id.index >= first) {
            self.metas.pop_back();
        }
        self.last = EntryId {
            index: first.previous(),
            term: self.epochs.back().map_or(self.before.term, |e| e.term),
        };
    }

    /// Forgets everything: the log is empty and begins after `before`.
    pub(crate) fn restart(&mut self, before: EntryId) {
        self.before = before;
        self.last = before;
        self.epochs.clear();
        self.metas.clear();
    }

    /// Lets the log begin at `first`.
    ///
    /// # Panics
    /// If the entry before `first` is not in the log.
    pub(crate) fn start_at(&mut self, first: LogIndex) {
        let before = self.id_at(first.previous()).expect("it is in the log");
        while self.epochs.len() > 1 && self.epochs[1].first <= first {
            self.epochs.pop_front();
        }
        if before == self.last {
            self.epochs.clear();
        } else if let Some(oldest) = self.epochs.front_mut() {
            oldest.first = oldest.first.max(first);
        }
        while self.metas.front().is_some_and(|m| m.id.index < first) {
            self.metas.pop_front();
        }
        self.before = before;
    }

    /// Whether the meta of `index`, and those of all later entries, are remembered.
    pub(crate) fn remembers(&self, index: LogIndex) -> bool {
        self.metas.front().is_some_and(|m| m.id.index <= index) && index <= self.last.index
    }

    /// The metas from `first` on, which must be [remembered](Tail::remembers).
    pub(crate) fn metas_from(&self, first: LogIndex) -> impl Iterator<Item = &EntryMeta> {
        let oldest = self.metas.front().map_or(first, |m| m.id.index);
        assert!(oldest <= first, "asked for metas that are forgotten");
        let skip = usize::try_from(oldest.distance_to(first)).unwrap_or(usize::MAX);
        self.metas.range(skip.min(self.metas.len())..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EntryKind;

    fn id(term: u32, index: u64) -> EntryId {
        EntryId {
            index: LogIndex(index),
            term: Term::new(term).unwrap(),
        }
    }

    /// A log of these terms, from index 1 on.
    fn log(terms: &[u32]) -> Tail {
        let mut tail = Tail::restore(EntryId::ZERO, &[], LogIndex::ZERO, 4).unwrap();
        for (&term, index) in terms.iter().zip(1..) {
            tail.push(EntryMeta {
                id: id(term, index),
                kind: EntryKind::Data,
                size: 10,
            });
        }
        tail
    }

    fn terms(tail: &Tail) -> Vec<u32> {
        let first = tail.before().index.0 + 1;
        (first..=tail.last().index.0)
            .map(|index| tail.term_at(LogIndex(index)).unwrap().get())
            .collect()
    }

    fn epochs(of: &[(u32, u64)]) -> Vec<(Term, LogIndex)> {
        of.iter()
            .map(|&(term, first)| (Term::new(term).unwrap(), LogIndex(first)))
            .collect()
    }

    #[test]
    fn every_index_has_its_term() {
        let tail = log(&[1, 1, 3, 3, 3, 4]);
        assert_eq!(terms(&tail), [1, 1, 3, 3, 3, 4]);
        assert_eq!(tail.last(), id(4, 6));
        assert_eq!(tail.term_at(LogIndex(7)), None);
        assert_eq!(tail.term_at(LogIndex(0)), Some(Term::ZERO));
        assert_eq!(tail.first_of_term_at(LogIndex(5)), LogIndex(3));
    }

    #[test]
    fn a_cut_forgets_the_terms_behind_it() {
        for first in 1..=7 {
            let all = [1, 1, 3, 3, 3, 4];
            let mut tail = log(&all);
            tail.cut(LogIndex(first));
            let kept = usize::try_from(first - 1).unwrap();
            assert_eq!(terms(&tail), all[..kept]);
            assert_eq!(tail.last().index, LogIndex(first - 1));
        }
    }

    #[test]
    fn terms_in_a_hole_are_learnt_once_it_is_filled() {
        let all = [1, 1, 3, 3, 3, 4];
        // What a hole over entries 3 and 4 hides.
        let holed = epochs(&[(1, 1), (3, 5), (4, 6)]);
        let mut tail = Tail::restore(EntryId::ZERO, &holed, LogIndex(6), 4).unwrap();
        assert_eq!(terms(&tail), [1, 1, 1, 1, 3, 4]);
        tail.learn_epochs(&epochs(&[(1, 1), (3, 3), (4, 6)]))
            .unwrap();
        assert_eq!(terms(&tail), all);
        let other_end = epochs(&[(1, 1), (3, 3)]);
        assert!(tail.learn_epochs(&other_end).is_err());
        assert_eq!(terms(&tail), all);
    }

    #[test]
    fn the_log_start_trims_the_history() {
        for first in 1..=7 {
            let all = [1, 1, 3, 3, 3, 4];
            let mut tail = log(&all);
            tail.start_at(LogIndex(first));
            let gone = usize::try_from(first - 1).unwrap();
            assert_eq!(terms(&tail), all[gone..]);
            assert_eq!(tail.last(), id(4, 6));
            assert!(tail.epochs.len() <= all[gone..].len());
            assert_eq!(tail.term_at(LogIndex(first - 1)), {
                let before = gone.checked_sub(1).map_or(0, |at| all[at]);
                Term::new(before)
            });
        }
    }

    #[test]
    fn p74_restore_accepts_every_relation_of_start_and_history() {
        let all = [1, 1, 3, 3, 3, 4];
        for start in 0..=6_u64 {
            let before = if start == 0 {
                EntryId::ZERO
            } else {
                id(all[usize::try_from(start - 1).unwrap()], start)
            };
            let whole = epochs(&[(1, 1), (3, 3), (4, 6)]);
            let tail = Tail::restore(before, &whole, LogIndex(6), 4).unwrap();
            assert_eq!(terms(&tail), all[usize::try_from(start).unwrap()..]);
            assert_eq!(tail.last(), id(4, 6));
        }
    }

    #[test]
    fn restore_refuses_what_cannot_be() {
        let refuse = |before, of: &[(u32, u64)], last| {
            assert!(Tail::restore(before, &epochs(of), LogIndex(last), 4).is_err());
        };
        refuse(id(1, 5), &[], 4);
        refuse(EntryId::ZERO, &[], 1);
        refuse(EntryId::ZERO, &[(1, 2)], 3);
        refuse(EntryId::ZERO, &[(2, 1), (1, 2)], 3);
        refuse(EntryId::ZERO, &[(1, 3), (2, 1)], 3);
        refuse(id(3, 4), &[(2, 1)], 6);
    }

    #[test]
    fn only_recent_metas_are_remembered() {
        let tail = log(&[1, 1, 3, 3, 3, 4]);
        assert!(!tail.remembers(LogIndex(2)));
        assert!(tail.remembers(LogIndex(3)));
        assert!(!tail.remembers(LogIndex(7)));
        let from_five: Vec<_> = tail.metas_from(LogIndex(5)).map(|m| m.id).collect();
        assert_eq!(from_five, [id(3, 5), id(4, 6)]);
    }

    #[test]
    fn nothing_is_common_with_a_log_that_differs_where_this_one_starts() {
        let mut tail = log(&[1, 1, 3, 3]);
        tail.start_at(LogIndex(4));
        assert_eq!(tail.last_common(id(1, 3), LogIndex(1)), None);
        assert_eq!(tail.last_common(id(1, 2), LogIndex(1)), None);
        assert_eq!(tail.last_common(id(3, 3), LogIndex(3)), Some(id(3, 3)));
    }

    #[test]
    fn the_last_common_entry_is_never_too_low() {
        // Naive: the last index where both have the same term. The estimate may be higher (it
        // costs a probe) but never lower (it would resend, or cut, what agrees).
        let logs: [&[u32]; 7] = [
            &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
            &[1, 1, 1, 4, 4, 5, 5, 6, 6],
            &[1, 1, 1, 4],
            &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
            &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
            &[1, 1, 1, 4, 4, 4, 4],
            &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        ];
        for ours in logs {
            for theirs in logs {
                let (us, them) = (log(ours), log(theirs));
                let agree = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                let agree = LogIndex(agree as u64);
                let mut at = them.last().index.min(us.last().index);
                for round_trips in 1.. {
                    let id = them.id_at(at).unwrap();
                    let guess = us.last_common(id, them.first_of_term_at(at)).unwrap();
                    assert!(guess.index >= agree, "{ours:?} {theirs:?}");
                    if them.contains(guess) {
                        assert_eq!(guess.index, agree);
                        assert!(round_trips <= 4, "one round trip per term");
                        break;
                    }
                    at = guess.index.min(them.last().index);
                }
            }
        }
    }
}

//! A log's epoch history: where each term begins.

use highwater_record::Offset;

use crate::entry::Epoch;
use crate::ids::{EntryId, LogIndex, Term};

/// Terms and where they begin, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<Epoch>);

impl Epochs {
    pub(crate) fn new(epochs: Vec<Epoch>) -> Epochs {
        Epochs(epochs)
    }

    /// Notes an entry that was appended.
    pub(crate) fn push(&mut self, id: EntryId, base_offset: Offset) {
        let begins = self.0.last().is_none_or(|last| last.term < id.term);
        if begins {
            self.0.push(Epoch {
                term: id.term,
                first_index: id.index,
                first_offset: base_offset,
            });
        }
    }

    /// Puts in where terms begin that were not known, or not so early: in a hole that was filled,
    /// or right behind it.
    pub(crate) fn mend(&mut self, found: &[Epoch]) {
        for epoch in found {
            let at = self.0.partition_point(|known| known.term < epoch.term);
            match self.0.get_mut(at).filter(|known| known.term == epoch.term) {
                Some(known) if known.first_index >= epoch.first_index => *known = *epoch,
                Some(_) => {}
                None => self.0.insert(at, *epoch),
            }
        }
    }

    /// Forgets what begins at or behind `first`.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        while self.0.last().is_some_and(|last| last.first_index >= first) {
            self.0.pop();
        }
    }

    /// Forgets terms whose entries all lie before `first`, but for the last of them: the term of
    /// the entry before `first` stays known.
    pub(crate) fn forget_before(&mut self, first: LogIndex) {
        let begun = self.0.partition_point(|epoch| epoch.first_index < first);
        self.0.drain(..begun.saturating_sub(1));
    }

    /// The term of an entry, if it is known.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        let begun = self.0.partition_point(|epoch| epoch.first_index <= index);
        Some(self.0[..begun].last()?.term)
    }

    /// The largest term at or below `term`, and the offset where the next one begins, or `end`.
    pub(crate) fn end_of(&self, term: Term, end: Offset) -> Option<(Term, Offset)> {
        let begun = self.0.partition_point(|epoch| epoch.term <= term);
        let found = self.0[..begun].last()?;
        let next = self.0.get(begun).map_or(end, |epoch| epoch.first_offset);
        Some((found.term, next))
    }

    /// Those that begin before `first`.
    pub(crate) fn before(&self, first: LogIndex) -> &[Epoch] {
        let begun = self.0.partition_point(|epoch| epoch.first_index < first);
        &self.0[..begun]
    }

    pub(crate) fn as_slice(&self) -> &[Epoch] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Epochs {
        let mut epochs = Epochs::default();
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4), (5, 6)] {
            let id = EntryId {
                index: LogIndex(index),
                term: Term(term),
            };
            epochs.push(id, Offset(index * 10));
        }
        epochs
    }

    #[test]
    fn terms_are_found_by_index() {
        let terms: Vec<Option<Term>> = (0..7).map(|i| sample().term_at(LogIndex(i))).collect();
        let expected = [None, Some(1), Some(1), Some(4), Some(4), Some(6), Some(6)];
        assert_eq!(terms, expected.map(|term| term.map(Term)));
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let end = |term| sample().end_of(Term(term), Offset(99));
        assert_eq!(end(0), None);
        assert_eq!(end(1), Some((Term(1), Offset(30))));
        assert_eq!(end(3), Some((Term(1), Offset(30))));
        assert_eq!(end(5), Some((Term(4), Offset(50))));
        assert_eq!(end(9), Some((Term(6), Offset(99))));
    }

    #[test]
    fn terms_of_a_hole_that_was_filled_are_put_in() {
        let mut holed = Epochs(
            sample()
                .0
                .into_iter()
                .filter(|it| it.term != Term(4))
                .collect(),
        );
        holed.0[1].first_index = LogIndex(6);
        let found = &sample().0[1..];
        holed.mend(found);
        assert_eq!(holed, sample());
        holed.mend(found);
        assert_eq!(holed, sample());
    }

    #[test]
    fn cutting_and_forgetting() {
        let mut epochs = sample();
        epochs.cut(LogIndex(5));
        assert_eq!(epochs.as_slice().len(), 2);
        epochs.forget_before(LogIndex(4));
        assert_eq!(epochs.as_slice().len(), 1);
        assert_eq!(epochs.term_at(LogIndex(4)), Some(Term(4)));
        assert_eq!(sample().before(LogIndex(3)).len(), 1);
    }
}

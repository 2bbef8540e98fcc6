//! The ends of the entries that may yet be cut: what a `cut` must know of the entry before it.

use std::collections::VecDeque;

use highwater_record::Offset;

use crate::entry::Position;
use crate::ids::{Chain, EntryId, LogIndex, Term};

/// The place behind each entry from some index on: at run time from the commit index, after a
/// restart from the first entry that no footer covers.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    base: Position,
    marks: VecDeque<(Term, Chain, Offset)>,
}

impl Marks {
    pub(crate) const fn new(base: Position) -> Marks {
        Marks {
            base,
            marks: VecDeque::new(),
        }
    }

    /// Notes the next entry's end.
    pub(crate) fn push(&mut self, position: &Position) {
        assert_eq!(
            position.before.index,
            self.last_index().next(),
            "marks are contiguous"
        );
        let mark = (position.before.term, position.chain, position.offset);
        self.marks.push_back(mark);
    }

    /// The place behind an entry, if it is still known.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.before.index {
            return Some(self.base);
        }
        let nth = index
            .0
            .checked_sub(self.base.before.index.0)?
            .checked_sub(1)?;
        let &(term, chain, offset) = self.marks.get(usize::try_from(nth).ok()?)?;
        Some(Position {
            before: EntryId { index, term },
            chain,
            offset,
        })
    }

    /// Forgets entries from `first` on.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        while self.last_index() >= first && self.marks.pop_back().is_some() {}
    }

    /// Forgets entries below `index`: they are never cut.
    pub(crate) fn forget_below(&mut self, index: LogIndex) {
        while self.base.before.index < index {
            let Some((term, chain, offset)) = self.marks.pop_front() else {
                return;
            };
            self.base = Position {
                before: EntryId {
                    index: self.base.before.index.next(),
                    term,
                },
                chain,
                offset,
            };
        }
    }

    fn last_index(&self) -> LogIndex {
        let count = u64::try_from(self.marks.len()).expect("a count fits into 64 bits");
        self.base.before.index.advance(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(index: u64) -> Position {
        Position {
            before: EntryId {
                index: LogIndex(index),
                term: Term(1),
            },
            chain: Chain(index),
            offset: Offset(index),
        }
    }

    fn sample() -> Marks {
        let mut marks = Marks::new(position(3));
        for index in 4..=8 {
            marks.push(&position(index));
        }
        marks
    }

    #[test]
    fn known_entries_are_found() {
        assert_eq!(sample().at(LogIndex(2)), None);
        for index in 3..=8 {
            assert_eq!(sample().at(LogIndex(index)), Some(position(index)));
        }
        assert_eq!(sample().at(LogIndex(9)), None);
    }

    #[test]
    fn cutting_and_forgetting() {
        let mut marks = sample();
        marks.cut(LogIndex(7));
        assert_eq!(marks.at(LogIndex(6)), Some(position(6)));
        assert_eq!(marks.at(LogIndex(7)), None);
        marks.forget_below(LogIndex(5));
        assert_eq!(marks.at(LogIndex(4)), None);
        assert_eq!(marks.at(LogIndex(5)), Some(position(5)));
        marks.forget_below(LogIndex(99));
        assert_eq!(marks.at(LogIndex(6)), Some(position(6)));
        marks.push(&position(7));
    }
}

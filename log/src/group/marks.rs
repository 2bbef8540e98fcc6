//! The ends of the entries that may yet be cut: what a `cut` must know of the entry before it.

use std::collections::VecDeque;

use highwater_record::Offset;

use crate::entry::Position;
use crate::ids::{Chain, EntryId, LogIndex, Term};

/// The place behind each entry from some index on: at run time from the commit index, after a
/// restart from the first entry that no footer covers. Nothing is known of what a hole lacks until
/// that is filled.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// Ascending, and at least one: they end where holes begin, and begin where holes end.
    runs: Vec<Run>,
}

/// Entries without a hole among them.
#[derive(Debug, Clone)]
struct Run {
    base: Position,
    marks: VecDeque<(Term, Chain, Offset)>,
}

impl Marks {
    pub(crate) fn new(base: Position) -> Marks {
        Marks {
            runs: vec![Run::new(base)],
        }
    }

    /// Notes the next entry's end.
    pub(crate) fn push(&mut self, position: &Position) {
        self.last_mut().push(position);
    }

    /// Goes on behind a hole.
    pub(crate) fn skip_to(&mut self, position: &Position) {
        assert!(
            position.before.index > self.last_mut().last_index(),
            "a hole lacks something"
        );
        self.runs.push(Run::new(*position));
    }

    /// What a hole lacked is there, one behind the other from `before` on.
    pub(crate) fn fill(&mut self, before: &Position, filled: &[Position]) {
        let Some(at) = self.run_at(before.before.index) else {
            // What was forgotten is never cut.
            return;
        };
        let mut at = at;
        if self.runs[at].last_index() < before.before.index {
            at += 1;
            self.runs.insert(at, Run::new(*before));
        }
        let behind = self.runs.split_off(at + 1);
        let run = self.last_mut();
        filled.iter().for_each(|position| run.extend(position));
        for next in behind {
            let run = self.last_mut();
            if next.base.before.index <= run.last_index().next() {
                next.positions().for_each(|position| run.extend(&position));
            } else {
                self.runs.push(next);
            }
        }
    }

    /// The place behind an entry, if it is still known.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Position> {
        self.runs[self.run_at(index)?].at(index)
    }

    /// Forgets entries from `first` on.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        while self.runs.len() > 1 && self.last_mut().base.before.index >= first {
            self.runs.pop();
        }
        self.last_mut().cut(first);
    }

    /// Forgets entries below `index`: they are never cut.
    pub(crate) fn forget_below(&mut self, index: LogIndex) {
        let begun = self.run_at(index).unwrap_or(0);
        self.runs.drain(..begun);
        self.runs[0].forget_below(index);
    }

    /// The run that holds an entry, or ends before it.
    fn run_at(&self, index: LogIndex) -> Option<usize> {
        let begun = self
            .runs
            .partition_point(|run| run.base.before.index <= index);
        begun.checked_sub(1)
    }

    fn last_mut(&mut self) -> &mut Run {
        self.runs.last_mut().expect("there is at least one")
    }
}

impl Run {
    const fn new(base: Position) -> Run {
        Run {
            base,
            marks: VecDeque::new(),
        }
    }

    fn push(&mut self, position: &Position) {
        assert_eq!(
            position.before.index,
            self.last_index().next(),
            "marks are contiguous"
        );
        let mark = (position.before.term, position.chain, position.offset);
        self.marks.push_back(mark);
    }

    /// Takes the next entry's end, unless it is known already.
    fn extend(&mut self, position: &Position) {
        if position.before.index > self.last_index() {
            self.push(position);
        }
    }

    fn at(&self, index: LogIndex) -> Option<Position> {
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

    fn positions(&self) -> impl Iterator<Item = Position> {
        let (first, last) = (self.base.before.index.0, self.last_index().0);
        (first..=last).filter_map(|index| self.at(LogIndex(index)))
    }

    fn cut(&mut self, first: LogIndex) {
        while self.last_index() >= first && self.marks.pop_back().is_some() {}
    }

    fn forget_below(&mut self, index: LogIndex) {
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

    /// Entries 4 to 6 and 9 to 11 behind entry 3; 7 and 8 are in a hole, and 8 ends where the file
    /// behind it begins.
    fn holed() -> Marks {
        let mut marks = Marks::new(position(3));
        (4..=6).for_each(|index| marks.push(&position(index)));
        marks.skip_to(&position(8));
        (9..=11).for_each(|index| marks.push(&position(index)));
        marks
    }

    fn known(marks: &Marks) -> Vec<u64> {
        let known = |&index: &u64| marks.at(LogIndex(index)) == Some(position(index));
        (0..20).filter(known).collect()
    }

    #[test]
    fn both_sides_of_a_hole_are_known() {
        assert_eq!(known(&holed()), [3, 4, 5, 6, 8, 9, 10, 11]);
        for (first, left) in [
            (10, vec![3, 4, 5, 6, 8, 9]),
            (9, vec![3, 4, 5, 6, 8]),
            (7, vec![3, 4, 5, 6]),
            (5, vec![3, 4]),
        ] {
            let mut marks = holed();
            marks.cut(LogIndex(first));
            assert_eq!(known(&marks), left, "from {first} on");
            marks.push(&position(first));
        }
        for (index, left) in [
            (5, vec![5, 6, 8, 9, 10, 11]),
            (7, vec![6, 8, 9, 10, 11]),
            (8, vec![8, 9, 10, 11]),
            (10, vec![10, 11]),
        ] {
            let mut marks = holed();
            marks.forget_below(LogIndex(index));
            assert_eq!(known(&marks), left, "below {index}");
        }
    }

    #[test]
    fn what_fills_a_hole_is_known() {
        let all = [3, 4, 5, 6, 7, 8, 9, 10, 11];
        let mut marks = holed();
        marks.fill(&position(6), &[position(7), position(8)]);
        assert_eq!(known(&marks), all);
        assert_eq!(marks.runs.len(), 1, "nothing is left of the hole");
        marks.push(&position(12));
        marks.fill(&position(6), &[position(7), position(8)]);
        assert_eq!(known(&marks).len(), all.len() + 1, "twice is as once");
        let mut marks = holed();
        marks.skip_to(&position(15));
        marks.fill(&position(12), &[position(13), position(14)]);
        assert_eq!(known(&marks), [3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        let mut marks = holed();
        marks.forget_below(LogIndex(9));
        marks.fill(&position(6), &[position(7), position(8)]);
        assert_eq!(
            known(&marks),
            [9, 10, 11],
            "what is committed is not needed"
        );
    }
}

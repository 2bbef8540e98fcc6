//! The hard-state journal on an abstract disk: two copies of two halves, units that are whole,
//! torn or rotten.

/// Units that a half holds: a checkpoint and so many updates but one.
pub(super) const HALF_UNITS: u8 = 2;

/// Two copies, each of two halves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Journal {
    pub(super) copies: [[Vec<Slot>; 2]; 2],
}

/// Where a unit was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    Good(Unit),
    Bad,
}

/// One write. A checkpoint has number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Unit {
    pub(super) generation: u8,
    pub(super) number: u8,
    pub(super) record: Record,
}

/// The state of the one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Record {
    /// Term and vote, as one number that only grows.
    pub(super) promise: u8,
    /// File and index through which the log is synced.
    pub(super) position: Option<(u8, u8)>,
    /// The group is quarantined to its end and has not rejoined.
    pub(super) no_vote: bool,
}

/// What is left of a unit in flight, in one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Left {
    Nothing,
    Torn,
    Whole,
}

impl Unit {
    /// The unit to write behind this one.
    pub(super) fn next(&self, record: Record) -> Unit {
        if self.number + 1 < HALF_UNITS {
            Unit {
                number: self.number + 1,
                record,
                ..*self
            }
        } else {
            self.checkpoint(record)
        }
    }

    /// The checkpoint that goes to the other half.
    pub(super) fn checkpoint(&self, record: Record) -> Unit {
        Unit {
            generation: self.generation + 1,
            number: 0,
            record,
        }
    }

    fn half(&self) -> usize {
        usize::from(self.generation % 2)
    }
}

impl Journal {
    /// As `init` leaves it.
    pub(super) fn new() -> (Journal, Unit) {
        let first = Unit {
            generation: 0,
            number: 0,
            record: Record {
                promise: 0,
                position: None,
                no_vote: false,
            },
        };
        let copy = [vec![Slot::Good(first)], Vec::new()];
        let journal = Journal {
            copies: [copy.clone(), copy],
        };
        (journal, first)
    }

    /// The last unit that holds; nothing if promises are lost.
    pub(super) fn read(&self) -> Option<Unit> {
        let halves = self.copies.iter().flatten();
        let first = halves
            .filter_map(|half| match half.first() {
                Some(Slot::Good(unit)) if unit.number == 0 => Some(*unit),
                _ => None,
            })
            .max_by_key(|unit| unit.generation)?;
        let good = |number: u8| {
            let slots = self
                .copies
                .iter()
                .filter_map(|copy| copy[first.half()].get(usize::from(number)));
            slots.into_iter().find_map(|slot| match slot {
                Slot::Good(unit) if unit.generation == first.generation => Some(*unit),
                _ => None,
            })
        };
        let mut last = first;
        for number in 1..HALF_UNITS {
            match good(number) {
                Some(unit) => last = unit,
                None if (number + 1..HALF_UNITS).any(|later| good(later).is_some()) => return None,
                None => break,
            }
        }
        Some(last)
    }

    pub(super) fn write(&mut self, unit: &Unit, left: [Left; 2]) {
        for (copy, left) in self.copies.iter_mut().zip(left) {
            let slot = match left {
                Left::Nothing => continue,
                Left::Torn => Slot::Bad,
                Left::Whole => Slot::Good(*unit),
            };
            let half = &mut copy[unit.half()];
            // What lies behind is of an older generation and never read again.
            half.truncate(usize::from(unit.number));
            while half.len() < usize::from(unit.number) {
                half.push(Slot::Bad);
            }
            half.push(slot);
        }
    }

    /// The units that hold, through `last`, good in both copies. What is good already is
    /// rewritten unchanged, if at all.
    pub(super) fn mirrored(&self, last: &Unit) -> Journal {
        let mut journal = self.clone();
        for copy in 0..2 {
            journal.mirror(copy, last, |good| good);
        }
        journal
    }

    /// Every journal that a crash may leave of [`mirrored`](Journal::mirrored).
    pub(super) fn half_mirrored(&self, last: &Unit) -> Vec<Journal> {
        let mut journals = vec![self.clone()];
        for copy in 0..2 {
            for journal in journals.clone() {
                for torn in [true, false] {
                    let mut left = journal.clone();
                    left.mirror(copy, last, |good| if torn { Slot::Bad } else { good });
                    journals.push(left);
                }
            }
        }
        journals
    }

    /// Writes to a copy what it lacks, as `leaves` leaves it.
    fn mirror(&mut self, copy: usize, last: &Unit, leaves: impl Fn(Slot) -> Slot) {
        let merged = self.merged(last);
        let half = &mut self.copies[copy][last.half()];
        half.resize(half.len().max(merged.len()), Slot::Bad);
        for (slot, good) in half.iter_mut().zip(merged) {
            if *slot != good {
                *slot = leaves(good);
            }
        }
    }

    fn merged(&self, last: &Unit) -> Vec<Slot> {
        let good = |number: u8| {
            let copies = self.copies.iter();
            let mut slots =
                copies.filter_map(|copy| copy[last.half()].get(usize::from(number)).copied());
            let good = slots.find(|slot| match slot {
                Slot::Good(unit) => unit.generation == last.generation,
                Slot::Bad => false,
            });
            good.expect("each unit up to the last is good in a copy")
        };
        (0..=last.number).map(good).collect()
    }

    /// Every journal that rot may leave: one unit of one copy, or a whole copy.
    pub(super) fn rots(&self) -> Vec<Journal> {
        let mut rots = Vec::new();
        for copy in 0..2 {
            for half in 0..2 {
                for at in 0..self.copies[copy][half].len() {
                    let mut rotten = self.clone();
                    rotten.copies[copy][half][at] = Slot::Bad;
                    rots.push(rotten);
                }
            }
            let mut rotten = self.clone();
            for half in &mut rotten.copies[copy] {
                half.iter_mut().for_each(|slot| *slot = Slot::Bad);
            }
            rots.push(rotten);
        }
        rots
    }
}

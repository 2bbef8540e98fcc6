//! What a journal's two copies say together (docs/format.md, The hard-state journal).
//!
//! A unit that is whole in one copy counts: either the other copy was being written when the
//! node died, and the promise in it was never acted on, or it was damaged later. A unit that is
//! bad in both copies and followed by good ones means that promises are lost.

use std::collections::BTreeMap;

use crate::format::FormatFault;
use crate::format::journal::{GroupRecord, Unit};
use crate::ids::{GroupId, Incarnation};

/// What is to be read: the bytes of each copy (empty if the file is missing), and whose they
/// must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copies<'a> {
    pub(crate) shard: u32,
    pub(crate) incarnation: Incarnation,
    /// What units start at multiples of, in bytes.
    pub(crate) align: usize,
    pub(crate) bytes: [&'a [u8]; 2],
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalImage {
    /// Each group's last record.
    pub(crate) records: BTreeMap<GroupId, GroupRecord>,
    /// The generation whose half must not be overwritten next; nothing if no checkpoint is
    /// good.
    pub(crate) current: Option<u64>,
    /// The highest generation that any unit names.
    pub(crate) highest: u64,
    /// Whether promises are lost.
    pub(crate) lost: bool,
    /// Units that are bad in one copy, and where.
    pub(crate) bad_copies: Vec<BadUnit>,
    /// Where a unit is bad in both copies though good ones follow.
    pub(crate) lost_at: Option<u64>,
}

/// A unit that is bad in one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadUnit {
    /// Which copy.
    pub(crate) copy: usize,
    /// Where it starts.
    pub(crate) offset: u64,
    /// How long it is, in the other copy.
    pub(crate) len: usize,
    /// Whether it is the last unit: then it may just have been written when the node died.
    pub(crate) last: bool,
}

/// Reads both copies.
///
/// # Errors
///
/// [`FormatFault::Newer`] if any unit was written by a newer program.
pub(crate) fn read(copies: &Copies<'_>) -> Result<JournalImage, FormatFault> {
    let mut reader = Reader {
        copies,
        half: half_len(copies),
        image: JournalImage {
            records: BTreeMap::new(),
            current: None,
            highest: 0,
            lost: false,
            bad_copies: Vec::new(),
            lost_at: None,
        },
    };
    reader.read()?;
    Ok(reader.image)
}

/// The length of a half: a missing or shortened copy does not change what the other says.
fn half_len(copies: &Copies<'_>) -> usize {
    copies.bytes[0].len().max(copies.bytes[1].len()) / 2
}

struct Reader<'a> {
    copies: &'a Copies<'a>,
    half: usize,
    image: JournalImage,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), FormatFault> {
        let starts = [self.checkpoint(0)?, self.checkpoint(1)?];
        let current = starts
            .iter()
            .flatten()
            .max_by_key(|unit| unit.header.generation);
        if let Some(checkpoint) = current {
            let generation = checkpoint.header.generation;
            self.image.current = Some(generation);
            self.image.lost |= checkpoint.header.promises_lost;
            self.follow(checkpoint)?;
        }
        self.search_newer_generations()
    }

    /// The checkpoint at the front of a half: the newer one, if a crash has left an older one in
    /// one of the copies.
    fn checkpoint(&mut self, half: usize) -> Result<Option<Unit>, FormatFault> {
        let at = half * self.half;
        let belongs = |unit: &Unit| unit.header.checkpoint && generation_half(unit) == half;
        let units = self.both(at, belongs)?.into_iter().flatten();
        Ok(units.max_by_key(|unit| match unit.header.generation {
            _ if mutant!(EitherCheckpointHolds) => 0,
            generation => generation,
        }))
    }

    /// Applies a checkpoint and the units behind it.
    fn follow(&mut self, checkpoint: &Unit) -> Result<(), FormatFault> {
        let generation = checkpoint.header.generation;
        let start = generation_half(checkpoint) * self.half;
        let mut at = start;
        let mut previous: Option<Unit> = None;
        let mut last_at = start;
        loop {
            let continues = |unit: &Unit| {
                unit.header.generation == generation && continues(unit, previous.as_ref())
            };
            let units = self.both(at, continues)?;
            let bad = [units[0].is_none(), units[1].is_none()];
            let [a, b] = units;
            let Some(unit) = a.or(b) else { break };
            self.image
                .bad_copies
                .extend((0..2).filter(|&copy| bad[copy]).map(|copy| BadUnit {
                    copy,
                    offset: offset_of(at),
                    len: unit.len,
                    last: false,
                }));
            last_at = at;
            self.apply(&unit);
            at += unit.len;
            previous = Some(unit);
        }
        for unit in &mut self.image.bad_copies {
            unit.last = unit.offset == offset_of(last_at);
        }
        self.search_behind(at, start + self.half, generation)
    }

    /// Looks for units of the same generation behind one that is bad in both copies.
    fn search_behind(
        &mut self,
        from: usize,
        to: usize,
        generation: u64,
    ) -> Result<(), FormatFault> {
        for at in (from..to).step_by(self.copies.align) {
            let same = |unit: &Unit| unit.header.generation == generation;
            for unit in self.both(at, same)?.into_iter().flatten() {
                self.image.lost = true;
                self.image.lost_at.get_or_insert(offset_of(from));
                self.apply(&unit);
            }
        }
        Ok(())
    }

    /// Units of a generation whose checkpoint is bad in both copies: it was completed, since
    /// they follow it.
    fn search_newer_generations(&mut self) -> Result<(), FormatFault> {
        for half in 0..2 {
            let start = half * self.half;
            for at in (start..start + self.half).step_by(self.copies.align) {
                for unit in self
                    .both(at, |unit| generation_half(unit) == half)?
                    .into_iter()
                    .flatten()
                {
                    let generation = unit.header.generation;
                    self.image.highest = self.image.highest.max(generation);
                    if self
                        .image
                        .current
                        .is_none_or(|current| generation > current)
                    {
                        self.image.lost = true;
                        self.image.lost_at.get_or_insert(offset_of(start));
                        self.apply(&unit);
                    }
                }
            }
        }
        Ok(())
    }

    /// The unit at `at` in each copy, if it is good and `belongs`.
    fn both(
        &self,
        at: usize,
        belongs: impl Fn(&Unit) -> bool,
    ) -> Result<[Option<Unit>; 2], FormatFault> {
        let read = |copy: usize| self.unit(copy, at, &belongs);
        Ok([read(0)?, read(1)?])
    }

    fn unit(
        &self,
        copy: usize,
        at: usize,
        belongs: &impl Fn(&Unit) -> bool,
    ) -> Result<Option<Unit>, FormatFault> {
        let half_end = (at / self.half.max(1) + 1) * self.half;
        let bytes = self.copies.bytes[copy];
        let Some(bytes) = bytes.get(at..half_end.min(bytes.len())) else {
            return Ok(None);
        };
        let unit = match Unit::decode(bytes) {
            Ok(unit) => unit,
            Err(FormatFault::Bad) => return Ok(None),
            Err(newer) => return Err(newer),
        };
        let ours = unit.header.shard == self.copies.shard
            && unit.header.incarnation == self.copies.incarnation;
        Ok((ours && belongs(&unit)).then_some(unit))
    }

    fn apply(&mut self, unit: &Unit) {
        self.image.highest = self.image.highest.max(unit.header.generation);
        for record in &unit.records {
            keep_newest(&mut self.image.records, record);
        }
    }
}

/// Keeps a group's record with the highest sequence.
pub(crate) fn keep_newest(records: &mut BTreeMap<GroupId, GroupRecord>, record: &GroupRecord) {
    let known = records.entry(record.group).or_insert(*record);
    if record.sequence > known.sequence {
        *known = *record;
    }
}

/// Which half a generation lies in.
pub(crate) fn half_of(generation: u64) -> usize {
    usize::from(generation % 2 == 1)
}

fn generation_half(unit: &Unit) -> usize {
    half_of(unit.header.generation)
}

fn continues(unit: &Unit, previous: Option<&Unit>) -> bool {
    match previous {
        None => unit.header.checkpoint,
        Some(previous) => {
            unit.header.number == previous.header.number + 1
                && unit.header.previous_crc == previous.crc
        }
    }
}

fn offset_of(at: usize) -> u64 {
    u64::try_from(at).expect("an offset in memory fits into 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::HardState;
    use crate::format::journal::UnitHeader;
    use crate::ids::Term;

    const ALIGN: usize = 512;
    const HALF: usize = 8 * ALIGN;
    const INCARNATION: Incarnation = Incarnation([7; 16]);

    fn record(group: u64, sequence: u64) -> GroupRecord {
        GroupRecord {
            group: GroupId(group),
            sequence,
            hard: HardState {
                term: Term(u32::try_from(sequence).unwrap()),
                vote: None,
            },
            position: None,
            quarantine: None,
            dropped: false,
        }
    }

    /// A journal being written: units of one record, all of one block.
    struct Written {
        copies: [Vec<u8>; 2],
        generation: u64,
        number: u64,
        previous_crc: u32,
    }

    impl Written {
        fn new() -> Written {
            Written {
                copies: [vec![0; 2 * HALF], vec![0; 2 * HALF]],
                generation: 0,
                number: 0,
                previous_crc: 0,
            }
        }

        fn checkpoint(&mut self, records: &[GroupRecord]) {
            self.generation += 1;
            self.number = 0;
            self.previous_crc = 0;
            self.write(records);
        }

        fn update(&mut self, record: GroupRecord) {
            self.number += 1;
            self.write(&[record]);
        }

        fn write(&mut self, records: &[GroupRecord]) {
            let header = UnitHeader {
                checkpoint: self.number == 0,
                promises_lost: false,
                shard: 0,
                incarnation: INCARNATION,
                generation: self.generation,
                number: self.number,
                previous_crc: self.previous_crc,
            };
            let bytes = Unit::encode(&header, records, ALIGN);
            assert_eq!(bytes.len(), ALIGN, "tests use units of one block");
            self.previous_crc = u32::from_le_bytes(*bytes.first_chunk().unwrap());
            let at = self.at(self.number);
            for copy in &mut self.copies {
                copy[at..at + ALIGN].copy_from_slice(&bytes);
            }
        }

        fn at(&self, number: u64) -> usize {
            half_of(self.generation) * HALF + usize::try_from(number).unwrap() * ALIGN
        }

        fn damage(&mut self, copy: usize, number: u64) {
            let at = self.at(number);
            self.copies[copy][at + 70] ^= 1;
        }

        fn read(&self) -> JournalImage {
            read(&Copies {
                shard: 0,
                incarnation: INCARNATION,
                align: ALIGN,
                bytes: [&self.copies[0], &self.copies[1]],
            })
            .unwrap()
        }

        fn sequence(&self, group: u64) -> Option<u64> {
            let image = self.read();
            image
                .records
                .get(&GroupId(group))
                .map(|found| found.sequence)
        }
    }

    fn three_units() -> Written {
        let mut journal = Written::new();
        journal.checkpoint(&[record(1, 1), record(2, 1)]);
        journal.update(record(1, 2));
        journal.update(record(1, 3));
        journal
    }

    #[test]
    fn an_empty_journal_says_nothing() {
        let image = Written::new().read();
        assert_eq!(image.current, None);
        assert!(!image.lost);
        assert!(image.records.is_empty());
    }

    #[test]
    fn the_last_record_of_a_group_holds() {
        let journal = three_units();
        assert_eq!(journal.sequence(1), Some(3));
        assert_eq!(journal.sequence(2), Some(1));
        assert_eq!(journal.read().current, Some(1));
    }

    #[test]
    fn a_unit_that_is_bad_in_one_copy_costs_nothing() {
        for number in 0..3 {
            for copy in 0..2 {
                let mut journal = three_units();
                journal.damage(copy, number);
                let image = journal.read();
                assert_eq!(image.records[&GroupId(1)].sequence, 3);
                assert!(!image.lost);
                let bad = BadUnit {
                    copy,
                    offset: offset_of(journal.at(number)),
                    len: ALIGN,
                    last: number == 2,
                };
                assert_eq!(image.bad_copies, [bad]);
            }
        }
    }

    #[test]
    fn different_units_may_be_bad_in_either_copy() {
        let mut journal = three_units();
        journal.damage(0, 0);
        journal.damage(1, 1);
        let image = journal.read();
        assert_eq!(image.records[&GroupId(1)].sequence, 3);
        assert!(!image.lost);
        assert_eq!(image.bad_copies.len(), 2);
    }

    #[test]
    fn the_last_unit_bad_in_both_copies_is_torn() {
        let mut journal = three_units();
        journal.damage(0, 2);
        journal.damage(1, 2);
        let image = journal.read();
        assert_eq!(image.records[&GroupId(1)].sequence, 2);
        assert!(!image.lost);
    }

    #[test]
    fn a_unit_bad_in_both_copies_with_good_ones_behind_means_lost_promises() {
        let mut journal = three_units();
        journal.damage(0, 1);
        journal.damage(1, 1);
        let image = journal.read();
        assert!(image.lost);
        assert_eq!(image.lost_at, Some(offset_of(journal.at(1))));
        assert_eq!(
            image.records[&GroupId(1)].sequence,
            3,
            "what is known is kept"
        );
    }

    #[test]
    fn a_checkpoint_bad_in_both_copies_with_good_ones_behind_means_lost_promises() {
        let mut journal = three_units();
        journal.damage(0, 0);
        journal.damage(1, 0);
        assert!(journal.read().lost);
        // Also if the half before it is whole.
        let mut second = three_units();
        second.checkpoint(&[record(1, 4)]);
        second.update(record(1, 5));
        second.damage(0, 0);
        second.damage(1, 0);
        let image = second.read();
        assert!(image.lost);
        assert_eq!(image.highest, 2);
    }

    #[test]
    fn a_torn_checkpoint_leaves_the_half_before_it() {
        let mut journal = three_units();
        journal.checkpoint(&[record(1, 9)]);
        journal.damage(0, 0);
        journal.damage(1, 0);
        let image = journal.read();
        assert_eq!(image.current, Some(1));
        assert!(!image.lost);
        assert_eq!(image.records[&GroupId(1)].sequence, 3);
    }

    #[test]
    fn a_checkpoint_in_one_copy_holds() {
        let mut journal = three_units();
        journal.checkpoint(&[record(1, 9)]);
        journal.damage(0, 0);
        let image = journal.read();
        assert_eq!(image.current, Some(2));
        assert_eq!(image.records[&GroupId(1)].sequence, 9);
        assert!(
            !image.records.contains_key(&GroupId(2)),
            "it stands for all"
        );
    }

    /// Found by the crash images: a power cut while a checkpoint is written may leave it in one
    /// copy, and in the other one the whole checkpoint that it was to replace.
    #[test]
    fn the_newer_of_two_checkpoints_holds_in_whichever_copy_it_is() {
        for copy in 0..2 {
            let mut journal = three_units();
            journal.checkpoint(&[record(1, 4)]);
            let before = journal.copies.clone();
            journal.checkpoint(&[record(1, 5)]);
            journal.copies[1 - copy].clone_from(&before[1 - copy]);
            let image = journal.read();
            assert!(!image.lost, "copy {copy}");
            assert_eq!(image.current, Some(3), "copy {copy}");
            assert_eq!(image.records[&GroupId(1)].sequence, 5, "copy {copy}");
        }
    }

    #[test]
    fn units_of_an_older_generation_are_not_found_again() {
        let mut journal = three_units();
        journal.checkpoint(&[record(1, 4)]);
        journal.checkpoint(&[record(1, 5)]);
        // Behind generation 3's checkpoint lie units of generation 1.
        let image = journal.read();
        assert!(!image.lost);
        assert_eq!(image.records[&GroupId(1)].sequence, 5);
    }

    #[test]
    fn a_missing_or_shortened_copy_costs_nothing() {
        let mut journal = three_units();
        journal.copies[0].clear();
        assert_eq!(journal.sequence(1), Some(3));
        assert!(!journal.read().lost);
        journal.copies[0] = journal.copies[1][..ALIGN].to_vec();
        assert_eq!(journal.sequence(1), Some(3));
    }

    #[test]
    fn another_directorys_journal_is_not_read() {
        let journal = three_units();
        let image = read(&Copies {
            shard: 0,
            incarnation: Incarnation([8; 16]),
            align: ALIGN,
            bytes: [&journal.copies[0], &journal.copies[1]],
        })
        .unwrap();
        assert!(image.records.is_empty());
    }

    #[test]
    fn every_garbled_byte_is_survived() {
        let journal = three_units();
        for at in (0..2 * HALF).step_by(37) {
            let mut garbled = three_units();
            garbled.copies[0][at] ^= 0xa5;
            garbled.copies[1].clone_from(&journal.copies[1]);
            let image = garbled.read();
            assert_eq!(image.records[&GroupId(1)].sequence, 3);
            assert!(!image.lost, "byte {at}");
        }
    }
}

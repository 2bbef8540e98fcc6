//! The hard-state journal: promises, synced positions and quarantine, mirrored in two files of
//! two halves (docs/format.md).

pub(crate) mod image;

use std::collections::{BTreeMap, BTreeSet};

use highwater_record::Buffer;

use crate::directory::JournalState;
use crate::format::journal::{GroupRecord, Unit, UnitHeader};
use crate::ids::{GroupId, Incarnation, WriteId};
use crate::storage::FileId;
use image::half_of;

/// How many records one update gathers at most; what is more goes with the next.
const UPDATE_RECORDS_MAX: usize = 4_096;

/// A shard's journal, as it is written.
#[derive(Debug)]
pub(crate) struct Journal {
    shard: u32,
    incarnation: Incarnation,
    align: usize,
    half_bytes: u64,
    promises_lost: bool,
    pub(crate) files: [FileId; 2],
    generation: u64,
    number: u64,
    previous_crc: u32,
    /// Where in its half the next unit goes.
    position: u64,
    /// Groups whose record is to be written, and through which of their writes.
    pending: BTreeMap<GroupId, Option<WriteId>>,
    in_flight: Option<InFlight>,
    /// Records of groups that other shards own, and of groups that were removed while something
    /// is left of them: they stay in this journal's checkpoints, so that no shard's checkpoint
    /// takes another's promise away, nor what says that the rest of a group may go.
    foreign: Vec<GroupRecord>,
    /// Own groups of which another journal may hold an older record.
    elsewhere: BTreeSet<GroupId>,
}

#[derive(Debug)]
struct InFlight {
    written: Vec<(GroupId, Option<WriteId>)>,
    copies_left: usize,
    data: Buffer,
    offset: u64,
}

/// A unit to be written to both copies.
#[derive(Debug, Clone)]
pub(crate) struct UnitWrite {
    pub(crate) offset: u64,
    pub(crate) data: Buffer,
}

/// What the journal is opened with.
#[derive(Debug, Clone)]
pub(crate) struct JournalOf {
    pub(crate) shard: u32,
    pub(crate) incarnation: Incarnation,
    pub(crate) align: usize,
    pub(crate) promises_lost: bool,
    pub(crate) state: JournalState,
    /// Records of groups that are not its own, which its checkpoints keep.
    pub(crate) foreign: Vec<GroupRecord>,
    /// Own groups of which another journal may hold an older record.
    pub(crate) elsewhere: BTreeSet<GroupId>,
}

impl Journal {
    /// A journal that goes on behind what recovery found.
    pub(crate) fn new(of: JournalOf, files: [FileId; 2]) -> Journal {
        let mut generation = of.state.highest.max(of.state.current.unwrap_or(0));
        let current_half = of.state.current.map(half_of);
        if current_half.is_some_and(|current| half_of(generation + 1) == current) {
            // The next checkpoint must not overwrite the half that holds.
            generation += 1;
        }
        Journal {
            shard: of.shard,
            incarnation: of.incarnation,
            align: of.align,
            half_bytes: of.state.half_bytes,
            promises_lost: of.promises_lost,
            files,
            generation,
            number: 0,
            previous_crc: 0,
            position: of.state.half_bytes,
            pending: BTreeMap::new(),
            in_flight: None,
            foreign: of.foreign,
            elsewhere: of.elsewhere,
        }
    }

    /// Whether this directory has ever lost promises.
    pub(crate) const fn has_lost_promises(&self) -> bool {
        self.promises_lost
    }

    /// How many groups its checkpoints have room for, with an update behind them.
    pub(crate) fn groups_max(&self) -> usize {
        let align = u64_of(self.align);
        let records = self.half_bytes.saturating_sub(align) / 64;
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        records.saturating_sub(1 + self.foreign.len())
    }

    /// Nothing is left of a group that was dropped. Its record stays in checkpoints if another
    /// journal may hold an older one, which would else be the one that holds.
    pub(crate) fn bury(&mut self, record: GroupRecord) {
        assert!(record.dropped, "only what was dropped is removed");
        if self.elsewhere.remove(&record.group) {
            self.foreign.push(record);
        }
    }

    /// Asks for a group's record to be written.
    pub(crate) fn stage(&mut self, group: GroupId, write: Option<WriteId>) {
        let staged = self.pending.entry(group).or_default();
        *staged = (*staged).max(write);
    }

    /// Whether a group's record is still to be written.
    pub(crate) fn is_pending(&self, group: GroupId) -> bool {
        self.pending.contains_key(&group)
    }

    /// Whether something is to be written.
    pub(crate) fn has_work(&self) -> bool {
        self.in_flight.is_none() && !self.pending.is_empty()
    }

    /// The groups whose records the next update holds.
    pub(crate) fn take_update(&mut self) -> Vec<(GroupId, Option<WriteId>)> {
        let groups: Vec<GroupId> = self
            .pending
            .keys()
            .copied()
            .take(UPDATE_RECORDS_MAX)
            .collect();
        let taken = groups.into_iter();
        taken
            .map(|group| (group, self.pending.remove(&group).flatten()))
            .collect()
    }

    /// Whether an update of so many records goes into the present half.
    pub(crate) fn fits(&self, records: usize) -> bool {
        let len = u64_of(Unit::encoded_len(records, self.align));
        self.position + len <= self.half_bytes
    }

    /// Everything that was asked for: a checkpoint holds it all.
    pub(crate) fn take_all(&mut self) -> Vec<(GroupId, Option<WriteId>)> {
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    /// An update behind what was written last.
    pub(crate) fn update(
        &mut self,
        written: Vec<(GroupId, Option<WriteId>)>,
        records: &[GroupRecord],
    ) -> UnitWrite {
        self.number += 1;
        self.write(written, records)
    }

    /// A checkpoint of all groups, in the other half.
    ///
    /// # Panics
    ///
    /// If it does not fit: the number of groups is bounded by
    /// [`groups_max`](Journal::groups_max).
    pub(crate) fn checkpoint(
        &mut self,
        written: Vec<(GroupId, Option<WriteId>)>,
        mut records: Vec<GroupRecord>,
    ) -> UnitWrite {
        self.generation += 1;
        self.number = 0;
        self.previous_crc = 0;
        self.position = 0;
        records.extend_from_slice(&self.foreign);
        assert!(self.fits(records.len()), "a checkpoint fits into a half");
        self.write(written, &records)
    }

    fn write(
        &mut self,
        written: Vec<(GroupId, Option<WriteId>)>,
        records: &[GroupRecord],
    ) -> UnitWrite {
        assert!(
            self.in_flight.is_none(),
            "one write of the journal at a time"
        );
        let header = UnitHeader {
            checkpoint: self.number == 0,
            promises_lost: self.promises_lost,
            shard: self.shard,
            incarnation: self.incarnation,
            generation: self.generation,
            number: self.number,
            previous_crc: self.previous_crc,
        };
        let bytes = Unit::encode(&header, records, self.align);
        let crc = bytes
            .first_chunk()
            .expect("a unit is longer than its checksum");
        self.previous_crc = u32::from_le_bytes(*crc);
        let half = u64::try_from(half_of(self.generation)).expect("0 or 1");
        let offset = half * self.half_bytes + self.position;
        self.position += u64_of(bytes.len());
        let data = Buffer::aligned_copy(&bytes, self.align);
        self.in_flight = Some(InFlight {
            written,
            copies_left: self.copies(),
            data: data.clone(),
            offset,
        });
        UnitWrite { offset, data }
    }

    /// The write in flight, to be tried again.
    pub(crate) fn again(&self) -> Option<UnitWrite> {
        let in_flight = self.in_flight.as_ref()?;
        Some(UnitWrite {
            offset: in_flight.offset,
            data: in_flight.data.clone(),
        })
    }

    /// How many copies of a unit are written.
    pub(crate) fn copies(&self) -> usize {
        if mutant!(JournalInOneCopy) {
            1
        } else {
            self.files.len()
        }
    }

    /// One copy is durable. Once both are, gives what was written.
    pub(crate) fn copy_done(&mut self) -> Option<Vec<(GroupId, Option<WriteId>)>> {
        let in_flight = self.in_flight.as_mut().expect("a write was in flight");
        in_flight.copies_left -= 1;
        if in_flight.copies_left > 0 {
            return None;
        }
        self.in_flight.take().map(|done| done.written)
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

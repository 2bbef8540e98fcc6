//! One group's log in memory: what is staged, what is on its way to the disk, what is synced,
//! and in which files it lies. Decides; does no I/O.

pub(crate) mod cache;
pub(crate) mod epochs;
pub(crate) mod marks;
pub(crate) mod segment;
pub(crate) mod stage;
pub(crate) mod writes;
pub(crate) mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_record::{Buffer, Offset};

use crate::config::GroupConfig;
use crate::entry::Position;
use crate::format::begin::{Begin, Reason};
use crate::format::frame::frame_len;
use crate::format::journal::{GroupRecord, QuarantineRecord, SyncedPosition};
use crate::ids::{GroupId, LogIndex, Sequence, WriteId};
use crate::prepare::{Preparing, Spare};
use crate::storage::FileId;
use cache::EntryCache;
use epochs::Epochs;
use marks::Marks;
use segment::Segment;
use stage::{BeginPlan, Staged};
use writes::Writes;
use written::WrittenSums;

/// A group's log.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) config: GroupConfig,
    /// What the journal holds of it, or will once what is staged there is written.
    pub(crate) record: GroupRecord,
    /// Where the log begins: before the first entry of its lowest file.
    pub(crate) start: Position,
    pub(crate) log_start_offset: Offset,
    /// The end of the log, staged entries included.
    pub(crate) end: Position,
    /// The end of what was handed to the disk.
    pub(crate) submitted: Position,
    /// The last entry that is durable together with all before it.
    pub(crate) synced: LogIndex,
    /// What the owner said is committed: never cut.
    pub(crate) commit: LogIndex,
    pub(crate) epochs: Epochs,
    pub(crate) marks: Marks,
    pub(crate) cache: EntryCache,
    /// Bytes of entries that are not synced.
    pub(crate) unsynced_bytes: usize,
    /// The files that hold entries of the log, ascending.
    pub(crate) segments: Vec<Segment>,
    /// The state that the lowest file's base carries.
    pub(crate) base_state: Buffer,
    /// The file that is being written.
    pub(crate) active: Option<Box<Active>>,
    /// The number of the next file to be made.
    pub(crate) next_sequence: Sequence,
    /// Files that hold nothing of the log: the next `begin` hides them.
    pub(crate) unused: Vec<Sequence>,
    /// The next file in the making.
    pub(crate) preparing: Preparing,
    /// Since when there is something to write and no file to write it to.
    pub(crate) waits_since: Option<Duration>,
    pub(crate) staged: VecDeque<Staged>,
    pub(crate) in_flight: Option<Box<InFlight>>,
    pub(crate) writes: Writes,
    /// Through where the log is synced, and in which file: what the journal is told.
    pub(crate) position: Option<SyncedPosition>,
    /// When the last write completed.
    pub(crate) idle_since: Duration,
    /// Entries that are bad or missing, ascending, each first and last.
    pub(crate) holes: Vec<(LogIndex, LogIndex)>,
    /// Files of which something is bad, entries or not.
    pub(crate) suspects: BTreeSet<Sequence>,
    /// The file whose repair was given up last: others have their turn first.
    pub(crate) repair_passed: Option<Sequence>,
    /// How long a file must be that is made anew, as far as attempts have shown.
    pub(crate) made_bytes: u64,
    /// Counts cuts and bases, so that reads that were under way notice.
    pub(crate) cuts: u64,
    /// Files to be unlinked: hidden ones, newest first, before retired ones, oldest first.
    pub(crate) hidden: VecDeque<Sequence>,
    pub(crate) retired: VecDeque<Sequence>,
    /// Which of them can become other files, and how long they are at least, in bytes.
    pub(crate) spares: BTreeMap<Sequence, u64>,
    /// The one that is on its way to that.
    pub(crate) leaving: Option<Spare>,
    /// Hidden files that are kept until the replica has rejoined.
    pub(crate) kept: Vec<Sequence>,
    /// Open files that are needed no more.
    pub(crate) to_close: Vec<FileId>,
    /// Whether a file is being unlinked.
    pub(crate) unlinking: bool,
    /// Files whose owner asked for their seal, with its state.
    pub(crate) to_seal: VecDeque<(Sequence, crate::entry::Snapshot)>,
    /// Whether a file is being sealed.
    pub(crate) sealing: bool,
    /// Whether its owner was told that there is no room.
    pub(crate) no_space: bool,
    /// Whether it is to be removed, files and all.
    pub(crate) dropping: bool,
    /// Whether the journal durably says that it was dropped.
    pub(crate) forgotten: bool,
    /// Whether its directory is there, durably.
    pub(crate) has_directory: bool,
    /// The mean size of the writes into the last file that it has left, in bytes.
    pub(crate) write_bytes: Option<u64>,
    /// When entries were read last.
    pub(crate) read_at: Option<Duration>,
}

/// The file that a group is writing.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) sequence: Sequence,
    pub(crate) file: FileId,
    pub(crate) salt: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Where the next frame goes.
    pub(crate) position: u64,
    /// What was written of the block that the next frame begins in.
    pub(crate) tail: Vec<u8>,
    /// What its footer will say of what was written so far.
    pub(crate) sums: WrittenSums,
    /// How many writes have gone into it.
    pub(crate) writes: u64,
    /// When it was begun.
    pub(crate) begun_at: Duration,
}

/// The write that is on its way to the disk: at most one a group.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The file.
    pub(crate) sequence: Sequence,
    /// The oldest write id that it holds anything of.
    pub(crate) first_write: WriteId,
    /// The end of the log once it is durable; a cut lowers it, a base voids it.
    pub(crate) through: Option<Position>,
    /// The `begin` in it, if it is a file's first write.
    pub(crate) begin: Option<BeginPlan>,
    /// How many bytes of entries it holds.
    pub(crate) body_bytes: usize,
    /// How many bytes of memory it takes up.
    pub(crate) buffer_bytes: usize,
    /// What to write, kept in case that there is no room at the first try.
    pub(crate) data: Buffer,
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    /// Whether it found no room and waits to be tried again.
    pub(crate) again: bool,
}

impl Group {
    /// A group that has never been written.
    pub(crate) fn new(id: GroupId, config: GroupConfig) -> Group {
        let record = GroupRecord {
            group: id,
            sequence: 0,
            hard: crate::entry::HardState::default(),
            position: None,
            quarantine: None,
            dropped: false,
        };
        Group {
            id,
            config,
            record,
            start: Position::ZERO,
            log_start_offset: Offset::ZERO,
            end: Position::ZERO,
            submitted: Position::ZERO,
            synced: LogIndex::ZERO,
            commit: LogIndex::ZERO,
            epochs: Epochs::default(),
            marks: Marks::new(Position::ZERO),
            cache: EntryCache::default(),
            unsynced_bytes: 0,
            segments: Vec::new(),
            base_state: Buffer::new(),
            active: None,
            next_sequence: Sequence::FIRST,
            unused: Vec::new(),
            preparing: Preparing::Idle,
            waits_since: None,
            staged: VecDeque::new(),
            in_flight: None,
            writes: Writes::default(),
            position: None,
            idle_since: Duration::ZERO,
            holes: Vec::new(),
            suspects: BTreeSet::new(),
            repair_passed: None,
            made_bytes: 0,
            cuts: 0,
            hidden: VecDeque::new(),
            retired: VecDeque::new(),
            spares: BTreeMap::new(),
            leaving: None,
            kept: Vec::new(),
            to_close: Vec::new(),
            unlinking: false,
            to_seal: VecDeque::new(),
            sealing: false,
            no_space: false,
            dropping: false,
            forgotten: false,
            has_directory: false,
            write_bytes: None,
            read_at: None,
        }
    }

    /// The file that holds an entry.
    pub(crate) fn segment_of(&self, index: LogIndex) -> Option<&Segment> {
        let at = self
            .segments
            .partition_point(|segment| segment.last() < index);
        self.segments.get(at).filter(|segment| segment.holds(index))
    }

    /// A file by its number.
    pub(crate) fn segment_mut(&mut self, sequence: Sequence) -> Option<&mut Segment> {
        self.segments
            .iter_mut()
            .find(|segment| segment.sequence == sequence)
    }

    /// Takes a file that was made anew in between those beside it. Whether there is a place for it.
    pub(crate) fn take_made(&mut self, made: Segment) -> bool {
        let at = self
            .segments
            .partition_point(|segment| segment.sequence < made.sequence);
        let below = at.checked_sub(1).map(|below| self.segments[below].end);
        let behind = self.segments.get(at).map_or(self.end, |above| above.start);
        let fits = below == Some(made.start) && behind == made.end;
        if fits {
            self.segments.insert(at, made);
        }
        fits
    }

    /// Whether there is, or may be, a file of this number.
    pub(crate) fn names(&self, sequence: Sequence) -> bool {
        let staged = self.staged.iter().filter_map(|staged| match staged {
            Staged::Begin(plan) => Some(plan),
            Staged::Entry { .. } => None,
        });
        let in_flight = self.in_flight.iter().filter_map(|it| it.begin.as_ref());
        let mut begins = staged.chain(in_flight);
        let mut segments = self.segments.iter();
        segments.any(|segment| segment.sequence == sequence)
            || begins.any(|plan| plan.hides.contains(&sequence))
            || self.unused.contains(&sequence)
            || self.kept.contains(&sequence)
            || self.hidden.contains(&sequence)
            || self.retired.contains(&sequence)
            || sequence >= self.next_sequence
    }

    /// The oldest write of the log that is not durable.
    fn log_front(&self) -> Option<WriteId> {
        let in_flight = self.in_flight.as_ref().map(|write| write.first_write);
        let in_flight = in_flight.filter(|_| !mutant!(AckBeforeWrite));
        in_flight.or_else(|| self.staged.front().map(Staged::first_write))
    }

    /// The highest write that is newly persisted.
    pub(crate) fn persisted(&mut self) -> Option<WriteId> {
        let front = self.log_front();
        self.writes.persisted(front)
    }

    /// Whether nothing is staged or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.staged.is_empty()
    }

    /// Whether a cut or a base is not durable yet: a crash would bring back what it takes away, so
    /// nothing else on the disk may know of it.
    pub(crate) fn is_being_cut(&self) -> bool {
        let begin = self.in_flight.as_ref().and_then(|it| it.begin.as_ref());
        let cuts = begin.is_some_and(|plan| plan.begin.reason != Reason::Roll);
        let is_begin = |staged: &Staged| matches!(staged, Staged::Begin(_));
        cuts || self.staged.iter().any(is_begin)
    }

    /// Whether the log's end is quarantined.
    pub(crate) fn is_quarantined_to_end(&self) -> bool {
        self.record
            .quarantine
            .is_some_and(|quarantine| quarantine.reaches_end)
    }

    /// The first hole at or behind `index`, if `index` lies in one.
    pub(crate) fn hole_at(&self, index: LogIndex) -> Option<LogIndex> {
        let in_hole = |&&(first, last): &&(LogIndex, LogIndex)| first <= index && index <= last;
        self.holes.iter().find(in_hole).map(|_| index)
    }

    /// Notes that an entry turned out to be bad. It had been durable: never cut, quarantined.
    pub(crate) fn note_hole(&mut self, index: LogIndex) {
        if index == LogIndex::ZERO || self.hole_at(index).is_some() {
            return;
        }
        self.holes.push((index, index));
        self.holes.sort_unstable();
        let first = self.holes[0].0;
        let quarantine = self.record.quarantine.get_or_insert(QuarantineRecord {
            first,
            reaches_end: false,
        });
        quarantine.first = quarantine.first.min(first);
    }

    /// Whether a file's entries have a hole among them.
    pub(crate) fn has_hole_in(&self, sequence: Sequence) -> bool {
        if self.holes.is_empty() {
            return false;
        }
        let mut segments = self.segments.iter();
        let segment = segments.find(|segment| segment.sequence == sequence);
        segment.is_some_and(|segment| {
            let mut holes = self.holes.iter();
            holes.any(|&(first, last)| first <= segment.last() && segment.start.first() <= last)
        })
    }

    /// What a file's `begin` said, but for where the log started then: that may be said too high,
    /// since it only rises. Nothing if more is not known: a base's state lies nowhere else on the
    /// disk, and is remembered only by who has read or written it in this life.
    pub(crate) fn begin_of(&self, segment: &Segment) -> Option<Begin> {
        let is_base = segment.reason == Reason::Base;
        let mut begin = Begin {
            reason: segment.reason,
            start: segment.start,
            log_start_offset: self.log_start_offset,
            epochs: Vec::new(),
            state: Buffer::new(),
        };
        if is_base {
            begin.epochs = self.epochs.before(segment.start.first()).to_vec();
            begin.state = self.base_state.clone();
        }
        let is_of_nothing = segment.start.before.index == LogIndex::ZERO;
        let is_known = !is_base || is_of_nothing || !begin.state.is_empty();
        // The first entry lies behind the `begin`, so its length was this and no other.
        let room = segment.first_entry_at().map(|at| at - segment.first_frame);
        let len = u64::try_from(frame_len(begin.body_len())).expect("a length in memory");
        let fits = room.map_or(!is_base, |room| room == len);
        (is_known && fits).then_some(begin)
    }

    /// Notes what a look through a file has found bad of the entries that it should hold, first
    /// and last. Whether that changes what the journal is to hold.
    pub(crate) fn set_holes(
        &mut self,
        (first, last): (LogIndex, LogIndex),
        found: &[(LogIndex, LogIndex)],
    ) -> bool {
        let before = self.record.quarantine;
        let mut holes: Vec<(LogIndex, LogIndex)> = found.to_vec();
        for &(from, to) in &self.holes {
            holes.push((from, to.min(first.before())));
            holes.push((from.max(last.next()), to));
        }
        holes.retain(|(from, to)| from <= to);
        holes.sort_unstable();
        holes.dedup();
        self.holes = holes;
        if self.is_quarantined_to_end() {
            return false;
        }
        self.record.quarantine = self.holes.first().map(|&(first, _)| QuarantineRecord {
            first,
            reaches_end: false,
        });
        self.record.quarantine != before
    }

    /// The write is durable. Gives the files that its `begin` hides.
    pub(crate) fn write_done(&mut self, now: Duration) -> WriteDone {
        let write = self.in_flight.take().expect("a write was in flight");
        self.idle_since = now;
        self.unsynced_bytes -= write.body_bytes;
        if let Some(through) = write.through {
            self.synced = self.synced.max(through.before.index);
            self.position = Some(SyncedPosition {
                sequence: write.sequence,
                index: through.before.index,
            });
        }
        let mut done = WriteDone {
            evictable: self.synced,
            buffer_bytes: write.buffer_bytes,
            begun: write.begin.is_some(),
        };
        if let Some(begin) = write.begin {
            self.hide(begin.hides);
            done.evictable = self.synced;
        }
        done
    }

    /// Files that a durable `begin` hides are unlinked, newest first; or kept until the replica
    /// has rejoined.
    pub(crate) fn hide(&mut self, mut hides: Vec<Sequence>) {
        if self.is_quarantined_to_end() {
            self.kept.append(&mut hides);
            return;
        }
        hides.extend(self.hidden.drain(..));
        hides.sort_unstable();
        hides.dedup();
        hides.reverse();
        self.hidden = hides.into();
    }

    /// What the journal is to hold now.
    pub(crate) fn next_record(&mut self) -> GroupRecord {
        self.record.sequence += 1;
        if self.record.quarantine.is_none() {
            self.record.position = self.position;
        }
        self.record
    }

    /// The replica has rejoined: what was kept is unlinked.
    pub(crate) fn end_quarantine(&mut self) {
        if !self.is_quarantined_to_end() && !self.holes.is_empty() {
            // Another hole was found meanwhile.
            return;
        }
        self.record.quarantine = None;
        self.holes.clear();
        let kept = std::mem::take(&mut self.kept);
        self.hide(kept);
    }
}

/// What a completed write leaves to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteDone {
    /// Entries up to here may leave the cache when it is full.
    pub(crate) evictable: LogIndex,
    /// How many bytes of memory the written entries hold.
    pub(crate) buffer_bytes: usize,
    /// Whether a file was begun by it.
    pub(crate) begun: bool,
}

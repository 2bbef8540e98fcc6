//! Sealing: a closed file, all of whose entries are committed and synced, gets its footer, is
//! trimmed, and never changes again. What the footer says of its bytes was summed while they were
//! written; a file that another life has written, or a repair, is read for it once more.

use highwater_record::{Buffer, Offset, crc32c};

use super::{Action, Store};
use crate::alarm::{Alarm, Damage};
use crate::entry::{Epoch, Snapshot};
use crate::event::Event;
use crate::format::footer::{Footer, VERIFIED_BLOCK};
use crate::group::segment::{Segment, SegmentState};
use crate::group::written::FileSums;
use crate::ids::{GroupId, LogIndex, Sequence};
use crate::paths;
use crate::ranges::RangeSums;
use crate::storage::{FileId, Op, Output, Storage, StorageError};

/// How much of a file one step of a seal reads, in bytes: few enough to be verified within a
/// turn. A multiple of the verified block.
const STEP_BYTES: usize = 4 * VERIFIED_BLOCK as usize;

/// A file that is being sealed.
#[derive(Debug)]
pub(super) struct SealJob {
    sequence: Sequence,
    snapshot: Snapshot,
    phase: Phase,
    /// How far the file was read.
    position: u64,
    /// How long the file is, or is being made.
    len: u64,
    /// Where the footer goes.
    footer_at: u64,
    /// Of the blocks that were read.
    blocks: Vec<u32>,
    /// Of the frames that were read.
    sums: RangeSums,
    /// Of all of it, once known.
    known: Option<FileSums>,
    footer: Buffer,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its footer was bad: it is taken back among the files that are written.
    Unprotecting,
    Opening,
    /// It ends within the block of its last frame, since something has cut it short: it gets
    /// the zeros back that were there.
    Filling,
    Reading,
    Growing,
    Writing,
    Trimming,
    Protecting,
}

impl<S: Storage> Store<S> {
    /// Starts the next seal that is due, one a group at a time; none while a file of the group is
    /// copied for its repair, which takes it as it is.
    pub(super) fn drive_seals(&mut self, group: GroupId) {
        if self.is_repairing(group) {
            return;
        }
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        if state.sealing || state.dropping || state.record.quarantine.is_some() {
            return;
        }
        let Some((sequence, snapshot)) = state.to_seal.front() else {
            return;
        };
        let (sequence, at) = (*sequence, snapshot.at);
        let settled = state.commit.min(state.synced);
        let is_being_cut = state.is_being_cut();
        let segment = state
            .segments
            .iter_mut()
            .find(|segment| segment.sequence == sequence);
        let Some(segment) = segment.filter(|it| it.state == SegmentState::Closed) else {
            state.to_seal.pop_front();
            self.dirty.insert(group);
            return;
        };
        if segment.last().max(at) > settled || (is_being_cut && !mutant!(SealBeforeCut)) {
            return;
        }
        let job = new_job(segment, state.to_seal[0].1.clone(), self.align);
        let (file, protected) = (segment.file, segment.protected);
        state.to_seal.pop_front();
        state.sealing = true;
        self.seals.insert(group, job);
        let path = paths::segment(group, sequence);
        match file {
            _ if protected => {
                let read_only = false;
                self.submit(Action::Seal(group), Op::Protect { path, read_only });
            }
            Some(file) => self.seal_begins(group, file),
            None => self.submit(Action::Seal(group), Op::Open { path, write: true }),
        }
    }

    pub(super) fn seal_completed(&mut self, group: GroupId, result: Result<Output, StorageError>) {
        self.dirty.insert(group);
        let job = self
            .seals
            .get(&group)
            .expect("a seal is known while it is under way");
        let output = match result {
            Ok(output) => output,
            Err(error) => return self.seal_refused(group, job.phase, error),
        };
        let sequence = job.sequence;
        if job.phase == Phase::Unprotecting {
            return self.seal_opens(group, sequence);
        }
        if let (Phase::Opening, Output::Opened { file, .. }) = (job.phase, &output) {
            self.seal_keeps_open(group, sequence, *file);
        }
        let file = self
            .groups
            .get_mut(&group)
            .and_then(|state| state.segment_mut(sequence));
        let Some(file) = file.and_then(|segment| segment.file) else {
            // A base or a cut took the file meanwhile.
            return self.end_seal(group);
        };
        self.seal_step(group, file, output);
    }

    fn seal_opens(&mut self, group: GroupId, sequence: Sequence) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        job.phase = Phase::Opening;
        let path = paths::segment(group, sequence);
        self.submit(Action::Seal(group), Op::Open { path, write: true });
    }

    fn seal_keeps_open(&mut self, group: GroupId, sequence: Sequence, file: FileId) {
        let state = self.groups.get_mut(&group);
        let surplus = match state.and_then(|state| state.segment_mut(sequence)) {
            Some(segment) => {
                segment.protected = false;
                segment.file.replace(file)
            }
            None => Some(file),
        };
        if let Some(surplus) = surplus {
            self.close(surplus);
        }
    }

    fn seal_step(&mut self, group: GroupId, file: FileId, output: Output) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        match job.phase {
            Phase::Unprotecting | Phase::Opening => self.seal_begins(group, file),
            Phase::Filling => {
                self.seal_grew(group);
                self.seal_reads(group, file);
            }
            Phase::Reading => {
                let Output::Read(bytes) = output else {
                    unreachable!("a read answered {output:?}");
                };
                self.seal_verifies(group, file, &bytes);
            }
            Phase::Growing => {
                self.seal_grew(group);
                self.seal_writes(group, file);
            }
            Phase::Writing => self.seal_trims(group, file),
            Phase::Trimming => {
                job.phase = Phase::Protecting;
                let path = paths::segment(group, job.sequence);
                let op = Op::Protect {
                    path,
                    read_only: true,
                };
                self.submit(Action::Seal(group), op);
            }
            Phase::Protecting => self.sealed(group, file),
        }
    }

    fn seal_begins(&mut self, group: GroupId, file: FileId) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        if job.len >= job.footer_at {
            return match job.known {
                Some(_) => self.seal_grows(group, file),
                None => self.seal_reads(group, file),
            };
        }
        // Something else than this program has changed it.
        job.known = None;
        job.phase = Phase::Filling;
        job.len = job.footer_at;
        let len = job.len;
        self.submit(Action::Seal(group), Op::Truncate { file, len });
    }

    /// The file is as long now as the seal has made it.
    fn seal_grew(&mut self, group: GroupId) {
        let job = &self.seals[&group];
        let (sequence, len) = (job.sequence, job.len);
        let state = self.groups.get_mut(&group);
        if let Some(segment) = state.and_then(|state| state.segment_mut(sequence)) {
            segment.len = len;
        }
    }

    fn seal_reads(&mut self, group: GroupId, file: FileId) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        job.phase = Phase::Reading;
        let left = usize::try_from(job.footer_at - job.position).unwrap_or(usize::MAX);
        let op = Op::Read {
            file,
            offset: job.position,
            len: left.min(STEP_BYTES),
        };
        self.submit(Action::Seal(group), op);
    }

    /// Checks every frame of a step, and notes the checksums of its blocks.
    fn seal_verifies(&mut self, group: GroupId, file: FileId, bytes: &Buffer) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        let block = usize::try_from(VERIFIED_BLOCK).expect("64 KiB");
        job.blocks.extend(bytes.chunks(block).map(crc32c));
        let fed = job.sums.feed(bytes);
        job.position += u64::try_from(bytes.len()).expect("a step's length");
        let short = bytes.is_empty();
        if let Err(bad) = fed {
            return self.seal_finds_damage(group, bad.position, bad.index);
        }
        if job.position < job.footer_at && !short {
            return self.seal_reads(group, file);
        }
        if !job.sums.is_complete() {
            let (position, index) = job.sums.missing();
            return self.seal_finds_damage(group, position, index);
        }
        job.known = Some(FileSums {
            blocks: std::mem::take(&mut job.blocks),
            ranges: job.sums.ranges().to_vec(),
            data_end: job.sums.data_end(),
        });
        self.seal_grows(group, file);
    }

    /// What was written does not verify: the file is not sealed, and the damage is quarantined.
    /// Its owner hears of the file again once it is repaired.
    fn seal_finds_damage(&mut self, group: GroupId, offset: u64, index: LogIndex) {
        let sequence = self.seals[&group].sequence;
        let path = paths::segment(group, sequence);
        self.alarm(Alarm {
            group: Some(group),
            path,
            offset,
            damage: Damage::Frame { index },
        });
        if let Some(state) = self.groups.get_mut(&group) {
            state.note_hole(index);
            if let Some(segment) = state.segment_mut(sequence) {
                segment.announced = false;
            }
            self.journal.stage(group, None);
            self.note_damaged(group);
        }
        self.end_seal(group);
    }

    /// Makes room for the footer behind the frames, if the file ends before.
    fn seal_grows(&mut self, group: GroupId, file: FileId) {
        let state = &self.groups[&group];
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        let segment = state.segments.iter().find(|it| it.sequence == job.sequence);
        let segment = segment.expect("the caller looked it up");
        let epochs = epochs_through(state.epochs.as_slice(), segment.last());
        let footer = footer_of(job, segment, epochs, state.log_start_offset);
        let bytes = footer.encode(&segment.footer_of(), self.align);
        job.footer = Buffer::aligned_copy(&bytes, self.align);
        let len = job.footer_at + u64::try_from(bytes.len()).expect("at most 128 MiB");
        if len <= job.len {
            return self.seal_writes(group, file);
        }
        job.phase = Phase::Growing;
        job.len = len;
        self.submit(Action::Seal(group), Op::Truncate { file, len });
    }

    fn seal_writes(&mut self, group: GroupId, file: FileId) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        job.phase = Phase::Writing;
        let op = Op::Write {
            file,
            offset: job.footer_at,
            data: job.footer.clone(),
        };
        self.submit(Action::Seal(group), op);
    }

    fn seal_trims(&mut self, group: GroupId, file: FileId) {
        let job = self.seals.get_mut(&group).expect("the caller looked it up");
        job.phase = Phase::Trimming;
        let len = job.footer_at + u64::try_from(job.footer.len()).expect("at most 128 MiB");
        self.submit(Action::Seal(group), Op::Truncate { file, len });
    }

    fn sealed(&mut self, group: GroupId, file: FileId) {
        let job = &self.seals[&group];
        let (sequence, at) = (job.sequence, job.snapshot.at);
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        let segment = state
            .segment_mut(sequence)
            .expect("the caller looked it up");
        segment.state = SegmentState::Sealed;
        segment.protected = true;
        segment.snapshot_at = (at > LogIndex::ZERO).then_some(at);
        segment.file = None;
        self.close(file);
        self.counters.files_sealed += 1;
        self.events.push(Event::Sealed { group, sequence });
        self.end_seal(group);
    }

    /// No room for a footer: the file stays as it is, unsealed, until the next start. A sync
    /// that fails is final.
    fn seal_refused(&mut self, group: GroupId, phase: Phase, error: StorageError) {
        let harmless = matches!(
            error,
            StorageError::NoSpace { .. } | StorageError::Resources { .. }
        );
        if phase == Phase::Reading && !harmless {
            let job = &self.seals[&group];
            let (position, index) = job.sums.missing();
            return self.seal_finds_damage(group, position, index);
        }
        if harmless {
            return self.end_seal(group);
        }
        self.fail(error);
    }

    fn end_seal(&mut self, group: GroupId) {
        self.seals.remove(&group);
        if let Some(state) = self.groups.get_mut(&group) {
            state.sealing = false;
        }
    }
}

fn new_job(segment: &mut Segment, snapshot: Snapshot, align: usize) -> SealJob {
    let align = u64::try_from(align).expect("an alignment fits into 64 bits");
    let footer_at = segment.written_end.next_multiple_of(align);
    let written = segment.sums.take();
    let known = written.and_then(|sums| sums.finish(segment.last(), footer_at));
    SealJob {
        sequence: segment.sequence,
        snapshot,
        phase: if segment.protected {
            Phase::Unprotecting
        } else {
            Phase::Opening
        },
        position: 0,
        len: segment.len,
        footer_at,
        known,
        blocks: Vec::new(),
        sums: RangeSums::new(
            segment.group,
            segment.salt,
            segment.first_frame,
            segment.start.first(),
            segment.last(),
        ),
        footer: Buffer::new(),
    }
}

fn epochs_through(epochs: &[Epoch], last: LogIndex) -> Vec<Epoch> {
    let begun = epochs.partition_point(|epoch| epoch.first_index <= last);
    epochs[..begun].to_vec()
}

fn footer_of(
    job: &SealJob,
    segment: &Segment,
    epochs: Vec<Epoch>,
    log_start_offset: Offset,
) -> Footer {
    let snapshot = &job.snapshot;
    let known = job.known.as_ref().expect("it was read or summed before");
    Footer {
        reason: segment.reason,
        start: segment.start,
        end: segment.end,
        log_start_offset,
        largest_timestamp: segment.points.largest_timestamp(),
        largest_append_time: segment.points.largest_append_time(),
        data_end: known.data_end,
        epochs,
        points: segment.points.as_slice().to_vec(),
        ranges: known.ranges.clone(),
        blocks: known.blocks.clone(),
        snapshot: (snapshot.at > LogIndex::ZERO).then(|| snapshot.clone()),
    }
}

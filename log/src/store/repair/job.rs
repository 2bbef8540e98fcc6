//! A repair that is under way: what it knows, and what comes next.

use std::time::Duration;

use highwater_record::Buffer;

use super::copy::{Copied, Copying, Front};
use super::{GivenUp, Gone};
use crate::entry::{Entry, Epoch, Position};
use crate::format::begin::{Begin, Reason};
use crate::format::footer::{
    FOOTER_BYTES_MAX, Footer, FooterOf, TRAILER_LEN, Trailer, VERIFIED_BLOCK,
};
use crate::format::identity::FileIdentity;
use crate::group::Group;
use crate::group::segment::{Segment, SegmentState};
use crate::ids::{GroupId, LogIndex, Sequence};
use crate::paths;
use crate::points::Points;
use crate::recovery::driver::Owner;
use crate::repair::fill::{FillError, Filler};
use crate::repair::survey::{Survey, SurveyOf};
use crate::repair::{Behind, Gap};
use crate::storage::{FileId, Op, Output, Preparation, StorageError};

/// How much is read and written at a time, in bytes: few enough to be verified within a turn. A
/// multiple of the verified block.
pub(super) const STEP_BYTES: u64 = 4 * VERIFIED_BLOCK as u64;

/// What comes next.
pub(super) enum Step {
    Run(Op),
    /// Entries are wanted.
    Ask,
    /// They were asked for already.
    Wait,
    /// What is bad is known.
    Surveyed,
    /// The copy is whole and durable.
    Rename,
    /// It has the file's name, durably.
    Done,
    /// A write or sync failed: that is final.
    Fail(StorageError),
    GiveUp(GivenUp),
    /// Nothing is left of the attempt.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    ReadingFront,
    ReadingTrailer,
    ReadingFooter,
    Surveying,
    Creating,
    UnlinkingLeftover,
    OpeningCopy,
    Waiting,
    Reading,
    Writing,
    WritingFooter,
    Protecting,
    WaitingForUnlinks,
    Renaming,
    SyncingGroup,
    SyncingPrepare,
    Discarding,
}

/// A file that is being repaired.
#[derive(Debug)]
pub(in crate::store) struct RepairJob {
    pub(super) group: GroupId,
    pub(super) sequence: Sequence,
    /// When entries were last asked for, and how often without an answer.
    pub(super) asked_at: Duration,
    pub(super) asks: u32,
    /// How many entries were filled in.
    pub(super) entries: u64,
    /// The length of the copy, in bytes.
    pub(super) len: u64,
    /// Whether it is gone whole, so that there is nothing to copy.
    pub(super) is_gone: bool,
    phase: Phase,
    cuts: u64,
    align: u64,
    segment: Facts,
    file: Option<FileId>,
    copy: Option<FileId>,
    found_len: u64,
    /// The range that is being read, and what came of it so far.
    range: Range,
    identity: Option<FileIdentity>,
    footer: Option<Box<Footer>>,
    survey: Option<Survey>,
    front: Front,
    gaps: Vec<Gap>,
    copying: Option<Copying>,
}

/// What the store knows of the file.
#[derive(Debug)]
struct Facts {
    salt: u64,
    first_frame: u64,
    first_entry: Option<u64>,
    /// What its `begin` said, if all of it is known.
    begin: Option<Begin>,
    len: u64,
    start: Position,
    end: Position,
    is_sealed: bool,
    recycled: bool,
}

/// Bytes that are being read. What the disk refuses is read again block by block.
#[derive(Debug, Default)]
struct Range {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
    by_block: bool,
    /// Blocks that cannot be read.
    unreadable: Vec<u64>,
}

impl RepairJob {
    pub(super) fn new(
        group: &Group,
        segment: &Segment,
        limit: Position,
        align: usize,
    ) -> RepairJob {
        RepairJob {
            group: segment.group,
            sequence: segment.sequence,
            asked_at: Duration::ZERO,
            asks: 0,
            entries: 0,
            len: 0,
            is_gone: false,
            phase: Phase::Opening,
            cuts: group.cuts,
            align: u64::try_from(align).expect("an alignment fits into 64 bits"),
            segment: Facts {
                salt: segment.salt,
                first_frame: segment.first_frame,
                first_entry: segment.first_entry_at(),
                begin: group.begin_of(segment),
                len: segment.len,
                start: segment.start,
                end: limit,
                is_sealed: segment.state == SegmentState::Sealed,
                recycled: segment.recycled,
            },
            file: None,
            copy: None,
            found_len: 0,
            range: Range::default(),
            identity: None,
            footer: None,
            survey: None,
            front: Front::Kept,
            gaps: Vec::new(),
            copying: None,
        }
    }

    /// For a file that is gone whole: a new one with the entries that lay between those beside it.
    /// It is begun by a `cut`, so that files with lower numbers count for nothing behind where it
    /// begins, whatever they hold: that which is gone may have been begun by one.
    pub(super) fn making(group: &Group, gone: &Gone, identity: FileIdentity, align: usize) -> Self {
        let Gone { before, behind, .. } = *gone;
        let first_frame = u64::from(identity.first_frame);
        let begin = Begin {
            reason: Reason::Cut,
            start: before,
            log_start_offset: group.log_start_offset,
            epochs: Vec::new(),
            state: Buffer::new(),
        };
        let mut job = RepairJob {
            group: group.id,
            sequence: identity.sequence,
            asked_at: Duration::ZERO,
            asks: 0,
            entries: 0,
            len: 0,
            is_gone: true,
            phase: Phase::Creating,
            cuts: group.cuts,
            align: u64::try_from(align).expect("an alignment fits into 64 bits"),
            segment: Facts {
                salt: identity.salt,
                first_frame,
                first_entry: None,
                begin: Some(begin),
                len: identity.size,
                start: before,
                end: behind,
                is_sealed: false,
                recycled: false,
            },
            file: None,
            copy: None,
            found_len: 0,
            range: Range::default(),
            identity: Some(identity),
            footer: None,
            survey: None,
            front: Front::Kept,
            gaps: vec![Gap {
                before,
                last: behind.before.index,
                from: first_frame,
                to: None,
                behind: Behind::End(behind),
                headers: Vec::new(),
            }],
            copying: None,
        };
        job.front = job.make_front().expect("all of its begin is known");
        job
    }

    /// The file that was made, as the group has it from now on.
    pub(super) fn made(&self) -> Segment {
        let copying = self.copying.as_ref();
        let points = copying.and_then(Copying::points);
        Segment {
            group: self.group,
            sequence: self.sequence,
            salt: self.segment.salt,
            first_frame: self.segment.first_frame,
            len: self.len,
            recycled: self.segment.recycled,
            reason: Reason::Cut,
            start: self.segment.start,
            end: self.segment.end,
            points: points.cloned().unwrap_or_else(|| Points::new(self.len)),
            written_end: self.written_end(),
            state: SegmentState::Closed,
            protected: false,
            file: None,
            mapping: None,
            mapped: Vec::new(),
            last_read: 0,
            snapshot_at: None,
            announced: false,
            sums: None,
        }
    }

    pub(super) fn path(&self) -> String {
        paths::segment(self.group, self.sequence)
    }

    /// Whether entries are awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// Whether the file's name is changing hands, or nothing depends on the file any more.
    pub(super) fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            Phase::Renaming | Phase::SyncingGroup | Phase::SyncingPrepare | Phase::Discarding
        )
    }

    /// Whether the group's log still has the file as it was.
    pub(super) fn is_in(&self, state: &Group) -> bool {
        let mut segments = state.segments.iter();
        !state.dropping
            && state.cuts == self.cuts
            && (self.is_gone || segments.any(|segment| segment.sequence == self.sequence))
    }

    /// The entries that the file should hold, first and last.
    pub(super) fn covers(&self) -> (LogIndex, LogIndex) {
        (self.segment.start.first(), self.segment.end.before.index)
    }

    /// The entries that it lacks.
    pub(super) fn holes(&self) -> Vec<(LogIndex, LogIndex)> {
        let gaps = self.gaps.iter().filter(|gap| !gap.is_empty());
        gaps.map(|gap| (gap.first(), gap.last)).collect()
    }

    /// Behind its last entry.
    pub(super) fn end(&self) -> Position {
        self.segment.end
    }

    pub(super) fn written_end(&self) -> u64 {
        self.copying.as_ref().map_or(0, Copying::written_end)
    }

    /// The place before each gap of a file that is not sealed, and behind each entry that filled
    /// it. What is sealed is committed, and never cut.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&Position, &[Position])> {
        let copying = self.copying.iter().filter(|_| self.footer.is_none());
        copying.flat_map(Copying::filled)
    }

    /// The terms that begin in what was filled in.
    pub(super) fn epochs(&self) -> Vec<Epoch> {
        self.copying.as_ref().map_or_else(Vec::new, Copying::epochs)
    }

    pub(super) fn wanted(&self) -> Option<(LogIndex, LogIndex)> {
        self.copying.as_ref()?.wanted()
    }

    pub(super) fn supplied_bytes(&self) -> u64 {
        self.copying.as_ref().map_or(0, Copying::supplied_bytes)
    }

    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), FillError> {
        let copying = self.copying.as_mut();
        let copying = copying.ok_or(FillError::NotAsked {
            index: entry.id.index,
        })?;
        copying.add(entry)?;
        self.entries += 1;
        self.asks = 0;
        Ok(())
    }

    /// See [`Copying::outgrown`].
    pub(super) fn outgrown(&self) -> Option<u64> {
        self.copying.as_ref()?.outgrown()
    }

    /// What was opened in vain is closed with the rest.
    pub(super) fn keep_open(&mut self, result: &Result<Output, StorageError>) {
        if let Ok(Output::Opened { file, .. }) = result {
            let place = match self.file {
                None => &mut self.file,
                Some(_) => &mut self.copy,
            };
            *place = Some(*file);
        }
    }

    pub(super) fn take_files(&mut self) -> Vec<FileId> {
        self.file
            .take()
            .into_iter()
            .chain(self.copy.take())
            .collect()
    }

    /// Nothing of the attempt is to stay.
    pub(super) fn discard(&mut self) -> Step {
        let is_made = !matches!(
            self.phase,
            Phase::Opening
                | Phase::ReadingFront
                | Phase::ReadingTrailer
                | Phase::ReadingFooter
                | Phase::Surveying
        );
        self.phase = Phase::Discarding;
        match is_made {
            true => Step::Run(Op::Unlink {
                path: self.copy_path(),
            }),
            false => Step::Over,
        }
    }

    fn copy_path(&self) -> String {
        paths::repair(self.group, self.sequence)
    }

    pub(super) fn rename(&mut self) -> Op {
        self.phase = Phase::Renaming;
        Op::Rename {
            from: self.copy_path(),
            to: self.path(),
        }
    }

    /// The operation that was under way has completed.
    pub(super) fn completed(&mut self, result: Result<Output, StorageError>) -> Step {
        let output = match result {
            Ok(output) => output,
            Err(error) => return self.refused(error),
        };
        match (self.phase, output) {
            (Phase::Opening, Output::Opened { file, len, .. }) => {
                self.file = Some(file);
                self.found_len = len;
                let front = self.segment.first_frame;
                self.read(Phase::ReadingFront, 0, front)
            }
            (
                Phase::ReadingFront
                | Phase::ReadingTrailer
                | Phase::ReadingFooter
                | Phase::Surveying
                | Phase::Reading,
                Output::Read(bytes),
            ) => self.read_some(&bytes),
            (Phase::Creating, _) => {
                self.phase = Phase::OpeningCopy;
                let path = self.copy_path();
                Step::Run(Op::Open { path, write: true })
            }
            (Phase::UnlinkingLeftover, _) => self.create(),
            (Phase::OpeningCopy, Output::Opened { file, .. }) => {
                self.copy = Some(file);
                self.goes_on()
            }
            (Phase::Writing, _) => self.goes_on(),
            (Phase::WritingFooter, _) => self.protect(),
            (Phase::Protecting, _) => {
                self.phase = Phase::WaitingForUnlinks;
                Step::Rename
            }
            (Phase::WaitingForUnlinks, _) => Step::Rename,
            (Phase::Renaming, _) => {
                self.phase = Phase::SyncingGroup;
                let path = paths::group_dir(self.group);
                Step::Run(Op::SyncDir { path })
            }
            (Phase::SyncingGroup, _) => {
                self.phase = Phase::SyncingPrepare;
                let path = paths::PREPARE.to_owned();
                Step::Run(Op::SyncDir { path })
            }
            (Phase::SyncingPrepare, _) => Step::Done,
            (Phase::Discarding, _) => Step::Over,
            (phase, output) => unreachable!("{phase:?} was answered with {output:?}"),
        }
    }

    /// No room, memory or descriptors: later. What cannot be read is bad. A write or sync that
    /// fails is final.
    fn refused(&mut self, error: StorageError) -> Step {
        let is_read = matches!(
            self.phase,
            Phase::ReadingFront
                | Phase::ReadingTrailer
                | Phase::ReadingFooter
                | Phase::Surveying
                | Phase::Reading
        );
        match (self.phase, error) {
            (Phase::Discarding, _) => Step::Over,
            (Phase::Creating, StorageError::Exists { .. }) => {
                self.phase = Phase::UnlinkingLeftover;
                let path = self.copy_path();
                Step::Run(Op::Unlink { path })
            }
            (phase, error @ (StorageError::NoSpace { .. } | StorageError::Resources { .. }))
                if phase != Phase::Renaming =>
            {
                Step::GiveUp(GivenUp::Storage(error))
            }
            (Phase::Opening | Phase::OpeningCopy, error) => Step::GiveUp(GivenUp::Storage(error)),
            (_, _) if is_read => self.read_refused(),
            (_, error) => Step::Fail(error),
        }
    }
}

/// Reading.
impl RepairJob {
    fn read(&mut self, phase: Phase, from: u64, to: u64) -> Step {
        self.phase = phase;
        self.range = Range {
            from,
            to,
            ..Range::default()
        };
        self.read_on()
    }

    fn read_on(&self) -> Step {
        let at = self.range.from + u64_of(self.range.bytes.len());
        let left = match self.range.by_block {
            true => self.align,
            false => (self.range.to - at).min(STEP_BYTES),
        };
        let file = self.file.expect("it was opened first");
        Step::Run(Op::Read {
            file,
            offset: at,
            len: usize_of(left),
        })
    }

    fn read_some(&mut self, bytes: &[u8]) -> Step {
        self.range.bytes.extend_from_slice(bytes);
        let at = self.range.from + u64_of(self.range.bytes.len());
        let ends = bytes.is_empty() || !u64_of(bytes.len()).is_multiple_of(self.align);
        match ends || at >= self.range.to {
            true => self.range_read(),
            false => self.read_on(),
        }
    }

    fn read_refused(&mut self) -> Step {
        if !self.range.by_block {
            self.range.by_block = true;
            return self.read_on();
        }
        let at = self.range.from + u64_of(self.range.bytes.len());
        self.range.unreadable.push(at);
        self.read_some(&vec![0; usize_of(self.align)])
    }

    fn range_read(&mut self) -> Step {
        let bytes = std::mem::take(&mut self.range.bytes);
        match self.phase {
            Phase::ReadingFront => self.front_read(&bytes),
            Phase::ReadingTrailer => self.trailer_read(&bytes),
            Phase::ReadingFooter => self.footer_read(&bytes),
            Phase::Surveying => self.survey_on(&bytes),
            _ => self.copy_on(bytes),
        }
    }

    /// The identity that the file was made with. A sealed file's is made anew if it is bad: all
    /// of it is known.
    fn front_read(&mut self, bytes: &[u8]) -> Step {
        let found = FileIdentity::decode(bytes).ok();
        self.identity = found.filter(|identity| identity.salt == self.segment.salt);
        if !self.segment.is_sealed {
            return match self.identity {
                Some(_) => self.begin_survey(),
                None => Step::GiveUp(GivenUp::Gone),
            };
        }
        if self.found_len < self.align || !self.found_len.is_multiple_of(self.align) {
            return Step::GiveUp(GivenUp::Footer);
        }
        let (from, to) = (self.found_len - self.align, self.found_len);
        self.read(Phase::ReadingTrailer, from, to)
    }

    fn trailer_read(&mut self, bytes: &[u8]) -> Step {
        let trailer = bytes.last_chunk::<TRAILER_LEN>();
        let trailer = trailer.and_then(|bytes| Trailer::decode(bytes, &self.footer_of()).ok());
        let len = trailer.map(|trailer| trailer.total_len);
        let fits = |len: &u64| {
            *len <= self.found_len && *len <= FOOTER_BYTES_MAX && len.is_multiple_of(self.align)
        };
        match len.filter(fits) {
            Some(len) => self.read(Phase::ReadingFooter, self.found_len - len, self.found_len),
            None => Step::GiveUp(GivenUp::Footer),
        }
    }

    fn footer_read(&mut self, bytes: &[u8]) -> Step {
        match Footer::decode(bytes, &self.footer_of()) {
            Ok(footer) => {
                self.segment.end = footer.end;
                self.footer = Some(Box::new(footer));
                self.begin_survey()
            }
            Err(_) => Step::GiveUp(GivenUp::Footer),
        }
    }

    fn footer_of(&self) -> FooterOf {
        FooterOf {
            salt: self.segment.salt,
            sequence: self.sequence,
            group: self.group,
        }
    }

    fn begin_survey(&mut self) -> Step {
        let Facts {
            salt,
            first_frame,
            first_entry,
            start,
            end,
            ..
        } = self.segment;
        self.survey = Some(Survey::new(&SurveyOf {
            group: self.group,
            salt,
            first_frame,
            first_entry,
            start,
            end,
            data_end: self.footer.as_ref().map(|footer| footer.data_end),
            len: self.found_len,
        }));
        self.read(Phase::Surveying, first_frame, first_frame + STEP_BYTES)
    }

    fn survey_on(&mut self, bytes: &[u8]) -> Step {
        let survey = self.survey.as_mut().expect("it was begun");
        if !survey.feed(bytes) {
            let from = survey.next_read();
            return self.read(Phase::Surveying, from, from + STEP_BYTES);
        }
        let survey = self.survey.take().expect("it was begun");
        let begin_is_good = survey.begin_is_good();
        self.gaps = survey.into_gaps();
        if begin_is_good {
            return Step::Surveyed;
        }
        match self.make_front() {
            Some(front) => {
                self.front = front;
                Step::Surveyed
            }
            None => Step::GiveUp(GivenUp::Begin),
        }
    }

    /// What stands in the place of a bad `begin`. A base whose state nobody remembers has none
    /// again: its entries matter, and the footer says all else that it said.
    fn make_front(&mut self) -> Option<Front> {
        let Facts {
            salt,
            first_frame,
            first_entry,
            ..
        } = self.segment;
        let Some(begin) = &self.segment.begin else {
            let to = first_entry.filter(|_| self.footer.is_some())?;
            return Some(Front::Void(first_frame, to));
        };
        let body = begin.encode_body();
        let header = begin.header(salt, &body);
        let mut frame = header.encode().to_vec();
        frame.extend_from_slice(&body);
        frame.resize(header.frame_len(), 0);
        if let Some(gap) = self.gaps.first_mut() {
            gap.from = gap.from.max(first_frame + u64_of(frame.len()));
        }
        Some(Front::Made(first_frame, Buffer::from(frame)))
    }
}

/// Copying.
impl RepairJob {
    /// Makes the copy's file.
    pub(super) fn begin_copy(&mut self, owner: &Owner) -> Step {
        let facts = &self.segment;
        let identity = *self.identity.get_or_insert(FileIdentity {
            first_frame: u32::try_from(facts.first_frame).expect("at most 1 MiB"),
            cluster: owner.cluster,
            incarnation: owner.incarnation,
            group: self.group,
            sequence: self.sequence,
            salt: facts.salt,
            size: facts.len,
            recycled: facts.recycled,
        });
        self.len = match &self.footer {
            Some(_) => self.found_len,
            None => identity
                .size
                .max(self.found_len.next_multiple_of(self.align)),
        };
        let footer_len = self
            .footer
            .as_ref()
            .map_or(0, |footer| u64_of(footer.encoded_len(usize_of(self.align))));
        let gaps = std::mem::take(&mut self.gaps).into_iter();
        let fillers = gaps.map(|gap| Filler::new(self.group, facts.salt, self.len, gap));
        self.copying = Some(Copying::new(
            &identity,
            std::mem::take(&mut self.front),
            (facts.start, facts.end),
            self.len - footer_len,
            fillers.collect(),
        ));
        self.create()
    }

    fn create(&mut self) -> Step {
        self.phase = Phase::Creating;
        let align = usize_of(self.align);
        let identity = self.identity.as_ref().expect("it is known by now");
        Step::Run(Op::Create {
            path: self.copy_path(),
            len: self.len,
            preparation: Preparation::Preallocate,
            first: Buffer::aligned_copy(&identity.encode(), align),
        })
    }

    /// The next step of the copy, if what it needs is there.
    pub(super) fn goes_on(&mut self) -> Step {
        if self.copy.is_none() {
            return Step::Wait;
        }
        let copying = self.copying.as_mut().expect("it was begun");
        let Some((from, to)) = copying.next_range() else {
            return self.finish_copy();
        };
        if copying.wanted_below(to) {
            let was_waiting = self.phase == Phase::Waiting;
            self.phase = Phase::Waiting;
            let is_asked = was_waiting && self.asks > 0;
            return if is_asked { Step::Wait } else { Step::Ask };
        }
        if self.is_gone || copying.is_inside_a_gap(from, to) {
            return self.copy_on(vec![0; usize_of(to - from)]);
        }
        self.read(Phase::Reading, from, to)
    }

    fn copy_on(&mut self, bytes: Vec<u8>) -> Step {
        let unreadable = std::mem::take(&mut self.range.unreadable);
        let copying = self.copying.as_mut().expect("it was begun");
        let lost = unreadable
            .into_iter()
            .find(|&at| !copying.is_inside_a_gap(at, at + self.align));
        if let Some(at) = lost {
            return Step::GiveUp(GivenUp::Unreadable(at));
        }
        let Copied { offset, bytes } = match copying.copy(bytes) {
            Ok(copied) => copied,
            Err(at) => return Step::GiveUp(GivenUp::Copy(at)),
        };
        self.phase = Phase::Writing;
        let file = self.copy.expect("it was opened first");
        Step::Run(Op::Write {
            file,
            offset,
            data: Buffer::aligned_copy(&bytes, usize_of(self.align)),
        })
    }

    fn finish_copy(&mut self) -> Step {
        let copying = self.copying.as_ref().expect("it was begun");
        if let Err(at) = copying.check(self.footer.as_deref()) {
            return Step::GiveUp(GivenUp::Copy(at));
        }
        let Some(footer) = &mut self.footer else {
            self.phase = Phase::WaitingForUnlinks;
            return Step::Rename;
        };
        footer.blocks = copying.blocks().to_vec();
        let (offset, of) = (
            copying.end(),
            FooterOf {
                salt: self.segment.salt,
                sequence: self.sequence,
                group: self.group,
            },
        );
        let align = usize_of(self.align);
        let bytes = footer.encode(&of, align);
        self.phase = Phase::WritingFooter;
        let file = self.copy.expect("it was opened first");
        Step::Run(Op::Write {
            file,
            offset,
            data: Buffer::aligned_copy(&bytes, align),
        })
    }

    fn protect(&mut self) -> Step {
        self.phase = Phase::Protecting;
        let (path, read_only) = (self.copy_path(), true);
        Step::Run(Op::Protect { path, read_only })
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

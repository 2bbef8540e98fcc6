//! Staging: entries, cuts and bases are checked, ordered, and gathered into writes.

use std::time::Duration;

use highwater_record::{Buffer, Offset};

use super::{Active, Group, InFlight};
use crate::config::{BODY_BYTES_MAX, SNAPSHOT_BYTES_MAX, WRITE_BYTES_MAX};
use crate::entry::{Base, Entry, EntryKind, HardState, NewEntry, Position};
use crate::error::{AppendError, CutError, HardStateError};
use crate::format::begin::{Begin, EPOCHS_MAX, Reason};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_LEN, LAG_NONE, frame_len};
use crate::group::marks::Marks;
use crate::group::segment::{Segment, SegmentState};
use crate::group::written::WrittenSums;
use crate::ids::{LogIndex, Sequence, Term, WriteId};
use crate::points::Points;
use crate::prepare::{ASKED_AHEAD, Prepared};
use crate::scan::{position_after, timestamp_of};

/// Something that waits for its write.
#[derive(Debug)]
pub(crate) enum Staged {
    /// A file is to be begun.
    Begin(BeginPlan),
    /// An entry, with its header but for salt and watermark.
    Entry {
        write: WriteId,
        header: FrameHeader,
        body: Buffer,
    },
}

impl Staged {
    /// The oldest write that is not durable before this is.
    pub(crate) const fn first_write(&self) -> WriteId {
        match self {
            Staged::Begin(plan) => plan.first_write,
            Staged::Entry { write, .. } => *write,
        }
    }

    /// The write that it came with.
    pub(crate) const fn write(&self) -> WriteId {
        match self {
            Staged::Begin(plan) => plan.write,
            Staged::Entry { write, .. } => *write,
        }
    }
}

/// A `begin` to be written, and what it will hide.
#[derive(Debug)]
pub(crate) struct BeginPlan {
    pub(crate) write: WriteId,
    /// The oldest write that it stands for: it may have taken the place of another `begin` that
    /// was never written.
    pub(crate) first_write: WriteId,
    pub(crate) begin: Begin,
    /// Files that hold nothing of the log once it is durable.
    pub(crate) hides: Vec<Sequence>,
}

/// What was taken back before it was written.
#[derive(Debug, Default)]
struct Unstaged {
    /// The oldest write among it: persisted only with what takes its place.
    first_write: Option<WriteId>,
    /// Whether a `begin` was among it.
    begin: bool,
    /// What that was to hide.
    hides: Vec<Sequence>,
}

/// What a group has for the disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing, or it must wait: a write is in flight, or a term is not durable yet.
    Nothing,
    /// A file of at least this size, in bytes behind its identity.
    File(u64),
    /// A write can be made.
    Write,
}

/// Promises.
impl Group {
    /// Stages promises for the journal.
    pub(crate) fn stage_hard_state(
        &mut self,
        write: WriteId,
        hard: HardState,
    ) -> Result<(), HardStateError> {
        let last = self.writes.last();
        if write <= last {
            return Err(HardStateError::WriteId { write, last });
        }
        let promised = self.record.hard;
        let revotes =
            hard.term == promised.term && promised.vote.is_some() && promised.vote != hard.vote;
        if hard.term < promised.term || hard.term > Term::MAX || revotes {
            return Err(HardStateError::Regressed {
                found: hard.term,
                promised: promised.term,
            });
        }
        self.record.hard = hard;
        self.writes.push_journal(write);
        Ok(())
    }
}

/// Appends.
impl Group {
    /// Checks entries against the log's end and stages all of them, or none.
    pub(crate) fn stage_entries(
        &mut self,
        write: WriteId,
        entries: &[NewEntry],
    ) -> Result<(), AppendError> {
        let last = self.writes.last();
        if write <= last {
            return Err(AppendError::WriteId { write, last });
        }
        let mut end = self.end;
        let mut headers = Vec::with_capacity(entries.len());
        for entry in entries {
            let header = self.header_after(&end, entry)?;
            end = position_after(&header);
            headers.push(header);
        }
        self.writes.push(write);
        for (entry, header) in entries.iter().zip(headers) {
            self.stage_entry(write, entry, header);
        }
        Ok(())
    }

    /// The header of the entry that comes next after `end`.
    fn header_after(&self, end: &Position, entry: &NewEntry) -> Result<FrameHeader, AppendError> {
        self.check_next(end, entry)?;
        let mut header = FrameHeader {
            body_crc: entry.body_crc,
            body_len: u32::try_from(entry.body.len()).expect("checked against its limit"),
            kind: FrameKind::from(entry.kind),
            salt: 0,
            index: entry.id.index,
            term: entry.id.term,
            offset_span: entry.offset_span,
            base_offset: entry.base_offset,
            chain: end.chain,
            watermark_lag: LAG_NONE,
            append_time: entry.append_time,
        };
        header.chain = header.chain_after(self.id, end.chain);
        match entry.chain {
            Some(expected) if expected != header.chain => Err(AppendError::Diverged {
                index: entry.id.index,
                expected,
                found: header.chain,
            }),
            _ => Ok(header),
        }
    }

    fn check_next(&self, end: &Position, entry: &NewEntry) -> Result<(), AppendError> {
        let index = entry.id.index;
        if index != end.first() {
            return Err(AppendError::NotContiguous {
                last: end.before.index,
                found: index,
            });
        }
        let promised = self.record.hard.term.min(Term::MAX);
        if entry.id.term < end.before.term || entry.id.term > promised {
            return Err(AppendError::Term {
                index,
                found: entry.id.term,
                last: end.before.term,
                promised,
            });
        }
        if entry.base_offset != end.offset {
            return Err(AppendError::Offset {
                index,
                found: entry.base_offset,
                expected: end.offset,
            });
        }
        let span = entry.offset_span;
        let fits = (entry.kind == EntryKind::Data) == (span > 0)
            && end.offset.checked_advance(u64::from(span)).is_some();
        if !fits {
            return Err(AppendError::Span { index, span });
        }
        let bytes = entry.body.len();
        if bytes > BODY_BYTES_MAX {
            return Err(AppendError::TooLarge {
                index,
                bytes,
                max: BODY_BYTES_MAX,
            });
        }
        Ok(())
    }

    fn stage_entry(&mut self, write: WriteId, entry: &NewEntry, header: FrameHeader) {
        self.end = position_after(&header);
        self.marks.push(&self.end);
        self.epochs.push(entry.id, entry.base_offset);
        self.unsynced_bytes += entry.body.len();
        self.cache.push(Entry {
            id: entry.id,
            kind: entry.kind,
            base_offset: entry.base_offset,
            offset_span: entry.offset_span,
            append_time: entry.append_time,
            chain: header.chain,
            body_crc: entry.body_crc,
            body: entry.body.clone(),
        });
        self.staged.push_back(Staged::Entry {
            write,
            header,
            body: entry.body.clone(),
        });
    }
}

/// Cuts and bases.
impl Group {
    /// Cuts the log so that `first` is the next entry.
    pub(crate) fn stage_cut(&mut self, write: WriteId, first: LogIndex) -> Result<(), CutError> {
        let last = self.writes.last();
        if write <= last {
            return Err(CutError::WriteId { write, last });
        }
        if first <= self.commit {
            return Err(CutError::Committed {
                first,
                commit: self.commit,
            });
        }
        if first < self.start.first() || first > self.end.first() {
            return Err(CutError::Outside {
                first,
                start: self.start.first(),
                last: self.end.before.index,
            });
        }
        let before = self
            .position_before(first)
            .ok_or(CutError::Unknown { first })?;
        self.writes.push(write);
        let replaced = self.unstage_from(first);
        if first <= self.submitted.before.index {
            let first_write = replaced.first_write.unwrap_or(write);
            let mut hides = replaced.hides;
            hides.extend(self.hide_behind(&before));
            if mutant!(UnlinkBeforeBegin) {
                self.hidden.extend(hides.drain(..));
            }
            let begin = self.begin_at(before, Reason::Cut);
            self.staged.push_back(Staged::Begin(BeginPlan {
                write,
                first_write,
                begin,
                hides,
            }));
            self.submitted = before;
        } else {
            assert!(!replaced.begin, "what was never written needs no cut");
        }
        self.forget_from(first, &before);
        Ok(())
    }

    /// Replaces the log.
    pub(crate) fn stage_base(&mut self, write: WriteId, base: Base) -> Result<(), CutError> {
        let last = self.writes.last();
        if write <= last {
            return Err(CutError::WriteId { write, last });
        }
        check_base(&base)?;
        self.writes.push(write);
        let replaced = self.unstage_from(LogIndex::ZERO);
        let first_write = replaced.first_write.unwrap_or(write);
        let mut hides = replaced.hides;
        hides.extend(self.leave_segments(0));
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.through = None;
        }
        self.position = None;
        self.synced = LogIndex::ZERO;
        self.cuts += 1;
        self.holes.clear();
        self.start = base.start;
        self.end = base.start;
        self.submitted = base.start;
        self.log_start_offset = base.log_start_offset;
        self.marks = Marks::new(base.start);
        self.cache.cut(LogIndex::ZERO);
        self.to_seal.clear();
        self.commit = self.commit.max(base.start.before.index);
        self.base_state = base.state.clone();
        self.epochs = super::Epochs::new(base.epochs.clone());
        let begin = Begin {
            reason: Reason::Base,
            start: base.start,
            log_start_offset: base.log_start_offset,
            epochs: base.epochs,
            state: base.state,
        };
        self.staged.push_back(Staged::Begin(BeginPlan {
            write,
            first_write,
            begin,
            hides,
        }));
        Ok(())
    }

    /// The group is to be removed: what is staged is not written any more. Files that it would
    /// have hidden go with the others.
    pub(crate) fn forget_staged(&mut self) {
        let Unstaged { hides, .. } = self.unstage_from(LogIndex::ZERO);
        self.unused.extend(hides);
    }

    /// Where the entry before `first` ends, if that is known: not in a hole.
    pub(crate) fn position_before(&self, first: LogIndex) -> Option<Position> {
        if first == self.start.first() {
            return Some(self.start);
        }
        self.marks.at(first.before())
    }

    /// Takes back what is staged from `first` on.
    fn unstage_from(&mut self, first: LogIndex) -> Unstaged {
        let mut unstaged = Unstaged::default();
        while let Some(last) = self.staged.back() {
            let goes = match last {
                Staged::Entry { header, .. } => header.index >= first,
                Staged::Begin(plan) => plan.begin.start.first() > first,
            };
            if !goes {
                break;
            }
            unstaged.first_write = Some(last.first_write());
            match self.staged.pop_back() {
                Some(Staged::Begin(plan)) => {
                    unstaged.begin = true;
                    unstaged.hides.extend(plan.hides);
                }
                Some(Staged::Entry { body, .. }) => self.unsynced_bytes -= body.len(),
                None => {}
            }
        }
        unstaged
    }

    /// Hides entries behind `end` in the files. Gives those that hold nothing then.
    fn hide_behind(&mut self, end: &Position) -> Vec<Sequence> {
        let hidden_from = self
            .segments
            .partition_point(|segment| segment.start.before.index < end.before.index);
        // The lowest file stays if the cut keeps no entry: the base that is written then hides
        // it.
        let hides = self.leave_segments(hidden_from);
        if let Some(last) = self.segments.last_mut() {
            last.hide_behind(end);
        }
        hides
    }

    /// Takes files out of the log, from a place in their list on. What is open of them is
    /// closed, but for the file that may still be written.
    pub(crate) fn leave_segments(&mut self, from: usize) -> Vec<Sequence> {
        let active = self.active.as_ref().map(|active| active.file);
        let mut left = Vec::new();
        for segment in self.segments.drain(from..) {
            self.to_close
                .extend(segment.file.filter(|&file| Some(file) != active));
            left.push(segment.sequence);
        }
        left
    }

    fn forget_from(&mut self, first: LogIndex, before: &Position) {
        self.end = *before;
        if self.marks.at(before.before.index).is_some() {
            self.marks.cut(first);
        } else {
            self.marks = Marks::new(*before);
        }
        self.epochs.cut(first);
        self.cache.cut(first);
        self.cuts += 1;
        self.synced = self.synced.min(before.before.index);
        if let Some(position) = &mut self.position {
            position.index = position.index.min(before.before.index);
        }
        if let Some(through) = self
            .in_flight
            .as_mut()
            .and_then(|write| write.through.as_mut())
            && through.before.index >= first
        {
            *through = *before;
        }
        self.holes.retain(|&(hole, _)| hole < first);
        if let Some((_, last)) = self.holes.last_mut() {
            *last = (*last).min(first.before());
        }
        let end = self.end.before.index;
        self.to_seal.retain(|(_, snapshot)| snapshot.at <= end);
    }

    /// A `begin` at a place of the log. One that keeps no entry is a base of the same position.
    fn begin_at(&self, start: Position, reason: Reason) -> Begin {
        if start.before.index > self.start.before.index {
            return Begin {
                reason,
                start,
                log_start_offset: self.log_start_offset,
                epochs: Vec::new(),
                state: Buffer::new(),
            };
        }
        Begin {
            reason: Reason::Base,
            start,
            log_start_offset: self.log_start_offset,
            epochs: self.epochs.before(start.first()).to_vec(),
            state: self.base_state.clone(),
        }
    }
}

fn check_base(base: &Base) -> Result<(), CutError> {
    let invalid = |reason| Err(CutError::Base { reason });
    let offsets = base.start.offset.max(base.log_start_offset);
    if offsets > Offset::MAX || base.start.before.term > Term::MAX {
        return invalid("the position is out of range");
    }
    if base.state.len() > SNAPSHOT_BYTES_MAX || base.epochs.len() > EPOCHS_MAX {
        return invalid("the state or the epoch history is too large");
    }
    let ascends = base.epochs.is_sorted_by(|a, b| {
        a.term < b.term && a.first_index < b.first_index && a.first_offset <= b.first_offset
    });
    let before = base
        .epochs
        .iter()
        .all(|epoch| epoch.first_index < base.start.first());
    if !ascends || !before {
        return invalid("the epoch history does not ascend to the first entry");
    }
    Ok(())
}

/// Writes.
impl Group {
    /// What the disk is to be asked for.
    pub(crate) fn need(&self, now: Duration, align: u64) -> Need {
        let Some(front) = self.staged.front().filter(|_| self.in_flight.is_none()) else {
            return Need::Nothing;
        };
        let held_back = self.writes.journal_front();
        let held_back = held_back.filter(|_| !mutant!(EntriesBeforeTerm));
        if held_back.is_some_and(|journal| journal < front.write()) {
            return Need::Nothing;
        }
        let Some(first_write) = self.bytes_of_first_write(now) else {
            return Need::Write;
        };
        match self.preparing.ready() {
            Some(next) if next.room() >= first_write && next.may_be_written() => Need::Write,
            _ => Need::File(first_write.next_multiple_of(align)),
        }
    }

    /// How many bytes the next write needs at least behind a new file's identity; nothing if
    /// it goes into the file that is being written.
    fn bytes_of_first_write(&self, now: Duration) -> Option<u64> {
        let front = self.staged.front()?;
        let (begin_len, entry) = match (front, &self.active) {
            (Staged::Begin(plan), _) => (begin_len(&plan.begin), self.staged.get(1)),
            (entry, Some(active)) if !self.must_roll(active, entry, now) => return None,
            (entry, Some(_)) => (
                begin_len(&self.begin_at(self.submitted, Reason::Roll)),
                Some(entry),
            ),
            (entry, None) => (
                begin_len(&self.begin_at(self.submitted, Reason::Cut)),
                Some(entry),
            ),
        };
        let entry_len = match entry {
            Some(Staged::Entry { header, .. }) => u64_of(header.frame_len()),
            Some(Staged::Begin(_)) | None => 0,
        };
        Some(begin_len + entry_len)
    }

    fn must_roll(&self, active: &Active, entry: &Staged, now: Duration) -> bool {
        let Staged::Entry { header, .. } = entry else {
            return false;
        };
        let full = active.position + u64_of(header.frame_len()) > active.len;
        let aged = now.saturating_sub(active.begun_at) >= self.config.segment_age;
        // Only a file that is left can be repaired.
        let is_bad = self.has_hole_in(active.sequence);
        full || aged || is_bad
    }

    /// Whether the next file is better made now than when it is needed.
    pub(crate) fn wants_file_ahead(&self, now: Duration) -> bool {
        let ahead = self
            .active
            .as_ref()
            .is_some_and(|active| active.position > active.len / ASKED_AHEAD);
        ahead && self.preparing.can_start(now) && !self.dropping
    }

    /// Whether more of the next file is to be zeroed now.
    pub(crate) fn wants_zeros(&self) -> bool {
        match (&self.active, self.preparing.ready()) {
            (Some(active), Some(next)) => {
                next.wants_zeros(active.len, active.position) && !self.dropping
            }
            _ => false,
        }
    }

    /// How many bytes the frames of the next write take up.
    pub(crate) fn write_bytes(&self, now: Duration) -> usize {
        let begins = self.bytes_of_first_write(now).is_some();
        let (mut bytes, room) = match (&self.active, self.preparing.ready()) {
            (_, Some(prepared)) if begins => (self.begin_bytes(), prepared.room()),
            (Some(active), _) => (0, active.len - active.position),
            (None, _) => return 0,
        };
        let mut holds_entry = false;
        for staged in &self.staged {
            if let Staged::Entry { header, .. } = staged {
                let next = bytes + header.frame_len();
                let fits = u64_of(next) <= room && (next <= WRITE_BYTES_MAX || !holds_entry);
                if !fits {
                    break;
                }
                bytes = next;
                holds_entry = true;
            }
        }
        bytes
    }

    /// How many bytes the next `begin` takes up.
    fn begin_bytes(&self) -> usize {
        let begin = match self.staged.front() {
            Some(Staged::Begin(plan)) => plan.begin.body_len(),
            _ => self.begin_at(self.submitted, Reason::Cut).body_len(),
        };
        frame_len(begin)
    }

    /// Gathers the next write. [`need`](Group::need) said that it can be made.
    pub(crate) fn gather(&mut self, now: Duration) -> Gathered {
        let begin = self.next_begin(now);
        if begin.is_some() {
            self.close_active();
        }
        let begin = begin.map(|plan| self.begin_file(plan, now));
        let active = self.active.as_ref().expect("a file was begun");
        let mut gathered = Gathered {
            first_write: begin.as_ref().map_or_else(
                || {
                    self.staged
                        .front()
                        .expect("there is something to write")
                        .first_write()
                },
                |plan| plan.first_write,
            ),
            room: active.len - active.position,
            frames: Vec::new(),
            bytes: 0,
            begin: None,
        };
        if let Some(plan) = begin {
            gathered.push_begin(&plan.begin, active.salt);
            gathered.begin = Some(plan);
        }
        let held_back = self.writes.journal_front();
        let held_back = held_back.filter(|_| !mutant!(EntriesBeforeTerm));
        while let Some(Staged::Entry { write, header, .. }) = self.staged.front() {
            let must_wait = held_back.is_some_and(|journal| journal < *write);
            if must_wait || !gathered.has_room_for(header) {
                break;
            }
            let Some(Staged::Entry { header, body, .. }) = self.staged.pop_front() else {
                unreachable!("the front was an entry");
            };
            gathered.push(header, body);
        }
        self.stamp(&mut gathered);
        gathered
    }

    /// The `begin` that the next write starts with, if it starts a file.
    fn next_begin(&mut self, now: Duration) -> Option<BeginPlan> {
        let front = self.staged.front().expect("there is something to write");
        let write = front.write();
        let reason = match (front, &self.active) {
            (Staged::Begin(_), _) => None,
            (entry, Some(active)) if self.must_roll(active, entry, now) => Some(Reason::Roll),
            (_, Some(_)) => return None,
            (_, None) => Some(Reason::Cut),
        };
        let mut plan = match reason {
            Some(reason) => BeginPlan {
                write,
                first_write: write,
                begin: self.begin_at(self.submitted, reason),
                hides: Vec::new(),
            },
            None => match self.staged.pop_front() {
                Some(Staged::Begin(plan)) => plan,
                _ => unreachable!("the front was a begin"),
            },
        };
        plan.hides.append(&mut self.unused);
        Some(plan)
    }

    /// Leaves the file that was being written; closes it if it holds nothing of the log any
    /// more.
    fn close_active(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        self.write_bytes = Some(active.position / active.writes.max(1));
        match self.segment_mut(active.sequence) {
            Some(segment) => {
                segment.state = SegmentState::Closed;
                segment.sums = Some(active.sums);
            }
            None => self.to_close.push(active.file),
        }
    }

    /// Starts to write the file that was prepared.
    fn begin_file(&mut self, plan: BeginPlan, now: Duration) -> BeginPlan {
        let prepared: Prepared = self.preparing.take().expect("a file is ready");
        let identity = prepared.identity;
        let first_frame = u64::from(identity.first_frame);
        let start = plan.begin.start;
        assert_eq!(start, self.submitted, "a file begins where the log ends");
        self.segments.push(Segment {
            group: self.id,
            sequence: identity.sequence,
            salt: identity.salt,
            first_frame,
            len: identity.size,
            recycled: identity.recycled,
            reason: plan.begin.reason,
            start,
            end: start,
            points: Points::new(identity.size),
            written_end: first_frame,
            state: SegmentState::Active,
            protected: false,
            file: Some(prepared.file),
            mapping: None,
            mapped: Vec::new(),
            last_read: 0,
            snapshot_at: None,
            announced: false,
            sums: None,
        });
        self.active = Some(Box::new(Active {
            sequence: identity.sequence,
            file: prepared.file,
            salt: identity.salt,
            len: identity.size,
            position: first_frame,
            tail: Vec::new(),
            sums: WrittenSums::new(&identity),
            writes: 0,
            begun_at: now,
        }));
        plan
    }

    /// Stamps what only the moment of submission knows: the salt, and the watermark.
    fn stamp(&mut self, gathered: &mut Gathered) {
        let active = self.active.as_ref().expect("a file was begun");
        let is_first = gathered.begin.is_some();
        for frame in &mut gathered.frames {
            frame.header.salt = active.salt;
            let claims = !is_first || mutant!(BeginClaims);
            if frame.header.kind != FrameKind::Begin && claims {
                let synced = if mutant!(WriteClaimsItself) {
                    frame.header.index.before()
                } else {
                    self.synced
                };
                frame.header.watermark_lag = FrameHeader::lag(frame.header.index, synced);
            }
        }
    }

    /// Notes that a gathered write is on its way: where its entries lie, in memory and on disk.
    /// `data` holds `head` bytes that were there before, then the frames, then zeros.
    pub(crate) fn submit(
        &mut self,
        gathered: Gathered,
        data: &Buffer,
        head: usize,
        align: usize,
    ) -> &InFlight {
        let active = self.active.as_mut().expect("a file was begun");
        let file_offset = active.position - u64_of(head);
        let mut position = active.position;
        let mut at = head;
        let mut body_bytes = 0;
        let segment = self
            .segments
            .iter_mut()
            .find(|segment| segment.sequence == active.sequence);
        let segment = segment.expect("the file that is being written is among the files");
        for frame in &gathered.frames {
            let header = &frame.header;
            if let Some(kind) = header.kind.entry() {
                let body = at + HEADER_LEN..at + HEADER_LEN + header.body_len();
                body_bytes += header.body_len();
                let timestamp = timestamp_of(kind, &frame.body, header.append_time);
                segment.points.push(header, position, timestamp);
                self.cache.replace_body(header.index, data.slice(body));
                self.submitted = position_after(header);
            }
            at += header.frame_len();
            position += u64_of(header.frame_len());
        }
        segment.end = self.submitted;
        segment.written_end = position;
        active.position = position;
        active.writes += 1;
        active.tail.clear();
        active.tail.extend_from_slice(&data[at - at % align..at]);
        self.in_flight.insert(Box::new(InFlight {
            sequence: active.sequence,
            first_write: gathered.first_write,
            through: Some(self.submitted),
            begin: gathered.begin,
            body_bytes,
            buffer_bytes: data.pinned_bytes(),
            data: data.clone(),
            file: active.file,
            offset: file_offset,
            again: false,
        }))
    }
}

/// Frames that go to the disk in one write.
#[derive(Debug)]
pub(crate) struct Gathered {
    first_write: WriteId,
    /// How many bytes the file still has room for.
    room: u64,
    pub(crate) frames: Vec<GatheredFrame>,
    /// How many bytes the frames take up.
    pub(crate) bytes: usize,
    begin: Option<BeginPlan>,
}

/// A frame of a write.
#[derive(Debug)]
pub(crate) struct GatheredFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Buffer,
}

impl Gathered {
    fn has_room_for(&self, header: &FrameHeader) -> bool {
        let bytes = self.bytes + header.frame_len();
        let fits = u64_of(bytes) <= self.room;
        let holds_entry = self
            .frames
            .iter()
            .any(|frame| frame.header.kind != FrameKind::Begin);
        fits && (bytes <= WRITE_BYTES_MAX || !holds_entry)
    }

    fn push_begin(&mut self, begin: &Begin, salt: u64) {
        let body = begin.encode_body();
        let header = begin.header(salt, &body);
        self.push(header, Buffer::from(body));
    }

    fn push(&mut self, header: FrameHeader, body: Buffer) {
        self.bytes += header.frame_len();
        self.frames.push(GatheredFrame { header, body });
    }

    /// How many entries the write holds.
    pub(crate) fn entries(&self) -> u64 {
        let entries = self
            .frames
            .iter()
            .filter(|frame| frame.header.kind.entry().is_some());
        u64_of(entries.count())
    }

    /// Whether the write begins a file.
    pub(crate) const fn begins_file(&self) -> bool {
        self.begin.is_some()
    }
}

fn begin_len(begin: &Begin) -> u64 {
    u64_of(frame_len(begin.body_len()))
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

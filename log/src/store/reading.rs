//! Reads: from memory at once; from unsealed files by direct reads; from sealed files by
//! mappings whose windows are brought into memory first, or by direct reads.
//!
//! Whatever comes from a disk is verified, header and body, before anyone sees it.

use std::sync::Arc;

use highwater_record::{Buffer, Offset};

use super::{Action, Store};
use crate::alarm::{Alarm, Damage};
use crate::entry::{Entry, EntryKind};
use crate::error::ReadError;
use crate::event::{Event, Read, TimestampOffset};
use crate::format::frame::{FRAME_ALIGN, FrameHeader, HEADER_LEN, header_with_salt};
use crate::group::Group;
use crate::group::segment::{Segment, SegmentState};
use crate::ids::{GroupId, LogIndex, Sequence, Ticket};
use crate::paths;
use crate::scan::{checked_body, timestamp_of};
use crate::storage::{FileId, Mapping, Op, Output, Storage, StorageError};

/// The least that is read from a disk at a time, in bytes.
const READ_BYTES_MIN: usize = 64 << 10;

/// The most that is read from a disk at a time, in bytes, unless one entry is larger.
const READ_BYTES_MAX: usize = 8 << 20;

/// A read that is under way.
#[derive(Debug)]
pub(super) struct ReadJob {
    group: GroupId,
    ticket: Ticket,
    goal: Goal,
    /// The file it reads.
    sequence: Sequence,
    salt: u64,
    /// How often the group had been cut when the read began.
    cuts: u64,
    /// Where the next frame starts.
    position: u64,
    /// Where a header was passed that does not hold.
    bad_at: Option<u64>,
    /// How much to read from there.
    len: usize,
    /// The open file it reads from, which stays open until the read has ended.
    file: Option<FileId>,
    source: SourceState,
}

/// What a read looks for.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Entries from an index on.
    Entries { from: LogIndex, max_bytes: usize },
    /// The first entry at or above a timestamp.
    Timestamp(i64),
}

/// Where a read reads from, and how far that is.
#[derive(Debug, Clone)]
enum SourceState {
    Opening { write: bool },
    Reading { start: u64 },
    Mapping,
    Populating(Arc<dyn Mapping>),
}

/// Keeps a mapping alive as long as anyone holds bytes of it.
struct MappedFile(Arc<dyn Mapping>);

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl<S: Storage> Store<S> {
    /// Reads entries from an index on: at least one, and more up to `max_bytes` of bodies. What
    /// is staged or in the tail cache is given at once.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(
        &mut self,
        group: GroupId,
        from: LogIndex,
        max_bytes: usize,
        ticket: Ticket,
    ) -> Result<Read, ReadError> {
        if self.failed {
            return Err(ReadError::Failed);
        }
        let state = self.groups.get_mut(&group).filter(|it| !it.dropping);
        let state = state.ok_or(ReadError::UnknownGroup(group))?;
        check_range(state, from)?;
        state.read_at = Some(self.now);
        if let Some(entries) = state.cache.read(from, max_bytes) {
            let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
            self.counters.cache_hits += 1;
            self.counters.cache_bytes += u64_of(bytes);
            return Ok(Read::Ready(entries));
        }
        let Some(segment) = state.segment_of(from) else {
            return Err(ReadError::Damaged {
                index: from,
                reason: "no file holds it".to_owned(),
            });
        };
        let goal = Goal::Entries { from, max_bytes };
        let position = segment.points.for_index(from).map(|point| point.position);
        let job = new_job(state, segment, ticket, goal, position);
        self.counters.cache_misses += 1;
        self.start_read(job);
        Ok(Read::Pending)
    }

    pub(super) fn search_timestamp(
        &mut self,
        group: GroupId,
        sequence: Sequence,
        timestamp: i64,
        ticket: Ticket,
    ) {
        let state = &self.groups[&group];
        let segment = state
            .segments
            .iter()
            .find(|segment| segment.sequence == sequence);
        let segment = segment.expect("the caller chose one of the group's files");
        let point = segment.points.for_timestamp(timestamp);
        let position = point.map(|point| point.position);
        let job = new_job(state, segment, ticket, Goal::Timestamp(timestamp), position);
        self.start_read(job);
    }

    pub(super) fn readable(&self, group: GroupId) -> Result<&Group, ReadError> {
        if self.failed {
            return Err(ReadError::Failed);
        }
        let state = self.groups.get(&group).filter(|group| !group.dropping);
        state.map(Box::as_ref).ok_or(ReadError::UnknownGroup(group))
    }

    fn start_read(&mut self, mut job: ReadJob) {
        let id = self.next_job;
        self.next_job += 1;
        self.read_clock += 1;
        let clock = self.read_clock;
        let map_sealed = self.config.map_sealed;
        let group = job.group;
        let segment = self
            .segment_of_job(&job)
            .expect("the read begins in this file");
        segment.last_read = clock;
        let mapped = map_sealed && segment.state == SegmentState::Sealed;
        let (mapping, file) = (segment.mapping.clone(), segment.file);
        // Whoever seals it later writes by the same id.
        let write = !segment.protected;
        let path = paths::segment(group, segment.sequence);
        let op = match (mapped, mapping, file) {
            (true, Some(mapping), _) => populate(&mut job, mapping),
            (true, None, _) => {
                job.source = SourceState::Mapping;
                Op::Map { path }
            }
            (false, _, Some(file)) => {
                self.hold(&mut job, file);
                self.read_op(&mut job, file)
            }
            (false, _, None) => {
                job.source = SourceState::Opening { write };
                Op::Open { path, write }
            }
        };
        self.jobs.insert(id, job);
        self.submit(Action::Read(id), op);
    }

    fn segment_of_job(&mut self, job: &ReadJob) -> Option<&mut Segment> {
        let state = self.groups.get_mut(&job.group)?;
        state.segment_mut(job.sequence)
    }

    fn read_op(&self, job: &mut ReadJob, file: FileId) -> Op {
        let align = u64_of(self.align);
        let offset = job.position - job.position % align;
        let lead = usize::try_from(job.position - offset).expect("shorter than the alignment");
        job.source = SourceState::Reading { start: offset };
        Op::Read {
            file,
            offset,
            len: (lead + job.len).next_multiple_of(self.align),
        }
    }

    pub(super) fn read_completed(&mut self, id: u64, result: Result<Output, StorageError>) {
        let mut job = self
            .jobs
            .remove(&id)
            .expect("a read is known while it is under way");
        let is_gone = self
            .groups
            .get(&job.group)
            .is_none_or(|state| state.dropping || state.cuts != job.cuts);
        let output = match result {
            Ok(output) => output,
            Err(StorageError::ReadOnly { path }) if job.opens_for_writing() => {
                // It was sealed meanwhile.
                job.source = SourceState::Opening { write: false };
                self.jobs.insert(id, job);
                return self.submit(Action::Read(id), Op::Open { path, write: false });
            }
            Err(error) => return self.finish_read(&job, Err(read_error(&job, error))),
        };
        let next = match (job.source.clone(), output) {
            (SourceState::Opening { write }, Output::Opened { file, .. }) => {
                self.hold(&mut job, file);
                self.keep_open(&job, file, write);
                if is_gone {
                    return self.finish_read(&job, Err(ReadError::Cut));
                }
                self.read_op(&mut job, file)
            }
            (SourceState::Mapping, Output::Mapped(mapping)) => {
                self.keep_mapped(&job, &mapping);
                populate(&mut job, mapping)
            }
            (SourceState::Reading { start }, Output::Read(bytes)) if !is_gone => {
                match self.parse(&mut job, &bytes, start) {
                    Parsed::Done(found) => return self.finish_read(&job, found),
                    Parsed::More => {
                        let file = job.file.expect("it was just read from");
                        self.read_op(&mut job, file)
                    }
                }
            }
            (SourceState::Populating(mapping), _) if !is_gone => {
                let whole = Buffer::from_owner(MappedFile(Arc::clone(&mapping)));
                let end = window_end(&job, whole.len());
                let window = whole.slice(to_usize(job.position).min(end)..end);
                let start = job.position;
                match self.parse(&mut job, &window, start) {
                    Parsed::Done(found) => return self.finish_read(&job, found),
                    Parsed::More => populate(&mut job, mapping),
                }
            }
            _ => return self.finish_read(&job, Err(ReadError::Cut)),
        };
        self.jobs.insert(id, job);
        self.submit(Action::Read(id), next);
    }

    /// Makes what it can of the bytes that were read, which start at `start` in the file.
    fn parse(&mut self, job: &mut ReadJob, bytes: &Buffer, start: u64) -> Parsed {
        let state = &self.groups[&job.group];
        let segment = state.segments.iter().find(|it| it.sequence == job.sequence);
        let Some(segment) = segment else {
            return Parsed::Done(Err(ReadError::Cut));
        };
        let mut walk = Walk {
            bytes,
            start,
            salt: job.salt,
            last: segment.last().min(state.synced),
            position: job.position,
            bad_at: job.bad_at,
        };
        let parsed = match job.goal {
            Goal::Entries { from, max_bytes } => walk.entries(from, max_bytes),
            Goal::Timestamp(timestamp) => walk.timestamp(timestamp),
        };
        let position = walk.position;
        job.bad_at = walk.bad_at;
        let bad_at = walk.bad_at.unwrap_or(position);
        match parsed {
            Walked::Entries(entries) => {
                self.count_read(job, &entries);
                Parsed::Done(Ok(Found::Entries(entries)))
            }
            Walked::Timestamp(found) => Parsed::Done(Ok(Found::Timestamp(found))),
            Walked::Needs(len) => {
                let grown = position > job.position || len > job.len;
                job.position = position;
                job.len = len.max(READ_BYTES_MIN);
                if grown {
                    Parsed::More
                } else {
                    self.damaged(job, walk_index(job), bad_at)
                }
            }
            Walked::Bad(index) => self.damaged(job, index, bad_at),
        }
    }

    fn count_read(&mut self, job: &ReadJob, entries: &[Entry]) {
        let bytes = u64_of(entries.iter().map(|entry| entry.body.len()).sum());
        match job.source {
            SourceState::Populating(_) => self.counters.mapped_bytes += bytes,
            _ => self.counters.direct_bytes += bytes,
        }
    }

    /// A frame that was good once does not verify: reported by name and offset, quarantined,
    /// never served.
    fn damaged(&mut self, job: &ReadJob, index: LogIndex, position: u64) -> Parsed {
        self.alarm(Alarm {
            group: Some(job.group),
            path: paths::segment(job.group, job.sequence),
            offset: position,
            damage: Damage::Frame { index },
        });
        if let Some(state) = self.groups.get_mut(&job.group) {
            state.note_hole(index);
            self.journal.stage(job.group, None);
            self.note_damaged(job.group);
        }
        Parsed::Done(Err(ReadError::Damaged {
            index,
            reason: "its frame does not verify".to_owned(),
        }))
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.counters.alarms += 1;
        self.events.push(Event::Alarm(alarm));
    }

    fn finish_read(&mut self, job: &ReadJob, found: Result<Found, ReadError>) {
        self.let_go(job);
        let (group, ticket) = (job.group, job.ticket);
        let event = match (job.goal, found) {
            (Goal::Entries { .. }, Ok(Found::Entries(entries))) => Event::ReadDone {
                group,
                ticket,
                result: Ok(entries),
            },
            (Goal::Entries { .. }, Ok(Found::Timestamp(_))) => {
                unreachable!("entries were read, not searched")
            }
            (Goal::Entries { .. }, Err(error)) => Event::ReadDone {
                group,
                ticket,
                result: Err(error),
            },
            (Goal::Timestamp(timestamp), Ok(Found::Timestamp(None))) => {
                // Not in this file, though its largest timestamp promised it: what had it was
                // cut. Later files may have one.
                return self.search_behind(group, job.sequence, timestamp, ticket);
            }
            (Goal::Timestamp(_), found) => Event::TimestampDone {
                group,
                ticket,
                result: found.map(|found| match found {
                    Found::Timestamp(found) => found,
                    Found::Entries(_) => unreachable!("a timestamp was searched"),
                }),
            },
        };
        self.events.push(event);
    }

    /// Keeps a file open until the read has ended.
    fn hold(&mut self, job: &mut ReadJob, file: FileId) {
        job.file = Some(file);
        self.readers.begin(file);
    }

    fn let_go(&mut self, job: &ReadJob) {
        if let Some(file) = job.file
            && self.readers.end(file)
        {
            self.close(file);
        }
    }

    /// Leaves an opened file to later reads, unless the segment has one, or is to be written by
    /// one that this cannot write.
    fn keep_open(&mut self, job: &ReadJob, file: FileId, write: bool) {
        match self.segment_of_job(job) {
            Some(segment) if segment.file.is_none() && (write || segment.protected) => {
                segment.file = Some(file);
            }
            _ => self.close(file),
        }
        self.limit_open_files();
    }

    fn keep_mapped(&mut self, job: &ReadJob, mapping: &Arc<dyn Mapping>) {
        if let Some(segment) = self.segment_of_job(job) {
            segment.keep_mapped(mapping);
        }
        self.limit_open_files();
    }

    /// Whether any read of this file is under way.
    pub(super) fn is_being_read(&self, group: GroupId, sequence: Sequence) -> bool {
        let mut jobs = self.jobs.values();
        jobs.any(|job| (job.group, job.sequence) == (group, sequence))
    }

    /// Lets go of the sealed files that were read least recently, if too many are open.
    fn limit_open_files(&mut self) {
        let sealed = self.groups.values().flat_map(|group| &group.segments);
        let open = sealed.filter(|segment| is_open(segment));
        let mut open: Vec<(u64, GroupId, Sequence)> = open
            .map(|segment| (segment.last_read, segment.group, segment.sequence))
            .collect();
        let surplus = open.len().saturating_sub(self.config.open_files_max);
        if surplus == 0 {
            return;
        }
        open.sort_unstable();
        for (_, group, sequence) in open.into_iter().take(surplus) {
            let state = self.groups.get_mut(&group).expect("it was just listed");
            let segment = state.segment_mut(sequence).expect("it was just listed");
            segment.mapping = None;
            if let Some(file) = segment.file.take() {
                self.close(file);
            }
        }
    }
}

fn is_open(segment: &Segment) -> bool {
    segment.state == SegmentState::Sealed && (segment.mapping.is_some() || segment.file.is_some())
}

/// Refuses what the log does not hold.
fn check_range(state: &Group, from: LogIndex) -> Result<(), ReadError> {
    if from <= state.start.before.index {
        return Err(ReadError::BelowStart {
            start: state.start.first(),
            offset: state.start.offset,
        });
    }
    if from > state.end.before.index {
        return Err(ReadError::BeyondEnd {
            last: state.end.before.index,
            offset: state.end.offset,
        });
    }
    match state.hole_at(from) {
        Some(first) => Err(ReadError::Quarantined { first }),
        None => Ok(()),
    }
}

fn new_job(
    state: &Group,
    segment: &Segment,
    ticket: Ticket,
    goal: Goal,
    position: Option<u64>,
) -> ReadJob {
    let max_bytes = match goal {
        Goal::Entries { max_bytes, .. } => max_bytes,
        Goal::Timestamp(_) => READ_BYTES_MIN,
    };
    ReadJob {
        group: state.id,
        ticket,
        goal,
        sequence: segment.sequence,
        salt: segment.salt,
        cuts: state.cuts,
        position: position.unwrap_or(segment.first_frame),
        bad_at: None,
        len: max_bytes.clamp(READ_BYTES_MIN, READ_BYTES_MAX),
        file: None,
        source: SourceState::Opening { write: false },
    }
}

impl ReadJob {
    fn opens_for_writing(&self) -> bool {
        matches!(self.source, SourceState::Opening { write: true })
    }
}

fn populate(job: &mut ReadJob, mapping: Arc<dyn Mapping>) -> Op {
    let len = mapping.bytes().len();
    let end = window_end(job, len);
    let offset = to_usize(job.position).min(end);
    job.source = SourceState::Populating(Arc::clone(&mapping));
    Op::Populate {
        mapping,
        offset,
        len: end - offset,
    }
}

fn window_end(job: &ReadJob, len: usize) -> usize {
    to_usize(job.position).saturating_add(job.len).min(len)
}

fn walk_index(job: &ReadJob) -> LogIndex {
    match job.goal {
        Goal::Entries { from, .. } => from,
        Goal::Timestamp(_) => LogIndex::ZERO,
    }
}

/// What was made of what was read.
enum Parsed {
    Done(Result<Found, ReadError>),
    /// More bytes are needed, from the job's position on.
    More,
}

enum Found {
    Entries(Vec<Entry>),
    Timestamp(Option<TimestampOffset>),
}

/// Steps from frame to frame through bytes of a file.
struct Walk<'a> {
    bytes: &'a Buffer,
    start: u64,
    salt: u64,
    /// The last entry that may be given.
    last: LogIndex,
    /// Where the next frame starts.
    position: u64,
    /// Where the first header was that does not hold.
    bad_at: Option<u64>,
}

enum Walked {
    Entries(Vec<Entry>),
    Timestamp(Option<TimestampOffset>),
    /// So many bytes from the position on are needed.
    Needs(usize),
    /// The frame of this entry, at the position, does not verify.
    Bad(LogIndex),
}

impl Walk<'_> {
    fn entries(&mut self, from: LogIndex, max_bytes: usize) -> Walked {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0usize;
        let mut next = from;
        loop {
            let step = self.step(next, next > from);
            match step {
                Step::Skip(len) => self.position += len,
                Step::Entry(entry, len) => {
                    bytes = bytes.saturating_add(entry.body.len());
                    if !entries.is_empty() && bytes > max_bytes {
                        return Walked::Entries(entries);
                    }
                    next = entry.id.index.next();
                    let is_last = entry.id.index >= self.last;
                    entries.push(*entry);
                    self.position += len;
                    if is_last || bytes >= max_bytes {
                        return Walked::Entries(entries);
                    }
                }
                // What was found is given; the rest is met by the next read.
                _ if !entries.is_empty() => return Walked::Entries(entries),
                Step::Short(len) => return Walked::Needs(len),
                Step::Bad => return Walked::Bad(next),
            }
        }
    }

    fn timestamp(&mut self, timestamp: i64) -> Walked {
        loop {
            let Some(header) = self.header() else {
                return Walked::Needs(HEADER_LEN);
            };
            let Some(header) = header else {
                return Walked::Bad(LogIndex::ZERO);
            };
            if header.index > self.last {
                return Walked::Timestamp(None);
            }
            if let Some(kind) = header.kind.entry() {
                let Some(bytes) = self.behind_header(&header) else {
                    return Walked::Needs(header.frame_len());
                };
                let Some(body) = checked_body(&header, &bytes) else {
                    return Walked::Bad(header.index);
                };
                let found = timestamp_of(kind, body, header.append_time);
                if kind == EntryKind::Data && found >= timestamp {
                    return Walked::Timestamp(Some(TimestampOffset {
                        index: header.index,
                        offset: header.base_offset,
                        timestamp: found,
                    }));
                }
            }
            let is_last = header.index >= self.last && header.kind.entry().is_some();
            self.position += u64_of(header.frame_len());
            if is_last {
                return Walked::Timestamp(None);
            }
        }
    }

    /// The frame at the position: skipped if it is below `next`, else it must be that entry.
    fn step(&mut self, next: LogIndex, must_follow: bool) -> Step {
        let header = match self.header() {
            None => return Step::Short(HEADER_LEN),
            Some(None) if must_follow => return Step::Bad,
            Some(None) => return self.pass_bad(),
            Some(Some(header)) => header,
        };
        let len = u64_of(header.frame_len());
        let Some(kind) = header.kind.entry().filter(|_| header.index >= next) else {
            return if must_follow {
                Step::Bad
            } else {
                Step::Skip(len)
            };
        };
        if header.index != next || header.index > self.last {
            return Step::Bad;
        }
        let Some(bytes) = self.behind_header(&header) else {
            return Step::Short(header.frame_len());
        };
        if checked_body(&header, &bytes).is_none() && !mutant!(ReadUnchecked) {
            return Step::Bad;
        }
        Step::Entry(
            Box::new(Entry {
                id: header.id(),
                kind,
                base_offset: header.base_offset,
                offset_span: header.offset_span,
                append_time: header.append_time,
                chain: header.chain,
                body_crc: header.body_crc,
                body: bytes.slice(..header.body_len()),
            }),
            len,
        )
    }

    /// Passes what is no frame, up to the next header: what lies behind a hole is good.
    fn pass_bad(&mut self) -> Step {
        self.bad_at.get_or_insert(self.position);
        let bytes = &self.bytes[self.at()..];
        let mut passed = FRAME_ALIGN;
        while let Some(candidate) = bytes.get(passed..).and_then(|it| it.first_chunk()) {
            if header_with_salt(candidate, self.salt).is_some() {
                break;
            }
            passed += FRAME_ALIGN;
        }
        Step::Skip(u64_of(passed))
    }

    /// The header at the position; nothing if the bytes end before, `Some(None)` if it does not
    /// hold.
    fn header(&self) -> Option<Option<FrameHeader>> {
        let at = self.at();
        let bytes = self.bytes.get(at..)?.first_chunk::<HEADER_LEN>()?;
        Some(header_with_salt(bytes, self.salt))
    }

    /// What lies behind the header, up to the frame's end; nothing if the bytes end before.
    fn behind_header(&self, header: &FrameHeader) -> Option<Buffer> {
        let at = self.at();
        let end = at.checked_add(header.frame_len())?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(at + HEADER_LEN..end))
    }

    fn at(&self) -> usize {
        to_usize(self.position.saturating_sub(self.start))
    }
}

enum Step {
    Skip(u64),
    Entry(Box<Entry>, u64),
    Short(usize),
    Bad,
}

fn read_error(job: &ReadJob, error: StorageError) -> ReadError {
    match error {
        StorageError::Resources { reason, .. } => ReadError::Busy { reason },
        StorageError::NotFound { .. } => ReadError::Cut,
        other => ReadError::Damaged {
            index: walk_index(job),
            reason: other.to_string(),
        },
    }
}

fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

/// The offset that a lookup by offset starts from.
impl<S: Storage> Store<S> {
    /// An entry at or before the one that holds an offset: near it for old entries, exact for
    /// those in memory. Reading on from there and skipping what ends at or before the offset
    /// finds it.
    ///
    /// # Errors
    ///
    /// [`ReadError::BelowStart`] and [`ReadError::BeyondEnd`] if the log does not hold it,
    /// [`ReadError::Quarantined`] if it lies in a hole between two files.
    pub fn index_of_offset(&self, group: GroupId, offset: Offset) -> Result<LogIndex, ReadError> {
        let state = self.readable(group)?;
        if offset < state.start.offset {
            return Err(ReadError::BelowStart {
                start: state.start.first(),
                offset: state.start.offset,
            });
        }
        if offset >= state.end.offset {
            return Err(ReadError::BeyondEnd {
                last: state.end.before.index,
                offset: state.end.offset,
            });
        }
        let mut cached = state.cache.iter();
        let in_cache = cached
            .next()
            .is_some_and(|first| first.base_offset <= offset);
        if in_cache {
            let mut entries = state.cache.iter();
            let found = entries.find(|entry| entry.end_offset() > offset);
            return Ok(found.expect("the log ends behind the offset").id.index);
        }
        let at = state
            .segments
            .partition_point(|segment| segment.end.offset <= offset);
        let segment = state
            .segments
            .get(at)
            .expect("a file holds what is not in memory");
        if offset < segment.start.offset {
            // It was at the end of the file below, or in a file that is gone. What follows it
            // is not what was asked for.
            let below = at.checked_sub(1).map(|below| state.segments[below].end);
            let first = below.unwrap_or(state.start).first();
            return Err(ReadError::Quarantined { first });
        }
        let point = segment.points.for_offset(offset);
        Ok(point.map_or(segment.start.first(), |point| point.index))
    }
}

//! Reading a file's frames from front to back, and searching behind the first bad one.
//!
//! Nothing is believed that a checksum does not cover, and nothing is kept in memory but a
//! window of the file and a few words for each entry.

use highwater_record::{Buffer, Offset, crc32c};

use crate::entry::{EntryKind, Position, Replayed};
use crate::format::FormatFault;
use crate::format::begin::Begin;
use crate::format::frame::{
    FRAME_ALIGN, FrameHeader, FrameKind, HEADER_LEN, header_with_any_salt, header_with_salt,
};
use crate::ids::GroupId;
use crate::points::Points;
use crate::recovery::view::{Found, Frames, Mark};
use crate::storage::StorageError;

/// How much of a file is read at a time, in bytes.
const WINDOW: usize = 1 << 20;

/// How much of a file is skipped at a time if it is zero.
const ZERO_STEP: usize = 4096;

/// Something that bytes can be read from, at any offset; fewer come at the end.
pub(crate) trait ReadAt {
    /// Reads from `offset`, which is a multiple of [`align`](ReadAt::align), as is `len`.
    fn read_at(&mut self, offset: u64, len: usize) -> Result<Buffer, StorageError>;

    /// What offsets and lengths are multiples of.
    fn align(&self) -> usize;
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("format version {found} is newer than {known}")]
    Newer { found: u16, known: u16 },
}

/// A file's bytes through a sliding window.
pub(crate) struct Window<'a, R> {
    source: &'a mut R,
    start: u64,
    bytes: Buffer,
}

impl<'a, R: ReadAt> Window<'a, R> {
    pub(crate) fn new(source: &'a mut R) -> Window<'a, R> {
        Window {
            source,
            start: 0,
            bytes: Buffer::new(),
        }
    }

    /// At most `len` bytes at `offset`; fewer at the end of the file.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        if !self.holds(offset, len) {
            self.fill(offset, len)?;
        }
        let from = self.within(offset).min(self.bytes.len());
        let to = from.saturating_add(len).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// Whatever the window holds from `offset` on, at least one byte unless the file ends.
    fn rest(&mut self, offset: u64) -> Result<&[u8], StorageError> {
        if !self.holds(offset, HEADER_LEN) {
            self.fill(offset, WINDOW)?;
        }
        let from = self.within(offset).min(self.bytes.len());
        Ok(&self.bytes[from..])
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        offset >= self.start && self.within(offset).saturating_add(len) <= self.bytes.len()
    }

    fn within(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), StorageError> {
        let align = self.source.align();
        let align_u64 = u64::try_from(align).expect("an alignment fits into 64 bits");
        let start = offset - offset % align_u64;
        let lead = usize::try_from(offset - start).expect("shorter than the alignment");
        let wanted = (lead + len).next_multiple_of(align);
        self.bytes = self
            .source
            .read_at(start, wanted.max(WINDOW.next_multiple_of(align)))?;
        self.start = start;
        Ok(())
    }
}

/// What was read of a file behind its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// What its first frame says, if it is good.
    pub(crate) begin: Option<Begin>,
    /// Its frames, for the recovery rule.
    pub(crate) frames: Frames,
    /// Where the run of good frames ends: where the first bad one starts, if there is one.
    pub(crate) run_end: u64,
    /// The end of the run, if the first frame is good.
    pub(crate) end: Option<Position>,
    /// Behind the last byte that is not zero, as far as anyone looked; of a recycled file behind
    /// its last frame.
    pub(crate) written_end: u64,
    /// Where entries lie, the good ones behind the run included.
    pub(crate) points: Points,
    /// The fronts of all good entries, the ones behind the run included.
    pub(crate) replay: Vec<Replayed>,
}

impl Scan {
    /// The place behind each good entry, in order.
    pub(crate) fn good_positions(&self) -> impl Iterator<Item = Position> {
        self.replay.iter().map(Replayed::position)
    }
}

/// Which frames belong to a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramesOf {
    pub(crate) group: GroupId,
    pub(crate) salt: u64,
    pub(crate) first_frame: u64,
    /// What is no frame of this file says nothing: it may be of the one that it was before.
    pub(crate) recycled: bool,
}

/// Reads all frames of a file of `len` bytes.
pub(crate) fn scan<R: ReadAt>(source: &mut R, of: &FramesOf, len: u64) -> Result<Scan, ScanError> {
    let mut scanner = Scanner::new(source, of, len);
    scanner.run()?;
    scanner.search()?;
    Ok(scanner.scan)
}

/// Reads a file's first frame.
pub(crate) fn scan_begin<R: ReadAt>(
    source: &mut R,
    of: &FramesOf,
    len: u64,
) -> Result<Option<Begin>, ScanError> {
    Scanner::new(source, of, len).begin()
}

struct Scanner<'a, R> {
    window: Window<'a, R>,
    of: FramesOf,
    position: u64,
    len: u64,
    scan: Scan,
}

impl<'a, R: ReadAt> Scanner<'a, R> {
    fn new(source: &'a mut R, of: &FramesOf, len: u64) -> Scanner<'a, R> {
        Scanner {
            window: Window::new(source),
            of: *of,
            position: of.first_frame,
            len,
            scan: Scan {
                begin: None,
                frames: Frames::default(),
                run_end: of.first_frame,
                end: None,
                written_end: of.first_frame,
                points: Points::new(len),
                replay: Vec::new(),
            },
        }
    }

    /// Accepts frames up to the first bad one.
    fn run(&mut self) -> Result<(), ScanError> {
        let Some(begin) = self.begin()? else {
            return Ok(());
        };
        let view = crate::recovery::view::BeginView::new(begin.reason, &begin.start);
        let mut end = begin.start;
        self.scan.frames.begin = Some(view);
        self.scan.begin = Some(begin);
        while let Some(frame) = self.entry(&end)? {
            end = position_after(&frame.header);
            self.accept(frame, &end);
        }
        self.scan.end = Some(end);
        self.scan.run_end = self.position;
        self.scan.written_end = self.position;
        Ok(())
    }

    fn begin(&mut self) -> Result<Option<Begin>, ScanError> {
        let Some(header) = self.header(self.position)? else {
            return Ok(None);
        };
        if header.kind != FrameKind::Begin {
            return Ok(None);
        }
        let decoded = self.body(&header, self.position, |body| Begin::decode(&header, body))?;
        let begin = decoded.map_or(Ok(None), newer_is_an_error)?;
        if begin.is_some() {
            self.position += frame_len_u64(&header);
        }
        Ok(begin)
    }

    /// The entry's frame at the current position, if it continues the log from `end`.
    fn entry(&mut self, end: &Position) -> Result<Option<Frame>, ScanError> {
        let Some(header) = self.header(self.position)? else {
            return Ok(None);
        };
        if !continues(&header, self.of.group, end) {
            return Ok(None);
        }
        self.frame(header, self.position)
    }

    fn frame(&mut self, header: FrameHeader, at: u64) -> Result<Option<Frame>, ScanError> {
        let Some(kind) = header.kind.entry() else {
            return Ok(None);
        };
        self.body(&header, at, |body| Frame {
            header,
            timestamp: timestamp_of(kind, body, header.append_time),
            replayed: Replayed::new(&header, kind, body),
        })
    }

    fn accept(&mut self, frame: Frame, end: &Position) {
        let header = &frame.header;
        let frames = &mut self.scan.frames;
        frames.run_claim = frames.run_claim.max(header.watermark());
        frames.run.push(Mark {
            term: header.term,
            chain: header.chain,
            end: end.offset,
        });
        self.scan
            .points
            .push(header, self.position, frame.timestamp);
        self.position += frame_len_u64(header);
        self.scan.replay.push(frame.replayed);
    }

    /// The header at `at`, if it holds and has the file's salt.
    fn header(&mut self, at: u64) -> Result<Option<FrameHeader>, ScanError> {
        let Some(bytes) = self.window.get(at, HEADER_LEN)?.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = newer_is_an_error(FrameHeader::decode(bytes))?;
        Ok(header.filter(|header| header.salt == self.of.salt))
    }

    /// What `read` makes of the body of the frame at `at`, if it and the zeros behind it hold.
    fn body<T>(
        &mut self,
        header: &FrameHeader,
        at: u64,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, ScanError> {
        let len = header.frame_len() - HEADER_LEN;
        let room = self.len.saturating_sub(at + HEADER_LEN_U64);
        if u64_of(len) > room {
            return Ok(None);
        }
        let bytes = self.window.get(at + HEADER_LEN_U64, len)?;
        Ok(checked_body(header, bytes).map(read))
    }

    /// Looks for frames behind the first bad one, at every position that a frame can have.
    fn search(&mut self) -> Result<(), ScanError> {
        while let Some(header) = self.next_header()? {
            let at = self.position;
            self.scan.written_end = self.scan.written_end.max(at + HEADER_LEN_U64);
            if self.is_misplaced(&header) {
                self.position += FRAME_ALIGN_U64;
                continue;
            }
            let frame = self.frame(header, at)?;
            self.note_found(&header, frame.is_some());
            match frame {
                Some(frame) => {
                    self.scan.points.push(&header, at, frame.timestamp);
                    self.position += frame_len_u64(&header);
                    self.scan.written_end = self.position;
                    self.scan.replay.push(frame.replayed);
                }
                None => self.position += FRAME_ALIGN_U64,
            }
        }
        let written_end = self.scan.written_end.next_multiple_of(FRAME_ALIGN_U64);
        self.scan.written_end = written_end.min(self.len.max(self.of.first_frame));
        Ok(())
    }

    /// Whether a header names an entry that lies further in front: a disk has written it here
    /// instead of what was to be here, or a second time.
    fn is_misplaced(&self, header: &FrameHeader) -> bool {
        let found = self.scan.frames.beyond.last().map(|found| found.index);
        let last = found.or(self.scan.end.map(|end| end.before.index));
        header.kind.entry().is_some() && last.is_some_and(|last| header.index <= last)
    }

    /// Steps to the next header with the file's salt.
    fn next_header(&mut self) -> Result<Option<FrameHeader>, ScanError> {
        while self.position + HEADER_LEN_U64 <= self.len {
            let salt = self.of.salt;
            let bytes = self.window.rest(self.position)?;
            let look = find_header(bytes, |header| header_with_salt(header, salt));
            if look.written > 0 && !self.of.recycled {
                let end = self.position + u64_of(look.written);
                self.scan.written_end = self.scan.written_end.max(end);
                self.scan.frames.residue = true;
            }
            self.position += u64_of(look.passed);
            if look.header.is_some() {
                self.scan.frames.residue = true;
                return Ok(look.header);
            }
            if look.passed == 0 {
                break;
            }
        }
        Ok(None)
    }

    fn note_found(&mut self, header: &FrameHeader, good: bool) {
        if header.kind.entry().is_none() {
            return;
        }
        let frames = &mut self.scan.frames;
        let follows = frames.beyond.last().is_some_and(|last: &Found| {
            last.good
                && last.index.next() == header.index
                && header.chain_after(self.of.group, last.chain) == header.chain
        });
        frames.beyond_claim = frames.beyond_claim.max(header.watermark());
        frames.beyond.push(Found {
            index: header.index,
            term: header.term,
            chain: header.chain,
            end: Offset(header.base_offset.0 + u64::from(header.offset_span)),
            good,
            follows,
        });
    }
}

const HEADER_LEN_U64: u64 = HEADER_LEN as u64;
const FRAME_ALIGN_U64: u64 = FRAME_ALIGN as u64;

/// An entry's frame, and what is kept of its body.
#[derive(Debug, Clone)]
struct Frame {
    header: FrameHeader,
    timestamp: i64,
    replayed: Replayed,
}

/// The place behind an entry.
pub(crate) fn position_after(header: &FrameHeader) -> Position {
    Position {
        before: header.id(),
        chain: header.chain,
        offset: Offset(header.base_offset.0 + u64::from(header.offset_span)),
    }
}

/// Whether a header is that of the entry that comes next after `end`.
pub(crate) fn continues(header: &FrameHeader, group: GroupId, end: &Position) -> bool {
    let spans = match header.kind.entry() {
        Some(EntryKind::Data) => header.offset_span > 0,
        Some(EntryKind::Control) => header.offset_span == 0,
        None => return false,
    };
    spans
        && header.index == end.first()
        && header.term >= end.before.term
        && header.base_offset == end.offset
        && header.chain_after(group, end.chain) == header.chain
}

/// The largest timestamp of an entry, in milliseconds: a batch's own, else when the leader
/// appended it.
pub(crate) fn timestamp_of(kind: EntryKind, body: &[u8], append_time: u32) -> i64 {
    /// Where a v2 batch has its largest timestamp, and how long its header is.
    const MAX_TIMESTAMP_AT: usize = 35;
    const BATCH_HEADER_LEN: usize = 61;
    let appended = i64::from(append_time) * 1_000;
    if kind == EntryKind::Control || body.len() < BATCH_HEADER_LEN {
        return appended;
    }
    let field = body[MAX_TIMESTAMP_AT..].first_chunk::<8>();
    match field.map(|bytes| i64::from_be_bytes(*bytes)) {
        Some(timestamp) if timestamp >= 0 => timestamp,
        _ => appended,
    }
}

fn frame_len_u64(header: &FrameHeader) -> u64 {
    u64_of(header.frame_len())
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

fn newer_is_an_error<T>(result: Result<T, FormatFault>) -> Result<Option<T>, ScanError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(FormatFault::Bad) => Ok(None),
        Err(FormatFault::Newer { found, known }) => Err(ScanError::Newer { found, known }),
    }
}

/// A frame's body, if it and the zeros up to the frame's end hold. `bytes` is all that lies
/// behind the header, and may be too short.
pub(crate) fn checked_body<'b>(header: &FrameHeader, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let bytes = bytes.get(..header.frame_len() - HEADER_LEN)?;
    let (body, padding) = bytes.split_at_checked(header.body_len())?;
    let padded = padding.iter().all(|&byte| byte == 0);
    let holds = crc32c(body) == header.body_crc || mutant!(BodyUnchecked);
    (padded && holds).then_some(body)
}

/// Whether any frame's header lies in a file, whatever its salt: asked if its identity is bad.
pub(crate) fn holds_any_header<R: ReadAt>(source: &mut R, len: u64) -> Result<bool, ScanError> {
    let mut window = Window::new(source);
    let mut position = 0;
    while position + HEADER_LEN_U64 <= len {
        let look = find_header(window.rest(position)?, header_with_any_salt);
        if look.header.is_some() {
            return Ok(true);
        }
        if look.passed == 0 {
            break;
        }
        position += u64_of(look.passed);
    }
    Ok(false)
}

/// What a look through some bytes gave.
struct Look {
    /// How many bytes lie before the header, or were looked at in vain.
    passed: usize,
    /// The header, if one was found.
    header: Option<FrameHeader>,
    /// Behind the last byte passed that is not zero.
    written: usize,
}

/// Finds the first header in `bytes`, at multiples of 8 from their front.
fn find_header(bytes: &[u8], is_header: impl Fn(&[u8; HEADER_LEN]) -> Option<FrameHeader>) -> Look {
    let mut look = Look {
        passed: 0,
        header: None,
        written: 0,
    };
    while let Some(candidate) = bytes[look.passed..].first_chunk::<HEADER_LEN>() {
        let ahead = bytes.get(look.passed..look.passed + ZERO_STEP);
        if ahead.is_some_and(all_zero) {
            // A header may start within the last bytes of the step and end behind it.
            look.passed += ZERO_STEP - HEADER_LEN + FRAME_ALIGN;
            continue;
        }
        look.header = is_header(candidate);
        if look.header.is_some() {
            break;
        }
        let word = &bytes[look.passed..look.passed + FRAME_ALIGN];
        look.passed += FRAME_ALIGN;
        if !all_zero(word) {
            look.written = look.passed;
        }
    }
    look
}

/// Whether all bytes are zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}

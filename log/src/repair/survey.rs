//! Looking through a file's bytes for what is not there any more.

use super::{Behind, Gap};
use crate::entry::Position;
use crate::format::frame::{FRAME_ALIGN, FrameHeader, FrameKind, HEADER_LEN, header_with_salt};
use crate::ids::{GroupId, LogIndex};
use crate::scan::{all_zero, checked_body, continues, position_after};

/// How many gaps of one file are noted; with more, what lies from the last of them on is one.
const GAPS_MAX: usize = 4_096;

/// How much is skipped at a time where a file is zero.
const ZERO_STEP: usize = 4_096;

/// Which frames a file should hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SurveyOf {
    pub(crate) group: GroupId,
    pub(crate) salt: u64,
    /// Where its first frame starts.
    pub(crate) first_frame: u64,
    /// Where that of its first entry does, if it is known: nothing before it is an entry.
    pub(crate) first_entry: Option<u64>,
    /// Before its first entry.
    pub(crate) start: Position,
    /// Behind its last.
    pub(crate) end: Position,
    /// Where that one's frame ends, if it is known.
    pub(crate) data_end: Option<u64>,
    /// The file's length.
    pub(crate) len: u64,
}

/// A file that is being looked through, front to back.
#[derive(Debug)]
pub(crate) struct Survey {
    of: SurveyOf,
    /// Bytes of the file as far as they were read and are still needed.
    bytes: Vec<u8>,
    /// Where the first of them lies in the file.
    start: u64,
    /// Where the next frame should start.
    position: u64,
    /// Behind the last good entry.
    at: Position,
    /// Where the bad bytes start, while the next good frame is searched.
    bad_from: Option<u64>,
    headers: Vec<(u64, FrameHeader)>,
    begin: Option<bool>,
    gaps: Vec<Gap>,
}

/// What stands at the position.
enum Look {
    /// Nobody knows before more was read.
    Wants,
    /// No frame.
    Nothing,
    /// A whole frame whose header holds, and its length.
    Frame(FrameHeader, usize),
}

impl Survey {
    pub(crate) fn new(of: &SurveyOf) -> Survey {
        Survey {
            of: *of,
            bytes: Vec::new(),
            start: of.first_frame,
            position: of.first_frame,
            at: of.start,
            bad_from: None,
            headers: Vec::new(),
            begin: None,
            gaps: Vec::new(),
        }
    }

    /// Where the bytes that come next are to be read.
    pub(crate) fn next_read(&self) -> u64 {
        self.start + u64_of(self.bytes.len())
    }

    /// Takes bytes from [`next_read`](Survey::next_read) on. Whether nothing more is needed.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        let is_last = bytes.is_empty() || self.next_read() >= self.end();
        while !self.is_done() {
            match self.look() {
                Look::Frame(header, len) => self.frame(&header, len),
                Look::Nothing => self.skip(),
                Look::Wants if is_last && self.rest().len() >= HEADER_LEN => self.skip(),
                Look::Wants if is_last => {
                    self.turn_bad();
                    return true;
                }
                Look::Wants => break,
            }
        }
        let passed = usize_of(self.position - self.start).min(self.bytes.len());
        self.bytes.drain(..passed);
        self.start += u64_of(passed);
        self.is_done() || is_last
    }

    /// Whether the file's first frame holds.
    pub(crate) fn begin_is_good(&self) -> bool {
        self.begin == Some(true)
    }

    /// What is bad, ascending.
    pub(crate) fn into_gaps(mut self) -> Vec<Gap> {
        let end = self.of.end;
        if self.at.before.index < end.before.index {
            let from = self.bad_from.unwrap_or(self.position);
            self.note_gap(from, self.of.data_end, end.before.index, Behind::End(end));
        }
        self.gaps
    }

    /// Whether nothing that follows matters. Behind a gap everything does: it may show that what
    /// ended the gap lay in the wrong place.
    fn is_done(&self) -> bool {
        let all_seen = self.at.before.index >= self.of.end.before.index;
        let is_at_end = self.gaps.is_empty() || self.position >= self.end();
        self.begin.is_some() && all_seen && self.bad_from.is_none() && is_at_end
    }

    fn end(&self) -> u64 {
        self.of.data_end.unwrap_or(self.of.len).min(self.of.len)
    }

    fn rest(&self) -> &[u8] {
        let at = usize_of(self.position - self.start).min(self.bytes.len());
        &self.bytes[at..]
    }

    fn look(&self) -> Look {
        let rest = self.rest();
        let Some(bytes) = rest.first_chunk::<HEADER_LEN>() else {
            return Look::Wants;
        };
        let Some(header) = header_with_salt(bytes, self.of.salt) else {
            return Look::Nothing;
        };
        let len = header.frame_len();
        if self.position + u64_of(len) > self.end() {
            Look::Nothing
        } else if rest.len() < len {
            Look::Wants
        } else {
            Look::Frame(header, len)
        }
    }

    fn frame(&mut self, header: &FrameHeader, len: usize) {
        let is_good = checked_body(header, &self.rest()[HEADER_LEN..len]).is_some();
        if self.begin.is_none() {
            if !is_good || header.kind != FrameKind::Begin {
                return self.pass_begin();
            }
            self.begin = Some(true);
            self.position += u64_of(len);
            return;
        }
        if is_good && (self.fits(header) || self.reopens(header)) {
            if let Some(from) = self.bad_from.take() {
                let (to, last) = (Some(self.position), header.index.before());
                self.note_gap(from, to, last, Behind::Frame(*header));
            }
            self.at = position_after(header);
            self.position += u64_of(len);
            return;
        }
        if header.kind.entry().is_some() && self.headers.len() < GAPS_MAX {
            self.headers.push((self.position, *header));
        }
        self.skip();
    }

    /// Whether a good frame is the next entry, or one that lies behind the gap that is open.
    fn fits(&self, header: &FrameHeader) -> bool {
        let has_gap = self.bad_from.is_some() && self.gaps.len() < GAPS_MAX;
        continues(header, self.of.group, &self.at)
            || (has_gap && self.lies_behind(&self.at, header))
    }

    fn lies_behind(&self, before: &Position, header: &FrameHeader) -> bool {
        header.kind.entry().is_some()
            && header.index > before.first()
            && header.index <= self.of.end.before.index
            && header.term >= before.before.term
            && header.base_offset >= before.offset
    }

    /// Whether a good frame is an entry that a gap was thought to lack, or to end with. Then a disk
    /// has written what ended that gap in the wrong place (F15), and the gap goes on up to here.
    fn reopens(&mut self, header: &FrameHeader) -> bool {
        let lacks = |gap: &Gap| gap.first() <= header.index && header.index <= gap.last.next();
        let Some(at) = self.gaps.iter().position(lacks) else {
            return false;
        };
        let before = self.gaps[at].before;
        let fits = continues(header, self.of.group, &before) || self.lies_behind(&before, header);
        if fits {
            let mut reopened = self.gaps.drain(at..);
            let gap = reopened.next().expect("it was just found");
            self.at = gap.before;
            self.bad_from = Some(gap.from);
            self.headers = gap.headers;
        }
        fits
    }

    fn turn_bad(&mut self) {
        self.begin.get_or_insert(false);
        self.bad_from.get_or_insert(self.position);
    }

    /// Passes a `begin` that is bad. What a disk has put in its place may be frames of this file.
    fn pass_begin(&mut self) {
        self.begin = Some(false);
        match self.of.first_entry {
            Some(at) => self.position = at,
            None => self.skip(),
        }
    }

    /// Passes what is no good frame.
    fn skip(&mut self) {
        if self.begin.is_none() {
            return self.pass_begin();
        }
        self.turn_bad();
        let zeros = self.rest().get(..ZERO_STEP).is_some_and(all_zero);
        self.position += u64_of(match zeros {
            // A header may start within the last bytes of the step and end behind it.
            true => ZERO_STEP - HEADER_LEN + FRAME_ALIGN,
            false => FRAME_ALIGN,
        });
    }

    fn note_gap(&mut self, from: u64, to: Option<u64>, last: LogIndex, behind: Behind) {
        self.gaps.push(Gap {
            before: self.at,
            last,
            from,
            to,
            behind,
            headers: std::mem::take(&mut self.headers),
        });
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

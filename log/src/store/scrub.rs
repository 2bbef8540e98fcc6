//! The scrubber: reads sealed files again, slowly, so that rot is found while other replicas
//! still have what it takes to mend it (F29).
//!
//! What is read comes from the disk where the backend can bypass the page cache, never from a
//! mapping. Each verified block (64 KiB) is compared with the checksum that the file's footer has
//! of it, so every byte of the file but the footer is looked at, identity and padding included;
//! the footer is under a checksum of its own. A bad block goes the way of a failed read: the
//! file is looked through frame by frame, what is bad is quarantined, and the file is repaired.

use std::time::Duration;

use highwater_record::crc32c;

use super::{Action, Store};
use crate::alarm::{Alarm, Damage};
use crate::format::footer::{
    FOOTER_BYTES_MAX, Footer, FooterOf, TRAILER_LEN, Trailer, VERIFIED_BLOCK,
};
use crate::group::segment::SegmentState;
use crate::ids::{GroupId, Sequence};
use crate::paths;
use crate::storage::{FileId, Op, Output, Storage, StorageError};

/// How much is read at a time, in bytes: few enough to be verified within a turn. A multiple of
/// the verified block.
const STEP_BYTES: u64 = 4 * VERIFIED_BLOCK as u64;

/// How long is waited if memory or descriptors are short.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Where the scrubber is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// When it goes on, if nothing is under way.
    next_at: Duration,
    /// When the pass over all files that is under way began.
    pass_from: Duration,
    /// The file that was looked at last.
    after: Option<(GroupId, Sequence)>,
    file: Option<ScrubbedFile>,
    /// What of it is to be read next: where, and how much.
    next: Option<(u64, u64)>,
}

#[derive(Debug)]
struct ScrubbedFile {
    of: FooterOf,
    phase: Phase,
    file: Option<FileId>,
    len: u64,
    /// What was read of the footer.
    footer: Vec<u8>,
    footer_at: u64,
    blocks: Vec<u32>,
    position: u64,
    /// A repaired copy has taken its place meanwhile.
    is_stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Trailer,
    Footer,
    Blocks,
}

/// What was made of a step.
enum Looked {
    /// More is to be read, at this offset, so many bytes.
    More(u64, u64),
    /// Nothing is wrong.
    Good,
    Bad(u64, Damage),
}

impl Scrub {
    /// A repaired copy has taken a file's place: what was read of the old one says nothing.
    pub(super) fn forget(&mut self, group: GroupId, sequence: Sequence) {
        if let Some(file) = &mut self.file
            && (file.of.group, file.of.sequence) == (group, sequence)
        {
            file.is_stale = true;
        }
    }
}

impl<S: Storage> Store<S> {
    /// Goes on where it is due.
    pub(super) fn drive_scrub(&mut self) {
        let is_off = self.config.scrub_bytes_per_second == 0;
        if is_off || self.now < self.scrub.next_at {
            return;
        }
        if self.scrub.file.is_some() {
            return self.scrub_reads();
        }
        match self.next_sealed(self.scrub.after) {
            Some(of) => self.scrub_file(of),
            None => self.end_pass(),
        }
    }

    /// When [`drive_scrub`](Store::drive_scrub) is due, if nothing completes before.
    pub(super) fn scrub_deadline(&self) -> Option<Duration> {
        let is_on = self.config.scrub_bytes_per_second > 0;
        let waits = self.scrub.file.is_none() || self.scrub.next.is_some();
        (is_on && waits).then_some(self.scrub.next_at)
    }

    /// All files were looked at.
    fn end_pass(&mut self) {
        self.scrub.after = None;
        self.counters.scrub_passes += 1;
        let next = self.scrub.pass_from + self.config.scrub_interval;
        self.scrub.next_at = next.max(self.now + BUSY_PAUSE);
        self.scrub.pass_from = self.scrub.next_at;
    }

    fn next_sealed(&self, after: Option<(GroupId, Sequence)>) -> Option<FooterOf> {
        let from = after.map_or(GroupId(0), |(group, _)| group);
        let groups = self.groups.range(from..).map(|(_, group)| group);
        let segments = groups
            .filter(|group| !group.dropping)
            .flat_map(|group| &group.segments);
        let mut sealed = segments.filter(|segment| {
            segment.state == SegmentState::Sealed
                && after.is_none_or(|after| after < (segment.group, segment.sequence))
        });
        sealed.next().map(|segment| segment.footer_of())
    }

    fn scrub_file(&mut self, of: FooterOf) {
        self.scrub.after = Some((of.group, of.sequence));
        self.scrub.file = Some(ScrubbedFile {
            of,
            phase: Phase::Opening,
            file: None,
            len: 0,
            footer: Vec::new(),
            footer_at: 0,
            blocks: Vec::new(),
            position: 0,
            is_stale: false,
        });
        let path = paths::segment(of.group, of.sequence);
        self.submit(Action::Scrub, Op::Open { path, write: false });
    }

    pub(super) fn scrub_completed(&mut self, result: Result<Output, StorageError>) {
        let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
        let Some(file) = &mut self.scrub.file else {
            return;
        };
        let state = self.groups.get(&file.of.group);
        let state = state.filter(|state| !state.dropping);
        let is_there = state.is_some_and(|state| {
            let mut segments = state.segments.iter();
            segments.any(|segment| segment.footer_of() == file.of)
        });
        if let Ok(Output::Opened { file: id, len, .. }) = &result {
            (file.file, file.len) = (Some(*id), *len);
        }
        if !is_there || file.is_stale {
            return self.end_scrub(Duration::ZERO);
        }
        let (looked, bytes) = match result {
            Ok(Output::Opened { .. }) => (file.opened(align), 0),
            Ok(Output::Read(bytes)) => {
                let len = u64::try_from(bytes.len()).expect("a step's length");
                (file.look(&bytes, align), len)
            }
            Ok(other) => unreachable!("a scrub was answered with {other:?}"),
            Err(StorageError::Resources { .. }) => return self.end_scrub(BUSY_PAUSE),
            Err(_) => (Looked::Bad(file.position, Damage::Block), 0),
        };
        self.counters.scrubbed_bytes += bytes;
        let rate = self.config.scrub_bytes_per_second;
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        match looked {
            Looked::More(offset, len) => {
                self.scrub.next = Some((offset, len));
                self.scrub.next_at = self.now + pause;
            }
            Looked::Good => self.end_scrub(pause),
            Looked::Bad(offset, damage) => {
                self.scrub_finds(offset, damage);
                self.end_scrub(pause);
            }
        }
    }

    fn scrub_reads(&mut self) {
        let file = self.scrub.file.as_ref().and_then(|it| it.file);
        let (Some(file), Some((offset, len))) = (file, self.scrub.next.take()) else {
            return;
        };
        let len = usize::try_from(len).expect("a step's length");
        self.submit(Action::Scrub, Op::Read { file, offset, len });
    }

    fn scrub_finds(&mut self, offset: u64, damage: Damage) {
        let file = self.scrub.file.as_ref().expect("the caller looked it up");
        let (group, sequence) = (file.of.group, file.of.sequence);
        self.counters.scrub_findings += 1;
        self.alarm(Alarm {
            group: Some(group),
            path: paths::segment(group, sequence),
            offset,
            damage,
        });
        // A footer is read at a start only, and written again there.
        if damage == Damage::Block {
            let state = self
                .groups
                .get_mut(&group)
                .expect("the caller looked it up");
            state.suspects.insert(sequence);
            self.note_damaged(group);
        }
    }

    fn end_scrub(&mut self, pause: Duration) {
        let file = self.scrub.file.take().and_then(|it| it.file);
        if let Some(file) = file {
            self.submit(Action::Forget, Op::Close { file });
        }
        self.scrub.next = None;
        self.scrub.next_at = self.now + pause;
        self.counters.scrubbed_files += 1;
    }
}

impl ScrubbedFile {
    fn opened(&mut self, align: u64) -> Looked {
        if self.len < align || !self.len.is_multiple_of(align) {
            return Looked::Bad(0, Damage::Footer);
        }
        self.phase = Phase::Trailer;
        Looked::More(self.len - align, align)
    }

    fn look(&mut self, bytes: &[u8], align: u64) -> Looked {
        match self.phase {
            Phase::Opening | Phase::Trailer => self.look_at_trailer(bytes, align),
            Phase::Footer => self.look_at_footer(bytes),
            Phase::Blocks => self.look_at_blocks(bytes),
        }
    }

    fn look_at_trailer(&mut self, bytes: &[u8], align: u64) -> Looked {
        let trailer = bytes.last_chunk::<TRAILER_LEN>();
        let trailer = trailer.and_then(|bytes| Trailer::decode(bytes, &self.of).ok());
        let len = trailer
            .map(|trailer| trailer.total_len)
            .filter(|&len| len <= self.len && len <= FOOTER_BYTES_MAX && len.is_multiple_of(align));
        let Some(len) = len else {
            return Looked::Bad(self.len - align, Damage::Footer);
        };
        self.phase = Phase::Footer;
        self.footer_at = self.len - len;
        Looked::More(self.footer_at, len.min(STEP_BYTES))
    }

    fn look_at_footer(&mut self, bytes: &[u8]) -> Looked {
        self.footer.extend_from_slice(bytes);
        let at = self.footer_at + u64_of(self.footer.len());
        if at < self.len && !bytes.is_empty() {
            return Looked::More(at, (self.len - at).min(STEP_BYTES));
        }
        let footer = std::mem::take(&mut self.footer);
        match Footer::decode(&footer, &self.of) {
            Ok(footer) => self.blocks = footer.blocks,
            Err(_) => return Looked::Bad(self.footer_at, Damage::Footer),
        }
        self.phase = Phase::Blocks;
        self.next_blocks()
    }

    fn next_blocks(&self) -> Looked {
        match self.footer_at - self.position {
            0 => Looked::Good,
            left => Looked::More(self.position, left.min(STEP_BYTES)),
        }
    }

    fn look_at_blocks(&mut self, bytes: &[u8]) -> Looked {
        let block = u64::from(VERIFIED_BLOCK);
        let first = usize::try_from(self.position / block).unwrap_or(usize::MAX);
        let expected = self.blocks.get(first..).unwrap_or_default();
        let chunks = bytes.chunks(usize::try_from(block).expect("64 KiB"));
        let mut at = self.position;
        for (chunk, number) in chunks.zip(0..) {
            if expected.get::<usize>(number) != Some(&crc32c(chunk)) {
                return Looked::Bad(at, Damage::Block);
            }
            at += u64_of(chunk.len());
        }
        if bytes.is_empty() {
            return Looked::Bad(self.position, Damage::Block);
        }
        self.position = at;
        self.next_blocks()
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

//! Verifies a file's frames as its bytes stream by, and sums their hashes by index range
//! (docs/format.md, Footer).

use std::hash::Hasher;

use highwater_record::{crc32c, crc32c_combine};
use twox_hash::XxHash3_64;

use crate::format::footer::{RANGE_ENTRIES, RangeHash};
use crate::format::frame::{FrameHeader, HEADER_LEN, header_with_salt};
use crate::ids::{GroupId, LogIndex};

/// Sums over a file's visible entries.
#[derive(Debug)]
pub(crate) struct RangeSums {
    group: GroupId,
    salt: u64,
    /// The entry that comes next.
    next: LogIndex,
    /// The last entry that counts: what lies behind it is hidden.
    last: LogIndex,
    /// How many bytes were fed.
    position: u64,
    /// Where the present frame starts.
    frame_at: u64,
    state: State,
    header: Vec<u8>,
    ranges: Vec<RangeHash>,
    data_end: u64,
}

/// A frame that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadFrame {
    pub(crate) position: u64,
    pub(crate) index: LogIndex,
}

enum State {
    /// Bytes before the first frame.
    Skip(u64),
    Header,
    Body(Box<Body>),
    Padding(usize),
    Done,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Skip(_) => "Skip",
            State::Header => "Header",
            State::Body(_) => "Body",
            State::Padding(_) => "Padding",
            State::Done => "Done",
        })
    }
}

struct Body {
    header: FrameHeader,
    left: usize,
    crc: u32,
    hash: XxHash3_64,
}

impl RangeSums {
    /// For a file whose first frame starts at `first_frame` and whose visible entries are
    /// `first` to `last`.
    pub(crate) fn new(
        group: GroupId,
        salt: u64,
        first_frame: u64,
        first: LogIndex,
        last: LogIndex,
    ) -> RangeSums {
        RangeSums {
            group,
            salt,
            next: first,
            last,
            position: 0,
            frame_at: first_frame,
            state: State::Skip(first_frame),
            header: Vec::with_capacity(HEADER_LEN),
            ranges: Vec::new(),
            data_end: first_frame,
        }
    }

    /// Takes the file's next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), BadFrame> {
        while !bytes.is_empty() {
            let used = self.step(bytes)?;
            self.position += u64::try_from(used).expect("a length in memory");
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Whether all visible entries were seen.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Where the frame that is awaited starts, and its index.
    pub(crate) const fn missing(&self) -> (u64, LogIndex) {
        (self.frame_at, self.next)
    }

    /// Where the last visible entry's frame ends.
    pub(crate) const fn data_end(&self) -> u64 {
        self.data_end
    }

    /// The sums, ascending by range.
    pub(crate) fn ranges(&self) -> &[RangeHash] {
        &self.ranges
    }

    /// Uses some bytes; gives how many, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, BadFrame> {
        match &mut self.state {
            State::Skip(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= u64::try_from(used).expect("a length in memory");
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(used)
            }
            State::Header => self.header_step(bytes),
            State::Body(body) => {
                let used = body.left.min(bytes.len());
                body.feed(&bytes[..used]);
                if body.left == 0 {
                    self.end_body()?;
                }
                Ok(used)
            }
            State::Padding(left) => {
                let used = (*left).min(bytes.len());
                if bytes[..used].iter().any(|&byte| byte != 0) {
                    return Err(self.bad());
                }
                *left -= used;
                if *left == 0 {
                    self.end_frame();
                }
                Ok(used)
            }
            State::Done => Ok(bytes.len()),
        }
    }

    fn header_step(&mut self, bytes: &[u8]) -> Result<usize, BadFrame> {
        let used = (HEADER_LEN - self.header.len()).min(bytes.len());
        self.header.extend_from_slice(&bytes[..used]);
        let Some(whole) = self.header.first_chunk::<HEADER_LEN>() else {
            return Ok(used);
        };
        let header = header_with_salt(whole, self.salt).ok_or(self.bad())?;
        let is_entry = header.kind.entry().is_some();
        if is_entry && header.index != self.next {
            return Err(self.bad());
        }
        let hash = entry_hash(self.group, &header);
        self.header.clear();
        self.state = State::Body(Box::new(Body {
            left: header.body_len(),
            header,
            crc: 0,
            hash,
        }));
        if header.body_len == 0 {
            self.end_body()?;
        }
        Ok(used)
    }

    fn end_body(&mut self) -> Result<(), BadFrame> {
        let bad = self.bad();
        let State::Body(body) = std::mem::replace(&mut self.state, State::Header) else {
            unreachable!("a body was being read");
        };
        if body.crc != body.header.body_crc {
            return Err(bad);
        }
        let header = body.header;
        let frame_len = u64::try_from(header.frame_len()).expect("at most 80 MiB");
        self.frame_at += frame_len;
        if header.kind.entry().is_some() {
            add_to_range(&mut self.ranges, header.index, body.hash.finish());
            self.next = header.index.next();
            self.data_end = self.frame_at;
        } else {
            self.data_end = self.data_end.max(self.frame_at);
        }
        let padding = header.frame_len() - HEADER_LEN - header.body_len();
        if padding == 0 {
            self.end_frame();
        } else {
            self.state = State::Padding(padding);
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        self.state = if self.next > self.last {
            State::Done
        } else {
            State::Header
        };
    }

    const fn bad(&self) -> BadFrame {
        BadFrame {
            position: self.frame_at,
            index: self.next,
        }
    }
}

/// Adds an entry's hash to the sum of its range, the last one or one behind.
pub(crate) fn add_to_range(ranges: &mut Vec<RangeHash>, index: LogIndex, digest: u64) {
    let range = index.0 / RANGE_ENTRIES;
    match ranges.last_mut() {
        Some(last) if last.range == range => {
            last.entries += 1;
            last.sum = last.sum.wrapping_add(digest);
        }
        _ => ranges.push(RangeHash {
            range,
            entries: 1,
            sum: digest,
        }),
    }
}

/// An entry's hash, as far as its header goes.
pub(crate) fn entry_hash(group: GroupId, header: &FrameHeader) -> XxHash3_64 {
    let mut hash = XxHash3_64::with_seed(group.0);
    hash.write(&header.replicated());
    hash
}

impl Body {
    fn feed(&mut self, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).expect("a length in memory");
        self.crc = crc32c_combine(self.crc, crc32c(bytes), len);
        self.hash.write(bytes);
        self.left -= bytes.len();
    }
}

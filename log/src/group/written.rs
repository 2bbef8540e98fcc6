//! What a footer says of a file's bytes, summed while they are laid out for the disk: a file that
//! one life has written from front to back need not be read again to be sealed.

use std::hash::Hasher;

use highwater_record::{BufferMut, crc32c, crc32c_combine};

use super::stage::GatheredFrame;
use crate::format::footer::{RangeHash, VERIFIED_BLOCK};
use crate::format::frame::{FRAME_ALIGN, HEADER_LEN};
use crate::format::identity::FileIdentity;
use crate::ids::{GroupId, LogIndex};
use crate::ranges::{add_to_range, entry_hash};

/// How much is copied, and then summed while it lies in the processor's cache.
const PIECE: usize = 32 << 10;

const BLOCK: usize = VERIFIED_BLOCK as usize;

/// The sums of a file that is being written.
#[derive(Debug, Clone)]
pub(crate) struct WrittenSums {
    group: GroupId,
    /// The last entry that is in them.
    last: Option<LogIndex>,
    /// Where the last frame ends.
    position: u64,
    /// CRC-32C of each verified block that is whole.
    blocks: Vec<u32>,
    /// Of the block that is not.
    crc: u32,
    filled: usize,
    ranges: Vec<RangeHash>,
}

/// What a footer says of the bytes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSums {
    /// CRC-32C of each verified block.
    pub(crate) blocks: Vec<u32>,
    /// What the entries hash to.
    pub(crate) ranges: Vec<RangeHash>,
    /// Where the last entry's frame ends.
    pub(crate) data_end: u64,
}

impl WrittenSums {
    /// Of a file that holds its identity and nothing else.
    pub(crate) fn new(identity: &FileIdentity) -> WrittenSums {
        let mut sums = WrittenSums {
            group: identity.group,
            last: None,
            position: 0,
            blocks: Vec::new(),
            crc: 0,
            filled: 0,
            ranges: Vec::new(),
        };
        sums.bytes(&identity.encode());
        sums
    }

    /// Lays a frame out behind what the buffer holds. Sums what is there from `from` on, and moves
    /// that; of small frames, many at a time.
    pub(crate) fn lay_out(
        &mut self,
        frame: &GatheredFrame,
        buffer: &mut BufferMut,
        from: &mut usize,
    ) {
        let header = &frame.header;
        buffer.extend_from_slice(&header.encode());
        let mut hash = entry_hash(self.group, header);
        let is_entry = header.kind.entry().is_some();
        for piece in frame.body.chunks(PIECE) {
            buffer.extend_from_slice(piece);
            if is_entry {
                hash.write(piece);
            }
            if buffer.len() - *from >= PIECE {
                self.sum(buffer, from);
            }
        }
        if is_entry {
            add_to_range(&mut self.ranges, header.index, hash.finish());
            self.last = Some(header.index);
        }
        let padding = header.frame_len() - HEADER_LEN - header.body_len();
        assert!(
            padding < FRAME_ALIGN,
            "frames are padded to their alignment"
        );
        buffer.put_zeros(padding);
    }

    /// Sums what the buffer holds from `from` on, and moves that to its end.
    pub(crate) fn sum(&mut self, buffer: &BufferMut, from: &mut usize) {
        self.bytes(&buffer.as_slice()[*from..]);
        *from = buffer.len();
    }

    fn bytes(&mut self, mut bytes: &[u8]) {
        self.position += u64::try_from(bytes.len()).expect("a length in memory");
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            let len = u64::try_from(now.len()).expect("a length in memory");
            self.crc = match self.filled {
                0 => crc32c(now),
                _ => crc32c_combine(self.crc, crc32c(now), len),
            };
            self.filled += now.len();
            if self.filled == BLOCK {
                self.blocks.push(self.crc);
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    /// The sums of the whole file, whose entries end with `last` and whose footer begins at
    /// `footer_at`; nothing if that is not what was written: some of it was taken back, or is by
    /// others.
    pub(crate) fn finish(mut self, last: LogIndex, footer_at: u64) -> Option<FileSums> {
        let padding = usize::try_from(footer_at.checked_sub(self.position)?).ok()?;
        if padding >= BLOCK || self.last.is_some_and(|written| written != last) {
            return None;
        }
        let data_end = self.position;
        self.bytes(&vec![0; padding]);
        if self.filled > 0 {
            self.blocks.push(self.crc);
        }
        Some(FileSums {
            blocks: self.blocks,
            ranges: self.ranges,
            data_end,
        })
    }
}

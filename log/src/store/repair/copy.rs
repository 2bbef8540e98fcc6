//! The bytes of a copy: those of the old file, with gaps filled.

use highwater_record::{Buffer, crc32c};

use super::job::STEP_BYTES;
use crate::entry::{Entry, Epoch, Position};
use crate::format::footer::{Footer, VERIFIED_BLOCK};
use crate::format::identity::FileIdentity;
use crate::ids::LogIndex;
use crate::points::Points;
use crate::ranges::RangeSums;
use crate::repair::fill::{FillError, Filler};

/// What the copy has where the file has its `begin`.
#[derive(Debug, Default)]
pub(super) enum Front {
    /// What the file has, which is good.
    #[default]
    Kept,
    /// A frame that was made anew, and where it goes.
    Made(u64, Buffer),
    /// Zeros from here to there: nobody knows what stood there.
    Void(u64, u64),
}

/// A copy in the making.
#[derive(Debug)]
pub(super) struct Copying {
    /// How far it is.
    position: u64,
    /// Where it ends: where the footer starts, if there is one.
    end: u64,
    /// What is known whatever the old file says, and where it lies.
    fixed: Vec<(u64, Buffer)>,
    /// Where zeros go, from here to there.
    void: (u64, u64),
    fillers: Vec<Filler>,
    blocks: Vec<u32>,
    /// Verifies each frame of the copy once more.
    sums: RangeSums,
}

/// Bytes to be written.
pub(super) struct Copied {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Copying {
    pub(super) fn new(
        identity: &FileIdentity,
        front: Front,
        (start, last): (Position, Position),
        end: u64,
        fillers: Vec<Filler>,
    ) -> Copying {
        let first_frame = u64::from(identity.first_frame);
        let mut fixed = vec![(0, Buffer::from(identity.encode()))];
        let mut void = (first_frame, first_frame);
        match front {
            Front::Kept => {}
            Front::Made(at, begin) => fixed.push((at, begin)),
            Front::Void(from, to) => void = (from, to),
        }
        Copying {
            position: 0,
            end,
            fixed,
            void,
            fillers,
            blocks: Vec::new(),
            sums: RangeSums::new(
                identity.group,
                identity.salt,
                void.1,
                start.first(),
                last.before.index,
            ),
        }
    }

    /// The bytes that come next; none if all are there.
    pub(super) fn next_range(&self) -> Option<(u64, u64)> {
        let to = (self.position + STEP_BYTES).min(self.end);
        (self.position < self.end).then_some((self.position, to))
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Where the last entry's frame ends.
    pub(super) fn written_end(&self) -> u64 {
        self.sums.data_end()
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        let fillers = self.fillers.iter();
        fillers
            .flat_map(|filler| filler.epochs().to_vec())
            .collect()
    }

    /// The place before each gap, and behind each entry that filled it.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&Position, &[Position])> {
        let fillers = self.fillers.iter();
        fillers.map(|filler| (&filler.gap().before, filler.filled()))
    }

    /// Where what filled the first gap lies.
    pub(super) fn points(&self) -> Option<&Points> {
        Some(self.fillers.first()?.points())
    }

    /// Whether more was supplied than the copy has room for; then, how long it is at least.
    pub(super) fn outgrown(&self) -> Option<u64> {
        let ends = self.fillers.iter().map(Filler::filled_to);
        ends.max().filter(|&end| end > self.end)
    }

    /// The entries that are missing next, first and last.
    pub(super) fn wanted(&self) -> Option<(LogIndex, LogIndex)> {
        self.fillers.iter().find_map(Filler::missing)
    }

    /// Whether entries are missing whose frames lie below `to`.
    pub(super) fn wanted_below(&self, to: u64) -> bool {
        let mut fillers = self.fillers.iter();
        fillers.any(|filler| filler.missing().is_some() && filler.filled_to() < to)
    }

    /// Whether bytes lie in a gap whole, so that the old ones do not matter.
    pub(super) fn is_inside_a_gap(&self, from: u64, to: u64) -> bool {
        let in_fixed = self.fixed.iter().any(|(at, bytes)| {
            let len = u64::try_from(bytes.len()).expect("a length in memory");
            *at <= from && to <= at + len
        });
        let in_void = self.void.0 <= from && to <= self.void.1;
        in_fixed
            || in_void
            || self.fillers.iter().any(|filler| {
                let gap = filler.gap();
                gap.from <= from && to <= gap.to.unwrap_or_else(|| filler.filled_to())
            })
    }

    /// How many bytes were supplied and are not copied yet.
    pub(super) fn supplied_bytes(&self) -> u64 {
        let fillers = self.fillers.iter();
        let ahead = fillers.map(|filler| {
            let from = self.position.max(filler.gap().from);
            filler.filled_to().saturating_sub(from)
        });
        ahead.sum()
    }

    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), FillError> {
        let index = entry.id.index;
        let mut fillers = self.fillers.iter_mut();
        let filler = fillers.find(|filler| filler.missing().is_some());
        filler.ok_or(FillError::NotAsked { index })?.add(entry)
    }

    /// The copy's next bytes, from what the old file has there: verified.
    ///
    /// # Errors
    ///
    /// Where a frame does not verify.
    pub(super) fn copy(&mut self, mut bytes: Vec<u8>) -> Result<Copied, u64> {
        let (from, to) = self.next_range().expect("the caller asked");
        bytes.resize(usize::try_from(to - from).expect("a step's length"), 0);
        for filler in &mut self.fillers {
            let (at, frames) = filler.overlay(from, to);
            lay_over(&mut bytes, from, at, frames);
        }
        for (at, fixed) in &self.fixed {
            lay_over(&mut bytes, from, *at, fixed);
        }
        let in_step = |at: u64| usize::try_from(at.clamp(from, to) - from).expect("a step's");
        bytes[in_step(self.void.0)..in_step(self.void.1)].fill(0);
        self.sums.feed(&bytes).map_err(|bad| bad.position)?;
        let block = usize::try_from(VERIFIED_BLOCK).expect("64 KiB");
        self.blocks.extend(bytes.chunks(block).map(crc32c));
        self.position = to;
        Ok(Copied {
            offset: from,
            bytes,
        })
    }

    /// Whether the copy has all entries, and those that its footer says.
    ///
    /// # Errors
    ///
    /// Where it has not.
    pub(super) fn check(&self, footer: Option<&Footer>) -> Result<(), u64> {
        let is_as_sealed = footer.is_none_or(|footer| {
            footer.ranges == self.sums.ranges() && footer.data_end == self.sums.data_end()
        });
        match self.sums.is_complete() && is_as_sealed {
            true => Ok(()),
            false => Err(self.sums.missing().0),
        }
    }
}

/// Puts `what`, which lies at `at` in the file, over bytes that lie at `from`.
fn lay_over(bytes: &mut [u8], from: u64, at: u64, what: &[u8]) {
    let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
    let Some(what) = what.get(skip..) else {
        return;
    };
    let start = usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX);
    let Some(room) = bytes.get_mut(start..) else {
        return;
    };
    let len = room.len().min(what.len());
    room[..len].copy_from_slice(&what[..len]);
}

//! What goes wrong with blocks at rest, and which may without more being lost than is survived.

use fastrand::Rng;
use highwater_log::storage::MemoryDisk;

use super::disk::Disk;

/// What is damaged at once.
const BLOCK: usize = 4_096;

/// What a disk has done to a block.
#[derive(Debug, Clone, Copy)]
enum How {
    /// A bit of it has flipped (F16, F29).
    Flip,
    /// It was never written, though that was reported (F14).
    Lost,
    /// What was meant for another place was written over it (F15).
    Misdirected,
}

/// Which block of a file it is.
#[derive(Debug, Clone, Copy)]
enum Which {
    /// The identity block.
    First,
    /// A group's `begin`.
    Second,
    /// The end of a footer, or of what there is.
    Last,
    /// Any.
    Any,
}

impl Disk {
    /// The disk as it is now, to be held against what it is later.
    pub(super) fn remember(&self) -> MemoryDisk {
        self.disk.fork()
    }

    /// Damages a block that was durable long ago and has not changed since; which one and how, if
    /// there is any.
    ///
    /// What was written a moment ago may not be damaged: nothing else on the disk says yet that it
    /// was there, so that recovery must take it for what a crash has torn. Of the two copies of
    /// the journal only `copy` is.
    pub(super) fn decay(&mut self, older: &MemoryDisk, copy: char, pick: u64) -> Option<String> {
        let mut rng = Rng::with_seed(pick);
        let is_journal = rng.u8(..5) == 0;
        let front = if is_journal { "journal/" } else { "groups/" };
        let files = self
            .disk
            .files()
            .into_iter()
            .filter(|path| path.starts_with(front) && (!is_journal || path.ends_with(copy)));
        let path = rng.choice(files.collect::<Vec<_>>())?;
        let (was, is) = (
            older.durable_contents(&path),
            self.disk.durable_contents(&path),
        );
        let (was, is) = (was.ok()?, is.ok()?);
        let old = old_blocks(&was, &is);
        let which = [Which::First, Which::Second, Which::Last, Which::Any][rng.usize(..4)];
        let block = match which {
            Which::First => old.first().copied()?,
            Which::Second => old.get(1).copied()?,
            Which::Last => old.last().copied()?,
            Which::Any => rng.choice(old.iter().copied())?,
        };
        let how = [How::Flip, How::Lost, How::Misdirected][rng.usize(..3)];
        let at = block * BLOCK;
        let damaged = match how {
            How::Flip => {
                let mut bytes = is[at..at + BLOCK].to_vec();
                let written = bytes.iter().rposition(|byte| *byte != 0)? + 1;
                bytes[rng.usize(..written)] ^= 1 << rng.u8(..8);
                bytes
            }
            How::Lost => vec![0; BLOCK],
            How::Misdirected => {
                let others: Vec<usize> = old.into_iter().filter(|it| *it != block).collect();
                let other = rng.choice(others)? * BLOCK;
                is[other..other + BLOCK].to_vec()
            }
        };
        let offset = u64::try_from(at).expect("files are small");
        self.disk.corrupt(&path, offset, &damaged).ok()?;
        Some(format!("{how:?} of {path} block {block}"))
    }
}

/// Blocks that are written, and the same in both.
fn old_blocks(was: &[u8], is: &[u8]) -> Vec<usize> {
    let pairs = was.chunks_exact(BLOCK).zip(is.chunks_exact(BLOCK));
    let is_old = |(was, is): (&[u8], &[u8])| was == is && is.iter().any(|byte| *byte != 0);
    let old = (0..).zip(pairs).filter(|(_, pair)| is_old(*pair));
    old.map(|(block, _)| block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_and_old_is_damaged() {
        let block = |fill: u8| vec![fill; BLOCK];
        let was = [block(1), block(2), block(0), block(4)].concat();
        let is = [block(1), block(3), block(0), block(4), block(5)].concat();
        assert_eq!(old_blocks(&was, &is), [0, 3]);
    }
}

//! A moment in the life of a disk, and the images that a power cut may leave of it.

use fastrand::Rng;
use highwater_log::storage::{
    CrashImages, Granularity, Keep, MemoryDisk, PendingChange, PendingKind, SECTOR,
};

/// What a page cache writes back at once, in bytes.
const PAGE: usize = 4_096;

/// How many images of a moment are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// All of them, if at one granularity there are at most so many.
    pub(crate) exhaustive: u128,
    /// Otherwise so many, drawn by chance.
    pub(crate) drawn: usize,
}

/// Shows the images of a moment: every prefix and every subset of what is pending, in sectors
/// and in pages, directory entries among it.
pub(crate) fn images(
    disk: &MemoryDisk,
    bound: Bound,
    rng: &mut Rng,
    mut look: impl FnMut(MemoryDisk),
) {
    let granularities = [
        (Granularity::Subsets { unit: PAGE }, PAGE),
        (Granularity::Prefixes { unit: SECTOR }, SECTOR),
        (Granularity::Subsets { unit: SECTOR }, SECTOR),
    ];
    for (granularity, unit) in granularities {
        let images = CrashImages::new(disk, granularity);
        match images.count() {
            Some(count) if count <= bound.exhaustive => {
                (0..count).for_each(|number| look(images.image(number)));
            }
            _ => (0..bound.drawn).for_each(|_| look(drawn(disk, unit, rng))),
        }
    }
}

/// An image in which each change is left by chance.
pub(crate) fn drawn(disk: &MemoryDisk, unit: usize, rng: &mut Rng) -> MemoryDisk {
    let image = disk.fork();
    image.power_cut(|change| left_of(change, unit, rng));
    image
}

/// Nothing, all, a front, or any units of a change.
fn left_of(change: &PendingChange, unit: usize, rng: &mut Rng) -> Keep {
    let units = match change.kind {
        PendingKind::Write { len, .. } => len.div_ceil(unit),
        PendingKind::Resize { .. } | PendingKind::Entries => 0,
    };
    let front = rng.usize(..=units);
    match rng.u8(..4) {
        0 => Keep::Nothing,
        1 if units > 0 => Keep::Units {
            unit,
            kept: (0..units).map(|nth| nth < front).collect(),
        },
        2 if units > 0 => Keep::Units {
            unit,
            kept: (0..units).map(|_| rng.bool()).collect(),
        },
        _ => Keep::Everything,
    }
}

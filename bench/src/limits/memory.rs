//! What one thread can do with bytes in memory: copy them, and sum them up. No byte of the log can
//! be touched at less cost.

use std::hint::black_box;

use anyhow::Result;
use highwater_record::crc32c;

use super::{Ceiling, Limits, repeat_for};
use crate::spread::Spread;

/// A buffer beyond the caches, in bytes: they hold up to about 100 MB, shared by many processors.
pub const MEMORY_BYTES: usize = 256 << 20;

/// A buffer that the caches hold, in bytes: a batch that has just been received.
pub const CACHED_BYTES: usize = 1 << 20;

/// A sum is that of a batch of this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Copies between two buffers of [`MEMORY_BYTES`].
///
/// # Errors
/// When there are too few runs.
pub fn copy(limits: &Limits) -> Result<Ceiling> {
    limits.check()?;
    Ok(copy_of(limits, MEMORY_BYTES))
}

/// Sums up batches that lie in a buffer of that many bytes.
///
/// # Errors
/// When there are too few runs.
pub fn sum(limits: &Limits, buffer_bytes: usize) -> Result<Ceiling> {
    limits.check()?;
    Ok(sum_of(limits, buffer_bytes))
}

fn copy_of(limits: &Limits, buffer_bytes: usize) -> Ceiling {
    let from = vec![0xA5_u8; buffer_bytes];
    let mut to = vec![0x5A_u8; buffer_bytes];
    let gb_per_second = gb_per_second(limits, buffer_bytes, || {
        black_box(&mut to).copy_from_slice(black_box(&from));
    });
    Ceiling::MemoryCopy {
        buffer_bytes,
        runs: limits.runs,
        gb_per_second,
    }
}

fn sum_of(limits: &Limits, buffer_bytes: usize) -> Ceiling {
    let buffer = vec![0xA5_u8; buffer_bytes];
    let gb_per_second = gb_per_second(limits, buffer_bytes, || {
        for batch in black_box(&buffer).chunks(BATCH_BYTES) {
            black_box(crc32c(batch));
        }
    });
    Ceiling::Crc32c {
        buffer_bytes,
        runs: limits.runs,
        gb_per_second,
    }
}

/// How fast a pass over so many bytes is. The first one, which pays for what has never been
/// touched before, does not count.
fn gb_per_second(limits: &Limits, bytes: usize, mut pass: impl FnMut()) -> Spread {
    pass();
    let gigabytes = bytes as f64 / 1e9;
    Spread::of((0..limits.runs).map(|_| gigabytes * repeat_for(limits.run, &mut pass)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHORT: Limits = Limits {
        runs: 5,
        run: Duration::from_millis(2),
    };

    /// No machine moves or sums bytes at a tenth of a gigabyte a second or at ten terabytes; one
    /// whose work the compiler has left out does.
    fn check(ceiling: &Ceiling) {
        let (Ceiling::MemoryCopy { gb_per_second, .. } | Ceiling::Crc32c { gb_per_second, .. }) =
            ceiling
        else {
            panic!("{ceiling:?}");
        };
        let Spread { median, min, max } = *gb_per_second;
        assert!(0.0 < min && min <= median && median <= max, "{ceiling:?}");
        assert!(max < 10_000.0, "{ceiling:?}");
    }

    #[test]
    fn memory_has_a_rate() {
        check(&copy_of(&SHORT, 1 << 20));
        check(&sum_of(&SHORT, CACHED_BYTES));
        check(&sum_of(&SHORT, 3 << 20));
    }

    #[test]
    fn too_few_runs_are_refused() {
        let few = Limits { runs: 1, ..SHORT };
        assert!(copy(&few).is_err());
        assert!(sum(&few, CACHED_BYTES).is_err());
    }
}

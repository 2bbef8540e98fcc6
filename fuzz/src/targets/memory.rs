//! How much memory bytes of others may cost.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a small input may cost, in bytes.
pub(crate) const SMALL: usize = 64 << 10;

/// Does something, which must not take more than so many bytes at once, over what was there before.
///
/// The count is of the whole process: nothing else may run meanwhile.
pub(crate) fn at_most<T>(bytes: usize, what: &str, does: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let done = does();
    let took = MEMORY.peak_usage().saturating_sub(before);
    assert!(took <= bytes, "{what} took {took} bytes, of {bytes}");
    done
}

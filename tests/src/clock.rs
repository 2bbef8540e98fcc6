//! The clock that the processes of a machine share.

use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that all processes of a machine share and nobody shifts; in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or_default()
}

//! When records are due at a fixed rate, and which of them count.

use std::time::Duration;

use tokio::time::Instant;

/// How long the last records may take after a load has ended.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// When a load begins, and from when to when it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: Instant,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

impl Window {
    pub(crate) fn new(start: Instant, warm_up: Duration, duration: Duration) -> Window {
        let from = start + warm_up;
        let to = from + duration;
        Window { start, from, to }
    }

    /// Whether this counts.
    pub(crate) fn holds(&self, at: Instant) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// When the record of this number is due, after the start: by the rate alone, however late those
/// before it were, so that a stall is not left out of what is measured (coordinated omission).
pub(crate) fn due(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_by_the_rate_and_not_by_what_came_before() {
        assert_eq!(due(0, 1_000), Duration::ZERO);
        assert_eq!(due(1, 1_000), Duration::from_millis(1));
        assert_eq!(due(3_000_000, 1_000_000), Duration::from_secs(3));
        assert_eq!(due(1, 3), Duration::from_nanos(333_333_333));
    }
}

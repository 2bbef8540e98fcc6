//! Latencies, in microseconds, by hdrhistogram.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart from longer ones, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Latencies that were seen.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What latencies were, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half were at most this.
    pub p50_us: u64,
    /// 90 of 100.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3);
        Self {
            histogram: histogram.expect("the bounds are in order and three digits are allowed"),
        }
    }
}

impl Latencies {
    /// Counts one. What takes longer than an hour counts as an hour.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros.max(1));
    }

    /// These too.
    pub(crate) fn merge(&mut self, other: &Latencies) {
        let added = self.histogram.add(&other.histogram);
        added.expect("all have the same bounds");
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// What they were; all zero if there was none.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |percent| self.histogram.value_at_percentile(percent);
        Percentiles {
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: self.histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let found = latencies.percentiles();
        assert_eq!(latencies.count(), 1_000);
        assert_eq!((found.p50_us, found.p90_us, found.p99_us), (500, 900, 990));
        assert_eq!(found.max_us, 1_000);
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().max_us >= LONGEST_US);
    }
}

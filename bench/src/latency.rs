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

/// The percentiles of a curve.
const CURVE: [f64; 13] = [
    0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999,
];

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

    /// Percentiles, each with the latency in microseconds that so many of 100 did not exceed, as far as
    /// there were enough latencies to tell; the last is that of all.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let count = self.count() as f64;
        // One at least that took longer; rounded, since a percentile is no exact number.
        let is_told = |percent: &f64| (count * (100.0 - percent)).round() >= 100.0;
        let told = CURVE.into_iter().filter(is_told);
        let at = |percent| (percent, self.histogram.value_at_percentile(percent));
        told.map(at)
            .chain((count > 0.0).then(|| (100.0, self.histogram.max())))
            .collect()
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
    fn a_curve_goes_as_far_as_there_are_latencies() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.curve(), []);
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let curve = latencies.curve();
        let tail: Vec<f64> = curve.iter().rev().take(3).map(|point| point.0).collect();
        assert_eq!(tail, [100.0, 99.9, 99.5], "one of a thousand is longer");
        assert_eq!(curve[2], (50.0, 500));
        assert!(curve.is_sorted_by(|one, other| one.1 <= other.1));
    }

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

//! What counts of the records that were acknowledged or read, alike in all loads.

use tokio::time::Instant;

use crate::latency::Latencies;
use crate::pace::Window;
use crate::produce::ProduceLoad;

/// When something counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counting {
    pub(crate) window: Window,
    is_open_loop: bool,
}

impl Counting {
    pub(crate) fn new(window: Window, load: &ProduceLoad) -> Counting {
        Counting {
            window,
            is_open_loop: load.rate.is_some(),
        }
    }
}

/// Records that have arrived somewhere.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// While it counted.
    pub(crate) records: u64,
    /// Of their values.
    pub(crate) bytes: u64,
    /// Since each was to be sent.
    pub(crate) latencies: Latencies,
}

impl Counted {
    /// One more of this size, that was to be sent then, has arrived now.
    pub(crate) fn add(
        &mut self,
        counting: &Counting,
        intended: Instant,
        now: Instant,
        bytes: usize,
    ) {
        let Counting {
            window,
            is_open_loop,
        } = counting;
        if window.holds(now) {
            self.records += 1;
            self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        // At a fixed rate the late ones count too: those that were to be sent in time.
        let counts = if *is_open_loop { intended } else { now };
        if window.holds(counts) {
            self.latencies.record(now - intended);
        }
    }

    /// These too.
    pub(crate) fn merge(&mut self, other: &Counted) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.latencies.merge(&other.latencies);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// It counts from now on for an hour, and began an hour ago.
    fn counting(is_open_loop: bool) -> Counting {
        const HOUR: Duration = Duration::from_secs(3_600);
        let now = Instant::now();
        Counting {
            window: Window::new(now - HOUR, HOUR, HOUR),
            is_open_loop,
        }
    }

    #[test]
    fn what_arrives_counts_now_and_its_latency_when_it_was_to_be_sent() {
        let early = Instant::now() - Duration::from_secs(5);
        let (open, closed) = (counting(true), counting(false));
        let mut counted = Counted::default();
        counted.add(&open, early, Instant::now(), 100);
        assert_eq!((counted.records, counted.bytes), (1, 100));
        assert_eq!(counted.latencies.count(), 0, "it was due in the warm-up");
        counted.add(&closed, early, Instant::now(), 100);
        assert_eq!(counted.latencies.count(), 1);
        let mut all = Counted::default();
        all.merge(&counted);
        all.merge(&counted);
        assert_eq!((all.records, all.bytes), (4, 400));
        assert_eq!(all.latencies.count(), 2);
        assert!(all.latencies.percentiles().p50_us >= 4_990_000);
    }
}

//! How many records were acknowledged, and how long none was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts acknowledgements, by partition.
#[derive(Debug)]
pub(crate) struct Acks {
    count: AtomicU64,
    partitions: Mutex<Vec<Gaps>>,
}

/// When a partition acknowledged, in nanoseconds of the shared clock.
#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    last: Option<u64>,
    longest: u64,
    /// All gaps longer than [`GAP_NANOS`] together.
    long: u64,
}

/// A partition that acknowledges nothing for so long is counted as unavailable.
const GAP_NANOS: u64 = 1_000_000_000;

/// How long partitions acknowledged nothing, though there was always something to acknowledge.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outages {
    /// The longest time of any partition, in seconds.
    pub(crate) longest_s: f64,
    /// All times longer than a second, by partition on average, in seconds.
    pub(crate) mean_s: f64,
}

impl Acks {
    pub(crate) fn new(partitions: usize) -> Self {
        Self {
            count: AtomicU64::new(0),
            partitions: Mutex::new(vec![Gaps::default(); partitions]),
        }
    }

    fn partitions(&self) -> MutexGuard<'_, Vec<Gaps>> {
        let partitions = self.partitions.lock();
        partitions.unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was acknowledged.
    pub(super) fn add(&self, partition: usize, at: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let gaps = &mut self.partitions()[partition];
        let gap = gaps.last.map_or(0, |last| at.saturating_sub(last));
        gaps.last = gaps.last.max(Some(at));
        gaps.longest = gaps.longest.max(gap);
        if gap > GAP_NANOS {
            gaps.long += gap;
        }
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long there were none.
    pub(crate) fn outages(&self) -> Outages {
        let partitions = self.partitions();
        let seconds = |nanos: u64| std::time::Duration::from_nanos(nanos).as_secs_f64();
        let longest = partitions.iter().map(|gaps| gaps.longest).max();
        let sum: u64 = partitions.iter().map(|gaps| gaps.long).sum();
        let count = u64::try_from(partitions.len()).unwrap_or(1).max(1);
        Outages {
            longest_s: seconds(longest.unwrap_or(0)),
            mean_s: seconds(sum / count),
        }
    }
}

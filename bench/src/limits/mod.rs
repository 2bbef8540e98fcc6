//! What this machine can do without Highwater: the ceilings that its figures are held against.
//!
//! [`disk`] writes as the log does; [`memory`] copies and sums up; [`link`] sends over loopback, by
//! TCP and by QUIC as nodes do. [`pipeline`](crate::pipeline) puts them together.

pub mod disk;
pub mod link;
pub mod memory;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::spread::Spread;

/// The fewest runs from which a median and a spread are worth reporting.
pub const RUNS_MIN: usize = 5;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often; at least [`RUNS_MIN`].
    pub runs: usize,
    /// How long each run takes. On the disk it ends before when its file is full.
    pub run: Duration,
}

impl Limits {
    fn check(&self) -> Result<()> {
        if self.runs < RUNS_MIN {
            bail!("{} runs are too few: at least {RUNS_MIN}", self.runs);
        }
        Ok(())
    }
}

/// What processor, memory or loopback can do: the median of some runs, and their spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "limit", rename_all = "snake_case")]
pub enum Ceiling {
    /// Copying from one buffer to another, in one thread.
    MemoryCopy {
        /// How large each of the two is, in bytes.
        buffer_bytes: usize,
        /// How many runs.
        runs: usize,
        /// 10^9 bytes copied a second; each is read once and written once.
        gb_per_second: Spread,
    },
    /// CRC-32C of batches, in one thread, by the function that records are checked with.
    Crc32c {
        /// How large what they lie in is, in bytes: within the caches, or beyond them.
        buffer_bytes: usize,
        /// How many runs.
        runs: usize,
        /// 10^9 bytes a second.
        gb_per_second: Spread,
    },
    /// One TCP connection over loopback, its two ends in two threads.
    Tcp {
        /// How much is handed to the system at once, in bytes.
        write_bytes: usize,
        /// How many runs.
        runs: usize,
        /// 10^6 bytes a second.
        mb_per_second: Spread,
        /// Processor seconds of both ends for each 10^9 bytes.
        cpu_seconds_per_gb: Spread,
    },
    /// One link of two nodes over loopback, by QUIC with TLS, its two ends in two threads.
    Quic {
        /// The largest UDP payload that was tried, in bytes.
        datagram_bytes: u16,
        /// How many runs.
        runs: usize,
        /// 10^6 bytes a second.
        mb_per_second: Spread,
        /// Processor seconds of both ends for each 10^9 bytes.
        cpu_seconds_per_gb: Spread,
    },
}

impl Ceiling {
    /// Its median, in bytes a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        match self {
            Self::MemoryCopy { gb_per_second, .. } | Self::Crc32c { gb_per_second, .. } => {
                gb_per_second.median * 1e9
            }
            Self::Tcp { mb_per_second, .. } | Self::Quic { mb_per_second, .. } => {
                mb_per_second.median * 1e6
            }
        }
    }
}

/// How many a second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Does it until that long has passed, at least once. Gives how often a second.
fn repeat_for(run: Duration, mut it: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times = 0.0;
    loop {
        it();
        times += 1.0;
        let elapsed = start.elapsed();
        if elapsed >= run {
            return times / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_by_its_time() {
        assert_eq!(per_second(3, Duration::from_millis(1_500)), 2);
        assert_eq!(per_second(0, Duration::ZERO), 0);
        assert_eq!(per_second(u64::MAX, Duration::ZERO), u64::MAX);
    }

    #[test]
    fn what_is_repeated_is_done_at_least_once_and_counted() {
        let mut times = 0.0;
        let start = Instant::now();
        let rate = repeat_for(Duration::from_millis(5), || times += 1.0);
        let elapsed = start.elapsed().as_secs_f64();
        assert!(times >= 1.0);
        // The time that was counted lies between the least and all that there was.
        assert!((times / elapsed..=times / 0.005).contains(&rate), "{rate}");
        let mut once = 0;
        repeat_for(Duration::ZERO, || once += 1);
        assert_eq!(once, 1);
    }

    #[test]
    fn a_ceiling_knows_its_bytes_a_second() {
        let median = Spread {
            median: 2.0,
            min: 1.0,
            max: 9.0,
        };
        let copy = Ceiling::MemoryCopy {
            buffer_bytes: 1,
            runs: 5,
            gb_per_second: median,
        };
        let tcp = Ceiling::Tcp {
            write_bytes: 1,
            runs: 5,
            mb_per_second: median,
            cpu_seconds_per_gb: median,
        };
        assert_eq!(copy.bytes_per_second(), 2e9);
        assert_eq!(tcp.bytes_per_second(), 2e6);
    }
}

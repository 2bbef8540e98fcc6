//! A node's clocks, which may run at another speed than the world's, and jump.

use std::time::Duration;

use crate::Now;

/// A million: what the speed of a clock is counted in.
const MILLION: i128 = 1_000_000;

/// The two clocks of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// When its speed was set last, by the world's clock and by this one.
    set: (Duration, Duration),
    /// How much faster than the world's it runs, in millionths.
    ppm: i32,
    /// The wall clock at the world's beginning, in milliseconds since the Unix epoch.
    epoch_ms: i64,
}

impl Clock {
    pub(super) fn new(epoch_ms: i64) -> Clock {
        Clock {
            set: (Duration::ZERO, Duration::ZERO),
            ppm: 0,
            epoch_ms,
        }
    }

    /// What it shows at a time of the world.
    pub(super) fn at(&self, now: Duration) -> Now {
        let since = now - self.set.0;
        let here = match self.ppm {
            // Without a division of 128 bits, which would be a part of every turn.
            0 => since,
            ppm => duration(nanos(since) * (MILLION + i128::from(ppm)) / MILLION),
        };
        let monotonic = self.set.1 + here;
        let ms = i64::try_from(monotonic.as_millis()).expect("runs are short");
        Now {
            monotonic,
            wall_ms: self.epoch_ms + ms,
        }
    }

    /// When it shows this time, or has shown more.
    pub(super) fn when(&self, monotonic: Duration) -> Duration {
        let since = monotonic.saturating_sub(self.set.1);
        if self.ppm == 0 {
            return self.set.0 + since;
        }
        let speed = MILLION + i128::from(self.ppm);
        self.set.0 + duration((nanos(since) * MILLION + speed - 1) / speed)
    }

    /// It runs at another speed from now on.
    pub(super) fn set_speed(&mut self, now: Duration, ppm: i32) {
        self.set = (now, self.at(now).monotonic);
        self.ppm = ppm;
    }

    /// The wall clock jumps.
    pub(super) fn jump(&mut self, ms: i64) {
        self.epoch_ms += ms;
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).expect("runs are short")
}

fn duration(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).expect("runs are short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_has_come_when_it_is_due() {
        for ppm in [-100_000, -1, 0, 7, 100_000] {
            let mut clock = Clock::new(0);
            let now = Duration::from_nanos(1_234_567_891);
            clock.set_speed(now, ppm);
            for wait in [1, 999, 1_000_000_007] {
                let due = clock.at(now).monotonic + Duration::from_nanos(wait);
                let when = clock.when(due);
                assert!(clock.at(when).monotonic >= due, "{ppm} {wait}");
                let before = when - Duration::from_nanos(2);
                assert!(
                    before < now || clock.at(before).monotonic < due,
                    "{ppm} {wait}"
                );
            }
        }
    }

    #[test]
    fn a_change_of_speed_changes_no_time() {
        let mut clock = Clock::new(5);
        let now = Duration::from_secs(10);
        clock.set_speed(now, 100_000);
        assert_eq!(clock.at(now).monotonic, now);
        assert_eq!(clock.at(now * 2).monotonic, Duration::from_secs(21));
        clock.set_speed(now * 2, 0);
        assert_eq!(clock.at(now * 2).monotonic, Duration::from_secs(21));
        clock.jump(-1_000);
        assert_eq!(clock.at(now * 2).wall_ms, 21_000 + 5 - 1_000);
    }
}

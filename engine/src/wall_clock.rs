//! Whether a node's wall clock is to be believed (RULES G-39, FAULTS F30).
//!
//! Retention by time deletes what the wall clock calls old, and a wall clock is set by batteries,
//! networks and people: one that is years ahead calls everything old. The monotonic clock is set by
//! nobody. So the wall clock is held against it: as long as the two do not agree, the wall clock is
//! *doubted*, and nothing is deleted by its word.
//!
//! | state | how it is left |
//! |---|---|
//! | believed | the wall clock is more than [`WALL_CLOCK_ERROR_MAX`] from where it should be: doubted |
//! | doubted | it is back where it should be: believed |
//! | doubted | it has gone on without another jump for as long as it was off, or for [`WALL_CLOCK_DOUBT_MAX`] if that is less: believed |
//!
//! A clock may be right after a jump: a machine slept, or a wrong clock was put right. Hence the
//! last row. What is deleted because a wrong clock was believed in the end is at least half as old
//! as it has to be, or [`WALL_CLOCK_DOUBT_MAX`] older than the jump.
//!
//! A monotonic clock tells nothing of the time between two lives of a process. That is bridged by
//! the time that was known last, which the owner of a shard keeps on the disk. A node that was down
//! for an hour so doubts its clock for an hour.

use std::time::Duration;

use crate::io::Now;

/// How far the wall clock may be from where the monotonic clock says that it should be.
pub const WALL_CLOCK_ERROR_MAX: Duration = Duration::from_secs(5 * 60);

/// How long a wall clock is doubted at most, if it does not jump again.
pub const WALL_CLOCK_DOUBT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A wall clock, held against a monotonic one.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// What was believed last: the wall clock less the monotonic one, in milliseconds.
    offset_ms: i64,
    doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// On the monotonic clock: since when the wall clock goes on steadily.
    since: Duration,
    /// The wall clock less the monotonic one, in milliseconds, when it was looked at last.
    offset_ms: i64,
}

impl WallClock {
    /// A clock as it is at a start. `last_known_ms` is what [`known_ms`](Self::known_ms) gave last
    /// in the life before; without one, at the first start, the clock is believed.
    pub(crate) fn new(now: Now, last_known_ms: Option<i64>) -> WallClock {
        let last_known_ms = last_known_ms.filter(|_| !mutant!(StartBelievesClock));
        let known_ms = last_known_ms.unwrap_or(now.wall_ms);
        let mut clock = WallClock {
            offset_ms: known_ms.saturating_sub(millis(now.monotonic)),
            doubt: None,
        };
        clock.look(now);
        clock
    }

    /// Whether the clock is doubted.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// The time in milliseconds since the Unix epoch, as far as it is known without the wall clock
    /// while that is doubted.
    pub(crate) fn known_ms(&self, monotonic: Duration) -> i64 {
        self.offset_ms.saturating_add(millis(monotonic))
    }

    /// Looks at both clocks. Gives the time to go by: a wall clock that has gone back while it is
    /// doubted is set right, or what is written meanwhile would look old for ever.
    pub(crate) fn look(&mut self, now: Now) -> Now {
        let offset_ms = now.wall_ms.saturating_sub(millis(now.monotonic));
        let error_ms = offset_ms.abs_diff(self.offset_ms);
        if is_near(error_ms) {
            if self.doubt.is_some() {
                tracing::info!("the wall clock is back where it should be");
            }
            self.believe(offset_ms);
        } else {
            let since = self.doubted_since(now.monotonic, offset_ms);
            if now.monotonic - since >= wait(error_ms) {
                tracing::warn!(error_ms, "the wall clock is believed as it is now");
                self.believe(offset_ms);
            } else {
                self.doubt = Some(Doubt { since, offset_ms });
            }
        }
        let goes_back = now.wall_ms < self.known_ms(now.monotonic);
        match goes_back && !mutant!(StampsGoBack) {
            true => Now {
                wall_ms: self.known_ms(now.monotonic),
                ..now
            },
            false => now,
        }
    }

    fn believe(&mut self, offset_ms: i64) {
        self.offset_ms = offset_ms;
        self.doubt = None;
    }

    fn doubted_since(&self, monotonic: Duration, offset_ms: i64) -> Duration {
        match self.doubt {
            Some(doubt) if is_near(offset_ms.abs_diff(doubt.offset_ms)) => doubt.since,
            _ => {
                tracing::warn!(
                    off_by_ms = offset_ms.saturating_sub(self.offset_ms),
                    "the wall clock has jumped, or this node was away: retention by time is \
                     suspended"
                );
                monotonic
            }
        }
    }
}

fn is_near(error_ms: u64) -> bool {
    Duration::from_millis(error_ms) <= WALL_CLOCK_ERROR_MAX
}

/// How long a clock that is off by so much is doubted.
fn wait(error_ms: u64) -> Duration {
    Duration::from_millis(error_ms).min(WALL_CLOCK_DOUBT_MAX)
}

fn millis(monotonic: Duration) -> i64 {
    i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 24 * 60 * MINUTE;
    const START: i64 = 1_700_000_000_000;

    /// A time, `minutes` after the start by the monotonic clock; the wall clock is off by `error`.
    fn at(minutes: u64, error_ms: i64) -> Now {
        let monotonic = Duration::from_secs(60 * minutes);
        Now {
            monotonic,
            wall_ms: START + millis(monotonic) + error_ms,
        }
    }

    fn started() -> WallClock {
        WallClock::new(at(0, 0), None)
    }

    #[test]
    fn a_clock_is_doubted_from_the_first_millisecond_beyond_five_minutes() {
        for sign in [-1, 1] {
            let mut clock = started();
            clock.look(at(10, sign * 5 * MINUTE));
            assert!(!clock.is_doubted());
            let mut clock = started();
            clock.look(at(10, sign * (5 * MINUTE + 1)));
            assert!(clock.is_doubted());
        }
    }

    #[test]
    fn a_clock_that_comes_back_is_believed_at_once() {
        let mut clock = started();
        clock.look(at(10, 3_650 * DAY));
        assert!(clock.is_doubted());
        assert_eq!(clock.known_ms(at(11, 0).monotonic), at(11, 0).wall_ms);
        clock.look(at(11, 0));
        assert!(!clock.is_doubted());
    }

    #[test]
    fn a_clock_that_goes_on_is_believed_after_as_long_as_it_was_off() {
        let mut clock = started();
        clock.look(at(10, 30 * MINUTE));
        clock.look(at(39, 30 * MINUTE));
        assert!(clock.is_doubted());
        clock.look(at(40, 30 * MINUTE));
        assert!(!clock.is_doubted());
        assert_eq!(
            clock.known_ms(at(41, 0).monotonic),
            at(41, 30 * MINUTE).wall_ms
        );
    }

    #[test]
    fn no_clock_is_doubted_for_more_than_a_week() {
        let week = 7 * 24 * 60;
        for error in [3_650 * DAY, -3_650 * DAY, i64::MAX / 2, i64::MIN / 2] {
            let mut clock = started();
            clock.look(at(10, error));
            clock.look(at(10 + week - 1, error));
            assert!(clock.is_doubted());
            clock.look(at(10 + week, error));
            assert!(!clock.is_doubted());
        }
    }

    #[test]
    fn each_jump_begins_the_doubt_anew() {
        let mut clock = started();
        clock.look(at(10, 30 * MINUTE));
        clock.look(at(39, 60 * MINUTE));
        clock.look(at(98, 60 * MINUTE));
        assert!(clock.is_doubted());
        clock.look(at(99, 60 * MINUTE));
        assert!(!clock.is_doubted());
    }

    #[test]
    fn small_errors_are_followed() {
        let mut clock = started();
        for minutes in 1..100 {
            let error = i64::try_from(minutes).unwrap() * 4 * MINUTE;
            let now = at(minutes, error);
            assert_eq!(clock.look(now), now);
            assert!(!clock.is_doubted());
        }
    }

    #[test]
    fn what_is_written_under_a_clock_that_went_back_is_not_old() {
        let mut clock = started();
        assert_eq!(clock.look(at(10, -3_650 * DAY)), at(10, 0));
        let ahead = at(11, 3_650 * DAY);
        assert_eq!(clock.look(ahead), ahead, "that makes nothing old");
    }

    #[test]
    fn a_start_goes_on_from_what_was_known_last() {
        let known = |ms: i64| WallClock::new(at(0, 0), Some(START + ms));
        assert!(!known(0).is_doubted());
        assert!(!known(-5 * MINUTE).is_doubted(), "it was down for as long");
        assert!(
            known(-DAY).is_doubted(),
            "it was down, or the clock is ahead"
        );
        assert!(known(DAY).is_doubted(), "the clock went back");
        let mut clock = known(-DAY);
        clock.look(at(24 * 60 - 1, 0));
        assert!(clock.is_doubted());
        clock.look(at(24 * 60, 0));
        assert!(!clock.is_doubted());
    }
}

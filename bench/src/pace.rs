//! When records are due at a fixed rate, and which of them count.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
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

/// How far apart a load wakes up at least: each time costs some 30 µs of processor time, which the
/// cluster is short of, too, on the same machine.
const TICK: Duration = Duration::from_micros(250);

/// Waits more precisely than the runtime's timer, which ticks every millisecond.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
    woken: Option<Instant>,
}

impl Pacer {
    /// Must be called within a runtime.
    pub(crate) fn new() -> Result<Pacer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
        #[expect(
            deprecated,
            reason = "it is sound for an OwnedFd, which keeps its number; the other way is unsafe"
        )]
        let timer = AsyncFd::new(timer.context("cannot make a timer")?)?;
        Ok(Pacer { timer, woken: None })
    }

    /// Waits until then; a little longer if it has just waited, and not at all if it is past.
    pub(crate) async fn until(&mut self, at: Instant) -> Result<()> {
        let at = self.woken.map_or(at, |woken| at.max(woken + TICK));
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.woken = Some(Instant::now());
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(left)?,
            };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            let mut ready = self.timer.readable().await?;
            // Whether it was read or not, the clock decides.
            let _ = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_woken_too_early() {
        let mut pacer = Pacer::new().unwrap();
        for micros in [0, 1, 300, 1_700, 20_000] {
            let at = Instant::now() + Duration::from_micros(micros);
            pacer.until(at).await.unwrap();
            assert!(Instant::now() >= at, "{micros}");
        }
        let woken = Instant::now();
        pacer.until(woken).await.unwrap();
        pacer.until(woken).await.unwrap();
        assert!(woken.elapsed() >= TICK, "not so often");
    }

    #[test]
    fn records_are_due_by_the_rate_and_not_by_what_came_before() {
        assert_eq!(due(0, 1_000), Duration::ZERO);
        assert_eq!(due(1, 1_000), Duration::from_millis(1));
        assert_eq!(due(3_000_000, 1_000_000), Duration::from_secs(3));
        assert_eq!(due(1, 3), Duration::from_nanos(333_333_333));
    }
}

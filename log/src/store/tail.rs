//! Which entries leave the tail cache first.
//!
//! On each node of three most groups only follow: what a leader has sent them is read by nobody
//! here, and kept as long as the rest it would take two thirds of the cache. So it goes first, but
//! for a share in which whoever begins to read finds the newest.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{GroupId, LogIndex};

/// A group that was not read for so long is taken for one that nobody reads.
const UNREAD_AFTER: Duration = Duration::from_secs(10);

/// Of the whole, what the entries that nobody reads may keep beside those that are read: an eighth.
const UNREAD_SHARE: usize = 8;

/// The synced entries of a write, in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) group: GroupId,
    /// The last of them.
    pub(super) through: LogIndex,
    /// The memory they hold.
    pub(super) bytes: usize,
}

/// What the tail cache holds. A group that begins or ceases to be read has writes in both rows; its
/// entries go from the oldest on, whichever row is told to let go of one, and what went along is
/// counted until its turn comes: so too much at times, never too little.
#[derive(Debug)]
pub(super) struct Tail {
    bytes_max: usize,
    read: Row,
    unread: Row,
}

/// Writes, oldest first.
#[derive(Debug, Default)]
struct Row {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Tail {
        Tail {
            bytes_max,
            read: Row::default(),
            unread: Row::default(),
        }
    }

    /// Takes in a write of a group that was read last at `read_at`.
    pub(super) fn push(&mut self, kept: Kept, read_at: Option<Duration>, now: Duration) {
        let is_read = read_at.is_some_and(|at| now.saturating_sub(at) < UNREAD_AFTER);
        match is_read {
            true => self.read.push(kept),
            false => self.unread.push(kept),
        }
    }

    /// What has to go, as long as there is more than there may be.
    pub(super) fn surplus(&mut self) -> Option<Kept> {
        (self.read.bytes + self.unread.bytes > self.bytes_max).then(|| self.pop())?
    }

    /// What goes first.
    pub(super) fn pop(&mut self) -> Option<Kept> {
        match self.unread.bytes > self.bytes_max / UNREAD_SHARE {
            true => self.unread.pop(),
            false => self.read.pop().or_else(|| self.unread.pop()),
        }
    }
}

impl Row {
    fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes;
        self.kept.push_back(kept);
    }

    fn pop(&mut self) -> Option<Kept> {
        let kept = self.kept.pop_front()?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn push(tail: &mut Tail, group: u64, through: u64, read_at: Option<Duration>) {
        let kept = Kept {
            group: GroupId(group),
            through: LogIndex(through),
            bytes: 10,
        };
        tail.push(kept, read_at, NOW);
    }

    fn gone(tail: &mut Tail) -> Vec<(u64, u64)> {
        let kept = std::iter::from_fn(|| tail.surplus());
        kept.map(|kept| (kept.group.0, kept.through.0)).collect()
    }

    #[test]
    fn what_nobody_reads_goes_first_but_for_an_eighth() {
        let mut tail = Tail::new(160);
        for through in 1..=8 {
            push(&mut tail, 1, through, Some(NOW));
            push(&mut tail, 2, through, None);
        }
        assert_eq!(gone(&mut tail), [], "there is room for all");
        for through in 9..=14 {
            push(&mut tail, 1, through, Some(NOW));
        }
        let unread: Vec<_> = (1..=6).map(|through| (2, through)).collect();
        assert_eq!(gone(&mut tail), unread);
        push(&mut tail, 1, 15, Some(NOW));
        assert_eq!(gone(&mut tail), [(1, 1)]);
        push(&mut tail, 2, 9, None);
        assert_eq!(gone(&mut tail), [(2, 7)]);
    }

    #[test]
    fn a_group_that_was_read_long_ago_counts_as_unread() {
        let mut tail = Tail::new(80);
        for through in 1..=8 {
            push(&mut tail, 1, through, Some(NOW - UNREAD_AFTER));
        }
        push(&mut tail, 2, 1, Some(NOW));
        assert_eq!(gone(&mut tail), [(1, 1)]);
    }

    #[test]
    fn all_can_go() {
        let mut tail = Tail::new(1_000);
        push(&mut tail, 1, 1, Some(NOW));
        push(&mut tail, 2, 1, None);
        let groups = std::iter::from_fn(|| tail.pop()).map(|kept| kept.group.0);
        assert_eq!(groups.collect::<Vec<_>>(), [1, 2]);
        assert_eq!(tail.read.bytes + tail.unread.bytes, 0);
    }
}

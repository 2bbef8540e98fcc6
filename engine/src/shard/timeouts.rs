//! The timeouts of all partitions in one ordered structure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ops::GroupId;

/// When each partition is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    by_time: BTreeSet<(Duration, GroupId)>,
    by_group: BTreeMap<GroupId, Duration>,
}

impl Timeouts {
    /// `group` is due at `due`, or never. What was due before stays so: a timeout that is moved to
    /// later by each beat and append is looked at when it would have come, and then set again.
    pub(super) fn set(&mut self, group: GroupId, due: Option<Duration>) {
        let before = self.by_group.get(&group).copied();
        if before.is_some_and(|before| due.is_some_and(|due| before <= due)) {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, group));
            self.by_group.remove(&group);
        }
        if let Some(due) = due {
            self.by_time.insert((due, group));
            self.by_group.insert(group, due);
        }
    }

    /// Takes the first group that is due.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<GroupId> {
        let &(due, group) = self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_group.remove(&group);
        Some(group)
    }

    /// When the next group is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_later_time_waits_for_it() {
        let ms = Duration::from_millis;
        let mut timeouts = Timeouts::default();
        timeouts.set(GroupId(1), Some(ms(10)));
        timeouts.set(GroupId(2), Some(ms(20)));
        timeouts.set(GroupId(1), Some(ms(30)));
        assert_eq!(timeouts.next(), Some(ms(10)));
        assert_eq!(timeouts.pop_due(ms(19)), Some(GroupId(1)));
        assert_eq!(timeouts.pop_due(ms(19)), None);
        timeouts.set(GroupId(1), Some(ms(30)));
        timeouts.set(GroupId(2), Some(ms(15)));
        assert_eq!(timeouts.pop_due(ms(15)), Some(GroupId(2)));
        assert_eq!(timeouts.next(), Some(ms(30)));
        timeouts.set(GroupId(1), None);
        assert_eq!(timeouts.pop_due(ms(40)), None);
        assert_eq!(timeouts.next(), None);
    }
}

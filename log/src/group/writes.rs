//! Which of a group's writes are durable.
//!
//! A group's writes go two ways, to its log and to the journal, each in order. A write is
//! *persisted* when it and every write before it are durable, whichever way they went.

use std::collections::VecDeque;

use crate::ids::WriteId;

/// The write ids of a group that were not reported yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    last: WriteId,
    unreported: VecDeque<WriteId>,
    /// Hard states that are not durable yet.
    journal: VecDeque<WriteId>,
}

impl Writes {
    /// The last id that was given.
    pub(crate) const fn last(&self) -> WriteId {
        self.last
    }

    /// Notes a write of the log.
    pub(crate) fn push(&mut self, write: WriteId) {
        assert!(write > self.last, "write ids ascend");
        self.last = write;
        self.unreported.push_back(write);
    }

    /// Notes a hard state.
    pub(crate) fn push_journal(&mut self, write: WriteId) {
        self.push(write);
        self.journal.push_back(write);
    }

    /// The oldest hard state that is not durable. Nothing of the log behind it may be written
    /// before it is: entries of a new term are written after the term.
    pub(crate) fn journal_front(&self) -> Option<WriteId> {
        self.journal.front().copied()
    }

    /// Hard states up to and with `write` are durable.
    pub(crate) fn journal_done(&mut self, write: WriteId) {
        while self.journal.front().is_some_and(|&front| front <= write) {
            self.journal.pop_front();
        }
    }

    /// The highest write that is newly persisted, given the oldest write of the log that is not
    /// durable.
    pub(crate) fn persisted(&mut self, log_front: Option<WriteId>) -> Option<WriteId> {
        let promise = self.journal_front().filter(|_| !mutant!(AckBeforePromise));
        let fronts = log_front.into_iter().chain(promise);
        let first_missing = fronts.min();
        let mut newly = None;
        while let Some(&front) = self.unreported.front() {
            if first_missing.is_some_and(|missing| front >= missing) {
                break;
            }
            newly = self.unreported.pop_front();
        }
        newly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_persisted_with_all_before_it() {
        let mut writes = Writes::default();
        writes.push(WriteId(1));
        writes.push_journal(WriteId(2));
        writes.push(WriteId(5));
        assert_eq!(writes.persisted(Some(WriteId(1))), None);
        writes.journal_done(WriteId(2));
        assert_eq!(writes.persisted(Some(WriteId(1))), None);
        assert_eq!(writes.persisted(Some(WriteId(5))), Some(WriteId(2)));
        assert_eq!(writes.persisted(None), Some(WriteId(5)));
        assert_eq!(writes.persisted(None), None);
    }

    #[test]
    fn a_hard_state_holds_back_what_follows() {
        let mut writes = Writes::default();
        writes.push_journal(WriteId(1));
        writes.push(WriteId(2));
        assert_eq!(writes.journal_front(), Some(WriteId(1)));
        assert_eq!(writes.persisted(None), None);
        writes.journal_done(WriteId(1));
        assert_eq!(writes.journal_front(), None);
        assert_eq!(writes.persisted(None), Some(WriteId(2)));
    }
}

//! A naive model of groups: which states a crash may leave.

use highwater_log::{EntryId, HardState, LogIndex, Position, RecoveredGroup, Term, WriteId};
use highwater_record::Offset;

/// A log as the model has it: what lies before it, and the terms of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ModelLog {
    pub(crate) start: Position,
    /// Terms, and end offsets.
    pub(crate) entries: Vec<(Term, Offset)>,
}

impl ModelLog {
    pub(crate) fn last(&self) -> EntryId {
        match self.entries.last() {
            None => self.start.before,
            Some(&(term, _)) => EntryId {
                index: self.start.before.index.advance(self.entries.len() as u64),
                term,
            },
        }
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.entries
            .last()
            .map_or(self.start.offset, |&(_, end)| end)
    }

    pub(crate) fn cut(&mut self, first: LogIndex) {
        let kept = self.start.before.index.distance_to(first.before());
        self.entries.truncate(usize::try_from(kept).unwrap());
    }

    /// The ids from an index on.
    pub(crate) fn ids_from(&self, first: LogIndex) -> Vec<EntryId> {
        let mut index = self.start.before.index;
        let mut ids = Vec::new();
        for &(term, _) in &self.entries {
            index = index.next();
            if index >= first {
                ids.push(EntryId { index, term });
            }
        }
        ids
    }
}

/// One group's possible states: as of the last write that is known to be persisted, and as of
/// each step since.
#[derive(Clone)]
pub(crate) struct ModelGroup {
    pub(crate) log: ModelLog,
    pub(crate) hard: HardState,
    pub(crate) logs: Vec<(WriteId, ModelLog)>,
    pub(crate) hards: Vec<(WriteId, HardState)>,
    pub(crate) commit: LogIndex,
    pub(crate) log_start: Offset,
    pub(crate) state: Vec<u8>,
}

impl ModelGroup {
    pub(crate) fn new() -> ModelGroup {
        ModelGroup {
            log: ModelLog::default(),
            hard: HardState::default(),
            logs: vec![(WriteId(0), ModelLog::default())],
            hards: vec![(WriteId(0), HardState::default())],
            commit: LogIndex(0),
            log_start: Offset(0),
            state: Vec::new(),
        }
    }

    pub(crate) fn note_log(&mut self, write: WriteId) {
        self.logs.push((write, self.log.clone()));
    }

    /// Forgets states that a persisted write has made impossible.
    pub(crate) fn persisted(&mut self, write: WriteId) {
        let keep_from = |writes: Vec<WriteId>| {
            let persisted = writes.iter().rposition(|&of| of <= write);
            persisted.unwrap_or(0)
        };
        let from = keep_from(self.logs.iter().map(|(of, _)| *of).collect());
        self.logs.drain(..from);
        let from = keep_from(self.hards.iter().map(|(of, _)| *of).collect());
        self.hards.drain(..from);
    }

    /// Compares what was recovered with what is possible, and goes on from there.
    pub(crate) fn check(&mut self, found: &RecoveredGroup, entries: &[EntryId], context: &str) {
        let at = self.compare(found, entries, context);
        self.log = self.logs[at].1.clone();
        self.trim_to(&found.start);
        self.hard = found.hard_state;
        self.commit = self.commit.min(self.log.last().index);
        self.logs = vec![(WriteId(0), self.log.clone())];
        self.hards = vec![(WriteId(0), self.hard)];
    }

    /// Compares what was recovered with what is possible. Gives which of the logs it is.
    pub(crate) fn compare(
        &self,
        found: &RecoveredGroup,
        entries: &[EntryId],
        context: &str,
    ) -> usize {
        assert_eq!(found.quarantine, None, "{context}: no fault, no quarantine");
        let first = found.start.first();
        let fits = |log: &ModelLog| {
            log.last() == found.last
                && log.end_offset() == found.end_offset
                && log.start.before.index <= found.start.before.index
                && log.ids_from(first) == entries
        };
        let at = self.logs.iter().rposition(|(_, log)| fits(log));
        let Some(at) = at else {
            let possible: Vec<String> = self
                .logs
                .iter()
                .map(|(write, log)| {
                    let (start, last) = (log.start.before, log.last());
                    format!(
                        "write {write}: {start} to {last}, offset {}",
                        log.end_offset()
                    )
                })
                .collect();
            panic!(
                "{context}: recovered {} to {}, offset {}, entries {entries:?}; possible: {possible:#?}",
                found.start.before, found.last, found.end_offset
            );
        };
        assert!(
            found.start.offset <= self.log_start,
            "{context}: entries from offset {} on are gone",
            self.log_start
        );
        let hard = self.hards.iter().any(|(_, hard)| *hard == found.hard_state);
        assert!(
            hard,
            "{context}: {:?} of {:?}",
            found.hard_state, self.hards
        );
        assert!(
            found.hard_state.term >= found.last.term,
            "{context}: the term comes first"
        );
        at
    }

    /// Nothing was recovered: nothing was acknowledged.
    pub(crate) fn compare_absent(&self, context: &str) {
        let empty = |(_, log): &(WriteId, ModelLog)| *log == ModelLog::default();
        assert!(
            self.logs.iter().any(empty),
            "{context}: the group is gone, with its log"
        );
        let unpromised = |(_, hard): &(WriteId, HardState)| *hard == HardState::default();
        assert!(
            self.hards.iter().any(unpromised),
            "{context}: the group is gone, with its promises"
        );
    }

    pub(crate) fn trim_to(&mut self, start: &Position) {
        let gone = self.log.start.before.index.distance_to(start.before.index);
        self.log.entries.drain(..usize::try_from(gone).unwrap());
        self.log.start = *start;
    }
}

pub(crate) fn check_epochs(found: &RecoveredGroup, ids: &[EntryId], context: &str) {
    for id in ids {
        let epoch = found
            .epochs
            .iter()
            .rev()
            .find(|epoch| epoch.first_index <= id.index);
        assert_eq!(
            epoch.map(|epoch| epoch.term),
            Some(id.term),
            "{context}: {id}, of {:?}, start {:?}",
            found.epochs,
            found.start
        );
    }
}

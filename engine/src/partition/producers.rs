//! The state of idempotent producers as the *appended* log has it.
//!
//! A leader must refuse what does not follow what it has appended, committed or not, so the
//! state runs ahead of the commits; a cut takes it back to what is committed and replays what is
//! left of the rest (DESIGN.md section 3). Nothing is read from the disk for that: what is not
//! committed is small, and its facts are kept.

use std::collections::{BTreeMap, VecDeque};

use highwater_consensus::LogIndex;
use highwater_record::{BatchHeader, Offset};

use crate::producer_state::{
    ProducerCount, ProducerError, ProducerFacts, ProducerSnapshotError, ProducerStates, Verdict,
};

/// A batch that is appended and not known to be committed.
#[derive(Debug, Clone, Copy)]
struct Appended {
    index: LogIndex,
    facts: Option<ProducerFacts>,
    base_offset: Offset,
    max_timestamp: i64,
    append_time: u32,
}

impl Appended {
    fn tell(&self, states: &mut ProducerStates) {
        let facts = self.facts.as_ref();
        states.appended(
            facts,
            self.base_offset,
            self.max_timestamp,
            self.append_time,
        );
    }
}

/// Producers as of the last commit, and as of the last append.
#[derive(Debug)]
pub(crate) struct Producers {
    /// The last entry that `committed` includes.
    at: LogIndex,
    /// Counts for itself: the node's limit is on what answers producers.
    committed: ProducerStates,
    appended: ProducerStates,
    count: ProducerCount,
    tail: VecDeque<Appended>,
    /// What was told since the snapshot, while the log has holes.
    mending: Option<Mending>,
}

/// What it takes to tell the batches behind a snapshot again, in order, once those in holes are
/// known.
#[derive(Debug)]
struct Mending {
    at: LogIndex,
    snapshot: Vec<u8>,
    batches: BTreeMap<LogIndex, Appended>,
}

/// How many batches are remembered while a log has holes. With more, what producers have written
/// in holes stays unknown until the next start.
const MENDING_BATCHES_MAX: usize = 1 << 20;

impl Producers {
    /// Nobody has written yet.
    pub(crate) fn new(count: ProducerCount) -> Producers {
        Producers {
            at: LogIndex::ZERO,
            committed: ProducerStates::new(ProducerCount::default()),
            appended: ProducerStates::new(count.clone()),
            count,
            tail: VecDeque::new(),
            mending: None,
        }
    }

    /// The same, of a log with holes: what is appended from now on is remembered until
    /// [`mended`](Producers::mended).
    pub(super) fn with_holes(mut self, snapshot: &[u8]) -> Producers {
        self.mending = Some(Mending {
            at: self.at,
            snapshot: snapshot.to_vec(),
            batches: BTreeMap::new(),
        });
        self
    }

    /// As a snapshot has them that includes everything up to `at`; no bytes: nobody has written.
    pub(crate) fn restored(
        at: LogIndex,
        snapshot: &[u8],
        count: ProducerCount,
    ) -> Result<Producers, ProducerSnapshotError> {
        if snapshot.is_empty() {
            return Ok(Producers {
                at,
                ..Producers::new(count)
            });
        }
        Ok(Producers {
            at,
            committed: ProducerStates::decode(snapshot, ProducerCount::default())?,
            appended: ProducerStates::decode(snapshot, count.clone())?,
            count,
            tail: VecDeque::new(),
            mending: None,
        })
    }

    /// The node's count, for a state that replaces this one.
    pub(super) fn count(&self) -> ProducerCount {
        self.count.clone()
    }

    /// Whether batches may be appended one behind the other, or repeat what was appended before.
    ///
    /// Kafka's clients send one batch for a partition in a request. Of several, the first
    /// decides whether they are a duplicate, and each must follow the one before it.
    pub(super) fn check<'a>(
        &self,
        headers: impl Iterator<Item = &'a BatchHeader>,
    ) -> Result<Verdict, ProducerError> {
        let mut last: Option<ProducerFacts> = None;
        for header in headers {
            let Some(facts) = ProducerFacts::of(header) else {
                continue;
            };
            if let Some(before) = last {
                let expected = highwater_record::sequence_after(before.last_sequence, 1);
                if before.id != facts.id || expected != facts.base_sequence {
                    return Err(ProducerError::OutOfOrderSequence {
                        id: facts.id,
                        got: facts.base_sequence,
                        expected,
                    });
                }
            } else if let duplicate @ Verdict::Duplicate(_) = self.appended.check(&facts)? {
                return Ok(duplicate);
            }
            last = Some(facts);
        }
        Ok(Verdict::Append)
    }

    /// A batch is appended at `index`.
    pub(crate) fn append(
        &mut self,
        index: LogIndex,
        base_offset: Offset,
        header: &BatchHeader,
        append_time: u32,
    ) {
        // A base's or footer's state may include entries that follow it here: it was taken at a
        // commit index above them.
        if index <= self.at {
            return;
        }
        let batch = Appended {
            index,
            facts: ProducerFacts::of(header),
            base_offset,
            max_timestamp: header.max_timestamp(),
            append_time,
        };
        batch.tell(&mut self.appended);
        self.tail.push_back(batch);
        self.remember(batch);
    }

    /// A batch in a hole is known again.
    pub(super) fn learn(
        &mut self,
        index: LogIndex,
        base_offset: Offset,
        header: &BatchHeader,
        append_time: u32,
    ) {
        self.remember(Appended {
            index,
            facts: ProducerFacts::of(header),
            base_offset,
            max_timestamp: header.max_timestamp(),
            append_time,
        });
    }

    fn remember(&mut self, batch: Appended) {
        let Some(mending) = &mut self.mending else {
            return;
        };
        if batch.index > mending.at {
            mending.batches.insert(batch.index, batch);
        }
        if mending.batches.len() > MENDING_BATCHES_MAX {
            self.mending = None;
        }
    }

    /// The log has no holes any more: everything behind the snapshot is told again, in order, as
    /// on a replica that never had any.
    pub(super) fn mended(&mut self) {
        let Some(mending) = self.mending.take() else {
            return;
        };
        let decode = |count| match mending.snapshot.is_empty() {
            true => Ok(ProducerStates::new(count)),
            false => ProducerStates::decode(&mending.snapshot, count),
        };
        let states = (decode(ProducerCount::default()), decode(self.count.clone()));
        let (Ok(mut committed), Ok(mut appended)) = states else {
            return;
        };
        self.tail.clear();
        for (&index, batch) in &mending.batches {
            batch.tell(&mut appended);
            if index <= self.at {
                batch.tell(&mut committed);
            } else {
                self.tail.push_back(*batch);
            }
        }
        (self.committed, self.appended) = (committed, appended);
    }

    /// Everything up to and with `index` is committed.
    pub(super) fn commit(&mut self, index: LogIndex) {
        while self.tail.front().is_some_and(|batch| batch.index <= index) {
            let batch = self.tail.pop_front().expect("there is a front");
            batch.tell(&mut self.committed);
        }
        self.at = self.at.max(index);
    }

    /// Everything from `first` on is gone.
    pub(super) fn cut(&mut self, first: LogIndex) {
        if let Some(mending) = &mut self.mending {
            mending.batches.split_off(&first);
        }
        if self.tail.back().is_none_or(|batch| batch.index < first) {
            return;
        }
        self.tail.retain(|batch| batch.index < first);
        let committed = self.committed.encode();
        self.appended = ProducerStates::decode(&committed, self.count.clone())
            .expect("a state reads what it has written");
        for batch in &self.tail {
            batch.tell(&mut self.appended);
        }
    }

    /// The last entry that the committed state includes.
    pub(super) fn committed(&self) -> LogIndex {
        self.at
    }

    /// The committed state as bytes, and the last entry that it includes.
    pub(super) fn snapshot(&self) -> (LogIndex, Vec<u8>) {
        (self.at, self.committed.encode())
    }
}

//! Linearizable read points (thesis, section 6.4), batched.

use std::collections::VecDeque;

use crate::types::{LogIndex, ReadId};

/// How many reads may wait on one leader.
pub(crate) const READS_MAX: usize = 1 << 16;

/// The reads of one leadership that wait for a quorum to confirm it.
///
/// A read joins the open *epoch*. The first beat that leaves closes it; once a quorum has
/// answered beats that left after that, no other leader can have committed anything before the
/// reads of the epoch began.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Reads {
    /// Before an entry of the leader's own term is committed its commit index may lag (P62).
    unready: Vec<ReadId>,
    batches: VecDeque<Batch>,
    /// The epoch that reads join now.
    open_epoch: u64,
    waiting: usize,
}

#[derive(Clone, Debug, Hash)]
struct Batch {
    epoch: u64,
    index: LogIndex,
    reads: Vec<ReadId>,
}

impl Reads {
    /// No read waits. Epoch 0 is confirmed by everyone.
    pub(crate) fn new() -> Reads {
        Reads {
            unready: Vec::new(),
            batches: VecDeque::new(),
            open_epoch: 1,
            waiting: 0,
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A read that must wait until an entry of the own term is committed.
    pub(crate) fn defer(&mut self, read: ReadId) {
        self.unready.push(read);
        self.waiting += 1;
    }

    /// A read that is to see everything up to `commit`. Returns whether it opened an epoch, for
    /// which a beat is wanted.
    pub(crate) fn add(&mut self, read: ReadId, commit: LogIndex) -> bool {
        self.waiting += 1;
        self.join(read, commit)
    }

    /// An entry of the own term is committed: the deferred reads join.
    pub(crate) fn ready(&mut self, commit: LogIndex) -> bool {
        let reads = std::mem::take(&mut self.unready);
        let opened = reads.iter().map(|&read| self.join(read, commit));
        opened.fold(false, |any, one| any | one)
    }

    fn join(&mut self, read: ReadId, index: LogIndex) -> bool {
        match self.batches.back_mut() {
            Some(batch) if batch.epoch == self.open_epoch => {
                batch.index = batch.index.max(index);
                batch.reads.push(read);
                false
            }
            _ => {
                self.batches.push_back(Batch {
                    epoch: self.open_epoch,
                    index,
                    reads: vec![read],
                });
                true
            }
        }
    }

    /// A beat leaves: returns the newest epoch whose reads all came before it.
    pub(crate) fn close_epoch(&mut self) -> u64 {
        let is_open = |batch: &Batch| batch.epoch == self.open_epoch;
        if self.batches.back().is_some_and(is_open) {
            self.open_epoch += 1;
        }
        self.open_epoch - 1
    }

    /// A quorum has confirmed up to `epoch`: takes out the reads that may be answered.
    pub(crate) fn take_confirmed(&mut self, epoch: u64) -> Vec<(ReadId, LogIndex)> {
        let mut answered = Vec::new();
        while let Some(batch) = self.batches.front()
            && batch.epoch <= epoch
        {
            answered.extend(batch.reads.iter().map(|&read| (read, batch.index)));
            self.batches.pop_front();
        }
        self.waiting -= answered.len();
        answered
    }

    /// Takes out all: leadership has ended.
    pub(crate) fn take_all(self) -> impl Iterator<Item = ReadId> {
        let confirmable = self.batches.into_iter().flat_map(|batch| batch.reads);
        confirmable.chain(self.unready)
    }
}

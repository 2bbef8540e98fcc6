//! A disk in memory: for tests, for the simulated world, and to look at every way in which a
//! crash can leave a disk.
//!
//! [`MemoryStorage`] obeys at once and never fails; [`FaultyStorage`](super::FaultyStorage) is
//! the one that does not. Both run on a [`MemoryDisk`], which outlives them and knows of every
//! byte and directory entry whether it is durable.

mod content;
mod crash;
mod disk;
mod image;
mod node;
mod session;
mod tree;

pub use crash::{CrashImages, Granularity, Keep, PendingChange, PendingKind, SECTOR};
pub use disk::MemoryDisk;
pub use node::ChangeId;

use std::collections::VecDeque;

use super::{Completion, Counters, Op, Storage, Token, check};
pub(super) use crash::draw;
pub(super) use node::Left;
pub(super) use session::{Begun, Session};

/// A storage on a [`MemoryDisk`]. Operations begin at `flush`, in order, and complete at the
/// `poll` after it, in order; between the two a power cut may undo them.
#[derive(Debug)]
pub struct MemoryStorage {
    session: Session,
    queued: VecDeque<(Token, Op)>,
    begun: VecDeque<(Token, Begun, u64)>,
    counters: Counters,
}

impl MemoryStorage {
    /// A new life on this disk. Others on it go on: the disk is shared, as by the shards of a
    /// node.
    #[must_use]
    pub fn new(disk: &MemoryDisk) -> Self {
        Self {
            session: Session::new(disk.clone()),
            queued: VecDeque::new(),
            begun: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The disk it runs on.
    #[must_use]
    pub fn disk(&self) -> &MemoryDisk {
        self.session.disk()
    }
}

impl Storage for MemoryStorage {
    fn alignment(&self) -> usize {
        self.session.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.counters.submitted += 1;
        match check::in_flight(self.in_flight()) {
            Ok(()) => self.queued.push_back((token, op)),
            Err(error) => self.begun.push_back((token, Begun::failed(error), 0)),
        }
    }

    fn flush(&mut self) {
        for (token, op) in self.queued.drain(..) {
            let written = op.bytes_written();
            self.begun
                .push_back((token, self.session.begin(op), written));
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        for (token, begun, written) in self.begun.drain(..) {
            let result = self.session.finish(begun);
            self.counters.count(&result, written);
            out.push(Completion { token, result });
        }
    }

    fn wait(&mut self) {
        self.flush();
    }

    fn in_flight(&self) -> usize {
        self.queued.len() + self.begun.len()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for MemoryStorage {
    fn drop(&mut self) {
        for (_, begun, _) in self.begun.drain(..) {
            self.session.abandon(&begun, Left::Unsynced);
        }
    }
}

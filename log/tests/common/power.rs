//! A disk whose power fails while it is being used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_log::storage::{
    Completion, Counters, MemoryDisk, MemoryStorage, Op, Storage, StorageError, Token,
};

/// A storage whose power fails at a given operation: that one has begun, and nothing comes back
/// any more but errors.
pub(crate) struct PowerFails {
    inner: MemoryStorage,
    /// How many operations are left, to all that share the disk.
    left: Arc<AtomicUsize>,
    dead: bool,
    unanswered: Vec<Token>,
}

impl PowerFails {
    /// A new life on this disk; after `operations` of them the next one is the last.
    pub(crate) fn new(disk: &MemoryDisk, operations: usize) -> PowerFails {
        PowerFails {
            inner: MemoryStorage::new(disk),
            left: Arc::new(AtomicUsize::new(operations)),
            dead: false,
            unanswered: Vec::new(),
        }
    }

    /// The same life's storage for another shard.
    pub(crate) fn beside(&self, disk: &MemoryDisk) -> PowerFails {
        PowerFails {
            inner: MemoryStorage::new(disk),
            left: Arc::clone(&self.left),
            dead: self.dead,
            unanswered: Vec::new(),
        }
    }
}

impl Storage for PowerFails {
    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        let less = |left: usize| left.checked_sub(1);
        let counted = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.dead |= counted.is_err();
        self.unanswered.push(token);
        self.inner.submit(token, op);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if !self.dead {
            self.unanswered.clear();
            return self.inner.poll(out);
        }
        out.extend(self.unanswered.drain(..).map(|token| Completion {
            token,
            result: Err(StorageError::Io {
                path: "disk".to_owned(),
                call: "any",
                reason: "the power is gone".to_owned(),
            }),
        }));
    }

    fn wait(&mut self) {
        self.inner.flush();
    }

    fn in_flight(&self) -> usize {
        self.unanswered.len()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

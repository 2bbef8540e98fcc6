//! A storage that takes no time, and in the end no bytes either.

use std::cell::Cell;
use std::rc::Rc;

use highwater_log::storage::{
    Completion, Counters, MemoryDisk, MemoryStorage, Op, Output, Storage, Token,
};

/// A [`MemoryStorage`] that can be told to drop what is written.
///
/// A disk in memory keeps what it is given twice, as a process sees it and as a power cut leaves
/// it: three copies of every byte, which would hide ours. What is dropped must not be read again.
#[derive(Debug)]
pub(crate) struct QuickStorage {
    inner: MemoryStorage,
    drops_writes: Rc<Cell<bool>>,
    dropped: Vec<Token>,
    done: Vec<Token>,
}

impl QuickStorage {
    /// On this disk; `drops_writes` may be set at any time.
    pub(crate) fn new(disk: &MemoryDisk, drops_writes: &Rc<Cell<bool>>) -> QuickStorage {
        QuickStorage {
            inner: MemoryStorage::new(disk),
            drops_writes: Rc::clone(drops_writes),
            dropped: Vec::new(),
            done: Vec::new(),
        }
    }
}

impl Storage for QuickStorage {
    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Write { .. } if self.drops_writes.get() => self.dropped.push(token),
            op => self.inner.submit(token, op),
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
        self.done.append(&mut self.dropped);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.inner.poll(out);
        let done = self.done.drain(..).map(|token| Completion {
            token,
            result: Ok(Output::Done),
        });
        out.extend(done);
    }

    fn wait(&mut self) {
        self.flush();
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.dropped.len() + self.done.len()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

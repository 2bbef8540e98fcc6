//! The storage of plain system calls, on a small fixed set of threads: where there is no
//! io_uring, and where a test wants to break single calls from outside (strace).

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use highwater_record::BufferPool;

use super::directory::DataDirectory;
use super::front::Front;
use super::wake::Wake;
use super::workers::{Job, Workers};
use super::{Completion, Counters, Op, OpenError, Storage, Token};

/// Threads for reads, writes and syncs. A sync keeps its thread for as long as the disk takes;
/// file systems merge those that wait together, so a few more threads than cores pay.
const SHORT_THREADS: usize = 4;

/// Threads that prepare files and populate mappings.
const LONG_THREADS: usize = 1;

/// A storage of plain system calls on worker threads.
///
/// A write is a `pwrite` and an `fdatasync`, past the page cache where the file system takes
/// that: no write is acknowledged by a sync that began before it was done.
#[derive(Debug)]
pub struct PortableStorage {
    front: Front,
    queued: VecDeque<Job>,
    workers: Workers,
    wake: Arc<Wake>,
}

impl PortableStorage {
    /// Opens the storage of a data directory. Reads go to buffers of `pool`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Alignment`], [`OpenError::Resources`].
    pub fn new(directory: Arc<DataDirectory>, pool: BufferPool) -> Result<Self, OpenError> {
        Self::start(directory, pool, true)
    }

    /// As [`new`](Self::new), but through the page cache also where the file system would take
    /// direct I/O.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn buffered(directory: Arc<DataDirectory>, pool: BufferPool) -> Result<Self, OpenError> {
        Self::start(directory, pool, false)
    }

    fn start(
        directory: Arc<DataDirectory>,
        pool: BufferPool,
        direct: bool,
    ) -> Result<Self, OpenError> {
        let front = Front::new(directory, pool, direct)?;
        let wake = Arc::new(Wake::new().map_err(OpenError::resources("eventfd"))?);
        let workers = Workers::start(&front.system, &wake, SHORT_THREADS, LONG_THREADS)
            .map_err(OpenError::resources("thread"))?;
        Ok(Self {
            front,
            queued: VecDeque::new(),
            workers,
            wake,
        })
    }

    /// Readable when [`poll`](Storage::poll) has something new, which takes the signal back.
    /// For whoever sleeps in `poll(2)`, `epoll(7)` or a runtime on top of them.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// The directory it works in.
    #[must_use]
    pub fn directory(&self) -> &Arc<DataDirectory> {
        self.front.system.directory()
    }

    fn gather(&mut self) {
        self.wake.clear();
        while let Some(finished) = self.workers.try_receive() {
            self.front.finish(finished);
        }
    }
}

impl Storage for PortableStorage {
    fn alignment(&self) -> usize {
        self.front.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        let written = op.bytes_written();
        if let Some(call) = self.front.admit(token, op) {
            self.queued.push_back(Job {
                token,
                written,
                call,
            });
        }
    }

    fn flush(&mut self) {
        for job in self.queued.drain(..) {
            self.workers.send(job);
        }
        // What was refused at once has no worker that would tell of it.
        if self.front.has_ready() {
            self.wake.signal();
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.gather();
        self.front.hand_out(out);
    }

    fn wait(&mut self) {
        self.flush();
        loop {
            self.gather();
            if self.front.has_ready() || self.front.in_flight() == 0 {
                return;
            }
            self.wake.wait();
        }
    }

    fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    fn counters(&self) -> Counters {
        self.front.counters
    }
}

//! The seam between the log and a disk.
//!
//! [`Storage`] is completion-based: operations are submitted with a token, and what became
//! of each comes back later from [`Storage::poll`]. Nothing here blocks but
//! [`Storage::wait`], which only start-up and tests call. One trait, four backends (io_uring,
//! portable, memory, faulty) and one contract suite that runs on all of them.
//!
//! | backend | on | for |
//! |---|---|---|
//! | [`UringStorage`] | io_uring, direct I/O | where kernel and file system allow it |
//! | [`PortableStorage`] | plain calls on a few threads | elsewhere, and tests that break calls |
//! | [`MemoryStorage`] | a [`MemoryDisk`] | tests that look at every crash |
//! | [`FaultyStorage`] | a [`MemoryDisk`], by a seed, on virtual time | the simulated world |
//!
//! [`RealStorage`] chooses between the first two on a locked [`DataDirectory`]. Their readers
//! sleep on an eventfd. The contract is `tests/storage_contract`; a new backend starts there.
//!
//! Paths are relative to the data directory that the backend was opened on, with `/` between
//! their parts; no path is ever derived from a client's string. A real data directory holds one
//! file that no operation made, `lock`.

mod check;
mod directory;
mod error;
mod faults;
mod faulty;
mod files;
mod front;
mod mapping;
mod memory;
mod op;
mod portable;
mod real;
mod system;
mod uring;
mod wake;
mod workers;

pub use directory::{Access, DataDirectory, DirectoryError};
pub use error::{OpenError, StorageError};
pub use faults::{FaultControl, FaultCounts, Faults};
pub use faulty::FaultyStorage;
pub use memory::{
    ChangeId, CrashImages, Granularity, Keep, MemoryDisk, MemoryStorage, PendingChange,
    PendingKind, SECTOR,
};
pub use op::{Completion, DirEntry, FileId, Mapping, Op, Output, Preparation, Token};
pub use portable::PortableStorage;
pub use real::{Choice, RealStorage};
pub use uring::UringStorage;

/// The largest [`Op::Read`], in bytes.
pub const READ_BYTES_MAX: usize = 64 << 20;

/// Operations that one storage holds at a time: submitted and not yet handed out. One more
/// completes at once with [`StorageError::Resources`].
pub const IN_FLIGHT_MAX: usize = 65_536;

/// A disk, as the log sees it.
///
/// Operations, also on one file, may complete in any order and overlap; whoever needs an order
/// submits the next after the completion of the last. Every submitted operation completes
/// exactly once, unless the backend is dropped.
///
/// Dropping a storage lets go of all its files; what was in flight may or may not have
/// happened, as after a crash of the process.
pub trait Storage {
    /// What offsets, lengths and memory of reads and writes are multiples of: a power of two,
    /// at least 512.
    fn alignment(&self) -> usize;

    /// Queues an operation. Never blocks. It may start at once or at the next
    /// [`flush`](Self::flush).
    fn submit(&mut self, token: Token, op: Op);

    /// Starts all that was queued, with one submission where the backend can.
    fn flush(&mut self);

    /// Appends what has completed to `out`. Never blocks.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Flushes, and blocks until at least one completion is there, or none is in flight.
    /// For start-up, tools and tests; never on a shard's turn.
    fn wait(&mut self);

    /// Operations submitted and not yet handed out by [`poll`](Self::poll).
    fn in_flight(&self) -> usize;

    /// What this storage has done since it was opened.
    fn counters(&self) -> Counters;
}

/// What a storage has done since it was opened. For `status` and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations submitted.
    pub submitted: u64,
    /// Operations completed, failed ones among them.
    pub completed: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Bytes of completed [`Op::Write`]s and of [`Op::Create`]s' first blocks.
    pub bytes_written: u64,
    /// Bytes given by completed [`Op::Read`]s.
    pub bytes_read: u64,
    /// System calls that handed operations to a ring; 0 where there is none.
    pub ring_submissions: u64,
    /// Completions that came out of a ring; 0 where there is none.
    pub ring_completions: u64,
}

impl Counters {
    /// Counts a completion; `written` are the bytes that it wrote if it succeeded.
    fn count(&mut self, result: &Result<Output, StorageError>, written: u64) {
        self.completed += 1;
        match result {
            Ok(Output::Read(data)) => self.bytes_read += data.len() as u64,
            Ok(_) => self.bytes_written += written,
            Err(_) => self.failed += 1,
        }
    }
}

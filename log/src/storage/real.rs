//! The choice between the storages on a real file system.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use highwater_record::BufferPool;

use super::{
    Completion, Counters, DataDirectory, Op, OpenError, PortableStorage, Storage, Token,
    UringStorage,
};

/// Which storage is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where the system allows it, else the portable one.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Plain system calls.
    Portable,
}

/// Either storage on a real file system.
///
/// It stays on the thread that opened it, as [`UringStorage`] does.
#[derive(Debug)]
pub enum RealStorage {
    /// On io_uring.
    Uring(Box<UringStorage>),
    /// On plain system calls.
    Portable(Box<PortableStorage>),
}

impl RealStorage {
    /// Opens the wanted storage of a data directory, and says why it is not io_uring if
    /// [`Choice::Auto`] found none: one line for the log. Reads go to buffers of `pool`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; with [`Choice::Auto`] never [`NoRing`](OpenError::NoRing) or
    /// [`Buffered`](OpenError::Buffered).
    pub fn open(
        directory: Arc<DataDirectory>,
        pool: BufferPool,
        choice: Choice,
    ) -> Result<(Self, Option<OpenError>), OpenError> {
        if choice == Choice::Portable {
            return Ok((Self::portable(directory, pool)?, None));
        }
        match UringStorage::new(directory.clone(), pool.clone()) {
            Ok(storage) => Ok((Self::Uring(Box::new(storage)), None)),
            Err(why @ (OpenError::NoRing { .. } | OpenError::Buffered { .. }))
                if choice == Choice::Auto =>
            {
                Ok((Self::portable(directory, pool)?, Some(why)))
            }
            Err(error) => Err(error),
        }
    }

    fn portable(directory: Arc<DataDirectory>, pool: BufferPool) -> Result<Self, OpenError> {
        Ok(Self::Portable(Box::new(PortableStorage::new(
            directory, pool,
        )?)))
    }

    /// What it is called in configurations and logs: `uring` or `portable`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => "uring",
            Self::Portable(_) => "portable",
        }
    }

    /// Readable when [`poll`](Storage::poll) has something new, which takes the signal back.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Uring(storage) => storage.event_fd(),
            Self::Portable(storage) => storage.event_fd(),
        }
    }

    /// The directory it works in.
    #[must_use]
    pub fn directory(&self) -> &Arc<DataDirectory> {
        match self {
            Self::Uring(storage) => storage.directory(),
            Self::Portable(storage) => storage.directory(),
        }
    }
}

impl Storage for RealStorage {
    fn alignment(&self) -> usize {
        match self {
            Self::Uring(storage) => storage.alignment(),
            Self::Portable(storage) => storage.alignment(),
        }
    }

    fn submit(&mut self, token: Token, op: Op) {
        match self {
            Self::Uring(storage) => storage.submit(token, op),
            Self::Portable(storage) => storage.submit(token, op),
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Uring(storage) => storage.flush(),
            Self::Portable(storage) => storage.flush(),
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        match self {
            Self::Uring(storage) => storage.poll(out),
            Self::Portable(storage) => storage.poll(out),
        }
    }

    fn wait(&mut self) {
        match self {
            Self::Uring(storage) => storage.wait(),
            Self::Portable(storage) => storage.wait(),
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Uring(storage) => storage.in_flight(),
            Self::Portable(storage) => storage.in_flight(),
        }
    }

    fn counters(&self) -> Counters {
        match self {
            Self::Uring(storage) => storage.counters(),
            Self::Portable(storage) => storage.counters(),
        }
    }
}

//! Why a storage cannot be opened, or an operation failed, and what follows from it.

/// Why an operation failed, and what follows from it.
///
/// `path` names the file as it was called when it was opened; `file#7` stands for an id that
/// names none.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError {
    /// No such file or directory, or not of the asked kind.
    #[error("{path}: not found")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// There is such a file already; for a directory to be removed: it is not empty.
    #[error("{path}: exists already")]
    Exists {
        /// What was to be made or removed.
        path: String,
    },
    /// The file is protected, or the storage was opened read-only. The caller's mistake.
    #[error("{path}: is read-only")]
    ReadOnly {
        /// What was to be changed.
        path: String,
    },
    /// The file system is full. No poison: nothing was acknowledged, room may come back.
    #[error("{path}: no space left on the file system")]
    NoSpace {
        /// What was to be written.
        path: String,
    },
    /// No file descriptor, memory or place in the queue is left. Nothing was done; retriable.
    #[error("{path}: out of resources: {reason}")]
    Resources {
        /// What was to be done.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The caller broke the contract: a stale id, a misaligned buffer, a bad range or path.
    /// Nothing was done.
    #[error("{path}: invalid operation: {reason}")]
    Invalid {
        /// On what.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// The device or file system failed. For a write or sync it is final (RULES.md G-10).
    #[error("{path}: {call} failed: {reason}")]
    Io {
        /// On what.
        path: String,
        /// Which call.
        call: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// Why a real storage cannot be opened on a data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The caller's pool gives memory that the disk cannot read into.
    #[error("buffers are aligned to {pooled} bytes, the data directory wants {wanted}")]
    Alignment {
        /// The pool's alignment in bytes.
        pooled: usize,
        /// The directory's.
        wanted: usize,
    },
    /// The system refuses a ring: forbidden to this process (EPERM), unknown to the kernel
    /// (ENOSYS), or no memory for it (ENOMEM).
    #[error("no io_uring: {what}: {reason}")]
    NoRing {
        /// What was refused.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The file system takes no direct I/O, without which a ring gains nothing.
    #[error("no io_uring: without direct I/O it gains nothing: {reason}")]
    Buffered {
        /// What the file system said.
        reason: String,
    },
    /// No thread, descriptor or memory is left.
    #[error("out of resources: {what}: {reason}")]
    Resources {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn resources<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Resources {
            what,
            reason: error.to_string(),
        }
    }
}

//! What can be asked of a [`Storage`](super::Storage), and what it answers.

use std::sync::Arc;

use highwater_record::Buffer;

use super::StorageError;

/// What the submitter calls an operation; comes back with its completion.
///
/// Chosen by the submitter, never interpreted by a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An open file of a backend. Carries a generation, so that an id that outlived its file is
/// refused instead of meaning another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// How the blocks of a new file are made ready (DESIGN.md section 4, Preparation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// Blocks are reserved, not written: the file's later writes pay the conversion.
    Preallocate,
    /// Blocks are reserved and written with zeros once, so that later synced writes need no
    /// metadata commit.
    Zero,
}

/// One operation. Everything that is durable on completion says so.
#[derive(Debug)]
pub enum Op {
    /// Makes `path` anew with exactly `len` bytes prepared as asked, writes `first` at offset 0
    /// and syncs file and size. Not durable in its directory before [`Op::SyncDir`].
    /// Fails with [`StorageError::Exists`] if `path` is there, whatever it is; any other
    /// failure leaves no file behind as far as the backend can help it.
    /// Answers [`Output::Done`].
    Create {
        /// Where, relative to the data directory.
        path: String,
        /// The size in bytes, a multiple of the alignment, at least `first`'s length.
        len: u64,
        /// How the blocks are made ready.
        preparation: Preparation,
        /// The first bytes, aligned like those of [`Op::Write`]; may be empty.
        first: Buffer,
    },
    /// Opens an existing file for [`Op::Read`] and, if `write`, for [`Op::Write`],
    /// [`Op::Zero`], [`Op::Sync`] and [`Op::Truncate`]. A file that is [protected](Op::Protect) is
    /// not opened for writing. Answers [`Output::Opened`].
    Open {
        /// Which file.
        path: String,
        /// Whether it is also written.
        write: bool,
    },
    /// Closes a file. The id is refused from the submission on; operations that were submitted
    /// before still complete on the file. Answers [`Output::Done`].
    Close {
        /// Which file.
        file: FileId,
    },
    /// Writes `data` at `offset`; offset, length and memory are aligned to
    /// [`Storage::alignment`](super::Storage::alignment). Stays within the file: a size is
    /// given at [`Op::Create`], and a write never changes it. **Durable when completed**,
    /// whole: short writes are continued by the backend. When it fails, any part of it may
    /// have reached the disk, in any order. Answers [`Output::Done`].
    Write {
        /// Which file.
        file: FileId,
        /// Where in it, aligned.
        offset: u64,
        /// What, aligned in memory and length, not empty; kept alive until the completion.
        data: Buffer,
    },
    /// Writes zeros over `len` bytes at `offset` that were never written since the file was made,
    /// so that later synced writes to them need no metadata commit; durable on completion. Whoever
    /// reads sees no difference. Only while no write to them is in flight. Does nothing where the
    /// file system can reserve no blocks, since [`Op::Create`] has written them. Answers
    /// [`Output::Done`].
    Zero {
        /// Which file.
        file: FileId,
        /// Where in it, aligned.
        offset: u64,
        /// How much, aligned, not 0, within the file.
        len: u64,
    },
    /// Reads at most `len` bytes at `offset`, bypassing the page cache where the backend can.
    /// Offset and length are aligned. Shorter at the end of the file, empty beyond it.
    /// Answers [`Output::Read`].
    Read {
        /// Which file.
        file: FileId,
        /// Where in it, aligned.
        offset: u64,
        /// How much, aligned, not 0, at most [`READ_BYTES_MAX`](super::READ_BYTES_MAX).
        len: usize,
    },
    /// Makes everything durable that completed on this file before this was submitted, and
    /// whatever an earlier life left in the page cache. Answers [`Output::Done`].
    Sync {
        /// Which file.
        file: FileId,
    },
    /// Cuts the file to `len` bytes, or makes it longer with zeros whose blocks are not made
    /// ready; durable on completion. Only for files that are not mapped, and while no write to
    /// them is in flight. Answers [`Output::Done`].
    Truncate {
        /// Which file.
        file: FileId,
        /// The new length, aligned.
        len: u64,
    },
    /// Marks a file as never to be written again (mode 0400), or takes the mark away (0600).
    /// Durable on completion. Ids that were open for writing are not affected.
    /// Answers [`Output::Done`].
    Protect {
        /// Which file.
        path: String,
        /// Whether it is now immutable.
        read_only: bool,
    },
    /// Renames over `to` atomically. Durable only after [`Op::SyncDir`] of both directories.
    /// Answers [`Output::Done`].
    Rename {
        /// The present path.
        from: String,
        /// The new path; what lay there is gone. Its directory must exist.
        to: String,
    },
    /// Removes a file. Durable only after [`Op::SyncDir`] of its directory. Ids and mappings
    /// of it stay good. Answers [`Output::Done`].
    Unlink {
        /// Which file.
        path: String,
    },
    /// Makes a directory (mode 0700); fine if it is there. Durable only after [`Op::SyncDir`]
    /// of its parent. Answers [`Output::Done`].
    MakeDir {
        /// Which directory; its parent must exist.
        path: String,
    },
    /// Removes an empty directory. Durable only after [`Op::SyncDir`] of its parent.
    /// Answers [`Output::Done`].
    RemoveDir {
        /// Which directory.
        path: String,
    },
    /// Makes the entries of a directory durable: what completed in it before this was
    /// submitted. Answers [`Output::Done`].
    SyncDir {
        /// Which directory; `""` is the data directory itself.
        path: String,
    },
    /// Lists a directory. Answers [`Output::Listed`], in order of name.
    List {
        /// Which directory; `""` is the data directory itself.
        path: String,
    },
    /// Maps a whole, immutable, non-empty file read-only. Nothing is read yet: see
    /// [`Op::Populate`]. Answers [`Output::Mapped`].
    Map {
        /// Which file.
        path: String,
    },
    /// Brings a window of a mapping into memory, so that reading it meets no page fault, and
    /// reports errors of the disk instead of letting a later access die of them.
    /// Answers [`Output::Done`].
    Populate {
        /// Which mapping.
        mapping: Arc<dyn Mapping>,
        /// From which byte.
        offset: usize,
        /// How many bytes; the window lies within the mapping.
        len: usize,
    },
    /// Asks how much room the file system has. Answers [`Output::Space`].
    Space,
}

impl Op {
    /// Bytes of payload that it writes.
    pub(super) fn bytes_written(&self) -> u64 {
        match self {
            Self::Create { first: data, .. } | Self::Write { data, .. } => data.len() as u64,
            Self::Zero { len, .. } => *len,
            _ => 0,
        }
    }
}

/// What a completed operation gives.
#[derive(Debug)]
pub enum Output {
    /// It is done.
    Done,
    /// The file is open.
    Opened {
        /// Its id.
        file: FileId,
        /// Its length in bytes. Not aligned if something outside cut the file.
        len: u64,
        /// Whether it is [protected](Op::Protect).
        read_only: bool,
    },
    /// What was read.
    Read(Buffer),
    /// What the directory holds.
    Listed(Vec<DirEntry>),
    /// The mapping, released when its last owner drops it.
    Mapped(Arc<dyn Mapping>),
    /// Room on the file system, in bytes.
    Space {
        /// What may still be written.
        available: u64,
        /// All there is.
        total: u64,
    },
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name, without the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its length in bytes; 0 for a directory.
    pub len: u64,
}

/// A read-only view of a whole, immutable file.
pub trait Mapping: std::fmt::Debug + Send + Sync {
    /// The bytes. Touching a range that was not [populated](Op::Populate) may fault, and dies
    /// of an error of the disk.
    fn bytes(&self) -> &[u8];

    /// Brings `len` bytes from `offset` into memory. **Blocks**: backends call it for
    /// [`Op::Populate`] where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Invalid`] if the window leaves the mapping, [`StorageError::Io`] if the
    /// disk cannot deliver it.
    fn populate(&self, offset: usize, len: usize) -> Result<(), StorageError>;
}

/// What became of one operation.
#[derive(Debug)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: Token,
    /// What it gave, or why it failed.
    pub result: Result<Output, StorageError>,
}

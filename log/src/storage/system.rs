//! System calls: what a worker thread does for one operation.
//!
//! A file is read and written in one way, past the page cache where the file system takes
//! that. Otherwise a read drops what the cache holds of its range first, so that a tail is
//! recovered from the disk and not from pages that never reached it (RULES.md G-10).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater_record::{Budget, Buffer, BufferMut, BufferPool};
use rustix::fs::{
    self, Advice, AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Stat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::directory::{Access, DIR_MODE, DataDirectory, FILE_MODE};
use super::mapping::SealedMapping;
use super::{DirEntry, Mapping, Output, Preparation, StorageError, check};

/// Zeros are written in pieces of this size, in bytes. A disk does one thing after the other, and a
/// synced write of a few KiB waits for the piece before it.
const ZEROS: usize = 256 << 10;

/// The memory that zeros are taken from, in bytes: of less a pool makes no huge page.
const ZEROS_MEMORY: usize = 2 << 20;

/// Entries of one directory that are listed; more are an error.
const LIST_ENTRIES_MAX: usize = 1 << 20;

/// `FALLOC_FL_WRITE_ZEROES` (Linux 6.17): the device zeroes, without a transfer, and the blocks
/// count as written. Refused where the device cannot.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// An open file. Closed when the last operation on it has completed.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    pub(super) path: String,
    pub(super) write: bool,
    /// Device and inode: what it is, whatever it is called.
    pub(super) inode: (u64, u64),
    /// Its length in bytes, shared by all ids of the file.
    len: Arc<AtomicU64>,
}

impl OpenFile {
    pub(super) fn new(fd: OwnedFd, path: String, write: bool, stat: &Stat) -> Self {
        let len = Arc::new(AtomicU64::new(stat.st_size.unsigned_abs()));
        Self {
            fd,
            path,
            write,
            inode: (stat.st_dev, stat.st_ino),
            len,
        }
    }

    /// Another id of the same file is open: they see each other's cuts.
    pub(super) fn share_len(&mut self, other: &Self) {
        assert_eq!(
            self.inode, other.inode,
            "{} is another file than {}",
            self.path, other.path
        );
        self.len = other.len.clone();
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }
}

/// One operation, checked, with its file at hand.
#[derive(Debug)]
pub(super) enum Call {
    Create {
        path: String,
        len: u64,
        preparation: Preparation,
        first: Buffer,
    },
    Open {
        path: String,
        write: bool,
    },
    Close {
        file: Arc<OpenFile>,
    },
    Write {
        file: Arc<OpenFile>,
        offset: u64,
        data: Buffer,
    },
    Zero {
        file: Arc<OpenFile>,
        offset: u64,
        len: u64,
    },
    Read {
        file: Arc<OpenFile>,
        offset: u64,
        len: usize,
    },
    Sync {
        file: Arc<OpenFile>,
    },
    Truncate {
        file: Arc<OpenFile>,
        len: u64,
    },
    Protect {
        path: String,
        read_only: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
    },
    RemoveDir {
        path: String,
    },
    SyncDir {
        path: String,
    },
    List {
        path: String,
    },
    Map {
        path: String,
    },
    Populate {
        mapping: Arc<dyn Mapping>,
        offset: usize,
        len: usize,
    },
    Space,
}

impl Call {
    /// Whether it may take as long as a whole file takes to write or read, and so must not
    /// keep the others waiting.
    pub(super) fn is_long(&self) -> bool {
        matches!(
            self,
            Self::Create { .. } | Self::Zero { .. } | Self::Populate { .. }
        )
    }
}

/// What a call gives.
#[derive(Debug)]
pub(super) enum Answer {
    Opened { file: OpenFile, read_only: bool },
    Other(Output),
}

/// What the calls work on. Shared by the workers.
#[derive(Debug)]
pub(super) struct System {
    directory: Arc<DataDirectory>,
    pool: BufferPool,
    /// Aligned zeros to prepare files with. Not from the pool: they are part of no operation.
    ///
    /// In one huge page, where the system gives one. A virtio disk takes one entry of its ring, of
    /// 256 in common, for each stretch of memory that is not behind the last: a MiB in small pages
    /// waits until the ring is empty, fills it, and nothing else is written meanwhile.
    zeros: Buffer,
    /// Whether files are read and written past the page cache.
    direct: bool,
    /// Whether the file system has refused to reserve blocks.
    cannot_reserve: AtomicBool,
}

impl System {
    /// Past the page cache if `direct`, and if the file system takes that.
    pub(super) fn new(directory: Arc<DataDirectory>, pool: BufferPool, direct: bool) -> Self {
        let direct = direct && directory.why_buffered().is_none();
        let mut zeros = BufferPool::new(Budget::new(ZEROS_MEMORY), directory.alignment())
            .get(ZEROS)
            .unwrap_or_else(|_| BufferMut::unpooled(ZEROS, directory.alignment()));
        zeros.put_zeros(ZEROS);
        Self {
            directory,
            pool,
            zeros: zeros.freeze(),
            direct,
            cannot_reserve: AtomicBool::new(false),
        }
    }

    pub(super) fn directory(&self) -> &Arc<DataDirectory> {
        &self.directory
    }

    /// Does it. Blocks.
    pub(super) fn run(&self, call: Call) -> Result<Answer, StorageError> {
        let done = |()| Answer::Other(Output::Done);
        match call {
            Call::Create {
                path,
                len,
                preparation,
                first,
            } => self.create(&path, len, preparation, &first).map(done),
            Call::Open { path, write } => self.open(path, write),
            Call::Close { file } => {
                drop(file);
                Ok(done(()))
            }
            Call::Write { file, offset, data } => {
                write_all(&file.fd, &file.path, offset, &data)?;
                sync_data(&file).map(done)
            }
            Call::Zero { file, offset, len } => self.zero_file(&file, offset, len).map(done),
            Call::Read { file, offset, len } => self.read(&file, offset, len),
            Call::Sync { file } => sync_data(&file).map(done),
            Call::Truncate { file, len } => truncate(&file, len).map(done),
            Call::Protect { path, read_only } => self.protect(&path, read_only).map(done),
            Call::Rename { from, to } => self.rename(&from, &to).map(done),
            Call::Unlink { path } => self.unlink(&path).map(done),
            Call::MakeDir { path } => self.make_dir(&path).map(done),
            Call::RemoveDir { path } => self.remove_dir(&path).map(done),
            Call::SyncDir { path } => self.sync_dir(&path).map(done),
            Call::List { path } => self.list(&path).map(Output::Listed).map(Answer::Other),
            Call::Map { path } => self.map(path),
            Call::Populate {
                mapping,
                offset,
                len,
            } => mapping.populate(offset, len).map(done),
            Call::Space => self.space(),
        }
    }

    fn create(
        &self,
        path: &str,
        len: u64,
        preparation: Preparation,
        first: &Buffer,
    ) -> Result<(), StorageError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | self.file_flags();
        let root = self.directory.root();
        let fd = fs::openat(root, path, flags, FILE_MODE).map_err(|e| failed(path, "openat", e))?;
        let made = self.prepare(&fd, path, len, preparation, first);
        if made.is_err() {
            // Half a file helps nobody. If this fails too, its identity block was not written
            // or is never believed.
            let _ = fs::unlinkat(root, path, AtFlags::empty());
        }
        made
    }

    fn prepare(
        &self,
        fd: &OwnedFd,
        path: &str,
        len: u64,
        preparation: Preparation,
        first: &Buffer,
    ) -> Result<(), StorageError> {
        let reserved = match fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
            Ok(()) => true,
            Err(Errno::OPNOTSUPP) => false,
            Err(error) => return Err(failed(path, "fallocate", error)),
        };
        if !reserved {
            self.cannot_reserve.store(true, Ordering::Relaxed);
        }
        if preparation == Preparation::Zero || !reserved {
            self.zero(fd, path, first.len() as u64, len)?;
        }
        write_all(fd, path, 0, first)?;
        retry_on_intr(|| fs::fsync(fd)).map_err(|error| failed(path, "fsync", error))
    }

    fn zero_file(&self, file: &OpenFile, offset: u64, len: u64) -> Result<(), StorageError> {
        if self.cannot_reserve.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.zero(&file.fd, &file.path, offset, offset + len)?;
        sync_data(file)
    }

    fn zero(&self, fd: &OwnedFd, path: &str, from: u64, to: u64) -> Result<(), StorageError> {
        if fs::fallocate(fd, WRITE_ZEROES, from, to - from).is_ok() {
            return Ok(());
        }
        let mut at = from;
        while at < to {
            let piece = usize::try_from(to - at).map_or(ZEROS, |left| left.min(ZEROS));
            write_all(fd, path, at, &self.zeros[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    fn open(&self, path: String, write: bool) -> Result<Answer, StorageError> {
        let mode = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = mode | self.file_flags();
        let fd = match fs::openat(self.directory.root(), &path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ACCESS) if write => return Err(StorageError::ReadOnly { path }),
            // A directory opened for writing.
            Err(Errno::ISDIR) => return Err(StorageError::NotFound { path }),
            // What a directory answers to O_DIRECT.
            Err(Errno::INVAL) if self.is_dir(&path) => {
                return Err(StorageError::NotFound { path });
            }
            Err(error) => return Err(failed(&path, "openat", error)),
        };
        let (stat, _) = stat_file(&fd, &path)?;
        let read_only = !Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR);
        if write && read_only {
            return Err(StorageError::ReadOnly { path });
        }
        let file = OpenFile::new(fd, path, write, &stat);
        Ok(Answer::Opened { file, read_only })
    }

    fn read(&self, file: &OpenFile, offset: u64, len: usize) -> Result<Answer, StorageError> {
        let mut buffer = self.buffer(&file.path, len)?;
        if !self.direct {
            self.forget_pages(file, offset, len)?;
        }
        let room = &mut buffer.spare_mut()[..len];
        let mut filled = 0;
        while filled < len {
            let at = offset + filled as u64;
            let count = retry_on_intr(|| pread(&file.fd, &mut room[filled..], at))
                .map_err(|error| failed(&file.path, "pread", error))?;
            filled += count;
            // A part of a block is the file's end; to ask on from there would be misaligned.
            if count == 0 || !count.is_multiple_of(self.directory.alignment()) {
                break;
            }
        }
        buffer.advance(filled);
        Ok(Answer::Other(Output::Read(buffer.freeze())))
    }

    /// Room for a read.
    pub(super) fn buffer(&self, path: &str, len: usize) -> Result<BufferMut, StorageError> {
        self.pool.get(len).map_err(|error| StorageError::Resources {
            path: path.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Drops the clean pages of a range from the page cache, so that a read asks the disk.
    fn forget_pages(&self, file: &OpenFile, offset: u64, len: usize) -> Result<(), StorageError> {
        let len = std::num::NonZeroU64::new(len as u64);
        fs::fadvise(&file.fd, offset, len, Advice::DontNeed)
            .map_err(|error| failed(&file.path, "fadvise", error))
    }

    fn protect(&self, path: &str, read_only: bool) -> Result<(), StorageError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = fs::openat(self.directory.root(), path, flags, Mode::empty())
            .map_err(|error| failed(path, "openat", error))?;
        stat_file(&fd, path)?;
        let mode = if read_only { Mode::RUSR } else { FILE_MODE };
        fs::fchmod(&fd, mode).map_err(|error| failed(path, "fchmod", error))?;
        fs::fsync(&fd).map_err(|error| failed(path, "fsync", error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let root = self.directory.root();
        let stat = fs::statat(root, from, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed(from, "fstatat", error))?;
        // A file replaces a file; a directory replaces nothing, not even an empty one.
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => RenameFlags::NOREPLACE,
            _ => RenameFlags::empty(),
        };
        match fs::renameat_with(root, from, root, to, flags) {
            Err(Errno::ISDIR) => Err(StorageError::Exists {
                path: to.to_owned(),
            }),
            other => other.map_err(|error| failed(to, "renameat", error)),
        }
    }

    fn unlink(&self, path: &str) -> Result<(), StorageError> {
        match fs::unlinkat(self.directory.root(), path, AtFlags::empty()) {
            Err(Errno::ISDIR) => Err(StorageError::NotFound {
                path: path.to_owned(),
            }),
            other => other.map_err(|error| failed(path, "unlinkat", error)),
        }
    }

    fn make_dir(&self, path: &str) -> Result<(), StorageError> {
        let root = self.directory.root();
        match fs::mkdirat(root, path, DIR_MODE) {
            Err(Errno::EXIST) => {
                let stat = fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| failed(path, "fstatat", error))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Ok(()),
                    _ => Err(StorageError::Exists {
                        path: path.to_owned(),
                    }),
                }
            }
            other => other.map_err(|error| failed(path, "mkdirat", error)),
        }
    }

    fn remove_dir(&self, path: &str) -> Result<(), StorageError> {
        fs::unlinkat(self.directory.root(), path, AtFlags::REMOVEDIR)
            .map_err(|error| failed(path, "unlinkat", error))
    }

    fn sync_dir(&self, path: &str) -> Result<(), StorageError> {
        let fd = self.open_dir(path)?;
        retry_on_intr(|| fs::fsync(&fd)).map_err(|error| failed(path, "fsync", error))
    }

    fn list(&self, path: &str) -> Result<Vec<DirEntry>, StorageError> {
        let fd = self.open_dir(path)?;
        let dir = fs::Dir::read_from(&fd).map_err(|error| failed(path, "getdents", error))?;
        let mut entries = Vec::new();
        for entry in dir {
            let entry = entry.map_err(|error| failed(path, "getdents", error))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Unlinked since it was read.
                Err(Errno::NOENT) => continue,
                other => other.map_err(|error| failed(path, "fstatat", error))?,
            };
            entries.push(dir_entry(path, name, &stat)?);
            if entries.len() > LIST_ENTRIES_MAX {
                let reason = format!("more than {LIST_ENTRIES_MAX} entries");
                return Err(StorageError::Resources {
                    path: path.to_owned(),
                    reason,
                });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn map(&self, path: String) -> Result<Answer, StorageError> {
        // Through the page cache: a sealed file is no longer read or written past it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = fs::openat(self.directory.root(), &path, flags, Mode::empty())
            .map_err(|error| failed(&path, "openat", error))?;
        let (_, len) = stat_file(&fd, &path)?;
        let len = check::mappable(&path, len)?;
        let mapping = SealedMapping::new(path, &fd, len)?;
        Ok(Answer::Other(Output::Mapped(Arc::new(mapping))))
    }

    fn space(&self) -> Result<Answer, StorageError> {
        let volume = fs::fstatvfs(self.directory.root())
            .map_err(|error| failed("(file system)", "fstatvfs", error))?;
        let available = volume.f_bavail.saturating_mul(volume.f_frsize);
        let total = volume.f_blocks.saturating_mul(volume.f_frsize);
        Ok(Answer::Other(Output::Space { available, total }))
    }

    fn open_dir(&self, path: &str) -> Result<OwnedFd, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let at = if path.is_empty() { "." } else { path };
        fs::openat(self.directory.root(), at, flags, Mode::empty())
            .map_err(|error| failed(path, "openat", error))
    }

    fn is_dir(&self, path: &str) -> bool {
        let stat = fs::statat(self.directory.root(), path, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// How files are opened that are read and written.
    fn file_flags(&self) -> OFlags {
        let direct = if self.direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        // Not to be led elsewhere by a link, nor to hang on a pipe.
        direct | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.directory.access() == Access::ReadOnly
    }
}

/// Writes all of it, however often the system takes only a part.
fn write_all(fd: &impl AsFd, path: &str, offset: u64, data: &[u8]) -> Result<(), StorageError> {
    let mut written = 0;
    while written < data.len() {
        let at = offset + written as u64;
        let count = retry_on_intr(|| pwrite(fd, &data[written..], at))
            .map_err(|error| failed(path, "pwrite", error))?;
        if count == 0 {
            return Err(failed(path, "pwrite", Errno::IO));
        }
        written += count;
    }
    Ok(())
}

fn sync_data(file: &OpenFile) -> Result<(), StorageError> {
    retry_on_intr(|| fs::fdatasync(&file.fd)).map_err(|e| failed(&file.path, "fdatasync", e))
}

fn truncate(file: &OpenFile, len: u64) -> Result<(), StorageError> {
    retry_on_intr(|| fs::ftruncate(&file.fd, len))
        .map_err(|error| failed(&file.path, "ftruncate", error))?;
    file.len.store(len, Ordering::Relaxed);
    retry_on_intr(|| fs::fsync(&file.fd)).map_err(|error| failed(&file.path, "fsync", error))
}

/// The state and length of a plain file; anything else is not found.
fn stat_file(fd: &OwnedFd, path: &str) -> Result<(Stat, u64), StorageError> {
    let stat = fs::fstat(fd).map_err(|error| failed(path, "fstat", error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((stat, stat.st_size.unsigned_abs())),
        _ => Err(StorageError::NotFound {
            path: path.to_owned(),
        }),
    }
}

fn dir_entry(path: &str, name: &std::ffi::CStr, stat: &Stat) -> Result<DirEntry, StorageError> {
    let Ok(name) = name.to_str() else {
        let reason = format!("an entry is called {name:?}, which is no UTF-8");
        return Err(StorageError::Io {
            path: path.to_owned(),
            call: "getdents",
            reason,
        });
    };
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let len = if is_dir {
        0
    } else {
        stat.st_size.unsigned_abs()
    };
    Ok(DirEntry {
        name: name.to_owned(),
        is_dir,
        len,
    })
}

/// What an error of the system means to the log.
pub(super) fn failed(path: &str, call: &'static str, errno: Errno) -> StorageError {
    let path = path.to_owned();
    match errno {
        // A link is nothing of ours.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => StorageError::NotFound { path },
        Errno::EXIST | Errno::NOTEMPTY => StorageError::Exists { path },
        Errno::NOSPC | Errno::DQUOT => StorageError::NoSpace { path },
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => StorageError::Resources {
            path,
            reason: format!("{call}: {errno}"),
        },
        errno => StorageError::Io {
            path,
            call,
            reason: errno.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_told_apart_by_what_the_log_does() {
        let of = |errno| failed("a", "pwrite", errno);
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(of(errno), StorageError::NoSpace { .. }), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(
                matches!(of(errno), StorageError::Resources { .. }),
                "{errno}"
            );
        }
        for errno in [Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::FBIG] {
            assert!(matches!(of(errno), StorageError::Io { .. }), "{errno}");
        }
        assert_eq!(
            of(Errno::IO).to_string(),
            "a: pwrite failed: Input/output error (os error 5)"
        );
    }
}

//! A data directory on a real file system: made, locked, and asked how it wants to be written.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::BufferMut;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, pread, pwrite};

/// The file whose lock says that a process uses the directory. It stays empty.
const LOCK: &str = "lock";

/// Directories are for their owner alone.
pub(super) const DIR_MODE: Mode = Mode::from_raw_mode(0o700);

/// So are files.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// The smallest alignment, whatever the file system says: a page.
const ALIGNMENT_MIN: u64 = 4096;

/// The largest alignment that is believed.
const ALIGNMENT_MAX: u64 = 1 << 20;

/// File systems that never overwrite in place, by their magic number (statfs(2)), where direct
/// writes race with the file system's own checksums or are buffered anyway.
const COPY_ON_WRITE: [(u64, &str); 3] = [
    (0x9123_683E, "btrfs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x2FC1_2FC1, "zfs"),
];

/// What a process wants of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To use it, alone.
    ReadWrite,
    /// To look at it while nobody uses it. Changes nothing, and refuses to.
    ReadOnly,
}

/// Why a data directory cannot be used. In all cases nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It is not there, or no directory.
    #[error("{path}: no such directory")]
    NotFound {
        /// What was opened.
        path: PathBuf,
    },
    /// It was never made a data directory: there is no lock file in it.
    #[error("{path}: not a data directory")]
    NotFormatted {
        /// What was opened.
        path: PathBuf,
    },
    /// It is a data directory already.
    #[error("{path}: is a data directory already")]
    Exists {
        /// What was to be made.
        path: PathBuf,
    },
    /// Another process uses it, or this one does through another handle. If it was killed just
    /// now, its last writes may still be on their way: try again.
    #[error("{path}: in use by another process")]
    Locked {
        /// What was opened.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {call} failed: {reason}")]
    Io {
        /// What was opened or made.
        path: PathBuf,
        /// Which call.
        call: &'static str,
        /// What kind of refusal it is: whether the disk is full, for instance.
        kind: std::io::ErrorKind,
        /// What the system said.
        reason: String,
    },
}

/// A data directory, locked as long as this lives.
///
/// Shared by the storages of all shards of a process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    root: OwnedFd,
    lock: OwnedFd,
    access: Access,
    alignment: usize,
    /// Why files are not read and written past the page cache, if they are not.
    buffered: Option<String>,
}

impl DataDirectory {
    /// Makes `path` a data directory, for its owner alone, and opens it. The directory and
    /// those above it are made as needed; what else lies in it is left alone.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Exists`] if it is one already; others as the system says.
    pub fn create(path: &Path) -> Result<Arc<Self>, DirectoryError> {
        let failed = |call| move |error: std::io::Error| io_error(path, call, &error);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(DIR_MODE.as_raw_mode());
        builder.create(path).map_err(failed("mkdir"))?;
        let root = open_root(path)?;
        fs::fchmod(&root, DIR_MODE).map_err(|e| io_error(path, "fchmod", &e.into()))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = match fs::openat(&root, LOCK, flags, FILE_MODE) {
            Err(Errno::EXIST) => Err(DirectoryError::Exists {
                path: path.to_owned(),
            }),
            other => other.map_err(|error| io_error(path, "openat", &error.into())),
        }?;
        fs::fsync(&lock).map_err(|error| io_error(path, "fsync", &error.into()))?;
        fs::fsync(&root).map_err(|error| io_error(path, "fsync", &error.into()))?;
        let above = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let above = std::fs::File::open(above).map_err(failed("open"))?;
        above.sync_all().map_err(failed("fsync"))?;
        Self::locked(path, root, lock, Access::ReadWrite)
    }

    /// Opens and locks a data directory.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`], every variant but `Exists`.
    pub fn open(path: &Path, access: Access) -> Result<Arc<Self>, DirectoryError> {
        let root = open_root(path)?;
        let mode = match access {
            Access::ReadWrite => OFlags::RDWR,
            Access::ReadOnly => OFlags::RDONLY,
        };
        let flags = mode | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = match fs::openat(&root, LOCK, flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(DirectoryError::NotFormatted {
                path: path.to_owned(),
            }),
            other => other.map_err(|error| io_error(path, "openat", &error.into())),
        }?;
        Self::locked(path, root, lock, access)
    }

    fn locked(
        path: &Path,
        root: OwnedFd,
        lock: OwnedFd,
        access: Access,
    ) -> Result<Arc<Self>, DirectoryError> {
        let operation = match access {
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        };
        match fs::flock(&lock, operation) {
            Err(Errno::WOULDBLOCK) => Err(DirectoryError::Locked {
                path: path.to_owned(),
            }),
            other => other.map_err(|error| io_error(path, "flock", &error.into())),
        }?;
        let path = path.to_owned();
        let mut directory = Self {
            path,
            root,
            lock,
            access,
            alignment: 0,
            buffered: None,
        };
        directory.probe()?;
        Ok(Arc::new(directory))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was opened for.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// What reads and writes are aligned to, in bytes: the largest of the file system's block,
    /// what direct I/O asks for, and 4 KiB. Also where I/O is buffered, so that a directory can
    /// be moved.
    #[must_use]
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Why files in it are read and written through the page cache, or nothing if they are
    /// not.
    #[must_use]
    pub fn why_buffered(&self) -> Option<&str> {
        self.buffered.as_deref()
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The locked file, which a ring keeps alive until the writes of a killed process have
    /// ended.
    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Asks the file system for its alignment, and whether it takes direct I/O.
    fn probe(&mut self) -> Result<(), DirectoryError> {
        let failed = |call| move |errno: Errno| (call, errno);
        let probed = self.probe_blocks().map_err(failed("fstatvfs"));
        let direct = probed.and_then(|()| self.probe_direct().map_err(failed("openat")));
        let refusal = direct.map_err(|(call, e)| io_error(&self.path, call, &e.into()))?;
        self.buffered = refusal;
        Ok(())
    }

    fn probe_blocks(&mut self) -> Result<(), Errno> {
        let volume = fs::fstatvfs(&self.root)?;
        let asked = fs::statx(&self.lock, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        let direct = asked.map_or(0, |asked| {
            u64::from(asked.stx_dio_mem_align.max(asked.stx_dio_offset_align))
        });
        // Some network file systems report megabytes as their block, which is a wish.
        let block = if volume.f_frsize <= ALIGNMENT_MAX {
            volume.f_frsize
        } else {
            0
        };
        let alignment = block.max(direct).max(ALIGNMENT_MIN).next_power_of_two();
        self.alignment = usize::try_from(alignment.min(ALIGNMENT_MAX)).expect("at most a MiB");
        Ok(())
    }

    /// Why there is no direct I/O here, or nothing if there is.
    fn probe_direct(&self) -> Result<Option<String>, Errno> {
        let magic = u64::try_from(fs::fstatfs(&self.root)?.f_type).unwrap_or(0);
        if let Some((_, name)) = COPY_ON_WRITE.iter().find(|(known, _)| *known == magic) {
            return Ok(Some(format!("{name} copies on write")));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        match fs::openat(&self.root, LOCK, flags, Mode::empty()) {
            Ok(_) => Ok(self.try_direct()),
            Err(Errno::INVAL) => Ok(Some("the file system refuses O_DIRECT".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Writes and reads a block of a nameless file: some file systems take the flag and then
    /// refuse its use.
    fn try_direct(&self) -> Option<String> {
        if self.access == Access::ReadOnly {
            return None;
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        // Nameless files are not everywhere; then the flag alone must do.
        let file = fs::openat(&self.root, ".", flags, FILE_MODE).ok()?;
        let mut block = BufferMut::unpooled(self.alignment, self.alignment);
        block.put_zeros(self.alignment);
        let written = pwrite(&file, block.as_slice(), 0);
        let read = pread(&file, block.unshared_mut(0..self.alignment), 0);
        match written.and(read) {
            Ok(count) if count == self.alignment => None,
            // A full disk says nothing about direct I/O.
            Err(Errno::NOSPC | Errno::DQUOT) => None,
            Ok(count) => Some(format!(
                "a direct read gave {count} of {} bytes",
                self.alignment
            )),
            Err(error) => Some(format!("a direct write failed: {error}")),
        }
    }
}

impl Drop for DataDirectory {
    /// Unlocks even where a ring that is being closed still holds the file: whoever shares
    /// this has seen all its operations end.
    fn drop(&mut self) {
        let _ = fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Err(DirectoryError::NotFound {
            path: path.to_owned(),
        }),
        other => other.map_err(|error| io_error(path, "open", &error.into())),
    }
}

fn io_error(path: &Path, call: &'static str, error: &std::io::Error) -> DirectoryError {
    DirectoryError::Io {
        path: path.to_owned(),
        call,
        kind: error.kind(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_is_made_once_and_for_its_owner_alone() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("a/b");
        let made = DataDirectory::create(&path).unwrap();
        assert_eq!((mode(&path), mode(&path.join(LOCK))), (0o700, 0o600));
        assert!(made.alignment().is_power_of_two() && made.alignment() >= 4096);
        drop(made);
        let again = DataDirectory::create(&path);
        assert!(
            matches!(again, Err(DirectoryError::Exists { .. })),
            "{again:?}"
        );
    }

    #[test]
    fn what_is_no_data_directory_is_refused_untouched() {
        let above = tempfile::tempdir().unwrap();
        let open = |path: &Path| DataDirectory::open(path, Access::ReadWrite);
        let found = open(above.path());
        assert!(
            matches!(found, Err(DirectoryError::NotFormatted { .. })),
            "{found:?}"
        );
        assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);
        let found = open(&above.path().join("x"));
        assert!(
            matches!(found, Err(DirectoryError::NotFound { .. })),
            "{found:?}"
        );
        std::fs::write(above.path().join("file"), "").unwrap();
        let found = open(&above.path().join("file"));
        assert!(
            matches!(found, Err(DirectoryError::NotFound { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn one_writer_or_many_readers() {
        let above = tempfile::tempdir().unwrap();
        let open = |access| DataDirectory::open(above.path(), access);
        let locked = |opened| matches!(opened, Err(DirectoryError::Locked { .. }));
        let writer = DataDirectory::create(above.path()).unwrap();
        assert!(locked(open(Access::ReadWrite)));
        assert!(locked(open(Access::ReadOnly)));
        drop(writer);
        let readers = [
            open(Access::ReadOnly).unwrap(),
            open(Access::ReadOnly).unwrap(),
        ];
        assert!(locked(open(Access::ReadWrite)));
        drop(readers);
        open(Access::ReadWrite).unwrap();
    }
}

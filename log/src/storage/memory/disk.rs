//! The handle on a disk in memory: what a test may do to it behind the back of its user.

use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use twox_hash::XxHash3_64;

use super::crash::{Keep, PendingChange, draw};
use super::image::{Image, Node};
use super::node::FileNode;
use crate::storage::StorageError;

/// A disk in memory, which outlives the storages on it. Clones are handles on the same disk;
/// [`fork`](Self::fork) copies it.
///
/// To crash a process, drop its storage (what was in flight has then happened, but is not
/// durable) or call [`kill`](Self::kill); to cut the power, call
/// [`power_cut`](Self::power_cut). Then open a new storage. A storage from before the crash
/// answers with errors.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    image: Arc<Mutex<Image>>,
}

/// The alignment of a disk that was not told another: a page.
const ALIGNMENT: usize = 4096;

impl MemoryDisk {
    /// An empty disk with an alignment of 4 KiB and all the room there is.
    #[must_use]
    pub fn new() -> Self {
        Self::with_alignment(ALIGNMENT)
    }

    /// An empty disk with this alignment in bytes.
    ///
    /// # Panics
    ///
    /// If it is no power of two, or below 512.
    #[must_use]
    pub fn with_alignment(alignment: usize) -> Self {
        Self {
            image: Arc::new(Mutex::new(Image::new(alignment))),
        }
    }

    /// An independent copy of the disk as it is: what is pending here is pending there, and no
    /// longer in flight. Costs a few pointers per file.
    #[must_use]
    pub fn fork(&self) -> Self {
        let fork = self.image().fork();
        Self {
            image: Arc::new(Mutex::new(fork)),
        }
    }

    /// Lets all files together have this many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.image().capacity = bytes;
    }

    /// What a power cut may undo now: files in order of creation, then directory entries.
    #[must_use]
    pub fn pending(&self) -> Vec<PendingChange> {
        self.image().pending()
    }

    /// Cuts the power: what is durable stays, and of what is pending what `choose` keeps. It
    /// is asked about each of [`pending`](Self::pending), in that order.
    pub fn power_cut(&self, mut choose: impl FnMut(&PendingChange) -> Keep) {
        self.image().power_cut(&mut choose);
    }

    /// Cuts the power as [`power_cut`](Self::power_cut) does, each pending change left by
    /// chance: not at all, whole, its front, or any of its sectors, at even odds.
    pub fn power_cut_by_chance(&self, rng: &mut Rng) {
        self.power_cut(|change| draw(rng, change, 0.5, 0.5));
    }

    /// Kills the process: of the operations in flight `choose` says what has happened. That
    /// can be read by the next life, and is not durable.
    pub fn kill(&self, mut choose: impl FnMut(&PendingChange) -> Keep) {
        self.image().kill(&mut choose);
    }

    /// The paths of all files, in order of directory and name, as a process sees them.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let image = self.image();
        let is_file = |node: &_| matches!(image.nodes[node], Node::File(_));
        let files = image.tree.live.values().filter(|node| is_file(node));
        let mut paths: Vec<_> = files.map(|node| image.path_of(*node)).collect();
        paths.sort();
        paths
    }

    /// A file's bytes, as a process sees them.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    pub fn contents(&self, path: &str) -> Result<Vec<u8>, StorageError> {
        let image = self.image();
        Ok(image.node(image.file(path)?).live.read(0, usize::MAX))
    }

    /// A hash of all that a process sees: every path, and of files the bytes and whether they are
    /// protected. Two disks that look alike have the same.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let image = self.image();
        let mut hash = XxHash3_64::with_seed(0);
        let nodes = image.tree.live.values();
        let mut paths: Vec<_> = nodes.map(|node| (image.path_of(*node), *node)).collect();
        paths.sort();
        for (path, node) in paths {
            hash.write(path.as_bytes());
            hash.write(b"\0");
            if let Node::File(file) = &image.nodes[&node] {
                hash.write(&[1, u8::from(file.read_only)]);
                file.live.hash_into(&mut hash);
            }
        }
        hash.finish()
    }

    /// A file's bytes if the power were cut now and nothing that is pending survived.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    pub fn durable_contents(&self, path: &str) -> Result<Vec<u8>, StorageError> {
        let image = self.image();
        Ok(image.node(image.file(path)?).durable.read(0, usize::MAX))
    }

    /// Writes bytes over those of a file, durably, as a rotting disk does: no operation sees
    /// it happen. What lies behind the file's end is dropped.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    pub fn corrupt(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.alter(path, |file| {
            file.durable.write(offset, bytes);
            file.live.write(offset, bytes);
        })
    }

    /// Flips a bit of a file; bit 0 is the lowest of the first byte.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    ///
    /// # Panics
    ///
    /// If the file is not so long.
    pub fn flip_bit(&self, path: &str, bit: u64) -> Result<(), StorageError> {
        let offset = bit / 8;
        self.alter(path, |file| {
            assert!(offset < file.live.len(), "{path} has no byte {offset}");
            file.flip_bit(bit);
        })
    }

    /// Gives a file another size, durably and aligned or not: shorter, or longer with zeros.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    pub fn resize_file(&self, path: &str, len: u64) -> Result<(), StorageError> {
        self.alter(path, |file| {
            file.durable.resize(len);
            file.live.resize(len);
        })
    }

    /// Puts a file with these bytes there, durably, in the place of what had that path;
    /// directories are made as needed. For golden files and hand-made damage.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`] if a part of the path is a file,
    /// [`StorageError::Exists`] if the path is a directory.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let mut dirs: Vec<_> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        let mut image = self.image();
        for dir in &dirs {
            let made = image.make_dir(dir)?;
            image.finish(&made);
        }
        if let Ok(gone) = image.unlink(path) {
            image.finish(&gone);
        }
        let created = image.create(path, bytes.len() as u64, bytes)?;
        image.finish(&created);
        dirs.push("");
        for dir in dirs {
            let synced = image.sync_dir(dir)?;
            image.finish(&synced);
        }
        Ok(())
    }

    /// Gives a file the contents that it has on an older copy of the disk, durably: a stale
    /// read, or a file rolled back.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`] if either has no such file.
    pub fn roll_back(&self, path: &str, older: &MemoryDisk) -> Result<(), StorageError> {
        let contents = older.contents(path)?;
        self.alter(path, |file| {
            for content in [&mut file.durable, &mut file.live] {
                content.resize(contents.len() as u64);
                content.write(0, &contents);
            }
        })
    }

    /// Loses a file, or an empty directory, as if it had never been.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`]; [`StorageError::Exists`] if a directory is not empty.
    pub fn remove(&self, path: &str) -> Result<(), StorageError> {
        let mut image = self.image();
        let gone = image.unlink(path).or_else(|_| image.remove_dir(path))?;
        image.finish(&gone);
        let (dir, _) = path.rsplit_once('/').unwrap_or(("", path));
        let synced = image.sync_dir(dir)?;
        image.finish(&synced);
        Ok(())
    }

    fn alter(&self, path: &str, change: impl FnOnce(&mut FileNode)) -> Result<(), StorageError> {
        let mut image = self.image();
        let node = image.file(path)?;
        change(image.node_mut(node));
        Ok(())
    }

    pub(in crate::storage) fn image(&self) -> MutexGuard<'_, Image> {
        self.image
            .lock()
            .expect("nothing panics halfway through a change of a disk")
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

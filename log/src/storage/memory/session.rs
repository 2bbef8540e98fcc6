//! One life on a disk in memory: its open files, and operations in their two steps.

use std::sync::Arc;

use highwater_record::Buffer;

use super::MemoryDisk;
use super::image::{Effect, Image};
use super::node::Left;
use super::tree::NodeId;
use crate::storage::files::{FileTable, OPEN_FILES_MAX};
use crate::storage::{FileId, Mapping, Op, Output, StorageError, check};

/// What a storage has of a disk in memory.
#[derive(Debug)]
pub(in crate::storage) struct Session {
    disk: MemoryDisk,
    life: u64,
    files: FileTable<OpenFile>,
}

#[derive(Debug, Clone)]
pub(in crate::storage) struct OpenFile {
    pub(in crate::storage) node: NodeId,
    pub(in crate::storage) path: String,
    write: bool,
}

/// An operation that has begun: what it will answer, and what it will make durable.
#[derive(Debug)]
pub(in crate::storage) struct Begun {
    pub(in crate::storage) effect: Effect,
    pub(in crate::storage) result: Result<Output, StorageError>,
}

impl Begun {
    /// It says that it is done, and does nothing.
    pub(in crate::storage) fn done() -> Self {
        Self {
            effect: Effect::None,
            result: Ok(Output::Done),
        }
    }

    pub(in crate::storage) fn failed(error: StorageError) -> Self {
        Self {
            effect: Effect::None,
            result: Err(error),
        }
    }
}

impl Session {
    pub(in crate::storage) fn new(disk: MemoryDisk) -> Self {
        let life = disk.image().life;
        Self {
            disk,
            life,
            files: FileTable::new(),
        }
    }

    pub(in crate::storage) fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    pub(in crate::storage) fn alignment(&self) -> usize {
        self.disk.image().alignment
    }

    /// What an operation is about, for errors.
    pub(in crate::storage) fn path_of(&self, op: &Op) -> String {
        match op {
            Op::Write { file, .. }
            | Op::Zero { file, .. }
            | Op::Read { file, .. }
            | Op::Sync { file }
            | Op::Truncate { file, .. }
            | Op::Close { file } => self.path_of_file(*file),
            Op::Create { path, .. }
            | Op::Open { path, .. }
            | Op::Protect { path, .. }
            | Op::Rename { from: path, .. }
            | Op::Unlink { path }
            | Op::MakeDir { path }
            | Op::RemoveDir { path }
            | Op::SyncDir { path }
            | Op::List { path }
            | Op::Map { path } => path.clone(),
            Op::Populate { .. } | Op::Space => String::new(),
        }
    }

    pub(in crate::storage) fn path_of_file(&self, file: FileId) -> String {
        match self.files.get(file) {
            Some(open) => open.path.clone(),
            None => format!("file#{}", file.0),
        }
    }

    /// Where a write would go, if it is one that would be accepted.
    pub(in crate::storage) fn place_of_write(&self, op: &Op) -> Option<Place> {
        let Op::Write { file, offset, data } = op else {
            return None;
        };
        let image = self.disk.image();
        let open = self.writable(*file).ok()?;
        if image.life != self.life {
            return None;
        }
        let file_len = check_write(&image, open, *offset, data).ok()?;
        Some(Place {
            file_len,
            alignment: image.alignment,
        })
    }

    /// The open file of this id.
    pub(in crate::storage) fn open_file(&self, file: FileId) -> Result<&OpenFile, StorageError> {
        self.files.get(file).ok_or_else(|| check::stale(file))
    }

    /// First step: refuses the operation, or makes it visible.
    pub(in crate::storage) fn begin(&mut self, op: Op) -> Begun {
        let disk = self.disk.clone();
        let mut image = disk.image();
        if image.life != self.life {
            return Begun::failed(over());
        }
        self.dispatch(&mut image, op).unwrap_or_else(Begun::failed)
    }

    /// Second step: makes durable what the operation promises, and answers.
    pub(in crate::storage) fn finish(&mut self, begun: Begun) -> Result<Output, StorageError> {
        let mut image = self.disk.image();
        if image.life != self.life {
            return Err(over());
        }
        image.check_zeros(&begun.effect)?;
        image.finish(&begun.effect);
        begun.result
    }

    /// As [`finish`](Self::finish), but one bit of the file is wrong from now on.
    pub(in crate::storage) fn finish_rotten(
        &mut self,
        begun: Begun,
        bit: u64,
    ) -> Result<Output, StorageError> {
        let written = match begun.effect {
            Effect::Data { node, .. } => Some(node),
            _ => None,
        };
        let output = self.finish(begun)?;
        if let Some(node) = written {
            self.disk.image().with_node(node, |file| file.flip_bit(bit));
        }
        Ok(output)
    }

    /// Instead of the second step: the operation has failed, or its process has died.
    pub(in crate::storage) fn abandon(&mut self, begun: &Begun, left: Left) {
        let mut image = self.disk.image();
        if image.life == self.life {
            image.abandon(&begun.effect, left);
        }
    }

    fn dispatch(&mut self, image: &mut Image, op: Op) -> Result<Begun, StorageError> {
        let effect = match op {
            Op::Create {
                path,
                len,
                preparation: _,
                first,
            } => {
                check::create(&path, len, &first, image.alignment)?;
                image.create(&path, len, &first)?
            }
            Op::Open { path, write } => return self.open(image, path, write),
            Op::Close { file } => {
                let closed = self.files.remove(file).ok_or_else(|| check::stale(file))?;
                image.closed(closed.node);
                Effect::None
            }
            Op::Write { file, offset, data } => {
                let open = self.writable(file)?;
                check_write(image, open, offset, &data)?;
                image.write(open.node, offset, &data)
            }
            Op::Zero { file, offset, len } => {
                let open = self.writable(file)?;
                let node = image.node(open.node);
                check::zero(&open.path, offset, len, node.live.len(), image.alignment)?;
                image.zero(open.node, offset, len)?
            }
            Op::Read { file, offset, len } => {
                let open = self.open_file(file)?;
                check::read(&open.path, offset, len, image.alignment)?;
                let bytes = image.node(open.node).live.read(offset, len);
                return answer(Output::Read(Buffer::from(bytes)));
            }
            Op::Sync { file } => image.sync(self.writable(file)?.node),
            Op::Truncate { file, len } => {
                let open = self.writable(file)?;
                check::truncate(&open.path, len, image.alignment)?;
                check::unmapped(&open.path, image.node(open.node).is_mapped())?;
                image.truncate(open.node, len)
            }
            Op::Protect { path, read_only } => {
                check::file_path(&path)?;
                Effect::Protect {
                    node: image.file(&path)?,
                    read_only,
                }
            }
            Op::Rename { from, to } => {
                check::rename(&from, &to)?;
                image.rename(&from, &to)?
            }
            Op::Unlink { path } => {
                check::file_path(&path)?;
                image.unlink(&path)?
            }
            Op::MakeDir { path } => {
                check::file_path(&path)?;
                image.make_dir(&path)?
            }
            Op::RemoveDir { path } => {
                check::file_path(&path)?;
                image.remove_dir(&path)?
            }
            Op::SyncDir { path } => {
                check::dir_path(&path)?;
                image.sync_dir(&path)?
            }
            Op::List { path } => {
                check::dir_path(&path)?;
                return answer(Output::Listed(image.list(&path)?));
            }
            Op::Map { path } => return map(image, path),
            Op::Populate {
                mapping,
                offset,
                len,
            } => {
                mapping.populate(offset, len)?;
                Effect::None
            }
            Op::Space => {
                let available = image.capacity.saturating_sub(image.used());
                return answer(Output::Space {
                    available,
                    total: image.capacity,
                });
            }
        };
        Ok(Begun {
            effect,
            result: Ok(Output::Done),
        })
    }

    fn open(
        &mut self,
        image: &mut Image,
        path: String,
        write: bool,
    ) -> Result<Begun, StorageError> {
        check::file_path(&path)?;
        let node = image.file(&path)?;
        let (len, read_only) = (image.node(node).live.len(), image.node(node).read_only);
        if write && read_only {
            return Err(StorageError::ReadOnly { path });
        }
        match self.files.insert(OpenFile { node, path, write }) {
            Ok(file) => {
                image.opened(node);
                answer(Output::Opened {
                    file,
                    len,
                    read_only,
                })
            }
            Err(OpenFile { path, .. }) => {
                let reason = format!("{OPEN_FILES_MAX} files are open");
                Err(StorageError::Resources { path, reason })
            }
        }
    }

    fn writable(&self, file: FileId) -> Result<&OpenFile, StorageError> {
        let open = self.open_file(file)?;
        check::writable(&open.path, open.write)?;
        Ok(open)
    }
}

/// Where a write goes.
#[derive(Debug)]
pub(in crate::storage) struct Place {
    pub(in crate::storage) file_len: u64,
    pub(in crate::storage) alignment: usize,
}

/// Refuses a write, or gives its file's length.
fn check_write(
    image: &Image,
    open: &OpenFile,
    offset: u64,
    data: &Buffer,
) -> Result<u64, StorageError> {
    let node = image.node(open.node);
    let len = node.live.len();
    check::write(&open.path, offset, data, len, image.alignment)?;
    check::unmapped(&open.path, node.is_mapped())?;
    Ok(len)
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut image = self.disk.image();
        if image.life == self.life {
            for open in self.files.drain() {
                image.closed(open.node);
            }
        }
    }
}

fn answer(output: Output) -> Result<Begun, StorageError> {
    Ok(Begun {
        effect: Effect::None,
        result: Ok(output),
    })
}

fn over() -> StorageError {
    let reason = "the disk has crashed since this storage was opened".to_owned();
    StorageError::Io {
        path: String::new(),
        call: "any",
        reason,
    }
}

/// A file's bytes as they were when it was mapped, which is for ever: it is immutable.
#[derive(Debug)]
struct MemoryMapping {
    path: String,
    bytes: Vec<u8>,
    /// Lets the disk refuse to change what is mapped.
    _alive: Arc<()>,
}

impl Mapping for MemoryMapping {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn populate(&self, offset: usize, len: usize) -> Result<(), StorageError> {
        check::window(&self.path, offset, len, self.bytes.len())
    }
}

fn map(image: &mut Image, path: String) -> Result<Begun, StorageError> {
    check::file_path(&path)?;
    let node = image.file(&path)?;
    let bytes = image.node(node).live.read(0, usize::MAX);
    check::mappable(&path, bytes.len() as u64)?;
    let mapping = MemoryMapping {
        path,
        bytes,
        _alive: image.mapped(node),
    };
    answer(Output::Mapped(Arc::new(mapping)))
}

//! The owner's half of a real storage: open files, checks, counters, and what waits to be
//! handed out. Nothing here blocks.

use std::collections::VecDeque;
use std::sync::Arc;

use highwater_record::BufferPool;

use super::directory::DataDirectory;
use super::files::{FileTable, OPEN_FILES_MAX};
use super::system::{Answer, Call, OpenFile, System};
use super::workers::Finished;
use super::{Completion, Counters, FileId, Op, OpenError, Output, StorageError, Token, check};

#[derive(Debug)]
pub(super) struct Front {
    pub(super) system: Arc<System>,
    pub(super) counters: Counters,
    files: FileTable<Arc<OpenFile>>,
    ready: VecDeque<Completion>,
    in_flight: usize,
}

impl Front {
    /// # Errors
    ///
    /// [`OpenError::Alignment`] if the pool's memory cannot be read into.
    pub(super) fn new(
        directory: Arc<DataDirectory>,
        pool: BufferPool,
        direct: bool,
    ) -> Result<Self, OpenError> {
        let (pooled, wanted) = (pool.alignment(), directory.alignment());
        if pooled < wanted {
            return Err(OpenError::Alignment { pooled, wanted });
        }
        Ok(Self {
            system: Arc::new(System::new(directory, pool, direct)),
            counters: Counters::default(),
            files: FileTable::new(),
            ready: VecDeque::new(),
            in_flight: 0,
        })
    }

    pub(super) fn alignment(&self) -> usize {
        self.system.directory().alignment()
    }

    /// Counts the operation in and checks it. A refusal is ready at once.
    pub(super) fn admit(&mut self, token: Token, op: Op) -> Option<Call> {
        self.counters.submitted += 1;
        let admitted = check::in_flight(self.in_flight);
        self.in_flight += 1;
        match admitted.and_then(|()| self.call(op)) {
            Ok(call) => Some(call),
            Err(error) => {
                self.complete(token, 0, Err(error));
                None
            }
        }
    }

    /// Takes the result of an admitted operation.
    pub(super) fn finish(
        &mut self,
        Finished {
            token,
            written,
            result,
        }: Finished,
    ) {
        let result = match result {
            Ok(Answer::Opened { file, read_only }) => self.opened(file, read_only),
            Ok(Answer::Other(output)) => Ok(output),
            Err(error) => Err(error),
        };
        self.complete(token, written, result);
    }

    /// Makes a completion ready to be handed out.
    pub(super) fn complete(
        &mut self,
        token: Token,
        written: u64,
        result: Result<Output, StorageError>,
    ) {
        self.counters.count(&result, written);
        self.ready.push_back(Completion { token, result });
    }

    pub(super) fn hand_out(&mut self, out: &mut Vec<Completion>) {
        self.in_flight -= self.ready.len();
        out.extend(self.ready.drain(..));
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn opened(&mut self, mut file: OpenFile, read_only: bool) -> Result<Output, StorageError> {
        let len = file.len();
        if let Some(other) = self.files.iter().find(|other| other.inode == file.inode) {
            file.share_len(other);
        }
        match self.files.insert(Arc::new(file)) {
            Ok(file) => Ok(Output::Opened {
                file,
                len,
                read_only,
            }),
            Err(file) => {
                let reason = format!("{OPEN_FILES_MAX} files are open");
                Err(StorageError::Resources {
                    path: file.path.clone(),
                    reason,
                })
            }
        }
    }

    /// Checks an operation and puts its file in the place of its id.
    fn call(&mut self, op: Op) -> Result<Call, StorageError> {
        let alignment = self.alignment();
        Ok(match op {
            Op::Create {
                path,
                len,
                preparation,
                first,
            } => {
                check::create(&path, len, &first, alignment)?;
                self.changes(&path)?;
                Call::Create {
                    path,
                    len,
                    preparation,
                    first,
                }
            }
            Op::Open { path, write } => {
                check::file_path(&path)?;
                if write {
                    self.changes(&path)?;
                }
                Call::Open { path, write }
            }
            Op::Close { file } => Call::Close {
                file: self.files.remove(file).ok_or_else(|| check::stale(file))?,
            },
            Op::Write { file, offset, data } => {
                let file = self.writable(file)?;
                check::write(&file.path, offset, &data, file.len(), alignment)?;
                Call::Write { file, offset, data }
            }
            Op::Zero { file, offset, len } => {
                let file = self.writable(file)?;
                check::zero(&file.path, offset, len, file.len(), alignment)?;
                Call::Zero { file, offset, len }
            }
            Op::Read { file, offset, len } => {
                let file = self.file(file)?;
                check::read(&file.path, offset, len, alignment)?;
                Call::Read { file, offset, len }
            }
            Op::Sync { file } => Call::Sync {
                file: self.writable(file)?,
            },
            Op::Truncate { file, len } => {
                let file = self.writable(file)?;
                check::truncate(&file.path, len, alignment)?;
                Call::Truncate { file, len }
            }
            Op::Protect { path, read_only } => {
                check::file_path(&path)?;
                self.changes(&path)?;
                Call::Protect { path, read_only }
            }
            Op::Rename { from, to } => {
                check::rename(&from, &to)?;
                self.changes(&from)?;
                Call::Rename { from, to }
            }
            Op::Unlink { path } => {
                check::file_path(&path)?;
                self.changes(&path)?;
                Call::Unlink { path }
            }
            Op::MakeDir { path } => {
                check::file_path(&path)?;
                self.changes(&path)?;
                Call::MakeDir { path }
            }
            Op::RemoveDir { path } => {
                check::file_path(&path)?;
                self.changes(&path)?;
                Call::RemoveDir { path }
            }
            Op::SyncDir { path } => {
                check::dir_path(&path)?;
                self.changes(&path)?;
                Call::SyncDir { path }
            }
            Op::List { path } => {
                check::dir_path(&path)?;
                Call::List { path }
            }
            Op::Map { path } => {
                check::file_path(&path)?;
                Call::Map { path }
            }
            Op::Populate {
                mapping,
                offset,
                len,
            } => Call::Populate {
                mapping,
                offset,
                len,
            },
            Op::Space => Call::Space,
        })
    }

    fn file(&self, file: FileId) -> Result<Arc<OpenFile>, StorageError> {
        self.files
            .get(file)
            .cloned()
            .ok_or_else(|| check::stale(file))
    }

    fn writable(&self, file: FileId) -> Result<Arc<OpenFile>, StorageError> {
        let file = self.file(file)?;
        check::writable(&file.path, file.write)?;
        Ok(file)
    }

    fn changes(&self, path: &str) -> Result<(), StorageError> {
        if self.system.is_read_only() {
            return Err(StorageError::ReadOnly {
                path: path.to_owned(),
            });
        }
        Ok(())
    }
}

//! One operation at a time, waited for: start-up and tools only.

use highwater_record::Buffer;

use crate::scan::ReadAt;
use crate::storage::{Completion, DirEntry, FileId, Op, Output, Storage, StorageError, Token};

/// How much one read asks for at most, in bytes.
const READ_BYTES: usize = 8 << 20;

/// Runs single operations to their end.
pub(crate) struct Blocking<'a, S> {
    storage: &'a mut S,
    completions: Vec<Completion>,
}

impl<'a, S: Storage> Blocking<'a, S> {
    /// Takes the storage over for a while.
    ///
    /// # Panics
    ///
    /// If something is in flight on it.
    pub(crate) fn new(storage: &'a mut S) -> Blocking<'a, S> {
        assert_eq!(storage.in_flight(), 0, "nothing may be in flight");
        Blocking {
            storage,
            completions: Vec::new(),
        }
    }

    pub(crate) fn alignment(&self) -> usize {
        self.storage.alignment()
    }

    /// Runs operations side by side, and gives the first error if any fails.
    pub(crate) fn run_all(
        &mut self,
        ops: impl IntoIterator<Item = Op>,
    ) -> Result<Vec<Output>, StorageError> {
        let mut results = Vec::new();
        for (op, number) in ops.into_iter().zip(0..) {
            self.storage.submit(Token(number), op);
            results.push(None);
        }
        while results.iter().any(Option::is_none) {
            self.storage.wait();
            self.storage.poll(&mut self.completions);
            for Completion { token, result } in self.completions.drain(..) {
                let at = usize::try_from(token.0).expect("tokens count what was submitted");
                results[at] = Some(result);
            }
        }
        let all = results.into_iter().flatten();
        all.collect()
    }

    pub(crate) fn run(&mut self, op: Op) -> Result<Output, StorageError> {
        let mut outputs = self.run_all([op])?;
        Ok(outputs.pop().expect("one operation gives one output"))
    }

    /// Runs an operation that answers nothing but that it is done.
    pub(crate) fn done(&mut self, op: Op) -> Result<(), StorageError> {
        self.run(op).map(|_| ())
    }

    pub(crate) fn list(&mut self, path: &str) -> Result<Vec<DirEntry>, StorageError> {
        let path = path.to_owned();
        match self.run(Op::List { path })? {
            Output::Listed(entries) => Ok(entries),
            other => unreachable!("a listing answered {other:?}"),
        }
    }

    pub(crate) fn open(&mut self, path: &str, write: bool) -> Result<OpenFile, StorageError> {
        let path = path.to_owned();
        match self.run(Op::Open { path, write })? {
            Output::Opened {
                file,
                len,
                read_only,
            } => Ok(OpenFile {
                file,
                len,
                read_only,
            }),
            other => unreachable!("opening answered {other:?}"),
        }
    }

    pub(crate) fn close(&mut self, file: FileId) -> Result<(), StorageError> {
        self.done(Op::Close { file })
    }

    pub(crate) fn sync_dir(&mut self, path: &str) -> Result<(), StorageError> {
        let path = path.to_owned();
        self.done(Op::SyncDir { path })
    }

    pub(crate) fn unlink(&mut self, path: &str) -> Result<(), StorageError> {
        let path = path.to_owned();
        self.done(Op::Unlink { path })
    }

    /// A whole file; nothing if it is not there.
    pub(crate) fn read_whole(&mut self, path: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let open = match self.open(path, false) {
            Ok(open) => open,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut bytes = Vec::new();
        let mut reader = self.reader(&open);
        while u64::try_from(bytes.len()).is_ok_and(|len| len < open.len) {
            let offset = u64::try_from(bytes.len()).expect("a length fits into 64 bits");
            let part = reader.read_once(offset, READ_BYTES)?;
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(&part);
        }
        self.close(open.file)?;
        Ok(Some(bytes))
    }

    pub(crate) fn reader(&mut self, open: &OpenFile) -> FileReader<'_, 'a, S> {
        FileReader {
            io: self,
            file: open.file,
        }
    }
}

/// An open file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenFile {
    pub(crate) file: FileId,
    pub(crate) len: u64,
    pub(crate) read_only: bool,
}

/// Reads one file, waiting for each read.
pub(crate) struct FileReader<'b, 'a, S> {
    io: &'b mut Blocking<'a, S>,
    file: FileId,
}

impl<S: Storage> FileReader<'_, '_, S> {
    fn read_once(&mut self, offset: u64, len: usize) -> Result<Buffer, StorageError> {
        let file = self.file;
        match self.io.run(Op::Read { file, offset, len })? {
            Output::Read(bytes) => Ok(bytes),
            other => unreachable!("a read answered {other:?}"),
        }
    }
}

impl<S: Storage> ReadAt for FileReader<'_, '_, S> {
    fn read_at(&mut self, offset: u64, len: usize) -> Result<Buffer, StorageError> {
        if len <= READ_BYTES {
            return self.read_once(offset, len);
        }
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let done = u64::try_from(bytes.len()).expect("a length fits into 64 bits");
            let part = self.read_once(offset + done, READ_BYTES.min(len - bytes.len()))?;
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(&part);
            if part.len() % self.align() != 0 {
                break;
            }
        }
        Ok(Buffer::from(bytes))
    }

    fn align(&self) -> usize {
        self.io.alignment()
    }
}

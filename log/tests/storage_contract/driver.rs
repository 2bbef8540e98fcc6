//! Runs operations on a storage and waits for them, so that a property reads as a story.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_log::storage::{
    Completion, Counters, DirEntry, FileId, Mapping, Op, Output, Preparation, Storage,
    StorageError, Token,
};
use highwater_record::Buffer;

pub(crate) type Answer = Result<Output, StorageError>;

/// Gives the file of this path that many bytes.
pub(crate) type Resize = Box<dyn Fn(&str, u64)>;

/// A backend under test: one data directory, on which lives follow each other.
pub(crate) struct Subject {
    /// Opens the next life. The one before it is dropped.
    pub(crate) open: Box<dyn Fn() -> Box<dyn Storage>>,
    /// Cuts or lengthens a file behind the storage's back.
    pub(crate) resize: Resize,
}

impl Subject {
    pub(crate) fn open(&self) -> Driver {
        Driver::new((self.open)())
    }
}

pub(crate) struct Driver {
    storage: Box<dyn Storage>,
    next: u64,
}

impl Driver {
    pub(crate) fn new(storage: Box<dyn Storage>) -> Self {
        Self { storage, next: 0 }
    }

    pub(crate) fn alignment(&self) -> usize {
        self.storage.alignment()
    }

    pub(crate) fn block(&self) -> u64 {
        self.alignment() as u64
    }

    pub(crate) fn counters(&self) -> Counters {
        self.storage.counters()
    }

    pub(crate) fn storage(&mut self) -> &mut dyn Storage {
        &mut *self.storage
    }

    /// Submits without waiting.
    pub(crate) fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.storage.submit(token, op);
        token
    }

    /// Waits for everything in flight; every token must come back once.
    pub(crate) fn collect(&mut self) -> BTreeMap<Token, Answer> {
        let expected = self.storage.in_flight();
        let mut answers = BTreeMap::new();
        let mut out: Vec<Completion> = Vec::new();
        while self.storage.in_flight() > 0 {
            self.storage.wait();
            self.storage.poll(&mut out);
            for Completion { token, result } in out.drain(..) {
                assert!(
                    answers.insert(token, result).is_none(),
                    "{token:?} came back twice"
                );
            }
        }
        assert_eq!(answers.len(), expected, "every operation completes");
        answers
    }

    pub(crate) fn run(&mut self, op: Op) -> Answer {
        let token = self.submit(op);
        self.collect()
            .remove(&token)
            .expect("the operation completes")
    }

    pub(crate) fn done(&mut self, op: Op) {
        let what = format!("{op:?}");
        match self.run(op) {
            Ok(Output::Done) => {}
            other => panic!("{what:.200}: {other:?}"),
        }
    }

    pub(crate) fn fails(&mut self, op: Op) -> StorageError {
        let what = format!("{op:?}");
        self.run(op).expect_err(&format!("{what:.200} is refused"))
    }

    pub(crate) fn create(&mut self, path: &str, blocks: u64) {
        self.done(self.create_op(path, blocks, Preparation::Zero));
    }

    pub(crate) fn create_op(&self, path: &str, blocks: u64, preparation: Preparation) -> Op {
        let len = blocks * self.block();
        Op::Create {
            path: path.into(),
            len,
            preparation,
            first: Buffer::default(),
        }
    }

    pub(crate) fn open(&mut self, path: &str) -> (FileId, u64) {
        match self.run(Op::Open {
            path: path.into(),
            write: true,
        }) {
            Ok(Output::Opened { file, len, .. }) => (file, len),
            other => panic!("open {path}: {other:?}"),
        }
    }

    pub(crate) fn create_and_open(&mut self, path: &str, blocks: u64) -> FileId {
        self.create(path, blocks);
        self.open(path).0
    }

    /// Blocks that differ from each other and from zeros.
    pub(crate) fn blocks(&self, count: usize, seed: u8) -> Buffer {
        let block = self.alignment();
        let byte = |at: usize| (at / block * 31 + at % 251) as u8 ^ seed | 1;
        let bytes: Vec<u8> = (0..count * block).map(byte).collect();
        Buffer::aligned_copy(&bytes, block)
    }

    pub(crate) fn write(&mut self, file: FileId, block: u64, data: &Buffer) {
        let offset = block * self.block();
        self.done(Op::Write {
            file,
            offset,
            data: data.clone(),
        });
    }

    pub(crate) fn read(&mut self, file: FileId, block: u64, blocks: usize) -> Buffer {
        let (offset, len) = (block * self.block(), blocks * self.alignment());
        match self.run(Op::Read { file, offset, len }) {
            Ok(Output::Read(data)) => data,
            other => panic!("read at {offset}: {other:?}"),
        }
    }

    pub(crate) fn list(&mut self, path: &str) -> Vec<DirEntry> {
        match self.run(Op::List { path: path.into() }) {
            Ok(Output::Listed(entries)) => entries,
            other => panic!("list {path}: {other:?}"),
        }
    }

    pub(crate) fn names(&mut self, path: &str) -> Vec<String> {
        let names = self.list(path).into_iter().map(|entry| entry.name);
        names.filter(|name| name != "lock").collect()
    }

    pub(crate) fn map(&mut self, path: &str) -> Arc<dyn Mapping> {
        match self.run(Op::Map { path: path.into() }) {
            Ok(Output::Mapped(mapping)) => mapping,
            other => panic!("map {path}: {other:?}"),
        }
    }

    pub(crate) fn sync_dir(&mut self, path: &str) {
        self.done(Op::SyncDir { path: path.into() });
    }
}

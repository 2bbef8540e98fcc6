//! A process's disk: batches go to it in their order, some at once, each on its way to be durable.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use highwater_log::storage::{
    Choice, DataDirectory, FileId, Op, Output, Preparation, RealStorage, Storage, Token,
};
use highwater_record::{Buffer, BufferPool};

use super::Files;
use crate::limits::disk::make;

/// A file, in bytes.
const FILE_BYTES: u64 = 256 << 20;

/// Writes on their way at once: as many as six partitions have.
const WRITES_MAX: usize = 6;

/// The file that will be written next.
#[derive(Debug)]
enum Next {
    /// Not asked for yet.
    None,
    Making,
    Opening,
    Ready(FileId),
}

/// What an operation is for.
#[derive(Debug)]
enum Under {
    Batch(u64),
    Making,
    Opening,
    Leaving,
}

#[derive(Debug)]
pub(super) struct Disk {
    storage: RealStorage,
    files: Files,
    file: FileId,
    position: u64,
    /// Where the file that is written stands in the row of all.
    nth: u64,
    next: Next,
    /// Steady files that are not written now.
    idle: VecDeque<FileId>,
    under_way: BTreeMap<u64, Under>,
    next_token: u64,
    writes: usize,
    waiting: VecDeque<(u64, Buffer)>,
}

fn name(nth: u64) -> String {
    format!("file-{nth}")
}

impl Disk {
    pub(super) fn open(folder: &Path, files: Files, pool: BufferPool) -> Result<Disk> {
        let directory = DataDirectory::create(folder)?;
        let (mut storage, _) = RealStorage::open(directory, pool, Choice::Auto)?;
        let (file, idle) = match files {
            Files::Fresh => {
                let file = make(&mut storage, &name(0), FILE_BYTES, Preparation::Preallocate);
                (file?, VecDeque::new())
            }
            Files::Steady => {
                let mut zeroed =
                    |nth| make(&mut storage, &name(nth), FILE_BYTES, Preparation::Zero);
                (zeroed(0)?, VecDeque::from([zeroed(1)?]))
            }
        };
        Ok(Disk {
            storage,
            files,
            file,
            position: 0,
            nth: 0,
            next: Next::None,
            idle,
            under_way: BTreeMap::new(),
            next_token: 0,
            writes: 0,
            waiting: VecDeque::new(),
        })
    }

    /// Readable when [`poll`](Disk::poll) has something.
    pub(super) fn event_fd(&self) -> Result<OwnedFd> {
        Ok(self.storage.event_fd().try_clone_to_owned()?)
    }

    /// Takes a batch to be written behind those before it.
    pub(super) fn write(&mut self, number: u64, data: Buffer) {
        self.waiting.push_back((number, data));
        self.submit_waiting();
    }

    /// Which batches have become durable. Hands over what was taken since.
    pub(super) fn poll(&mut self, durable: &mut Vec<u64>) -> Result<()> {
        self.storage.flush();
        let mut done = Vec::new();
        self.storage.poll(&mut done);
        for completion in done {
            let under = self.under_way.remove(&completion.token.0);
            let under = under.context("an operation completes once")?;
            let output = completion.result?;
            self.complete(under, &output, durable)?;
        }
        self.submit_waiting();
        self.storage.flush();
        Ok(())
    }

    fn complete(&mut self, under: Under, output: &Output, durable: &mut Vec<u64>) -> Result<()> {
        match (under, output) {
            (Under::Batch(number), _) => {
                self.writes -= 1;
                durable.push(number);
            }
            (Under::Making, _) => {
                self.next = Next::Opening;
                let path = name(self.nth + 1);
                self.submit(Under::Opening, Op::Open { path, write: true });
            }
            (Under::Opening, Output::Opened { file, .. }) => self.next = Next::Ready(*file),
            (Under::Opening, other) => bail!("opening answered {other:?}"),
            (Under::Leaving, _) => {}
        }
        Ok(())
    }

    fn submit(&mut self, under: Under, op: Op) {
        let token = self.next_token;
        self.next_token += 1;
        self.under_way.insert(token, under);
        self.storage.submit(Token(token), op);
    }

    fn submit_waiting(&mut self) {
        while self.writes < WRITES_MAX {
            let Some((_, data)) = self.waiting.front() else {
                return;
            };
            let bytes = u64::try_from(data.len()).expect("a batch is far below 2^64");
            if self.position + bytes > FILE_BYTES && !self.turn_over() {
                return;
            }
            let (number, data) = self.waiting.pop_front().expect("it was just looked at");
            let (file, offset) = (self.file, self.position);
            self.position += bytes;
            self.writes += 1;
            self.submit(Under::Batch(number), Op::Write { file, offset, data });
        }
        if self.files == Files::Fresh && self.position > FILE_BYTES / 2 {
            self.make_next();
        }
    }

    /// Goes on in the next file; not yet, if that is not ready.
    fn turn_over(&mut self) -> bool {
        match (self.files, &self.next) {
            (Files::Steady, _) => {
                self.idle.push_back(self.file);
                self.file = self.idle.pop_front().expect("there are two");
            }
            (Files::Fresh, Next::Ready(file)) => {
                let file = *file;
                // Its writes that are on their way keep it open until they are done.
                let left = std::mem::replace(&mut self.file, file);
                self.submit(Under::Leaving, Op::Close { file: left });
                let path = name(self.nth);
                self.submit(Under::Leaving, Op::Unlink { path });
                self.nth += 1;
                self.next = Next::None;
            }
            (Files::Fresh, _) => {
                self.make_next();
                return false;
            }
        }
        self.position = 0;
        true
    }

    fn make_next(&mut self) {
        if !matches!(self.next, Next::None) {
            return;
        }
        self.next = Next::Making;
        let create = Op::Create {
            path: name(self.nth + 1),
            len: FILE_BYTES,
            preparation: Preparation::Preallocate,
            first: Buffer::default(),
        };
        self.submit(Under::Making, create);
    }
}

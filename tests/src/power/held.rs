//! A disk that stops in the middle of its work: what it does then happens in part.
//!
//! [`HeldStorage`] passes everything on to a real storage until its moment comes. What is handed
//! over from then on happens in part, and does not come back: of a write any pages or sectors, of
//! all else everything or nothing. So the moment before a power cut is one in which the writes of
//! several groups are on their way, and which parts of them the disk has is drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;

use fastrand::Rng;
use highwater_log::storage::{
    Completion, Counters, FileId, Op, Output, RealStorage, Storage, Token,
};
use highwater_record::Buffer;

use super::message::{Message, SharedOutlet};
use crate::disk_image::{PAGE_BYTES, drop_cache};

/// What a disk writes whole, in bytes.
const SECTOR_BYTES: usize = 512;

/// Which parts of a write happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tear {
    /// All of it comes into the page cache; which pages reach the disk is somebody else's choice.
    Cached,
    /// Any sectors of it are on the disk.
    Sectors,
}

/// A storage that is held at some operation.
#[derive(Debug)]
pub(super) struct HeldStorage {
    inner: RealStorage,
    root: PathBuf,
    tear: Tear,
    rng: Rng,
    /// Operations until it is held; never if there is no number.
    left: Option<u64>,
    /// Operations that happen whole and have not come back.
    outstanding: usize,
    /// Operations that happen in part.
    partial: BTreeSet<Token>,
    /// The files that are open, and those that are being opened.
    paths: BTreeMap<FileId, String>,
    opening: BTreeMap<Token, String>,
    outlet: SharedOutlet,
    /// A bug, to show that it is found: a write is said to be done when it begins.
    lies: bool,
    /// Writes that were said to be done and may not be.
    said: BTreeSet<Token>,
    /// Writes that are to be said to be done.
    unsaid: Vec<Completion>,
}

impl HeldStorage {
    /// Held after `left` operations. What is then dirty is told to `outlet`.
    pub(super) fn new(
        inner: RealStorage,
        tear: Tear,
        left: Option<u64>,
        seed: u64,
        outlet: SharedOutlet,
    ) -> HeldStorage {
        HeldStorage {
            root: inner.directory().path().to_owned(),
            inner,
            tear,
            rng: Rng::with_seed(seed),
            left,
            outstanding: 0,
            partial: BTreeSet::new(),
            paths: BTreeMap::new(),
            opening: BTreeMap::new(),
            outlet,
            lies: false,
            said: BTreeSet::new(),
            unsaid: Vec::new(),
        }
    }

    /// From now on a write is said to be done before it is.
    pub(super) fn lie(&mut self) {
        self.lies = true;
    }

    /// Whether its moment has come.
    pub(super) fn is_held(&self) -> bool {
        self.left == Some(0)
    }

    /// Tells that the moment has come, and waits for the end of the process.
    pub(super) fn end(&mut self) -> ! {
        self.inner.flush();
        let mut outlet = self.outlet.borrow_mut();
        outlet.say(&Message::Held);
        // If nobody listens, the end is near all the same.
        let _ = outlet.flush();
        loop {
            thread::park();
        }
    }

    /// Counts an operation down; whether it is still one that happens whole.
    fn passes(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Some part of an operation happens.
    fn happen_in_part(&mut self, token: Token, op: Op) {
        if let Op::Write { file, offset, data } = op {
            let Some(path) = self.paths.get(&file).cloned() else {
                return;
            };
            // It may have been removed since: then nothing of it matters.
            let _ = match self.tear {
                Tear::Cached => self.cache(path, offset, &data),
                Tear::Sectors => self.write_sectors(path, offset, &data),
            };
        } else if self.rng.bool() {
            self.partial.insert(token);
            self.inner.submit(token, op);
        }
    }

    /// Page by page, so that the cache holds it in small pieces.
    fn cache(&self, path: String, offset: u64, data: &Buffer) -> io::Result<()> {
        let file = File::options().write(true).open(self.root.join(&path))?;
        drop_cache(&file)?;
        let page = usize::try_from(PAGE_BYTES).expect("a page is small");
        for (at, bytes) in (offset..).step_by(page).zip(data.chunks(page)) {
            file.write_all_at(bytes, at)?;
        }
        let bytes = data.len() as u64;
        self.outlet.borrow_mut().say(&Message::Dirty {
            path,
            offset,
            bytes,
        });
        Ok(())
    }

    /// Nothing, a front, or any sectors.
    fn write_sectors(&mut self, path: String, offset: u64, data: &Buffer) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = options.write(true).custom_flags(flags);
        let file = file.open(self.root.join(path))?;
        let sectors = data.len() / SECTOR_BYTES;
        let way = self.rng.u8(..3);
        let front = self.rng.usize(..=sectors);
        for (nth, bytes) in data.chunks(SECTOR_BYTES).enumerate() {
            let happens = match way {
                0 => false,
                1 => nth < front,
                _ => self.rng.bool(),
            };
            if happens {
                file.write_all_at(bytes, offset + (nth * SECTOR_BYTES) as u64)?;
            }
        }
        Ok(())
    }

    fn note_opened(&mut self, completion: &Completion) {
        if let Some(path) = self.opening.remove(&completion.token)
            && let Ok(Output::Opened { file, .. }) = &completion.result
        {
            self.paths.insert(*file, path);
        }
    }

    fn note_submitted(&mut self, token: Token, op: &Op) {
        match op {
            Op::Open { path, .. } => {
                self.opening.insert(token, path.clone());
            }
            Op::Rename { from, to } => {
                let renamed = self.paths.values_mut().filter(|path| *path == from);
                renamed.for_each(|path| path.clone_from(to));
            }
            Op::Close { file } => {
                self.paths.remove(file);
            }
            Op::Write { .. } if self.lies => {
                self.said.insert(token);
                let result = Ok(Output::Done);
                self.unsaid.push(Completion { token, result });
            }
            _ => {}
        }
    }
}

impl Storage for HeldStorage {
    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.note_submitted(token, &op);
        if self.passes() {
            self.outstanding += 1;
            self.inner.submit(token, op);
        } else {
            self.happen_in_part(token, op);
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let from = out.len();
        self.inner.poll(out);
        let partial = &mut self.partial;
        out.retain(|it| !partial.remove(&it.token));
        self.outstanding -= out.len() - from;
        for completion in &out[from..] {
            self.note_opened(completion);
        }
        if self.lies {
            let said = &mut self.said;
            out.retain(|it| !said.remove(&it.token));
            out.append(&mut self.unsaid);
        }
    }

    /// When it is held, and what was before has come back, there is nothing to wait for but the
    /// end.
    fn wait(&mut self) {
        if !self.unsaid.is_empty() {
            return;
        }
        if self.is_held() && self.outstanding == 0 {
            self.end();
        }
        self.inner.wait();
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

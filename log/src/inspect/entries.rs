//! A log's entries, one after the other, from files that no node uses.

use std::collections::VecDeque;

use super::{Item, Walker, open_error};
use crate::blocking::Blocking;
use crate::error::OpenError;
use crate::format::frame::FrameHeader;
use crate::ids::{GroupId, LogIndex};
use crate::paths;
use crate::recovery::classify::FileVerdict;
use crate::recovery::driver::{Body, FileImage, GroupImage};
use crate::scan::{ReadAt, ScanError, Window};
use crate::storage::Storage;

/// How many bytes of bodies are read ahead, but for the last entry of them.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// An entry as it lies on the disk: header and body hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its frame's header.
    pub header: FrameHeader,
    /// Its body.
    pub body: Vec<u8>,
}

/// The entries of a group's log, ascending. Those that are bad or missing are left out.
#[derive(Debug)]
pub struct Entries<'a, S> {
    storage: &'a mut S,
    first: LogIndex,
    last: LogIndex,
    committed: LogIndex,
    files: VecDeque<Part>,
    ready: VecDeque<StoredEntry>,
}

/// What is still to be read of a file.
#[derive(Debug)]
struct Part {
    path: String,
    salt: u64,
    position: u64,
    end: u64,
    first: LogIndex,
    last: LogIndex,
}

impl<'a, S: Storage> Entries<'a, S> {
    pub(super) fn new(storage: &'a mut S, group: GroupId, image: &GroupImage) -> Entries<'a, S> {
        let files = image.files.iter().zip(&image.verdict.files);
        let parts = files.filter_map(|(file, verdict)| Part::new(group, file, verdict));
        Entries {
            storage,
            first: image.verdict.before_first.next(),
            last: image.verdict.last,
            committed: committed(image),
            files: parts.collect(),
            ready: VecDeque::new(),
        }
    }

    /// The first entry of the log.
    #[must_use]
    pub const fn first_index(&self) -> LogIndex {
        self.first
    }

    /// The last entry of the log; below the first if there is none.
    #[must_use]
    pub const fn last_index(&self) -> LogIndex {
        self.last
    }

    /// Through which entry the log is known to be committed: through the last sealed file. More
    /// may be, which no file says.
    #[must_use]
    pub const fn committed(&self) -> LogIndex {
        self.committed
    }

    fn read_ahead(&mut self) -> Result<(), OpenError> {
        while self.ready.is_empty() {
            let Some(part) = self.files.front_mut() else {
                return Ok(());
            };
            let mut io = Blocking::new(self.storage);
            part.read(&mut io, &mut self.ready)?;
            if part.position >= part.end {
                self.files.pop_front();
            }
        }
        Ok(())
    }
}

impl<S: Storage> Iterator for Entries<'_, S> {
    type Item = Result<StoredEntry, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read_ahead() {
            Ok(()) => self.ready.pop_front().map(Ok),
            Err(error) => {
                self.files.clear();
                Some(Err(error))
            }
        }
    }
}

impl Part {
    fn new(group: GroupId, file: &FileImage, verdict: &FileVerdict) -> Option<Part> {
        let FileVerdict::Visible { first, last } = *verdict else {
            return None;
        };
        let identity = file.identity.ok()?;
        let end = match &file.body {
            Body::Sealed(footer) => footer.data_end,
            Body::Scanned(scan) => scan.written_end,
            Body::Unread => return None,
        };
        Some(Part {
            path: paths::segment(group, file.sequence),
            salt: identity.salt,
            position: u64::from(identity.first_frame),
            end,
            first,
            last,
        })
    }

    /// Reads some entries to `ready`.
    fn read<S: Storage>(
        &mut self,
        io: &mut Blocking<'_, S>,
        ready: &mut VecDeque<StoredEntry>,
    ) -> Result<(), OpenError> {
        let open = io.open(&self.path, false)?;
        let read = self.walk(Window::new(&mut io.reader(&open)), ready);
        io.close(open.file)?;
        read.map_err(|error| open_error(&self.path, error))
    }

    fn walk<R: ReadAt>(
        &mut self,
        window: Window<'_, R>,
        ready: &mut VecDeque<StoredEntry>,
    ) -> Result<(), ScanError> {
        let mut walker = Walker {
            window,
            salt: self.salt,
            position: self.position,
            end: self.end,
            garbage: None,
        };
        let mut bytes = 0;
        while walker.position < walker.end && bytes < READ_AHEAD_BYTES {
            walker.advance(&mut |_, item| {
                if let Item::Entry {
                    header,
                    body: Some(body),
                } = item
                    && header.kind.entry().is_some()
                    && self.first <= header.index
                    && header.index <= self.last
                {
                    self.first = header.index.next();
                    bytes += body.len();
                    ready.push_back(StoredEntry {
                        header: *header,
                        body: body.to_vec(),
                    });
                }
            })?;
        }
        self.position = walker.position;
        Ok(())
    }
}

fn committed(image: &GroupImage) -> LogIndex {
    let files = image.files.iter().zip(&image.verdict.files);
    let sealed = files.filter_map(|(file, verdict)| match (&file.body, verdict) {
        (Body::Sealed(footer), FileVerdict::Visible { last, .. }) => {
            Some(footer.end.before.index.min(*last))
        }
        _ => None,
    });
    sealed.max().unwrap_or(LogIndex::ZERO)
}

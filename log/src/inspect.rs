//! Reads a data directory while no node uses it: what lies in it, and what is wrong and where.
//!
//! Changes nothing. What is damage and what a crash may leave is decided by the recovery rule
//! itself, so that `log verify` says what a node would say at its start, and of sealed files
//! what it would say when it reads them.

mod entries;

use std::collections::BTreeMap;

use highwater_record::crc32c;

use crate::alarm::{Alarm, Damage};
use crate::blocking::{Blocking, OpenFile};
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::FormatFault;
use crate::format::begin::Begin;
use crate::format::directory::DirectoryIdentity;
use crate::format::footer::{Footer, VERIFIED_BLOCK};
use crate::format::frame::{FRAME_ALIGN, FrameHeader, FrameKind, HEADER_LEN, header_with_salt};
use crate::format::identity::FileIdentity;
use crate::format::journal::GroupRecord;
use crate::ids::{GroupId, LogIndex};
use crate::paths;
use crate::recovery::classify::FileVerdict;
use crate::recovery::driver::{Body, FileImage, GroupImage, Owner, read_group};
use crate::scan::{ReadAt, ScanError, Window, all_zero, checked_body};
use crate::storage::Storage;

pub use entries::{Entries, StoredEntry};

/// A data directory that is looked at.
#[derive(Debug)]
pub struct Inspector<S> {
    storage: S,
    directory: Directory,
}

/// What the recovery rule makes of a group's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// Which group.
    pub group: GroupId,
    /// How many files it has, those that are to be unlinked included.
    pub files: usize,
    /// The first entry of its log.
    pub first: LogIndex,
    /// The last entry of its log; below the first if there is none.
    pub last: LogIndex,
    /// The highest entry that is known to have been durable.
    pub durable: LogIndex,
    /// Where a crash interrupted the last write, if it did. No damage.
    pub torn: Option<TornAt>,
    /// Whether the node would quarantine the group, or a part of it.
    pub quarantined: bool,
    /// What is wrong, by file and offset.
    pub alarms: Vec<Alarm>,
}

/// The end of a log that was being written when its node died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornAt {
    /// The file, relative to the data directory.
    pub path: String,
    /// The byte at which the first entry that is not there would start.
    pub offset: u64,
    /// That entry.
    pub index: LogIndex,
}

/// Something in a group's file, in the order in which it lies there.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A file begins.
    File {
        /// Its identity, if that is good and of this directory.
        identity: Option<&'a FileIdentity>,
        /// Its length, in bytes.
        len: u64,
        /// What recovery makes of it.
        state: FileState,
    },
    /// The first frame.
    Begin(&'a Begin),
    /// An entry's frame.
    Entry {
        /// Its header.
        header: &'a FrameHeader,
        /// Its body, if it holds.
        body: Option<&'a [u8]>,
    },
    /// Bytes that are neither zero nor in a frame.
    Garbage {
        /// How many, up to the next frame or the last that is not zero.
        len: u64,
    },
    /// The footer of a sealed file.
    Footer(&'a Footer),
}

/// What a file is in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// A part of it.
    Visible,
    /// Hidden whole by a later one; the next start unlinks it.
    Hidden,
    /// Never used.
    Unused,
    /// Nobody can say: its identity or its first frame is damaged.
    Corrupt,
}

/// Where an [`Item`] lies.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The group.
    pub group: GroupId,
    /// The file, relative to the data directory.
    pub path: &'a str,
    /// The byte in it at which the item starts.
    pub offset: u64,
}

impl<S: Storage> Inspector<S> {
    /// Reads the directory's identity and its journals.
    ///
    /// # Errors
    ///
    /// [`OpenError`] as a node's start would give it.
    pub fn open(mut storage: S) -> Result<Inspector<S>, OpenError> {
        let directory = Directory::read(&mut Blocking::new(&mut storage))?;
        Ok(Inspector { storage, directory })
    }

    /// Whose directory it is.
    #[must_use]
    pub fn identity(&self) -> &DirectoryIdentity {
        self.directory.identity()
    }

    /// The groups that have files or promises here, ascending.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.directory.groups()
    }

    /// What the journals hold of each group.
    #[must_use]
    pub fn promises(&self) -> &BTreeMap<GroupId, GroupRecord> {
        &self.directory.records
    }

    /// What is wrong with the journals, and which names are unknown.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        self.directory.alarms()
    }

    /// Reads every byte of a group's files and judges them.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if they cannot be read, or a newer program wrote them. Damage is none.
    pub fn verify(&mut self, group: GroupId) -> Result<GroupReport, OpenError> {
        let mut image = self.read(group)?;
        let mut io = Blocking::new(&mut self.storage);
        for file in &image.files {
            if let Body::Sealed(footer) = &file.body {
                let path = paths::segment(group, file.sequence);
                let open = io.open(&path, false)?;
                let bad = bad_blocks(&mut io, &open, footer)?;
                io.close(open.file)?;
                image.alarms.extend(bad.into_iter().map(|offset| Alarm {
                    group: Some(group),
                    path: path.clone(),
                    offset,
                    damage: Damage::Block,
                }));
            }
        }
        Ok(report(group, image))
    }

    /// Shows everything in a group's files, file by file, front to back.
    ///
    /// # Errors
    ///
    /// As [`verify`](Inspector::verify).
    pub fn walk(
        &mut self,
        group: GroupId,
        visit: &mut dyn FnMut(Place<'_>, Item<'_>),
    ) -> Result<(), OpenError> {
        let image = self.read(group)?;
        let mut io = Blocking::new(&mut self.storage);
        for (file, verdict) in image.files.iter().zip(&image.verdict.files) {
            let path = paths::segment(group, file.sequence);
            let open = io.open(&path, false)?;
            let mut visit = |offset, item: Item<'_>| {
                let path = &path;
                visit(
                    Place {
                        group,
                        path,
                        offset,
                    },
                    item,
                );
            };
            let result = walk_file(&mut io, &open, file, state_of(verdict), &mut visit);
            io.close(open.file)?;
            result.map_err(|error| open_error(&path, error))?;
        }
        Ok(())
    }

    /// Reads the entries of a group's log, front to back, as the node would serve them.
    ///
    /// # Errors
    ///
    /// As [`verify`](Inspector::verify).
    pub fn entries(&mut self, group: GroupId) -> Result<Entries<'_, S>, OpenError> {
        let image = self.read(group)?;
        Ok(Entries::new(&mut self.storage, group, &image))
    }

    fn read(&mut self, group: GroupId) -> Result<GroupImage, OpenError> {
        let identity = self.directory.identity();
        let owner = Owner {
            cluster: identity.cluster,
            incarnation: identity.incarnation,
        };
        let record = self.directory.records.get(&group);
        read_group(&mut Blocking::new(&mut self.storage), &owner, group, record)
    }
}

fn open_error(path: &str, error: ScanError) -> OpenError {
    match error {
        ScanError::Storage(error) => error.into(),
        ScanError::Newer { found, known } => OpenError::Version {
            path: path.to_owned(),
            found,
            known,
        },
    }
}

const fn state_of(verdict: &FileVerdict) -> FileState {
    match verdict {
        FileVerdict::Visible { .. } => FileState::Visible,
        FileVerdict::Hidden => FileState::Hidden,
        FileVerdict::Unused => FileState::Unused,
        FileVerdict::Corrupt => FileState::Corrupt,
    }
}

fn report(group: GroupId, image: GroupImage) -> GroupReport {
    let verdict = image.verdict;
    let torn = verdict.torn.map(|torn| {
        let file = image.files.iter().find(|it| it.sequence == torn.sequence);
        let offset = file.map_or(0, |file| match &file.body {
            Body::Scanned(scan) => scan.run_end,
            Body::Sealed(footer) => footer.data_end,
            Body::Unread => 0,
        });
        TornAt {
            path: paths::segment(group, torn.sequence),
            offset,
            index: torn.index,
        }
    });
    GroupReport {
        group,
        files: image.files.len(),
        first: verdict.before_first.next(),
        last: verdict.last,
        durable: verdict.durable,
        torn,
        quarantined: verdict.quarantine.is_some(),
        alarms: image.alarms,
    }
}

/// Where the blocks of a sealed file start that are not what its footer says.
fn bad_blocks<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &OpenFile,
    footer: &Footer,
) -> Result<Vec<u64>, OpenError> {
    let block = u64::from(VERIFIED_BLOCK);
    let footer_len = footer.encoded_len(io.alignment());
    let covered = open.len - u64_of(footer_len).min(open.len);
    let mut bad = Vec::new();
    let mut reader = io.reader(open);
    let mut window = Window::new(&mut reader);
    for (number, expected) in (0..).zip(&footer.blocks) {
        let offset = number * block;
        let len = covered.saturating_sub(offset).min(block);
        let len = usize::try_from(len).expect("at most 64 KiB");
        if crc32c(window.get(offset, len)?) != *expected {
            bad.push(offset);
        }
    }
    if u64_of(footer.blocks.len()) != covered.div_ceil(block) {
        bad.push(u64_of(footer.blocks.len()) * block);
    }
    Ok(bad)
}

type Visit<'v> = dyn FnMut(u64, Item<'_>) + 'v;

fn walk_file<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &OpenFile,
    file: &FileImage,
    state: FileState,
    visit: &mut Visit<'_>,
) -> Result<(), ScanError> {
    let identity = file.identity.as_ref().ok();
    visit(
        0,
        Item::File {
            identity,
            len: open.len,
            state,
        },
    );
    let Some(identity) = identity else {
        return Ok(());
    };
    let mut reader = io.reader(open);
    let mut walker = Walker {
        window: Window::new(&mut reader),
        salt: identity.salt,
        position: u64::from(identity.first_frame),
        end: match &file.body {
            Body::Sealed(footer) => footer.data_end,
            Body::Scanned(_) | Body::Unread => open.len,
        },
        garbage: None,
    };
    walker.walk(visit)?;
    if let Body::Sealed(footer) = &file.body {
        let len = footer.encoded_len(io.alignment());
        visit(open.len - u64_of(len).min(open.len), Item::Footer(footer));
    }
    Ok(())
}

/// How much is skipped at a time where a file is zero.
const ZERO_STEP: usize = 4096;

struct Walker<'a, R> {
    window: Window<'a, R>,
    salt: u64,
    position: u64,
    end: u64,
    /// Where bytes of no frame started, and how far they reach so far.
    garbage: Option<(u64, u64)>,
}

impl<R: ReadAt> Walker<'_, R> {
    fn walk(&mut self, visit: &mut Visit<'_>) -> Result<(), ScanError> {
        while self.position < self.end {
            self.advance(visit)?;
        }
        self.end_garbage(visit);
        Ok(())
    }

    /// Passes a frame, or some bytes that are none.
    fn advance(&mut self, visit: &mut Visit<'_>) -> Result<(), ScanError> {
        match self.header()? {
            Some(header) => {
                self.end_garbage(visit);
                self.frame(&header, visit)
            }
            None => self.step(),
        }
    }

    fn header(&mut self) -> Result<Option<FrameHeader>, ScanError> {
        let bytes = self.window.get(self.position, HEADER_LEN)?;
        let bytes = bytes.first_chunk::<HEADER_LEN>();
        Ok(bytes.and_then(|bytes| header_with_salt(bytes, self.salt)))
    }

    fn frame(&mut self, header: &FrameHeader, visit: &mut Visit<'_>) -> Result<(), ScanError> {
        let at = self.position;
        let room = self.end - at;
        let is_whole = u64_of(header.frame_len()) <= room;
        let body = match is_whole {
            true => {
                let len = header.frame_len() - HEADER_LEN;
                let bytes = self.window.get(at + u64_of(HEADER_LEN), len)?;
                checked_body(header, bytes)
            }
            false => None,
        };
        let step = match body {
            Some(_) => header.frame_len(),
            None => HEADER_LEN,
        };
        show(at, header, body, visit)?;
        self.position += u64_of(step);
        Ok(())
    }

    /// Passes what is no frame.
    fn step(&mut self) -> Result<(), ScanError> {
        let at = self.position;
        let bytes = self.window.get(at, ZERO_STEP)?;
        if bytes.is_empty() {
            self.position = self.end;
            return Ok(());
        }
        if bytes.len() == ZERO_STEP && all_zero(bytes) {
            // A header may start within the last bytes of the step and end behind it.
            self.position += u64_of(ZERO_STEP - HEADER_LEN + FRAME_ALIGN);
            return Ok(());
        }
        let word = &bytes[..FRAME_ALIGN.min(bytes.len())];
        let end = at + u64_of(word.len());
        if !all_zero(word) {
            let (start, _) = self.garbage.unwrap_or((at, end));
            self.garbage = Some((start, end));
        }
        self.position = end;
        Ok(())
    }

    fn end_garbage(&mut self, visit: &mut Visit<'_>) {
        if let Some((start, end)) = self.garbage.take() {
            visit(start, Item::Garbage { len: end - start });
        }
    }
}

fn show(
    at: u64,
    header: &FrameHeader,
    body: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), ScanError> {
    if header.kind != FrameKind::Begin {
        visit(at, Item::Entry { header, body });
        return Ok(());
    }
    match body.map(|body| Begin::decode(header, body)) {
        Some(Ok(begin)) => visit(at, Item::Begin(&begin)),
        Some(Err(FormatFault::Newer { found, known })) => {
            return Err(ScanError::Newer { found, known });
        }
        Some(Err(FormatFault::Bad)) | None => visit(at, Item::Entry { header, body: None }),
    }
    Ok(())
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits into 64 bits")
}

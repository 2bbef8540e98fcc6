//! Reads a group's files and puts them to the recovery rule.

use super::classify::{Fault, FaultKind, FileVerdict, Rule, Verdict, classify};
use super::view::{BeginView, Content, FileView, Frames, GroupView, IdentityView};
use crate::alarm::{Alarm, Damage};
use crate::blocking::{Blocking, OpenFile};
use crate::directory::{read_front, version_error};
use crate::entry::{Position, Snapshot};
use crate::error::OpenError;
use crate::format::FormatFault;
use crate::format::begin::{Begin, Reason};
use crate::format::footer::{FOOTER_BYTES_MAX, Footer, FooterOf, TRAILER_LEN, Trailer};
use crate::format::identity::FileIdentity;
use crate::format::journal::{GroupRecord, QuarantineRecord};
use crate::ids::{ClusterId, GroupId, Incarnation, Sequence};
use crate::paths;
use crate::points::Points;
use crate::scan::{FramesOf, ReadAt, Scan, ScanError, holds_any_header, scan, scan_begin};
use crate::storage::{Op, Storage};

/// Whose files are expected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
}

/// A file as it was read.
#[derive(Debug, Clone)]
pub(crate) struct FileImage {
    pub(crate) sequence: Sequence,
    /// Its length in bytes, as it was found.
    pub(crate) len: u64,
    /// Whether it is protected: sealed, and nothing of it is in any cache unsynced.
    pub(crate) read_only: bool,
    pub(crate) identity: Result<FileIdentity, BadIdentity>,
    /// What the first frame says, if it is good.
    pub(crate) begin: Option<Begin>,
    pub(crate) body: Body,
}

/// Why a file's identity is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadIdentity {
    Other,
    Bad { any_header: bool },
}

/// What lies behind the identity.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Not looked at: the identity is not good.
    Unread,
    Sealed(Box<Footer>),
    Scanned(Box<Scan>),
}

/// A group as recovery found it.
#[derive(Debug, Clone)]
pub(crate) struct GroupImage {
    pub(crate) files: Vec<FileImage>,
    pub(crate) verdict: Verdict,
    pub(crate) alarms: Vec<Alarm>,
}

/// Reads a group's files and classifies them. Changes nothing.
pub(crate) fn read_group<S: Storage>(
    io: &mut Blocking<'_, S>,
    owner: &Owner,
    group: GroupId,
    record: Option<&GroupRecord>,
) -> Result<GroupImage, OpenError> {
    let mut alarms = Vec::new();
    let mut files = Vec::new();
    for sequence in list(io, group, &mut alarms)? {
        files.push(read_file(io, owner, group, sequence, &mut alarms)?);
    }
    let known = record.and_then(|record| record.quarantine);
    rescan_sealed(io, group, known, &mut files)?;
    let view = GroupView {
        position: record.and_then(|record| record.position),
        files: files.iter_mut().map(take_view).collect(),
    };
    let mut verdict = classify(&view, &Rule::default());
    if record.is_some_and(|record| record.quarantine.is_some_and(|it| it.reaches_end)) {
        give_up_tail(&mut verdict);
    }
    for (file, view) in files.iter_mut().zip(view.files) {
        give_back(file, view);
    }
    for fault in &verdict.faults {
        alarms.push(fault_alarm(group, &files, fault, &verdict));
    }
    Ok(GroupImage {
        files,
        verdict,
        alarms,
    })
}

/// A replica that has not rejoined yet trusts nothing behind a hole: it goes on before the
/// first one.
fn give_up_tail(verdict: &mut Verdict) {
    if let Some(holes) = &mut verdict.quarantine {
        holes.reaches_end = true;
        verdict.last = verdict.last.min(holes.first.before());
    }
}

fn list<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    alarms: &mut Vec<Alarm>,
) -> Result<Vec<Sequence>, OpenError> {
    let directory = paths::group_dir(group);
    let entries = match io.list(&directory) {
        Ok(entries) => entries,
        Err(crate::storage::StorageError::NotFound { .. }) => return Ok(Vec::new()),
        Err(other) => return Err(other.into()),
    };
    let mut sequences = Vec::new();
    for entry in entries {
        match paths::parse_segment(&entry.name).filter(|_| !entry.is_dir) {
            Some(sequence) => sequences.push(sequence),
            None => alarms.push(Alarm {
                group: Some(group),
                path: format!("{directory}/{}", entry.name),
                offset: 0,
                damage: Damage::Unknown,
            }),
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

fn read_file<S: Storage>(
    io: &mut Blocking<'_, S>,
    owner: &Owner,
    group: GroupId,
    sequence: Sequence,
    alarms: &mut Vec<Alarm>,
) -> Result<FileImage, OpenError> {
    let path = paths::segment(group, sequence);
    let open = io.open(&path, false)?;
    let version = |error| scan_error(&path, error);
    let identity = read_identity(io, &open, owner, group, sequence).map_err(version)?;
    let mut file = FileImage {
        sequence,
        len: open.len,
        read_only: open.read_only,
        identity,
        begin: None,
        body: Body::Unread,
    };
    if let Ok(identity) = &file.identity {
        if let Some(footer) = read_footer(io, &open, identity).map_err(version)? {
            let of = frames_of(identity);
            file.begin = scan_begin(&mut io.reader(&open), &of, open.len).map_err(version)?;
            note_bad_begin(identity, file.begin.as_ref(), &path, alarms);
            file.body = Body::Sealed(Box::new(footer));
        } else {
            let scan = scan_file(io, &open, identity).map_err(version)?;
            note_bad_footer(&open, identity, &scan, &path, alarms);
            file.begin.clone_from(&scan.begin);
            file.body = Body::Scanned(Box::new(scan));
        }
    }
    io.close(open.file)?;
    Ok(file)
}

fn read_identity<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &OpenFile,
    owner: &Owner,
    group: GroupId,
    sequence: Sequence,
) -> Result<Result<FileIdentity, BadIdentity>, ScanError> {
    let block = read_front(io, open)?;
    match FileIdentity::decode(&block) {
        Ok(identity) => {
            let ours = identity.cluster == owner.cluster
                && identity.incarnation == owner.incarnation
                && identity.group == group
                && identity.sequence == sequence;
            Ok(if ours {
                Ok(identity)
            } else {
                Err(BadIdentity::Other)
            })
        }
        Err(FormatFault::Newer { found, known }) => Err(ScanError::Newer { found, known }),
        Err(FormatFault::Bad) => {
            let any_header = holds_any_header(&mut io.reader(open), open.len)?;
            Ok(Err(BadIdentity::Bad { any_header }))
        }
    }
}

/// The footer that a trimmed file ends with, if it does.
fn read_footer<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &OpenFile,
    identity: &FileIdentity,
) -> Result<Option<Footer>, ScanError> {
    let align = u64::try_from(io.alignment()).expect("an alignment fits into 64 bits");
    if open.len < u64::from(identity.first_frame) + align || !open.len.is_multiple_of(align) {
        return Ok(None);
    }
    let of = footer_of(identity);
    let block = io.alignment();
    let last = io.reader(open).read_at(open.len - align, block)?;
    let Some(trailer) = last.last_chunk::<TRAILER_LEN>() else {
        return Ok(None);
    };
    let trailer = match Trailer::decode(trailer, &of) {
        Ok(trailer) => trailer,
        Err(FormatFault::Bad) => return Ok(None),
        Err(FormatFault::Newer { found, known }) => return Err(ScanError::Newer { found, known }),
    };
    let total = trailer.total_len;
    if total > open.len || total > FOOTER_BYTES_MAX || total % align != 0 {
        return Ok(None);
    }
    let len = usize::try_from(total).expect("at most 128 MiB");
    let bytes = io.reader(open).read_at(open.len - total, len)?;
    match Footer::decode(&bytes, &of) {
        Ok(footer) => Ok(Some(footer)),
        Err(FormatFault::Bad) => Ok(None),
        Err(FormatFault::Newer { found, known }) => Err(ScanError::Newer { found, known }),
    }
}

pub(crate) fn footer_of(identity: &FileIdentity) -> FooterOf {
    FooterOf {
        salt: identity.salt,
        sequence: identity.sequence,
        group: identity.group,
    }
}

pub(crate) fn frames_of(identity: &FileIdentity) -> FramesOf {
    FramesOf {
        group: identity.group,
        salt: identity.salt,
        first_frame: u64::from(identity.first_frame),
        recycled: identity.recycled,
    }
}

fn scan_file<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &OpenFile,
    identity: &FileIdentity,
) -> Result<Scan, ScanError> {
    scan(&mut io.reader(open), &frames_of(identity), open.len)
}

/// A sealed file's footer says what its `begin` said, so a bad one is reported and no more.
fn note_bad_begin(
    identity: &FileIdentity,
    begin: Option<&Begin>,
    path: &str,
    alarms: &mut Vec<Alarm>,
) {
    if begin.is_none() {
        alarms.push(Alarm {
            group: Some(identity.group),
            path: path.to_owned(),
            offset: u64::from(identity.first_frame),
            damage: Damage::Begin,
        });
    }
}

/// A file that was trimmed or protected had a footer. One that was not may be a torn sealing,
/// which leaves bytes behind the frames and is no damage.
fn note_bad_footer(
    open: &OpenFile,
    identity: &FileIdentity,
    scan: &Scan,
    path: &str,
    alarms: &mut Vec<Alarm>,
) {
    if open.len >= identity.size && !open.read_only {
        return;
    }
    alarms.push(Alarm {
        group: Some(identity.group),
        path: path.to_owned(),
        offset: scan.run_end,
        damage: Damage::Footer,
    });
}

/// Reads the frames of sealed files whose footers do not say enough: those that a `cut` reaches
/// into (only the one that mends a quarantine does), and the one in which a hole is known. Not if
/// its `begin` is bad too: then its footer is all that says what it is, and its repair finds the
/// hole again.
fn rescan_sealed<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    known: Option<QuarantineRecord>,
    files: &mut [FileImage],
) -> Result<(), OpenError> {
    for at in 0..files.len() {
        let has_begin = files[at].begin.is_some();
        let (Body::Sealed(footer), Ok(identity)) = (&files[at].body, &files[at].identity) else {
            continue;
        };
        let last = footer.end.before.index;
        let is_cut_into = files[at + 1..]
            .iter()
            .filter_map(begin_of)
            .any(|begin| begin.reason == Reason::Cut && begin.first.before() < last);
        let has_hole = known
            .filter(|known| has_begin || known.reaches_end)
            .is_some_and(|known| footer.start.before.index < known.first && known.first <= last);
        if is_cut_into || has_hole {
            let path = paths::segment(group, files[at].sequence);
            let open = io.open(&path, false)?;
            let scan = scan_file(io, &open, identity).map_err(|error| scan_error(&path, error))?;
            io.close(open.file)?;
            files[at].body = Body::Scanned(Box::new(scan));
        }
    }
    Ok(())
}

fn begin_of(file: &FileImage) -> Option<BeginView> {
    match &file.body {
        Body::Unread => None,
        Body::Sealed(footer) => Some(BeginView::new(footer.reason, &footer.start)),
        Body::Scanned(scan) => scan.frames.begin,
    }
}

/// Describes a file to the rule. The frames are lent, not copied: there may be millions.
fn take_view(file: &mut FileImage) -> FileView {
    let identity = match file.identity {
        Ok(_) => IdentityView::Good,
        Err(BadIdentity::Other) => IdentityView::Other,
        Err(BadIdentity::Bad { any_header }) => IdentityView::Bad { any_header },
    };
    let content = match &mut file.body {
        Body::Unread => Content::Frames(Frames::default()),
        Body::Sealed(footer) => Content::Sealed {
            begin: BeginView::new(footer.reason, &footer.start),
            last: footer.end.before.index,
            chain: footer.end.chain,
        },
        Body::Scanned(scan) => Content::Frames(std::mem::take(&mut scan.frames)),
    };
    FileView {
        sequence: file.sequence,
        identity,
        content,
    }
}

fn give_back(file: &mut FileImage, view: FileView) {
    if let (Body::Scanned(scan), Content::Frames(frames)) = (&mut file.body, view.content) {
        scan.frames = frames;
    }
}

fn fault_alarm(group: GroupId, files: &[FileImage], fault: &Fault, verdict: &Verdict) -> Alarm {
    let reaches_end = verdict
        .quarantine
        .as_ref()
        .is_some_and(|holes| holes.reaches_end);
    let durable = verdict.durable;
    let file = files.iter().find(|file| file.sequence == fault.sequence);
    let first_frame = file
        .and_then(|file| file.identity.ok())
        .map_or(0, |identity| u64::from(identity.first_frame));
    let run_end = file.map_or(0, |file| match &file.body {
        Body::Scanned(scan) => scan.run_end,
        Body::Sealed(footer) => footer.data_end,
        Body::Unread => 0,
    });
    let (offset, damage) = match fault.kind {
        FaultKind::Identity => (0, Damage::Identity),
        FaultKind::Begin => (first_frame, Damage::Begin),
        FaultKind::Diverged(index) => (first_frame, Damage::Diverged { index }),
        FaultKind::Entries(first, last) if reaches_end && last >= durable => {
            (run_end, Damage::Cut { first, durable })
        }
        FaultKind::Entries(first, last) => (run_end, Damage::Entries { first, last }),
    };
    Alarm {
        group: Some(group),
        path: paths::segment(group, fault.sequence),
        offset,
        damage,
    }
}

fn scan_error(path: &str, error: ScanError) -> OpenError {
    match error {
        ScanError::Storage(error) => error.into(),
        ScanError::Newer { found, known } => {
            version_error(path.to_owned(), FormatFault::Newer { found, known })
        }
    }
}

/// Makes durable whatever of a group's files an earlier life left in a cache: recovered is not
/// durable.
pub(crate) fn sync_files<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    image: &GroupImage,
) -> Result<(), OpenError> {
    for file in image.files.iter().filter(|file| !file.read_only) {
        if mutant!(RecoveredNotSynced) {
            continue;
        }
        let open = io.open(&paths::segment(group, file.sequence), true)?;
        io.done(Op::Sync { file: open.file })?;
        io.close(open.file)?;
    }
    if !image.files.is_empty() {
        io.sync_dir(&paths::group_dir(group))?;
        io.sync_dir(paths::GROUPS)?;
    }
    Ok(())
}

/// Finishes the unlinking of files that are hidden whole: newest first, the directory synced
/// between.
pub(crate) fn unlink_hidden<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    image: &mut GroupImage,
) -> Result<(), OpenError> {
    for at in (0..image.files.len()).rev() {
        if image.verdict.files[at] != FileVerdict::Hidden {
            continue;
        }
        io.unlink(&paths::segment(group, image.files[at].sequence))?;
        io.sync_dir(&paths::group_dir(group))?;
        image.files.remove(at);
        image.verdict.files.remove(at);
    }
    Ok(())
}

/// Finishes the removal of a group that was dropped. What is left of its files is not read: that
/// some are missing means nothing, and what they hold is wanted by nobody. What Highwater did not
/// make is left alone, and the directory with it.
pub(crate) fn remove_group<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    alarms: &mut Vec<Alarm>,
) -> Result<(), OpenError> {
    let directory = paths::group_dir(group);
    let alarms_before = alarms.len();
    for sequence in list(io, group, alarms)? {
        io.unlink(&paths::segment(group, sequence))?;
    }
    io.sync_dir(&directory)?;
    if alarms.len() == alarms_before {
        io.done(Op::RemoveDir { path: directory })?;
        io.sync_dir(paths::GROUPS)?;
    }
    Ok(())
}

impl FileImage {
    /// The snapshot in its footer.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        match &self.body {
            Body::Sealed(footer) => footer.snapshot.as_ref(),
            Body::Unread | Body::Scanned(_) => None,
        }
    }

    /// Where its entries lie.
    pub(crate) fn points(&self) -> Points {
        match &self.body {
            Body::Unread => Points::new(0),
            Body::Scanned(scan) => scan.points.clone(),
            Body::Sealed(footer) => Points::restored(
                footer.points.clone(),
                footer.largest_timestamp,
                footer.largest_append_time,
            ),
        }
    }

    /// The place before its first entry.
    pub(crate) fn start(&self) -> Option<Position> {
        match &self.body {
            Body::Unread => None,
            Body::Sealed(footer) => Some(footer.start),
            Body::Scanned(scan) => scan.begin.as_ref().map(|begin| begin.start),
        }
    }

    /// Why it was begun.
    pub(crate) fn reason(&self) -> Option<Reason> {
        begin_of(self).map(|begin| begin.reason)
    }
}

/// The fronts of a file's good entries, if its footer stands for them.
pub(crate) fn replay_of_sealed<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: GroupId,
    file: &FileImage,
) -> Result<Vec<crate::entry::Replayed>, OpenError> {
    let path = paths::segment(group, file.sequence);
    let Ok(identity) = &file.identity else {
        return Ok(Vec::new());
    };
    let open = io.open(&path, false)?;
    let scan = scan_file(io, &open, identity).map_err(|error| scan_error(&path, error))?;
    io.close(open.file)?;
    Ok(scan.replay)
}

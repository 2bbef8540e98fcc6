//! From what recovery found to a group that can go on.

use highwater_record::Offset;

use super::classify::FileVerdict;
use super::driver::{Body, FileImage, GroupImage, replay_of_sealed};
use crate::blocking::Blocking;
use crate::config::GroupConfig;
use crate::entry::{Epoch, HardState, Position, Replayed, Snapshot};
use crate::error::OpenError;
use crate::format::begin::Reason;
use crate::format::journal::{GroupRecord, QuarantineRecord, SyncedPosition};
use crate::group::Group;
use crate::group::epochs::Epochs;
use crate::group::marks::Marks;
use crate::group::segment::{Segment, SegmentState};
use crate::ids::{EntryId, GroupId, LogIndex, Sequence, Term};
use crate::storage::Storage;

/// A group as it was recovered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveredGroup {
    /// Which.
    pub group: GroupId,
    /// What it promised.
    pub hard_state: HardState,
    /// Where its log begins.
    pub start: Position,
    /// Its log start offset, as far as the files say; entries in `replay` may move it.
    pub log_start_offset: Offset,
    /// Its last entry; behind holes, if what follows them is verified.
    pub last: EntryId,
    /// The offset behind it.
    pub end_offset: Offset,
    /// Its epoch history.
    pub epochs: Vec<Epoch>,
    /// Its owner's state, from the last footer that has one, or from the base that the log
    /// begins with.
    pub snapshot: Option<Snapshot>,
    /// The good entries behind the snapshot, ascending.
    pub replay: Vec<Replayed>,
    /// Whether its log has holes. Ends when the owner says so
    /// ([`Store::end_quarantine`](crate::Store::end_quarantine)).
    pub quarantine: Option<Quarantine>,
    /// Where a crash interrupted its last write, if that left anything.
    pub torn: Option<TornTail>,
}

/// Holes in a log (DESIGN.md section 4, Recovery).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// The first entry that is bad or missing.
    pub first: LogIndex,
    /// The bad and missing entries, each first and last. Empty if the whole log is quarantined,
    /// or what was missing is replaced but the replica has not rejoined yet.
    pub holes: Vec<(LogIndex, LogIndex)>,
    /// Whether nothing behind the first hole is verified: the replica grants no vote,
    /// acknowledges nothing and does not campaign until it has rejoined.
    pub reaches_end: bool,
}

/// The evidence of an interrupted write. What lies there was never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub sequence: Sequence,
    /// The first entry that is not there.
    pub index: LogIndex,
    /// Where its frame should start, in bytes.
    pub offset: u64,
    /// D: through which entry the log is known to have been durable.
    pub durable: LogIndex,
    /// How many frames with good headers lie behind it.
    pub found_beyond: usize,
}

/// Builds a group from what was read of it.
pub(crate) fn build_group(image: &GroupImage, record: GroupRecord) -> Group {
    let mut group = Group::new(record.group, GroupConfig::default());
    group.record = record;
    group.record.quarantine = quarantine_record(image, &record);
    let whole = is_whole(image);
    let visible = visible_files(image);
    if let Some(&(lowest, ..)) = visible.first() {
        let start = lowest.start().expect("a visible file has a good begin");
        if !whole || start.before.index == image.verdict.before_first {
            group.start = start;
        }
        take_base_state(&mut group, lowest);
        group.epochs = initial_epochs(lowest, &group.start);
    }
    group.marks = Marks::new(group.start);
    group.end = group.start;
    if !whole {
        for (file, first, last) in visible {
            take_file(&mut group, file, first, last.min(image.verdict.last));
        }
    }
    group.epochs.forget_before(group.start.first());
    suspect_bad_begins(&mut group, image, record.quarantine);
    finish(&mut group, image);
    group
}

/// Files whose footers stand for a `begin` that is bad: it is made anew, if all of it is known. The
/// one in which a hole is known is looked at in any case.
fn suspect_bad_begins(group: &mut Group, image: &GroupImage, known: Option<QuarantineRecord>) {
    let bad = image.files.iter().filter(|file| file.begin.is_none());
    let bad: Vec<Sequence> = bad.map(|file| file.sequence).collect();
    let found = group.segments.iter().filter(|segment| {
        let has_hole = known.is_some_and(|known| segment.holds(known.first));
        bad.contains(&segment.sequence) && (has_hole || group.begin_of(segment).is_some())
    });
    group.suspects = found.map(|segment| segment.sequence).collect();
}

fn is_whole(image: &GroupImage) -> bool {
    let quarantine = image.verdict.quarantine.as_ref();
    quarantine.is_some_and(|holes| holes.ranges.is_empty())
}

fn visible_files(image: &GroupImage) -> Vec<(&FileImage, LogIndex, LogIndex)> {
    let files = image.files.iter().zip(&image.verdict.files);
    files
        .filter_map(|(file, verdict)| match *verdict {
            FileVerdict::Visible { first, last } => Some((file, first, last)),
            FileVerdict::Unused | FileVerdict::Hidden | FileVerdict::Corrupt => None,
        })
        .collect()
}

/// A log's end stays quarantined until its owner has rejoined, whatever the files say now.
fn quarantine_record(image: &GroupImage, record: &GroupRecord) -> Option<QuarantineRecord> {
    let found = image
        .verdict
        .quarantine
        .as_ref()
        .map(|holes| QuarantineRecord {
            first: holes.first,
            reaches_end: holes.reaches_end,
        });
    match (record.quarantine, found) {
        (Some(before), found) if before.reaches_end => Some(QuarantineRecord {
            first: found.map_or(before.first, |found| found.first.min(before.first)),
            reaches_end: true,
        }),
        (_, found) => found,
    }
}

fn take_base_state(group: &mut Group, lowest: &FileImage) {
    if lowest.reason() == Some(Reason::Base)
        && let Some(begin) = &lowest.begin
    {
        group.base_state = begin.state.clone();
    }
}

/// The epoch history before the lowest file's entries: its base's; else, if nothing is known but
/// the entry before them, that one's term.
fn initial_epochs(lowest: &FileImage, start: &Position) -> Epochs {
    let stated = lowest.begin.as_ref().map(|begin| begin.epochs.clone());
    let stated = stated.filter(|epochs| !epochs.is_empty());
    let known = stated.unwrap_or_else(|| match &lowest.body {
        Body::Sealed(footer) => footer.epochs.clone(),
        Body::Unread | Body::Scanned(_) => Vec::new(),
    });
    let mut epochs = Epochs::new(known);
    if start.before.term > Term(0) && epochs.term_at(start.before.index).is_none() {
        epochs = Epochs::default();
        epochs.push(start.before, start.offset);
    }
    epochs
}

/// Takes a file's entries from `first` through `last` into the log.
fn take_file(group: &mut Group, file: &FileImage, first: LogIndex, last: LogIndex) {
    let (Ok(identity), Some(start)) = (&file.identity, file.start()) else {
        unreachable!("a visible file has a good identity and begin");
    };
    let behind_hole = group.end.before.index < start.before.index && start.before.index <= last;
    if behind_hole && !mutant!(LogEndsBeforeHole) {
        // What lies before this file is bad at its end, or gone; the file knows where that is.
        skip_hole(group, &start);
    }
    if last < first {
        group.unused.push(file.sequence);
        return;
    }
    let mut segment = Segment {
        group: group.id,
        sequence: file.sequence,
        salt: identity.salt,
        first_frame: u64::from(identity.first_frame),
        len: identity.size,
        recycled: identity.recycled,
        reason: file.reason().expect("a visible file has a good begin"),
        start,
        end: start,
        points: file.points(),
        written_end: 0,
        state: SegmentState::Closed,
        protected: file.read_only,
        file: None,
        mapping: None,
        mapped: Vec::new(),
        last_read: 0,
        snapshot_at: file.snapshot().map(|snapshot| snapshot.at),
        announced: false,
        sums: None,
    };
    match &file.body {
        Body::Unread => unreachable!("a visible file was read"),
        Body::Sealed(footer) => {
            segment.state = SegmentState::Sealed;
            segment.end = footer.end;
            segment.written_end = footer.data_end;
            group.end = footer.end;
            for epoch in &footer.epochs {
                let id = EntryId {
                    index: epoch.first_index,
                    term: epoch.term,
                };
                group.epochs.push(id, epoch.first_offset);
            }
            group.marks = Marks::new(footer.end);
            group.commit = group.commit.max(footer.end.before.index);
            let start = footer.log_start_offset;
            group.log_start_offset = group.log_start_offset.max(start);
        }
        Body::Scanned(scan) => {
            segment.written_end = scan.written_end;
            // Shorter than it was made if it was trimmed, or cut short by something else.
            segment.len = file.len;
            for position in scan.good_positions() {
                take_entry(group, &position, last);
            }
            segment.end = group.end;
        }
    }
    segment.points.cut(last.next());
    if let Some(begin) = &file.begin {
        group.log_start_offset = group.log_start_offset.max(begin.log_start_offset);
    }
    group.segments.push(segment);
}

fn take_entry(group: &mut Group, position: &Position, last: LogIndex) {
    let index = position.before.index;
    if index > last || index <= group.end.before.index {
        return;
    }
    if index == group.end.first() {
        group.marks.push(position);
        group.epochs.push(position.before, group.end.offset);
        group.end = *position;
    } else {
        skip_hole(group, position);
    }
}

/// The log goes on behind a hole: what lies below it is never cut but by mending it.
fn skip_hole(group: &mut Group, position: &Position) {
    group.marks.skip_to(position);
    group.epochs.push(position.before, group.end.offset);
    group.end = *position;
}

fn finish(group: &mut Group, image: &GroupImage) {
    let holes = image.verdict.quarantine.as_ref();
    if let Some(holes) = holes.filter(|holes| !holes.reaches_end) {
        group.holes.clone_from(&holes.ranges);
    }
    for (file, verdict) in image.files.iter().zip(&image.verdict.files) {
        group.next_sequence = group.next_sequence.max(file.sequence.next());
        let in_log = group
            .segments
            .iter()
            .any(|segment| segment.sequence == file.sequence);
        if !in_log && *verdict != FileVerdict::Hidden {
            group.unused.push(file.sequence);
        }
    }
    group.unused.sort_unstable();
    group.unused.dedup();
    group.log_start_offset = group.log_start_offset.max(group.start.offset);
    group.has_directory = !image.files.is_empty();
    group.submitted = group.end;
    group.synced = group.end.before.index;
    group.position = top_sequence(image).map(|sequence| SyncedPosition {
        sequence,
        index: group.synced,
    });
}

/// The highest file with a good `begin` that is part of the log.
fn top_sequence(image: &GroupImage) -> Option<Sequence> {
    visible_files(image).last().map(|(file, ..)| file.sequence)
}

/// What the owner of a group is told.
pub(crate) fn describe<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: &Group,
    image: &GroupImage,
) -> Result<RecoveredGroup, OpenError> {
    let snapshot = snapshot_of(group, image);
    let at = snapshot
        .as_ref()
        .map_or(group.start.before.index, |snapshot| snapshot.at);
    Ok(RecoveredGroup {
        group: group.id,
        hard_state: group.record.hard,
        start: group.start,
        log_start_offset: group.log_start_offset,
        last: group.end.before,
        end_offset: group.end.offset,
        epochs: group.epochs.as_slice().to_vec(),
        snapshot,
        replay: replay_behind(io, group, image, at)?,
        quarantine: group.record.quarantine.map(|quarantine| Quarantine {
            first: quarantine.first,
            holes: group.holes.clone(),
            reaches_end: quarantine.reaches_end,
        }),
        torn: torn_tail(image),
    })
}

fn snapshot_of(group: &Group, image: &GroupImage) -> Option<Snapshot> {
    let end = group.end.before.index;
    let in_footers = image.files.iter().filter(|file| {
        let mut segments = group.segments.iter();
        segments.any(|segment| segment.sequence == file.sequence)
    });
    let newest = in_footers
        .filter_map(FileImage::snapshot)
        .filter(|snapshot| snapshot.at <= end)
        .max_by_key(|snapshot| snapshot.at);
    let from_base = || {
        (!group.base_state.is_empty()).then(|| Snapshot {
            at: group.start.before.index,
            state: group.base_state.clone(),
        })
    };
    newest.cloned().or_else(from_base)
}

fn replay_behind<S: Storage>(
    io: &mut Blocking<'_, S>,
    group: &Group,
    image: &GroupImage,
    at: LogIndex,
) -> Result<Vec<Replayed>, OpenError> {
    let mut replay: Vec<Replayed> = Vec::new();
    for segment in group.segments.iter().filter(|segment| segment.last() > at) {
        let file = image
            .files
            .iter()
            .find(|file| file.sequence == segment.sequence);
        let Some(file) = file else { continue };
        let entries = match &file.body {
            Body::Unread => Vec::new(),
            Body::Scanned(scan) => scan.replay.clone(),
            Body::Sealed(_) => replay_of_sealed(io, group.id, file)?,
        };
        let wanted = entries
            .into_iter()
            .filter(|entry| entry.id.index > at && segment.holds(entry.id.index));
        replay.extend(wanted);
    }
    Ok(replay)
}

fn torn_tail(image: &GroupImage) -> Option<TornTail> {
    let torn = image.verdict.torn?;
    let file = image
        .files
        .iter()
        .find(|file| file.sequence == torn.sequence)?;
    let Body::Scanned(scan) = &file.body else {
        return None;
    };
    Some(TornTail {
        sequence: torn.sequence,
        index: torn.index,
        offset: scan.run_end,
        durable: image.verdict.durable,
        found_beyond: torn.found_beyond,
    })
}

/// The record of a group that the journals do not know.
pub(crate) fn blank_record(group: GroupId) -> GroupRecord {
    GroupRecord {
        group,
        sequence: 0,
        hard: HardState::default(),
        position: None,
        quarantine: None,
        dropped: false,
    }
}

//! One more fault than a crash: a rotten sector below what is known to have been durable. It is
//! met by an alarm, a quarantine or an error, and never by a shorter log.

use fastrand::Rng;
use highwater_log::format::begin::Reason;
use highwater_log::format::journal::Unit;
use highwater_log::storage::{MemoryDisk, MemoryStorage, SECTOR};
use highwater_log::{GroupId, Inspector, Item, LogIndex, Place, Sequence};

use super::start::{Found, Logs, start};

/// What lies in a group's files and is a part of its log.
struct Frame {
    path: String,
    sequence: Sequence,
    from: u64,
    to: u64,
    /// The entry; none for a file's first frame, or its footer.
    entry: Option<LogIndex>,
    /// Through which entry it says that the log was durable.
    claim: LogIndex,
}

impl Frame {
    fn overlaps(&self, path: &str, sector: u64) -> bool {
        self.path == path && self.from < sector + SECTOR as u64 && sector < self.to
    }
}

/// Rots a sector of a log on a copy of the image, if one can be found that is known to have
/// been durable; gives whether it could.
pub(crate) fn rot_log(image: &MemoryDisk, logs: &Logs, rng: &mut Rng, context: &str) -> bool {
    let count = logs.len().max(1);
    let Some(found) = logs.values().nth(rng.usize(..count)) else {
        return false;
    };
    let Some((path, sector, index)) = durable_sector(image, found, rng) else {
        return false;
    };
    let rotten = image.fork();
    if !spoil(&rotten, &path, sector, rng) {
        return false;
    }
    let context = format!("{context}; entry {index} rotten in {path} at {sector}");
    let group = found.group.group;
    let mut started = start(&rotten, &context);
    let before = found.ids.len() as u64;
    let again = started.groups.iter().find(|it| it.group == group).cloned();
    let again = again.unwrap_or_else(|| panic!("{context}: the group is gone"));
    let served = started.node.serve(group);
    let said = !started.alarms.is_empty() || !started.node.alarms().is_empty();
    assert!(
        said || again.quarantine.is_some(),
        "{context}: {served} of {before} entries are served, and nothing is said"
    );
    let ends = again.quarantine.as_ref().is_some_and(|it| it.reaches_end);
    assert!(
        again.last.index >= found.group.last.index || ends,
        "{context}: the log is cut to {}, which was {}",
        again.last,
        found.group.last
    );
    assert_eq!(again.hard_state, found.group.hard_state, "{context}");
    true
}

/// A sector with a part of an entry in it that something outside of the sector knows to have been
/// durable: the file, the place and the entry.
fn durable_sector(
    image: &MemoryDisk,
    found: &Found,
    rng: &mut Rng,
) -> Option<(String, u64, LogIndex)> {
    let group = found.group.group;
    let (frames, pushed) = frames(image, group, found.group.last.index);
    let entries: Vec<&Frame> = frames.iter().filter(|it| it.entry.is_some()).collect();
    let frame = *entries.get(rng.usize(..entries.len().max(1)))?;
    let index = frame.entry?;
    let sectors = frame.from / SECTOR as u64..=(frame.to - 1) / SECTOR as u64;
    let sector = rng.u64(sectors) * SECTOR as u64;
    let others = frames
        .iter()
        .filter(|it| !it.overlaps(&frame.path, sector))
        .map(|it| it.claim);
    let durable = others.chain(pushed).max()?;
    (index <= durable).then(|| (frame.path.clone(), sector, index))
}

/// The frames that are a part of the log, and through which entry the journal knows it to be
/// durable.
fn frames(image: &MemoryDisk, group: GroupId, last: LogIndex) -> (Vec<Frame>, Option<LogIndex>) {
    // The inspector reads; on a copy, so that nobody has to trust that.
    let mut inspector = Inspector::open(MemoryStorage::new(&image.fork())).unwrap();
    let position = inspector
        .promises()
        .get(&group)
        .and_then(|record| record.position);
    let mut frames: Vec<Frame> = Vec::new();
    let mut sequence = Sequence::FIRST;
    let mut show = |place: Place<'_>, item: Item<'_>| {
        let mut push = |from: u64, to: u64, entry, claim| {
            frames.push(Frame {
                path: place.path.to_owned(),
                sequence,
                from,
                to,
                entry,
                claim,
            });
        };
        match item {
            Item::File { identity, .. } => {
                sequence = identity.map_or(Sequence::FIRST, |identity| identity.sequence);
            }
            Item::Begin(begin) => {
                let before = begin.start.before.index;
                let is_base = begin.reason == Reason::Base;
                frames.retain(|it| !is_base && it.entry.is_none_or(|index| index <= before));
                frames
                    .iter_mut()
                    .for_each(|it| it.claim = it.claim.min(before));
                let len = 64 + begin.encode_body().len() as u64;
                frames.push(Frame {
                    path: place.path.to_owned(),
                    sequence,
                    from: place.offset,
                    to: place.offset + len,
                    entry: None,
                    claim: before,
                });
            }
            Item::Entry {
                header,
                body: Some(_),
            } if header.index <= last => {
                let to = place.offset + header.frame_len() as u64;
                let claim = header.watermark().unwrap_or(LogIndex::ZERO);
                push(place.offset, to, Some(header.index), claim);
            }
            Item::Footer(footer) => {
                let claim = footer.end.before.index;
                push(place.offset, place.offset + 1, None, claim);
            }
            Item::Entry { .. } | Item::Garbage { .. } => {}
        }
    };
    inspector.walk(group, &mut show).unwrap();
    let newest = frames.iter().map(|frame| frame.sequence).max();
    let pushed = position.filter(|position| Some(position.sequence) == newest);
    (frames, pushed.map(|position| position.index))
}

/// Noise, zeros (a write that was lost) or a flipped bit; gives whether that changed anything.
fn spoil(disk: &MemoryDisk, path: &str, sector: u64, rng: &mut Rng) -> bool {
    let bytes = disk.contents(path).unwrap();
    let from = usize::try_from(sector).unwrap();
    let old = &bytes[from..from + SECTOR];
    let mut new = old.to_vec();
    match rng.u8(..3) {
        0 => new.fill_with(|| rng.u8(..)),
        1 => new.fill(0),
        // Frames are at least 64 bytes: it is the frame's byte, not one beside it.
        _ => new.iter_mut().step_by(64).for_each(|byte| *byte ^= 1),
    }
    let changed = new != old;
    disk.corrupt(path, sector, &new).unwrap();
    changed
}

/// Rots a unit in one copy of the journal, on a copy of the image: no promise goes back without
/// a word. Gives whether there was a unit.
pub(crate) fn rot_journal(
    image: &MemoryDisk,
    rng: &mut Rng,
    judge: impl FnOnce(&Logs, bool),
) -> bool {
    let path = ["journal/0000-a", "journal/0000-b"][rng.usize(..2)];
    let bytes = image.contents(path).unwrap();
    let units = (0..bytes.len()).step_by(4_096);
    let units: Vec<usize> = units
        .filter(|&at| Unit::decode(&bytes[at..]).is_ok())
        .collect();
    let Some(&at) = units.get(rng.usize(..units.len().max(1))) else {
        return false;
    };
    let rotten = image.fork();
    let bit = at as u64 * 8 + rng.u64(..8 * 128);
    rotten.flip_bit(path, bit).unwrap();
    let context = format!("bit {bit} of {path}");
    let mut started = start(&rotten, &context);
    let mut logs = Logs::new();
    for group in std::mem::take(&mut started.groups) {
        let ids = started.node.read_all(group.group);
        let ids = ids.iter().map(|entry| entry.id).collect();
        logs.insert(group.group, Found { group, ids });
    }
    judge(&logs, started.promises_lost);
    true
}

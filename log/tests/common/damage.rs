//! A directory in which everything is durable, and every part of it that is under a checksum.

use std::ops::Range;

use highwater_log::format::footer::{TRAILER_LEN, VERIFIED_BLOCK};
use highwater_log::format::frame::HEADER_LEN;
use highwater_log::format::journal::Unit;
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{Alarm, Damage, GroupConfig, Inspector, Item, LogIndex, Place};

use super::{GROUP, format, open_disk};

/// The last entry of the [written disk](written_disk).
pub(crate) const LAST: u64 = 70;

/// A group with sealed files, closed ones, a cut and a file that is being written; all of it
/// durable, and known to be.
pub(crate) fn written_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    let config = GroupConfig {
        segment_bytes: 256 << 10,
        ..GroupConfig::default()
    };
    node.create_with(GROUP, config);
    for _ in 0..40 {
        node.append_sized(GROUP, 1, 9_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    node.append_sized(GROUP, 1, 300);
    node.settle();
    node.promise(GROUP, 2);
    node.cut(GROUP, 41);
    for _ in 0..15 {
        node.append_sized(GROUP, 2, 9_000);
        node.append_sized(GROUP, 2, 101);
        node.settle();
    }
    node.idle();
    drop(node);
    disk
}

/// What is damaged, and in what kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A unit in one copy of the journal.
    Unit { copy: usize },
    /// The block that a file begins with.
    Identity { sealed: bool },
    /// A file's first frame.
    Begin { sealed: bool },
    /// The header of an entry's frame.
    Header { sealed: bool, index: u64 },
    /// What lies behind that header.
    Body { sealed: bool, index: u64 },
    /// A sealed file's footer, but for its end.
    Footer,
    /// The end of a footer, by which it is found.
    Trailer,
}

impl What {
    pub(crate) fn is_begin(self) -> bool {
        matches!(self, What::Begin { .. })
    }

    /// The same for all entries: what is drawn from evenly.
    pub(crate) fn kind(self) -> What {
        match self {
            What::Header { sealed, .. } => What::Header { sealed, index: 0 },
            What::Body { sealed, .. } => What::Body { sealed, index: 0 },
            other => other,
        }
    }
}

/// Bytes that are damaged together.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) path: String,
    pub(crate) bytes: Range<u64>,
    pub(crate) what: What,
}

impl Part {
    /// Whether an alarm is about this part, and points to where it lies: to its frame, unit or
    /// block; to the end of the frames for a footer, which is not found without its end.
    pub(crate) fn is_named_by(&self, alarm: &Alarm) -> bool {
        let reach = match (self.what, alarm.damage) {
            (_, Damage::Block) => u64::from(VERIFIED_BLOCK),
            (What::Footer | What::Trailer, _) => 2 * 4_096,
            (What::Body { .. }, _) => HEADER_LEN as u64,
            _ => 0,
        };
        let from = self.bytes.start.saturating_sub(reach);
        alarm.path == self.path && (from..self.bytes.end).contains(&alarm.offset)
    }
}

/// Every part of the directory that is in use. A file that was made ahead of need is not.
pub(crate) fn parts(disk: &MemoryDisk) -> Vec<Part> {
    let mut parts = live_units(disk);
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    assert_eq!(inspector.alarms(), []);
    assert_eq!(inspector.verify(GROUP).unwrap().alarms, []);
    let mut files: Vec<Vec<Part>> = Vec::new();
    let mut show = |place: Place<'_>, item: Item<'_>| {
        if let Item::File { .. } = item {
            files.push(Vec::new());
        }
        let len = disk.contents(place.path).unwrap().len() as u64;
        if let Item::Begin(begin) = item {
            // A cut hides what lies at and above its first entry in the files below.
            let first = begin.start.before.index.next();
            let (_, below) = files.split_last_mut().unwrap();
            for file in below {
                file.retain(|part| !is_at_or_above(part.what, first));
            }
        }
        let file = files.last_mut().unwrap();
        for (bytes, what) in split(item, place.offset, len) {
            file.push(Part {
                path: place.path.to_owned(),
                bytes,
                what,
            });
        }
    };
    inspector.walk(GROUP, &mut show).unwrap();
    let is_used = |file: &&mut Vec<Part>| file.iter().any(|part| part.what.is_begin());
    for file in files.iter_mut().filter(is_used) {
        if file.iter().any(|part| part.what == What::Footer) {
            for part in file.iter_mut() {
                part.what = of_sealed(part.what);
            }
        }
        parts.append(file);
    }
    parts
}

fn is_at_or_above(what: What, first: LogIndex) -> bool {
    match what {
        What::Header { index, .. } | What::Body { index, .. } => index >= first.0,
        _ => false,
    }
}

fn split(item: Item<'_>, at: u64, file_len: u64) -> Vec<(Range<u64>, What)> {
    let sealed = false;
    let header_end = at + HEADER_LEN as u64;
    match item {
        Item::File { .. } => vec![(0..4_096, What::Identity { sealed })],
        Item::Begin(begin) => {
            let end = header_end + begin.encode_body().len() as u64;
            vec![(at..end, What::Begin { sealed })]
        }
        Item::Entry { header, .. } => {
            let index = header.index.0;
            let end = at + header.frame_len() as u64;
            vec![
                (at..header_end, What::Header { sealed, index }),
                (header_end..end, What::Body { sealed, index }),
            ]
        }
        Item::Footer(_) => {
            let trailer = file_len - TRAILER_LEN as u64;
            vec![
                (at..trailer, What::Footer),
                (trailer..file_len, What::Trailer),
            ]
        }
        Item::Garbage { .. } => panic!("garbage at {at}"),
    }
}

fn of_sealed(what: What) -> What {
    let sealed = true;
    match what {
        What::Identity { .. } => What::Identity { sealed },
        What::Begin { .. } => What::Begin { sealed },
        What::Header { index, .. } => What::Header { sealed, index },
        What::Body { index, .. } => What::Body { sealed, index },
        other => other,
    }
}

/// Units of the journal's generation that holds: what older ones say does not matter any more.
fn live_units(disk: &MemoryDisk) -> Vec<Part> {
    let mut units = Vec::new();
    for (copy, path) in ["journal/0000-a", "journal/0000-b"].into_iter().enumerate() {
        let bytes = disk.contents(path).unwrap();
        for at in (0..bytes.len()).step_by(4_096) {
            if let Ok(unit) = Unit::decode(&bytes[at..]) {
                let start = at as u64;
                let part = Part {
                    path: path.to_owned(),
                    bytes: start..start + unit.len as u64,
                    what: What::Unit { copy },
                };
                units.push((unit.header.generation, part));
            }
        }
    }
    let current = units.iter().map(|unit| unit.0).max().unwrap();
    let live = units.into_iter().filter(|unit| unit.0 == current);
    live.map(|(_, part)| part).collect()
}

/// What `log verify` says of a directory.
pub(crate) fn look(disk: &MemoryDisk) -> Vec<Alarm> {
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut alarms = inspector.alarms().to_vec();
    alarms.extend(inspector.verify(GROUP).unwrap().alarms);
    alarms
}

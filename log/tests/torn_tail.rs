//! The last file, cut short or garbled at every byte above what is known to have been durable:
//! the log recovers by itself, and loses nothing of what is.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::ops::Range;

use common::{GROUP, Recover, format, open_disk, small_files};
use fastrand::Rng;
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{Alarm, Damage, Inspector, Item, LogIndex, Place};

/// A log whose node was killed: its last write is in the last file, and no later one says that
/// it was whole.
struct Killed {
    disk: MemoryDisk,
    /// The last file.
    path: String,
    file_len: u64,
    /// Where the frames of the last write lie, ascending.
    frames: Vec<Range<u64>>,
    /// The last entry below the last write: known to have been durable.
    durable: u64,
    /// The last entry if nothing is left of the last write: a cut that was not made hides
    /// nothing.
    last_without: u64,
}

/// Entries in the last write.
const LAST_WRITE: u64 = 4;

fn killed(earlier_writes: usize) -> Killed {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create_with(GROUP, small_files());
    for _ in 0..5 {
        node.append_sized(GROUP, 1, 25_000);
        node.settle();
    }
    node.append_sized(GROUP, 1, 100);
    node.settle();
    node.promise(GROUP, 2);
    // The file below stays, or its absence would show that this one was begun.
    node.cut(GROUP, 6);
    for _ in 0..earlier_writes {
        node.append_sized(GROUP, 2, 70);
        node.settle();
    }
    let durable = node.last(GROUP).index.0;
    for bytes in [90, 10, 200, 64] {
        node.append_sized(GROUP, 2, bytes);
    }
    node.settle();
    drop(node);
    describe(disk, durable)
}

fn describe(disk: MemoryDisk, durable: u64) -> Killed {
    let mut inspector = Inspector::open(MemoryStorage::new(&disk)).unwrap();
    let mut path = String::new();
    let mut frames = Vec::new();
    let mut show = |place: Place<'_>, item: Item<'_>| match item {
        Item::File { .. } => {
            place.path.clone_into(&mut path);
            frames.clear();
        }
        Item::Begin(begin) => {
            let len = 64 + begin.encode_body().len() as u64;
            frames.push(place.offset..place.offset + len.next_multiple_of(8));
        }
        Item::Entry { header, .. } => {
            frames.push(place.offset..place.offset + header.frame_len() as u64);
        }
        Item::Garbage { .. } | Item::Footer(_) => panic!("nothing of the kind was written"),
    };
    inspector.walk(GROUP, &mut show).unwrap();
    let earlier = frames.len() - LAST_WRITE as usize;
    // A file's first write begins with its begin; here it is a cut of one entry.
    let (kept, last_without) = match earlier {
        1 => (0, durable + 1),
        _ => (earlier, durable),
    };
    let file_len = disk.contents(&path).unwrap().len() as u64;
    Killed {
        disk,
        path,
        file_len,
        frames: frames.split_off(kept),
        durable,
        last_without,
    }
}

impl Killed {
    fn tail(&self) -> Range<u64> {
        let last = self.frames.last().unwrap();
        self.frames[0].start..last.end
    }

    /// Every byte of the last write, and some of what was never written behind it.
    fn places(&self) -> impl Iterator<Item = u64> {
        let tail = self.tail();
        tail.clone().chain((tail.end..self.file_len).step_by(1_021))
    }

    /// The last entry that must be there if everything below `byte` is as it was written.
    fn last_below(&self, byte: u64) -> u64 {
        let last = self.durable + LAST_WRITE;
        let whole = self.frames.iter().rev().position(|it| it.end <= byte);
        match whole {
            Some(torn) => last - torn as u64,
            None => self.last_without,
        }
    }

    /// A file that is shorter than it was made looks like a sealed one without its footer.
    fn may_be_said(&self, alarms: &[Alarm]) -> bool {
        alarms
            .iter()
            .all(|alarm| alarm.path == self.path && alarm.damage == Damage::Footer)
    }

    /// Opens a disk on which everything below `byte` is whole.
    fn check(&self, disk: &MemoryDisk, byte: u64, context: &str) {
        let context = format!("{context} at {byte} of {}", self.path);
        let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
        let verified = inspector.verify(GROUP).unwrap().alarms;
        assert!(self.may_be_said(&verified), "{context}: {verified:?}");
        let (mut node, recovered) = open_disk(disk);
        let group = recovered.group(GROUP);
        assert_eq!(recovered.alarms, verified, "{context}");
        assert_eq!(group.quarantine, None, "{context}");
        let last = self.last_below(byte);
        assert_eq!(group.last.index, LogIndex(last), "{context}");
        assert_eq!(node.read_all(GROUP).len() as u64, last, "{context}");
        if byte.is_multiple_of(16) {
            // It goes on, and the next start finds that.
            node.append_sized(GROUP, 2, 80);
            node.commit_and_seal(GROUP);
            assert!(!node.failed, "{context}: {:?}", node.events);
            drop(node);
            let (mut node, recovered) = open_disk(disk);
            assert_eq!(recovered.alarms, [], "{context}");
            assert_eq!(node.read_all(GROUP).len() as u64, last + 1, "{context}");
        }
    }
}

/// The last write alone in its file, and behind others.
fn each(check: impl Fn(&Killed)) {
    for earlier_writes in [0, 1, 3] {
        check(&killed(earlier_writes));
    }
}

#[test]
fn a_file_cut_short_above_the_watermark_recovers() {
    each(|killed| {
        for byte in killed.places() {
            let disk = killed.disk.fork();
            disk.resize_file(&killed.path, byte).unwrap();
            killed.check(&disk, byte, "cut short");
        }
    });
}

#[test]
fn a_byte_garbled_above_the_watermark_recovers() {
    each(|killed| {
        let mut rng = Rng::with_seed(3);
        let bytes = killed.disk.contents(&killed.path).unwrap();
        for byte in killed.tail() {
            let disk = killed.disk.fork();
            let was = bytes[usize::try_from(byte).unwrap()];
            let garbled = was ^ rng.u8(1..);
            disk.corrupt(&killed.path, byte, &[garbled]).unwrap();
            killed.check(&disk, byte, "garbled");
        }
    });
}

#[test]
fn noise_to_the_end_of_the_file_recovers() {
    each(|killed| {
        let mut rng = Rng::with_seed(4);
        for byte in killed.places() {
            let disk = killed.disk.fork();
            let len = usize::try_from(killed.file_len - byte).unwrap();
            let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            disk.corrupt(&killed.path, byte, &noise).unwrap();
            killed.check(&disk, byte, "noise");
        }
    });
}

//! What `log dump` and `log verify` see: everything that is there, and every bit that is not as it
//! was written.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::collections::BTreeMap;

use common::{GROUP, Node, format, open_disk};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{FileState, GroupReport, Inspector, Item, LogIndex, OpenError};

/// A log of several sealed files and one that is written to, at rest, with a cut in it.
fn written() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    fill(&mut node, 1, 12);
    node.promise(GROUP, 2);
    node.cut(GROUP, 11);
    fill(&mut node, 2, 50);
    node.commit_and_seal(GROUP);
    node.append(GROUP, 2, 3);
    node.idle();
    disk
}

fn fill(node: &mut Node, term: u32, entries: u32) {
    for _ in 0..entries {
        node.append_sized(GROUP, term, 10_000);
        node.settle();
    }
}

const LAST: LogIndex = LogIndex(63);

fn inspect(disk: &MemoryDisk) -> Inspector<MemoryStorage> {
    Inspector::open(MemoryStorage::new(disk)).unwrap()
}

fn verify(disk: &MemoryDisk) -> GroupReport {
    inspect(disk).verify(GROUP).unwrap()
}

/// How far each file of the group was written, in bytes: all of a sealed one.
fn written_ends(disk: &MemoryDisk) -> BTreeMap<String, u64> {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut note = |path: &str, end: u64| {
        let known = ends.entry(path.to_owned()).or_default();
        *known = end.max(*known);
    };
    inspect(disk)
        .walk(GROUP, &mut |place, item| match item {
            Item::Entry { header, .. } => {
                note(place.path, place.offset + len(header.frame_len()));
            }
            Item::Footer(footer) => note(
                place.path,
                place.offset + len(footer.encoded_len(ALIGNMENT)),
            ),
            Item::File { .. } | Item::Begin(_) | Item::Garbage { .. } => {}
        })
        .unwrap();
    ends
}

/// The alignment of disks in memory.
const ALIGNMENT: usize = 512;

fn len(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

#[test]
fn everything_that_was_written_is_shown() {
    let disk = written();
    let (mut entries, mut begins, mut footers, mut files) = (Vec::new(), 0, 0, 0);
    inspect(&disk)
        .walk(GROUP, &mut |place, item| match item {
            Item::File {
                identity, state, ..
            } => {
                assert_eq!(identity.unwrap().group, GROUP);
                assert_eq!(place.offset, 0);
                // A file that was made ahead of need lies at the end.
                files += usize::from(state == FileState::Visible);
            }
            Item::Begin(_) => begins += 1,
            Item::Entry { header, body } => {
                let expected = common::body(header.index, header.term.0, body.unwrap().len());
                assert_eq!(body.unwrap(), expected);
                entries.push(header.index.0);
            }
            Item::Garbage { .. } => panic!("{place:?}"),
            Item::Footer(footer) => {
                assert_eq!(footer.end.before.index.0, *entries.last().unwrap());
                footers += 1;
            }
        })
        .unwrap();
    let expected: Vec<u64> = (1..=LAST.0).collect();
    assert_eq!(
        entries, expected,
        "what the cut hides lies behind a sealed file's data"
    );
    assert_eq!(begins, files);
    assert!(footers >= 2 && files > footers, "{footers} of {files}");
}

#[test]
fn a_good_log_has_nothing_to_report() {
    let report = verify(&written());
    assert_eq!(report.alarms, []);
    assert_eq!((report.first, report.last), (LogIndex(1), LAST));
    assert_eq!(report.durable, LAST);
    assert_eq!((report.torn, report.quarantined), (None, false));
}

#[test]
fn every_flipped_bit_is_reported_by_file_and_place() {
    let disk = written();
    let ends = written_ends(&disk);
    assert!(ends.len() >= 3);
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..400 {
        let (path, &end) = ends.iter().nth(rng.usize(..ends.len())).unwrap();
        let bit = rng.u64(..end * 8);
        let damaged = disk.fork();
        damaged.flip_bit(path, bit).unwrap();
        let report = verify(&damaged);
        let named = report
            .alarms
            .iter()
            .find(|alarm| alarm.path == *path && alarm.offset <= bit / 8);
        assert!(named.is_some(), "{path} byte {}: {report:?}", bit / 8);
    }
}

#[test]
fn bits_of_headers_are_reported_wherever_they_are() {
    let disk = written();
    let (mut places, mut is_used) = (Vec::new(), false);
    inspect(&disk)
        .walk(GROUP, &mut |place, item| {
            if let Item::File { state, .. } = item {
                is_used = state == FileState::Visible;
            }
            let is_front = !matches!(item, Item::Footer(_) | Item::Garbage { .. });
            if is_used && is_front {
                places.push((place.path.to_owned(), place.offset));
            }
        })
        .unwrap();
    let mut rng = fastrand::Rng::with_seed(12);
    for (path, offset) in places {
        let damaged = disk.fork();
        damaged
            .flip_bit(&path, offset * 8 + rng.u64(..64 * 8))
            .unwrap();
        let alarms = verify(&damaged).alarms;
        let named = alarms.iter().any(|alarm| alarm.path == path);
        assert!(named, "{path} at {offset}: {alarms:?}");
    }
}

#[test]
fn a_flip_in_one_copy_of_the_journal_costs_nothing() {
    let disk = written();
    let promises = inspect(&disk).promises().clone();
    assert_eq!(promises[&GROUP].hard.term.0, 2);
    let bytes = disk.contents("journal/0000-a").unwrap();
    let mut reported = 0;
    for (at, byte) in bytes.iter().enumerate().step_by(7) {
        if *byte == 0 {
            continue;
        }
        let damaged = disk.fork();
        damaged.flip_bit("journal/0000-a", len(at) * 8).unwrap();
        let inspector = inspect(&damaged);
        assert_eq!(*inspector.promises(), promises, "byte {at}");
        reported += inspector.alarms().len();
    }
    assert!(reported > 0);
}

#[test]
fn a_torn_end_is_no_damage() {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    node.append(GROUP, 1, 3);
    node.settle();
    drop(node);
    let ends = written_ends(&disk);
    let (path, end) = ends.first_key_value().unwrap();
    disk.corrupt(path, end - 8, &[0xff; 8]).unwrap();
    let report = verify(&disk);
    assert_eq!(report.alarms, []);
    let torn = report.torn.unwrap();
    assert_eq!((&torn.path, torn.index), (path, LogIndex(3)));
    assert!(torn.offset < *end);
}

#[test]
fn a_directory_without_a_good_identity_is_refused() {
    let disk = written();
    let refused = |disk: &MemoryDisk| Inspector::open(MemoryStorage::new(disk)).err().unwrap();
    let damaged = disk.fork();
    damaged.flip_bit("identity", 8 * 20).unwrap();
    assert!(matches!(refused(&damaged), OpenError::BadIdentity));
    assert!(matches!(
        refused(&MemoryDisk::new()),
        OpenError::NotFormatted
    ));
}

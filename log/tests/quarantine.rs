//! Damage to what was durable: the rest is served, the damage is not, and the log is mended by
//! cutting at the first hole and appending what the leader has.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use common::{GROUP, Node, Recover, format, open_disk, small_files};
use highwater_log::format::journal::QuarantineRecord;
use highwater_log::storage::{Keep, MemoryDisk, MemoryStorage, PendingKind};
use highwater_log::{
    CutError, EntryId, Inspector, Item, LogIndex, Place, ReadError, Recovered, Term,
};

fn id(index: u64, term: u32) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// Ten entries in one file, all known to be durable.
fn ten_entries() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    for _ in 0..10 {
        node.append(GROUP, 1, 1);
        node.settle();
    }
    node.idle();
    disk
}

/// Twenty entries in several files, sealed but for the last.
fn sealed_files() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create_with(GROUP, small_files());
    for _ in 0..20 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    disk
}

/// Flips a bit in the body of an entry, wherever it lies.
fn damage(disk: &MemoryDisk, index: u64) {
    let mut place = None;
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut find = |at: Place<'_>, item: Item<'_>| {
        if let Item::Entry { header, .. } = item
            && header.index == LogIndex(index)
        {
            place = Some((at.path.to_owned(), at.offset + 70));
        }
    };
    inspector.walk(GROUP, &mut find).unwrap();
    let (path, offset) = place.unwrap();
    disk.flip_bit(&path, offset * 8).unwrap();
}

/// The first hole, all holes, and whether they reach the end.
type Holes = (u64, Vec<(u64, u64)>, bool);

fn holes(recovered: &Recovered) -> Option<Holes> {
    let quarantine = recovered.group(GROUP).quarantine.as_ref()?;
    let holes = quarantine.holes.iter();
    let holes = holes.map(|(first, last)| (first.0, last.0)).collect();
    Some((quarantine.first.0, holes, quarantine.reaches_end))
}

fn files(disk: &MemoryDisk) -> usize {
    let files = disk.files();
    files
        .iter()
        .filter(|path| path.starts_with("groups/"))
        .count()
}

fn read_around_the_hole(node: &mut Node, hole: u64, last: u64) {
    for index in 1..=last {
        let read = node.read(GROUP, index, 1);
        if index == hole {
            assert!(
                matches!(read, Err(ReadError::Quarantined { .. })),
                "{read:?}"
            );
        } else {
            common::check_body(&read.unwrap()[0]);
        }
    }
}

/// Four entries that fill a file, and of the next file's first write its `begin` and nothing else.
fn begun_file_without_entries() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create_with(GROUP, small_files());
    for _ in 0..4 {
        node.append_sized(GROUP, 1, 15_000);
        node.settle();
    }
    node.append_sized(GROUP, 1, 15_000);
    let first_write = |kind| matches!(kind, PendingKind::Write { offset: 4_096, .. });
    for _ in 0..100 {
        node.store.flush(node.now);
        if disk.pending().iter().any(|change| first_write(change.kind)) {
            break;
        }
        node.turn();
    }
    drop(node);
    disk.power_cut(|_| Keep::Units {
        unit: 512,
        kept: vec![true],
    });
    disk
}

/// Found by the crash images: the log ended before the hole then, as if nobody knew of the entry,
/// and its replica would have voted with less than it had acknowledged.
#[test]
fn a_hole_before_a_file_without_entries_does_not_shorten_the_log() {
    let disk = begun_file_without_entries();
    damage(&disk, 4);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((4, vec![(4, 4)], false)));
    assert_eq!(recovered.group(GROUP).last, id(4, 1));
    read_around_the_hole(&mut node, 4, 4);
    node.append(GROUP, 1, 2);
    node.settle();
    drop(node);
    let (mut node, again) = open_disk(&disk);
    assert_eq!(holes(&again), Some((4, vec![(4, 4)], false)));
    assert_eq!(again.group(GROUP).last, id(6, 1));
    read_around_the_hole(&mut node, 4, 6);
}

#[test]
fn a_hole_before_a_verified_tail_stays_a_hole() {
    let disk = ten_entries();
    damage(&disk, 4);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((4, vec![(4, 4)], false)));
    assert_eq!(recovered.group(GROUP).last, id(10, 1));
    let replayed = &recovered.group(GROUP).replay;
    assert_eq!(replayed.len(), 9, "all but the hole");
    read_around_the_hole(&mut node, 4, 10);
    // The log goes on behind it, and the hole is there at the next start.
    node.append(GROUP, 1, 3);
    node.idle();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((4, vec![(4, 4)], false)));
    assert_eq!(recovered.group(GROUP).last, id(13, 1));
    read_around_the_hole(&mut node, 4, 13);
}

#[test]
fn a_conflicting_append_may_replace_a_hole_above_the_commit_index() {
    let disk = ten_entries();
    damage(&disk, 4);
    let (mut node, _) = open_disk(&disk);
    node.promise(GROUP, 2);
    node.cut(GROUP, 4);
    node.append(GROUP, 2, 2);
    node.store.end_quarantine(GROUP).unwrap();
    node.settle();
    assert_eq!(node.read_all(GROUP).len(), 5);
    drop(node);
    let (_, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), None);
    assert_eq!(recovered.group(GROUP).last, id(5, 2));
    assert_eq!(recovered.alarms, []);
}

#[test]
fn a_hole_that_reaches_the_end_is_mended_by_ordinary_appends() {
    let disk = ten_entries();
    damage(&disk, 9);
    damage(&disk, 10);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered).unwrap().0, 9);
    assert!(holes(&recovered).unwrap().2);
    assert_eq!(recovered.group(GROUP).last, id(8, 1));
    // The leader sends the rest again; until the replica has rejoined it stays quarantined.
    node.append(GROUP, 1, 4);
    node.settle();
    let before = files(&disk);
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((9, vec![], true)));
    assert_eq!(recovered.group(GROUP).last, id(12, 1));
    assert_eq!(node.read_all(GROUP).len(), 12);
    node.store.end_quarantine(GROUP).unwrap();
    node.settle();
    assert!(files(&disk) <= before);
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), None);
    assert_eq!(recovered.alarms, []);
    assert_eq!(node.read_all(GROUP).len(), 12);
}

#[test]
fn nothing_of_a_quarantined_end_is_forgotten_by_restarting() {
    let disk = ten_entries();
    damage(&disk, 10);
    for _ in 0..3 {
        let (_, recovered) = open_disk(&disk);
        assert_eq!(holes(&recovered), Some((10, vec![], true)));
        assert_eq!(recovered.group(GROUP).last, id(9, 1));
    }
    // Even if the damage is gone: the journal remembers.
    damage(&disk, 10);
    let (_, recovered) = open_disk(&disk);
    assert!(holes(&recovered).unwrap().2);
}

#[test]
fn a_whole_group_is_mended_by_a_base() {
    let disk = ten_entries();
    let path = "groups/7/0000000001.log";
    disk.flip_bit(path, 8 * 100).unwrap();
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((1, vec![], true)));
    assert_eq!(recovered.group(GROUP).last, EntryId::ZERO);
    node.append(GROUP, 1, 10);
    node.settle();
    assert!(
        disk.files().contains(&path.to_owned()),
        "kept until it has rejoined"
    );
    node.store.end_quarantine(GROUP).unwrap();
    node.settle();
    assert!(!disk.files().contains(&path.to_owned()));
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), None);
    assert_eq!(node.read_all(GROUP).len(), 10);
}

#[test]
fn a_sealed_file_that_rots_is_noticed_at_the_first_read() {
    let disk = sealed_files();
    damage(&disk, 3);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(
        holes(&recovered),
        None,
        "sealed files are not read at start"
    );
    assert_eq!(node.store.quarantined(), 0);
    assert!(matches!(
        node.read(GROUP, 3, 1),
        Err(ReadError::Damaged { .. })
    ));
    assert_eq!(node.store.quarantined(), 1);
    let alarm = &node.alarms()[0];
    assert!(alarm.starts_with("groups/7/0000000001.log at "), "{alarm}");
    read_around_the_hole(&mut node, 3, 20);
    assert!(matches!(
        node.store
            .cut(GROUP, highwater_log::WriteId(1_000), LogIndex(3)),
        Err(CutError::Committed { .. })
    ));
    // What was met is remembered.
    node.idle();
    drop(node);
    let inspector = Inspector::open(MemoryStorage::new(&disk)).unwrap();
    let record = &inspector.promises()[&GROUP];
    let expected = QuarantineRecord {
        first: LogIndex(3),
        reaches_end: false,
    };
    assert_eq!(record.quarantine, Some(expected));
    let (_, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((3, vec![(3, 3)], false)));
}

#[test]
fn a_sealed_file_that_was_cut_into_is_sealed_again() {
    let disk = sealed_files();
    damage(&disk, 3);
    let (mut node, _) = open_disk(&disk);
    assert!(node.read(GROUP, 3, 1).is_err());
    node.idle();
    drop(node);
    damage(&disk, 20);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), Some((3, vec![], true)));
    assert_eq!(recovered.group(GROUP).last, id(2, 1));
    // The leader sends it all again.
    for _ in 0..20 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    node.store.end_quarantine(GROUP).unwrap();
    node.settle();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(holes(&recovered), None);
    node.commit_and_seal(GROUP);
    assert!(!node.failed, "{:?}", node.events);
    assert_eq!(node.alarms(), Vec::<String>::new());
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.alarms, []);
    assert_eq!(node.read_all(GROUP).len(), 22);
}

//! Files that nobody needs any more become new ones, and nothing of what they were is seen again
//! (P77).
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::time::Duration;

use common::{GROUP, Node, Recover, config, format, open_with, small_files};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{GroupConfig, GroupId, LogIndex, Retention, StoreConfig};

const OTHER: GroupId = GroupId(8);

fn recycling() -> StoreConfig {
    StoreConfig {
        recycle_bytes: 1 << 20,
        ..config()
    }
}

fn node_on(disk: &MemoryDisk, config: StoreConfig) -> Node {
    format(disk);
    let (mut node, _) = open_with(MemoryStorage::new(disk), config).unwrap();
    node.create_with(GROUP, small_files());
    node
}

fn fill(node: &mut Node, group: GroupId, entries: usize) {
    for _ in 0..entries {
        node.append_sized(group, 1, 10_000);
        node.settle();
    }
    node.commit_and_seal(group);
}

/// Lets go of all that may go.
fn retain_little(node: &mut Node) {
    let retention = Retention {
        bytes: Some(0),
        age_ms: None,
    };
    let start = node.store.retention_start(GROUP, &retention, 0).unwrap();
    node.store.set_log_start(GROUP, start).unwrap();
    node.settle();
}

/// A node that has let go of many files.
fn retired_on(disk: &MemoryDisk, config: StoreConfig) -> Node {
    let mut node = node_on(disk, config);
    fill(&mut node, GROUP, 60);
    retain_little(&mut node);
    node
}

fn reopened(disk: &MemoryDisk) -> Node {
    let (node, recovered) = open_with(MemoryStorage::new(disk), recycling()).unwrap();
    assert_eq!(recovered.alarms, []);
    node
}

#[test]
fn what_retention_frees_becomes_new_files() {
    let disk = MemoryDisk::new();
    let mut node = retired_on(&disk, recycling());
    assert_eq!(node.store.counters().files_unlinked, 0, "all are kept");
    fill(&mut node, GROUP, 60);
    assert!(node.store.counters().files_recycled >= 8);
    let all = node.read_all(GROUP).len();
    drop(node);
    assert_eq!(reopened(&disk).read_all(GROUP).len(), all);
    let left = disk.files();
    let spare = left.iter().find(|path| path.starts_with("prepare/"));
    assert_eq!(spare, None, "a start removes what it would not use");
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let disk = MemoryDisk::new();
    let none = StoreConfig {
        recycle_bytes: 0,
        ..config()
    };
    let mut node = retired_on(&disk, none);
    assert!(node.store.counters().files_unlinked >= 8);
    fill(&mut node, GROUP, 60);
    assert_eq!(node.store.counters().files_recycled, 0);
}

/// The files of both groups hold entries of the same indexes, terms and lengths: only the salt
/// tells what was written for whom.
#[test]
fn a_dropped_group_leaves_its_files_to_others_and_nothing_in_them() {
    let mut recycled = 0;
    for seed in 0..40 {
        let disk = MemoryDisk::new();
        let mut node = node_on(&disk, recycling());
        fill(&mut node, GROUP, 40);
        node.store.drop_group(GROUP).unwrap();
        node.settle();
        node.create_with(OTHER, small_files());
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut write = None;
        for _ in 0..rng.usize(1..30) {
            write = Some(node.append_sized(OTHER, 1, 10_000));
            if rng.bool() {
                node.turn();
            }
        }
        let persisted = write.is_some_and(|write| node.is_persisted(OTHER, write));
        let last = node.last(OTHER).index;
        recycled += node.store.counters().files_recycled;
        drop(node);
        disk.power_cut_by_chance(&mut rng);
        let mut node = reopened(&disk);
        if !node.store.groups().any(|group| group == OTHER) {
            assert!(!persisted, "seed {seed}");
            continue;
        }
        let found = node.read_all(OTHER).last().map(|entry| entry.id.index);
        let found = found.unwrap_or(LogIndex::ZERO);
        assert!(
            found <= last && (!persisted || found == last),
            "seed {seed}"
        );
        node.append_sized(OTHER, 1, 100);
        node.settle();
        node.commit_and_seal(OTHER);
        let entries = node.read_all(OTHER).len();
        drop(node);
        assert_eq!(
            reopened(&disk).read_all(OTHER).len(),
            entries,
            "seed {seed}"
        );
    }
    assert!(recycled > 20, "{recycled}");
}

#[test]
fn bytes_that_a_reader_holds_do_not_change() {
    let disk = MemoryDisk::new();
    let mapped = StoreConfig {
        map_sealed: true,
        tail_cache_bytes: 0,
        // One mapping is kept: the others are their readers' alone.
        open_files_max: 1,
        ..recycling()
    };
    let mut node = node_on(&disk, mapped);
    fill(&mut node, GROUP, 60);
    let held = node.read_all(GROUP);
    let before: Vec<Vec<u8>> = held.iter().map(|entry| entry.body.to_vec()).collect();
    retain_little(&mut node);
    fill(&mut node, GROUP, 60);
    assert!(!node.failed, "nothing was written that is mapped");
    assert_eq!(node.store.counters().files_recycled, 0);
    let after: Vec<Vec<u8>> = held.iter().map(|entry| entry.body.to_vec()).collect();
    assert_eq!(before, after);
    drop(held);
    retain_little(&mut node);
    fill(&mut node, GROUP, 60);
    assert!(node.store.counters().files_recycled > 0, "nobody reads now");
}

#[test]
fn a_read_under_way_ends_well_and_keeps_its_file() {
    for map_sealed in [false, true] {
        let disk = MemoryDisk::new();
        let config = StoreConfig {
            map_sealed,
            tail_cache_bytes: 0,
            ..recycling()
        };
        let mut node = node_on(&disk, config);
        fill(&mut node, GROUP, 40);
        let ticket = highwater_log::Ticket(1);
        let read = node.store.read(GROUP, LogIndex(1), 1, ticket).unwrap();
        assert!(matches!(read, highwater_log::Read::Pending));
        retain_little(&mut node);
        fill(&mut node, GROUP, 12);
        assert!(!node.failed && node.alarms().is_empty());
        let files = node.store.counters();
        assert!(files.files_unlinked >= 1, "the one that is being read");
    }
}

fn spares(disk: &MemoryDisk) -> usize {
    let files = disk.files();
    files.iter().filter(|path| path.ends_with(".spare")).count()
}

/// Leaves so much room.
fn leave_room(disk: &MemoryDisk, bytes: usize) {
    let len = |path: &String| disk.contents(path).unwrap().len();
    let used: usize = disk.files().iter().map(len).sum();
    disk.set_capacity((used + bytes) as u64);
}

#[test]
fn what_is_kept_is_given_up_when_the_disk_is_full() {
    let disk = MemoryDisk::new();
    let mut node = retired_on(&disk, recycling());
    assert!(spares(&disk) >= 8);
    leave_room(&disk, 32 << 10);
    // Files of 64 KiB are of no use to a group that writes so large entries.
    let large = GroupConfig {
        segment_bytes: 1 << 20,
        ..small_files()
    };
    node.create_with(OTHER, large);
    node.append_sized(OTHER, 1, 300_000);
    for _ in 0..50 {
        node.turn();
    }
    assert_eq!(spares(&disk), 0);
    node.now += Duration::from_secs(1);
    node.settle();
    assert_eq!(node.read_all(OTHER).len(), 1);
}

#[test]
fn what_is_kept_is_given_up_when_room_is_asked_for_and_is_short() {
    let disk = MemoryDisk::new();
    let mut node = retired_on(&disk, recycling());
    leave_room(&disk, 2 << 20);
    node.store.reserve(GROUP, 10_000).unwrap();
    node.settle();
    assert!(spares(&disk) >= 8, "there is room for both");
    leave_room(&disk, 256 << 10);
    node.now += Duration::from_secs(2);
    node.settle();
    node.store.reserve(GROUP, 10_000).unwrap();
    node.settle();
    assert_eq!(spares(&disk), 0);
}

#[test]
fn a_spare_that_somebody_has_removed_or_cut_is_no_failure() {
    for cut in [None, Some(512), Some(4_096), Some(70_001)] {
        let disk = MemoryDisk::new();
        let mut node = retired_on(&disk, recycling());
        let files = disk.files();
        for path in files.iter().filter(|path| path.ends_with(".spare")) {
            match cut {
                Some(len) => disk.resize_file(path, len).unwrap(),
                None => disk.remove(path).unwrap(),
            }
        }
        fill(&mut node, GROUP, 60);
        assert!(!node.failed);
        assert_eq!(node.store.counters().files_recycled, 0);
    }
}

/// Entries in front of the recovered end of a torn write are good, and what the file was before
/// is no sign that anything was torn.
#[test]
fn bytes_of_an_earlier_life_are_nothing_torn() {
    let disk = MemoryDisk::new();
    let mut node = retired_on(&disk, recycling());
    // The first file behind was made ahead.
    fill(&mut node, GROUP, 20);
    assert!(node.store.counters().files_recycled > 1);
    drop(node);
    let (_, recovered) = open_with(MemoryStorage::new(&disk), recycling()).unwrap();
    assert!(recovered.group(GROUP).torn.is_none());
}

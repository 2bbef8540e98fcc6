//! A store that nothing goes wrong with: appending, rolling, cutting, sealing, reading, restarting.

mod common;

use common::{GROUP, Node, Recover, format, open_disk, open_store_with, small_files};
use highwater_log::storage::{MemoryDisk, MemoryStorage, Op, Storage, Token};
use highwater_log::{
    Directory, EntryId, Event, Expected, GroupId, LogIndex, ReadError, Term, Ticket,
};
use highwater_record::{Budget, BufferPool, Offset};

fn new_node() -> (MemoryDisk, Node) {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, recovered) = open_disk(&disk);
    assert!(recovered.groups.is_empty());
    node.create(GROUP);
    (disk, node)
}

fn id(index: u64, term: u32) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

#[test]
fn what_is_appended_is_persisted_and_read() {
    let (_, mut node) = new_node();
    let write = node.append(GROUP, 1, 10);
    assert!(!node.is_persisted(GROUP, write));
    assert_eq!(node.read_all(GROUP).len(), 10, "before it is synced");
    node.settle();
    assert!(node.is_persisted(GROUP, write));
    assert_eq!(node.read_all(GROUP).len(), 10);
    assert_eq!(node.store.synced(GROUP).unwrap(), LogIndex(10));
    let counters = node.store.counters();
    assert_eq!((counters.writes, counters.written_entries), (1, 10));
    assert_eq!(counters.entries_per_write_max, 10);
    assert!(counters.cache_hits > 0);
    assert_eq!(counters.cache_misses, 0);
}

/// Requests and peers have taken all memory but what the cache holds: they are freed by writes alone.
#[test]
fn the_cache_gives_way_to_writes_where_memory_is_short() {
    let disk = MemoryDisk::new();
    format(&disk);
    let mut storage = MemoryStorage::new(&disk);
    let directory =
        Directory::open(&mut storage, &Expected::default(), 1, common::HALF_BYTES).unwrap();
    let pool = BufferPool::new(Budget::new(2 << 20), 4096);
    let (mut node, _) =
        open_store_with(storage, pool.clone(), common::config(), &directory, &[]).unwrap();
    node.create(GROUP);
    for _ in 0..8 {
        node.append_sized(GROUP, 1, 100_000);
        node.settle();
    }
    let mut others = Vec::new();
    while let Ok(buffer) = pool.get(64 << 10) {
        others.push(buffer);
    }
    let last = (0..8).map(|_| node.append_sized(GROUP, 1, 100_000)).last();
    node.idle();
    assert!(node.is_persisted(GROUP, last.unwrap()));
    drop(others);
    assert_eq!(node.read_all(GROUP).len(), 16);
}

/// Of two groups that are written alike the one that somebody reads stays in memory for longer.
#[test]
fn what_nobody_reads_leaves_the_cache_first() {
    let disk = MemoryDisk::new();
    format(&disk);
    let config = highwater_log::StoreConfig {
        tail_cache_bytes: 340_000,
        ..common::config()
    };
    let (mut node, _) = common::open_with(MemoryStorage::new(&disk), config).unwrap();
    let unread = GroupId(GROUP.0 + 1);
    node.create(GROUP);
    node.create(unread);
    let is_in_memory = |node: &mut Node, group, index| {
        let read = node.store.read(group, index, 1, Ticket(9)).unwrap();
        matches!(read, highwater_log::Read::Ready(_))
    };
    for _ in 0..15 {
        for group in [GROUP, unread] {
            node.append_sized(group, 1, 10_000);
            node.settle();
        }
        // As one does who follows the log.
        let last = node.store.end(GROUP).unwrap().before.index;
        assert!(is_in_memory(&mut node, GROUP, last));
    }
    assert!(is_in_memory(&mut node, GROUP, LogIndex(2)));
    assert!(!is_in_memory(&mut node, unread, LogIndex(12)));
    assert!(is_in_memory(&mut node, unread, LogIndex(15)));
}

#[test]
fn a_restart_finds_everything() {
    let (disk, mut node) = new_node();
    node.append(GROUP, 1, 5);
    node.promise(GROUP, 3);
    node.append(GROUP, 3, 5);
    node.settle();
    let end = node.store.end(GROUP).unwrap();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    let group = recovered.group(GROUP);
    assert_eq!(recovered.alarms, []);
    assert_eq!(group.last, id(10, 3));
    assert_eq!(group.end_offset, Offset(100));
    assert_eq!(group.hard_state.term, Term(3));
    assert_eq!(group.epochs.len(), 2);
    assert_eq!(group.replay.len(), 10);
    assert_eq!(group.quarantine, None);
    assert_eq!(node.store.end(GROUP).unwrap(), end);
    assert_eq!(node.read_all(GROUP).len(), 10);
    node.append(GROUP, 3, 5);
    node.settle();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.group(GROUP).last, id(15, 3));
    assert_eq!(node.read_all(GROUP).len(), 15);
}

#[test]
fn files_roll_when_they_are_full_and_grow() {
    let (disk, mut node) = new_node();
    for _ in 0..40 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    assert!(node.store.counters().files_begun >= 2);
    assert_eq!(node.read_all(GROUP).len(), 40);
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.group(GROUP).last, id(40, 1));
    assert_eq!(node.read_all(GROUP).len(), 40);
}

/// How long the longest file becomes while a megabyte is appended, on a disk of this size.
fn longest_file(capacity: u64) -> usize {
    let (disk, mut node) = new_node();
    disk.set_capacity(capacity);
    let reserved = node.store.reserve(GROUP, 1);
    reserved.expect("nothing is known of the disk yet");
    node.settle();
    for _ in 0..50 {
        node.append_sized(GROUP, 1, 20_000);
        node.settle();
    }
    assert_eq!(node.read_all(GROUP).len(), 50);
    let groups = disk.files().into_iter().filter(|it| it.contains("groups/"));
    let lengths = groups.map(|path| disk.contents(&path).expect("it was listed").len());
    lengths.max().expect("the group has files")
}

#[test]
fn files_take_no_more_than_their_share_of_the_room() {
    assert!(longest_file(u64::MAX) > 4 << 20);
    assert!(longest_file(8 << 20) <= 2 << 20);
}

#[test]
fn an_entry_larger_than_a_file_gets_a_file_that_holds_it() {
    let (disk, mut node) = new_node();
    node.append_sized(GROUP, 1, 100);
    node.append_sized(GROUP, 1, 9 << 20);
    node.append_sized(GROUP, 1, 100);
    node.settle();
    drop(node);
    let (mut node, _) = open_disk(&disk);
    assert_eq!(node.read_all(GROUP).len(), 3);
}

#[test]
fn a_cut_replaces_the_tail() {
    let (disk, mut node) = new_node();
    node.append(GROUP, 1, 10);
    node.settle();
    node.promise(GROUP, 2);
    let cut = node.cut(GROUP, 6);
    node.append(GROUP, 2, 2);
    node.settle();
    assert!(node.is_persisted(GROUP, cut));
    assert_eq!(node.last(GROUP), id(7, 2));
    assert_eq!(node.read_all(GROUP)[5].id, id(6, 2));
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.alarms, []);
    assert_eq!(recovered.group(GROUP).last, id(7, 2));
    assert_eq!(node.read_all(GROUP).len(), 7);
    assert_eq!(recovered.group(GROUP).end_offset, Offset(70));
}

#[test]
fn a_cut_that_keeps_nothing_is_a_base_of_the_same_position() {
    let (disk, mut node) = new_node();
    node.append(GROUP, 1, 3);
    node.settle();
    node.promise(GROUP, 2);
    node.cut(GROUP, 1);
    node.settle();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.group(GROUP).last, id(0, 0));
    node.append(GROUP, 2, 1);
    node.settle();
    drop(node);
    let (_, recovered) = open_disk(&disk);
    assert_eq!(recovered.group(GROUP).last, id(1, 2));
}

#[test]
fn a_cut_of_what_was_never_written_needs_no_file() {
    let (_, mut node) = new_node();
    node.append(GROUP, 1, 3);
    node.settle();
    let files = node.store.counters().files_begun;
    node.append(GROUP, 1, 3);
    let cut = node.cut(GROUP, 4);
    node.append(GROUP, 1, 1);
    node.settle();
    assert!(node.is_persisted(GROUP, cut));
    assert_eq!(node.store.counters().files_begun, files);
    assert_eq!(node.read_all(GROUP).len(), 4);
}

#[test]
fn sealed_files_are_read_and_survive_a_restart() {
    let (disk, mut node) = new_node();
    for _ in 0..60 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    assert!(node.store.counters().files_sealed >= 1);
    assert_eq!(node.read_all(GROUP).len(), 60);
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    let group = recovered.group(GROUP);
    assert_eq!(recovered.alarms, []);
    assert_eq!(group.last, id(60, 1));
    let snapshot = group.snapshot.as_ref().unwrap();
    assert_eq!(&snapshot.state[..], b"state at 60");
    assert_eq!(group.replay.len(), 0, "the snapshot includes everything");
    assert_eq!(node.read_all(GROUP).len(), 60);
    assert!(node.store.counters().direct_bytes > 0);
    assert!(node.store.counters().cache_misses > 0);
}

#[test]
fn sealed_files_are_read_from_mappings_if_asked_for() {
    let (disk, mut node) = new_node();
    for _ in 0..60 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    drop(node);
    let storage = highwater_log::storage::MemoryStorage::new(&disk);
    let config = highwater_log::StoreConfig {
        map_sealed: true,
        ..common::config()
    };
    let (mut node, _) = common::open_with(storage, config).unwrap();
    assert_eq!(node.read_all(GROUP).len(), 60);
    assert!(node.store.counters().mapped_bytes > 0);
}

#[test]
fn an_index_has_its_offset_in_memory_and_the_nearest_points_behind_it() {
    let (disk, mut node) = new_node();
    for _ in 0..60 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    let exact: Vec<Offset> = (node.read_all(GROUP).iter())
        .map(|entry| entry.base_offset)
        .collect();
    let end = node.store.end(GROUP).unwrap().offset;
    let at = |node: &common::Node, index| node.store.offset_of_index(GROUP, index).unwrap();
    assert_eq!(at(&node, LogIndex(60)), exact[59], "in the tail cache");
    assert_eq!(at(&node, LogIndex(61)), end, "behind the log");
    node.commit_and_seal(GROUP);
    drop(node);
    let (node, _) = open_disk(&disk);
    for (index, exact) in (1..).map(LogIndex).zip(exact) {
        let told = at(&node, index);
        let below = told.distance_to(exact);
        let is_near = below.is_some_and(|below| below <= 20);
        assert!(is_near, "{index:?}: {told:?} for {exact:?}");
    }
}

#[test]
fn retention_lets_go_of_the_oldest_files() {
    let (disk, mut node) = new_node();
    node.store.configure_group(GROUP, small_files()).unwrap();
    for _ in 0..60 {
        node.append_sized(GROUP, 1, 10_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    let retention = highwater_log::Retention {
        bytes: Some(200 << 10),
        age_ms: None,
    };
    let start = node.store.retention_start(GROUP, &retention, 0).unwrap();
    let first = node.store.set_log_start(GROUP, start).unwrap();
    assert!(first > LogIndex(1));
    node.settle();
    let files = disk.files();
    assert!(!files.contains(&"groups/7/0000000001.log".to_owned()));
    assert!(files.contains(&"prepare/7-0000000001.spare".to_owned()));
    assert!(matches!(
        node.read(GROUP, 1, 1),
        Err(ReadError::BelowStart { .. })
    ));
    let kept = node.read_all(GROUP).len();
    drop(node);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.alarms, []);
    assert_eq!(recovered.group(GROUP).start.first(), first);
    assert_eq!(node.read_all(GROUP).len(), kept);
}

#[test]
fn lookups_by_time_offset_and_epoch() {
    let (disk, mut node) = new_node();
    for index in 0..60 {
        if index == 30 {
            node.promise(GROUP, 2);
        }
        node.append_sized(GROUP, if index < 30 { 1 } else { 2 }, 10_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    drop(node);
    let (mut node, _) = open_disk(&disk);
    for index in [1i64, 2, 17, 45, 60] {
        let found = node
            .store
            .offset_for_timestamp(GROUP, index * 1_000 - 5, Ticket(1))
            .unwrap();
        assert_eq!(found, highwater_log::Lookup::Pending);
        node.settle();
        let event = node.events.pop().unwrap();
        let Event::TimestampDone { result, .. } = event else {
            panic!("{event:?}");
        };
        let found = result.unwrap().unwrap();
        assert_eq!(found.timestamp, index * 1_000);
        assert_eq!(found.offset, Offset(u64::try_from(index - 1).unwrap() * 10));
    }
    for offset in [0, 9, 10, 455, 599] {
        let index = node.store.index_of_offset(GROUP, Offset(offset)).unwrap();
        assert!(index.0 <= offset / 10 + 1);
    }
    assert_eq!(
        node.store.epoch_end(GROUP, Term(1)).unwrap(),
        Some((Term(1), Offset(300)))
    );
    assert_eq!(
        node.store.term_at(GROUP, LogIndex(30)).unwrap(),
        Some(Term(1))
    );
    assert_eq!(
        node.store.term_at(GROUP, LogIndex(31)).unwrap(),
        Some(Term(2))
    );
}

#[test]
fn a_dropped_group_leaves_nothing() {
    let (disk, mut node) = new_node();
    node.append(GROUP, 1, 10);
    node.settle();
    node.store.drop_group(GROUP).unwrap();
    node.settle();
    assert!(
        disk.files()
            .iter()
            .all(|path| !path.starts_with("groups/7"))
    );
    drop(node);
    let (_, recovered) = open_disk(&disk);
    assert!(recovered.groups.is_empty());
}

#[test]
fn a_group_that_is_dropped_while_a_cut_waits_leaves_nothing() {
    let (disk, mut node) = new_node();
    node.append(GROUP, 1, 10);
    node.settle();
    // No entry stays: so the cut hides the whole file, once it is written.
    node.promise(GROUP, 2);
    node.cut(GROUP, 1);
    node.store.drop_group(GROUP).unwrap();
    node.settle();
    assert!(!node.failed, "{:?}", node.events);
    let files = disk.files();
    let left: Vec<_> = files
        .iter()
        .filter(|it| it.starts_with("groups/7"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    node.create(GroupId(9));
    node.settle();
    assert!(!node.failed, "others go on");
}

#[test]
fn a_dropped_group_without_files_leaves_no_directory() {
    let (disk, node) = new_node();
    drop(node);
    // A crash has left the group's directory, and not its first file.
    let mut storage = MemoryStorage::new(&disk);
    let path = "groups/7".to_owned();
    storage.submit(Token(0), Op::MakeDir { path });
    let path = "groups".to_owned();
    storage.submit(Token(1), Op::SyncDir { path });
    storage.flush();
    drop(storage);
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.groups.len(), 1);
    node.store.drop_group(GROUP).unwrap();
    node.settle();
    // Until the journal has gone on in its other half, without what is gone.
    for group in 100..200 {
        node.create(GroupId(group));
        node.settle();
    }
    drop(node);
    let (_, recovered) = open_disk(&disk);
    let found = recovered.groups.iter().find(|it| it.group == GROUP);
    assert!(found.is_none(), "{found:?}");
    // One that never had a directory.
    let (mut node, _) = open_disk(&disk);
    node.store.drop_group(GroupId(150)).unwrap();
    node.settle();
    assert!(!node.failed, "{:?}", node.events);
}

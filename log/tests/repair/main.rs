//! Holes are filled with what other replicas have: to the last bit, or not at all. Here those of single
//! entries; `begin`s, whole files, the scrubber and stopped directories in their modules.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../common/mod.rs"]
mod common;

mod begins;
mod directories;
mod scrub;
mod whole_files;

use std::time::Duration;

use common::{GROUP, Node, Recover, format, open_disk, open_with, small_files};
use highwater_log::storage::{CrashImages, Granularity, MemoryDisk, MemoryStorage, Storage};
use highwater_log::{
    Base, Chain, Entry, EntryId, Epoch, Event, FillError, Inspector, Item, LogIndex, Place,
    Position, ReadError, Recovered, StoreConfig, Term,
};
use highwater_record::{Buffer, Offset, crc32c};

/// How many images of a crash are tried at a step.
const IMAGES_MAX: u128 = 40;

/// Twenty entries of two terms in one file that was never sealed, all known to be durable.
fn one_file() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    for term in [1, 2] {
        node.promise(GROUP, term);
        for _ in 0..10 {
            node.append(GROUP, term, 1);
            node.settle();
        }
    }
    node.idle();
    disk
}

/// Forty entries in several files, sealed but for the last, which is as long as the entries are.
fn sealed_files() -> MemoryDisk {
    files_of(20, 7_000)
}

/// So many entries of each of two terms, with bodies of so many bytes, in several files as above.
fn files_of(entries: u64, bytes: usize) -> MemoryDisk {
    files_with(entries, |_| bytes)
}

/// As above, with a body of so many bytes for each entry, by its index.
fn files_with(entries: u64, bytes: impl Fn(u64) -> usize) -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create_with(GROUP, small_files());
    for term in [1, 2] {
        node.promise(GROUP, term);
        for _ in 0..entries {
            let next = node.last(GROUP).index.next().0;
            node.append_sized(GROUP, term, bytes(next));
            node.settle();
        }
    }
    node.commit_and_seal(GROUP);
    node.idle();
    disk
}

/// A log that a base of term 1 has replaced, and then twenty entries in several files, sealed but
/// for the last.
fn based_files() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create_with(GROUP, small_files());
    let before = EntryId {
        index: LogIndex(50),
        term: Term(1),
    };
    let start = Position {
        before,
        chain: Chain(50),
        offset: Offset(500),
    };
    let base = Base {
        start,
        log_start_offset: start.offset,
        epochs: vec![Epoch {
            term: Term(1),
            first_index: LogIndex(1),
            first_offset: Offset(0),
        }],
        state: Buffer::from(b"the state of a group at its entry 50".to_vec()),
    };
    node.base(GROUP, base);
    for _ in 0..20 {
        node.append_sized(GROUP, 1, 7_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    node.idle();
    disk
}

/// Where an entry's frame starts.
fn place_of(disk: &MemoryDisk, index: u64) -> (String, u64) {
    let mut place = None;
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut find = |at: Place<'_>, item: Item<'_>| {
        if let Item::Entry { header, .. } = item
            && header.index == LogIndex(index)
        {
            place = Some((at.path.to_owned(), at.offset));
        }
    };
    inspector.walk(GROUP, &mut find).unwrap();
    place.unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rot {
    Header,
    Body,
}

fn rot(disk: &MemoryDisk, index: u64, what: Rot) {
    let (path, offset) = place_of(disk, index);
    let at = match what {
        Rot::Header => offset + 30,
        Rot::Body => offset + 70,
    };
    disk.flip_bit(&path, at * 8).unwrap();
}

/// Hands the node what it wants, as another replica has it.
fn repair<S: Storage>(node: &mut Node<S>, healthy: &MemoryDisk) -> Vec<FillError> {
    repair_with(node, healthy, |_| {})
}

fn repair_with<S: Storage>(
    node: &mut Node<S>,
    healthy: &MemoryDisk,
    spoil: impl Fn(&mut Vec<Entry>),
) -> Vec<FillError> {
    let mut donor = None;
    let mut errors = Vec::new();
    for _ in 0..1_000 {
        node.settle();
        let Some(from) = take_wanted(node) else { break };
        let donor = donor.get_or_insert_with(|| open_disk(healthy).0);
        let mut entries = donor.read(GROUP, from.0, 20_000).unwrap();
        spoil(&mut entries);
        errors.extend(node.store.supply(GROUP, &entries).err());
    }
    errors
}

/// From where on entries are wanted, if any are.
fn take_wanted<S: Storage>(node: &mut Node<S>) -> Option<LogIndex> {
    let wanted = |event: &Event| match event {
        Event::EntriesWanted { from, .. } => Some(*from),
        _ => None,
    };
    let from = node.events.iter().rev().find_map(wanted);
    node.events.retain(|event| wanted(event).is_none());
    from
}

fn holes(recovered: &Recovered) -> Vec<(u64, u64)> {
    let quarantine = recovered.group(GROUP).quarantine.as_ref();
    let holes = quarantine
        .map(|found| found.holes.clone())
        .unwrap_or_default();
    holes
        .iter()
        .map(|(first, last)| (first.0, last.0))
        .collect()
}

/// Everything is there and good, now and at the next start, and nothing is left over.
fn is_whole(disk: &MemoryDisk, healthy: &MemoryDisk, context: &str) {
    let (mut node, recovered) = open_disk(disk);
    assert_eq!(recovered.alarms, [], "{context}");
    assert_eq!(recovered.group(GROUP).quarantine, None, "{context}");
    let (mut donor, expected) = open_disk(healthy);
    assert_eq!(node.read_all(GROUP), donor.read_all(GROUP), "{context}");
    let epochs = |recovered: &Recovered| recovered.group(GROUP).epochs.clone();
    assert_eq!(epochs(&recovered), epochs(&expected), "{context}");
    drop(node);
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    assert_eq!(inspector.verify(GROUP).unwrap().alarms, [], "{context}");
    let left = disk
        .files()
        .into_iter()
        .find(|path| path.starts_with("prepare/"));
    assert_eq!(left, None, "{context}");
}

/// The files of the group that hold neither its first entry nor its last.
fn inner_paths(disk: &MemoryDisk) -> Vec<String> {
    let last = open_disk(&disk.fork()).1.group(GROUP).last.index.0;
    let (lowest, highest) = (place_of(disk, 1).0, place_of(disk, last).0);
    let mut paths = disk.files();
    paths.retain(|path| (&lowest..&highest).contains(&path) && *path > lowest);
    paths.sort_unstable();
    paths
}

/// The files that have footers.
fn sealed_paths(disk: &MemoryDisk) -> Vec<String> {
    let mut paths = Vec::new();
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut find = |at: Place<'_>, item: Item<'_>| {
        if let Item::Footer(_) = item {
            paths.push(at.path.to_owned());
        }
    };
    inspector.walk(GROUP, &mut find).unwrap();
    paths
}

#[test]
fn holes_found_at_a_start_are_filled() {
    for what in [Rot::Header, Rot::Body] {
        let healthy = one_file();
        for rotten in [&[1][..], &[7], &[10, 11, 12], &[3, 9, 10, 19]] {
            let context = format!("{what:?} of {rotten:?}");
            let disk = healthy.fork();
            rotten.iter().for_each(|&index| rot(&disk, index, what));
            let (mut node, recovered) = open_disk(&disk);
            assert!(!holes(&recovered).is_empty(), "{context}");
            assert_eq!(repair(&mut node, &healthy), [], "{context}");
            let counters = *node.store.counters();
            let count = rotten.len() as u64;
            assert_eq!(
                (counters.repaired_files, counters.repaired_entries),
                (1, count)
            );
            assert_eq!(node.store.quarantined(), 0, "{context}");
            assert_eq!(node.read_all(GROUP).len(), 20, "{context}");
            let (donor, _) = open_disk(&healthy);
            let epochs = donor.store.epochs(GROUP).unwrap().to_vec();
            assert_eq!(node.store.epochs(GROUP).unwrap(), epochs, "{context}");
            drop(node);
            is_whole(&disk, &healthy, &context);
        }
    }
}

#[test]
fn holes_of_sealed_files_are_filled_and_their_footers_made_anew() {
    for what in [Rot::Header, Rot::Body] {
        for map_sealed in [false, true] {
            let healthy = sealed_files();
            let disk = healthy.fork();
            for index in [2, 20, 21, 22, 30] {
                rot(&disk, index, what);
            }
            let config = StoreConfig {
                map_sealed,
                tail_cache_bytes: 0,
                ..common::config()
            };
            let (mut node, _) = open_with(MemoryStorage::new(&disk), config).unwrap();
            for index in 1..=40 {
                match node.read(GROUP, index, 1) {
                    Ok(entries) => common::check_body(&entries[0]),
                    Err(ReadError::Damaged { .. } | ReadError::Quarantined { .. }) => {}
                    Err(other) => panic!("{index}: {other}"),
                }
            }
            assert_eq!(node.store.quarantined(), 1);
            assert_eq!(repair(&mut node, &healthy), []);
            assert_eq!(node.store.counters().repaired_entries, 5);
            assert_eq!(node.store.quarantined(), 0);
            assert_eq!(node.read_all(GROUP).len(), 40);
            drop(node);
            is_whole(&disk, &healthy, &format!("{what:?}, mapped {map_sealed}"));
        }
    }
}

#[test]
fn the_file_that_is_written_is_left_and_then_repaired() {
    let disk = MemoryDisk::new();
    format(&disk);
    let config = StoreConfig {
        tail_cache_bytes: 0,
        ..common::config()
    };
    let (mut node, _) = open_with(MemoryStorage::new(&disk), config).unwrap();
    node.create(GROUP);
    for _ in 0..10 {
        node.append(GROUP, 1, 1);
        node.settle();
    }
    let healthy = disk.fork();
    rot(&disk, 4, Rot::Body);
    assert!(node.read(GROUP, 4, 1).is_err());
    node.settle();
    assert_eq!(take_wanted(&mut node), None, "it is being written");
    node.append(GROUP, 1, 1);
    node.settle();
    node.now += Duration::from_secs(10);
    assert_eq!(repair(&mut node, &healthy), []);
    assert_eq!(node.read_all(GROUP).len(), 11);
    assert_eq!(node.store.quarantined(), 0);
}

#[test]
fn what_does_not_lead_to_the_entry_behind_the_hole_is_refused() {
    let healthy = one_file();
    let other_body = |entries: &mut Vec<Entry>| {
        // A replica with another history, consistent in itself.
        let entry = &mut entries[0];
        let mut body = entry.body.to_vec();
        body[90] ^= 1;
        entry.body_crc = crc32c(&body);
        entry.body = Buffer::from(body);
    };
    let other_bytes = |entries: &mut Vec<Entry>| {
        let mut body = entries[0].body.to_vec();
        body[90] ^= 1;
        entries[0].body = Buffer::from(body);
    };
    let other_chain = |entries: &mut Vec<Entry>| entries[0].chain = Chain(1);
    type Spoil<'a> = &'a dyn Fn(&mut Vec<Entry>);
    let spoils: [Spoil<'_>; 3] = [&other_body, &other_bytes, &other_chain];
    for spoil in spoils {
        let disk = healthy.fork();
        rot(&disk, 7, Rot::Header);
        let before = disk.contents("groups/7/0000000001.log").unwrap();
        let (mut node, _) = open_disk(&disk);
        let errors = repair_with(&mut node, &healthy, spoil);
        assert!(
            matches!(errors[..], [FillError::Foreign { .. }]),
            "{errors:?}"
        );
        assert_eq!(disk.contents("groups/7/0000000001.log").unwrap(), before);
        assert!(matches!(
            node.read(GROUP, 7, 1),
            Err(ReadError::Quarantined { .. })
        ));
        // Later somebody else is asked.
        node.now += Duration::from_secs(10);
        assert_eq!(repair(&mut node, &healthy), []);
        drop(node);
        is_whole(&disk, &healthy, "after a lie");
    }
}

#[test]
fn what_nobody_supplies_is_asked_for_again_and_again() {
    let healthy = one_file();
    let disk = healthy.fork();
    rot(&disk, 7, Rot::Body);
    let (mut node, _) = open_disk(&disk);
    for _ in 0..40 {
        node.settle();
        node.now += Duration::from_secs(1);
    }
    let wanted = node.events.iter();
    let wanted = wanted.filter(|event| matches!(event, Event::EntriesWanted { .. }));
    assert!(wanted.count() > 10);
    assert!(node.store.counters().repairs_given_up > 1);
    node.now += Duration::from_secs(10);
    assert_eq!(repair(&mut node, &healthy), []);
    drop(node);
    is_whole(&disk, &healthy, "at last");
}

/// At each step of a repair the node crashes, in many ways: the hole is there or filled, and it
/// can be filled after that.
fn crash_amid(healthy: &MemoryDisk, damage: &dyn Fn(&MemoryDisk), find: u64) -> usize {
    let disk = healthy.fork();
    damage(&disk);
    let found = holes(&open_disk(&disk.fork()).1);
    let lacks = found.iter().map(|(first, last)| last + 1 - first);
    let lacks = lacks.sum::<u64>().max(1);
    let (mut donor, _) = open_disk(&healthy.fork());
    let (mut node, _) = open_disk(&disk);
    let mut opened = 0;
    let _ = node
        .store
        .read(GROUP, LogIndex(find), 1, highwater_log::Ticket(9));
    for step in 0..10_000 {
        node.store.flush(node.now);
        let images = CrashImages::new(&disk, Granularity::Subsets { unit: 4096 });
        let count = images.count().unwrap_or(u128::MAX).min(IMAGES_MAX);
        for number in 0..count {
            let image = images.image(number);
            comes_up_again(
                &image,
                healthy,
                (find, lacks),
                &format!("step {step}, image {number}"),
            );
            opened += 1;
        }
        node.turn();
        if let Some(from) = take_wanted(&mut node) {
            let entries = donor.read(GROUP, from.0, 1).unwrap();
            node.store.supply(GROUP, &entries).unwrap();
        }
        if !node.store.is_busy() && node.store.counters().repaired_files > 0 {
            return opened;
        }
    }
    panic!("the repair does not end");
}

fn comes_up_again(
    image: &MemoryDisk,
    healthy: &MemoryDisk,
    (find, lacks): (u64, u64),
    context: &str,
) {
    let (mut node, recovered) = open_disk(image);
    assert!(
        !recovered
            .group(GROUP)
            .quarantine
            .as_ref()
            .is_some_and(|it| it.reaches_end)
    );
    let last = node.last(GROUP).index.0;
    let served = node.serve(GROUP);
    assert!(
        served + lacks >= last,
        "{context}: {served} of {last} were served"
    );
    let _ = node.read(GROUP, find, 1);
    assert_eq!(repair(&mut node, healthy), [], "{context}");
    drop(node);
    is_whole(image, healthy, context);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_file_or_the_new_one() {
    let opened = crash_amid(&one_file(), &|disk| rot(disk, 10, Rot::Header), 10);
    assert!(opened > 50, "{opened} images");
    let opened = crash_amid(&sealed_files(), &|disk| rot(disk, 12, Rot::Body), 12);
    assert!(opened > 50, "{opened} images");
}

#[test]
fn a_group_may_go_at_any_step_of_its_repair() {
    let healthy = sealed_files();
    for steps in 0..60 {
        let disk = healthy.fork();
        rot(&disk, 12, Rot::Body);
        let (mut node, _) = open_disk(&disk);
        let (mut donor, _) = open_disk(&healthy.fork());
        let _ = node
            .store
            .read(GROUP, LogIndex(12), 1, highwater_log::Ticket(9));
        for _ in 0..steps {
            node.turn();
            if let Some(from) = take_wanted(&mut node) {
                let entries = donor.read(GROUP, from.0, 1).unwrap();
                node.store.supply(GROUP, &entries).unwrap();
            }
        }
        node.store.drop_group(GROUP).unwrap();
        node.settle();
        node.now += Duration::from_secs(20);
        node.settle();
        assert!(!node.failed, "after {steps} steps: {:?}", node.events);
        let files = disk.files();
        let left = files.iter().find(|it| {
            it.starts_with("groups/") || it.ends_with(".log") || it.ends_with(".repair")
        });
        assert_eq!(left, None, "after {steps} steps");
    }
}

/// What the file held behind the cut stays hidden, though its copy has it.
#[test]
fn a_log_may_be_cut_at_any_step_of_a_repair() {
    let mut mended_after = 0;
    for steps in 0..60 {
        let context = format!("after {steps} steps");
        let healthy = one_file();
        let disk = healthy.fork();
        rot(&disk, 7, Rot::Body);
        let (mut node, _) = open_disk(&disk);
        let (mut donor, _) = open_disk(&healthy.fork());
        for _ in 0..steps {
            node.turn();
            if let Some(from) = take_wanted(&mut node) {
                let entries = donor.read(GROUP, from.0, 1).unwrap();
                node.store.supply(GROUP, &entries).unwrap();
            }
        }
        mended_after += u64::from(node.store.quarantined() == 1);
        node.cut(GROUP, 15);
        node.promise(GROUP, 3);
        node.append(GROUP, 3, 3);
        assert_eq!(repair(&mut node, &healthy), [], "{context}");
        node.now += Duration::from_secs(10);
        assert_eq!(repair(&mut node, &healthy), [], "{context}");
        assert_eq!(node.store.quarantined(), 0, "{context}");
        let all = node.read_all(GROUP);
        let terms: Vec<u32> = all.iter().map(|entry| entry.id.term.0).collect();
        let expected = [[1; 10].as_slice(), &[2; 4], &[3; 3]].concat();
        assert_eq!(terms, expected, "{context}");
        drop(node);
        let (mut node, recovered) = open_disk(&disk);
        assert_eq!(recovered.alarms, [], "{context}");
        assert_eq!(node.read_all(GROUP), all, "{context}");
    }
    assert!((5..60).contains(&mended_after), "{mended_after}");
}

#[test]
fn a_thousand_flipped_bits_are_found_and_mended() {
    let mut rng = fastrand::Rng::with_seed(1);
    let healthy = [one_file(), sealed_files()];
    let mut mended = 0;
    for _ in 0..150 {
        let healthy = &healthy[rng.usize(..2)];
        let disk = healthy.fork();
        let files = disk.files().into_iter();
        let files: Vec<String> = files.filter(|path| path.ends_with(".log")).collect();
        let path = &files[rng.usize(..files.len())];
        // Behind identity and begin, whose loss is another matter.
        let len = disk.contents(path).unwrap().len() as u64;
        let flips: Vec<u64> = (0..rng.u32(1..8))
            .map(|_| rng.u64(4_300 * 8..len * 8))
            .collect();
        flips
            .iter()
            .for_each(|&bit| disk.flip_bit(path, bit).unwrap());
        let (mut node, recovered) = open_disk(&disk);
        if recovered
            .group(GROUP)
            .quarantine
            .as_ref()
            .is_some_and(|it| it.reaches_end)
        {
            continue;
        }
        let last = node.last(GROUP).index.0;
        (1..=last).for_each(|index| drop(node.read(GROUP, index, 1)));
        assert_eq!(repair(&mut node, healthy), [], "{path} {flips:?}");
        let entries = node.read_all(GROUP);
        assert_eq!(node.store.quarantined(), 0, "{path} {flips:?}");
        mended += node.store.counters().repaired_entries;
        let (mut donor, _) = open_disk(healthy);
        let expected = donor.read_all(GROUP);
        assert_eq!(entries, expected[..entries.len()], "{path} {flips:?}");
    }
    assert!(mended > 100, "{mended} entries were mended");
}

//! Holes are filled with what other replicas have: to the last bit, or not at all.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::time::Duration;

use common::{GROUP, Node, Recover, format, open_disk, open_with, small_files};
use highwater_log::storage::{CrashImages, Granularity, MemoryDisk, MemoryStorage, Storage};
use highwater_log::{
    Base, Chain, ClusterId, Damage, Directory, DirectoryFormat, Entry, EntryId, Epoch, Event,
    FillError, Inspector, Item, LogIndex, MendError, Mended, Place, Position, ReadError, Recovered,
    StoreConfig, Term, mend,
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

/// What may become of the block that a file's `begin` lies in.
#[derive(Debug, Clone, Copy)]
enum BeginRot {
    /// A bit of its header flips.
    Flip,
    /// The block was never written.
    Lost,
    /// The next block was written there.
    Misdirected,
}

const BEGIN_ROTS: [BeginRot; 3] = [BeginRot::Flip, BeginRot::Lost, BeginRot::Misdirected];

fn rot_begin(disk: &MemoryDisk, path: &str, how: BeginRot) {
    match how {
        BeginRot::Flip => disk.flip_bit(path, (4_096 + 20) * 8).unwrap(),
        BeginRot::Lost => disk.corrupt(path, 4_096, &[0; 4_096]).unwrap(),
        BeginRot::Misdirected => {
            let next = disk.contents(path).unwrap()[2 * 4_096..3 * 4_096].to_vec();
            disk.corrupt(path, 4_096, &next).unwrap();
        }
    }
}

#[test]
fn a_bad_begin_found_at_a_start_is_made_anew() {
    let healthy = sealed_files();
    for path in sealed_paths(&healthy) {
        for how in BEGIN_ROTS {
            let context = format!("{how:?} of {path}");
            let disk = healthy.fork();
            rot_begin(&disk, &path, how);
            let (mut node, recovered) = open_disk(&disk);
            let damage: Vec<Damage> = recovered.alarms.iter().map(|it| it.damage).collect();
            assert_eq!(damage, [Damage::Begin], "{context}");
            assert_eq!(repair(&mut node, &healthy), [], "{context}");
            assert_eq!(node.store.counters().repaired_files, 1, "{context}");
            assert_eq!(node.store.quarantined(), 0, "{context}");
            drop(node);
            is_whole(&disk, &healthy, &context);
        }
    }
}

/// A start that knows of a hole reads the file's frames again; a file is no less in use for its
/// `begin` being bad.
#[test]
fn a_start_between_finding_a_bad_begin_and_mending_it_loses_no_file() {
    for healthy in [files_of(500, 200), based_files()] {
        for path in sealed_paths(&healthy) {
            let disk = healthy.fork();
            rot_begin(&disk, &path, BeginRot::Lost);
            let (mut node, recovered) = open_disk(&disk);
            let first = recovered.group(GROUP).start.first().0;
            let last = node.last(GROUP).index.0;
            (first..=last).for_each(|index| drop(node.read(GROUP, index, 1)));
            node.idle();
            assert!(node.store.first_hole(GROUP).is_some(), "{path}");
            drop(node);
            let (mut node, recovered) = open_disk(&disk);
            let damage: Vec<Damage> = recovered.alarms.iter().map(|it| it.damage).collect();
            assert_eq!(damage, [Damage::Begin], "{path}");
            assert_eq!(repair(&mut node, &healthy), [], "{path}");
            assert_eq!(node.store.first_hole(GROUP), None, "{path}");
            let entries = node.read_all(GROUP).len() as u64;
            assert_eq!(entries, last + 1 - first, "{path}");
        }
    }
}

/// Sealing does not read what its own life has written; the scrubber does.
#[test]
fn a_begin_that_rots_before_its_file_is_sealed_is_made_anew() {
    for how in BEGIN_ROTS {
        let (context, healthy) = (format!("{how:?}"), sealed_files());
        let disk = MemoryDisk::new();
        format(&disk);
        let mut node = scrubbing(&disk);
        node.create_with(GROUP, small_files());
        for term in [1, 2] {
            node.promise(GROUP, term);
            for _ in 0..20 {
                node.append_sized(GROUP, term, 7_000);
                node.settle();
            }
        }
        let path = place_of(&disk, 1).0;
        rot_begin(&disk, &path, how);
        node.commit_and_seal(GROUP);
        pass(&mut node, &healthy, Duration::from_secs(25));
        node.idle();
        assert_eq!(node.store.counters().repaired_files, 1, "{context}");
        assert_eq!(sealed_paths(&disk), sealed_paths(&healthy), "{context}");
        drop(node);
        is_whole(&disk, &healthy, &context);
    }
}

#[test]
fn the_begin_of_a_base_is_made_anew_while_its_state_is_remembered() {
    let healthy = based_files();
    let path = sealed_paths(&healthy).swap_remove(0);
    for how in BEGIN_ROTS {
        let context = format!("{how:?}");
        let disk = healthy.fork();
        let mut node = scrubbing(&disk);
        pass(&mut node, &healthy, Duration::from_secs(3));
        rot_begin(&disk, &path, how);
        pass(&mut node, &healthy, Duration::from_secs(25));
        assert_eq!(node.store.counters().repaired_files, 1, "{context}");
        drop(node);
        is_whole(&disk, &healthy, &context);
        assert_eq!(disk.contents(&path), healthy.contents(&path), "{context}");
    }
}

/// Its state lies nowhere else, so it is not made up. All else of the file is as it was, its
/// footer says what the `begin` said, and who loses that too loses no entry.
#[test]
fn a_base_that_has_lost_its_state_keeps_its_entries() {
    let healthy = based_files();
    let path = sealed_paths(&healthy).swap_remove(0);
    for how in BEGIN_ROTS {
        let context = format!("{how:?}");
        let disk = healthy.fork();
        rot_begin(&disk, &path, how);
        let (mut node, _) = open_disk(&disk);
        let _met = node.read(GROUP, 51, 1);
        assert_eq!(repair(&mut node, &healthy), [], "{context}");
        assert_eq!(node.store.quarantined(), 0, "{context}");
        assert_eq!(node.read_all(GROUP).len(), 20, "{context}");
        drop(node);
        let (mut node, recovered) = open_disk(&disk);
        let damage: Vec<Damage> = recovered.alarms.iter().map(|it| it.damage).collect();
        assert_eq!(damage, [Damage::Begin], "{context}");
        let (_, expected) = open_disk(&healthy);
        let (found, expected) = (recovered.group(GROUP), expected.group(GROUP));
        assert_eq!(found.snapshot, expected.snapshot, "{context}");
        assert_eq!(found.quarantine, None, "{context}");
        assert_eq!(node.read_all(GROUP).len(), 20, "{context}");
        node.idle();
        assert!(!node.store.has_repairs(), "{context}: again and again");
        drop(node);
        let footer = disk.contents(&path).unwrap().len() as u64 - 4_096;
        disk.corrupt(&path, footer, &[0; 4_096]).unwrap();
        let (_, recovered) = open_disk(&disk);
        let quarantine = recovered.group(GROUP).quarantine.as_ref();
        assert!(quarantine.is_some_and(|it| it.reaches_end), "{context}");
    }
}

/// A store that scrubs fast, and looks at each file once in ten seconds.
/// The files of the group that hold neither its first entry nor its last.
fn inner_paths(disk: &MemoryDisk) -> Vec<String> {
    let last = open_disk(&disk.fork()).1.group(GROUP).last.index.0;
    let (lowest, highest) = (place_of(disk, 1).0, place_of(disk, last).0);
    let mut paths = disk.files();
    paths.retain(|path| (&lowest..&highest).contains(&path) && *path > lowest);
    paths.sort_unstable();
    paths
}

#[test]
fn f18_files_that_are_gone_whole_are_made_anew() {
    for healthy in [sealed_files(), files_of(500, 200)] {
        let paths = inner_paths(&healthy);
        assert!(paths.len() > 2, "{paths:?}");
        for gone in paths.windows(1).chain(paths.windows(2)) {
            let context = format!("{gone:?}");
            let disk = healthy.fork();
            gone.iter().for_each(|path| disk.remove(path).unwrap());
            let (mut node, recovered) = open_disk(&disk);
            let lacks = holes(&recovered);
            assert_eq!(lacks.len(), 1, "{context}: {lacks:?}");
            assert_eq!(repair(&mut node, &healthy), [], "{context}");
            let counters = *node.store.counters();
            let files = (counters.repaired_files, counters.made_files);
            assert_eq!(files, (1, 1), "{context}");
            let (first, last) = lacks[0];
            assert_eq!(counters.repaired_entries, last + 1 - first, "{context}");
            assert_eq!(node.store.quarantined(), 0, "{context}");
            let mut donor = open_disk(&healthy).0;
            assert_eq!(node.read_all(GROUP), donor.read_all(GROUP), "{context}");
            is_whole(&disk.fork(), &healthy, &context);
            node.commit_and_seal(GROUP);
            drop(node);
            is_whole(&disk, &healthy, &format!("{context}, sealed"));
            let sealed = sealed_paths(&disk).len();
            assert!(sealed + gone.len() > paths.len(), "{context}: {sealed}");
        }
    }
}

#[test]
fn what_is_made_anew_leads_to_the_file_behind_it_or_is_not_made() {
    let healthy = sealed_files();
    let other = files_of(20, 7_001);
    for path in inner_paths(&healthy) {
        let disk = healthy.fork();
        disk.remove(&path).unwrap();
        let (mut node, recovered) = open_disk(&disk);
        let errors = repair(&mut node, &other);
        assert!(!errors.is_empty(), "{path}");
        assert!(!disk.files().contains(&path), "{path}");
        assert!(holes(&recovered)[0].0 > 1);
        node.now += Duration::from_secs(10);
        assert_eq!(repair(&mut node, &healthy), [], "{path}");
        drop(node);
        is_whole(&disk, &healthy, &path);
    }
}

/// Entries that continue what lies before the hole, and not what lies behind it: of another history,
/// which parts from this one amid the hole.
#[test]
fn what_fills_a_hole_leads_to_what_lies_behind_it() {
    let healthy = sealed_files();
    for path in inner_paths(&healthy) {
        let disk = healthy.fork();
        disk.remove(&path).unwrap();
        let (mut node, recovered) = open_disk(&disk);
        let (first, last) = holes(&recovered)[0];
        let other = files_with(20, |index| 7_000 - usize::from(index > first + 1));
        let errors = repair(&mut node, &other);
        let last = LogIndex(last);
        assert_eq!(errors, [FillError::Diverged { last }], "{path}");
        assert!(!disk.files().contains(&path), "{path}");
    }
}

#[test]
fn a_crash_while_a_file_is_made_anew_leaves_it_gone_or_whole() {
    let healthy = sealed_files();
    let path = inner_paths(&healthy).swap_remove(1);
    let first = recovered_hole(&healthy, &path);
    let opened = crash_amid(&healthy, &|disk| disk.remove(&path).unwrap(), first);
    assert!(opened > 50, "{opened} images");
}

fn recovered_hole(healthy: &MemoryDisk, path: &str) -> u64 {
    let disk = healthy.fork();
    disk.remove(path).unwrap();
    holes(&open_disk(&disk).1)[0].0
}

/// Seed 503891 of the simulator: the entry before the cut lay in the file that is gone, and where it
/// ended only the file behind it says.
#[test]
fn a_log_is_cut_on_both_sides_of_a_file_that_is_gone() {
    for (is_behind, is_mended) in [(false, false), (true, false), (false, true), (true, true)] {
        let context = format!("behind {is_behind}, mended {is_mended}");
        let healthy = MemoryDisk::new();
        format(&healthy);
        let (mut node, _) = open_disk(&healthy);
        node.create_with(GROUP, small_files());
        for _ in 0..30 {
            node.append_sized(GROUP, 1, 7_000);
            node.settle();
        }
        node.idle();
        drop(node);
        let disk = healthy.fork();
        disk.remove(&inner_paths(&disk)[0]).unwrap();
        let (mut node, recovered) = open_disk(&disk);
        let (first, last) = holes(&recovered)[0];
        if is_mended {
            assert_eq!(repair(&mut node, &healthy), [], "{context}");
        }
        let to = if is_behind { last + 1 } else { first };
        assert!(node.store.can_cut(GROUP, LogIndex(to)), "{context}");
        node.cut(GROUP, to);
        node.settle();
        if node.store.first_hole(GROUP).is_none() {
            node.store.end_quarantine(GROUP).unwrap();
        }
        node.promise(GROUP, 2);
        node.append(GROUP, 2, 1);
        node.idle();
        node.now += Duration::from_secs(10);
        assert_eq!(repair(&mut node, &healthy), [], "{context}");
        assert_eq!(node.store.quarantined(), 0, "{context}");
        let all = node.read_all(GROUP);
        assert_eq!(all.len() as u64, to, "{context}");
        drop(node);
        let (mut node, recovered) = open_disk(&disk);
        assert_eq!(recovered.alarms, [], "{context}");
        assert_eq!(node.read_all(GROUP), all, "{context}");
    }
}

#[test]
fn a_hole_that_nobody_can_fill_keeps_no_other_from_being_filled() {
    let healthy = sealed_files();
    let paths = inner_paths(&healthy);
    let disk = healthy.fork();
    disk.remove(&paths[0]).unwrap();
    disk.remove(&paths[2]).unwrap();
    let (mut node, recovered) = open_disk(&disk);
    let lacks = holes(&recovered);
    assert_eq!(lacks.len(), 2);
    let (mut donor, _) = open_disk(&healthy);
    for _ in 0..100 {
        node.settle();
        if let Some(from) = take_wanted(&mut node).filter(|from| from.0 >= lacks[1].0) {
            let entries = donor.read(GROUP, from.0, 20_000).unwrap();
            node.store.supply(GROUP, &entries).unwrap();
        } else {
            node.now += Duration::from_secs(1);
        }
    }
    let counters = node.store.counters();
    assert_eq!(counters.repaired_files, 1);
    assert!(counters.repairs_given_up > 1);
    assert_eq!(node.store.first_hole(GROUP), Some(LogIndex(lacks[0].0)));
    assert_eq!(repair(&mut node, &healthy), []);
    drop(node);
    is_whole(&disk, &healthy, "at last");
}

fn scrubbing(disk: &MemoryDisk) -> Node {
    let config = StoreConfig {
        scrub_bytes_per_second: 1 << 20,
        scrub_interval: Duration::from_secs(10),
        ..common::config()
    };
    open_with(MemoryStorage::new(disk), config).unwrap().0
}

fn pass(node: &mut Node, healthy: &MemoryDisk, time: Duration) {
    let until = node.now + time;
    while node.now < until {
        assert_eq!(repair(node, healthy), []);
        node.now += Duration::from_millis(50);
    }
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
fn f29_rot_that_nobody_reads_is_found_and_mended() {
    let healthy = sealed_files();
    let sealed = sealed_paths(&healthy);
    let mut rng = fastrand::Rng::with_seed(2);
    for round in 0..40 {
        let disk = healthy.fork();
        // Anywhere before the footer of any sealed file: identity, begin, frames, padding.
        let path = &sealed[rng.usize(..sealed.len())];
        let data = disk.contents(path).unwrap().len() as u64 - 2 * 4_096;
        let bit = match round {
            0 => 100 * 8,
            1 => (4_096 + 20) * 8,
            _ => rng.u64(..data * 8),
        };
        let context = format!("bit {bit} of {path}");
        let mut node = scrubbing(&disk);
        pass(&mut node, &healthy, Duration::from_secs(3));
        assert_eq!(node.store.counters().scrub_findings, 0, "{context}");
        disk.flip_bit(path, bit).unwrap();
        pass(&mut node, &healthy, Duration::from_secs(25));
        let counters = *node.store.counters();
        assert_eq!(counters.scrub_findings, 1, "{context}: {counters:?}");
        assert_eq!(counters.repaired_files, 1, "{context}: {counters:?}");
        assert!(counters.scrub_passes >= 2, "{context}: {counters:?}");
        assert_eq!(node.store.quarantined(), 0, "{context}");
        drop(node);
        is_whole(&disk, &healthy, &context);
    }
}

/// What a disk has written to a wrong place (F15) are frames of the same file, good but for where
/// they lie. Of a file that is not sealed the front is spared: its loss is another matter.
#[test]
fn f15_blocks_that_lie_where_others_should_are_found_and_mended() {
    let healthy = files_of(500, 200);
    let sealed = sealed_paths(&healthy);
    let files = healthy.files().into_iter();
    let files: Vec<String> = files.filter(|path| path.ends_with(".log")).collect();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut mended = 0;
    for round in 0..150 {
        let disk = healthy.fork();
        let path = &files[rng.usize(..files.len())];
        let bytes = disk.contents(path).unwrap();
        let (front, footer) = match sealed.contains(path) {
            true => (0, 2),
            false => (2, 0),
        };
        let written = bytes.iter().rposition(|&byte| byte != 0).unwrap() / 4_096;
        let blocks = front..written + 1 - footer;
        let (from, to) = (rng.usize(blocks.clone()), rng.usize(blocks));
        if from == to {
            continue;
        }
        let context = format!("round {round}: block {from} at {to} of {path}");
        let block = &bytes[from * 4_096..(from + 1) * 4_096];
        disk.corrupt(path, to as u64 * 4_096, block).unwrap();
        if reaches_end(&disk.fork()) {
            // Then nothing but its peers' appends mends it.
            continue;
        }
        mended += 1;
        let mut node = scrubbing(&disk);
        pass(&mut node, &healthy, Duration::from_secs(25));
        let counters = *node.store.counters();
        assert_eq!(counters.repaired_files, 1, "{context}: {counters:?}");
        assert_eq!(node.store.quarantined(), 0, "{context}");
        drop(node);
        is_whole(&disk, &healthy, &context);
    }
    assert!(mended > 100, "{mended} files were mended");
}

/// Whether a start finds the log's end in doubt.
fn reaches_end(disk: &MemoryDisk) -> bool {
    let (_, recovered) = open_disk(disk);
    let quarantine = recovered.group(GROUP).quarantine.as_ref();
    quarantine.is_some_and(|it| it.reaches_end)
}

#[test]
fn the_scrubber_keeps_to_its_rate() {
    let disk = sealed_files();
    let config = StoreConfig {
        scrub_bytes_per_second: 10_000,
        ..common::config()
    };
    let (mut node, _) = open_with(MemoryStorage::new(&disk), config).unwrap();
    for _ in 0..100 {
        node.settle();
        node.now += Duration::from_millis(100);
    }
    let read = node.store.counters().scrubbed_bytes;
    // One step may have been read ahead of time.
    assert!(read > 50_000 && read <= 10_000 * 10 + (256 << 10), "{read}");
}

fn mend_from(disk: &MemoryDisk, donor: &MemoryDisk) -> Result<Mended, MendError> {
    let mut donor = Inspector::open(MemoryStorage::new(donor)).unwrap();
    mend(MemoryStorage::new(disk), common::pool(), &mut donor)
}

#[test]
fn a_stopped_directory_is_mended_from_another() {
    for healthy in [one_file(), sealed_files()] {
        let disk = healthy.fork();
        for index in [3, 11, 12] {
            rot(&disk, index, Rot::Header);
        }
        let mended = mend_from(&disk, &healthy).unwrap();
        assert_eq!((mended.entries, mended.unmended), (3, 0), "{mended:?}");
        is_whole(&disk, &healthy, "offline");
        let again = mend_from(&disk, &healthy).unwrap();
        assert_eq!(again, Mended::default());
    }
}

#[test]
fn what_the_other_directory_lacks_too_is_left_as_it_is() {
    let healthy = one_file();
    let disk = healthy.fork();
    rot(&disk, 3, Rot::Body);
    rot(&disk, 7, Rot::Body);
    let donor = healthy.fork();
    rot(&donor, 7, Rot::Body);
    let before = disk.contents("groups/7/0000000001.log").unwrap();
    let mended = mend_from(&disk, &donor).unwrap();
    assert_eq!((mended.files, mended.unmended), (0, 1), "{mended:?}");
    assert_eq!(disk.contents("groups/7/0000000001.log").unwrap(), before);
    assert_eq!(mend_from(&disk, &healthy).unwrap().entries, 2);
    is_whole(&disk, &healthy, "in the end");
}

#[test]
fn directories_of_two_clusters_are_not_mended_from_each_other() {
    let healthy = one_file();
    let disk = healthy.fork();
    rot(&disk, 3, Rot::Body);
    let foreign = MemoryDisk::new();
    let other = DirectoryFormat {
        cluster: ClusterId([9; 16]),
        ..common::directory_format()
    };
    Directory::format(&mut MemoryStorage::new(&foreign), &other).unwrap();
    assert_eq!(mend_from(&disk, &foreign), Err(MendError::OtherCluster));
}

//! The `begin` of a file is bad: it is made anew, or its entries are kept without it.

use std::time::Duration;

use crate::common::{GROUP, Recover, format, open_disk, small_files};
use crate::scrub::{pass, scrubbing};
use crate::{based_files, files_of, is_whole, place_of, repair, sealed_files, sealed_paths};
use highwater_log::Damage;
use highwater_log::storage::MemoryDisk;

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

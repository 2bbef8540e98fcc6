//! Files that are gone whole are made anew between those beside them.

use std::time::Duration;

use crate::common::{GROUP, format, open_disk, small_files};
use crate::{
    crash_amid, files_of, files_with, holes, inner_paths, is_whole, repair, sealed_files,
    sealed_paths, take_wanted,
};
use highwater_log::storage::MemoryDisk;
use highwater_log::{FillError, LogIndex};

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

//! A footer says the same of a file whether its bytes were summed while they were written or are
//! read for it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use common::{GROUP, Node, Recover, config, format, open_disk, open_with, small_files};
use highwater_log::storage::{MemoryDisk, MemoryStorage, Storage};
use highwater_log::{Inspector, Item, Place, SEGMENT_BYTES_MIN};

/// The files that have footers, and what is in them.
fn sealed(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut find = |at: Place<'_>, item: Item<'_>| {
        if let Item::Footer(_) = item {
            files.push((at.path.to_owned(), disk.contents(at.path).unwrap()));
        }
    };
    inspector.walk(GROUP, &mut find).unwrap();
    files
}

fn node_on(disk: &MemoryDisk) -> Node {
    format(disk);
    let (mut node, _) = open_with(MemoryStorage::new(disk), config()).unwrap();
    node.create_with(GROUP, small_files());
    node
}

/// Seals all that `node` has written, and what a fork of its disk holds after a new start.
fn check(mut node: Node, disk: &MemoryDisk, context: &str) {
    node.settle();
    let fork = disk.fork();
    node.commit_and_seal(GROUP);
    let summed = sealed(disk);
    assert!(!summed.is_empty(), "{context}");

    let (mut node, recovered) = open_disk(&fork);
    let last = recovered.group(GROUP).last.index;
    node.store.commit(GROUP, last);
    node.commit_and_seal(GROUP);
    let found = sealed(&fork);
    for file in &summed {
        assert!(found.contains(file), "{context}: {}", file.0);
    }
}

#[test]
fn files_written_by_one_life_are_sealed_without_reading_them() {
    // Entries of which many, some, one and less than one share a verified block, and such as end
    // where a block ends.
    for bytes in [1, 100, 4_096 - 72, 8_192 - 72, 20_000, 64 << 10, 300_000] {
        let disk = MemoryDisk::new();
        let mut node = node_on(&disk);
        for nth in 0..(300_000 / bytes).clamp(8, 2_000) {
            node.append_sized(GROUP, 1, bytes);
            if nth % 3 == 0 {
                node.settle();
            }
        }
        node.settle();
        let reads = node.store.storage().counters().bytes_read;
        node.commit_and_seal(GROUP);
        assert_eq!(node.store.storage().counters().bytes_read, reads, "{bytes}");
        assert!(node.store.counters().files_sealed > 0, "{bytes}");
    }
}

#[test]
fn a_footer_is_the_same_as_that_of_a_file_which_was_read() {
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..40 {
        let disk = MemoryDisk::new();
        let mut node = node_on(&disk);
        for _ in 0..rng.usize(10..60) {
            for _ in 0..rng.usize(1..5) {
                node.append_sized(GROUP, 1, rng.usize(1..12_000));
            }
            if rng.bool() {
                node.settle();
            }
        }
        check(node, &disk, &format!("round {round}"));
    }
}

/// What was taken back is in the file, and not in its footer: it is read.
#[test]
fn a_file_whose_end_was_cut_is_sealed_as_if_it_had_been_read() {
    let mut rng = fastrand::Rng::with_seed(2);
    for round in 0..40 {
        let disk = MemoryDisk::new();
        let mut node = node_on(&disk);
        for term in 1..=3 {
            node.promise(GROUP, term);
            for _ in 0..rng.usize(5..30) {
                node.append_sized(GROUP, term, rng.usize(1..6_000));
            }
            node.settle();
            let last = node.last(GROUP).index.0;
            let first = rng.u64(last.saturating_sub(6).max(1)..=last + 1);
            node.cut(GROUP, first);
            node.settle();
        }
        for _ in 0..30 {
            node.append_sized(GROUP, 3, SEGMENT_BYTES_MIN as usize / 9);
            node.settle();
        }
        check(node, &disk, &format!("round {round}"));
    }
}

//! The scrubber finds what nobody reads.

use std::time::Duration;

use crate::common::{GROUP, Node, Recover, open_disk, open_with};
use crate::{files_of, is_whole, repair, sealed_files, sealed_paths};
use highwater_log::StoreConfig;
use highwater_log::storage::{MemoryDisk, MemoryStorage};

/// A store that scrubs fast, and looks at each file once in ten seconds.
pub(crate) fn scrubbing(disk: &MemoryDisk) -> Node {
    let config = StoreConfig {
        scrub_bytes_per_second: 1 << 20,
        scrub_interval: Duration::from_secs(10),
        ..crate::common::config()
    };
    open_with(MemoryStorage::new(disk), config).unwrap().0
}

pub(crate) fn pass(node: &mut Node, healthy: &MemoryDisk, time: Duration) {
    let until = node.now + time;
    while node.now < until {
        assert_eq!(repair(node, healthy), []);
        node.now += Duration::from_millis(50);
    }
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
    // The last one is made ahead, and nothing was written to it yet.
    let written = |path: &String| healthy.contents(path).unwrap()[4_096..] != [0; 60 << 10];
    let files = files.filter(|path| path.ends_with(".log") && written(path));
    let files: Vec<String> = files.collect();
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
        ..crate::common::config()
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

//! What a power cut or a kill may leave of a disk in memory, image by image.

use std::collections::BTreeSet;

use highwater_log::storage::{
    CrashImages, Granularity, Keep, MemoryDisk, MemoryStorage, Op, Preparation, SECTOR,
    StorageError,
};

use crate::driver::Driver;

fn open(disk: &MemoryDisk) -> Driver {
    Driver::new(Box::new(MemoryStorage::new(disk)))
}

/// The power is cut and nothing that is pending survives.
fn cut(disk: &MemoryDisk) {
    disk.power_cut(|_| Keep::Nothing);
}

fn images(disk: &MemoryDisk, granularity: Granularity) -> Vec<MemoryDisk> {
    let images = CrashImages::new(disk, granularity);
    let count = images.count().expect("few enough to visit");
    (0..count).map(|number| images.image(number)).collect()
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename {
        from: from.into(),
        to: to.into(),
    }
}

/// A durable file of this many blocks, open.
fn durable_file(disk: &mut Driver, path: &str, blocks: u64) -> highwater_log::storage::FileId {
    let file = disk.create_and_open(path, blocks);
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir));
    file
}

#[test]
fn what_completed_survives() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 4);
    let data = life.blocks(2, 1);
    life.write(file, 1, &data);
    life.done(Op::Truncate {
        file,
        len: 3 * life.block(),
    });
    assert!(disk.pending().is_empty());
    cut(&disk);
    let contents = disk.contents("a").expect("it is there");
    assert_eq!(contents.len(), 3 * life.alignment());
    assert_eq!(contents[life.alignment()..], data[..]);
}

#[test]
fn a_write_in_flight_leaves_any_subset_of_its_sectors() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 2);
    let (old, new) = (life.blocks(1, 1), life.blocks(1, 2));
    life.write(file, 0, &old);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: new.clone(),
    });
    life.storage().flush();
    let left: BTreeSet<_> = images(&disk, Granularity::Subsets { unit: SECTOR })
        .iter()
        .map(|image| image.contents("a").expect("it is there"))
        .collect();
    assert_eq!(
        left.len(),
        1 << (new.len() / SECTOR),
        "all subsets, all different"
    );
    for contents in left {
        for (at, sector) in contents[..old.len()].chunks(SECTOR).enumerate() {
            let range = at * SECTOR..(at + 1) * SECTOR;
            assert!(
                sector == &old[range.clone()] || sector == &new[range],
                "sector {at}"
            );
        }
    }
    assert_eq!(images(&disk, Granularity::Whole).len(), 2);
    assert_eq!(
        images(&disk, Granularity::Prefixes { unit: SECTOR }).len(),
        9
    );
    assert_eq!(
        disk.contents("a").expect("it is there")[..new.len()],
        new[..],
        "the disk itself goes on"
    );
    life.collect();
    assert_eq!(images(&disk, Granularity::Whole).len(), 1);
}

#[test]
fn a_write_that_was_not_started_leaves_nothing() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: life.blocks(1, 1),
    });
    assert!(disk.pending().is_empty());
}

#[test]
fn p28_an_entry_needs_a_sync_of_its_directory() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    life.create("a", 1);
    let found = |image: &MemoryDisk| image.files().len();
    let left: Vec<_> = images(&disk, Granularity::Whole)
        .iter()
        .map(found)
        .collect();
    assert_eq!(left, [0, 1]);
    life.sync_dir("");
    life.done(Op::Unlink { path: "a".into() });
    let left: Vec<_> = images(&disk, Granularity::Whole)
        .iter()
        .map(found)
        .collect();
    assert_eq!(left, [1, 0]);
    life.sync_dir("");
    assert_eq!(images(&disk, Granularity::Whole).len(), 1);
    assert!(disk.files().is_empty());
}

#[test]
fn p25_a_sync_does_not_cover_what_was_in_flight_beside_it() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    life.submit(life.create_op("a", 1, Preparation::Zero));
    life.submit(Op::SyncDir {
        path: String::new(),
    });
    life.collect();
    cut(&disk);
    assert!(disk.files().is_empty());
}

#[test]
fn a_rename_is_whole_and_needs_both_directories() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    for dir in ["from", "to"] {
        life.done(Op::MakeDir { path: dir.into() });
    }
    life.sync_dir("");
    durable_file(&mut life, "from/a", 1);
    life.done(rename("from/a", "to/b"));
    let name = |image: &MemoryDisk| image.files().join(" ");
    let names = |disk: &MemoryDisk| -> Vec<_> {
        images(disk, Granularity::Whole).iter().map(name).collect()
    };
    assert_eq!(names(&disk), ["from/a", "to/b"]);
    life.sync_dir("to");
    assert_eq!(names(&disk), ["from/a", "to/b"], "half of it is no promise");
    life.sync_dir("from");
    assert_eq!(names(&disk), ["to/b"]);
}

#[test]
fn p28_a_file_in_a_directory_that_was_not_synced_is_lost() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    life.done(Op::MakeDir { path: "d".into() });
    durable_file(&mut life, "d/a", 1);
    let lost = disk.fork();
    cut(&lost);
    assert!(lost.files().is_empty());
    life.sync_dir("");
    cut(&disk);
    assert_eq!(disk.files(), ["d/a"]);
}

#[test]
fn what_a_killed_life_left_is_readable_and_not_durable_until_synced() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    let data = life.blocks(1, 1);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: data.clone(),
    });
    life.storage().flush();
    drop(life);
    assert_eq!(disk.contents("a").expect("it is there"), data[..]);
    let unsynced = disk.fork();
    cut(&unsynced);
    assert_ne!(unsynced.contents("a").expect("it is there"), data[..]);

    let mut life = open(&disk);
    let (file, _) = life.open("a");
    life.done(Op::Sync { file });
    cut(&disk);
    assert_eq!(disk.contents("a").expect("it is there"), data[..]);
}

#[test]
fn a_kill_may_undo_what_was_in_flight() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: life.blocks(1, 1),
    });
    life.submit(life.create_op("b", 1, Preparation::Zero));
    life.storage().flush();
    disk.kill(|change| {
        if change.in_flight {
            Keep::Nothing
        } else {
            Keep::Everything
        }
    });
    assert_eq!(disk.files(), ["a"]);
    assert_eq!(
        disk.contents("a").expect("it is there"),
        vec![0; life.alignment()]
    );
    assert!(disk.pending().is_empty());
}

#[test]
fn a_later_durable_write_is_not_undone_by_an_earlier_pending_one() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 2);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: life.blocks(2, 1),
    });
    life.storage().flush();
    drop(life);
    let mut life = open(&disk);
    let (file, _) = life.open("a");
    let new = life.blocks(1, 2);
    life.write(file, 1, &new);
    for image in images(&disk, Granularity::Prefixes { unit: SECTOR }) {
        assert_eq!(
            image.contents("a").expect("it is there")[life.alignment()..],
            new[..]
        );
    }
}

#[test]
fn a_storage_does_not_outlive_the_crash() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    life.submit(Op::Write {
        file,
        offset: 0,
        data: life.blocks(1, 1),
    });
    life.storage().flush();
    cut(&disk);
    for answer in life.collect().into_values() {
        assert!(matches!(answer, Err(StorageError::Io { .. })), "{answer:?}");
    }
    assert!(matches!(life.fails(Op::Space), StorageError::Io { .. }));
    drop(life);
    assert_eq!(disk.contents("a").expect("it is there"), vec![0; 4096]);
}

#[test]
fn a_full_disk_refuses_a_file_and_leaves_nothing() {
    let disk = MemoryDisk::new();
    disk.set_capacity(10 * 4096);
    let mut life = open(&disk);
    life.create("a", 6);
    let refused = life.fails(life.create_op("b", 5, Preparation::Zero));
    assert_eq!(refused, StorageError::NoSpace { path: "b".into() });
    assert_eq!(disk.files(), ["a"]);
    life.create("b", 4);
    life.done(Op::Unlink { path: "a".into() });
    life.sync_dir("");
    life.create("c", 6);
}

#[test]
fn what_is_mapped_is_not_changed() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 2);
    let mapping = life.map("a");
    for op in [
        Op::Write {
            file,
            offset: 0,
            data: life.blocks(1, 1),
        },
        Op::Truncate { file, len: 4096 },
    ] {
        assert!(matches!(life.fails(op), StorageError::Invalid { .. }));
    }
    drop(mapping);
    life.done(Op::Truncate { file, len: 4096 });
}

/// A real disk cannot tell: it zeroes what was written, or has either last.
#[test]
fn what_is_written_is_not_zeroed_and_nothing_is_written_meanwhile() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 4);
    let data = life.blocks(1, 1);
    life.write(file, 1, &data);
    let zero = |offset, len| Op::Zero { file, offset, len };
    let refused = life.fails(zero(0, 8192));
    assert!(matches!(refused, StorageError::Invalid { .. }));
    life.done(zero(8192, 8192));
    life.submit(zero(8192, 8192));
    let amid = Op::Write {
        file,
        offset: 8192,
        data: data.clone(),
    };
    life.submit(amid);
    let mut out = Vec::new();
    life.storage().wait();
    life.storage().poll(&mut out);
    let [zeroed, written] = &out[..] else {
        panic!("{out:?}");
    };
    assert!(matches!(zeroed.result, Err(StorageError::Invalid { .. })));
    assert!(written.result.is_ok());
}

#[test]
fn damage_at_rest_is_seen_by_every_life() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    let data = life.blocks(1, 1);
    life.write(file, 0, &data);
    disk.flip_bit("a", 8 * 100 + 3).expect("it is there");
    disk.corrupt("a", 4095, &[0xAA, 0xBB]).expect("it is there");
    let mut expected = data.to_vec();
    expected[100] ^= 1 << 3;
    expected[4095] = 0xAA;
    assert_eq!(life.read(file, 0, 1)[..], expected[..]);
    cut(&disk);
    assert_eq!(disk.contents("a").expect("it is there"), expected);
    disk.remove("a").expect("it is there");
    cut(&disk);
    assert!(disk.files().is_empty());
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = MemoryDisk::new();
    let mut life = open(&disk);
    let file = durable_file(&mut life, "a", 1);
    let fork = disk.fork();
    life.write(file, 0, &life.blocks(1, 1));
    life.create("b", 1);
    assert_eq!(fork.files(), ["a"]);
    assert_eq!(fork.contents("a").expect("it is there"), vec![0; 4096]);
    open(&fork).create("c", 1);
    assert_eq!(disk.files(), ["a", "b"]);
}

#[test]
fn a_file_can_be_put_and_rolled_back() {
    let disk = MemoryDisk::new();
    disk.put("d/e/a", b"one").expect("put");
    disk.put("d/e/b", b"other").expect("put");
    let older = disk.fork();
    disk.put("d/e/a", b"three").expect("put again");
    cut(&disk);
    assert_eq!(disk.files(), ["d/e/a", "d/e/b"]);
    assert_eq!(disk.contents("d/e/a").expect("it is there"), b"three");
    disk.roll_back("d/e/a", &older).expect("it was there");
    cut(&disk);
    assert_eq!(disk.contents("d/e/a").expect("it is there"), b"one");
    assert!(matches!(
        disk.put("d/e", b""),
        Err(StorageError::Exists { .. })
    ));
    assert!(matches!(
        disk.put("d/e/a/x", b""),
        Err(StorageError::Exists { .. })
    ));
}

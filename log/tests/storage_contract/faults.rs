//! What a faulty storage does wrong, class by class, and that a seed repeats it.

use std::time::Duration;

use highwater_log::storage::{
    Completion, FaultCounts, Faults, FaultyStorage, FileId, MemoryDisk, MemoryStorage, Op, Output,
    Preparation, Storage, StorageError, Token,
};
use highwater_record::Buffer;

use crate::driver::{Answer, Driver};

const BLOCKS: u64 = 8;

/// A disk with one durable file `a` of distinct blocks.
fn disk() -> (MemoryDisk, Buffer) {
    let disk = MemoryDisk::new();
    let mut life = Driver::new(Box::new(MemoryStorage::new(&disk)));
    let file = life.create_and_open("a", BLOCKS);
    life.sync_dir("");
    let data = life.blocks(8, 1);
    life.write(file, 0, &data);
    (disk, data)
}

/// A faulty life on it, opened before the faults began.
fn faulty(disk: &MemoryDisk, faults: Faults, seed: u64) -> (FaultyStorage, FileId) {
    let mut storage = FaultyStorage::new(disk, Faults::default(), seed);
    let file = match run(
        &mut storage,
        Op::Open {
            path: "a".into(),
            write: true,
        },
    ) {
        Ok(Output::Opened { file, .. }) => file,
        other => panic!("{other:?}"),
    };
    storage.control().set_faults(faults);
    (storage, file)
}

fn run(storage: &mut FaultyStorage, op: Op) -> Answer {
    storage.submit(Token(0), op);
    let mut out = Vec::new();
    while storage.in_flight() > 0 {
        storage.wait();
        storage.poll(&mut out);
    }
    out.pop().expect("one completion").result
}

fn new_block() -> Buffer {
    Buffer::aligned_copy(&[0xEE; 4096], 4096)
}

fn write(file: FileId) -> Op {
    Op::Write {
        file,
        offset: 4096,
        data: new_block(),
    }
}

fn is_injected(answer: &Answer) -> bool {
    matches!(answer, Err(StorageError::Io { reason, path, .. }) if reason == "injected" && path == "a")
}

fn bits_apart(a: &[u8], b: &[u8]) -> u32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[test]
fn without_faults_it_is_a_plain_storage() {
    let (disk, data) = disk();
    let (mut storage, file) = faulty(&disk, Faults::default(), 1);
    for _ in 0..100 {
        assert!(matches!(run(&mut storage, write(file)), Ok(Output::Done)));
    }
    match run(
        &mut storage,
        Op::Read {
            file,
            offset: 0,
            len: 4096,
        },
    ) {
        Ok(Output::Read(read)) => assert_eq!(read[..], data[..4096]),
        other => panic!("{other:?}"),
    }
    assert_eq!(storage.control().counts(), FaultCounts::default());
}

#[test]
fn completions_wait_for_their_time_and_overtake_each_other() {
    let (disk, _) = disk();
    let ms = Duration::from_millis;
    let faults = Faults {
        delay_min: ms(2),
        delay_max: ms(9),
        ..Faults::default()
    };
    let (mut storage, file) = faulty(&disk, faults, 7);
    let mut out: Vec<Completion> = Vec::new();
    assert_eq!(storage.next_due(), None);
    storage.set_now(ms(1000));
    for token in 0..50 {
        storage.submit(
            Token(token),
            Op::Read {
                file,
                offset: 0,
                len: 4096,
            },
        );
    }
    assert_eq!(storage.next_due(), None, "nothing was flushed");
    storage.flush();
    storage.set_now(ms(1001));
    storage.poll(&mut out);
    assert!(out.is_empty(), "nothing takes less than the least delay");
    let mut last = ms(1001);
    while let Some(due) = storage.next_due() {
        assert!(last <= due && ms(1002) <= due && due <= ms(1009), "{due:?}");
        last = due;
        let before = out.len();
        storage.set_now(due);
        storage.poll(&mut out);
        assert!(out.len() > before, "what is due completes");
    }
    let order: Vec<_> = out.iter().map(|completion| completion.token.0).collect();
    assert_eq!(order.len(), 50);
    assert!(
        !order.is_sorted(),
        "50 operations that do not overtake each other"
    );
}

#[test]
fn a_stall_takes_longer() {
    let (disk, _) = disk();
    let stall = Duration::from_secs(60);
    let (mut storage, file) = faulty(
        &disk,
        Faults {
            stall_rate: 1.0,
            stall,
            ..Faults::default()
        },
        1,
    );
    storage.submit(Token(1), Op::Sync { file });
    storage.flush();
    assert_eq!(storage.next_due(), Some(stall));
}

#[test]
fn reads_fail() {
    let (disk, _) = disk();
    let (mut storage, file) = faulty(
        &disk,
        Faults {
            read_error: 1.0,
            ..Faults::default()
        },
        1,
    );
    assert!(is_injected(&run(
        &mut storage,
        Op::Read {
            file,
            offset: 0,
            len: 4096
        }
    )));
    assert!(run(&mut storage, write(file)).is_ok());
}

#[test]
fn a_failed_write_leaves_anything_and_a_power_cut_may_undo_it() {
    let four = Buffer::aligned_copy(&[0xEE; 4 * 4096], 4096);
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (disk, data) = disk();
        let faults = Faults {
            write_error: 1.0,
            ..Faults::default()
        };
        let (mut storage, file) = faulty(&disk, faults, seed);
        let write = Op::Write {
            file,
            offset: 0,
            data: four.clone(),
        };
        assert!(is_injected(&run(&mut storage, write)));
        let contents = disk.contents("a").expect("it is there");
        left.insert(
            contents
                .chunks(4096)
                .take_while(|block| block[0] == 0xEE)
                .count(),
        );
        assert_eq!(disk.durable_contents("a").expect("it is there"), data[..]);
        storage.power_cut();
        assert_eq!(
            disk.contents("a").expect("it is there"),
            data[..],
            "none is kept by default"
        );
    }
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_write_finds_no_room() {
    let (disk, _) = disk();
    let faults = Faults {
        write_no_space: 1.0,
        ..Faults::default()
    };
    let (mut storage, file) = faulty(&disk, faults, 1);
    let full = StorageError::NoSpace { path: "a".into() };
    assert_eq!(run(&mut storage, write(file)).expect_err("no room"), full);
    storage.control().set_faults(Faults::default());
    assert!(run(&mut storage, write(file)).is_ok());
}

/// A sync that succeeds after one that failed says nothing about what the failed one covered.
#[test]
fn what_a_failed_sync_covered_may_be_gone() {
    let mut gone = 0;
    for seed in 0..64 {
        let (disk, data) = disk();
        let (mut storage, file) = faulty(&disk, Faults::default(), seed);
        storage.submit(Token(1), write(file));
        storage.flush();
        drop(storage);
        let second = || disk.contents("a").expect("it is there")[4096..8192].to_vec();
        assert_eq!(second(), new_block()[..], "what was in flight can be read");

        let faults = Faults {
            sync_error: 1.0,
            ..Faults::default()
        };
        let (mut storage, file) = faulty(&disk, faults, seed);
        assert!(is_injected(&run(&mut storage, Op::Sync { file })));
        storage.control().set_faults(Faults::default());
        assert!(run(&mut storage, Op::Sync { file }).is_ok());
        let found = second();
        assert!(found == new_block()[..] || found == data[4096..8192]);
        gone += u64::from(found != new_block()[..]);
        storage.power_cut();
        assert_eq!(second(), found, "what can be read was synced");
    }
    assert!(8 < gone && gone < 56, "gone in {gone} of 64 runs");
}

#[test]
fn entries_and_mappings_and_room_fail() {
    let (disk, _) = disk();
    let always = |set: fn(&mut Faults)| {
        let mut faults = Faults::default();
        set(&mut faults);
        faulty(&disk, faults, 1).0
    };
    let open = || Op::Open {
        path: "a".into(),
        write: false,
    };
    let create = || Op::Create {
        path: "b".into(),
        len: 4096,
        preparation: Preparation::Zero,
        first: Buffer::default(),
    };
    let mut storage = always(|faults| faults.entry_error = 1.0);
    for op in [
        open(),
        create(),
        Op::Unlink { path: "a".into() },
        Op::List {
            path: String::new(),
        },
    ] {
        assert!(matches!(
            run(&mut storage, op),
            Err(StorageError::Io { .. })
        ));
    }
    assert_eq!(disk.files(), ["a"]);
    let mut storage = always(|faults| faults.map_error = 1.0);
    assert!(is_injected(&run(
        &mut storage,
        Op::Map { path: "a".into() }
    )));
    let mut storage = always(|faults| faults.no_space = 1.0);
    assert_eq!(
        run(&mut storage, create()).expect_err("no room"),
        StorageError::NoSpace { path: "b".into() }
    );
    let mut storage = always(|faults| faults.no_resources = 1.0);
    assert!(matches!(
        run(&mut storage, open()),
        Err(StorageError::Resources { .. })
    ));
    assert_eq!(storage.control().counts().no_resources, 1);
}

#[test]
fn a_read_flips_a_bit_once() {
    let (disk, data) = disk();
    let (mut storage, file) = faulty(
        &disk,
        Faults {
            read_flip: 1.0,
            ..Faults::default()
        },
        3,
    );
    for _ in 0..20 {
        match run(
            &mut storage,
            Op::Read {
                file,
                offset: 0,
                len: 8192,
            },
        ) {
            Ok(Output::Read(read)) => assert_eq!(bits_apart(&read, &data[..8192]), 1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(disk.contents("a").expect("it is there"), data[..]);
}

#[test]
fn a_write_rots() {
    let (disk, mut data) = {
        let (disk, data) = disk();
        (disk, data.to_vec())
    };
    let (mut storage, file) = faulty(
        &disk,
        Faults {
            rest_flip: 1.0,
            ..Faults::default()
        },
        3,
    );
    assert!(run(&mut storage, write(file)).is_ok());
    data[4096..8192].copy_from_slice(&new_block());
    assert_eq!(
        bits_apart(&disk.durable_contents("a").expect("there"), &data),
        1
    );
    let contents = disk.contents("a").expect("there");
    assert_eq!(
        bits_apart(&contents[4096..8192], &data[4096..8192]),
        1,
        "in what was written"
    );
}

#[test]
fn a_write_is_lost() {
    let (disk, data) = disk();
    let (mut storage, file) = faulty(
        &disk,
        Faults {
            lost_write: 1.0,
            ..Faults::default()
        },
        3,
    );
    assert!(matches!(run(&mut storage, write(file)), Ok(Output::Done)));
    assert_eq!(disk.contents("a").expect("it is there"), data[..]);
}

#[test]
fn a_write_goes_elsewhere() {
    let (disk, data) = disk();
    let faults = Faults {
        misdirected_write: 1.0,
        ..Faults::default()
    };
    let (mut storage, file) = faulty(&disk, faults, 3);
    assert!(matches!(run(&mut storage, write(file)), Ok(Output::Done)));
    let contents = disk.durable_contents("a").expect("it is there");
    let blocks = contents.chunks(4096).zip(data.chunks(4096)).enumerate();
    let changed: Vec<_> = blocks
        .filter(|(_, (new, old))| new != old)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(changed.len(), 1);
    assert_ne!(changed, [1], "where it was meant to go");
    assert_eq!(contents[changed[0] * 4096..][..4096], new_block()[..]);
}

#[test]
fn what_breaks_the_contract_is_refused_and_not_garbled() {
    let (disk, _) = disk();
    let faults = Faults {
        write_error: 1.0,
        sync_error: 1.0,
        ..Faults::default()
    };
    let (mut storage, file) = faulty(&disk, faults, 1);
    let misaligned = Op::Write {
        file,
        offset: 1,
        data: new_block(),
    };
    for op in [misaligned, Op::Sync { file: FileId(0) }] {
        assert!(matches!(
            run(&mut storage, op),
            Err(StorageError::Invalid { .. })
        ));
    }
}

#[test]
fn a_power_cut_tears_at_the_given_rate() {
    let mut torn = 0;
    for seed in 0..50 {
        let (disk, data) = disk();
        let faults = Faults {
            crash_tears: 1.0,
            ..Faults::default()
        };
        let (mut storage, file) = faulty(&disk, faults, seed);
        storage.submit(Token(1), write(file));
        storage.flush();
        storage.power_cut();
        let contents = disk.contents("a").expect("it is there");
        let mut new = 0;
        for (at, sector) in contents[4096..8192].chunks(512).enumerate() {
            let is_new = sector == &new_block()[..512];
            assert!(is_new || sector == &data[4096 + at * 512..][..512]);
            new += usize::from(is_new);
        }
        torn += usize::from(0 < new && new < 8);
    }
    assert!(torn > 25, "torn in {torn} of 50 runs");
}

/// All that a storage did, as text.
fn trace(seed: u64) -> String {
    let disk = MemoryDisk::new();
    let faults = Faults {
        delay_max: Duration::from_millis(5),
        read_error: 0.1,
        write_error: 0.1,
        sync_error: 0.1,
        read_flip: 0.1,
        rest_flip: 0.1,
        lost_write: 0.1,
        misdirected_write: 0.1,
        crash_keeps: 0.3,
        crash_tears: 0.3,
        ..Faults::default()
    };
    let mut life = Driver::new(Box::new(MemoryStorage::new(&disk)));
    life.create("a", BLOCKS);
    life.sync_dir("");
    drop(life);
    let (mut storage, file) = faulty(&disk, faults, seed);
    let mut out = Vec::new();
    for round in 0..100u64 {
        let offset = round % BLOCKS * 4096;
        let data = Buffer::aligned_copy(&[round as u8; 4096], 4096);
        storage.submit(Token(3 * round), Op::Write { file, offset, data });
        storage.submit(
            Token(3 * round + 1),
            Op::Read {
                file,
                offset,
                len: 4096,
            },
        );
        storage.submit(Token(3 * round + 2), Op::Sync { file });
        storage.flush();
        storage.set_now(Duration::from_millis(round));
        storage.poll(&mut out);
    }
    let now = storage.next_due();
    storage.power_cut();
    let contents = disk.contents("a").expect("it is there");
    let reads = |completion: &Completion| match &completion.result {
        Ok(Output::Read(data)) => data.to_vec(),
        _ => Vec::new(),
    };
    let read: Vec<_> = out.iter().map(reads).collect();
    format!("{now:?} {out:?} {read:?} {contents:?}")
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..5 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(0), trace(1));
}

#[test]
#[should_panic(expected = "is no probability")]
fn a_rate_above_one_is_refused() {
    let _ = FaultyStorage::new(
        &MemoryDisk::new(),
        Faults {
            read_flip: 1.5,
            ..Faults::default()
        },
        1,
    );
}

//! What every storage must do, whatever it lies on.

use highwater_log::storage::{Op, Output, Preparation, READ_BYTES_MAX, StorageError, Token};
use highwater_record::Buffer;

use crate::driver::Subject;

fn path(path: &str) -> String {
    path.to_owned()
}

macro_rules! refused {
    ($driver:expr, $op:expr, $kind:ident) => {
        match $driver.fails($op) {
            StorageError::$kind { .. } => {}
            other => panic!("{other:?} instead of {}", stringify!($kind)),
        }
    };
}

pub(crate) fn create_makes_the_whole_file(subject: &Subject) {
    let mut disk = subject.open();
    for (name, preparation) in [("z", Preparation::Zero), ("p", Preparation::Preallocate)] {
        let first = disk.blocks(1, 7);
        let len = 300 * disk.block();
        disk.done(Op::Create {
            path: path(name),
            len,
            preparation,
            first: first.clone(),
        });
        let (file, opened) = disk.open(name);
        assert_eq!(opened, len);
        let data = disk.read(file, 0, 300);
        let (head, rest) = data.split_at(first.len());
        assert_eq!(head, &first[..]);
        assert_eq!(rest.len() as u64, len - disk.block());
        assert!(rest.iter().all(|byte| *byte == 0), "the rest is zeros");
    }
}

pub(crate) fn create_refuses_what_is_there(subject: &Subject) {
    let mut disk = subject.open();
    disk.create("a", 2);
    disk.done(Op::MakeDir { path: path("d") });
    refused!(disk, disk.create_op("a", 1, Preparation::Zero), Exists);
    refused!(disk, disk.create_op("d", 1, Preparation::Zero), Exists);
    assert_eq!(
        disk.open("a").1,
        2 * disk.block(),
        "the old file is untouched"
    );
}

pub(crate) fn create_refuses_bad_sizes(subject: &Subject) {
    let mut disk = subject.open();
    let create = |len, first| Op::Create {
        path: path("a"),
        len,
        preparation: Preparation::Zero,
        first,
    };
    refused!(disk, create(0, Buffer::default()), Invalid);
    refused!(disk, create(disk.block() + 1, Buffer::default()), Invalid);
    refused!(disk, create(disk.block(), disk.blocks(2, 1)), Invalid);
    refused!(
        disk,
        create(disk.block(), disk.blocks(1, 1).slice(1..)),
        Invalid
    );
    assert!(disk.names("").is_empty(), "nothing is left behind");
}

pub(crate) fn what_is_written_is_read_back(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 8);
    let (one, two) = (disk.blocks(3, 1), disk.blocks(2, 2));
    disk.write(file, 1, &one);
    disk.write(file, 5, &two);
    disk.write(file, 2, &two);
    let all = disk.read(file, 0, 8);
    let block = disk.alignment();
    assert!(all[..block].iter().all(|byte| *byte == 0));
    assert_eq!(all[block..2 * block], one[..block]);
    assert_eq!(all[2 * block..4 * block], two[..]);
    assert!(all[4 * block..5 * block].iter().all(|byte| *byte == 0));
    assert_eq!(all[5 * block..7 * block], two[..]);
    assert_eq!(disk.read(file, 6, 1)[..], two[block..]);
}

pub(crate) fn a_large_write_is_whole(subject: &Subject) {
    let mut disk = subject.open();
    let blocks = (9 << 20) / disk.alignment();
    let file = disk.create_and_open("a", blocks as u64);
    let data = disk.blocks(blocks, 3);
    disk.write(file, 0, &data);
    assert!(disk.read(file, 0, blocks)[..] == data[..]);
}

pub(crate) fn a_part_of_a_shared_buffer_can_be_written(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 4);
    let data = disk.blocks(4, 9);
    let block = disk.alignment();
    disk.write(file, 0, &data.slice(2 * block..4 * block));
    assert_eq!(disk.read(file, 0, 2)[..], data[2 * block..]);
}

pub(crate) fn a_read_ends_with_the_file(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 3);
    disk.write(file, 0, &disk.blocks(3, 4));
    assert_eq!(
        disk.read(file, 2, 8)[..],
        disk.blocks(3, 4)[2 * disk.alignment()..]
    );
    assert_eq!(disk.read(file, 3, 1).len(), 0);
    assert_eq!(disk.read(file, 100, 1).len(), 0);
}

pub(crate) fn a_file_cut_at_any_byte_reads_to_its_end(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 3);
    let data = disk.blocks(3, 4);
    disk.write(file, 0, &data);
    disk.done(Op::Close { file });
    let len = disk.block() + 777;
    (subject.resize)("a", len);
    let (file, opened) = disk.open("a");
    assert_eq!(opened, len);
    assert_eq!(disk.read(file, 0, 3)[..], data[..disk.alignment() + 777]);
    assert_eq!(
        disk.read(file, 1, 1)[..],
        data[disk.alignment()..disk.alignment() + 777]
    );
    assert_eq!(disk.read(file, 2, 1).len(), 0);
}

pub(crate) fn misaligned_is_refused(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 8);
    let block = disk.alignment();
    let two = disk.blocks(2, 1);
    let write = |offset, data: Buffer| Op::Write { file, offset, data };
    refused!(disk, write(1, two.clone()), Invalid);
    refused!(disk, write(0, two.slice(..block + 1)), Invalid);
    refused!(disk, write(0, two.slice(8..block + 8)), Invalid);
    refused!(disk, write(0, Buffer::default()), Invalid);
    let read = |offset, len| Op::Read { file, offset, len };
    refused!(disk, read(1, block), Invalid);
    refused!(disk, read(0, block - 1), Invalid);
    refused!(disk, read(0, 0), Invalid);
    refused!(disk, read(0, READ_BYTES_MAX + block), Invalid);
    refused!(disk, read(u64::MAX - disk.block() + 1, 2 * block), Invalid);
    refused!(disk, Op::Truncate { file, len: 1 }, Invalid);
    assert!(
        disk.read(file, 0, 8).iter().all(|byte| *byte == 0),
        "nothing was written"
    );
}

pub(crate) fn a_write_stays_within_the_file(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 2);
    let two = disk.blocks(2, 1);
    refused!(
        disk,
        Op::Write {
            file,
            offset: disk.block(),
            data: two.clone()
        },
        Invalid
    );
    refused!(
        disk,
        Op::Write {
            file,
            offset: 2 * disk.block(),
            data: two.clone()
        },
        Invalid
    );
    let end = u64::MAX - disk.block() + 1;
    refused!(
        disk,
        Op::Write {
            file,
            offset: end,
            data: two
        },
        Invalid
    );
    assert_eq!(disk.open("a").1, 2 * disk.block());
}

pub(crate) fn what_is_not_there_is_not_found(subject: &Subject) {
    let mut disk = subject.open();
    disk.done(Op::MakeDir { path: path("d") });
    disk.create("a", 1);
    refused!(
        disk,
        Op::Open {
            path: path("x"),
            write: false
        },
        NotFound
    );
    refused!(
        disk,
        Op::Open {
            path: path("x/y"),
            write: true
        },
        NotFound
    );
    refused!(
        disk,
        Op::Open {
            path: path("d"),
            write: false
        },
        NotFound
    );
    refused!(
        disk,
        Op::Open {
            path: path("a/b"),
            write: false
        },
        NotFound
    );
    refused!(disk, Op::Unlink { path: path("x") }, NotFound);
    refused!(disk, Op::Unlink { path: path("d") }, NotFound);
    refused!(
        disk,
        Op::Rename {
            from: path("x"),
            to: path("y")
        },
        NotFound
    );
    refused!(
        disk,
        Op::Rename {
            from: path("a"),
            to: path("x/a")
        },
        NotFound
    );
    refused!(
        disk,
        Op::Protect {
            path: path("x"),
            read_only: true
        },
        NotFound
    );
    refused!(disk, Op::Map { path: path("x") }, NotFound);
    refused!(disk, Op::Map { path: path("d") }, NotFound);
    refused!(disk, Op::List { path: path("x") }, NotFound);
    refused!(disk, Op::List { path: path("a") }, NotFound);
    refused!(disk, Op::SyncDir { path: path("x") }, NotFound);
    refused!(disk, Op::RemoveDir { path: path("x") }, NotFound);
    refused!(disk, Op::RemoveDir { path: path("a") }, NotFound);
    refused!(disk, Op::MakeDir { path: path("x/y") }, NotFound);
    refused!(disk, disk.create_op("x/y", 1, Preparation::Zero), NotFound);
    assert_eq!(disk.names(""), ["a", "d"]);
}

pub(crate) fn paths_do_not_leave_the_directory(subject: &Subject) {
    let mut disk = subject.open();
    for bad in ["../a", "/etc/hostname", "a/../../b", "", "a//b", "a\0b"] {
        refused!(disk, disk.create_op(bad, 1, Preparation::Zero), Invalid);
        refused!(
            disk,
            Op::Open {
                path: path(bad),
                write: false
            },
            Invalid
        );
        refused!(disk, Op::Unlink { path: path(bad) }, Invalid);
        refused!(disk, Op::Map { path: path(bad) }, Invalid);
        refused!(disk, Op::MakeDir { path: path(bad) }, Invalid);
        refused!(disk, Op::RemoveDir { path: path(bad) }, Invalid);
        refused!(
            disk,
            Op::Protect {
                path: path(bad),
                read_only: true
            },
            Invalid
        );
        refused!(
            disk,
            Op::Rename {
                from: path(bad),
                to: path("b")
            },
            Invalid
        );
        refused!(
            disk,
            Op::Rename {
                from: path("b"),
                to: path(bad)
            },
            Invalid
        );
        if !bad.is_empty() {
            refused!(disk, Op::List { path: path(bad) }, Invalid);
            refused!(disk, Op::SyncDir { path: path(bad) }, Invalid);
        }
    }
}

pub(crate) fn an_id_ends_with_its_file(subject: &Subject) {
    let mut disk = subject.open();
    let old = disk.create_and_open("a", 1);
    disk.done(Op::Close { file: old });
    let new = disk.create_and_open("b", 1);
    let block = disk.alignment();
    refused!(
        disk,
        Op::Read {
            file: old,
            offset: 0,
            len: block
        },
        Invalid
    );
    refused!(
        disk,
        Op::Write {
            file: old,
            offset: 0,
            data: disk.blocks(1, 1)
        },
        Invalid
    );
    refused!(disk, Op::Sync { file: old }, Invalid);
    refused!(disk, Op::Truncate { file: old, len: 0 }, Invalid);
    refused!(disk, Op::Close { file: old }, Invalid);
    assert!(disk.read(new, 0, 1).iter().all(|byte| *byte == 0));
}

pub(crate) fn closing_waits_for_what_was_submitted(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1);
    let data = disk.blocks(1, 5);
    disk.submit(Op::Write {
        file,
        offset: 0,
        data: data.clone(),
    });
    disk.submit(Op::Close { file });
    for (token, answer) in disk.collect() {
        assert!(answer.is_ok(), "{token:?}: {answer:?}");
    }
    let (file, _) = disk.open("a");
    assert_eq!(disk.read(file, 0, 1), data);
}

pub(crate) fn an_unlinked_file_is_closed_in_the_middle_of_a_write(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1);
    disk.sync_dir("");
    disk.done(Op::Unlink { path: path("a") });
    disk.sync_dir("");
    disk.submit(Op::Write {
        file,
        offset: 0,
        data: disk.blocks(1, 5),
    });
    disk.submit(Op::Close { file });
    for (token, answer) in disk.collect() {
        assert!(answer.is_ok(), "{token:?}: {answer:?}");
    }
}

pub(crate) fn an_id_for_reading_changes_nothing(subject: &Subject) {
    let mut disk = subject.open();
    disk.create("a", 1);
    let file = match disk.run(Op::Open {
        path: path("a"),
        write: false,
    }) {
        Ok(Output::Opened {
            file,
            read_only: false,
            ..
        }) => file,
        other => panic!("{other:?}"),
    };
    refused!(
        disk,
        Op::Write {
            file,
            offset: 0,
            data: disk.blocks(1, 1)
        },
        Invalid
    );
    let (offset, len) = (0, disk.block());
    refused!(disk, Op::Zero { file, offset, len }, Invalid);
    refused!(disk, Op::Truncate { file, len: 0 }, Invalid);
    refused!(disk, Op::Sync { file }, Invalid);
    assert_eq!(disk.read(file, 0, 1).len(), disk.alignment());
}

pub(crate) fn the_next_life_finds_what_was_written(subject: &Subject) {
    let mut disk = subject.open();
    let data = disk.blocks(2, 8);
    disk.done(Op::MakeDir { path: path("d") });
    let file = disk.create_and_open("d/a", 4);
    disk.write(file, 1, &data);
    drop(disk);
    let mut disk = subject.open();
    let (file, len) = disk.open("d/a");
    assert_eq!(len, 4 * disk.block());
    assert_eq!(disk.read(file, 1, 2), data);
}

pub(crate) fn a_life_may_end_in_the_middle(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 64);
    for block in 0..64 {
        let data = disk.blocks(1, 1);
        let offset = block * disk.block();
        disk.submit(Op::Write { file, offset, data });
    }
    disk.submit(disk.create_op("b", 1000, Preparation::Zero));
    disk.storage().flush();
    drop(disk);
    let mut disk = subject.open();
    let (file, _) = disk.open("a");
    let whole = disk.blocks(1, 1);
    for block in 0..64 {
        let data = disk.read(file, block, 1);
        assert!(
            data == whole || data.iter().all(|byte| *byte == 0),
            "block {block}"
        );
    }
}

pub(crate) fn an_unlinked_file_lives_until_it_is_closed(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1);
    disk.done(Op::Unlink { path: path("a") });
    disk.sync_dir("");
    refused!(
        disk,
        Op::Open {
            path: path("a"),
            write: false
        },
        NotFound
    );
    let data = disk.blocks(1, 6);
    disk.write(file, 0, &data);
    assert_eq!(disk.read(file, 0, 1), data);
    disk.create("a", 2);
    assert_eq!(
        disk.read(file, 0, 1),
        data,
        "the new file of that name is another"
    );
    disk.done(Op::Close { file });
    assert_eq!(disk.open("a").1, 2 * disk.block());
}

pub(crate) fn rename_replaces(subject: &Subject) {
    let mut disk = subject.open();
    disk.done(Op::MakeDir { path: path("d") });
    let new = disk.create_and_open("new", 1);
    let old = disk.create_and_open("d/old", 2);
    let data = disk.blocks(1, 2);
    disk.write(new, 0, &data);
    disk.done(Op::Rename {
        from: path("new"),
        to: path("d/old"),
    });
    disk.sync_dir("");
    disk.sync_dir("d");
    assert_eq!(disk.names(""), ["d"]);
    assert_eq!(disk.names("d"), ["old"]);
    let (file, len) = disk.open("d/old");
    assert_eq!(len, disk.block());
    assert_eq!(disk.read(file, 0, 1), data);
    assert_eq!(disk.read(new, 0, 1), data, "the id goes with the file");
    assert_eq!(
        disk.read(old, 0, 2).len(),
        2 * disk.alignment(),
        "so does the replaced one's"
    );
}

pub(crate) fn directories_can_be_renamed(subject: &Subject) {
    let mut disk = subject.open();
    disk.done(Op::MakeDir { path: path("d") });
    disk.done(Op::MakeDir {
        path: path("quarantine"),
    });
    disk.create("d/a", 1);
    disk.done(Op::Rename {
        from: path("d"),
        to: path("quarantine/d"),
    });
    assert_eq!(disk.names("quarantine/d"), ["a"]);
    refused!(disk, Op::List { path: path("d") }, NotFound);
    refused!(
        disk,
        Op::Rename {
            from: path("quarantine"),
            to: path("quarantine/q")
        },
        Invalid
    );
}

pub(crate) fn lists_are_in_order(subject: &Subject) {
    let mut disk = subject.open();
    for name in ["b", "a10", "a9", "Z"] {
        disk.create(name, 1);
    }
    disk.done(Op::MakeDir { path: path("c") });
    disk.create("c/inner", 3);
    assert_eq!(disk.names(""), ["Z", "a10", "a9", "b", "c"]);
    let inner = &disk.list("c")[0];
    assert_eq!((inner.is_dir, inner.len), (false, 3 * disk.block()));
    let c = disk
        .list("")
        .into_iter()
        .find(|entry| entry.name == "c")
        .expect("listed");
    assert_eq!((c.name.as_str(), c.is_dir, c.len), ("c", true, 0));
}

pub(crate) fn directories_come_and_go(subject: &Subject) {
    let mut disk = subject.open();
    disk.done(Op::MakeDir { path: path("d") });
    disk.done(Op::MakeDir { path: path("d") });
    disk.done(Op::MakeDir { path: path("d/e") });
    disk.create("f", 1);
    refused!(disk, Op::MakeDir { path: path("f") }, Exists);
    refused!(disk, Op::RemoveDir { path: path("d") }, Exists);
    disk.done(Op::RemoveDir { path: path("d/e") });
    disk.done(Op::RemoveDir { path: path("d") });
    disk.sync_dir("");
    assert_eq!(disk.names(""), ["f"]);
}

pub(crate) fn sync_answers(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1);
    disk.done(Op::Sync { file });
    disk.write(file, 0, &disk.blocks(1, 1));
    disk.done(Op::Sync { file });
    disk.sync_dir("");
}

pub(crate) fn truncate_cuts(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 4);
    let data = disk.blocks(4, 1);
    disk.write(file, 0, &data);
    disk.done(Op::Truncate {
        file,
        len: 2 * disk.block(),
    });
    assert_eq!(disk.read(file, 0, 4)[..], data[..2 * disk.alignment()]);
    let offset = 2 * disk.block();
    refused!(
        disk,
        Op::Write {
            file,
            offset,
            data: disk.blocks(1, 1)
        },
        Invalid
    );
    disk.done(Op::Close { file });
    assert_eq!(disk.open("a").1, 2 * disk.block());
}

pub(crate) fn a_cut_is_seen_by_all_ids_of_the_file(subject: &Subject) {
    let mut disk = subject.open();
    let one = disk.create_and_open("a", 4);
    let (two, _) = disk.open("a");
    disk.done(Op::Truncate {
        file: one,
        len: disk.block(),
    });
    let (offset, data) = (disk.block(), disk.blocks(1, 1));
    refused!(
        disk,
        Op::Write {
            file: two,
            offset,
            data
        },
        Invalid
    );
    disk.done(Op::Truncate { file: two, len: 0 });
}

pub(crate) fn what_was_not_written_can_be_zeroed(subject: &Subject) {
    let mut disk = subject.open();
    disk.done(disk.create_op("a", 4, Preparation::Preallocate));
    let (file, _) = disk.open("a");
    let data = disk.blocks(1, 3);
    disk.write(file, 0, &data);
    let block = disk.block();
    let zero = |offset, len| Op::Zero { file, offset, len };
    disk.done(zero(block, 2 * block));
    refused!(disk, zero(block, 0), Invalid);
    refused!(disk, zero(block + 1, block), Invalid);
    refused!(disk, zero(block, block - 1), Invalid);
    refused!(disk, zero(3 * block, 2 * block), Invalid);
    refused!(disk, zero(u64::MAX - block + 1, 2 * block), Invalid);
    disk.write(file, 2, &data);
    let (file, len) = disk.open("a");
    assert_eq!(len, 4 * block);
    let read = disk.read(file, 0, 4);
    let zeros = vec![0; disk.alignment()];
    let expected = [&data[..], &zeros, &data[..], &zeros].concat();
    assert_eq!(read[..], expected);
}

pub(crate) fn a_file_can_be_made_longer(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 2);
    disk.write(file, 0, &disk.blocks(2, 7));
    disk.done(Op::Truncate {
        file,
        len: disk.block(),
    });
    disk.done(Op::Truncate {
        file,
        len: 3 * disk.block(),
    });
    let data = disk.blocks(1, 9);
    disk.write(file, 2, &data);
    let read = disk.read(file, 0, 3);
    let block = disk.alignment();
    assert_eq!(read[..block], disk.blocks(1, 7)[..]);
    assert!(read[block..2 * block].iter().all(|&byte| byte == 0));
    assert_eq!(read[2 * block..], data[..]);
}

pub(crate) fn a_protected_file_is_not_opened_for_writing(subject: &Subject) {
    let mut disk = subject.open();
    let writer = disk.create_and_open("a", 1);
    disk.done(Op::Protect {
        path: path("a"),
        read_only: true,
    });
    disk.write(writer, 0, &disk.blocks(1, 1));
    drop(disk);
    let mut disk = subject.open();
    refused!(
        disk,
        Op::Open {
            path: path("a"),
            write: true
        },
        ReadOnly
    );
    match disk.run(Op::Open {
        path: path("a"),
        write: false,
    }) {
        Ok(Output::Opened {
            read_only: true, ..
        }) => {}
        other => panic!("{other:?}"),
    }
    disk.done(Op::Protect {
        path: path("a"),
        read_only: false,
    });
    disk.open("a");
    disk.done(Op::Protect {
        path: path("a"),
        read_only: true,
    });
    disk.done(Op::Unlink { path: path("a") });
}

pub(crate) fn a_mapping_shows_the_file_and_outlives_it(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 300);
    let data = disk.blocks(300, 5);
    disk.write(file, 0, &data);
    disk.done(Op::Close { file });
    let mapping = disk.map("a");
    let len = mapping.bytes().len();
    assert_eq!(len, data.len());
    disk.done(Op::Populate {
        mapping: mapping.clone(),
        offset: 0,
        len,
    });
    disk.done(Op::Populate {
        mapping: mapping.clone(),
        offset: 12_345,
        len: 1,
    });
    disk.done(Op::Populate {
        mapping: mapping.clone(),
        offset: len,
        len: 0,
    });
    refused!(
        disk,
        Op::Populate {
            mapping: mapping.clone(),
            offset: 1,
            len
        },
        Invalid
    );
    refused!(
        disk,
        Op::Populate {
            mapping: mapping.clone(),
            offset: usize::MAX,
            len: 2
        },
        Invalid
    );
    assert!(mapping.bytes() == &data[..]);
    disk.done(Op::Unlink { path: path("a") });
    drop(disk);
    assert!(mapping.bytes() == &data[..], "also after its storage");
}

pub(crate) fn nothing_cannot_be_mapped(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1);
    disk.done(Op::Truncate { file, len: 0 });
    refused!(disk, Op::Map { path: path("a") }, Invalid);
}

pub(crate) fn space_is_told(subject: &Subject) {
    let mut disk = subject.open();
    match disk.run(Op::Space) {
        Ok(Output::Space { available, total }) => {
            assert!(
                0 < available && available <= total,
                "{available} of {total}"
            );
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn wait_returns_when_nothing_is_in_flight(subject: &Subject) {
    let mut disk = subject.open();
    disk.storage().wait();
    assert_eq!(disk.storage().in_flight(), 0);
    disk.submit(Op::Space);
    assert_eq!(disk.storage().in_flight(), 1);
    disk.storage().wait();
    disk.storage().wait();
    assert_eq!(disk.storage().in_flight(), 1, "until it is handed out");
    assert_eq!(disk.collect().len(), 1);
    disk.storage().wait();
}

pub(crate) fn everything_completes_once(subject: &Subject) {
    let mut disk = subject.open();
    let block = disk.alignment();
    let files: Vec<_> = (0..8)
        .map(|n| disk.create_and_open(&format!("f{n}"), 64))
        .collect();
    let mut sent = 0;
    for round in 0..20u64 {
        for (file, seed) in files.iter().copied().zip(0u8..) {
            let offset = round * disk.block();
            let data = disk.blocks(1, seed ^ round as u8);
            disk.submit(Op::Write { file, offset, data });
            disk.submit(Op::Read {
                file,
                offset: 63 * disk.block(),
                len: block,
            });
            disk.submit(Op::Read {
                file,
                offset: 3,
                len: block,
            });
            disk.submit(Op::Sync { file });
            disk.submit(Op::Open {
                path: path("missing"),
                write: false,
            });
            disk.submit(Op::SyncDir { path: path("") });
            sent += 6;
            if seed % 3 == 0 {
                disk.storage().flush();
            }
        }
    }
    let answers = disk.collect();
    assert_eq!(answers.len(), sent);
    for (Token(token), answer) in answers {
        let refused = matches!(token.wrapping_sub(16) % 6, 2 | 4);
        assert_eq!(answer.is_err(), refused, "{token}: {answer:?}");
    }
    for (file, seed) in files.iter().copied().zip(0u8..) {
        for round in 0..20u64 {
            let expected = disk.blocks(1, seed ^ round as u8);
            assert_eq!(
                disk.read(file, round, 1),
                expected,
                "file {seed} block {round}"
            );
        }
    }
}

pub(crate) fn many_writes_to_one_file_overlap_in_time(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 1500);
    for block in 0..1500u64 {
        let data = disk.blocks(1, (block % 251) as u8);
        disk.submit(Op::Write {
            file,
            offset: block * disk.block(),
            data,
        });
    }
    for (token, answer) in disk.collect() {
        assert!(matches!(answer, Ok(Output::Done)), "{token:?}: {answer:?}");
    }
    for block in (0..1500).step_by(7) {
        assert_eq!(
            disk.read(file, block, 1),
            disk.blocks(1, (block % 251) as u8)
        );
    }
}

pub(crate) fn counters_count(subject: &Subject) {
    let mut disk = subject.open();
    let file = disk.create_and_open("a", 4);
    disk.write(file, 0, &disk.blocks(2, 1));
    disk.read(file, 2, 4);
    disk.fails(Op::Sync {
        file: highwater_log::storage::FileId(0),
    });
    let counters = disk.counters();
    assert_eq!(
        (counters.submitted, counters.completed, counters.failed),
        (5, 5, 1)
    );
    assert_eq!(counters.bytes_written, 2 * disk.block());
    assert_eq!(counters.bytes_read, 2 * disk.block());
}

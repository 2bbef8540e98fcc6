//! What only storages on a real file system must do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use highwater_log::storage::{
    Access, Choice, DataDirectory, FileId, Op, OpenError, Output, PortableStorage, Preparation,
    RealStorage, Storage, StorageError, Token,
};
use highwater_record::{Budget, Buffer, BufferPool};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::driver::Driver;
use crate::subject::Scratch;

fn mode(path: &Path) -> u32 {
    let found = std::fs::metadata(path).expect("it is there");
    found.permissions().mode() & 0o777
}

fn portable(directory: std::sync::Arc<DataDirectory>, budget: usize) -> PortableStorage {
    let pool = BufferPool::new(Budget::new(budget), directory.alignment());
    PortableStorage::new(directory, pool).expect("threads are left")
}

#[test]
fn files_and_directories_are_for_their_owner_alone() {
    let scratch = Scratch::new();
    let mut disk = Driver::new(Box::new(portable(scratch.open(), 1 << 20)));
    disk.done(Op::MakeDir { path: "d".into() });
    disk.create("d/a", 1);
    assert_eq!(mode(scratch.path()), 0o700);
    assert_eq!(mode(&scratch.path().join("d")), 0o700);
    assert_eq!(mode(&scratch.path().join("d/a")), 0o600);
    disk.done(Op::Protect {
        path: "d/a".into(),
        read_only: true,
    });
    assert_eq!(mode(&scratch.path().join("d/a")), 0o400);
}

#[test]
fn what_is_opened_to_look_at_is_not_changed() {
    let scratch = Scratch::new();
    let mut disk = Driver::new(Box::new(portable(scratch.open(), 1 << 20)));
    disk.create("a", 2);
    drop(disk);
    let directory = DataDirectory::open(scratch.path(), Access::ReadOnly).expect("unlocked");
    let mut disk = Driver::new(Box::new(portable(directory, 1 << 20)));
    let path = || "a".to_owned();
    for op in [
        disk.create_op("b", 1, Preparation::Zero),
        Op::Open {
            path: path(),
            write: true,
        },
        Op::Protect {
            path: path(),
            read_only: true,
        },
        Op::Rename {
            from: path(),
            to: "b".into(),
        },
        Op::Unlink { path: path() },
        Op::MakeDir { path: "d".into() },
        Op::RemoveDir { path: "d".into() },
        Op::SyncDir {
            path: String::new(),
        },
    ] {
        let refused = disk.fails(op);
        assert!(
            matches!(refused, StorageError::ReadOnly { .. }),
            "{refused:?}"
        );
    }
    assert_eq!(disk.names(""), ["a"]);
    assert_eq!(disk.map("a").bytes().len(), 2 * disk.alignment());
}

#[test]
fn a_read_beyond_the_budget_is_refused_and_can_be_tried_again() {
    let scratch = Scratch::new();
    let mut disk = Driver::new(Box::new(portable(scratch.open(), 64 << 10)));
    let file = disk.create_and_open("a", 32);
    let len = 32 * disk.alignment();
    let refused = disk.fails(Op::Read {
        file,
        offset: 0,
        len,
    });
    assert!(
        matches!(refused, StorageError::Resources { .. }),
        "{refused:?}"
    );
    assert_eq!(disk.read(file, 0, 4).len(), 4 * disk.alignment());
}

/// The descriptor must rise for every completion that `poll` has not seen, or a thread that
/// sleeps on it sleeps for ever; and must fall, or it never sleeps.
fn the_event_tells_of_completions(storage: &mut RealStorage) {
    let event = storage
        .event_fd()
        .try_clone_to_owned()
        .expect("descriptors are left");
    let readable = |seconds: i64| {
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&timeout)).expect("it can be polled") == 1
    };
    let file = a_file_of(storage);
    let data = Buffer::aligned_copy(&[7; 4096], 4096);
    let mut out = Vec::new();
    for round in 0..200 {
        storage.submit(Token(round), Op::Space);
        storage.submit(
            Token(round),
            Op::Write {
                file,
                offset: 0,
                data: data.clone(),
            },
        );
        storage.submit(
            Token(round),
            Op::Read {
                file,
                offset: 4096,
                len: 4096,
            },
        );
        storage.submit(
            Token(round),
            Op::Read {
                file: FileId(0),
                offset: 0,
                len: 4096,
            },
        );
        storage.flush();
        while storage.in_flight() > 0 {
            assert!(readable(60), "round {round}: nothing woke us");
            storage.poll(&mut out);
        }
    }
    assert_eq!(out.len(), 800);
    // A signal may come after its completion was seen: each costs one look, then there is rest.
    let looks = (0..1000)
        .take_while(|_| readable(0))
        .map(|_| storage.poll(&mut out))
        .count();
    assert!(looks < 1000, "the event is not taken back");
}

fn a_file_of(storage: &mut RealStorage) -> FileId {
    let (path, preparation, first) = ("a".to_owned(), Preparation::Zero, Buffer::default());
    let create = Op::Create {
        path: path.clone(),
        len: 1 << 20,
        preparation,
        first,
    };
    let mut out = Vec::new();
    for op in [create, Op::Open { path, write: true }] {
        storage.submit(Token(0), op);
        storage.wait();
        storage.poll(&mut out);
    }
    match out.pop().map(|completion| completion.result) {
        Some(Ok(Output::Opened { file, .. })) => file,
        other => panic!("{other:?}"),
    }
}

/// The storage of this choice, or nothing where the kernel refuses a ring.
fn open_real(scratch: &Scratch, choice: Choice) -> Option<RealStorage> {
    let directory = scratch.open();
    let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
    match RealStorage::open(directory, pool, choice) {
        Ok((storage, _)) => Some(storage),
        Err(why @ (OpenError::NoRing { .. } | OpenError::Buffered { .. })) => {
            println!("skipped: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_portable_event_tells_of_completions() {
    let scratch = Scratch::new();
    let mut storage = open_real(&scratch, Choice::Portable).expect("it is everywhere");
    the_event_tells_of_completions(&mut storage);
}

#[test]
fn the_rings_event_tells_of_completions() {
    let scratch = Scratch::new();
    if let Some(mut storage) = open_real(&scratch, Choice::Uring) {
        the_event_tells_of_completions(&mut storage);
    }
}

#[test]
fn a_flush_is_one_submission_to_the_ring() {
    let scratch = Scratch::new();
    let Some(mut storage) = open_real(&scratch, Choice::Uring) else {
        return;
    };
    let file = a_file_of(&mut storage);
    let data = Buffer::aligned_copy(&[7; 4096], 4096);
    let before = storage.counters();
    for block in 0..200 {
        storage.submit(
            Token(block),
            Op::Write {
                file,
                offset: block * 4096,
                data: data.clone(),
            },
        );
    }
    assert_eq!(storage.counters().ring_submissions, before.ring_submissions);
    storage.flush();
    assert_eq!(
        storage.counters().ring_submissions,
        before.ring_submissions + 1
    );
    let mut out = Vec::new();
    while storage.in_flight() > 0 {
        storage.wait();
        storage.poll(&mut out);
    }
    assert_eq!(storage.counters().ring_completions, 200);
    assert_eq!(out.len(), 200);
}

#[test]
fn without_a_ring_there_is_always_the_portable_one() {
    let scratch = Scratch::new();
    let directory = scratch.open();
    let pool = BufferPool::new(Budget::new(1 << 20), directory.alignment());
    let (storage, why) = RealStorage::open(directory, pool, Choice::Auto).expect("one of them");
    assert_eq!(storage.name() == "portable", why.is_some(), "{why:?}");
    assert_eq!(storage.directory().path(), scratch.path());
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new();
    let outside = tempfile::NamedTempFile::new().expect("a temporary file");
    let link = scratch.path().join("a");
    std::os::unix::fs::symlink(outside.path(), link).expect("a link");
    let mut disk = Driver::new(Box::new(portable(scratch.open(), 1 << 20)));
    for write in [false, true] {
        let refused = disk.fails(Op::Open {
            path: "a".into(),
            write,
        });
        assert!(
            matches!(refused, StorageError::NotFound { .. }),
            "{refused:?}"
        );
    }
    let refused = disk.fails(Op::Map { path: "a".into() });
    assert!(
        matches!(refused, StorageError::NotFound { .. }),
        "{refused:?}"
    );
}

#[test]
fn a_name_that_is_no_text_is_reported() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let name = std::ffi::OsStr::from_bytes(b"\xFF");
    std::fs::write(scratch.path().join(name), "").expect("any bytes are a name");
    let mut disk = Driver::new(Box::new(portable(scratch.open(), 1 << 20)));
    let refused = disk.fails(Op::List {
        path: String::new(),
    });
    assert!(matches!(refused, StorageError::Io { .. }), "{refused:?}");
}

#[test]
fn a_storage_that_is_dropped_ends_its_threads_and_frees_the_lock() {
    let scratch = Scratch::new();
    for _ in 0..20 {
        let mut storage = portable(scratch.open(), 1 << 20);
        for token in 0..50 {
            let first = Buffer::default();
            let (path, len) = (format!("f{token}"), 64 << 10);
            let preparation = Preparation::Zero;
            storage.submit(
                Token(token),
                Op::Create {
                    path,
                    len,
                    preparation,
                    first,
                },
            );
        }
        storage.flush();
    }
    scratch.open();
}

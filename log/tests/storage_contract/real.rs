//! What only storages on a real file system must do.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use highwater_log::storage::{
    Access, DataDirectory, Op, PortableStorage, Preparation, Storage, StorageError, Token,
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
fn the_event_tells_of_completions<S: Storage + ?Sized>(storage: &mut S, event: &dyn AsFd) {
    let readable = |timeout: i64| {
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: timeout,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&timeout)).expect("it can be polled") == 1
    };
    let mut out = Vec::new();
    for round in 0..300 {
        for part in 0..3 {
            storage.submit(Token(round * 3 + part), Op::Space);
        }
        storage.flush();
        while storage.in_flight() > 0 {
            assert!(readable(60), "round {round}: nothing woke us");
            storage.poll(&mut out);
        }
    }
    assert_eq!(out.len(), 900);
    // A signal may come after its completion was seen: each costs one look, then there is rest.
    let looks = (0..1000)
        .take_while(|_| readable(0))
        .map(|_| storage.poll(&mut out))
        .count();
    assert!(looks < 1000, "the event is not taken back");
}

#[test]
fn the_portable_event_tells_of_completions() {
    let scratch = Scratch::new();
    let mut storage = portable(scratch.open(), 1 << 20);
    let event = storage
        .event_fd()
        .try_clone_to_owned()
        .expect("descriptors are left");
    the_event_tells_of_completions(&mut storage, &event);
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

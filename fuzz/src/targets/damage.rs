//! A data directory that was whole, and is damaged in some places.

use std::sync::LazyLock;

use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{
    Alarm, Directory, EntryId, Event, Expected, Inspector, LogIndex, ReadError, RecoveredGroup,
    Term,
};

use super::script::Script;
use crate::common::damage::{LAST, written_disk};
use crate::common::{GROUP, HALF_BYTES, Node, check_body, config, open_store};

/// How many places are damaged at most.
const PLACES_MAX: usize = 8;

/// What a file may be lengthened to, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// With the files in it, in order.
static WRITTEN: LazyLock<(MemoryDisk, Vec<String>)> = LazyLock::new(|| {
    let disk = written_disk();
    let mut files = disk.files();
    files.retain(|path| path.starts_with("groups/") || path.starts_with("journal/"));
    (disk, files)
});

/// The last entry of term 1; all behind it is of term 2.
const LAST_OF_TERM_1: u64 = 40;

/// What is served is what was written. One damage is never a shorter log without a word.
pub(crate) fn check(data: &[u8]) {
    let (written, files) = &*WRITTEN;
    let disk = written.fork();
    let mut script = Script::new(data);
    let mut places = 0;
    while !script.is_over() && places < PLACES_MAX {
        damage(&disk, files, &mut script);
        places += 1;
    }
    look(&disk);
    let Some(found) = start(&disk) else { return };
    let has_all = found.served == LAST && found.group.as_ref().is_some_and(is_whole);
    let is_reported = !found.alarms.is_empty() || found.promises_lost;
    assert!(
        places > 1 || has_all || is_reported,
        "a shorter log, without a word"
    );
}

fn is_whole(group: &RecoveredGroup) -> bool {
    group.last == written_id(LAST) && group.hard_state.term == Term(2)
}

fn written_id(index: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(if index <= LAST_OF_TERM_1 { 1 } else { 2 }),
    }
}

/// Damages a place of a file.
fn damage(disk: &MemoryDisk, files: &[String], script: &mut Script<'_>) {
    let path = &files[script.place(files.len())];
    let bytes = disk.contents(path).expect("it is there");
    let len = bytes.len() as u64;
    let at = u64::from(script.u32()) % len.max(1);
    let room = usize::try_from(len - at).expect("files are small");
    match script.u8() % 6 {
        0 if bytes.is_empty() => {}
        0 => drop(disk.flip_bit(path, at * 8 + 3)),
        1 => {
            let noise = script.bytes(room);
            drop(disk.corrupt(path, at, noise));
        }
        2 => drop(disk.corrupt(path, at, &vec![0; usize::from(script.u16()).min(room)])),
        3 => drop(disk.resize_file(path, u64::from(script.u32()) % FILE_BYTES_MAX)),
        4 => {
            // What was meant for another place.
            let from = script.place(bytes.len() / 512) * 512;
            let to = from + usize::from(script.u16()).min(bytes.len() - from).min(room);
            drop(disk.corrupt(path, at / 512 * 512, &bytes[from..to]));
        }
        _ => drop(disk.corrupt(path, at, &[script.u8()])),
    }
}

/// What `log verify` and `log dump` do: they say what they can.
fn look(disk: &MemoryDisk) {
    let Ok(mut inspector) = Inspector::open(MemoryStorage::new(disk)) else {
        return;
    };
    for group in inspector.groups() {
        let _ = inspector.verify(group);
        let _ = inspector.walk(group, &mut |_, _| {});
    }
}

/// What a start has found.
struct Found {
    group: Option<RecoveredGroup>,
    alarms: Vec<Alarm>,
    promises_lost: bool,
    /// How many entries it has served.
    served: u64,
}

/// Starts a node, unless it refuses, and reads all that it has.
fn start(disk: &MemoryDisk) -> Option<Found> {
    let mut storage = MemoryStorage::new(disk);
    let directory = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES).ok()?;
    let mut alarms = directory.alarms().to_vec();
    let (mut node, recovered) = open_store(storage, config(), &directory).ok()?;
    alarms.extend(recovered.alarms);
    let group = recovered.groups.into_iter().find(|it| it.group == GROUP);
    let served = group.as_ref().map_or(0, |_| serve(&mut node));
    for event in std::mem::take(&mut node.events) {
        if let Event::Alarm(alarm) = event {
            alarms.push(alarm);
        }
    }
    Some(Found {
        group,
        alarms,
        promises_lost: directory.promises_lost(),
        served,
    })
}

fn serve(node: &mut Node) -> u64 {
    let start = node.store.start(GROUP).expect("it is there").position;
    let last = node.last(GROUP).index.0;
    assert!(last <= LAST, "{last} entries of {LAST}");
    let mut served = 0;
    for index in start.first().0..=last {
        match node.read(GROUP, index, 1) {
            Ok(entries) => {
                let entry = &entries[0];
                // What a lost file had cut away is there again; it was written too.
                let index = LogIndex(index);
                assert!(entry.id == written_id(index.0) || entry.id.index == index);
                check_body(entry);
                served += 1;
            }
            Err(
                ReadError::Quarantined { .. }
                | ReadError::Damaged { .. }
                | ReadError::BeyondEnd { .. }
                | ReadError::BelowStart { .. },
            ) => {}
            Err(other) => panic!("entry {index}: {other}"),
        }
    }
    served
}

//! `log dump` and `log verify` on a data directory that the log wrote.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use highwater_log::storage::{DataDirectory, PortableStorage, Storage};
use highwater_log::{
    ClusterId, Directory, DirectoryFormat, EntryId, EntryKind, Expected, GroupConfig, GroupId,
    HardState, Incarnation, LogIndex, NewEntry, NodeId, Store, StoreConfig, Term, WriteId,
};
use highwater_record::{
    Budget, Buffer, BufferPool, Compression, LeaderEpoch, Offset, RecordBatchBuilder, crc32c, stamp,
};
use serde_json::Value;

const GROUP: GroupId = GroupId(3);
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn entry(index: u64, codec: Compression) -> NewEntry {
    let mut builder = RecordBatchBuilder::new(codec, 1 << 20);
    builder
        .append(1_000, Some(b"UA"), Some(&[b'x'; 500]), &[])
        .unwrap();
    let mut batch = builder.seal().unwrap();
    let base_offset = Offset(index - 1);
    stamp(&mut batch, base_offset, LeaderEpoch::from_wire(1).unwrap());
    NewEntry {
        id: EntryId {
            index: LogIndex(index),
            term: Term(1),
        },
        kind: EntryKind::Data,
        base_offset,
        offset_span: 1,
        append_time: 1,
        body_crc: crc32c(&batch),
        body: Buffer::from(batch),
        chain: None,
    }
}

/// A data directory with one group that holds a batch of each codec.
fn write(path: &Path) {
    let directory = DataDirectory::create(path).unwrap();
    let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
    let mut storage = PortableStorage::new(directory, pool.clone()).unwrap();
    let format = DirectoryFormat {
        node: NodeId(1),
        cluster: ClusterId([1; 16]),
        incarnation: Incarnation([2; 16]),
        created_ms: 0,
    };
    Directory::format(&mut storage, &format).unwrap();
    let opened = Directory::open(&mut storage, &Expected::default(), 1, 64 << 10).unwrap();
    let config = StoreConfig::default();
    let (mut store, _) = Store::open(storage, pool, config, &opened, &[]).unwrap();
    store.create_group(GROUP, GroupConfig::default()).unwrap();
    let hard = HardState {
        term: Term(1),
        vote: Some(NodeId(1)),
    };
    store.set_hard_state(GROUP, WriteId(1), hard).unwrap();
    settle(&mut store, Duration::ZERO);
    for (number, codec) in (1..).zip(CODECS) {
        let write = WriteId(number + 1);
        store.append(GROUP, write, &[entry(number, codec)]).unwrap();
        settle(&mut store, Duration::ZERO);
    }
    // Idle for long enough that the journal says how far everything is synced.
    settle(&mut store, Duration::from_secs(1));
}

fn settle<S: Storage>(store: &mut Store<S>, now: Duration) {
    for _ in 0..10_000 {
        store.flush(now);
        store.poll(now, &mut Vec::new());
        if !store.is_busy() {
            return;
        }
        store.wait();
    }
    panic!("the store does not come to rest");
}

fn highwater(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(arguments)
        .arg(directory)
        .output()
        .unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn dump_shows_the_batches_and_their_codecs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    write(&path);
    let output = highwater(&["--json", "log", "dump"], &path);
    assert!(output.status.success(), "{output:?}");
    let objects = objects(&output);
    let of_kind =
        |kind: &str| -> Vec<&Value> { objects.iter().filter(|it| it["kind"] == kind).collect() };
    let codecs: Vec<&str> = of_kind("data")
        .iter()
        .map(|entry| entry["codec"].as_str().unwrap())
        .collect();
    assert_eq!(codecs, ["none", "lz4", "zstd"]);
    for entry in of_kind("data") {
        assert_eq!(
            (&entry["group"], &entry["topic"]),
            (&3.into(), &Value::Null)
        );
        assert_eq!(entry["records"], 1);
    }
    assert_eq!(of_kind("promise")[0]["term"], 1);
    assert_eq!(of_kind("directory")[0]["node"], 1);
    let text = highwater(&["log", "dump"], &path);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("offsets 2 to 2, 1 records"), "{text}");
}

#[test]
fn verify_names_the_file_and_the_byte_that_was_flipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    write(&path);
    let good = highwater(&["log", "verify"], &path);
    assert_eq!(good.status.code(), Some(0), "{good:?}");

    let dump = objects(&highwater(&["--json", "log", "dump"], &path));
    let entry = dump.iter().find(|it| it["index"] == 2).unwrap();
    let (file, offset) = (entry["file"].as_str().unwrap(), entry["offset"].as_u64());
    let mut open = std::fs::OpenOptions::new();
    let mut open = open.write(true).open(path.join(file)).unwrap();
    open.seek(SeekFrom::Start(offset.unwrap() + 100)).unwrap();
    open.write_all(b"?").unwrap();

    let damaged = highwater(&["--json", "log", "verify"], &path);
    assert_eq!(damaged.status.code(), Some(8), "{damaged:?}");
    let alarms: Vec<Value> = objects(&damaged);
    let alarm = alarms.iter().find(|it| it["damage"].is_string()).unwrap();
    assert_eq!(alarm["file"], file);
    assert_eq!(alarm["offset"].as_u64(), offset);
    let stderr = String::from_utf8(damaged.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let _held = DataDirectory::create(&path).unwrap();
    let output = highwater(&["log", "verify"], &path);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("stop the node first"), "{stderr}");
}

//! `log dump` and `log verify` on a data directory that the log wrote.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
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
    write_node(path, NodeId(1), ClusterId([1; 16]), CODECS.len());
}

/// A node's data directory with one group that holds so many batches.
fn write_node(path: &Path, node: NodeId, cluster: ClusterId, batches: usize) {
    let directory = DataDirectory::create(path).unwrap();
    let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
    let mut storage = PortableStorage::new(directory, pool.clone()).unwrap();
    let format = DirectoryFormat {
        node,
        cluster,
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
    let codecs = CODECS.into_iter().cycle().take(batches);
    for (number, codec) in (1..).zip(codecs) {
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

    let (file, offset) = spoil_entry(&path, 2);

    let damaged = highwater(&["--json", "log", "verify"], &path);
    assert_eq!(damaged.status.code(), Some(8), "{damaged:?}");
    let alarms: Vec<Value> = objects(&damaged);
    let alarm = alarms.iter().find(|it| it["damage"].is_string()).unwrap();
    assert_eq!(alarm["file"], file);
    assert_eq!(alarm["offset"].as_u64(), Some(offset));
    let stderr = String::from_utf8(damaged.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// Changes a byte in an entry's body; gives the file and where the entry's frame starts.
fn spoil_entry(path: &Path, index: u64) -> (String, u64) {
    let dump = objects(&highwater(&["--json", "log", "dump"], path));
    let entry = dump.iter().find(|it| it["index"] == index).unwrap();
    let file = entry["file"].as_str().unwrap().to_owned();
    let offset = entry["offset"].as_u64().unwrap();
    let mut open = std::fs::OpenOptions::new();
    let mut open = open.write(true).open(path.join(&file)).unwrap();
    open.seek(SeekFrom::Start(offset + 100)).unwrap();
    open.write_all(b"?").unwrap();
    (file, offset)
}

/// Two nodes of one cluster, with so many batches each; the folder that they live in.
fn write_two(batches: [usize; 2]) -> (tempfile::TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("one"), folder.path().join("two")];
    for ((path, node), batches) in paths.iter().zip([1, 2]).zip(batches) {
        write_node(path, NodeId(node), ClusterId([1; 16]), batches);
    }
    (folder, paths)
}

/// What `log verify --against` says of the one group, and its exit code.
fn against(paths: &[PathBuf; 2], options: &[&str]) -> (Value, Option<i32>) {
    let other = paths[1].to_str().unwrap();
    let arguments = [&["--json", "log", "verify", "--against", other], options].concat();
    let output = highwater(&arguments, &paths[0]);
    let found = objects(&output)
        .into_iter()
        .find(|it| it["result"].is_string());
    (found.unwrap_or(Value::Null), output.status.code())
}

#[test]
fn logs_of_two_nodes_are_compared_entry_by_entry() {
    let (_folder, paths) = write_two([30, 30]);
    let (same, code) = against(&paths, &["--settled"]);
    assert_eq!(
        (&same["result"], &same["same"]),
        (&"same".into(), &30.into())
    );
    assert_eq!(code, Some(0));
    let text = highwater(
        &["log", "verify", "--against", paths[1].to_str().unwrap()],
        &paths[0],
    );
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("the same"), "{text}");

    let (file, _) = spoil_entry(&paths[1], 7);
    let (missing, code) = against(&paths, &[]);
    assert_eq!(
        (&missing["result"], &missing["at"]),
        (&"missing".into(), &7.into()),
        "{file}"
    );
    assert_eq!(code, Some(8));
}

#[test]
fn a_node_may_be_behind_unless_all_had_come_to_rest() {
    let (_folder, paths) = write_two([30, 27]);
    let (ahead, code) = against(&paths, &[]);
    assert_eq!(
        (&ahead["result"], &ahead["same"]),
        (&"ahead".into(), &27.into())
    );
    assert_eq!(code, Some(0));
    assert_eq!(against(&paths, &["--settled"]).1, Some(8));
}

#[test]
fn a_stopped_node_is_repaired_from_another_ones_files() {
    let (_folder, paths) = write_two([30, 30]);
    spoil_entry(&paths[0], 7);
    assert_eq!(against(&paths, &[]).1, Some(8));
    let (same, code) = against(&paths, &["--repair"]);
    assert_eq!(
        (&same["result"], &same["same"]),
        (&"same".into(), &30.into())
    );
    assert_eq!(code, Some(0));
    // What the other one lacks too is left as it is.
    spoil_entry(&paths[0], 9);
    spoil_entry(&paths[1], 9);
    assert_eq!(against(&paths, &["--repair"]).1, Some(8));
    let alone = highwater(&["log", "verify", "--repair"], &paths[0]);
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
}

#[test]
fn nodes_of_two_clusters_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("one"), folder.path().join("two")];
    write_node(&paths[0], NodeId(1), ClusterId([1; 16]), 3);
    write_node(&paths[1], NodeId(2), ClusterId([9; 16]), 3);
    assert_eq!(against(&paths, &[]).1, Some(3));
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

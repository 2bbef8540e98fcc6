//! Bits flip in the files of a node that is stopped, in the middle of what it has acknowledged.
//! It starts, fills its holes from its peers by itself, and ends with the same logs as they have.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::{Cluster, Load, check_records, wait_for};
use highwater_client::{StartAt, TopicPartition};
use serde_json::Value;

const PARTITIONS: u32 = 2;

/// Which node's files rot.
const VICTIM: usize = 1;

/// Bytes behind the start of an entry's frame: within the body of a batch.
const IN_THE_BODY: u64 = 100;

/// A file that is not sealed is spoilt only with so many entries: what later writes claim to be durable
/// must reach its middle, or it is taken for torn, and cut.
const ENTRIES_MIN: usize = 20;

#[test]
fn a_node_whose_files_have_rotted_repairs_itself() {
    let mut cluster = Cluster::start(&[
        "node.shards=2",
        "limits.tail_cache_bytes=65536",
        "node.scrub_bytes_per_second=100000000",
        "node.scrub_interval_s=1",
    ]);
    let topic = cluster.create_topic("load", PARTITIONS, &["segment.bytes=65536"]);
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    wait_for("sealed files", || (load.count() > 4_000).then_some(()));
    cluster.node(VICTIM).stop();
    let spoilt = spoil(&cluster.node(VICTIM).data());
    assert_eq!(log_verify(&cluster.node(VICTIM).data(), None), Some(8));
    let before = load.count();
    cluster.node(VICTIM).start();
    wait_for("the files to be repaired", || {
        let counters = &cluster.counters()[VICTIM];
        let number = |name: &str| counters[name].as_u64();
        let is_whole = number("repaired_files") >= Some(spoilt) && number("quarantined") == Some(0);
        is_whole.then_some(())
    });
    wait_for("the load to go on", || {
        (load.count() > before + 500).then_some(())
    });
    let client = cluster.client();
    cluster.wait_until_whole(&client, &topic);
    let acknowledged = load.finish();
    let records = check_records(&client, &topic, &acknowledged);
    assert_eq!(records, u64::try_from(acknowledged.len()).unwrap());
    cluster.verify_stopped();
    let data = |cluster: &Cluster, node: usize| cluster.nodes()[node].data();
    for other in [0, 2] {
        let against = Some(data(&cluster, other));
        let code = log_verify(&data(&cluster, VICTIM), against.as_deref());
        assert_eq!(code, Some(0), "node {VICTIM} against node {other}");
    }
}

/// Nobody but root can do that. Whoever reads there meets an error in place of zeros, and the node no
/// signal that ends it; at its next start it has the file repaired.
#[test]
fn f27_a_sealed_file_that_is_cut_short_while_it_is_mapped_is_no_signal_and_no_zeros() {
    let mut cluster = Cluster::start(&["node.shards=2", "limits.tail_cache_bytes=65536"]);
    let topic = cluster.create_topic("load", PARTITIONS, &["segment.bytes=65536"]);
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    wait_for("sealed files", || (load.count() > 4_000).then_some(()));
    let acknowledged = load.finish();
    let client = cluster.client();
    let records = check_records(&client, &topic, &acknowledged);
    let maps = |cluster: &Cluster, node: usize| {
        cluster.counters()[node]["mapped_bytes"].as_u64() > Some(0)
    };
    let victim = (0..3).find(|&node| maps(&cluster, node));
    let victim = victim.expect("a leader reads its sealed files from their mappings");
    let cut = cut_short(&cluster.node(victim).data());
    assert!(cut > 0);
    for partition in 0..PARTITIONS {
        let topic = topic.clone();
        let at = TopicPartition { topic, partition };
        let mut consumer = client.consumer(|consumer| consumer);
        consumer.assign(at, StartAt::Earliest).unwrap();
        // What comes has its checksums verified.
        if let Ok(Some(record)) = consumer.recv_timeout(Duration::from_secs(2)) {
            assert_eq!(record.offset.0, 0);
        }
    }
    assert!(cluster.node(victim).is_running());
    cluster.node(victim).stop();
    cluster.node(victim).start();
    wait_for("the files to be repaired", || {
        let counters = &cluster.counters()[victim];
        let number = |name: &str| counters[name].as_u64();
        let is_whole = number("repaired_files") >= Some(cut) && number("quarantined") == Some(0);
        is_whole.then_some(())
    });
    assert_eq!(check_records(&client, &topic, &acknowledged), records);
    cluster.verify_stopped();
    let data = |node: usize| cluster.nodes()[node].data();
    let other = (victim + 1) % 3;
    let code = log_verify(&data(victim), Some(&data(other)));
    assert_eq!(code, Some(0), "node {victim} against node {other}");
}

/// Cuts the first sealed file of each partition to half its length; how many.
fn cut_short(data: &Path) -> u64 {
    let mut cut = 0;
    for group in fs::read_dir(data.join("groups")).unwrap() {
        let group = group.unwrap();
        if group.file_name() == "0" {
            continue;
        }
        let files = fs::read_dir(group.path()).unwrap();
        let files = files.map(|file| file.unwrap());
        let sealed = files.filter(|file| file.metadata().unwrap().permissions().readonly());
        let Some(path) = sealed.map(|file| file.path()).min() else {
            continue;
        };
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let half = file.metadata().unwrap().len() / 2;
        file.set_len(half.next_multiple_of(4_096)).unwrap();
        fs::set_permissions(&path, before).unwrap();
        cut += 1;
    }
    cut
}

/// The exit code of `log verify`.
fn log_verify(data: &Path, against: Option<&Path>) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["log", "verify"]).arg(data);
    if let Some(other) = against {
        command.arg("--against").arg(other);
    }
    command.output().unwrap().status.code()
}

/// Flips a bit in the middle of a sealed file and of the last file of each partition; in how many
/// files.
fn spoil(data: &Path) -> u64 {
    let dump = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["--json", "log", "dump"])
        .arg(data)
        .output()
        .unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let objects: Vec<Value> = objects.filter(|it: &Value| it["group"] != 0).collect();
    let mut files: Vec<&str> = Vec::new();
    for object in objects.iter().filter(|it| it["kind"] == "data") {
        let file = object["file"].as_str().unwrap();
        if files.last() != Some(&file) {
            files.push(file);
        }
    }
    let is_sealed = |file: &str| {
        let mut footers = objects.iter().filter(|it| it["kind"] == "footer");
        footers.any(|it| it["file"] == file)
    };
    let entries_of = |file: &str| {
        let entries = objects.iter();
        let entries = entries.filter(|it| it["kind"] == "data" && it["file"] == file);
        let offsets: Vec<u64> = entries.filter_map(|it| it["offset"].as_u64()).collect();
        offsets
    };
    let sealed = files
        .iter()
        .find(|file| is_sealed(file))
        .expect("a sealed file");
    let open = files.iter().filter(|file| !is_sealed(file));
    let open = open.filter(|file| entries_of(file).len() > ENTRIES_MIN);
    let spoilt: Vec<&str> = std::iter::once(*sealed).chain(open.copied()).collect();
    for file in &spoilt {
        let offsets = entries_of(file);
        flip(&data.join(file), offsets[offsets.len() / 2] + IN_THE_BODY);
    }
    u64::try_from(spoilt.len()).unwrap()
}

fn flip(path: &Path, offset: u64) {
    let before = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    fs::set_permissions(path, before).unwrap();
}

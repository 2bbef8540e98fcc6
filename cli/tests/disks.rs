//! Disks that are full, or may not be written.
//!
//! The disks are mounted in a namespace of the node's own, which takes rights that not every
//! machine gives; where they lack, the tests say so and do nothing.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cluster::{Cluster, say, wait_for};

/// A node asks at most once a second how much room there is, when something is produced.
const LINES_TO_LEARN: usize = 20;

const NOT_SET_UP: i32 = 3;
const FULL: i32 = 7;

/// Puts a small disk in the place of the data directory, with the same in it, and becomes the
/// node. The argument before the node's is the directory. Small is still more than the 64 MiB
/// that a node keeps free.
const SMALL_DISK: &str = r#"
    data=$1; shift
    mkdir -p "$data.disk"
    mount -t tmpfs -o size=128m tmpfs "$data.disk"
    cp -a "$data" "$data.disk/data"
    mount --bind "$data.disk/data" "$data"
    exec "$@""#;

/// Makes the data directory read-only, and becomes the node.
const READ_ONLY: &str = r#"
    data=$1; shift
    mount --bind "$data" "$data"
    mount -o remount,bind,ro "$data"
    exec "$@""#;

/// Makes a disk of a few blocks, and becomes the command, which finds it in its own folder.
const TINY_DISK: &str = r#"
    disk=$1; shift
    mount -t tmpfs -o size=24k tmpfs "$disk"
    cd "$disk"
    exec "$@""#;

/// How to get a namespace in which this user may mount, if there is a way.
fn namespace() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [
        &["unshare", "--mount", "sh", "-ec"],
        &["unshare", "--map-root-user", "--mount", "sh", "-ec"],
    ];
    let may_mount = |way: &&[&str]| {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).arg("mount -t tmpfs tmpfs /mnt");
        command.output().is_ok_and(|it| it.status.success())
    };
    let found = ways.into_iter().find(may_mount);
    if found.is_none() {
        say("not tested: full and read-only disks; nobody may mount one here");
    }
    found
}

/// A cluster of one node, not started, whose data directory a script has prepared.
fn on_disk(namespace: &[&str], script: &str) -> Cluster {
    let mut cluster = Cluster::init(1, &["topics.segment_bytes=1048576"]);
    let node = cluster.node(0);
    let data = node.data();
    let words = [namespace, &[script, "sh", data.to_str().unwrap()]].concat();
    node.run_under(&words);
    cluster
}

/// A file beside the data on the small disk, as it is seen from outside of the namespace.
fn ballast(cluster: &mut Cluster) -> PathBuf {
    let node = cluster.node(0);
    let root = PathBuf::from(format!("/proc/{}/root", node.pid()));
    let data = node.data();
    let folder = data.parent().unwrap().strip_prefix("/").unwrap();
    root.join(folder).join("data.disk/ballast")
}

fn produce(cluster: &Cluster, lines: &[u8]) -> Output {
    let mut command = cluster.command(&["produce", "lines", "--delivery-timeout", "5"]);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut produce = command.spawn().unwrap();
    // It ends before it has read everything when a record fails.
    let _ = produce.stdin.take().unwrap().write_all(lines);
    produce.wait_with_output().unwrap()
}

fn consume(cluster: &Cluster) -> Vec<u8> {
    let output = cluster.highwater(&["consume", "lines", "--until-end"]);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_full_disk_refuses_to_write_and_serves_what_it_has() {
    let Some(namespace) = namespace() else {
        return;
    };
    let mut cluster = on_disk(namespace, SMALL_DISK);
    cluster.start_all();
    cluster.create_topic("lines", 1, &[]);
    assert!(produce(&cluster, b"before\n").status.success());

    let ballast = ballast(&mut cluster);
    fill(&ballast);
    // What is taken before the node knows waits for room, and its client for an answer. So let
    // it learn by what finds room anyway.
    let line = [&[b'x'; 1_000][..], b"\n"].concat();
    for _ in 0..LINES_TO_LEARN {
        produce(&cluster, &line);
    }
    let many = line.repeat(400);
    let refused = wait_for("a produce to be refused", || {
        let output = produce(&cluster, &many);
        let stderr = String::from_utf8(output.stderr).unwrap();
        stderr.contains("NOT_ENOUGH_REPLICAS").then_some(stderr)
    });
    assert_eq!(refused.lines().count(), 1, "{refused}");
    let log = cluster.node(0).log_text();
    assert!(log.contains("the disk is full"), "{log}");
    assert!(consume(&cluster).starts_with(b"before\n"));

    std::fs::remove_file(&ballast).unwrap();
    wait_for("room to be found again", || {
        produce(&cluster, b"after\n").status.success().then_some(())
    });
    let all = consume(&cluster);
    assert!(all.starts_with(b"before\n") && all.ends_with(b"after\n"));
    cluster.node(0).stop();
}

/// Takes all room that there is.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_cluster_that_does_not_fit_is_code_7() {
    let Some(namespace) = namespace() else {
        return;
    };
    let disk = tempfile::tempdir().unwrap();
    let mut command = Command::new(namespace[0]);
    command.args(&namespace[1..]).args([TINY_DISK, "sh"]);
    command
        .arg(disk.path())
        .arg(env!("CARGO_BIN_EXE_highwater"));
    let output = command.args(["init", "cluster"]).output().unwrap();
    check(&output, FULL, "make room");
}

#[test]
fn a_folder_that_may_not_be_written_is_code_3() {
    let Some(namespace) = namespace() else {
        return;
    };
    let cluster = on_disk(namespace, READ_ONLY);
    let node = &cluster.nodes()[0];
    let output = node.command().output().unwrap();
    check(&output, NOT_SET_UP, node.data().to_str().unwrap());
}

#[track_caller]
fn check(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let failures = stderr
        .lines()
        .filter(|line| line.starts_with("highwater: "));
    assert_eq!(failures.count(), 1, "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

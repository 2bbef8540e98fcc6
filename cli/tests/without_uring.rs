//! Where the system refuses io_uring, nodes work on plain system calls, and one line says why.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command};

use cluster::{Cluster, Load, check_records, wait_for};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

const PARTITIONS: u32 = 3;
const RECORDS: usize = 500;

/// Starts a process to which the kernel answers EPERM when it asks for a ring.
fn spawn_without_uring(command: &mut Command) -> io::Result<Child> {
    // A filter is of the thread that installs it and of what that thread starts, for ever.
    std::thread::scope(|scope| {
        let launcher = scope.spawn(|| {
            apply_filter(&refuse_uring()).unwrap();
            command.spawn()
        });
        launcher.join().unwrap()
    })
}

fn refuse_uring() -> BpfProgram {
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
    let here = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, here);
    filter.unwrap().try_into().unwrap()
}

/// Starts the nodes, has records written and read, and gives what each node has logged.
fn produce_and_consume(mut cluster: Cluster) -> Vec<String> {
    cluster.start_all();
    let topic = cluster.create_topic("load", PARTITIONS, &[]);
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    wait_for("acknowledgements", || {
        (load.count() >= RECORDS).then_some(())
    });
    check_records(&cluster.client(), &topic, &load.finish());
    cluster.verify_stopped();
    cluster.nodes().iter().map(|node| node.log_text()).collect()
}

fn lines_with<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(words)).collect()
}

#[test]
fn auto_falls_back_and_says_why_once() {
    let mut cluster = Cluster::init(3, &["node.storage=auto", "node.shards=2"]);
    for node in cluster.nodes_mut() {
        node.launch_by(spawn_without_uring);
    }
    for log in produce_and_consume(cluster) {
        let lines = lines_with(&log, "io_uring");
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("Operation not permitted"), "{}", lines[0]);
        assert!(!lines[0].contains('\u{1b}'), "colours in a file: {log}");
        assert_eq!(lines_with(&log, "portable").len(), 1, "{log}");
    }
}

#[test]
fn portable_does_not_ask_for_a_ring() {
    let cluster = Cluster::init(3, &["node.storage=portable"]);
    for log in produce_and_consume(cluster) {
        assert_eq!(lines_with(&log, "io_uring").len(), 0, "{log}");
        assert_eq!(lines_with(&log, "portable").len(), 1, "{log}");
    }
}

#[test]
fn uring_insisted_on_and_refused_is_one_line_and_code_3() {
    let mut cluster = Cluster::init(1, &["node.storage=uring"]);
    let node = cluster.node(0);
    node.launch_by(spawn_without_uring);
    node.spawn();
    let status = node.wait_for_end();
    let log = node.log_text();
    assert_eq!(status.code(), Some(3), "{log}");
    let lines = lines_with(&log, "highwater: ");
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("portable"), "{log}");
}

//! What goes wrong when nodes are started and asked: each time one line that says what and what
//! to do, no backtrace, and the exit code that `--help` documents.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use cluster::{Cluster, Node, is_free, wait_for};

const NOT_SET_UP: i32 = 3;
const NOT_FOUND: i32 = 5;
const BUSY: i32 = 6;

/// Expects one line of failure on stderr, beside the node's own log, that has these words.
#[track_caller]
fn check(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let failures: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.contains(" INFO ") && !line.contains(" WARN "))
        .collect();
    assert_eq!(failures.len(), 1, "{stderr}");
    assert!(failures[0].starts_with("highwater: "), "{stderr}");
    for word in words {
        assert!(failures[0].contains(word), "no {word:?} in: {stderr}");
    }
}

/// Runs a node that is expected not to start.
fn start(node: &Node, options: &[&str]) -> Output {
    let mut command = node.command();
    for option in options {
        command.args(["--set", option]);
    }
    command.output().unwrap()
}

#[test]
fn a_busy_port_is_named() {
    let cluster = Cluster::init(1, &[]);
    let node = &cluster.nodes()[0];
    for shards in ["node.shards=1", "node.shards=2"] {
        for address in [node.kafka(), node.metrics()] {
            let held = TcpListener::bind(address).unwrap();
            check(&start(node, &[shards]), BUSY, &[&address.to_string()]);
            let_go(held, address);
        }
        for address in [node.kafka(), node.peer()] {
            let held = UdpSocket::bind(address).unwrap();
            check(&start(node, &[shards]), BUSY, &[&address.to_string()]);
            let_go(held, address);
        }
    }
}

/// Gives a port back. A process that another test has forked holds it, too, until it has begun its
/// program.
fn let_go<T>(held: T, address: SocketAddr) {
    drop(held);
    wait_for("the port to be free", || {
        is_free(address.port()).then_some(())
    });
}

#[test]
fn a_node_that_runs_already_is_left_alone() {
    let mut cluster = Cluster::init(1, &["node.shards=2"]);
    cluster.start_all();
    let node = &cluster.nodes()[0];
    check(&start(node, &[]), BUSY, &[&node.kafka().to_string()]);
    let elsewhere = elsewhere();
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    let data = node.data();
    let words = [data.to_str().unwrap(), "another process runs this node"];
    check(&start(node, &elsewhere), NOT_SET_UP, &words);
    cluster.create_topic("still-there", 1, &[]);
}

/// Options with which a node listens at other addresses than its own.
fn elsewhere() -> [String; 3] {
    let base = cluster::free_base_port(1);
    let at = |above| SocketAddr::from(([127, 0, 0, 1], base + above));
    [
        format!("listen.kafka={}", at(0)),
        format!("listen.peer={}", at(100)),
        format!("listen.metrics={}", at(200)),
    ]
}

#[test]
fn a_data_folder_that_is_none_is_named() {
    let cluster = Cluster::init(2, &[]);
    let [node, other] = cluster.nodes() else {
        unreachable!("two were made");
    };
    let moved = cluster.folder().join("moved");
    std::fs::rename(node.data(), &moved).unwrap();
    let data = node.data();
    let named = data.to_str().unwrap();
    check(&start(node, &[]), NOT_SET_UP, &[named, "highwater init"]);

    std::fs::create_dir(&data).unwrap();
    check(&start(node, &[]), NOT_SET_UP, &[named, "highwater init"]);
    std::fs::write(data.join("notes.txt"), "mine").unwrap();
    check(&start(node, &[]), NOT_SET_UP, &[named, "highwater init"]);
    assert!(data.join("notes.txt").exists(), "it is somebody's");

    let others = format!("node.data_dir={}", other.data().display());
    let words = [other.data().to_str().unwrap(), "node"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    check(&start(node, &[&others]), NOT_SET_UP, &words);
}

#[test]
fn a_cluster_is_not_made_where_something_is() {
    let cluster = Cluster::init(1, &[]);
    let root = cluster.folder().join("cluster");
    check(
        &init(&root),
        NOT_SET_UP,
        &[root.to_str().unwrap(), "not empty"],
    );
}

fn init(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.arg("init").arg(folder).output().unwrap()
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let mut cluster = Cluster::init(1, &[]);
    cluster.start_all();
    let lines = cluster.folder().join("lines");
    std::fs::write(&lines, "one\n").unwrap();
    for arguments in [
        &["consume", "nothing"][..],
        &["produce", "nothing", "--file", lines.to_str().unwrap()],
        &["topic", "describe", "nothing"],
        &["topic", "delete", "nothing"],
    ] {
        check(&cluster.highwater(arguments), NOT_FOUND, &["nothing"]);
    }
    cluster.create_topic("something", 2, &[]);
    let output = cluster.highwater(&["consume", "something", "--partition", "7"]);
    check(&output, NOT_FOUND, &["something", "7"]);
}

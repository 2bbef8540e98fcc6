//! Ctrl-C: the first asks a command to end, which it does soon and with its totals; the second
//! ends it at once. And a reader of the output that leaves.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, free_base_port, say, wait_for};
use rustix::process::{Pid, Signal, kill_process};

const INTERRUPTED: i32 = 130;

/// What a user is promised, in seconds. Measured and told; the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

fn one_node() -> Cluster {
    let mut cluster = Cluster::init(1, &[]);
    cluster.start_all();
    cluster
}

fn interrupt(child: &Child) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
}

/// Interrupts a command, and gives what it has said when it has ended.
#[track_caller]
fn interrupted(mut child: Child) -> Output {
    let asked_at = Instant::now();
    interrupt(&child);
    wait_for("the command to end", || child.try_wait().unwrap());
    let took = asked_at.elapsed();
    if took > SOON {
        say(&format!(
            "a command took {took:?} to end; the machine is busy"
        ));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn produce_tells_what_was_acknowledged() {
    let cluster = one_node();
    cluster.create_topic("lines", 1, &[]);
    let mut command = cluster.command(&["produce", "lines"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut produce = command.spawn().unwrap();
    let mut input = produce.stdin.take().unwrap();
    input.write_all(b"one\ntwo\nthree\n").unwrap();
    wait_for("three records", || {
        let consumed = cluster.highwater(&["consume", "lines", "--until-end"]);
        (consumed.stdout == b"one\ntwo\nthree\n").then_some(())
    });
    let output = interrupted(produce);
    assert_eq!(output.status.code(), Some(INTERRUPTED), "{output:?}");
    let told = text(&output.stdout);
    assert!(told.contains("lines-0: 3 records, last offset 2"), "{told}");
    assert!(told.contains("3 records, 11 B acknowledged"), "{told}");
    assert_eq!(text(&output.stderr), "highwater: interrupted\n");
}

#[test]
fn consume_tells_what_was_read() {
    let cluster = one_node();
    cluster.create_topic("lines", 1, &[]);
    produce(&cluster, b"one\ntwo\n");
    let mut consume = follow(&cluster);
    let mut lines = BufReader::new(consume.stdout.take().unwrap());
    let mut line = String::new();
    for expected in ["one\n", "two\n"] {
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    let output = interrupted(consume);
    assert_eq!(output.status.code(), Some(INTERRUPTED), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("lines-0: 2 records, last offset 1"), "{told}");
    assert!(told.contains("consumed"), "{told}");
}

/// As `consume | head` does.
#[test]
fn consume_ends_quietly_when_its_reader_leaves() {
    let cluster = one_node();
    cluster.create_topic("lines", 1, &[]);
    let many: String = (0..50_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    produce(&cluster, many.as_bytes());
    let mut consume = follow(&cluster);
    let mut lines = BufReader::new(consume.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    drop(lines);
    assert_eq!(line, "line 0\n");
    // Those who wait for more must write once more to notice.
    let status = wait_for("the command to end", || {
        produce(&cluster, b"another\n");
        consume.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0));
    let mut told = String::new();
    let mut stderr = consume.stderr.take().unwrap();
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
}

fn produce(cluster: &Cluster, lines: &[u8]) {
    let mut command = cluster.command(&["produce", "lines"]);
    let mut produce = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    produce.stdin.take().unwrap().write_all(lines).unwrap();
    assert!(produce.wait().unwrap().success());
}

fn follow(cluster: &Cluster) -> Child {
    let mut command = cluster.command(&["consume", "lines", "--follow"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let mut cluster = Cluster::init(1, &[]);
    cluster.start_all();
    cluster.create_topic("lines", 1, &[]);
    let mut command = cluster.command(&["produce", "lines", "--delivery-timeout", "600"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut produce = command.spawn().unwrap();
    let mut input = produce.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    wait_for("a record", || {
        let consumed = cluster.highwater(&["consume", "lines", "--until-end"]);
        (consumed.stdout == b"one\n").then_some(())
    });
    // Nobody acknowledges any more: after the first interrupt the command waits for a while.
    cluster.node(0).signal(Signal::STOP);
    input.write_all(b"two\n").unwrap();
    let asked_at = Instant::now();
    interrupt(&produce);
    let status = wait_for("the command to end", || {
        interrupt(&produce);
        produce.try_wait().unwrap()
    });
    cluster.node(0).signal(Signal::CONT);
    assert_eq!(status.code(), Some(INTERRUPTED));
    assert!(asked_at.elapsed() < PATIENCE);
}

#[test]
fn dev_ends_and_leaves_only_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["--json", "dev", "--dir", "data", "--port"])
        .arg(free_base_port(3).to_string())
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(dev.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("\"ready\""), "{line}");
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut produce = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["produce", "lines"])
        .env("HIGHWATER_BOOTSTRAP", ready["bootstrap"].as_str().unwrap())
        .env_remove("HIGHWATER_CA")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = produce.stdin.take().unwrap();
    input.write_all(b"one\ntwo\nthree\n").unwrap();
    drop(input);
    assert!(produce.wait().unwrap().success());
    let output = interrupted(dev);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = text(&output.stderr);
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    let mut told = String::new();
    stdout.read_to_string(&mut told).unwrap();
    assert!(told.contains("\"last_offset\":2"), "{told}");
    assert!(told.contains("\"produced\":3"), "{told}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

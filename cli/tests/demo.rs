//! `highwater demo`: what a newcomer runs first.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Every temporary folder of the command lies in `folder`.
fn demo(folder: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .args(["--json", "demo"])
        .args(flags)
        .env("TMPDIR", folder)
        .env_remove("HIGHWATER_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found = events.iter().find(|it| it["event"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {events:?}"))
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

#[track_caller]
fn check_played(flags: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), flags).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    let events = objects(&output);
    assert_eq!(event(&events, "read")["records"], 3_368);
    assert!(event(&events, "dropped")["partitions"][0].is_u64());
    assert!(event(&events, "failover")["seconds"].is_f64());
    let counters = event(&events, "counters");
    assert!(counters["mapped_bytes"].as_u64() > Some(0), "{counters}");
    for maximum in ["appends_in_flight_max", "entries_per_append_max"] {
        assert!(counters[maximum].as_u64() > Some(1), "{counters}");
    }
    assert!(is_empty(folder.path()), "it leaves nothing behind");
    events
}

#[test]
fn it_loses_nothing_and_leaves_nothing_behind() {
    check_played(&[]);
}

#[test]
fn two_shards_and_plain_system_calls_do_as_well() {
    let flags = ["--set", "node.shards=2", "--set", "node.storage=portable"];
    let events = check_played(&flags);
    assert_eq!(event(&events, "counters")["ring_completions"], 0);
}

/// Starts it, and gives it when its nodes are started.
fn started(folder: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = demo(folder, &[]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("started"), "{line}");
    (child, stdout)
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn an_interrupt_ends_it_with_its_totals() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, stdout) = started(folder.path());
    interrupt(&child);
    let lines: Vec<String> = stdout.lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let total = lines.last().unwrap();
    assert!(total.contains("\"acknowledged\""), "{lines:?}");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_second_interrupt_ends_it_at_once_and_leaves_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _stdout) = started(folder.path());
    interrupt(&child);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(folder.path()));
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, words) in [
        (&["--file", "/nonexistent.csv"][..], "/nonexistent.csv"),
        (&["--csv-key", "airline"], "airline"),
        (&["--set", "node.nonsense=1"], "node.nonsense"),
    ] {
        let output = demo(folder.path(), flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(is_empty(folder.path()));
    }
}

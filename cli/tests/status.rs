//! `highwater status` against a cluster of `highwater dev`.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod dev;

use std::time::{Duration, Instant};

use dev::Dev;
use serde_json::Value;

/// How long what must happen soon may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The objects that `status` prints, of one kind.
fn status(dev: &Dev, kind: &str) -> Vec<Value> {
    let printed = dev.run(&["--json", "status"], b"");
    let objects = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    objects
        .filter(|object: &Value| object["kind"] == kind)
        .collect()
}

/// Asks again until it holds.
#[track_caller]
fn until(dev: &Dev, kind: &str, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let objects = status(dev, kind);
        if holds(&objects) {
            return objects;
        }
        assert!(Instant::now() < give_up, "in vain: {what}: {objects:?}");
    }
}

fn lines(count: u32) -> Vec<u8> {
    let lines = (0..count).map(|number| format!("{number:0>1000}\n"));
    lines.collect::<String>().into_bytes()
}

#[test]
fn three_nodes_their_leaders_and_their_lag_are_shown() {
    let dev = Dev::start(3, &[]);
    // Before all are registered a topic would be placed on those that are.
    let all_there = |nodes: &[Value]| nodes.len() == 3;
    until(&dev, "node", "three nodes", all_there);
    dev.run(&["topic", "create", "used", "--partitions", "2"], b"");
    dev.run(&["topic", "create", "unused"], b"");
    dev.run(&["produce", "used", "--partition", "1"], &lines(50));
    let is_level = |objects: &[Value]| {
        let mut partitions = objects.iter();
        partitions.any(|partition| {
            partition["high_watermark"] == 50
                && partition["lag"] == serde_json::json!({ "0": 0, "1": 0, "2": 0 })
        })
    };
    let partitions = until(&dev, "partition", "no replica is behind", is_level);
    let unused: Vec<_> = (partitions.iter())
        .filter(|partition| partition["topic"] == "unused")
        .collect();
    assert_eq!(unused.len(), 1);
    assert_eq!(unused[0]["leader_epoch"], -1, "to look at it elects nobody");
    assert_eq!(unused[0]["lag"], Value::Null);

    let nodes = status(&dev, "node");
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["alive"] == true), "{nodes:?}");
    let controllers = nodes.iter().filter(|node| node["controller"] == true);
    assert_eq!(controllers.count(), 1);
    let sum = |name: &str| -> u64 {
        let of = |node: &Value| node["counters"][name].as_u64().unwrap();
        nodes.iter().map(of).sum()
    };
    assert_eq!(sum("produced_records"), 50, "each is counted by its leader");
    assert!(sum("appends_sent") > 0);
    assert!(sum("appends_in_flight_max") > 0);
    assert!(sum("peer_frames_received") > 0);

    let text = dev.run(&["status", "--topic", "used"], b"");
    assert!(text.contains("used-1"), "{text}");
    assert!(!text.contains("unused-0"), "{text}");
    assert!(text.contains("since its start"), "{text}");
    assert!(text.contains("entries per append, mean and max"), "{text}");
}

#[test]
fn what_is_read_from_sealed_files_is_served_from_maps() {
    let dev = Dev::start(1, &["limits.tail_cache_bytes=0"]);
    let small = ["topic", "create", "t", "--config", "segment.bytes=65536"];
    dev.run(&small, b"");
    dev.run(&["produce", "t", "--batch-bytes", "8192"], &lines(1_000));
    let give_up = Instant::now() + PATIENCE;
    loop {
        let read = dev.run(&["consume", "t", "--until-end"], b"");
        assert_eq!(read.lines().count(), 1_000);
        let node = &status(&dev, "node")[0];
        let counters = &node["counters"];
        if counters["mapped_bytes"].as_u64().unwrap() > 0 {
            assert!(counters["files_sealed"].as_u64().unwrap() > 0);
            assert!(counters["entries_per_write_max"].as_u64().unwrap() > 0);
            assert!(counters["entries_per_write_mean"].as_f64().unwrap() > 0.0);
            return;
        }
        assert!(Instant::now() < give_up, "in vain: {node}");
    }
}

#[test]
fn what_is_not_there_has_its_exit_code() {
    let dev = Dev::start(1, &[]);
    let output = dev.run_with(&["status", "--topic", "nowhere"], b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let text = dev.run(&["status"], b"");
    assert!(text.contains("no topics"), "{text}");
}

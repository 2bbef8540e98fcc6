//! All processes of a cluster are killed at once in the middle of a load, and started again:
//! every acknowledged record is there once, in order.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use cluster::{Cluster, Load, check_records, wait_for};

const ROUNDS: usize = 4;
const PARTITIONS: u32 = 4;

/// How many records are acknowledged between two kills, at least.
const RECORDS_A_ROUND: usize = 1_000;

/// Small enough that files are full and begun between the kills too.
const SEGMENT: &str = "segment.bytes=1048576";

#[test]
fn all_die_at_once_with_one_shard() {
    all_die_at_once("node.shards=1");
}

#[test]
fn all_die_at_once_with_two_shards() {
    all_die_at_once("node.shards=2");
}

fn all_die_at_once(shards: &str) {
    let mut cluster = Cluster::start(&[shards]);
    let topic = cluster.create_topic("load", PARTITIONS, &[SEGMENT]);
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    for round in 1..=ROUNDS {
        wait_for("the load to go on", || {
            (load.count() >= round * RECORDS_A_ROUND).then_some(())
        });
        cluster.kill_all();
        cluster.start_all();
    }
    let before = load.count();
    wait_for("the load to go on after the last kill", || {
        (load.count() > before).then_some(())
    });
    let acknowledged = load.finish();
    let records = check_records(&cluster.client(), &topic, &acknowledged);
    assert_eq!(records, u64::try_from(acknowledged.len()).unwrap());
    cluster.verify_stopped();
}

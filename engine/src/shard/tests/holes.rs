//! Who leads while a replica's log is not whole.

use std::time::Duration;

use highwater_consensus::LogIndex;

use super::cluster::Cluster;
use super::{fetch, node, produce};
use crate::ops::{GroupConfig, Op, Outcome};

const SECOND: Duration = Duration::from_secs(1);

/// Entries in several files, led by node 3; of the others one file each is gone, and what would
/// mend it does not arrive.
fn damaged(numbers: &[u32]) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(3);
    cluster.configure(GroupConfig {
        segment_bytes: 64 << 10,
        ..GroupConfig::default()
    });
    for _ in 0..40 {
        let answer = cluster.ask(3, produce(&"x".repeat(5_000)));
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }
    cluster.drop_bulk(true);
    for &number in numbers {
        cluster.restart_without(number, "groups/5/0000000002.log");
        assert_eq!(cluster.report(number).gauges.quarantined, 1);
    }
    cluster.run(2 * SECOND);
    cluster
}

fn let_lead(cluster: &mut Cluster, number: u32) {
    let leader = (1..=3).find(|&it| cluster.status(it).is_leader).unwrap();
    let to = Some(node(number));
    cluster.ask(leader, Op::Transfer { to });
    cluster.run(SECOND);
    assert!(cluster.status(number).is_leader);
}

/// Whether all that is committed can be had of who leads.
fn serves_all(cluster: &mut Cluster, number: u32) -> bool {
    let end = cluster.status(number).high_watermark.0;
    let served = |answer| matches!(answer, Some(Ok(Outcome::Fetched(it))) if !it.spans.is_empty());
    (0..end).all(|offset| served(cluster.ask(number, fetch(offset))))
}

#[test]
fn a_leader_whose_log_is_not_whole_makes_way() {
    let mut cluster = damaged(&[1]);
    let_lead(&mut cluster, 1);
    assert!(!serves_all(&mut cluster, 1));
    let leader = cluster.run_until_led_by_other(1);
    assert!(serves_all(&mut cluster, leader));
    cluster.run(60 * SECOND);
    assert!(cluster.status(leader).is_leader, "it has no reason to go");
}

#[test]
fn a_file_that_is_gone_is_made_anew_from_what_peers_have() {
    let mut cluster = damaged(&[1, 2]);
    cluster.drop_bulk(false);
    cluster.run_until(|cluster| (1..=2).all(|it| cluster.report(it).gauges.quarantined == 0));
    for number in 1..=2 {
        let_lead(&mut cluster, number);
        assert!(serves_all(&mut cluster, number));
    }
}

/// Seed 503891 of the simulator. The replica has an entry that nobody else has, right behind one
/// that rots.
#[test]
fn what_follows_a_hole_is_cut_once_the_hole_is_filled() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let answer = cluster.ask(1, produce("held by all, and rotten on one"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    cluster.drop_appends(true);
    cluster.submit(1, produce("held by one"));
    cluster.cut(1);
    cluster.drop_appends(false);
    cluster.drop_bulk(true);
    cluster.restart_rotten(1, "groups/5/0000000001.log", b"rotten on one");
    assert_eq!(cluster.report(1).gauges.quarantined, 1);
    let leader = cluster.run_until_led_by_other(1);
    let answer = cluster.ask(leader, produce("after"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    cluster.mend(1);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.report(1).gauges.frozen, 0);
    assert!(cluster.status(1).commit_index < cluster.status(leader).commit_index);
    cluster.drop_bulk(false);
    cluster.run_until(|cluster| cluster.report(1).gauges.quarantined == 0);
    cluster.run(2 * SECOND);
    assert_eq!(
        cluster.status(1).commit_index,
        cluster.status(leader).commit_index
    );
    let_lead(&mut cluster, 1);
    assert!(serves_all(&mut cluster, 1));
}

#[test]
fn it_is_each_ones_turn_until_one_is_whole() {
    let mut cluster = damaged(&[1, 2]);
    let_lead(&mut cluster, 2);
    cluster.run(60 * SECOND);
    assert!(cluster.status(3).is_leader);
    assert!(serves_all(&mut cluster, 3));
}

#[test]
fn without_another_that_could_lead_it_goes_on() {
    let mut cluster = damaged(&[1, 2]);
    let_lead(&mut cluster, 2);
    cluster.cut(3);
    cluster.run(60 * SECOND);
    let leader = (1..=2).find(|&it| cluster.status(it).is_leader).unwrap();
    let answer = cluster.ask(leader, produce("a"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
}

#[test]
fn a_leader_that_can_bring_nobody_past_a_hole_falls_silent() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let answer = cluster.ask(1, produce("kept"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    cluster.drop_appends(true);
    cluster.submit(1, produce("lost before anybody else had it"));
    // It leads again, and its memory of what it has not sent is gone.
    cluster.restart(1);
    cluster.elect(1);
    cluster.rot(1, "groups/5/0000000001.log", b"before anybody");
    cluster.drop_appends(false);
    let leader = cluster.run_until_led_by_other(1);
    let answer = cluster.ask(leader, produce("after"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    cluster.run(10 * SECOND);
    assert!(cluster.status(leader).is_leader);
    assert!(serves_all(&mut cluster, leader));
    assert_eq!(
        cluster.status(1).commit_index,
        cluster.status(leader).commit_index
    );
    assert_eq!(cluster.report(1).gauges.quarantined, 0, "it was cut");
}

#[test]
fn a_replica_on_its_way_back_is_there_after_a_restart() {
    // In one of these turns what was missing is on the disk again, and has not been agreed on.
    for turns in 0..12 {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        for _ in 0..40 {
            let answer = cluster.ask(1, produce(&"x".repeat(100_000)));
            assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        }
        cluster.drop_appends(true);
        cluster.restart_with_zeros(2, "groups/5/0000000001.log");
        assert_eq!(cluster.status(2).last_index, LogIndex(0));
        cluster.drop_appends(false);
        cluster.run_until(|cluster| cluster.status(2).last_index > LogIndex(0));
        (0..turns).for_each(|_| _ = cluster.round());
        cluster.restart(2);
        cluster.run_until(|cluster| cluster.report(2).gauges.quarantined == 0);
        assert_eq!(cluster.status(2).last_index, cluster.status(1).last_index);
    }
}

/// What is missing had been acknowledged, so the replica promises nothing until it has it again.
#[test]
fn f17_a_replica_with_a_file_rolled_back_does_not_count_until_it_has_rejoined() {
    let path = "groups/5/0000000001.log";
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let answer = cluster.ask(1, produce("kept"));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    cluster.run(SECOND);
    let older = cluster.disk(2);
    for _ in 0..3 {
        let answer = cluster.ask(1, produce("rolled back"));
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }
    cluster.run(SECOND);
    cluster.cut(1);
    cluster.restart_rolled_back(2, path, &older);
    assert_eq!(cluster.report(2).gauges.quarantined, 1);
    cluster.run(30 * SECOND);
    assert!(!cluster.status(2).is_leader && !cluster.status(3).is_leader);
    cluster.mend(1);
    cluster.run_until(|cluster| cluster.report(2).gauges.quarantined == 0);
    let leader = (1..=3).find(|&it| cluster.status(it).is_leader).unwrap();
    assert!(serves_all(&mut cluster, leader));
    let_lead(&mut cluster, 2);
    assert_eq!(cluster.status(2).high_watermark.0, 4);
    assert!(serves_all(&mut cluster, 2));
}

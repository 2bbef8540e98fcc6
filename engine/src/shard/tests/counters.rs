//! What a shard counts.

use super::cluster::{Cluster, batch};
use super::{fetch, produce};
use crate::counters::PartitionCounters;
use crate::ops::{Op, Produce};

fn partitions(cluster: &Cluster, number: u32) -> PartitionCounters {
    cluster.report(number).partitions
}

#[test]
fn what_is_produced_and_fetched_is_counted_where_it_is_done() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let two = vec![batch("a"), batch("b")];
    let bytes: usize = two.iter().map(|batch| batch.bytes.len()).sum();
    let bytes = u64::try_from(bytes).unwrap();
    cluster.ask(1, Op::Produce(Produce { batches: two }));
    cluster.ask(1, fetch(0));
    let counted = partitions(&cluster, 1);
    assert_eq!((counted.produces, counted.produced_batches), (1, 2));
    assert_eq!(
        (counted.produced_records, counted.produced_bytes),
        (2, bytes)
    );
    assert_eq!(counted.fetches, 1);
    assert_eq!((counted.fetched_records, counted.fetched_bytes), (2, bytes));
    assert_eq!(partitions(&cluster, 2), PartitionCounters::default());
}

#[test]
fn what_is_refused_or_found_empty_is_not_counted() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(2, produce("a"));
    cluster.ask(1, fetch(0));
    let counted = partitions(&cluster, 1);
    assert_eq!((counted.produces, counted.fetches), (0, 0));
    assert_eq!(partitions(&cluster, 2).produces, 0);
}

#[test]
fn elections_and_leaderships_are_counted_where_they_begin() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let of = |number| {
        let counted = partitions(&cluster, number);
        (counted.elections, counted.leaderships)
    };
    assert_eq!([of(1), of(2), of(3)], [(1, 1), (0, 0), (0, 0)]);
    assert_eq!(cluster.report(1).gauges.leaders, 1);
    assert_eq!(cluster.report(2).gauges.leaders, 0);
    assert_eq!(cluster.report(2).gauges.replicas, 1);
}

#[test]
fn appends_ahead_of_their_acknowledgements_are_in_flight() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    assert_eq!(cluster.report(1).gauges.appends_in_flight, 0);
    cluster.drop_appends(true);
    for value in ["b", "c", "d"] {
        cluster.submit(1, produce(value));
    }
    assert_eq!(
        cluster.report(1).gauges.appends_in_flight,
        6,
        "to each of two"
    );
    assert_eq!(partitions(&cluster, 1).appends_in_flight_max, 3, "to one");
}

#[test]
fn what_comes_in_one_turn_travels_in_one_append() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    let before = partitions(&cluster, 1);
    cluster.submit_together(1, ["b", "c", "d"].map(produce));
    let after = partitions(&cluster, 1);
    assert_eq!(after.appends_sent - before.appends_sent, 2);
    assert_eq!(after.append_entries_sent - before.append_entries_sent, 6);
    assert_eq!(after.entries_per_append_max, 3);
}

#[test]
fn the_report_holds_the_log_and_the_disk_below() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce("a"));
    let report = cluster.report(1);
    assert!(report.shard.turns > 0);
    assert!(
        report.log.written_entries >= 2,
        "the leader's no-op and the batch"
    );
    assert!(report.storage.bytes_written > 0);
}

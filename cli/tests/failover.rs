//! `kill -9` of a leader's process in the middle of a load, again and again: the producer goes on
//! by itself, nothing acknowledged is lost, doubled or out of order, and it is measured how long
//! nobody led. Afterwards `status` shows that the quick ways were taken.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster::{Acknowledged, Cluster, Load, check_records, describe, say, wait_for};
use highwater_client::{TopicName, blocking};
use serde_json::Value;

const KILLS: u32 = 10;
const PARTITIONS: u32 = 6;

/// Small files and hardly any memory for the tail, so that most of what is read back comes from
/// sealed files.
const SEGMENT: &str = "segment.bytes=65536";
const TAIL_CACHE: &str = "limits.tail_cache_bytes=65536";

/// One cluster at a time, so that the measures mean something.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn leaders_die_with_one_shard() {
    leaders_die("node.shards=1");
}

#[test]
fn leaders_die_with_two_shards() {
    leaders_die("node.shards=2");
}

fn leaders_die(shards: &str) {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = Cluster::start(&[shards, TAIL_CACHE]);
    let topic = cluster.create_topic("load", PARTITIONS, &[SEGMENT]);
    let client = cluster.client();
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    wait_for("the load to begin", || (load.count() > 1_000).then_some(()));
    let mut outages: Vec<Outage> = (0..KILLS)
        .map(|kill| kill_leader(&mut cluster, &client, &topic, &load, kill % PARTITIONS))
        .collect();
    wait_for("appends that overlap, of several entries", || {
        // All but the node that was killed last have counted for long; it counts anew.
        let counters = cluster.counters();
        let overlap = most(&counters, "appends_in_flight_max") > 1;
        (overlap && most(&counters, "entries_per_append_max") > 1).then_some(())
    });
    let acknowledged = load.finish();
    let records = check_records(&client, &topic, &acknowledged);
    assert_eq!(records, u64::try_from(acknowledged.len()).unwrap());
    report(shards, &mut outages, records);
    check_counters(&cluster);
    cluster.verify_stopped();
}

/// The quick ways were taken, since the nodes were started for the last time.
fn check_counters(cluster: &Cluster) {
    let counters = cluster.counters();
    let nodes = cluster.nodes();
    assert_eq!(counters.len(), nodes.len());
    assert!(most(&counters, "mapped_bytes") > 0, "{counters:?}");
    for maximum in ["appends_in_flight_max", "entries_per_append_max"] {
        assert!(most(&counters, maximum) > 1, "{maximum}: {counters:?}");
    }
    for (node, counters) in nodes.iter().zip(&counters) {
        if node.log_text().contains("io_uring is not used") {
            say("this machine refuses io_uring: no completions of a ring are asked for");
        } else {
            assert!(
                counters["ring_completions"].as_u64() > Some(0),
                "{counters}"
            );
        }
    }
}

/// The largest of what the nodes have counted.
fn most(counters: &[Value], name: &str) -> u64 {
    // A node that cannot be asked at the moment tells nothing.
    let told = counters.iter().filter_map(|node| node[name].as_u64());
    told.max().unwrap_or(0)
}

/// How long after a kill a record was acknowledged that was sent after it to a partition that
/// the killed node had led.
struct Outage {
    /// The first such record.
    first: Duration,
    /// The first such record of the partition that came last.
    all: Duration,
}

fn kill_leader(
    cluster: &mut Cluster,
    client: &blocking::Client,
    topic: &TopicName,
    load: &Load,
    partition: u32,
) -> Outage {
    let (leader, led) = wait_for("a leader", || led_by_leader_of(client, topic, partition));
    let acknowledged = load.count();
    let node = cluster.node(usize::try_from(leader).unwrap());
    let killed_at = Instant::now();
    node.kill();
    let after = wait_for("acknowledgements from new leaders", || {
        let since = load.acknowledged_since(acknowledged);
        first_of_each(&led, &since, killed_at)
    });
    node.start();
    cluster.wait_until_whole(client, topic);
    Outage {
        first: *after.iter().min().unwrap(),
        all: *after.iter().max().unwrap(),
    }
}

/// Who leads a partition, and all partitions that it leads.
fn led_by_leader_of(
    client: &blocking::Client,
    topic: &TopicName,
    partition: u32,
) -> Option<(i32, Vec<u32>)> {
    let described = describe(client, topic).ok()?;
    let leader = described.partitions[&partition].leader?;
    let led = described.partitions.iter();
    let led = led.filter(|(_, it)| it.leader == Some(leader));
    Some((leader, led.map(|(number, _)| *number).collect()))
}

/// When each partition acknowledged a record sent after the kill, once all have.
fn first_of_each(
    led: &[u32],
    acknowledged: &[Acknowledged],
    killed_at: Instant,
) -> Option<Vec<Duration>> {
    let first = |partition: &u32| {
        let mut these = acknowledged.iter().filter(|it| it.partition == *partition);
        let first = these.find(|it| it.sent_at >= killed_at)?;
        Some(first.acknowledged_at - killed_at)
    };
    led.iter().map(first).collect()
}

fn report(shards: &str, outages: &mut [Outage], records: u64) {
    outages.sort_by_key(|outage| outage.first);
    let first = summary(outages.iter().map(|outage| outage.first).collect());
    let all = summary(outages.iter().map(|outage| outage.all).collect());
    say(&format!(
        "failover with {shards}, {records} records, {KILLS} kills of a leader: without a leader \
         for {first}; until all its partitions had one, {all}"
    ));
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let middle = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2;
    let last = times.last().unwrap();
    format!(
        "median {:.2} s, maximum {:.2} s",
        middle.as_secs_f64(),
        last.as_secs_f64()
    )
}

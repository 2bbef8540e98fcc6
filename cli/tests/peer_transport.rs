//! Clusters whose links go over TCP, and clusters that do not agree about it.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::net::{TcpListener, UdpSocket};

use cluster::{Cluster, Load, Node, check_records, describe, wait_for};

const TCP: &str = "peer_transport=tcp";

/// The exit code of a wrong configuration.
const NOT_SET_UP: i32 = 3;

const PARTITIONS: u32 = 3;

#[test]
fn a_cluster_over_tcp_goes_on_when_a_leader_dies_and_loses_nothing() {
    let mut cluster = Cluster::start(&[TCP]);
    for node in cluster.nodes() {
        assert!(TcpListener::bind(node.peer()).is_err(), "it listens there");
        assert!(UdpSocket::bind(node.peer()).is_ok(), "and not by UDP");
    }
    let topic = cluster.create_topic("load", PARTITIONS, &[]);
    let client = cluster.client();
    let load = Load::start(cluster.quic(), &topic, PARTITIONS);
    wait_for("the load to begin", || (load.count() > 1_000).then_some(()));
    for partition in 0..PARTITIONS {
        let leader = wait_for("a leader", || {
            describe(&client, &topic).ok()?.partitions[&partition].leader
        });
        let acknowledged = load.count();
        let node = cluster.node(usize::try_from(leader).unwrap());
        node.kill();
        wait_for("acknowledgements without it", || {
            let since = load.acknowledged_since(acknowledged);
            let goes_on = |partition| since.iter().any(|it| it.partition == partition);
            (0..PARTITIONS).all(goes_on).then_some(())
        });
        node.start();
        cluster.wait_until_whole(&client, &topic);
    }
    let acknowledged = load.finish();
    let records = check_records(&client, &topic, &acknowledged);
    assert_eq!(records, u64::try_from(acknowledged.len()).unwrap());
    cluster.verify_stopped();
}

/// Writes a `peer_transport` into a node's configuration file.
fn set_transport(node: &Node, transport: &str) {
    let text = std::fs::read_to_string(node.config()).unwrap();
    let lines = text
        .lines()
        .map(|line| match line.starts_with("peer_transport") {
            true => format!("peer_transport = \"{transport}\"\n"),
            false => format!("{line}\n"),
        });
    std::fs::write(node.config(), lines.collect::<String>()).unwrap();
}

#[test]
fn the_odd_node_of_a_mixed_cluster_ends_at_its_start_and_says_why() {
    for (ours, theirs) in [("tcp", "quic"), ("quic", "tcp")] {
        let mut cluster = Cluster::init(3, &[]);
        for node in cluster.nodes() {
            set_transport(node, theirs);
        }
        // Node 0 dials, node 2 is dialled.
        for odd in [0, 2] {
            cluster.kill_all();
            set_transport(&cluster.nodes()[odd], ours);
            for node in cluster.nodes_mut() {
                node.spawn();
            }
            let status = cluster.node(odd).wait_for_end();
            assert_eq!(status.code(), Some(NOT_SET_UP));
            let log = cluster.nodes()[odd].log_text();
            let why = format!("peer_transport = \"{ours}\" here, and ");
            assert!(log.contains(&why), "{log}");
            assert!(
                log.contains(&format!("has \"{theirs}\"; all nodes")),
                "{log}"
            );
            set_transport(&cluster.nodes()[odd], theirs);
            cluster.node(odd).spawn();
        }
        // The others were not harmed, and with the mistake mended they are a cluster.
        cluster
            .nodes_mut()
            .iter_mut()
            .for_each(Node::wait_until_ready);
        cluster.create_topic("whole", 1, &[]);
    }
}

#[test]
fn a_cluster_of_which_no_two_nodes_agree_ends() {
    let mut cluster = Cluster::init(2, &[]);
    set_transport(&cluster.nodes()[1], "tcp");
    for node in cluster.nodes_mut() {
        node.spawn();
    }
    for node in cluster.nodes_mut() {
        assert_eq!(node.wait_for_end().code(), Some(NOT_SET_UP));
        assert!(node.log_text().contains("all nodes of a cluster must have"));
    }
}

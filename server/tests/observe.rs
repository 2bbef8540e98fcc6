//! What a running node tells of itself.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use highwater::config::{Config, Layers};
use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use highwater::{NewRecord, Node, NodeError, Offset, TopicName, TopicPartition};
use highwater_protocol::ErrorCode;
use tempfile::TempDir;

/// How long a new partition may take until somebody leads it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one node, in a folder that goes with it.
struct OneNode {
    node: Node,
    _folder: TempDir,
}

impl OneNode {
    fn start(shards: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let plan = ClusterPlan {
            nodes: 1,
            ..ClusterPlan::default()
        };
        let nodes = make_cluster(folder.path(), &plan).unwrap();
        let node = Node::start(config(&nodes[0].join(CONFIG_FILE), shards)).unwrap();
        Self {
            node,
            _folder: folder,
        }
    }

    /// Creates a topic once the node is registered: there is no node to place it on before.
    async fn create(&self, topic: &str) -> TopicPartition {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.node.create_topic(topic, 1, &[]).await {
                Ok(()) => break,
                Err(NodeError::Refused { code, .. })
                    if code == ErrorCode::InvalidReplicationFactor && Instant::now() < give_up => {}
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        TopicPartition {
            topic: TopicName::new(topic).unwrap(),
            partition: 0,
        }
    }

    /// Appends once the partition is there and led.
    async fn append(&self, partition: &TopicPartition, values: &[&str]) {
        let give_up = Instant::now() + PATIENCE;
        let records: Vec<NewRecord> = values.iter().map(|value| record(value)).collect();
        loop {
            match self.node.append(partition, &records).await {
                Ok(_) => return,
                Err(NodeError::NotFound(_) | NodeError::NotLeader { .. })
                    if Instant::now() < give_up => {}
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    }
}

fn config(file: &std::path::Path, shards: u16) -> Config {
    let [kafka, peer, metrics] = free_addresses().map(|address| address.to_string());
    let mut layers = Layers::new();
    layers.file(file).unwrap();
    layers.set("listen.kafka", &kafka).unwrap();
    layers.set("listen.peer", &peer).unwrap();
    layers.set("listen.metrics", &metrics).unwrap();
    layers.set("node.shards", &shards.to_string()).unwrap();
    layers.finish().unwrap()
}

/// Ports that are free now, for TCP and UDP alike.
fn free_addresses() -> [SocketAddr; 3] {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Held together, so that they differ.
    let held = [(); 3].map(|()| {
        let tcp = TcpListener::bind(any).unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
        (tcp, udp)
    });
    held.map(|(tcp, _)| tcp.local_addr().unwrap())
}

fn record(value: &str) -> NewRecord {
    NewRecord {
        key: None,
        value: Some(value.as_bytes().to_vec()),
    }
}

#[tokio::test]
async fn a_node_counts_what_is_appended_and_read() {
    let running = OneNode::start(2);
    let partition = running.create("counted").await;
    running.append(&partition, &["a", "b", "c"]).await;
    let node = &running.node;
    let read = node.read(&partition, Offset(0), 1 << 20).await.unwrap();
    assert_eq!(read.len(), 3);

    let counters = node.counters().await.unwrap();
    assert_eq!(counters.shards, 2);
    assert_eq!((counters.produces, counters.produced_records), (1, 3));
    assert_eq!((counters.fetches, counters.fetched_records), (1, 3));
    assert_eq!(counters.produced_bytes, counters.fetched_bytes);
    assert_eq!((counters.leaders, counters.replicas), (2, 2));
    assert_eq!(counters.leaderships, 2, "of the controller and the topic");
    assert!(counters.log_writes > 0);
    assert!(counters.log_written_entries >= counters.log_writes);
    assert!(counters.storage_written_bytes >= counters.produced_bytes);
    assert!(counters.cache_hits > 0, "it was in the tail cache");
    assert!(counters.memory_used_bytes > 0);
    assert!(counters.memory_used_bytes <= counters.memory_limit_bytes);
    assert_eq!(counters.alarms, 0);
}

#[tokio::test]
async fn a_node_that_has_stopped_tells_nothing() {
    let running = OneNode::start(1);
    running.node.counters().await.unwrap();
    running.node.abort().unwrap();
    let refused = running.node.counters().await;
    assert!(matches!(refused, Err(NodeError::Failed(_))), "{refused:?}");
}

//! What a running node tells of itself.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use highwater::config::{Config, Layers};
use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use highwater::{NewRecord, Node, NodeError, Offset, StartError, TopicPartition};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

    /// Creates a topic of one partition, and waits until it is led.
    async fn create(&self, topic: &str) -> TopicPartition {
        self.node.ensure_topic(topic, 1, &[]).await.unwrap();
        let partition = TopicPartition::new(topic, 0).unwrap();
        self.node.leader(&partition).await.unwrap();
        partition
    }

    async fn append(&self, partition: &TopicPartition, values: &[&str]) {
        let records: Vec<NewRecord> = values.iter().map(|value| record(value)).collect();
        self.node.append(partition, &records).await.unwrap();
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

/// What an HTTP server answers, status line, headers and body.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_scraped_and_are_the_nodes_own() {
    let running = OneNode::start(2);
    let partition = running.create("scraped").await;
    running.append(&partition, &["a", "b"]).await;
    let node = &running.node;
    let answer = get(node.metrics_address(), "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(answer.contains("# TYPE highwater_produced_records_total counter\n"));
    assert!(answer.contains("\nhighwater_produced_records_total{node=\"0\"} 2\n"));
    assert!(answer.contains("\nhighwater_shards{node=\"0\"} 2\n"));
    let own = node.metrics().await.unwrap();
    assert!(own.contains("\nhighwater_produced_records_total{node=\"0\"} 2\n"));
}

#[tokio::test]
async fn nothing_else_is_served_beside_the_metrics() {
    let running = OneNode::start(1);
    let address = running.node.metrics_address();
    let answer = get(address, "/").await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    running.node.stop().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "it has ended");
}

#[test]
fn a_busy_metrics_port_is_named() {
    let folder = TempDir::new().unwrap();
    let plan = ClusterPlan {
        nodes: 1,
        ..ClusterPlan::default()
    };
    let nodes = make_cluster(folder.path(), &plan).unwrap();
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut config = config(&nodes[0].join(CONFIG_FILE), 1);
    config.listen.metrics = busy.local_addr().unwrap();
    let refused = Node::start(config).unwrap_err();
    assert!(
        matches!(&refused, StartError::Listen { address, .. } if *address == busy.local_addr().unwrap()),
        "{refused}"
    );
}

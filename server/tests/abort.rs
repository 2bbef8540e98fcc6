//! Three nodes in one process; one ends as in a crash, and the others go on without it.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use highwater::config::{Config, Layers};
use highwater::setup::{CONFIG_FILE, make_cluster};
use highwater::{NewRecord, Node, Offset, TopicName, TopicPartition};

const PARTITIONS: u32 = 3;

/// How long anything may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);

struct Cluster {
    configs: Vec<Config>,
    nodes: Vec<Option<Node>>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders = make_cluster(folder.path(), &common::plan(3)).unwrap();
        let configs: Vec<_> = folders.iter().map(|it| configuration(it)).collect();
        let nodes = configs
            .iter()
            .map(|config| Some(Node::start(config.clone()).unwrap()));
        Self {
            nodes: nodes.collect(),
            configs,
            _folder: folder,
        }
    }

    /// As soon as the cluster takes it.
    async fn create_topic(&self) {
        let deadline = Instant::now() + PATIENCE;
        let node = self.running().next().unwrap();
        while let Err(error) = node.create_topic("flights", PARTITIONS, &[]).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(POLL).await;
        }
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    fn abort(&mut self, id: usize) {
        self.nodes[id].take().unwrap().abort().unwrap();
    }

    fn restart(&mut self, id: usize) {
        self.nodes[id] = Some(Node::start(self.configs[id].clone()).unwrap());
    }

    /// Appends on whichever node leads, as often as it takes.
    async fn append(&self, partition: &TopicPartition, value: &str) -> (u32, Offset) {
        let record = NewRecord {
            key: None,
            value: Some(value.into()),
        };
        let deadline = Instant::now() + PATIENCE;
        let mut told = Vec::new();
        while Instant::now() < deadline {
            told.clear();
            for node in self.running() {
                match node.append(partition, std::slice::from_ref(&record)).await {
                    Ok(offset) => return (node.id(), offset),
                    Err(error) => told.push((node.id(), error)),
                }
            }
            tokio::time::sleep(POLL).await;
        }
        for node in self.running() {
            eprintln!("{node:?}: {:?}", node.replica(partition).await);
        }
        panic!("{partition} is led by nobody: {told:?}");
    }
}

fn configuration(folder: &Path) -> Config {
    let mut layers = Layers::new();
    layers.file(&folder.join(CONFIG_FILE)).unwrap();
    layers.finish().unwrap()
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition {
        topic: TopicName::new("flights").unwrap(),
        partition: number,
    }
}

#[tokio::test]
async fn the_others_go_on_when_a_node_ends_without_a_word() {
    let mut cluster = Cluster::start();
    cluster.create_topic().await;
    for round in 0..3 {
        let mut leader = 0;
        for number in 0..PARTITIONS {
            leader = cluster.append(&partition(number), "before").await.0;
        }
        cluster.abort(leader as usize);
        for number in 0..PARTITIONS {
            let (_, offset) = cluster.append(&partition(number), "after").await;
            assert_eq!(offset, Offset(2 * round + 1), "nothing is lost or doubled");
        }
        cluster.restart(leader as usize);
    }
}

/// A topic that is made while a node is still on its way to the others gets its replica there
/// all the same: with two replicas, one node less would be the end of it.
#[tokio::test]
async fn a_topic_that_is_made_at_once_survives_a_node_too() {
    let mut cluster = Cluster::start();
    cluster.create_topic().await;
    cluster.abort(0);
    for number in 0..PARTITIONS {
        cluster.append(&partition(number), "after").await;
    }
}

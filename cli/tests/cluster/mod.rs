//! Clusters of real processes for tests: `highwater start` on what `highwater init` has made.
//!
//! A [`Cluster`] lies in a temporary folder, listens on free ports of loopback and ends its
//! processes when it is dropped. When a test fails, the ends of the nodes' logs are shown and the
//! folder is kept. Nothing here waits for a time: [`wait_for`] waits for a condition, and far
//! longer than it should take, because timing does not decide whether a test passes.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test uses its own part of the harness, and fails where it unwraps"
)]

mod load;
mod node;
mod ports;
mod process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use highwater_client::{AdminError, Client, ClientBuilder, TopicDescription, TopicName, blocking};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use load::{Acknowledged, Load, check_records};
pub(crate) use node::Node;
pub(crate) use ports::{free_base_port, is_free};
pub(crate) use process::{anonymous_kib, open_files, watch_memory};

/// How long a condition may take that should hold within a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked whether it holds.
const POLL: Duration = Duration::from_millis(10);

/// How much of each log is shown when a test fails, in lines.
const LOG_LINES_SHOWN: usize = 40;

/// Nodes of one cluster, each a process.
pub(crate) struct Cluster {
    folder: TempDir,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Three nodes, all of them started, with these options: `["node.shards=2"]`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut cluster = Self::init(3, options);
        cluster.start_all();
        cluster
    }

    /// The files of a cluster; nothing is started.
    pub(crate) fn init(nodes: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base_port = free_base_port(nodes);
        let root = folder.path().join("cluster");
        let made = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(["init", "--nodes", &nodes.to_string()])
            .args(["--base-port", &base_port.to_string()])
            .arg(&root)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let node = |id| Node::new(id, base_port, &root, folder.path(), options);
        let nodes = (0..nodes).map(node).collect();
        Self { folder, nodes }
    }

    /// Starts every node that does not run, and waits until all are ready.
    pub(crate) fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.spawn();
        }
        for node in &mut self.nodes {
            node.wait_until_ready();
        }
    }

    /// Kills all of them at once.
    pub(crate) fn kill_all(&mut self) {
        // First the signals: the second node must not notice that the first is gone.
        for node in &mut self.nodes {
            node.send_kill();
        }
        for node in &mut self.nodes {
            node.reap();
        }
    }

    pub(crate) fn node(&mut self, id: usize) -> &mut Node {
        &mut self.nodes[id]
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A folder that goes when the cluster goes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("cluster/ca.pem")
    }

    pub(crate) fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|it| it.kafka().to_string()).collect();
        addresses.join(",")
    }

    /// Our client, over QUIC.
    pub(crate) fn client(&self) -> blocking::Client {
        blocking::Client::connect(self.quic()).unwrap()
    }

    pub(crate) fn quic(&self) -> ClientBuilder {
        let builder = Client::builder().bootstrap(&self.bootstrap());
        builder.quic(self.ca())
    }

    pub(crate) fn tcp(&self) -> ClientBuilder {
        let builder = Client::builder().bootstrap(&self.bootstrap());
        builder.tcp()
    }

    /// `highwater` as a client of this cluster, ready to run: with its standard input closed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command
            .args(arguments)
            .env("HIGHWATER_BOOTSTRAP", self.bootstrap())
            .env("HIGHWATER_CA", self.ca())
            .stdin(Stdio::null());
        command
    }

    /// Runs `highwater` as a client of this cluster.
    pub(crate) fn highwater(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What each node has counted since its start, as `highwater status` tells it.
    pub(crate) fn counters(&self) -> Vec<Value> {
        let status = self.highwater(&["--json", "status"]);
        assert!(status.status.success(), "{status:?}");
        let text = String::from_utf8(status.stdout).unwrap();
        let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let nodes = objects.filter(|object: &Value| object["kind"] == "node");
        nodes.map(|mut node| node["counters"].take()).collect()
    }

    /// Makes a topic of three replicas and waits until each partition has a leader.
    pub(crate) fn create_topic(&self, name: &str, partitions: u32, configs: &[&str]) -> TopicName {
        let partitions = partitions.to_string();
        let mut arguments = vec!["topic", "create", name, "--partitions", &partitions];
        arguments.extend(configs.iter().flat_map(|config| ["--config", config]));
        let made = wait_for("the nodes to join", || {
            let made = self.highwater(&arguments);
            let stderr = String::from_utf8_lossy(&made.stderr);
            let too_early = stderr.contains("INVALID_REPLICATION_FACTOR");
            (!too_early).then_some(made)
        });
        assert!(made.status.success(), "{made:?}");
        let topic = TopicName::new(name).unwrap();
        self.wait_until_whole(&self.client(), &topic);
        topic
    }

    /// Waits until every partition has a leader and all its replicas are reachable.
    pub(crate) fn wait_until_whole(&self, client: &blocking::Client, topic: &TopicName) {
        wait_for(
            "every partition to be led and its replicas reachable",
            || {
                let topic = describe(client, topic).ok()?;
                let mut partitions = topic.partitions.values();
                partitions
                    .all(|it| it.leader.is_some() && it.in_sync_replicas.len() == it.replicas.len())
                    .then_some(())
            },
        );
    }

    /// Stops each node and has `log verify` read its files.
    pub(crate) fn verify_stopped(&mut self) {
        for node in &mut self.nodes {
            node.stop();
            let verified = Command::new(env!("CARGO_BIN_EXE_highwater"))
                .args(["log", "verify"])
                .arg(node.data())
                .output()
                .unwrap();
            assert!(verified.status.success(), "{verified:?}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- the end of {}", node.log().display());
                let text = std::fs::read_to_string(node.log()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
                lines[from..].iter().for_each(|line| eprintln!("{line}"));
            }
            self.folder.disable_cleanup(true);
            eprintln!("--- all of it is in {}", self.folder.path().display());
        }
    }
}

/// A topic as the cluster describes it now.
pub(crate) fn describe(
    client: &blocking::Client,
    topic: &TopicName,
) -> Result<std::sync::Arc<TopicDescription>, AdminError> {
    let admin = client.admin();
    client.wait(admin.describe_topic(topic))
}

/// Waits until something is there.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// Says something of a test that passes, past the capture of its output: a measure.
pub(crate) fn say(line: &str) {
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

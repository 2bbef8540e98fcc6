//! Nodes of a cluster, each a process of `highwater start` with its data on a disk of its own.

mod load;
mod node;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use highwater_client::{
    AdminError, Client, ClientBuilder, ErrorCode, NewTopic, QuorumDescription, TopicName,
    TopicPartition, blocking,
};

use crate::disk_image::{Cut, FileSystem};
use crate::stop::stop;

pub use load::{Acknowledged, Load, read_back};
pub use node::Node;

/// How long a condition may take that should hold within seconds.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked whether it holds.
const POLL: Duration = Duration::from_millis(10);

/// Below the ports that the system itself gives away.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// What `highwater init` adds to the base port for Kafka, peers and metrics.
const PORTS_ABOVE: [u16; 3] = [0, 100, 200];

/// How large a topic's files are, in bytes: small enough that some are full and begun between
/// two cuts.
const SEGMENT_BYTES: u64 = 1 << 20;

/// What a cluster is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u16,
    /// What their disks are.
    pub file_system: FileSystem,
    /// How large each is, in bytes.
    pub disk_bytes: u64,
    /// The option `node.storage`.
    pub storage: &'static str,
}

/// A cluster of processes, which end with it.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    base_port: u16,
    binary: PathBuf,
}

impl Cluster {
    /// Makes the files of a cluster, in a folder that stays until it has gone, and starts it. The
    /// thread must have mounts of its own ([`isolate_mounts`](crate::disk_image::isolate_mounts)).
    ///
    /// # Errors
    ///
    /// If the system refuses, or no program `highwater` lies beside this one.
    pub fn start(settings: &Settings, folder: &Path) -> anyhow::Result<Cluster> {
        let binary = highwater()?;
        let base_port = free_base_port(settings.nodes)?;
        let root = folder.join("cluster");
        let mut init = Command::new(&binary);
        init.args(["init", "--nodes", &settings.nodes.to_string()]);
        init.args(["--base-port", &base_port.to_string()])
            .arg(&root);
        let made = init.output()?;
        ensure!(made.status.success(), "{init:?}: {made:?}");
        let node = |id| Node::make(id, settings, &root, folder);
        let nodes = (0..settings.nodes).map(node);
        let mut cluster = Cluster {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            base_port,
            binary,
        };
        cluster.start_all()?;
        Ok(cluster)
    }

    /// The nodes.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Starts every node that does not run, and waits until all are ready.
    ///
    /// # Errors
    ///
    /// If one ends instead.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.spawn(&self.binary)?;
        }
        self.nodes.iter_mut().try_for_each(Node::wait_until_ready)
    }

    /// Starts these nodes, and waits for nothing.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn spawn(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for &node in nodes {
            self.nodes[node].spawn(&self.binary)?;
        }
        Ok(())
    }

    /// Cuts the power of these nodes, all at once, and mounts their disks again. Gives how long
    /// it took from the first to the last.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn cut_power(&mut self, nodes: &[usize], cut: Cut) -> anyhow::Result<Duration> {
        let victims = nodes
            .iter()
            .filter_map(|&node| self.nodes[node].process_id());
        stop(&victims.collect::<Vec<_>>())?;
        let began = Instant::now();
        let all = &self.nodes;
        thread::scope(|scope| {
            let cut = |&node: &usize| scope.spawn(move || all[node].disk().cut_power(cut));
            let cuts: Vec<_> = nodes.iter().map(cut).collect();
            let mut cuts = cuts.into_iter();
            cuts.try_for_each(|cut| cut.join().expect("cutting does not panic"))
        })?;
        let took = began.elapsed();
        for &node in nodes {
            self.nodes[node].send_kill();
        }
        for &node in nodes {
            self.nodes[node].reap();
            self.nodes[node].disk_mut().restore_power()?;
        }
        Ok(took)
    }

    /// A client over TCP.
    pub fn client(&self) -> ClientBuilder {
        let ports = (0..).zip(&self.nodes).map(|(id, _)| self.base_port + id);
        let addresses: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        Client::builder().bootstrap(&addresses.join(",")).tcp()
    }

    /// Makes a topic with a replica on each node, as soon as all have joined, and waits until it
    /// is whole.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create_topic(&self, name: &str, partitions: u32) -> anyhow::Result<TopicName> {
        let topic = TopicName::new(name)?;
        let client = blocking::Client::connect(self.client())?;
        let replicas = u16::try_from(self.nodes.len())?;
        wait_for("the nodes to join", || {
            let new = NewTopic::new(&topic).partitions(partitions);
            let new = new.replication_factor(replicas);
            let new = new.config("segment.bytes", SEGMENT_BYTES.to_string());
            match client.wait(client.admin().create_topic(new)) {
                Ok(()) => Ok(Some(())),
                Err(AdminError::Refused {
                    error: ErrorCode::InvalidReplicationFactor,
                    ..
                }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        self.wait_until_whole(&topic)?;
        Ok(topic)
    }

    /// Waits until every partition has a leader, and all its replicas are reachable.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_until_whole(&self, topic: &TopicName) -> anyhow::Result<()> {
        let client = blocking::Client::connect(self.client())?;
        wait_for(
            "every partition to be led and its replicas reachable",
            || {
                let described = client.wait(client.admin().describe_topic(topic));
                let whole = described.is_ok_and(|topic| {
                    let mut partitions = topic.partitions.values();
                    partitions.all(|it| {
                        it.leader.is_some() && it.in_sync_replicas.len() == it.replicas.len()
                    })
                });
                Ok(whole.then_some(()))
            },
        )
    }

    /// Waits until every replica has all that its leader has. Nothing may be sent meanwhile.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_until_caught_up(&self, topic: &TopicName) -> anyhow::Result<()> {
        let client = blocking::Client::connect(self.client())?;
        let admin = client.admin();
        wait_for("every replica to have what its leader has", || {
            let Ok(described) = client.wait(admin.describe_topic(topic)) else {
                return Ok(None);
            };
            let partitions = described
                .partitions
                .keys()
                .map(|&partition| TopicPartition {
                    topic: topic.clone(),
                    partition,
                });
            let partitions: Vec<_> = partitions.collect();
            let quorums = client.wait(admin.describe_quorums(&partitions));
            let mut quorums = quorums.into_iter();
            Ok(quorums
                .all(|quorum| quorum.is_ok_and(|it| are_equal(&it)))
                .then_some(()))
        })
    }

    /// Stops each node, has `highwater log verify` read its files, and compares each node's logs
    /// with those of the next.
    ///
    /// # Errors
    ///
    /// If a node does not end well, or something is not as it should be.
    pub fn verify(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::stop)?;
        let all = self.nodes.iter();
        let next = self.nodes.iter().cycle().skip(1);
        for (one, other) in all.zip(next) {
            let mut verify = Command::new(&self.binary);
            verify.args(["log", "verify"]).arg(one.data());
            if self.nodes.len() > 1 {
                verify.arg("--against").arg(other.data());
            }
            let verified = verify.output()?;
            let said = String::from_utf8_lossy(&verified.stdout);
            ensure!(verified.status.success(), "{verify:?}: {said}");
        }
        Ok(())
    }

    /// Ends all nodes and keeps their disks. Gives the paths.
    ///
    /// # Errors
    ///
    /// If one stays busy.
    pub fn keep(self) -> anyhow::Result<Vec<PathBuf>> {
        self.nodes.into_iter().map(Node::keep).collect()
    }
}

/// Whether every replica is as far as the leader.
fn are_equal(quorum: &QuorumDescription) -> bool {
    let mut voters = quorum.voters.iter();
    voters.all(|voter| quorum.lag(voter.broker) == Some(0))
}

/// Waits until something is there.
///
/// # Errors
///
/// What `look` gives, or that it takes too long.
pub fn wait_for<T>(
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(POLL);
    }
}

/// The program, which lies where this one does, or above it if this is a test.
fn highwater() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let mut programs = folders.map(|folder| folder.join("highwater"));
    let found = programs.find(|program| fs::exists(program).unwrap_or(false));
    found.with_context(|| {
        let this = this.display();
        format!("no highwater beside {this}: cargo build --workspace --bin highwater")
    })
}

fn free_base_port(nodes: u16) -> anyhow::Result<u16> {
    let is_free = |port: u16| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    let are_free = |base: &u16| {
        let above = PORTS_ABOVE.into_iter();
        let mut all = above.flat_map(|above| (0..nodes).map(move |id| base + above + id));
        all.all(is_free)
    };
    let mut bases = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1_000);
    bases.find(are_free).context("no free ports")
}

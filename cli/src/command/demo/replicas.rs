//! The demonstration's three nodes: one of them is dropped, and comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater::Node;
use highwater::config::Config;
use highwater::setup::{CA_FILE, ClusterPlan, make_cluster};
use highwater_client::{Client, Offset, TopicName, TopicPartition};
use indicatif::{DecimalBytes, HumanCount};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Words;
use crate::cluster::insist;
use crate::exit::{Failure, Kind};
use crate::local::{self, Addresses};
use crate::nodes;

/// So small that whoever reads from the beginning reads files.
const TAIL_CACHE_BYTES: &str = "65536";

/// How long a node may take to have what the others have.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked how far it is.
const POLL: Duration = Duration::from_millis(10);

/// Three nodes in this process.
pub(super) struct Replicas {
    folder: PathBuf,
    configs: Vec<Config>,
    /// By id; one that was dropped is missing.
    nodes: Vec<Option<Node>>,
    /// A start or an end under way. Kept here, so that an interrupt does not lose it.
    pending: Option<JoinHandle<Result<Option<Node>, Failure>>>,
}

/// A node, and what it leads.
pub(super) struct Victim {
    id: usize,
    pub(super) led: Vec<TopicPartition>,
}

impl Replicas {
    /// Makes their folders, with options of the user.
    ///
    /// # Errors
    /// When a folder cannot be made, or there is no such option.
    pub(super) fn make(folder: &Path, options: &[(String, String)]) -> Result<Self, Failure> {
        let folders = make_cluster(folder, &ClusterPlan::default());
        let folders = folders.map_err(Failure::of(Kind::Setup))?;
        let addresses = Addresses::of_nodes(folders.len(), 0)?;
        let set = options.iter().map(|(key, value)| (&**key, &**value));
        let options = [("limits.tail_cache_bytes", TAIL_CACHE_BYTES)].into_iter();
        let options: Vec<_> = options.chain(set).collect();
        Ok(Self {
            configs: local::configs(&folders, &addresses, &options)?,
            nodes: folders.iter().map(|_| None).collect(),
            pending: None,
            folder: folder.to_owned(),
        })
    }

    /// Starts all of them.
    ///
    /// # Errors
    /// When one cannot start.
    pub(super) async fn start_all(&mut self) -> Result<(), Failure> {
        for id in 0..self.configs.len() {
            self.start(id).await?;
        }
        Ok(())
    }

    async fn start(&mut self, id: usize) -> Result<(), Failure> {
        let config = self.configs[id].clone();
        self.nodes[id] = self
            .blocking(move || nodes::start(config).map(Some))
            .await?;
        Ok(())
    }

    /// Does what blocks on a thread that may.
    async fn blocking(
        &mut self,
        work: impl FnOnce() -> Result<Option<Node>, Failure> + Send + 'static,
    ) -> Result<Option<Node>, Failure> {
        let task = self.pending.insert(tokio::task::spawn_blocking(work));
        let done = task.await;
        self.pending = None;
        done.map_err(Failure::of(Kind::Other))?
    }

    /// Where they are.
    pub(super) fn greeting(&self) -> Words {
        let (count, bootstrap) = (self.configs.len(), self.bootstrap());
        let folder = self.folder.display();
        Words::new(
            format!("{count} replicas on {bootstrap}, in {folder} while this runs"),
            json!({ "event": "started", "bootstrap": bootstrap, "folder": self.folder }),
        )
    }

    fn bootstrap(&self) -> String {
        let kafka = self
            .configs
            .iter()
            .map(|config| config.listen.kafka.to_string());
        kafka.collect::<Vec<_>>().join(",")
    }

    /// A client, over QUIC.
    ///
    /// # Errors
    /// When no node answers.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::builder()
            .bootstrap(&self.bootstrap())
            .quic(self.folder.join(CA_FILE));
        Ok(client.connect().await?)
    }

    /// The node that leads the topic's first partition, and what else it leads.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub(super) async fn leader_of(
        &self,
        client: &Client,
        topic: &TopicName,
    ) -> Result<Victim, Failure> {
        let admin = client.admin();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let described = insist(|| admin.describe_topic(topic)).await?;
            let leaders = described.partitions.iter();
            let leaders = leaders.map(|(number, partition)| (*number, partition.leader));
            if let Some(victim) = Victim::of_leaders(topic, leaders.collect()) {
                return Ok(victim);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::new(
            Kind::Absent,
            "nobody leads the first partition",
        ))
    }

    /// Ends a node as a crash would.
    ///
    /// # Errors
    /// When it had failed by itself.
    pub(super) async fn drop_node(&mut self, victim: &Victim) -> Result<Words, Failure> {
        if let Some(node) = self.nodes.get_mut(victim.id).and_then(Option::take) {
            let abort = move || match node.abort() {
                Ok(()) => Ok(None),
                Err(error) => Err(Failure::new(Kind::Disk, error)),
            };
            self.blocking(abort).await?;
        }
        let led: Vec<u32> = victim.led.iter().map(|at| at.partition).collect();
        let id = victim.id;
        Ok(Words::new(
            format!("Dropped node {id}, which led partitions {led:?}: no flush, no hand-over"),
            json!({ "event": "dropped", "node": id, "partitions": led }),
        ))
    }

    /// Starts what was dropped, and waits until every replica has everything up to `ends`.
    ///
    /// # Errors
    /// When it cannot start, or does not catch up.
    pub(super) async fn restart(
        &mut self,
        ends: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<Words, Failure> {
        let started = Instant::now();
        let mut back = Vec::new();
        for id in 0..self.nodes.len() {
            if self.nodes[id].is_none() {
                self.start(id).await?;
                back.push(id);
            }
        }
        for (node, (partition, end)) in self
            .running()
            .flat_map(|node| ends.iter().map(move |at| (node, at)))
        {
            wait_for(node, partition, *end, started + PATIENCE).await?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let text = match back.first() {
            Some(id) => format!("Node {id} is back: recovered and caught up in {seconds:.2} s"),
            None => format!("All replicas are level after {seconds:.2} s"),
        };
        Ok(Words::new(
            text,
            json!({ "event": "level", "restarted": back, "seconds": seconds }),
        ))
    }

    /// What the running nodes have counted, one that was started again from then on.
    ///
    /// # Errors
    /// When one has failed.
    pub(super) async fn counters(&self) -> Result<Words, Failure> {
        let mut mapped = 0;
        let mut ring = 0;
        let mut in_flight = 0;
        let mut per_append = 0;
        for node in self.running() {
            let counters = node.counters().await.map_err(Failure::of(Kind::Disk))?;
            mapped += counters.mapped_bytes;
            ring += counters.ring_completions;
            in_flight = in_flight.max(counters.appends_in_flight_max);
            per_append = per_append.max(counters.entries_per_append_max);
        }
        Ok(Words::new(
            format!(
                "Counters: {} served from maps, {} completions of io_uring; at most {in_flight} \
                 appends in flight to a follower, at most {per_append} entries in one append",
                DecimalBytes(mapped),
                HumanCount(ring),
            ),
            json!({
                "event": "counters",
                "mapped_bytes": mapped,
                "ring_completions": ring,
                "appends_in_flight_max": in_flight,
                "entries_per_append_max": per_append,
            }),
        ))
    }

    /// Hands over, and stops all of them at the same time.
    ///
    /// # Errors
    /// When one had failed.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let mut nodes = std::mem::take(&mut self.nodes);
        if let Some(pending) = self.pending.take()
            && let Ok(Ok(node)) = pending.await
        {
            nodes.push(node);
        }
        nodes::stop(nodes.into_iter().flatten(), None).await
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }
}

impl Victim {
    fn of_leaders(topic: &TopicName, leaders: BTreeMap<u32, Option<i32>>) -> Option<Self> {
        let leader = (*leaders.get(&0)?)?;
        let led = leaders
            .iter()
            .filter(|(_, led_by)| **led_by == Some(leader));
        let led = led.map(|(number, _)| TopicPartition {
            topic: topic.clone(),
            partition: *number,
        });
        Some(Self {
            id: usize::try_from(leader).ok()?,
            led: led.collect(),
        })
    }
}

/// Waits until a node's replica of a partition is committed up to `end`, or beyond.
async fn wait_for(
    node: &Node,
    partition: &TopicPartition,
    end: Offset,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut last = String::new();
    while Instant::now() < deadline {
        match node.replica(partition).await {
            Ok(replica) if replica.high_watermark >= end => return Ok(()),
            Ok(replica) => last = format!("it is at {}", replica.high_watermark),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(POLL).await;
    }
    let what = format!(
        "node {} has not got {partition} up to {end}: {last}",
        node.id()
    );
    Err(Failure::new(Kind::Absent, what))
}

//! What there is to show, asked together.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use highwater_client::{
    Admin, Broker, CallError, ClusterDescription, ErrorCode, Offset, QuorumDescription, StartAt,
    TopicDescription, TopicName, TopicPartition,
};

use crate::scrape::{Counters, scrape};

/// The setting in which a Highwater node says where its metrics are.
const METRICS_CONFIG: &str = "metrics.listener";

/// A node of the cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: i32,
    /// Where clients reach it; nothing if the cluster does not reach it itself.
    pub(super) address: Option<String>,
    pub(super) is_controller: bool,
    /// What it has done, or why that cannot be told.
    pub(super) counters: Result<Counters, String>,
}

impl Node {
    /// Whether the other nodes reach it.
    pub(super) fn is_alive(&self) -> bool {
        self.address.is_some()
    }
}

/// A partition and its replicas.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: TopicName,
    pub(super) number: u32,
    pub(super) leader: Option<i32>,
    /// -1 if nobody has led it yet.
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<i32>,
    /// Nothing if nobody could tell.
    pub(super) high_watermark: Option<Offset>,
    pub(super) lag: Lag,
}

/// How far the replicas of a partition are behind its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lag {
    /// Records, by replica; nothing where the leader does not know.
    Known(Vec<(i32, Option<u64>)>),
    /// The broker does not tell.
    NotTold,
    /// Nobody leads now.
    NoLeader,
    /// Nobody has led yet: there is nothing in it.
    NeverUsed,
}

impl Lag {
    /// Whether it is known of some replicas only.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self, Self::Known(lag) if lag.iter().any(|(_, lag)| lag.is_none()))
    }
}

/// The nodes that are reached, and those that hold replicas and are not.
pub(super) async fn nodes_of(
    admin: &Admin,
    cluster: &ClusterDescription,
    topics: &[Arc<TopicDescription>],
) -> Vec<Node> {
    let partitions = topics.iter().flat_map(|topic| topic.partitions.values());
    let mut ids: BTreeSet<i32> = partitions
        .flat_map(|partition| partition.replicas.iter().copied())
        .collect();
    ids.extend(cluster.brokers.iter().map(|broker| broker.id));
    let mut nodes = Vec::new();
    for id in ids {
        let broker = cluster.brokers.iter().find(|broker| broker.id == id);
        let counters = match broker {
            Some(broker) => counters_of(admin, broker).await,
            None => Err("it is not reached".to_owned()),
        };
        nodes.push(Node {
            id,
            address: broker.map(|broker| format!("{}:{}", broker.host, broker.port)),
            is_controller: cluster.controller == Some(id),
            counters,
        });
    }
    nodes
}

async fn counters_of(admin: &Admin, broker: &Broker) -> Result<Counters, String> {
    let configs = admin.describe_broker_configs(broker.id).await;
    let configs = configs.map_err(|error| error.to_string())?;
    let mut values = configs
        .into_iter()
        .filter(|config| config.name == METRICS_CONFIG);
    let value = values.next().and_then(|config| config.value);
    let address = value.and_then(|value| value.parse::<SocketAddr>().ok());
    // Loopback, as Highwater's always is: nobody makes this machine call others.
    let Some(address) = address.filter(|address| address.ip().is_loopback()) else {
        return Err(format!(
            "it does not say where its metrics are ({METRICS_CONFIG})"
        ));
    };
    if !is_here(&broker.host).await {
        let host = &broker.host;
        return Err(format!(
            "its metrics are on its own machine; run `highwater status` on {host}, or look there \
             at http://{address}/metrics"
        ));
    }
    let counters = scrape(address, broker.id).await;
    counters.map_err(|error| format!("http://{address}/metrics: {error}"))
}

/// Whether a host is this machine: then its addresses can be bound to.
async fn is_here(host: &str) -> bool {
    let Ok(addresses) = tokio::net::lookup_host((host, 0)).await else {
        return false;
    };
    let mut addresses = addresses.peekable();
    addresses.peek().is_some() && addresses.all(|address| UdpSocket::bind(address).is_ok())
}

/// The partitions of topics, as their leaders know them. Leaders may have changed since the
/// topics were described: those who are asked in vain are looked up once more.
pub(super) async fn partitions_of(
    admin: &Admin,
    topics: &[Arc<TopicDescription>],
) -> Vec<Partition> {
    let partitions = ask(admin, topics).await;
    if !partitions.iter().any(has_moved) {
        return partitions
            .into_iter()
            .map(|(partition, _)| partition)
            .collect();
    }
    let names: BTreeSet<&TopicName> = topics.iter().map(|topic| &topic.name).collect();
    let Ok(mut again) = admin.list_topics().await else {
        return partitions
            .into_iter()
            .map(|(partition, _)| partition)
            .collect();
    };
    again.retain(|topic| names.contains(&topic.name));
    let partitions = ask(admin, &again).await;
    partitions
        .into_iter()
        .map(|(partition, _)| partition)
        .collect()
}

/// What a partition's leader has answered; nothing if there was nobody to ask.
type Told = Option<Result<QuorumDescription, CallError>>;

fn has_moved((partition, told): &(Partition, Told)) -> bool {
    let refused = matches!(
        told,
        Some(Err(CallError::Refused {
            error: ErrorCode::NotLeaderOrFollower,
            ..
        }))
    );
    refused && partition.lag != Lag::NeverUsed
}

async fn ask(admin: &Admin, topics: &[Arc<TopicDescription>]) -> Vec<(Partition, Told)> {
    let mut partitions: Vec<Partition> = topics.iter().flat_map(|topic| described(topic)).collect();
    let led: Vec<usize> = (0..partitions.len())
        .filter(|&at| partitions[at].leader.is_some())
        .collect();
    let asked: Vec<TopicPartition> = led.iter().map(|&at| partitions[at].name()).collect();
    let told = admin.describe_quorums(&asked).await;
    let mut answers: Vec<Told> = partitions.iter().map(|_| None).collect();
    for (at, told) in led.into_iter().zip(told) {
        partitions[at].take(admin, &told).await;
        answers[at] = Some(told);
    }
    partitions.into_iter().zip(answers).collect()
}

fn described(topic: &TopicDescription) -> impl Iterator<Item = Partition> {
    topic
        .partitions
        .iter()
        .map(|(&number, partition)| Partition {
            topic: topic.name.clone(),
            number,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            high_watermark: None,
            lag: Lag::NoLeader,
        })
}

impl Partition {
    fn name(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.number,
        }
    }

    /// Takes in what the leader has told.
    async fn take(&mut self, admin: &Admin, told: &Result<QuorumDescription, CallError>) {
        match told {
            Ok(quorum) => {
                self.leader_epoch = quorum.leader_epoch;
                self.high_watermark = Some(quorum.high_watermark);
                let replicas = self.replicas.iter();
                let lag = replicas.map(|&replica| (replica, quorum.lag(replica)));
                self.lag = Lag::Known(lag.collect());
            }
            // Any other question would make it elect a leader.
            Err(CallError::Refused {
                error: ErrorCode::NotLeaderOrFollower,
                ..
            }) if self.leader_epoch < 0 => self.lag = Lag::NeverUsed,
            Err(CallError::Refused {
                error: ErrorCode::UnknownTopicOrPartition,
                ..
            })
            | Err(CallError::Unsupported { .. }) => {
                self.lag = Lag::NotTold;
                let latest = admin.offset(&self.name(), StartAt::Latest).await;
                self.high_watermark = latest.ok();
            }
            Err(_) => self.lag = Lag::NoLeader,
        }
    }
}

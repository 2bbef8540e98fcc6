//! What a service is told at its start.

use crate::controller::{ClusterDefaults, NodeRegistration};
use crate::io::ShardId;

/// Settings of the service of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Who and where the node is; the same on all its shards.
    pub registration: NodeRegistration,
    /// Which shard this is.
    pub shard: ShardId,
    /// The cluster's id, as clients see it.
    pub cluster_id: String,
    /// Address and port that the node listens on for clients.
    pub listener: String,
    /// Address and port of its metrics, loopback.
    pub metrics_listener: String,
    /// Whether a client that asks for a topic's metadata creates it.
    pub auto_create: bool,
    /// What topics get where their creator leaves it open.
    pub defaults: ClusterDefaults,
    /// Where topic ids come from. Different on every start of every node.
    pub seed: u64,
}

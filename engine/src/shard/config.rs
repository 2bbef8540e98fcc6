//! What a shard is told when it is opened.

use std::time::Duration;

use highwater_consensus::NodeId;
use highwater_log::{ClusterId, Incarnation};

use crate::io::ShardId;
use crate::ops::GroupSpec;

/// Who a shard is, and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This node's incarnation.
    pub incarnation: Incarnation,
    /// Which of the node's shards.
    pub shard: ShardId,
    /// How many shards the node has.
    pub shards: u16,
    /// What random numbers are drawn from: election timeouts.
    pub seed: u64,
    /// Timeouts of consensus.
    pub timing: Timing,
    /// The controller's group, as the cluster was formatted; only on the shard where it lives.
    pub controller: Option<GroupSpec>,
    /// What [`Shard::known_wall_ms`](crate::Shard::known_wall_ms) gave last in the node's life
    /// before this one, if there was one.
    pub last_known_wall_ms: Option<i64>,
}

/// Timeouts of consensus, equal for all groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often leaders are heard of.
    pub heartbeat_interval: Duration,
    /// Election timeouts are drawn from here on.
    pub election_timeout_min: Duration,
    /// Election timeouts are drawn below this.
    pub election_timeout_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat_interval: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(750),
            election_timeout_max: Duration::from_millis(1_500),
        }
    }
}

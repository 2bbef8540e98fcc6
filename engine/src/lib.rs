//! The deterministic ring: shards, partitions, controller and request logic.
//!
//! A shard takes [`Input`]s, and a turn at a time turns them into [`Output`]s. It knows no
//! sockets, threads or clocks; time, chance and disk are arguments.

#[macro_use]
#[doc(hidden)]
pub mod mutants;

mod codec;
mod config;
pub mod controller;
mod counters;
mod io;
pub mod kafka;
mod ops;
mod partition;
pub mod peer;
mod positions;
mod producer_state;
mod service;
mod shard;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wall_clock;

pub use codec::Truncated;
pub use config::{
    CONFIG_VALUE_BYTES_MAX, ConfigChange, ConfigError, ConfigKey, ConfigRule, ConfigType,
    MESSAGE_BYTES_MAX, TOPIC_CONFIGS, TopicConfigs,
};
pub use counters::{PartitionCounters, ShardCounters, ShardGauges, ShardReport};
pub use highwater_consensus::{Lane, LogIndex, NodeId, Session};
pub use io::{ConnId, Input, LeaderHint, Now, Output, ShardId, ShardMessage, Ticket, Turn};
pub use ops::{
    Asked, Batch, CONTROLLER, CommittedEntry, CommittedKind, Fetch, Fetched, GroupCommand,
    GroupConfig, GroupId, GroupSpec, OffsetSpec, Op, OpError, OpId, OpQueue, OpResult, Outcome,
    Produce, Quorum, QuorumReplica, ReadFrom, ReplicaStatus,
};
pub use partition::{GroupState, GroupStateError};
pub use producer_state::{
    PRODUCER_BATCHES_MAX, PRODUCER_EXPIRATION_SECONDS, PRODUCER_SNAPSHOT_VERSION,
    PRODUCERS_PER_NODE_MAX, PRODUCERS_PER_PARTITION_KEPT, ProducerCount, ProducerError,
    ProducerFacts, ProducerSnapshotError, ProducerStates, RememberedBatch, Verdict,
};
pub use service::{NoService, SERVICE_MESSAGE_BYTES_MAX, Service, ServiceAddress, ServiceOutput};
pub use shard::{OpenShardError, Shard, ShardConfig, Timing};
pub use wall_clock::{WALL_CLOCK_DOUBT_MAX, WALL_CLOCK_ERROR_MAX};

//! Kafka's requests, from whole frames to whole answers.
//!
//! [`KafkaService`] is the service of a shard. `connection.rs` keeps the order, `handler.rs` is
//! what every request on its way looks like, and a file each holds what a kind of request does.
//! What concerns topics and nodes, not partitions, is [`Desk`]'s matter.

mod cluster;
mod connection;
mod errors;
mod fetch;
mod handler;
#[cfg(test)]
mod nodes;
mod offsets;
mod produce;
mod quorum;
mod refusals;
mod service;
#[cfg(test)]
mod tests;

pub use cluster::{Desk, KafkaConfig};
pub use connection::{REQUESTS_IN_FLIGHT_MAX, RequestId};
pub use fetch::RESPONSE_BYTES_MAX;
pub use handler::{Directory, PartitionRef};
pub use service::{Cluster, ClusterOutput, KafkaService};

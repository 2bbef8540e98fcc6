//! Kafka's requests, from whole frames to whole answers.
//!
//! [`connection`](self::connection) keeps the order, [`handler`](self::handler) is what every
//! request on its way looks like, and a file each holds what a kind of request does.

mod connection;
mod errors;
mod fetch;
mod handler;
mod offsets;
mod produce;
mod service;
#[cfg(test)]
mod tests;

pub use connection::REQUESTS_IN_FLIGHT_MAX;
pub(crate) use connection::RequestId;
pub(crate) use handler::{Directory, PartitionRef, ProduceRules};
pub(crate) use service::{Cluster, ClusterOutput, KafkaService};

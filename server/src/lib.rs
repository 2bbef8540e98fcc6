//! Highwater, the embedded replicated log and its server.
//!
//! [`Node`] is a replica inside the process that uses it; it also serves Kafka's clients on its
//! listeners. [`setup`] makes the files of a cluster, [`config`] is what a node is told.

mod clients;
pub mod config;
mod counters;
mod mailbox;
mod node;
pub mod offline;
mod peers;
pub mod setup;
mod start;
mod thread;

pub use counters::NodeCounters;
pub use highwater_record::{Offset, TopicName, TopicPartition};
pub use node::{Follow, NewRecord, Node, NodeError, Record};
pub use start::StartError;

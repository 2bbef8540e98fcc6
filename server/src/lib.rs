//! Highwater, the embedded replicated log and its server.
//!
//! [`Node`] is a replica inside the process that uses it; it also serves Kafka's clients on its
//! listeners. [`setup`] makes the files of a cluster, [`config`] is what a node is told.
//!
//! ```no_run
//! use std::path::Path;
//! use highwater::config::Config;
//! use highwater::{NewRecord, Node, TopicPartition};
//!
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(Config::read(Path::new("cluster/node-0/highwater.toml"))?)?;
//! node.ensure_topic("events", 1, &[]).await?;
//! let events = TopicPartition::new("events", 0)?;
//!
//! let mut follow = node.follow(events.clone(), highwater::Offset::ZERO);
//! node.append(&events, &[NewRecord::new("door", "opened")]).await?;
//! let end = node.barrier(&events).await?;
//! while follow.position() < end {
//!     for record in follow.next().await? {
//!         println!("{}: {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` is the whole of a first program, `examples/kv.rs` a replicated map.

mod clients;
pub mod config;
mod counters;
mod mailbox;
mod metrics;
mod mixed;
mod node;
pub mod offline;
mod peers;
pub mod setup;
mod start;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod wall_clock;

pub use counters::NodeCounters;
pub use highwater_engine::ReplicaStatus;
pub use highwater_protocol::ErrorCode;
pub use highwater_record::{LeaderEpoch, Offset, TopicName, TopicPartition};
pub use node::{Follow, NewRecord, Node, NodeError, Record};
pub use start::StartError;

//! The simulated world: nodes, disks, a network and clients on virtual time.
//!
//! [`World`] owns the shards of several nodes, each over a disk that survives it, and drives them
//! by [`Shard::turn`](crate::Shard::turn) alone. Its clients speak Kafka's frames. What happens is
//! a function of a [`Plan`], which is drawn from a seed: the same plan gives the same run, event by
//! event, and the same trace byte for byte. What is promised between replicas is checked while it
//! runs, by an [`oracle`]; what is promised to clients is judged at the end, by the checker of
//! [`history`].

mod client;
mod clock;
mod decay;
mod disk;
pub mod history;
mod network;
pub mod oracle;
mod plan;
mod reached;
mod schedule;
mod shrink;
mod trace;
mod world;

#[cfg(test)]
pub(crate) use disk::{Disk, SimStorage};
pub use oracle::Violation;
pub use plan::{Plan, Profile, TopicPlan};
pub use reached::{POSSIBLE, REACHABLE, Reached};
pub use schedule::{Fault, FaultKind};
pub use shrink::shrink;
pub use world::{Embedded, Hindrance, Lost, Outcome, Report, World, run};

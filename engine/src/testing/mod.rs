//! The simulated world: nodes, disks, a network and clients on virtual time.
//!
//! [`World`] owns the shards of several nodes, each over a disk that survives it, and drives them
//! by [`Shard::turn`](crate::Shard::turn) alone. Everything that happens is drawn from one seed:
//! the same seed gives the same run, event by event, and the same trace byte for byte. What is
//! promised to clients and between replicas is checked while it runs, by an [`oracle`] that sees
//! only what a client could see, and how replicas stand.

mod client;
mod disk;
pub mod history;
mod network;
pub mod oracle;
mod plan;
mod trace;
mod world;

#[cfg(test)]
pub(crate) use disk::{Disk, SimStorage};
pub use oracle::Violation;
pub use plan::Plan;
pub use world::{Embedded, Lost, Report, World, run};

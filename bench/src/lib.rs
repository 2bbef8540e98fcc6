//! Load, limits and reports: how fast a cluster and a disk are, and under which durability.
//!
//! [`limits`] measures the disk as the log uses it; [`produce`] and [`consume`] load a running
//! cluster through the client; [`suite`] starts a cluster of processes, and measures the disk and
//! the cluster in one run. Each report says what it measured; the command line prints it.

mod cluster;
mod consume;
mod cpu;
mod latency;
pub mod limits;
mod produce;
pub mod suite;

pub use cluster::LocalCluster;
pub use consume::{ConsumeLoad, ConsumeReport, consume};
pub use cpu::CpuMeter;
pub use latency::{Latencies, Percentiles};
pub use produce::{ProduceLoad, ProduceReport, produce};

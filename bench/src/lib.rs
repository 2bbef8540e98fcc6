//! Load, limits and reports: how fast a cluster and a disk are, and under which durability.
//!
//! [`limits`] measures the disk as the log uses it; [`produce`] and [`consume`] load a running
//! cluster through the client. Each report says what it measured; the command line prints it.

mod consume;
mod cpu;
mod latency;
pub mod limits;
mod produce;

pub use consume::{ConsumeLoad, ConsumeReport, consume};
pub use cpu::CpuMeter;
pub use latency::{Latencies, Percentiles};
pub use produce::{ProduceLoad, ProduceReport, produce};

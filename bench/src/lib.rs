//! Load, limits and reports: how fast a cluster and a disk are, and under which durability.
//!
//! [`limits`] measures the disk as the log uses it, memory and loopback, and [`pipeline`] the bare
//! replicated path over links and disks; [`produce`], [`consume`], [`end_to_end`] and [`mixed`] load
//! a running cluster through the client; [`sweep`] raises a load's rate until it
//! breaks; [`suite`] starts a cluster of processes, and measures the
//! disk and the cluster in one run. Each report says what it measured; the command line prints it,
//! and [`compare`] puts two of them side by side.

mod batching;
mod cluster;
mod compare;
mod consume;
mod counted;
mod cpu;
mod end_to_end;
mod latency;
pub mod limits;
mod mixed;
mod noise;
mod offsets;
mod pace;
pub mod pipeline;
mod probe;
mod produce;
mod producers;
mod readers;
mod spread;
mod stamp;
pub mod suite;
pub mod sweep;

pub use batching::Batching;
pub use cluster::LocalCluster;
pub use compare::{Compared, Comparison, REPORT_BYTES_MAX, compare};
pub use consume::{ConsumeLoad, ConsumeReport, consume};
pub use cpu::CpuMeter;
pub use end_to_end::{EndToEndLoad, EndToEndReport, end_to_end};
pub use latency::{Latencies, Percentiles};
pub use mixed::{MixedLoad, MixedReport, Side, mixed};
pub use noise::RECORD_BYTES_MAX;
pub use probe::DiskProbe;
pub use produce::{ProduceLoad, ProduceReport, produce};
pub use spread::Spread;
pub use stamp::STAMP_BYTES;

//! What the machine can do at most, measured before the cluster in the same run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Figure, Processes, Suite};
use crate::limits::disk::{self, Limit, SIZES};
use crate::limits::{Limits, RUNS_MIN, link};
use crate::pipeline::{self, Files, PipelineLoad};

/// How long a run takes, but that of the bare path, which takes as long as the cluster's.
const RUN: Duration = Duration::from_secs(1);

/// The fewest nodes that replicate as the bare path does.
pub(super) const REPLICAS: u16 = 3;

/// What figures are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceilings {
    disk: Disk,
    /// Of what a client's connection carries.
    link_bytes_per_second: f64,
    /// Of what the bare path has acknowledged; none if the cluster has fewer replicas.
    pipeline_mb_per_second: Option<f64>,
}

/// The disk's own rates: 4 KiB on blocks written before, 1 MiB on blocks as the log's files have
/// them at these rates.
#[derive(Debug, Clone, Copy)]
struct Disk {
    small_p50_us: u64,
    large_bytes_per_second: u64,
}

impl Ceilings {
    /// Measures them in `folder`, and shows each.
    pub(super) async fn measure(
        processes: &Processes<'_>,
        folder: &Path,
        nodes: u16,
        suite: &Suite,
        show: &mut impl FnMut(Figure) -> Result<()>,
    ) -> Result<Ceilings> {
        let limits = Limits {
            runs: suite.runs.max(RUNS_MIN),
            run: RUN,
        };
        let disk = measure_disk(folder, &limits, suite.files, show)?;
        let link_bytes_per_second = measure_link(&limits, suite, show).await?;
        let pipeline_mb_per_second = match nodes >= REPLICAS {
            true => Some(measure_pipeline(processes, folder, suite, show).await?),
            false => None,
        };
        Ok(Ceilings {
            disk,
            link_bytes_per_second,
            pipeline_mb_per_second,
        })
    }

    /// What so many replicas write, of what the disk takes.
    pub(super) fn disk_ratio(&self, mb_per_second: f64, nodes: u16) -> f64 {
        let written = mb_per_second * f64::from(nodes.min(REPLICAS));
        written * 1e6 / self.disk.large_bytes_per_second as f64
    }

    /// A latency, by that of one synced write of 4 KiB.
    pub(super) fn sync_ratio(&self, milliseconds: f64) -> f64 {
        milliseconds * 1e3 / self.disk.small_p50_us as f64
    }

    /// What is produced, of what the bare path acknowledges.
    pub(super) fn pipeline_ratio(&self, mb_per_second: f64) -> Option<f64> {
        Some(mb_per_second / self.pipeline_mb_per_second?)
    }

    /// What is read, of what a connection carries.
    pub(super) fn link_ratio(&self, mb_per_second: f64) -> f64 {
        mb_per_second * 1e6 / self.link_bytes_per_second
    }
}

fn measure_disk(
    folder: &Path,
    limits: &Limits,
    files: Files,
    show: &mut impl FnMut(Figure) -> Result<()>,
) -> Result<Disk> {
    let mut measured: Vec<Limit> = Vec::new();
    disk::measure(folder, limits, |limit| {
        // The first storage that there is; the other one would be another log.
        let Ok(limit) = limit else { return Ok(()) };
        let first = measured
            .first()
            .map_or(limit.storage, |first| first.storage);
        if limit.storage == first {
            show(Figure::Disk(limit.clone()))?;
            measured.push(limit);
        }
        Ok(())
    })?;
    let find = |prepared: &str, bytes: usize| {
        let found = measured
            .iter()
            .find(|it| it.prepared == prepared && it.bytes == bytes);
        found.with_context(|| format!("{bytes} bytes were not measured"))
    };
    Ok(Disk {
        small_p50_us: find("zeroed", SIZES[0])?.latency.p50_us,
        large_bytes_per_second: find(prepared(files), SIZES[2])?.bytes_per_second,
    })
}

/// How the blocks of such files are before they are written.
const fn prepared(files: Files) -> &'static str {
    match files {
        Files::Fresh => "reserved",
        Files::Steady => "zeroed",
    }
}

/// Loopback, by what clients talk, as large as they would.
async fn measure_link(
    limits: &Limits,
    suite: &Suite,
    show: &mut impl FnMut(Figure) -> Result<()>,
) -> Result<f64> {
    let [_, most] = link::DATAGRAMS;
    let datagram_bytes = suite.datagram_bytes.unwrap_or(most);
    let [_, write_bytes] = link::WRITES;
    let ceiling = match suite.quic {
        true => link::quic(limits, datagram_bytes).await?,
        false => link::tcp(limits, write_bytes)?,
    };
    let bytes_per_second = ceiling.bytes_per_second();
    show(Figure::Loopback(ceiling))?;
    Ok(bytes_per_second)
}

/// The bare path, as long as the cluster is loaded and with files prepared like its own.
async fn measure_pipeline(
    processes: &Processes<'_>,
    folder: &Path,
    suite: &Suite,
    show: &mut impl FnMut(Figure) -> Result<()>,
) -> Result<f64> {
    let load = PipelineLoad {
        runs: suite.runs,
        warm_up: suite.warm_up,
        duration: suite.duration,
        files: suite.files,
        peer_transport: suite.peer_transport,
        datagram_bytes: suite.datagram_bytes,
        ..PipelineLoad::default()
    };
    let Processes {
        executable,
        node_words,
    } = processes;
    let report = pipeline::measure(executable, node_words, folder, &load).await?;
    let median = report.mb_per_second.median;
    show(Figure::Pipeline(report))?;
    Ok(median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_like_to_like() {
        let ceilings = Ceilings {
            disk: Disk {
                small_p50_us: 100,
                large_bytes_per_second: 1_200_000_000,
            },
            link_bytes_per_second: 2e9,
            pipeline_mb_per_second: Some(400.0),
        };
        assert_eq!(ceilings.disk_ratio(200.0, 3), 0.5);
        assert_eq!(ceilings.disk_ratio(200.0, 5), 0.5, "each is on three disks");
        assert_eq!(ceilings.disk_ratio(600.0, 1), 0.5);
        assert_eq!(ceilings.sync_ratio(0.4), 4.0);
        assert_eq!(ceilings.pipeline_ratio(300.0), Some(0.75));
        assert_eq!(ceilings.link_ratio(500.0), 0.25);
        let alone = Ceilings {
            pipeline_mb_per_second: None,
            ..ceilings
        };
        assert_eq!(alone.pipeline_ratio(300.0), None);
    }
}

//! What a load is held against, measured before it in the same run.

use std::path::{Path, PathBuf};

use highwater_bench::limits::{Limits, RUNS_MIN, disk, link};
use highwater_bench::pipeline::{self, PipelineLoad};
use highwater_bench::{DiskProbe, Percentiles};
use serde_json::{Value, json};

use super::limits::{RUN, disk_text, print_ceiling};
use super::pipeline::{NODE_WORDS, pipeline_text};
use super::{broken, percentiles_text, with_kind};
use crate::exit::Failure;
use crate::print::Printer;

const LIMITS: Limits = Limits {
    runs: RUNS_MIN,
    run: RUN,
};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Against {
    /// Measure first what concerns the load, in a temporary folder in this one, and state the ratio to
    /// it: the bare replicated path, loopback, at a fixed rate one synced write. Beside a load at a fixed
    /// rate the disk writes 200 of these a second, and what they took is stated, too. For nodes that
    /// share this machine and this folder's disk; takes half a minute, and 1.5 GiB.
    #[arg(long, value_name = "FOLDER")]
    limits_dir: Option<PathBuf>,
}

/// What the machine can do, as far as it was measured.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    /// Of one synced write of 4 KiB, the median.
    sync_us: Option<u64>,
    /// Of the bare replicated path.
    pipeline_mb_per_second: Option<f64>,
    /// Of one connection.
    loopback_bytes_per_second: Option<f64>,
}

impl Against {
    /// Measures and prints what concerns a load at a fixed rate.
    pub(super) fn sync(&self, printer: Printer) -> Result<Ceilings, Failure> {
        let Some(folder) = &self.limits_dir else {
            return Ok(Ceilings::default());
        };
        let limit = disk::small_writes(folder, &LIMITS).map_err(|error| broken(&error))?;
        printer.line(|| disk_text(&limit), || json!(limit))?;
        Ok(Ceilings {
            sync_us: Some(limit.latency.p50_us),
            ..Ceilings::default()
        })
    }

    /// Runs a load, at a rate with a look at the disk beside it.
    pub(super) async fn beside<T>(
        &self,
        rate: Option<u32>,
        load: impl Future<Output = anyhow::Result<T>>,
    ) -> Result<(T, Ratios), Failure> {
        let folder = self.limits_dir.as_ref().filter(|_| rate.is_some());
        let probe = folder.map(|folder| DiskProbe::start(folder)).transpose();
        let probe = probe.map_err(|error| broken(&error))?;
        let report = load.await.map_err(|error| broken(&error))?;
        let disk = probe.map(DiskProbe::end).transpose();
        let disk = disk.map_err(|error| broken(&error))?;
        let ratios = Ratios {
            disk: disk.map(|latencies| latencies.percentiles()),
            ..Ratios::default()
        };
        Ok((report, ratios))
    }

    /// Measures and prints what concerns a load at full speed.
    pub(super) async fn pipeline(&self, printer: Printer) -> Result<Ceilings, Failure> {
        let pipeline_mb_per_second = match &self.limits_dir {
            Some(folder) => Some(print_pipeline(folder, printer).await?),
            None => None,
        };
        Ok(Ceilings {
            pipeline_mb_per_second,
            ..Ceilings::default()
        })
    }

    /// Measures and prints what concerns producers and consumers at full speed.
    pub(super) async fn both(&self, quic: bool, printer: Printer) -> Result<Ceilings, Failure> {
        let loopback_bytes_per_second = match self.limits_dir {
            Some(_) => loopback(quic, printer).await?.loopback_bytes_per_second,
            None => None,
        };
        Ok(Ceilings {
            loopback_bytes_per_second,
            ..self.pipeline(printer).await?
        })
    }
}

async fn print_pipeline(folder: &Path, printer: Printer) -> Result<f64, Failure> {
    let executable = std::env::current_exe()?;
    let load = PipelineLoad::default();
    let report = pipeline::measure(&executable, &NODE_WORDS, folder, &load).await;
    let report = report.map_err(|error| broken(&error))?;
    printer.line(
        || pipeline_text(&report),
        || with_kind("pipeline", json!(report)),
    )?;
    Ok(report.mb_per_second.median)
}

/// Measures and prints what one connection carries, by what clients talk.
pub(super) async fn loopback(quic: bool, printer: Printer) -> Result<Ceilings, Failure> {
    let [_, datagram_bytes] = link::DATAGRAMS;
    let [_, write_bytes] = link::WRITES;
    let ceiling = match quic {
        true => link::quic(&LIMITS, datagram_bytes).await,
        false => link::tcp(&LIMITS, write_bytes),
    };
    let bytes_per_second = ceiling.as_ref().ok().map(|it| it.bytes_per_second());
    print_ceiling(ceiling, printer)?;
    Ok(Ceilings {
        loopback_bytes_per_second: bytes_per_second,
        ..Ceilings::default()
    })
}

/// Figures by ceilings.
#[derive(Debug, Default)]
pub(super) struct Ratios {
    to_pipeline: Option<f64>,
    to_loopback: Option<f64>,
    to_sync: Option<f64>,
    /// What one synced write took meanwhile.
    disk: Option<Percentiles>,
}

impl Ceilings {
    /// Of what was acknowledged a second, and of how long half of that took.
    pub(super) fn produced(&self, bytes_per_second: u64, p50_us: u64) -> Ratios {
        let bytes = bytes_per_second as f64;
        Ratios {
            to_pipeline: self.pipeline_mb_per_second.map(|mb| bytes / (mb * 1e6)),
            to_loopback: None,
            to_sync: self.sync_us.map(|us| p50_us as f64 / us as f64),
            disk: None,
        }
    }

    /// Of what was read a second.
    pub(super) fn consumed(&self, bytes_per_second: u64) -> Ratios {
        let bytes = bytes_per_second as f64;
        Ratios {
            to_loopback: self.loopback_bytes_per_second.map(|most| bytes / most),
            ..Ratios::default()
        }
    }
}

impl Ratios {
    /// These too.
    pub(super) fn and(self, other: Ratios) -> Ratios {
        Ratios {
            to_pipeline: self.to_pipeline.or(other.to_pipeline),
            to_loopback: self.to_loopback.or(other.to_loopback),
            to_sync: self.to_sync.or(other.to_sync),
            disk: self.disk.or(other.disk),
        }
    }

    /// For people; nothing, where nothing was measured.
    pub(super) fn text(&self) -> String {
        let percent = |ratio: f64| ratio * 100.0;
        let texts = [
            self.to_pipeline
                .map(|ratio| format!("; {:.0} % of the bare path", percent(ratio))),
            self.to_loopback.map(|ratio| {
                format!(
                    "; read {:.0} % of what a connection carries",
                    percent(ratio)
                )
            }),
            self.to_sync.map(|ratio| {
                format!("; half acknowledged within {ratio:.1} synced writes of 4 KiB")
            }),
            self.disk
                .map(|disk| format!("; one of these meanwhile: {}", percentiles_text(&disk))),
        ];
        texts.into_iter().flatten().collect()
    }

    /// With them.
    pub(super) fn put(&self, mut object: Value) -> Value {
        let ratios = [
            ("ratio_to_pipeline", self.to_pipeline),
            ("ratio_to_loopback", self.to_loopback),
            ("ratio_to_sync", self.to_sync),
        ];
        for (name, ratio) in ratios {
            if let Some(ratio) = ratio {
                object[name] = json!(ratio);
            }
        }
        if let Some(disk) = &self.disk {
            object["synced_write_meanwhile"] = json!(disk);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_stated_where_its_ceiling_was_measured() {
        let ceilings = Ceilings {
            pipeline_mb_per_second: Some(400.0),
            loopback_bytes_per_second: Some(2e9),
            sync_us: None,
        };
        let ratios = ceilings.produced(100_000_000, 500);
        let ratios = ratios.and(ceilings.consumed(1_000_000_000));
        assert_eq!(
            ratios.put(json!({"a": 1})),
            json!({"a": 1, "ratio_to_pipeline": 0.25, "ratio_to_loopback": 0.5})
        );
        let text = ratios.text();
        assert!(text.contains("25 % of the bare path"), "{text}");
        assert!(!text.contains("synced writes"), "{text}");
        let slow = Ceilings {
            sync_us: Some(125),
            ..Ceilings::default()
        };
        assert_eq!(slow.produced(1, 500).put(json!({}))["ratio_to_sync"], 4.0);
        assert_eq!(Ceilings::default().produced(1, 1).text(), "");
    }

    #[tokio::test]
    async fn the_disk_is_looked_at_beside_a_load_at_a_rate() {
        let folder = tempfile::tempdir().unwrap();
        let against = Against {
            limits_dir: Some(folder.path().to_owned()),
        };
        let load = async { Ok(7) };
        let (report, ratios) = against.beside(Some(10), load).await.unwrap();
        assert_eq!(report, 7);
        let text = ratios.text();
        assert!(text.contains("meanwhile: p50 "), "{text}");
        let object = ratios.put(json!({}));
        assert!(
            object["synced_write_meanwhile"]["p99_us"].is_u64(),
            "{object}"
        );
        let load = async { Ok(()) };
        let ((), ratios) = against.beside(None, load).await.unwrap();
        assert_eq!(ratios.text(), "");
    }
}

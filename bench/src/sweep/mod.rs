//! A load at one rate after the other, each higher than the last, until latency breaks.

mod chart;
mod page;

use std::time::Duration;

use anyhow::{Result, bail};
use highwater_client::Client;
use serde::Serialize;

use crate::produce::{ProduceLoad, ProduceReport, measure};

pub use chart::throughput_chart;
pub use page::page;

/// How many rates are tried at most.
pub const STEPS_MAX: usize = 64;

/// The share of a rate that must be acknowledged while it counts, or the rate is more than there is.
const KEPT_UP: f64 = 0.95;

/// What to try.
#[derive(Debug, Clone)]
pub struct SweepLoad {
    /// What is sent; its rate is not used.
    pub produce: ProduceLoad,
    /// The first rate, in records a second.
    pub from: u32,
    /// How much higher each rate is than the one before: above 1.
    pub factor: f64,
    /// The highest rate that is tried.
    pub to: u32,
    /// Above this the 99th percentile counts as broken.
    pub p99_max: Duration,
}

/// A rate, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Records a second that were to be sent.
    pub rate: u32,
    /// Why no higher rate is tried; nothing if it was kept up.
    pub broken: Option<Broken>,
    /// What came of it.
    #[serde(flatten)]
    pub report: ProduceReport,
    /// Percentiles, each with its latency in microseconds.
    pub curve: Vec<(f64, u64)>,
}

/// Why a rate is too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Fewer records were acknowledged than were to be sent.
    Behind,
    /// The 99th percentile is above what was allowed.
    Slow,
}

/// Tries one rate after the other, and shows each; all of them, the last one broken unless the highest
/// that was to be tried was kept up.
///
/// # Errors
/// When there is no higher rate to go to, a record is not acknowledged, or nothing is at some rate.
pub async fn sweep(
    client: &Client,
    load: &SweepLoad,
    mut show: impl FnMut(&Step) -> Result<()>,
) -> Result<Vec<Step>> {
    let rates = rates(load)?;
    let mut steps = Vec::new();
    for rate in rates {
        let produce = ProduceLoad {
            rate: Some(rate),
            ..load.produce.clone()
        };
        let (report, latencies) = measure(client, &produce).await?;
        let step = Step {
            rate,
            broken: broken(rate, &report, load.p99_max),
            report,
            curve: latencies.curve(),
        };
        show(&step)?;
        let is_over = step.broken.is_some();
        steps.push(step);
        if is_over {
            break;
        }
    }
    Ok(steps)
}

/// The rates to try, ascending.
fn rates(load: &SweepLoad) -> Result<Vec<u32>> {
    if !(load.factor.is_finite() && load.factor > 1.0) {
        bail!("each rate must be higher than the one before: a factor above 1");
    }
    if load.from == 0 || load.from > load.to {
        bail!("the first rate must be from 1 to the highest, {}", load.to);
    }
    let raised = |rate: &u32| {
        let next = (f64::from(*rate) * load.factor).round();
        // Whole, not negative, and bounded by a number that fits.
        let next = next.min(f64::from(load.to)) as u32;
        let next = next.max(rate.saturating_add(1)).min(load.to);
        (*rate < load.to).then_some(next)
    };
    let rates: Vec<u32> = std::iter::successors(Some(load.from), raised)
        .take(STEPS_MAX + 1)
        .collect();
    if rates.len() > STEPS_MAX {
        bail!(
            "more than {STEPS_MAX} rates from {} to {}",
            load.from,
            load.to
        );
    }
    Ok(rates)
}

fn broken(rate: u32, report: &ProduceReport, p99_max: Duration) -> Option<Broken> {
    if (report.records_per_second as f64) < f64::from(rate) * KEPT_UP {
        return Some(Broken::Behind);
    }
    let p99 = Duration::from_micros(report.latency.p99_us);
    (p99 > p99_max).then_some(Broken::Slow)
}

#[cfg(test)]
pub(crate) mod tests {
    use highwater_client::{Compression, TopicName};

    use super::*;
    use crate::batching::Batching;
    use crate::latency::Percentiles;

    pub(crate) fn step(rate: u32, records_per_second: u64, p99_us: u64) -> Step {
        let latency = Percentiles {
            p50_us: p99_us / 2,
            p90_us: p99_us,
            p99_us,
            p999_us: p99_us,
            max_us: p99_us,
        };
        let report = ProduceReport {
            records: records_per_second,
            bytes: records_per_second * 1_000,
            seconds: 1.0,
            records_per_second,
            bytes_per_second: records_per_second * 1_000,
            latency,
            client_cpu_seconds_per_gb: 1.0,
            server_cpu_seconds_per_gb: None,
        };
        Step {
            rate,
            broken: broken(rate, &report, Duration::from_millis(100)),
            report,
            curve: vec![(50.0, p99_us / 2), (99.0, p99_us), (100.0, p99_us)],
        }
    }

    fn load(from: u32, factor: f64, to: u32) -> SweepLoad {
        let produce = ProduceLoad {
            topic: TopicName::new("t").unwrap(),
            record_bytes: 1,
            producers: 1,
            batching: Batching {
                batch_bytes: 1,
                linger: Duration::ZERO,
                memory_bytes: 1,
                compression: Compression::None,
            },
            rate: None,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            seed: 1,
            server_pids: Vec::new(),
        };
        SweepLoad {
            produce,
            from,
            factor,
            to,
            p99_max: Duration::from_secs(1),
        }
    }

    #[test]
    fn rates_ascend_to_the_highest_and_not_beyond() {
        assert_eq!(
            rates(&load(1_000, 2.0, 5_000)).unwrap(),
            [1_000, 2_000, 4_000, 5_000]
        );
        assert_eq!(rates(&load(1, 1.1, 4)).unwrap(), [1, 2, 3, 4]);
        assert_eq!(rates(&load(7, 3.0, 7)).unwrap(), [7]);
        let highest = rates(&load(u32::MAX / 2, 3.0, u32::MAX)).unwrap();
        assert_eq!(highest, [u32::MAX / 2, u32::MAX]);
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        for (from, factor, to) in [
            (0, 2.0, 10),
            (11, 2.0, 10),
            (1, 1.0, 10),
            (1, f64::NAN, 10),
            (1, 1.000_1, 1_000),
        ] {
            assert!(
                rates(&load(from, factor, to)).is_err(),
                "{from} {factor} {to}"
            );
        }
    }

    #[test]
    fn a_rate_is_broken_by_what_is_missing_or_late() {
        assert_eq!(step(1_000, 1_000, 100_000).broken, None);
        assert_eq!(step(1_000, 949, 1).broken, Some(Broken::Behind));
        assert_eq!(step(1_000, 1_000, 100_001).broken, Some(Broken::Slow));
    }
}

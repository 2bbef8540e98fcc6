//! `highwater bench sweep`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_bench::sweep::{Broken, Step, SweepLoad, page, sweep, throughput_chart};
use serde_json::json;

use super::{Load, broken, produce_text, with_kind};
use crate::exit::Failure;
use crate::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The first rate, in records a second.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    from: u32,
    /// The highest rate that is tried.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    to: u32,
    /// How much higher each rate is than the one before.
    #[arg(long, value_name = "N", default_value_t = 1.5)]
    factor: f64,
    /// The 99th percentile above which latency is broken, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    p99_max_ms: u64,
    /// How many producers send side by side.
    #[arg(long, value_name = "N", default_value_t = 1)]
    producers: usize,
    /// How long a batch waits for more, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    linger_ms: u64,
    /// Write the chart of throughput and latency there, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a report there that is one file: charts, percentiles, a table.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    load: Load,
}

impl Arguments {
    pub(super) async fn run(self, printer: Printer) -> Result<(), Failure> {
        self.load.begin(printer).await?;
        let ceilings = self.load.against.sync(printer)?;
        let client = self.load.client().await?;
        let durability = self.load.measured.durability.clone();
        let load = SweepLoad {
            produce: self.load.produce(self.producers, self.linger_ms, None),
            from: self.from,
            factor: self.factor,
            to: self.to,
            p99_max: Duration::from_millis(self.p99_max_ms),
        };
        let show = |step: &Step| {
            let ratios = ceilings.produced(0, step.report.latency.p50_us);
            printer.line_while_read(
                || text(step) + &ratios.text(),
                || ratios.put(with_kind("sweep", json!(step))),
            )
        };
        let steps = sweep(&client, &load, show).await;
        let steps = steps.map_err(|error| broken(&error))?;
        if let Some(path) = &self.svg {
            write(path, throughput_chart(&steps))?;
        }
        if let Some(path) = &self.html {
            write(path, page(&durability, &steps))?;
        }
        Ok(())
    }
}

fn write(path: &Path, content: anyhow::Result<String>) -> Result<(), Failure> {
    let content = content.map_err(|error| broken(&error))?;
    std::fs::write(path, content)
        .map_err(|error| broken(&anyhow::anyhow!("{}: {error}", path.display())))
}

fn text(step: &Step) -> String {
    let end = match step.broken {
        None => "",
        Some(Broken::Behind) => "; broken: fewer are acknowledged than are to be sent",
        Some(Broken::Slow) => "; broken: p99 is above what is allowed",
    };
    format!(
        "{:>9} records/s: {}{end}",
        step.rate,
        produce_text(&step.report)
    )
}

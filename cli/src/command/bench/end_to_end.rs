//! `highwater bench end-to-end`.

use std::time::Duration;

use highwater_bench::{EndToEndLoad, EndToEndReport, end_to_end};
use serde_json::json;

use super::{Load, percentiles_text, server_text, with_kind};
use crate::exit::Failure;
use crate::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long a batch waits for more, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    linger_ms: u64,
    #[command(flatten)]
    load: Load,
}

impl Arguments {
    pub(super) async fn run(self, printer: Printer) -> Result<(), Failure> {
        self.load.begin(printer).await?;
        let against = self.load.against.clone();
        let ceilings = against.sync(printer)?;
        let client = self.load.client().await?;
        let (rate, batching) = (self.rate, self.load.batching(self.linger_ms));
        let load = EndToEndLoad {
            topic: self.load.topic,
            record_bytes: self.load.record_bytes,
            rate,
            batching,
            warm_up: Duration::from_secs_f64(self.load.warm_up),
            duration: Duration::from_secs_f64(self.load.seconds),
            seed: self.load.seed,
            server_pids: self.load.measured.server_pid,
        };
        let (report, disk) = against
            .beside(Some(rate), end_to_end(&client, &load))
            .await?;
        let ratios = ceilings.produced(0, report.acknowledged.p50_us);
        let ratios = ratios.and(disk);
        printer.line(
            || text(&report) + &ratios.text(),
            || {
                let mut object = with_kind("end_to_end", json!(report));
                object["rate"] = json!(rate);
                ratios.put(object)
            },
        )
    }
}

fn text(report: &EndToEndReport) -> String {
    format!(
        "{} records/s over {:.0} s; acknowledged after {}; read after {}; CPU seconds per million \
         records: client {:.2}{}",
        report.records_per_second,
        report.seconds,
        percentiles_text(&report.acknowledged),
        percentiles_text(&report.read),
        report.client_cpu_seconds_per_million,
        server_text(report.server_cpu_seconds_per_million),
    )
}

//! `highwater bench mixed`.

use highwater_bench::{MixedLoad, MixedReport, Side, mixed};
use serde_json::json;

use super::{Load, megabytes, percentiles_text, server_text, with_kind};
use crate::exit::Failure;
use crate::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many producers send side by side.
    #[arg(long, value_name = "N", default_value_t = 1)]
    producers: usize,
    /// How many consumers read side by side, each its share of the partitions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,
    /// How many bytes of one partition a fetch asks for at most; a batch is always answered whole
    /// [default: what the client asks for by itself, 2 MiB].
    #[arg(long, value_name = "BYTES")]
    fetch_bytes: Option<usize>,
    /// How long a batch waits for more, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    linger_ms: u64,
    /// Records a second, of all producers together [default: as many as are acknowledged].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    load: Load,
}

impl Arguments {
    pub(super) async fn run(self, printer: Printer) -> Result<(), Failure> {
        self.load.begin(printer).await?;
        let (against, quic) = (
            self.load.against.clone(),
            self.load.measured.cluster.is_quic(),
        );
        let ceilings = match self.rate {
            Some(_) => against.sync(printer)?,
            None => against.both(quic, printer).await?,
        };
        let client = self.load.client().await?;
        let rate = self.rate;
        let load = MixedLoad {
            produce: self.load.produce(self.producers, self.linger_ms, rate),
            consumers: self.consumers,
            fetch_bytes: self.fetch_bytes,
        };
        let (report, disk) = against.beside(rate, mixed(&client, &load)).await?;
        let ratios = ceilings
            .produced(report.produced.bytes_per_second, report.acknowledged.p50_us)
            .and(ceilings.consumed(report.consumed.bytes_per_second))
            .and(disk);
        printer.line(
            || text(&report) + &ratios.text(),
            || {
                let mut object = with_kind("mixed", json!(report));
                object["rate"] = json!(rate);
                ratios.put(object)
            },
        )
    }
}

fn text(report: &MixedReport) -> String {
    format!(
        "produced {}, consumed {} over {:.0} s; acknowledged after {}; read after {}; CPU seconds \
         per GB produced: client {:.2}{}",
        side_text(&report.produced),
        side_text(&report.consumed),
        report.seconds,
        percentiles_text(&report.acknowledged),
        percentiles_text(&report.read),
        report.client_cpu_seconds_per_gb,
        server_text(report.server_cpu_seconds_per_gb),
    )
}

fn side_text(side: &Side) -> String {
    format!(
        "{:.1} MB/s, {} records/s",
        megabytes(side.bytes_per_second),
        side.records_per_second
    )
}

//! `highwater bench end-to-end`.

use std::time::Duration;

use highwater_bench::{EndToEndLoad, EndToEndReport, Percentiles, end_to_end};
use highwater_client::{Compression, TopicName};
use serde_json::json;

use super::{
    Measured, broken, codec, create_topic, print_durability, seconds, topic_name, with_kind,
};
use crate::exit::Failure;
use crate::print::Printer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Through which topic; made if it is not there.
    #[arg(long, default_value = "bench", value_parser = topic_name)]
    topic: TopicName,
    /// With how many partitions it is made.
    #[arg(long, value_name = "N", default_value_t = 6)]
    partitions: u32,
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The size of a record's value, in bytes; 16 say when it was to be sent.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: usize,
    /// How large a batch grows, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    batch_bytes: usize,
    /// How long a batch waits for more, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    linger_ms: u64,
    /// How much the producer has on the way, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    memory_bytes: usize,
    /// How batches are compressed. The records are random, so it costs and saves nothing.
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Compression,
    /// How long nothing is counted, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    warm_up: f64,
    /// How long is counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    seconds: f64,
    /// Seeds the records.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    measured: Measured,
}

impl Arguments {
    pub(super) async fn run(self, printer: Printer) -> Result<(), Failure> {
        let client = self.measured.cluster.connect(false).await?;
        create_topic(&client, &self.topic, self.partitions).await?;
        print_durability(&self.measured.durability, printer)?;
        let rate = self.rate;
        let load = EndToEndLoad {
            topic: self.topic,
            record_bytes: self.record_bytes,
            rate,
            batch_bytes: self.batch_bytes,
            linger: Duration::from_millis(self.linger_ms),
            memory_bytes: self.memory_bytes,
            compression: self.compression,
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
            seed: self.seed,
            server_pids: self.measured.server_pid,
        };
        let report = end_to_end(&client, &load).await;
        let report = report.map_err(|error| broken(&error))?;
        printer.line(
            || text(&report),
            || {
                let mut object = with_kind("end_to_end", json!(report));
                object["rate"] = json!(rate);
                object
            },
        )
    }
}

fn text(report: &EndToEndReport) -> String {
    let cluster = report.server_cpu_seconds_per_million;
    let cluster = cluster.map_or_else(String::new, |seconds| format!(", cluster {seconds:.2}"));
    format!(
        "{} records/s over {:.0} s; acknowledged after {}; read after {}; CPU seconds per million \
         records: client {:.2}{cluster}",
        report.records_per_second,
        report.seconds,
        percentiles_text(&report.acknowledged),
        percentiles_text(&report.read),
        report.client_cpu_seconds_per_million,
    )
}

fn percentiles_text(latency: &Percentiles) -> String {
    format!(
        "p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us",
        latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us
    )
}

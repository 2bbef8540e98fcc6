//! `highwater bench`: how fast a disk and a cluster are, and under which durability.

mod against;
mod cluster;
mod compare;
mod end_to_end;
mod limits;
mod mixed;
mod pipeline;
mod sweep;

use std::future::Future;
use std::time::Duration;

use clap::Subcommand;
use highwater_bench::{
    Batching, ConsumeLoad, ConsumeReport, Percentiles, ProduceLoad, ProduceReport, Spread, consume,
    produce,
};
use highwater_client::{AdminError, Client, Compression, ErrorCode, NewTopic, TopicName};
use serde_json::{Value, json};

use self::against::{Against, Ceilings};
use super::produce::codec;
use crate::cluster::{ClusterArguments, topic_name};
use crate::exit::{Failure, Kind};
use crate::interrupt;
use crate::print::{Printer, ReaderGone};

/// Measure a disk, or a running cluster.
///
/// The first line says under which durability the figures came about; those of another one
/// cannot be compared with them.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The ceilings of this machine: synced sequential writes, as the log makes them, copies and
    /// checksums in memory, TCP and QUIC over loopback; and the bare replicated path.
    #[command(after_help = "Examples:
  highwater bench limits --dir /var/lib/highwater
  highwater --json bench limits --dir . --runs 9
  highwater bench limits quic
  highwater bench limits pipeline --dir .")]
    Limits(limits::Arguments),
    /// Measure the disk, loopback and, where there are three nodes or more, the bare replicated path;
    /// then start a cluster of processes in a temporary folder, and measure it against them in the same
    /// run: throughput, reading, latency at fixed rates.
    #[command(after_help = "Examples:
  highwater bench cluster
  highwater bench cluster full --dir /var/lib --files steady
  highwater bench cluster --runs 9 --rate 1000 --rate 20000 --transport tcp")]
    Cluster(cluster::Arguments),
    /// Send random records as fast as they are acknowledged, or at a fixed rate.
    #[command(after_help = "Examples:
  highwater bench produce --partitions 6 --record-bytes 1024 --seconds 30
  highwater bench produce --rate 10000 --linger-ms 0 --server-pid 4711 --server-pid 4712")]
    Produce(ProduceArguments),
    /// Send records at a fixed rate and read them: the time from when each was to be sent until it
    /// was acknowledged, and until it was read.
    #[command(after_help = "Examples:
  highwater bench end-to-end --rate 1000
  highwater --json bench end-to-end --rate 20000 --linger-ms 1 > after.json")]
    EndToEnd(end_to_end::Arguments),
    /// Send records, as fast as they are acknowledged or at a fixed rate, and read them at the tail
    /// meanwhile: what both sides get through, and the time from one to the other.
    #[command(after_help = "Examples:
  highwater bench mixed --producers 4 --consumers 2 --seconds 30
  highwater bench mixed --rate 20000 --linger-ms 1")]
    Mixed(mixed::Arguments),
    /// Send records at one fixed rate after the other, each higher than the last, until latency breaks
    /// or fewer are acknowledged than are to be sent.
    #[command(after_help = "Examples:
  highwater bench sweep --html sweep.html
  highwater bench sweep --from 10000 --factor 1.25 --seconds 10 --producers 4 --svg sweep.svg")]
    Sweep(sweep::Arguments),
    /// Put what two runs of `highwater --json bench` have printed side by side, with ratios.
    #[command(after_help = "Examples:
  highwater bench compare before.json after.json")]
    Compare(compare::Arguments),
    /// Read a topic from its beginning to its end.
    #[command(after_help = "Examples:
  highwater bench consume --topic bench")]
    Consume {
        /// Which topic.
        #[arg(long, default_value = "bench", value_parser = topic_name)]
        topic: TopicName,
        /// Measure first what one connection over loopback carries, by TCP or QUIC as this client
        /// talks, and state the ratio to it. For nodes that share this machine.
        #[arg(long)]
        limits: bool,
        /// How many bytes of one partition a fetch asks for at most; a batch is always answered whole
        /// [default: what the client asks for by itself, 2 MiB].
        #[arg(long, value_name = "BYTES")]
        fetch_bytes: Option<usize>,
        #[command(flatten)]
        measured: Measured,
    },
}

#[derive(Debug, clap::Args)]
struct ProduceArguments {
    /// How many producers send side by side.
    #[arg(long, value_name = "N", default_value_t = 1)]
    producers: usize,
    /// How long a batch waits for more, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    linger_ms: u64,
    /// Records a second, of all producers together [default: as many as are acknowledged].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    load: Load,
}

/// What is sent, alike in all commands that send.
#[derive(Debug, clap::Args)]
struct Load {
    /// Which topic; made if it is not there.
    #[arg(long, default_value = "bench", value_parser = topic_name)]
    topic: TopicName,
    /// With how many partitions it is made.
    #[arg(long, value_name = "N", default_value_t = 6)]
    partitions: u32,
    /// The size of a record's value, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: usize,
    /// How large a batch grows, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    batch_bytes: usize,
    /// How much each producer has on the way, in bytes.
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
    against: Against,
    #[command(flatten)]
    measured: Measured,
}

impl Load {
    /// The cluster is there, the topic too, and the durability said.
    async fn begin(&self, printer: Printer) -> Result<(), Failure> {
        let client = self.client().await?;
        create_topic(&client, &self.topic, self.partitions).await?;
        print_durability(&self.measured.durability, printer)
    }

    /// A client of it. Not the one that began: a connection that is idle while limits are measured
    /// may be closed.
    async fn client(&self) -> Result<Client, Failure> {
        self.measured.cluster.connect(false).await
    }

    /// What so many producers send, at a rate or as fast as it is acknowledged.
    fn produce(self, producers: usize, linger_ms: u64, rate: Option<u32>) -> ProduceLoad {
        ProduceLoad {
            batching: self.batching(linger_ms),
            topic: self.topic,
            record_bytes: self.record_bytes,
            producers,
            rate,
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
            seed: self.seed,
            server_pids: self.measured.server_pid,
        }
    }

    fn batching(&self, linger_ms: u64) -> Batching {
        Batching {
            batch_bytes: self.batch_bytes,
            linger: Duration::from_millis(linger_ms),
            memory_bytes: self.memory_bytes,
            compression: self.compression,
        }
    }
}

/// What is measured, and what is said of it.
#[derive(Debug, clap::Args)]
struct Measured {
    /// A process of the cluster whose processor time counts; may be repeated.
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// The durability of the cluster, if it is not Highwater.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "on disk (synced) on a quorum before the acknowledgement"
    )]
    durability: String,
    #[command(flatten)]
    cluster: ClusterArguments,
}

fn seconds(text: &str) -> Result<f64, String> {
    const LONGEST: f64 = 86_400.0;
    let seconds: f64 = text
        .parse()
        .map_err(|_| "write seconds, as in 2.5".to_owned())?;
    match (0.0..=LONGEST).contains(&seconds) {
        true => Ok(seconds),
        false => Err("from 0 to a day".to_owned()),
    }
}

impl Arguments {
    /// Measures.
    ///
    /// # Errors
    /// When the disk or the cluster does not let it.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let printer = *printer;
        match self.action {
            Action::Limits(arguments) => arguments.run(printer),
            Action::Cluster(arguments) => interruptible(arguments.run(printer)),
            Action::Produce(arguments) => interruptible(arguments.run(printer)),
            Action::EndToEnd(arguments) => interruptible(arguments.run(printer)),
            Action::Mixed(arguments) => interruptible(arguments.run(printer)),
            Action::Sweep(arguments) => interruptible(arguments.run(printer)),
            Action::Compare(arguments) => arguments.run(printer),
            Action::Consume {
                topic,
                limits,
                fetch_bytes,
                measured,
            } => {
                let load = ConsumeLoad {
                    topic,
                    fetch_bytes,
                    server_pids: measured.server_pid.clone(),
                };
                interruptible(run_consume(load, limits, measured, printer))
            }
        }
    }
}

/// Runs it until it ends or is interrupted.
fn interruptible(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    interrupt::run(|interrupt| async move {
        tokio::select! {
            result = command => result,
            () = interrupt.wait() => Err(Failure::interrupted("interrupted")),
        }
    })
}

fn spread_text(spread: &Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.2} [{min:.2}-{max:.2}]")
}

impl ProduceArguments {
    async fn run(self, printer: Printer) -> Result<(), Failure> {
        self.load.begin(printer).await?;
        let against = self.load.against.clone();
        let ceilings = match self.rate {
            Some(_) => against.sync(printer)?,
            None => against.pipeline(printer).await?,
        };
        let client = self.load.client().await?;
        let load = self.load.produce(self.producers, self.linger_ms, self.rate);
        let (report, disk) = against.beside(self.rate, produce(&client, &load)).await?;
        let ratios = ceilings.produced(report.bytes_per_second, report.latency.p50_us);
        let ratios = ratios.and(disk);
        printer.line(
            || produce_text(&report) + &ratios.text(),
            || ratios.put(with_kind("produce", json!(report))),
        )
    }
}

/// Makes a topic, where the cluster can; one that is there is as good.
async fn create_topic(client: &Client, topic: &TopicName, partitions: u32) -> Result<(), Failure> {
    let admin = client.admin();
    if admin.describe_topic(topic).await.is_ok() {
        return Ok(());
    }
    let new = NewTopic::new(topic).partitions(partitions);
    match admin.create_topic(new).await {
        Err(AdminError::Refused {
            error: ErrorCode::TopicAlreadyExists,
            ..
        }) => Ok(()),
        result => Ok(result?),
    }
}

fn produce_text(report: &ProduceReport) -> String {
    format!(
        "produced {:.1} MB/s, {} records/s over {:.0} s; latency {}; CPU seconds per GB: client \
         {:.2}{}",
        megabytes(report.bytes_per_second),
        report.records_per_second,
        report.seconds,
        percentiles_text(&report.latency),
        report.client_cpu_seconds_per_gb,
        server_text(report.server_cpu_seconds_per_gb),
    )
}

fn percentiles_text(latency: &Percentiles) -> String {
    format!(
        "p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us",
        latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us
    )
}

fn server_text(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(", cluster {seconds:.2}"))
}

async fn run_consume(
    load: ConsumeLoad,
    limits: bool,
    measured: Measured,
    printer: Printer,
) -> Result<(), Failure> {
    // That there is a cluster is known before anything is measured.
    measured.cluster.connect(false).await?;
    print_durability(&measured.durability, printer)?;
    let ceilings = match limits {
        true => against::loopback(measured.cluster.is_quic(), printer).await?,
        false => Ceilings::default(),
    };
    let client = measured.cluster.connect(false).await?;
    let report = consume(&client, &load).await;
    let report = report.map_err(|error| broken(&error))?;
    let ratios = ceilings.consumed(report.bytes_per_second);
    printer.line(
        || consume_text(&report) + &ratios.text(),
        || ratios.put(with_kind("consume", json!(report))),
    )
}

fn consume_text(report: &ConsumeReport) -> String {
    format!(
        "consumed {:.1} MB/s, {} records/s over {:.1} s; CPU seconds per GB: client {:.2}{}",
        megabytes(report.bytes_per_second),
        report.records_per_second,
        report.seconds,
        report.client_cpu_seconds_per_gb,
        server_text(report.server_cpu_seconds_per_gb),
    )
}

/// 10^6 bytes, rounded for people.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn print_durability(durability: &str, printer: Printer) -> Result<(), Failure> {
    printer.line(
        || format!("durability: {durability}"),
        || json!({ "durability": durability }),
    )
}

fn with_kind(kind: &str, mut object: Value) -> Value {
    object["kind"] = json!(kind);
    object
}

fn broken(error: &anyhow::Error) -> Failure {
    match error.is::<ReaderGone>() {
        true => Failure::new(Kind::ReaderGone, ""),
        false => Failure::new(Kind::Other, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for bad in ["-1", "NaN", "inf", "1e9", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

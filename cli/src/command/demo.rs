//! `highwater demo`: what a newcomer runs first. Three replicas, real flights, one of them
//! dropped on the way, and a reader that checks everything.

mod acks;
mod ledger;
mod replicas;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater_client::{Client, NewTopic, Producer, Record, StartAt, TopicName, TopicPartition};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::key_value;
use crate::cluster::insist;
use crate::exit::{Failure, Kind};
use crate::input::{Column, KeyIn, Row, Rows};
use crate::interrupt::{self, Interrupt};
use crate::nodes;
use crate::print::Printer;

use acks::Acks;
use ledger::Ledger;
use replicas::Replicas;

/// Every hundredth of 2013's flights from New York City (US Bureau of Transportation Statistics).
const SAMPLE: &[u8] = include_bytes!("../../data/flights-sample.csv");

const TOPIC: &str = "flights";

/// How long the last acknowledgements, and the last records, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows that are sent before others get their turn.
const ROWS_AT_ONCE: u64 = 512;

/// Show what Highwater does: three replicas in a temporary folder, a file of flights through
/// them, one replica dropped on the way, everything read back and checked.
///
/// The node that leads a partition ends in the middle of the load as a crash would end it:
/// nothing flushed, nothing handed over. The producer is told nothing and goes on. Then that node
/// is started again, and a consumer reads everything and compares it with the file: nothing may
/// be lost, doubled, or out of order within a key.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater demo                           a sample of flights that is built in
  highwater demo --file flights.csv        any CSV file with a header and a column `carrier`
  highwater demo --file sales.csv --csv-key customer
  highwater demo --set node.storage=portable --set node.shards=2")]
pub(crate) struct Arguments {
    /// A CSV file with a header, in place of the sample.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The column that holds the key, by name or by number from 0.
    #[arg(long, value_name = "COLUMN", default_value = "carrier")]
    csv_key: String,
    /// Into how many partitions.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    partitions: u32,
    /// Set one option of all nodes, as in --set node.shards=2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

impl Arguments {
    /// Plays it from start to end.
    ///
    /// # Errors
    /// When a node cannot start, or what is read back is not what was sent.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        nodes::log_to_stderr("off");
        let printer = *printer;
        interrupt::run(|interrupt| self.demonstrate(interrupt, printer))
    }

    async fn demonstrate(self, interrupt: Interrupt, printer: Printer) -> Result<(), Failure> {
        let input = Input::open(self.file.as_deref(), &self.csv_key)?;
        let folder = tempfile::Builder::new()
            .prefix("highwater-demo-")
            .tempdir()?;
        interrupt::remove_if_killed(folder.path());
        let acks = Acks::default();
        let mut replicas = Replicas::make(folder.path(), &self.set)?;
        let result = tokio::select! {
            result = self.play(&mut replicas, input, &acks, printer) => result,
            () = interrupt.wait() => Err(Failure::interrupted("interrupted")),
        };
        if result.is_err() {
            // How far it came; a demonstration that was played to its end has said so.
            acks.report(printer)?;
        }
        let stopped = replicas.stop().await;
        folder.close()?;
        result.and(stopped)
    }

    async fn play(
        &self,
        replicas: &mut Replicas,
        input: Input,
        acks: &Acks,
        printer: Printer,
    ) -> Result<(), Failure> {
        replicas.start_all().await?;
        say(printer, &replicas.greeting())?;
        let client = replicas.connect().await?;
        let topic = self.create_topic(&client, input.segment_bytes).await?;
        let ledger = self
            .stream(replicas, &client, &topic, input, acks, printer)
            .await?;
        acks.report(printer)?;
        say(printer, &acks.latencies())?;
        say(printer, &acks.failover())?;
        say(printer, &replicas.restart(&acks.ends()).await?)?;
        let read = read_back(&client, &topic, ledger, acks).await?;
        say(printer, &read)?;
        say(printer, &replicas.counters().await?)
    }

    async fn create_topic(
        &self,
        client: &Client,
        segment_bytes: u64,
    ) -> Result<TopicName, Failure> {
        let topic = TopicName::new(TOPIC).expect("the name is a topic's");
        let admin = client.admin();
        let new = || {
            NewTopic::new(&topic)
                .partitions(self.partitions)
                .config("segment.bytes", segment_bytes.to_string())
        };
        insist(|| admin.create_topic(new())).await?;
        Ok(topic)
    }

    /// Sends the file, drops a leader in the middle of it, and waits for the acknowledgements.
    async fn stream(
        &self,
        replicas: &mut Replicas,
        client: &Client,
        topic: &TopicName,
        input: Input,
        acks: &Acks,
        printer: Printer,
    ) -> Result<Ledger, Failure> {
        let (middle, batch_bytes) = (input.bytes / 2, input.batch_bytes);
        let progress = progress(input.bytes);
        let producer = client.producer().batch_bytes(batch_bytes).build();
        let mut sending = Sending {
            producer,
            topic,
            acks,
            ledger: Ledger::default(),
            records: 0,
            bytes: 0,
        };
        let mut rows = input.rows;
        acks.start();
        let more = sending.send(&mut rows, middle, &progress).await?;
        if more {
            // Some are acknowledged by then, and some on their way.
            acks.reached(sending.records / 2).await;
            let victim = replicas.leader_of(client, topic).await?;
            acks.dropped(&victim);
            let words = replicas.drop_node(&victim).await?;
            progress.suspend(|| say(printer, &words))?;
        }
        sending.send(&mut rows, u64::MAX, &progress).await?;
        progress.finish_and_clear();
        let settled = async {
            sending.producer.flush().await;
            acks.settled().await
        };
        tokio::time::timeout(PATIENCE, settled)
            .await
            .map_err(|_| Failure::new(Kind::Absent, "the last records are not acknowledged"))??;
        Ok(sending.ledger)
    }
}

/// The rows on their way into the topic.
struct Sending<'a> {
    producer: Producer,
    topic: &'a TopicName,
    acks: &'a Acks,
    ledger: Ledger,
    records: u64,
    /// Of keys and values.
    bytes: u64,
}

impl Sending<'_> {
    /// Sends until so many bytes have been sent, or the rows end; gives whether more may come.
    async fn send(
        &mut self,
        rows: &mut Rows<BufReader<Box<dyn Read>>>,
        up_to: u64,
        progress: &ProgressBar,
    ) -> Result<bool, Failure> {
        while self.bytes < up_to {
            let Some(row) = rows.next_row().map_err(Failure::of(Kind::Other))? else {
                return Ok(false);
            };
            self.send_row(row).await?;
            progress.set_position(self.bytes);
            if self.records.is_multiple_of(ROWS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        Ok(true)
    }

    async fn send_row(&mut self, row: Row) -> Result<(), Failure> {
        let key = row.key.unwrap_or_default();
        let bytes = key.len() + row.value.len();
        self.records += 1;
        self.bytes += u64::try_from(bytes).expect("a length in memory fits into 64 bits");
        self.ledger.sent(&key, &row.value);
        let sent = Instant::now();
        let record = Record::new(self.topic).key(key).value(row.value);
        let delivery = self.producer.send(record).await?;
        self.acks.expect(sent, bytes, delivery).await;
        Ok(())
    }
}

/// Reads everything and holds it against what was sent.
async fn read_back(
    client: &Client,
    topic: &TopicName,
    mut ledger: Ledger,
    acks: &Acks,
) -> Result<Words, Failure> {
    let started = Instant::now();
    let admin = client.admin();
    let mut consumer = client.consumer().build();
    consumer.assign_topic(topic, StartAt::Earliest).await?;
    let partitions: Vec<TopicPartition> = consumer.assigned().cloned().collect();
    let mut there = 0;
    for partition in &partitions {
        there += insist(|| admin.offset(partition, StartAt::Latest)).await?.0;
    }
    // Offsets are dense, so this finds whatever is there once too often, or not at all.
    if there != acks.records() {
        let what = format!(
            "{} records were acknowledged, {there} are there",
            acks.records()
        );
        return Err(Failure::new(Kind::Other, what));
    }
    while ledger.is_waiting() {
        let record = tokio::time::timeout(PATIENCE, consumer.recv()).await;
        let record =
            record.map_err(|_| Failure::new(Kind::Absent, "no records come any more"))??;
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        ledger
            .read(key.unwrap_or_default(), value.unwrap_or_default())
            .map_err(|fault| Failure::new(Kind::Other, format!("{}: {fault}", record.partition)))?;
    }
    let elapsed = started.elapsed();
    Ok(Words::new(
        format!(
            "Read {} records back in {:.2} s: nothing lost, nothing doubled, every key in order",
            HumanCount(there),
            elapsed.as_secs_f64()
        ),
        json!({ "event": "read", "records": there, "seconds": elapsed.as_secs_f64() }),
    ))
}

/// The flights, or another file.
struct Input {
    rows: Rows<BufReader<Box<dyn Read>>>,
    bytes: u64,
    /// Small enough that files are closed, sealed and mapped while it runs.
    segment_bytes: u64,
    /// Small enough that there are many batches.
    batch_bytes: usize,
}

impl Input {
    fn open(path: Option<&Path>, key: &str) -> Result<Self, Failure> {
        let keys = KeyIn::Column(Column::parse(key));
        let sample: Box<dyn Read> = Box::new(SAMPLE);
        let (reader, bytes, segment_bytes, batch_bytes) = match path {
            None => (sample, SAMPLE.len() as u64, 64 << 10, 4 << 10),
            Some(path) => {
                let (file, bytes) = open_file(path)?;
                (file, bytes, 1 << 20, 32 << 10)
            }
        };
        let rows = Rows::new(BufReader::new(reader), &keys).map_err(Failure::of(Kind::Other))?;
        Ok(Self {
            rows,
            bytes,
            segment_bytes,
            batch_bytes,
        })
    }
}

fn open_file(path: &Path) -> Result<(Box<dyn Read>, u64), Failure> {
    let explain = |error: io::Error| {
        let what = format!("cannot read {}: {error}", path.display());
        Failure::new(Kind::Other, what)
    };
    let file = File::open(path).map_err(explain)?;
    let metadata = file.metadata().map_err(explain)?;
    if metadata.is_dir() {
        return Err(explain(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), metadata.len()))
}

/// A bar on stderr, if that is a terminal.
fn progress(bytes: u64) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::with_draw_target(Some(bytes), target).with_style(style)
}

/// One thing that is said, for people and for scripts.
struct Words {
    text: String,
    object: Value,
}

impl Words {
    fn new(text: impl Into<String>, object: Value) -> Self {
        let text = text.into();
        Self { text, object }
    }
}

fn say(printer: Printer, words: &Words) -> Result<(), Failure> {
    printer.line(|| words.text.clone(), || words.object.clone())
}

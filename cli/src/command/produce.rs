//! `highwater produce`: lines in, records out.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_client::{Client, Compression, Delivery, ProduceError, Producer, Record, TopicName};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::cluster::{ClusterArguments, topic_name};
use crate::exit::{Failure, Kind};
use crate::format::unescape;
use crate::input::{Column, InputError, KeyIn, Row, Rows};
use crate::interrupt::{self, Interrupt};
use crate::print::Printer;
use crate::tally::Tally;

/// Rows that are handed from the reading thread at once, at most.
const ROWS_AT_ONCE_MAX: usize = 1_000;

/// How many such hand-overs may wait.
const HAND_OVERS_MAX: usize = 8;

/// Records whose acknowledgement is waited for at once, at most. The producer's own limit is one
/// of bytes.
const DELIVERIES_MAX: usize = 1 << 18;

/// How much is read from the input at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Send lines of a file, or of what is piped in, as records.
///
/// Every record is acknowledged when a quorum of its partition's replicas has it on disk. The
/// command ends when all are, and says up to which offset; the first that fails ends it too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater produce flights --file flights.csv --csv-key carrier
  seq 1000 | highwater produce numbers
  highwater produce flights --file keyed.tsv --key-separator '\\t' --compression zstd
  tail -f app.log | highwater produce logs --linger-ms 100")]
pub(crate) struct Arguments {
    /// Into which topic.
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// Read this file instead of what is piped in.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The input is CSV with a header, which is skipped: take the key from this column, by name
    /// or by number from 0. The value is the whole line.
    #[arg(long, value_name = "COLUMN", conflicts_with = "key_separator")]
    csv_key: Option<String>,
    /// The key ends at the first of these; the value follows. Escapes as \t are known.
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    key_separator: Option<String>,
    /// Send everything to this partition, whatever the keys.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Compression,
    /// How long a batch waits for more records, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    linger_ms: u64,
    /// How large a batch may grow before it is sent, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    batch_bytes: usize,
    /// How long a record is tried before it is given up, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    delivery_timeout: u64,
    /// Let a retry double records, for brokers that give out no producer ids.
    #[arg(long)]
    no_idempotence: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// A codec's name, as clap reads it.
///
/// # Errors
/// When there is none of that name.
pub(super) fn codec(text: &str) -> Result<Compression, String> {
    text.parse()
        .map_err(|_| "known are none, gzip, snappy, lz4, zstd".to_owned())
}

impl Arguments {
    /// Sends.
    ///
    /// # Errors
    /// When the input cannot be read, no node answers, or a record is not acknowledged.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let printer = *printer;
        interrupt::run(|interrupt| self.produce(interrupt, printer))
    }

    async fn produce(self, interrupt: Interrupt, printer: Printer) -> Result<(), Failure> {
        let source = Source::open(self.file.as_deref())?;
        let progress = source.progress();
        let client = tokio::select! {
            client = self.cluster.connect(true) => client?,
            () = interrupt.wait() => return Err(Failure::interrupted("interrupted")),
        };
        let started = Instant::now();
        let rows = self.read_in_background(source)?;
        let producer = self.producer(&client);
        let mut receipts = Receipts::start(&progress);
        let ended = tokio::select! {
            ended = self.send_all(&producer, rows, &receipts) => ended,
            () = receipts.failed() => Ok(()),
            () = interrupt.wait() => Ok(()),
        };
        let left = receipts.settle(&producer, &interrupt).await;
        progress.finish_and_clear();
        let state = receipts.state();
        for (text, object) in state.tally.lines("acknowledged", started.elapsed()) {
            printer.line(|| text, || object)?;
        }
        conclude(ended, &state, left, &interrupt)
    }

    fn keys(&self) -> KeyIn {
        match (&self.csv_key, &self.key_separator) {
            (Some(column), _) => KeyIn::Column(Column::parse(column)),
            (None, Some(separator)) => KeyIn::Separator(separator.clone()),
            (None, None) => KeyIn::Nothing,
        }
    }

    fn producer(&self, client: &Client) -> Producer {
        client
            .producer()
            .compression(self.compression)
            .linger(Duration::from_millis(self.linger_ms))
            .batch_bytes(self.batch_bytes)
            .delivery_timeout(Duration::from_secs(self.delivery_timeout))
            .idempotent(!self.no_idempotence)
            .build()
    }

    /// Reads on a thread: neither a file nor a terminal can be read without blocking.
    fn read_in_background(&self, source: Source) -> Result<mpsc::Receiver<HandOver>, Failure> {
        let keys = self.keys();
        let (sender, receiver) = mpsc::channel(HAND_OVERS_MAX);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read(source, &keys, &sender))?;
        Ok(receiver)
    }

    /// Sends what is read, up to the end.
    async fn send_all(
        &self,
        producer: &Producer,
        mut rows: mpsc::Receiver<HandOver>,
        receipts: &Receipts,
    ) -> Result<(), Failure> {
        while let Some(hand_over) = rows.recv().await {
            for row in hand_over.map_err(Failure::of(Kind::Other))? {
                let line = row.line;
                let bytes = row.key.as_ref().map_or(0, Vec::len) + row.value.len();
                let delivery = producer.send(self.record(row)).await;
                let delivery = delivery
                    .map_err(|error| Failure::from(error).context(format!("line {line}")))?;
                receipts.expect(line, bytes, delivery).await;
            }
        }
        Ok(())
    }

    fn record(&self, row: Row) -> Record {
        let mut record = Record::new(&self.topic).value(row.value);
        if let Some(key) = row.key {
            record = record.key(key);
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        record
    }
}

/// How the command ended, and what it leaves behind.
fn conclude(
    ended: Result<(), Failure>,
    state: &State,
    left: u64,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let unknown = match left {
        0 => String::new(),
        left => {
            format!("; {left} records were sent and not acknowledged: they may be there or not")
        }
    };
    if let Some((line, error)) = &state.failure {
        return Err(Failure::from(error.clone()).context(format!("line {line}")));
    }
    ended?;
    if interrupt.is_asked() {
        return Err(Failure::interrupted(format!("interrupted{unknown}")));
    }
    Ok(())
}

/// Where the lines come from.
struct Source {
    reader: Box<dyn Read + Send>,
    /// In bytes, where it is known.
    len: Option<u64>,
}

impl Source {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            if io::stdin().is_terminal() {
                eprintln!("highwater: each line becomes a record; Ctrl-D ends");
            }
            return Ok(Self {
                reader: Box::new(io::stdin()),
                len: None,
            });
        };
        let explain = |error: io::Error| {
            Failure::new(
                Kind::Other,
                format!("cannot read {}: {error}", path.display()),
            )
        };
        let file = File::open(path).map_err(explain)?;
        let metadata = file.metadata().map_err(explain)?;
        if metadata.is_dir() {
            return Err(explain(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self {
            reader: Box::new(file),
            len: metadata.is_file().then_some(metadata.len()),
        })
    }

    /// A bar on stderr, if that is a terminal, of the bytes acknowledged.
    fn progress(&self) -> ProgressBar {
        let target = match io::stderr().is_terminal() && !io::stdin().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false if self.len.is_some() && io::stderr().is_terminal() => {
                ProgressDrawTarget::stderr()
            }
            false => ProgressDrawTarget::hidden(),
        };
        let template = match self.len {
            Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes} {bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        ProgressBar::with_draw_target(self.len, target).with_style(style)
    }
}

type HandOver = Result<Vec<Row>, InputError>;

/// Reads everything and hands it over, in pieces as large as can be had without waiting.
fn read(source: Source, keys: &KeyIn, sender: &mpsc::Sender<HandOver>) {
    let reader = BufReader::with_capacity(READ_BYTES, source.reader);
    // A closed channel means that nobody wants to know more.
    let _ = match Rows::new(reader, keys) {
        Ok(rows) => read_rows(rows, sender),
        Err(error) => sender.blocking_send(Err(error)).map_err(drop),
    };
}

fn read_rows<R: Read>(
    mut rows: Rows<BufReader<R>>,
    sender: &mpsc::Sender<HandOver>,
) -> Result<(), ()> {
    let mut ready = Vec::new();
    loop {
        let row = rows.next_row();
        let is_over = !matches!(row, Ok(Some(_)));
        let error = match row {
            Ok(row) => {
                ready.extend(row);
                None
            }
            Err(error) => Some(error),
        };
        let would_wait = !rows.reader().buffer().contains(&b'\n');
        if is_over || would_wait || ready.len() >= ROWS_AT_ONCE_MAX {
            let rows = std::mem::take(&mut ready);
            sender.blocking_send(Ok(rows)).map_err(drop)?;
        }
        if let Some(error) = error {
            sender.blocking_send(Err(error)).map_err(drop)?;
        }
        if is_over {
            return Ok(());
        }
    }
}

/// What became of the records so far.
#[derive(Debug, Default)]
struct State {
    tally: Tally,
    /// Records that were taken for sending.
    sent: u64,
    /// The first record that was not acknowledged, by its line, and why.
    failure: Option<(u64, ProduceError)>,
    /// How many were not.
    failed: u64,
}

struct Expected {
    line: u64,
    bytes: usize,
    delivery: Delivery,
}

/// Waits for the acknowledgements, in the order of sending.
struct Receipts {
    state: Arc<Mutex<State>>,
    expected: Option<mpsc::Sender<Expected>>,
    failed: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Receipts {
    fn start(progress: &ProgressBar) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (expected, arriving) = mpsc::channel(DELIVERIES_MAX);
        let (fail, failed) = watch::channel(false);
        let task = collect(arriving, Arc::clone(&state), fail, progress.clone());
        Self {
            state,
            expected: Some(expected),
            failed,
            task: tokio::spawn(task),
        }
    }

    async fn expect(&self, line: u64, bytes: usize, delivery: Delivery) {
        self.state().sent += 1;
        let expected = Expected {
            line,
            bytes,
            delivery,
        };
        if let Some(sender) = &self.expected {
            // The other end lives as long as the runtime.
            let _ = sender.send(expected).await;
        }
    }

    /// Waits until a record has failed.
    async fn failed(&self) {
        let mut failed = self.failed.clone();
        if failed.wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for what is on the way, if the user does not want to end sooner. Gives how many
    /// records' fate is unknown.
    async fn settle(&mut self, producer: &Producer, interrupt: &Interrupt) -> u64 {
        self.expected = None;
        let settled = async {
            producer.flush().await;
            // A panic over there has told of itself.
            let _ = (&mut self.task).await;
        };
        tokio::select! {
            () = settled => {}
            () = interrupt.overdue() => {}
        }
        let state = self.state();
        state.sent - state.tally.records() - state.failed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn collect(
    mut arriving: mpsc::Receiver<Expected>,
    state: Arc<Mutex<State>>,
    fail: watch::Sender<bool>,
    progress: ProgressBar,
) {
    while let Some(expected) = arriving.recv().await {
        let outcome = expected.delivery.await;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(receipt) => {
                let tally = &mut state.tally;
                tally.add(&receipt.partition, receipt.offset, expected.bytes);
                progress.set_position(tally.bytes() + tally.records());
            }
            Err(error) => {
                state.failed += 1;
                state.failure.get_or_insert((expected.line, error));
                fail.send_replace(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &'static str, keys: &KeyIn) -> Vec<HandOver> {
        let (sender, mut receiver) = mpsc::channel(HAND_OVERS_MAX);
        let source = Source {
            reader: Box::new(text.as_bytes()),
            len: None,
        };
        read(source, keys, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    fn lines(hand_overs: &[HandOver]) -> usize {
        hand_overs.iter().flatten().map(Vec::len).sum()
    }

    #[test]
    fn everything_read_is_handed_over() {
        assert_eq!(lines(&read_text("a\nb\nc", &KeyIn::Nothing)), 3);
        assert_eq!(lines(&read_text("", &KeyIn::Nothing)), 0);
    }

    #[test]
    fn what_was_read_before_an_error_is_handed_over_first() {
        let tab = KeyIn::Separator("\t".to_owned());
        let hand_overs = read_text("k\tv\nbad\n", &tab);
        assert_eq!(lines(&hand_overs), 1);
        let last = hand_overs.last().unwrap();
        assert!(matches!(last, Err(InputError::NoSeparator { line: 2, .. })));
    }

    #[test]
    fn a_bad_header_is_told() {
        let column = KeyIn::Column(Column::Name("carrier".to_owned()));
        let hand_overs = read_text("a,b\n1,2\n", &column);
        assert!(matches!(
            hand_overs[..],
            [Err(InputError::NoSuchColumn { .. })]
        ));
    }
}

//! `highwater consume`: records out, as lines.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use highwater_client::{
    Admin, Client, ConsumedRecord, Consumer, Offset, OutOfRange, StartAt, TopicName, TopicPartition,
};

use crate::cluster::{ClusterArguments, insist, topic_name};
use crate::exit::Failure;
use crate::format::{self, Format};
use crate::interrupt::{self, Interrupt};
use crate::print::{Printer, write_all};
use crate::tally::Tally;
use crate::time;

/// How much is written at once, in bytes, while records keep coming.
const WRITE_BYTES: usize = 64 << 10;

/// How often a silent partition is asked whether its end was reached without a record there: the
/// last offsets may belong to records that are never given out.
const END_CHECK: Duration = Duration::from_millis(200);

/// Print records.
///
/// Reads to the end of what is committed when it starts; with --follow, or from the end, it waits
/// for more. Partitions are read side by side, each in order.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:
  highwater consume flights --until-end --format '%k\\t%v'
  highwater consume flights --from 2013-01-31T10:00:00Z -n 10
  highwater consume flights --partition 0 --from 51200 --follow
  highwater --json consume flights --from end | jq .key

{}", format::HELP))]
pub(crate) struct Arguments {
    /// From which topic.
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// Only this partition; may be repeated [default: all].
    #[arg(long, value_name = "N")]
    partition: Vec<u32>,
    /// Where to begin: beginning, end, an offset, or a time as in 2013-01-31T10:00:00Z.
    #[arg(long, value_name = "WHERE", default_value = "beginning", value_parser = start_at)]
    from: StartAt,
    /// Wait for more at the end.
    #[arg(long, conflicts_with = "until_end")]
    follow: bool,
    /// End at what is the end now, also when there is nothing to read.
    #[arg(long)]
    until_end: bool,
    /// End after so many records.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// How to print a record: see below.
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "%v", value_parser = Format::parse)]
    format: Format,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Where to begin, as clap reads it.
fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" | "earliest" => return Ok(StartAt::Earliest),
        "end" | "latest" => return Ok(StartAt::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return match Offset(offset) {
            offset if offset <= Offset::MAX => Ok(StartAt::Offset(offset)),
            _ => Err(format!("offsets go up to {}", Offset::MAX)),
        };
    }
    time::parse(text).map(StartAt::TimestampMs).map_err(|_| {
        "write beginning, end, an offset, or a time as 2013-01-31T10:00:00Z".to_owned()
    })
}

impl Arguments {
    /// Reads.
    ///
    /// # Errors
    /// When no node answers, or what was asked for is not there.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let printer = *printer;
        interrupt::run(|interrupt| self.consume(interrupt, printer))
    }

    async fn consume(self, interrupt: Interrupt, printer: Printer) -> Result<(), Failure> {
        let mut reading = Reading {
            started: Instant::now(),
            tally: Tally::default(),
            lines: Vec::new(),
        };
        let result = tokio::select! {
            // What has come is printed before a signal is looked at.
            result = self.read(&mut reading, printer) => result,
            () = interrupt.wait() => Err(Failure::interrupted("")),
        };
        write_all(&reading.lines)?;
        if interrupt.is_asked() || io::stderr().is_terminal() {
            reading.report(printer);
        }
        result
    }

    async fn read(&self, reading: &mut Reading, printer: Printer) -> Result<(), Failure> {
        let client = self.cluster.connect(false).await?;
        let (mut consumer, mut ends) = self.assign(&client).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 && !ends.is_reached() {
            let Some(record) = reading.next(&mut consumer, &mut ends).await? else {
                continue;
            };
            if ends.is_beyond(&record) {
                continue;
            }
            ends.saw(&record);
            reading.print(&record, &self.format, printer)?;
            left -= 1;
        }
        Ok(())
    }

    /// Resolves where to begin and where to end, and assigns what has something between the two.
    async fn assign(&self, client: &Client) -> Result<(Consumer, Ends), Failure> {
        let admin = client.admin();
        let partitions = self.partitions(&admin).await?;
        let ends_somewhere = self.until_end || (!self.follow && self.from != StartAt::Latest);
        let mut ends = Ends(None);
        let mut consumer = client.consumer().out_of_range(OutOfRange::Fail).build();
        for partition in partitions {
            let mut from = self.from;
            if ends_somewhere {
                let end = insist(|| admin.offset(&partition, StartAt::Latest)).await?;
                let start = insist(|| admin.offset(&partition, self.from)).await?;
                from = StartAt::Offset(start);
                let waiting = ends.0.get_or_insert_default();
                if start >= end {
                    continue;
                }
                waiting.insert(partition.clone(), end);
            }
            consumer.assign(partition, from).await?;
        }
        Ok((consumer, ends))
    }

    async fn partitions(&self, admin: &Admin) -> Result<Vec<TopicPartition>, Failure> {
        let topic = admin.describe_topic(&self.topic).await?;
        let numbers: Vec<u32> = match self.partition.is_empty() {
            true => topic.partitions.keys().copied().collect(),
            false => self.partition.clone(),
        };
        let at = |partition| {
            if !topic.partitions.contains_key(&partition) {
                return Err(Failure::from(
                    highwater_client::MetadataError::UnknownPartition {
                        topic: self.topic.to_string(),
                        partition,
                        partitions: topic.partition_count(),
                    },
                ));
            }
            Ok(TopicPartition {
                topic: self.topic.clone(),
                partition,
            })
        };
        numbers.into_iter().map(at).collect()
    }
}

/// Where reading ends: nowhere, or at these offsets of partitions that are not read up to there.
struct Ends(Option<BTreeMap<TopicPartition, Offset>>);

impl Ends {
    fn is_reached(&self) -> bool {
        self.0.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Whether a record came after the end.
    fn is_beyond(&self, record: &ConsumedRecord) -> bool {
        self.0.as_ref().is_some_and(|ends| {
            ends.get(&record.partition)
                .is_none_or(|end| record.offset >= *end)
        })
    }

    fn saw(&mut self, record: &ConsumedRecord) {
        if let Some(ends) = &mut self.0 {
            let end = ends.get(&record.partition);
            if end.is_some_and(|end| record.offset.next() >= *end) {
                ends.remove(&record.partition);
            }
        }
    }

    /// Strikes out what is read up to its end without a record there.
    fn check(&mut self, consumer: &Consumer) {
        if let Some(ends) = &mut self.0 {
            ends.retain(|partition, end| {
                consumer
                    .position(partition)
                    .is_none_or(|position| position < *end)
            });
        }
    }
}

/// What was read, and what of it is not yet written.
struct Reading {
    started: Instant,
    tally: Tally,
    lines: Vec<u8>,
}

impl Reading {
    /// The next record. While none is at hand, what was printed is written, and now and then it
    /// gives nothing.
    async fn next(
        &mut self,
        consumer: &mut Consumer,
        ends: &mut Ends,
    ) -> Result<Option<ConsumedRecord>, Failure> {
        if let Some(record) = at_hand(consumer.recv()).await {
            return Ok(Some(record?));
        }
        self.write()?;
        match tokio::time::timeout(END_CHECK, consumer.recv()).await {
            Ok(record) => Ok(Some(record?)),
            Err(_) => {
                ends.check(consumer);
                Ok(None)
            }
        }
    }

    fn print(
        &mut self,
        record: &ConsumedRecord,
        format: &Format,
        printer: Printer,
    ) -> Result<(), Failure> {
        if printer.is_json() {
            let object = format::json_of(record).to_string();
            self.lines.extend_from_slice(object.as_bytes());
            self.lines.push(b'\n');
        } else {
            format.write(record, &mut self.lines);
        }
        let bytes = [&record.key, &record.value].into_iter().flatten();
        let bytes = bytes.map(|bytes| bytes.len()).sum();
        self.tally.add(&record.partition, record.offset, bytes);
        if self.lines.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        write_all(&lines)
    }

    /// Says on stderr what was read; stdout is the records'.
    fn report(&self, printer: Printer) {
        for (text, object) in self.tally.lines("consumed", self.started.elapsed()) {
            match printer.is_json() {
                true => eprintln!("{object}"),
                false => eprintln!("{text}"),
            }
        }
    }
}

/// What a future gives at once, if it does.
async fn at_hand<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings() {
        assert_eq!(start_at("beginning"), Ok(StartAt::Earliest));
        assert_eq!(start_at("end"), Ok(StartAt::Latest));
        assert_eq!(start_at("51200"), Ok(StartAt::Offset(Offset(51_200))));
        let time = StartAt::TimestampMs(1_357_034_400_000);
        assert_eq!(start_at("2013-01-01T10:00:00Z"), Ok(time));
        for bad in ["", "-1", "middle", "9223372036854775808"] {
            assert!(start_at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reading_ends_with_the_last_record_of_the_last_partition() {
        let at = |partition| TopicPartition {
            topic: TopicName::new("flights").unwrap(),
            partition,
        };
        let record = |partition, offset| ConsumedRecord {
            partition: at(partition),
            offset: Offset(offset),
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let mut ends = Ends(Some([(at(0), Offset(2)), (at(1), Offset(1))].into()));
        ends.saw(&record(0, 0));
        ends.saw(&record(1, 0));
        assert!(!ends.is_reached());
        assert!(ends.is_beyond(&record(1, 1)), "that came after the start");
        assert!(!ends.is_beyond(&record(0, 1)));
        ends.saw(&record(0, 1));
        assert!(ends.is_reached());
        assert!(!Ends(None).is_reached());
    }
}

//! What a command has done so far, by partition.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_client::{Offset, TopicPartition};
use indicatif::{DecimalBytes, HumanCount};
use serde_json::{Value, json};

/// Records that were produced or consumed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    partitions: BTreeMap<TopicPartition, Partition>,
    records: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Partition {
    records: u64,
    last_offset: Offset,
}

impl Tally {
    /// Counts a record of so many bytes.
    pub(crate) fn add(&mut self, partition: &TopicPartition, offset: Offset, bytes: usize) {
        self.records += 1;
        self.bytes += u64::try_from(bytes).expect("a length in memory fits into 64 bits");
        let found = match self.partitions.get_mut(partition) {
            Some(found) => found,
            None => self
                .partitions
                .entry(partition.clone())
                .or_insert(Partition {
                    records: 0,
                    last_offset: offset,
                }),
        };
        found.records += 1;
        found.last_offset = found.last_offset.max(offset);
    }

    /// How many records.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// How many bytes of keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset behind the last record of each partition.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (TopicPartition, Offset)> {
        let ends = self.partitions.iter();
        ends.map(|(partition, tally)| (partition.clone(), tally.last_offset.next()))
    }

    /// Text and object of each partition, then of all: `verb` says what was done to them.
    pub(crate) fn lines(&self, verb: &str, elapsed: Duration) -> Vec<(String, Value)> {
        let each = self.partitions.iter().map(|(partition, tally)| {
            let last = tally.last_offset;
            let text = format!("{partition}: {} records, last offset {last}", tally.records);
            let object = json!({
                "topic": partition.topic.as_str(),
                "partition": partition.partition,
                "records": tally.records,
                "last_offset": last.0,
            });
            (text, object)
        });
        each.chain([self.total(verb, elapsed)]).collect()
    }

    fn total(&self, verb: &str, elapsed: Duration) -> (String, Value) {
        let seconds = elapsed.as_secs_f64();
        let (records_per_second, bytes_per_second) =
            (rate(self.records, elapsed), rate(self.bytes, elapsed));
        let text = format!(
            "{} records, {} {verb} in {seconds:.2} s: {} records/s, {}/s",
            HumanCount(self.records),
            DecimalBytes(self.bytes),
            HumanCount(records_per_second),
            DecimalBytes(bytes_per_second),
        );
        let object = json!({
            verb: self.records,
            "bytes": self.bytes,
            "seconds": seconds,
            "records_per_second": records_per_second,
            "bytes_per_second": bytes_per_second,
        });
        (text, object)
    }
}

/// How many a second.
fn rate(count: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use highwater_client::TopicName;

    use super::*;

    #[test]
    fn partitions_come_in_order_and_the_total_last() {
        let at = |partition| TopicPartition {
            topic: TopicName::new("flights").unwrap(),
            partition,
        };
        let mut tally = Tally::default();
        tally.add(&at(1), Offset(7), 100);
        tally.add(&at(0), Offset(3), 50);
        tally.add(&at(1), Offset(8), 50);
        let lines = tally.lines("acknowledged", Duration::from_millis(500));
        let texts: Vec<_> = lines.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "flights-0: 1 records, last offset 3",
                "flights-1: 2 records, last offset 8",
                "3 records, 200 B acknowledged in 0.50 s: 6 records/s, 400 B/s",
            ]
        );
        assert_eq!(lines[1].1["last_offset"], 8);
        assert_eq!(lines[2].1["acknowledged"], 3);
    }
}

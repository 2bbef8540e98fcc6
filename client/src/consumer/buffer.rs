//! Fetched bytes, and the records in them.

use bytes::Bytes;
use highwater_record::{BatchError, BatchLimits, Offset, RecordBatch, TopicPartition};
use std::borrow::Cow;
use std::collections::VecDeque;

use super::ConsumedRecord;

/// Record batches of one partition as they came, one behind the other.
#[derive(Debug)]
pub(super) struct Fetched {
    bytes: Bytes,
}

/// What reading a batch off fetched bytes gave.
#[derive(Debug)]
pub(super) enum NextBatch {
    /// The bytes are used up, or the rest is a batch that was cut off.
    End,
    /// A batch: its records from the position on, and the position behind it.
    Records {
        records: VecDeque<ConsumedRecord>,
        end: Offset,
    },
}

/// Bytes at the front of a batch that say how long it is.
const LENGTH_END: usize = 12;

impl Fetched {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the next batch off and opens it. A record's offset below `position` is not wanted:
    /// brokers send whole batches. Control batches hold nothing for readers.
    pub(super) fn next_batch(
        &mut self,
        partition: &TopicPartition,
        position: Offset,
        limits: &BatchLimits,
    ) -> Result<NextBatch, BatchError> {
        let Some(length) = whole_length(&self.bytes) else {
            self.bytes.clear();
            return Ok(NextBatch::End);
        };
        let bytes = self.bytes.slice(..length);
        let batch = RecordBatch::parse(&bytes, limits)?;
        let end = batch.header().end_offset();
        let records = match batch.header().is_control() || end <= position {
            true => VecDeque::new(),
            false => open(&bytes, &batch, partition, position, limits)?,
        };
        self.bytes = self.bytes.slice(length..);
        Ok(NextBatch::Records { records, end })
    }
}

/// The length of the batch at the front, if it is there whole.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(8..LENGTH_END)?.try_into().ok()?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok();
    // A negative length is left to the parser, which names it.
    let length = LENGTH_END + length.unwrap_or(0);
    (length <= bytes.len()).then_some(length)
}

fn open(
    bytes: &Bytes,
    batch: &RecordBatch<'_>,
    partition: &TopicPartition,
    position: Offset,
    limits: &BatchLimits,
) -> Result<VecDeque<ConsumedRecord>, BatchError> {
    let body = match batch.decompressed(limits)? {
        Cow::Borrowed(body) => bytes.slice_ref(body),
        Cow::Owned(body) => Bytes::from(body),
    };
    let share = |part: &[u8]| body.slice_ref(part);
    let base = batch.header().base_offset();
    let mut records = VecDeque::new();
    for record in batch.records_in(&body, limits) {
        let record = record?;
        let offset = base.advance(record.offset_delta.into());
        if offset < position {
            continue;
        }
        records.push_back(ConsumedRecord {
            partition: partition.clone(),
            offset,
            timestamp_ms: record.timestamp,
            key: record.key.map(share),
            value: record.value.map(share),
            headers: record
                .headers
                .iter()
                .map(|header| (share(header.key), header.value.map(share)))
                .collect(),
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use highwater_record::{Compression, Header, RecordBatchBuilder, TopicName, stamp};

    use super::*;

    fn batch(compression: Compression, base: u64, values: &[&str]) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(compression, 1 << 20);
        for value in values {
            let headers = [Header::new("h", Some(b"1")), Header::new("h", None)];
            builder
                .append(7, Some(b"key"), Some(value.as_bytes()), &headers)
                .unwrap();
        }
        let mut bytes = builder.seal().unwrap();
        stamp(
            &mut bytes,
            Offset(base),
            highwater_record::LeaderEpoch::ZERO,
        );
        bytes
    }

    fn partition() -> TopicPartition {
        TopicPartition {
            topic: TopicName::new("t").unwrap(),
            partition: 3,
        }
    }

    fn read(fetched: &mut Fetched, position: u64) -> Result<NextBatch, BatchError> {
        fetched.next_batch(&partition(), Offset(position), &BatchLimits::consumer())
    }

    #[test]
    fn batches_of_every_codec_are_opened_from_the_position_on() {
        for compression in Compression::ALL {
            let row = [
                batch(compression, 10, &["a", "b", "c"]),
                batch(compression, 13, &["d"]),
            ];
            let mut fetched = Fetched::new(Bytes::from(row.concat()));
            let Ok(NextBatch::Records { records, end }) = read(&mut fetched, 11) else {
                panic!("a batch");
            };
            assert_eq!(end, Offset(13));
            let seen: Vec<_> = records
                .iter()
                .map(|r| (r.offset.0, r.value.clone()))
                .collect();
            assert_eq!(seen, [(11, Some("b".into())), (12, Some("c".into()))]);
            assert_eq!(
                records[0].headers,
                [("h".into(), Some("1".into())), ("h".into(), None)]
            );
            assert!(matches!(
                read(&mut fetched, 13),
                Ok(NextBatch::Records { records, end }) if records.len() == 1 && end == Offset(14)
            ));
            assert!(matches!(read(&mut fetched, 14), Ok(NextBatch::End)));
        }
    }

    #[test]
    fn a_batch_that_was_cut_off_ends_the_row() {
        let mut bytes = batch(Compression::None, 0, &["a"]);
        bytes.pop();
        let mut fetched = Fetched::new(Bytes::from(bytes));
        assert!(matches!(read(&mut fetched, 0), Ok(NextBatch::End)));
        assert_eq!(fetched.len(), 0);
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_stays_one() {
        let mut bytes = batch(Compression::None, 0, &["a"]);
        *bytes.last_mut().unwrap() ^= 1;
        let mut fetched = Fetched::new(Bytes::from(bytes));
        assert!(read(&mut fetched, 0).is_err());
        assert!(read(&mut fetched, 0).is_err());
    }
}

//! What holds for any records and any bytes.

use highwater_record::{
    AppendError, BatchLimits, Compression, Header, LeaderEpoch, Offset, RecordBatch,
    RecordBatchBuilder, SplitBatches, body_crc, crc32c, set_log_append_time, set_max_timestamp,
    stamp,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

type Bytes = Vec<u8>;

#[derive(Debug, Clone)]
struct Given {
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

impl Given {
    fn headers(&self) -> Vec<Header<'_>> {
        self.headers
            .iter()
            .map(|(key, value)| Header::new(key, value.as_deref()))
            .collect()
    }
}

fn records() -> impl Strategy<Value = Vec<Given>> {
    let bytes = || option::of(vec(any::<u8>(), 0..200));
    let headers = vec(("[a-c]{0,3}", option::of(vec(any::<u8>(), 0..10))), 0..5);
    let timestamp = prop_oneof![
        4 => 1_600_000_000_000_i64..1_800_000_000_000,
        1 => -1_i64..10,
        1 => i64::MIN / 4..i64::MAX / 4,
    ];
    let record = (timestamp, bytes(), bytes(), headers);
    let given = |(timestamp, key, value, headers)| Given {
        timestamp,
        key,
        value,
        headers,
    };
    vec(record.prop_map(given), 1..40)
}

fn codecs() -> impl Strategy<Value = Compression> {
    select(&Compression::ALL[..])
}

fn build(compression: Compression, records: &[Given]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression, 1 << 20);
    for record in records {
        let (before, headers) = (builder.size_uncompressed(), record.headers());
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder
            .append(record.timestamp, key, value, &headers)
            .expect("forty small records fit");
        let added = builder.size_uncompressed() - before;
        assert!(added <= RecordBatchBuilder::size_estimate(key, value, &headers));
    }
    builder.seal().expect("not empty and not out of memory")
}

/// Goes all the way through what may or may not be a batch.
fn read_all(bytes: &[u8], limits: &BatchLimits) -> usize {
    let mut count = 0;
    for piece in SplitBatches::new(bytes).flatten() {
        let Ok(batch) = RecordBatch::parse(piece, limits) else {
            continue;
        };
        let _ = (batch.check_produced(), batch.end_offset(), batch.producer());
        let Ok(records) = batch.records(limits) else {
            continue;
        };
        for record in records.iter().flatten() {
            count += 1 + record.headers.iter().count();
        }
    }
    count
}

fn signed(mut batch: Bytes) -> Bytes {
    if batch.len() > 21 {
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_appended_comes_back(given in records(), compression in codecs()) {
        let bytes = build(compression, &given);
        let limits = BatchLimits::default();
        let batch = RecordBatch::parse(&bytes, &limits).expect("valid");
        prop_assert_eq!(batch.check_produced(), Ok(()));
        prop_assert_eq!(batch.compression(), compression);
        prop_assert_eq!(batch.base_timestamp(), given[0].timestamp);
        let latest = given.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(batch.max_timestamp()), latest);
        let records = batch.records(&limits).expect("small");
        prop_assert_eq!(records.max_timestamp(), Ok(latest));
        let records: Vec<_> = records.iter().map(|record| record.expect("valid")).collect();
        prop_assert_eq!(records.len(), given.len());
        for (delta, (record, given)) in (0..).zip(records.iter().zip(&given)) {
            prop_assert_eq!(record.offset_delta, delta);
            prop_assert_eq!(record.timestamp, given.timestamp);
            prop_assert_eq!(record.key, given.key.as_deref());
            prop_assert_eq!(record.value, given.value.as_deref());
            prop_assert_eq!(record.headers.iter().collect::<Vec<_>>(), given.headers());
        }
    }

    #[test]
    fn rows_are_cut_where_they_were_joined(
        given in vec((records(), codecs()), 0..4),
        cut in any::<Index>(),
    ) {
        let batches: Vec<_> = given.iter().map(|(records, codec)| build(*codec, records)).collect();
        let row = batches.concat();
        let pieces: Result<Vec<_>, _> = SplitBatches::new(&row).collect();
        prop_assert_eq!(pieces.expect("all whole"), batches.iter().map(|b| &b[..]).collect::<Vec<_>>());
        let row = &row[..cut.index(row.len() + 1)];
        let mut split = SplitBatches::new(row);
        let whole: usize = split.by_ref().map(|batch| batch.expect("whole").len()).sum();
        prop_assert_eq!(whole + split.remainder().len(), row.len());
    }

    #[test]
    fn headers_are_rewritten_without_a_pass_over_the_records(
        given in records(), compression in codecs(), offset in 0..1_u64 << 62, epoch in 0..1_u32 << 31, time: i64,
    ) {
        let mut bytes = build(compression, &given);
        stamp(&mut bytes, Offset(offset), LeaderEpoch::new(epoch).expect("in range"));
        set_max_timestamp(&mut bytes, time.wrapping_add(1));
        set_log_append_time(&mut bytes, time);
        let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("still valid");
        prop_assert_eq!(batch.base_offset(), Offset(offset));
        prop_assert_eq!(batch.max_timestamp(), time);
        let (prefix, rest) = bytes.split_first_chunk().expect("a header");
        prop_assert_eq!(body_crc(prefix, batch.crc(), rest.len()), crc32c(&bytes));
    }

    /// Bytes changed, cut, inserted: an error or other records, but never a panic. The CRC is
    /// mended, else it would hide everything behind it.
    #[test]
    fn mutated_batches_never_panic(
        given in records(),
        compression in codecs(),
        flips in vec((any::<Index>(), any::<u8>()), 0..8),
        cut in option::of(any::<Index>()),
        insertion in option::of((any::<Index>(), vec(any::<u8>(), 1..20))),
    ) {
        let mut bytes = build(compression, &given);
        if let Some((at, inserted)) = insertion {
            let at = at.index(bytes.len());
            bytes.splice(at..at, inserted);
        }
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = signed(bytes);
        read_all(&bytes, &BatchLimits::default());
        read_all(&bytes, &BatchLimits::consumer());
    }

    /// The payload alone is changed, with length and CRC to match, so that each decoder sees it.
    #[test]
    fn mutated_payloads_never_panic(
        given in records(),
        compression in codecs(),
        flips in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Index>(),
    ) {
        let mut bytes = build(compression, &given);
        for (at, byte) in flips {
            let at = 61 + at.index(bytes.len() - 61);
            bytes[at] = byte;
        }
        bytes.truncate(61 + cut.index(bytes.len() - 61) + 1);
        let length = i32::try_from(bytes.len() - 12).expect("small");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let bytes = signed(bytes);
        read_all(&bytes, &BatchLimits::default());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), codec in 0..8_u8) {
        read_all(&bytes, &BatchLimits::default());
        // The same as a payload behind a true header.
        let mut batch = build(Compression::None, &[Given {
            timestamp: 0, key: None, value: None, headers: vec![],
        }]);
        batch.truncate(61);
        batch.extend_from_slice(&bytes);
        let length = i32::try_from(batch.len() - 12).expect("small");
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[22] = codec;
        read_all(&signed(batch), &BatchLimits::default());
    }

    #[test]
    fn a_full_batch_takes_no_more_and_stays_as_it_was(given in records(), limit in 61..3000_usize) {
        let mut builder = RecordBatchBuilder::new(Compression::None, limit);
        for record in &given {
            let before = (builder.records_count(), builder.size_uncompressed());
            let appended = builder.append(
                record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers(),
            );
            match appended {
                Ok(()) => prop_assert!(builder.size_uncompressed() <= limit),
                Err(AppendError::Full { bytes, .. }) => {
                    prop_assert!(bytes > limit);
                    prop_assert_eq!((builder.records_count(), builder.size_uncompressed()), before);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        if let Ok(bytes) = builder.seal() {
            prop_assert!(bytes.len() <= limit);
            prop_assert!(RecordBatch::parse(&bytes, &BatchLimits::default()).is_ok());
        }
    }
}

//! Batches written out by hand, byte by byte after the format's description in Kafka's
//! documentation ("Message Format"), with CRCs computed bit by bit elsewhere.

use highwater_record::{
    BatchLimits, Compression, Header, LeaderEpoch, Offset, ProducerStamp, RecordBatch,
    RecordBatchBuilder, TimestampType,
};

/// One record: no key, an empty value, time 0.
#[rustfmt::skip]
const SMALLEST: [u8; 68] = [
    0, 0, 0, 0, 0, 0, 0, 0,                         // base offset
    0, 0, 0, 56,                                    // length
    0xff, 0xff, 0xff, 0xff,                         // leader epoch -1
    2,                                              // magic
    0x27, 0x19, 0x0a, 0x04,                         // CRC-32C
    0, 0,                                           // attributes
    0, 0, 0, 0,                                     // last offset delta
    0, 0, 0, 0, 0, 0, 0, 0,                         // base timestamp
    0, 0, 0, 0, 0, 0, 0, 0,                         // max timestamp
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id -1
    0xff, 0xff,                                     // producer epoch -1
    0xff, 0xff, 0xff, 0xff,                         // base sequence -1
    0, 0, 0, 1,                                     // one record
    12,                                             // of 6 bytes
    0, 0, 0, 1, 0, 0,       // attributes, time, offset, null key, empty value, no headers
];

/// Two records of a transaction, the first with a header key twice, the second all null.
#[rustfmt::skip]
const TRANSACTIONAL: [u8; 91] = [
    0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 79,
    0xff, 0xff, 0xff, 0xff,
    2,
    0x10, 0x6c, 0xd2, 0x4a,
    0, 0x10,                                        // transactional
    0, 0, 0, 1,
    0x00, 0x00, 0x01, 0x5d, 0x3e, 0xf7, 0x98, 0x00, // 1,500,000,000,000
    0x00, 0x00, 0x01, 0x5d, 0x3e, 0xf7, 0x99, 0x2c, // 300 later
    0, 0, 0, 0, 0, 0, 3, 0xe9,                      // producer 1001
    0, 3,                                           // epoch 3
    0, 0, 0, 70,                                    // sequence 70
    0, 0, 0, 2,
    42, 0, 0, 0, 6, b'k', b'e', b'y', 10, b'v', b'a', b'l', b'u', b'e',
    4, 2, b'h', 2, b'1', 2, b'h', 1,                // two headers: h = 1, h = null
    14, 0, 0xd8, 4, 2, 1, 1, 0,                     // 300 ms and 1 offset later
];

#[test]
fn the_smallest_batch() {
    let mut builder = RecordBatchBuilder::new(Compression::None, 68);
    builder.append(0, None, Some(b""), &[]).expect("exactly");
    assert_eq!(builder.size_uncompressed(), 68);
    assert_eq!(builder.seal().expect("not empty"), SMALLEST);

    let limits = BatchLimits::default();
    let batch = RecordBatch::parse(&SMALLEST, &limits).expect("valid");
    assert_eq!(batch.base_offset(), Offset::ZERO);
    assert_eq!(batch.end_offset(), Offset(1));
    assert_eq!(batch.leader_epoch(), None);
    assert_eq!(batch.crc(), 0x2719_0a04);
    assert_eq!(batch.producer(), None);
    assert_eq!(batch.total_bytes(), 68);
    assert_eq!(batch.check_produced(), Ok(()));
}

/// Room is for what a batch may become while it is open, and for what it is when it is not.
#[test]
fn a_batch_keeps_little_more_room_than_it_needs() {
    const LIMIT: usize = 1 << 20;
    for records in [1, 40, 100, 900] {
        let mut builder = RecordBatchBuilder::new(Compression::None, LIMIT);
        for _ in 0..records {
            builder
                .append(0, None, Some(&[7; 1024]), &[])
                .expect("fits");
        }
        let sealed = builder.seal().expect("not empty");
        assert!(
            sealed.capacity() <= LIMIT.min(2 * sealed.len() + 1),
            "{records}"
        );
    }
}

#[test]
fn a_transaction_with_headers() {
    let producer = ProducerStamp {
        producer_id: 1001,
        producer_epoch: 3,
        base_sequence: 70,
    };
    let mut builder = RecordBatchBuilder::new(Compression::None, 1000);
    builder.set_producer(producer);
    builder.set_transactional(true);
    let headers = [Header::new("h", Some(b"1")), Header::new("h", None)];
    let first = 1_500_000_000_000;
    builder
        .append(first, Some(b"key"), Some(b"value"), &headers)
        .expect("it fits");
    builder
        .append(first + 300, None, None, &[])
        .expect("it fits");
    assert_eq!(builder.seal().expect("not empty"), TRANSACTIONAL);

    let limits = BatchLimits::default();
    let batch = RecordBatch::parse(&TRANSACTIONAL, &limits).expect("valid");
    assert!(batch.is_transactional() && !batch.is_control());
    assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(batch.producer(), Some(producer));
    assert_eq!(batch.max_timestamp(), first + 300);
    assert_eq!(batch.records_max_timestamp(), Some(first + 300));
    let records = batch.records(&limits).expect("not compressed");
    let records: Vec<_> = records
        .iter()
        .map(|record| record.expect("valid"))
        .collect();
    assert_eq!(records[0].key, Some(&b"key"[..]));
    assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), headers);
    assert_eq!(records[0].headers.last("h"), Some(headers[1]));
    assert_eq!((records[1].key, records[1].value), (None, None));
    assert_eq!(records[1].timestamp, first + 300);
    assert_eq!(records[1].offset_delta, 1);
}

#[test]
fn an_epoch_is_read_where_kafka_puts_it() {
    let mut bytes = SMALLEST;
    bytes[12..16].copy_from_slice(&[0, 0, 1, 0]);
    let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("outside of the CRC");
    assert_eq!(batch.leader_epoch(), LeaderEpoch::new(256));
}

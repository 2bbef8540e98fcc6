//! Each lie that a batch can tell, one by one: each has its own typed error.

use highwater_record::{
    BatchError, BatchLimits, BufferMut, Compression, DecompressError, Header, ProducedBatchError,
    ProducerStamp, RecordBatch, RecordBatchBuilder, RecordError, RecordField, SplitBatches, crc32c,
};

/// Where the first record begins.
const RECORDS: usize = 61;

/// Two records: `key` = `value` with header `h` = `1`, and an empty one.
fn batch(compression: Compression) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(compression, 1000);
    let headers = [Header::new("h", Some(b"1"))];
    builder
        .append(1000, Some(b"key"), Some(b"value"), &headers)
        .expect("it fits");
    builder.append(1001, None, None, &[]).expect("it fits");
    builder.seal().expect("not empty")
}

/// The batch with `bytes` written at `at`, and a CRC that vouches for the lie.
fn lying(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch(Compression::None);
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    signed(batch)
}

fn signed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// A batch of one record with these bytes, length in front and all.
fn of_record(record: &[u8]) -> Vec<u8> {
    let mut batch = batch(Compression::None);
    batch.truncate(RECORDS);
    batch.extend_from_slice(record);
    let length = i32::try_from(batch.len() - 12).expect("small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[23..27].fill(0);
    batch[57..61].copy_from_slice(&[0, 0, 0, 1]);
    signed(batch)
}

fn error(bytes: &[u8]) -> BatchError {
    RecordBatch::parse(bytes, &BatchLimits::default()).expect_err("a lie is refused")
}

fn record_error(record: &[u8]) -> RecordError {
    match error(&of_record(record)) {
        BatchError::Record { index: 0, error } => error,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn the_truth_is_accepted() {
    for compression in Compression::ALL {
        let bytes = batch(compression);
        let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("valid");
        assert_eq!(batch.compression(), compression);
        assert_eq!(batch.check_produced(), Ok(()));
    }
}

#[test]
fn a_cut_batch_is_truncated_at_every_byte() {
    let bytes = batch(Compression::None);
    for end in 0..bytes.len() {
        let need = if end < 12 { 61 } else { bytes.len() };
        let expected = BatchError::Truncated { have: end, need };
        assert_eq!(error(&bytes[..end]), expected);
    }
}

#[test]
fn impossible_lengths() {
    for length in [i32::MIN, -1, 0, 48] {
        let bytes = lying(8, &length.to_be_bytes());
        assert_eq!(error(&bytes), BatchError::Length { length });
    }
}

#[test]
fn a_length_of_two_gigabytes_is_too_large() {
    let bytes = lying(8, &i32::MAX.to_be_bytes());
    let limit = BatchLimits::default().batch_bytes_max;
    let expected = BatchError::TooLarge {
        bytes: (1 << 31) + 11,
        limit,
    };
    assert_eq!(error(&bytes), expected);
}

#[test]
fn the_size_limit_holds_to_the_byte() {
    let bytes = batch(Compression::None);
    let limits = |batch_bytes_max| BatchLimits {
        batch_bytes_max,
        ..BatchLimits::default()
    };
    assert!(RecordBatch::parse(&bytes, &limits(bytes.len())).is_ok());
    let refused = RecordBatch::parse(&bytes, &limits(bytes.len() - 1));
    assert!(matches!(refused, Err(BatchError::TooLarge { .. })));
}

#[test]
fn other_magics() {
    for magic in [0, 1, 3, 255] {
        assert_eq!(error(&lying(16, &[magic])), BatchError::Magic { magic });
    }
}

#[test]
fn an_old_message_set_is_named_by_its_magic() {
    // Offset, size 14, CRC, magic 1, attributes, no room for a v2 header.
    let mut old = vec![0; 26];
    (old[11], old[16]) = (14, 1);
    assert_eq!(error(&old), BatchError::Magic { magic: 1 });
    let split = SplitBatches::new(&old).next();
    assert_eq!(split, Some(Err(BatchError::Magic { magic: 1 })));
}

#[test]
fn a_flipped_bit_anywhere_under_the_crc() {
    let good = batch(Compression::None);
    for bit in 17 * 8..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = RecordBatch::parse(&bytes, &BatchLimits::default());
        assert!(refused.is_err(), "bit {bit} was not noticed");
    }
}

#[test]
fn a_wrong_crc_is_told_with_the_right_one() {
    let mut bytes = batch(Compression::None);
    let computed = crc32c(&bytes[21..]);
    bytes[17..21].fill(0);
    assert_eq!(
        error(&bytes),
        BatchError::Crc {
            stored: 0,
            computed
        }
    );
}

#[test]
fn reserved_attribute_bits() {
    for bit in 7..16 {
        let attributes = (1_u16 << bit).cast_signed();
        let expected = BatchError::ReservedAttributes { attributes };
        assert_eq!(error(&lying(21, &attributes.to_be_bytes())), expected);
    }
}

#[test]
fn codecs_that_do_not_exist() {
    for codec in 5..=7 {
        assert_eq!(error(&lying(22, &[codec])), BatchError::Codec { codec });
    }
}

#[test]
fn offsets_that_do_not_exist() {
    for base_offset in [i64::MIN, -1, i64::MAX - 1, i64::MAX] {
        let bytes = lying(0, &base_offset.to_be_bytes());
        let expected = BatchError::BaseOffset {
            base_offset,
            delta: 1,
        };
        assert_eq!(error(&bytes), expected);
    }
    let last = lying(0, &(i64::MAX - 2).to_be_bytes());
    assert!(RecordBatch::parse(&last, &BatchLimits::default()).is_ok());
}

#[test]
fn negative_last_offset_deltas() {
    for delta in [i32::MIN, -1] {
        let expected = BatchError::LastOffsetDelta { delta };
        assert_eq!(error(&lying(23, &delta.to_be_bytes())), expected);
    }
}

#[test]
fn counts_beyond_offsets_or_bytes() {
    let bytes = batch(Compression::None).len() - RECORDS;
    let check = |delta: i32, count: i32| {
        let mut lie = batch(Compression::None);
        lie[23..27].copy_from_slice(&delta.to_be_bytes());
        lie[57..61].copy_from_slice(&count.to_be_bytes());
        let expected = BatchError::RecordsCount {
            count,
            offsets: delta.unsigned_abs() + 1,
            bytes,
        };
        assert_eq!(error(&signed(lie)), expected);
    };
    check(1, -1);
    check(1, i32::MIN);
    check(1, 3);
    check(i32::MAX, i32::MAX);
    check(1000, 5);
}

#[test]
fn counts_that_are_not_the_records() {
    let more = error(&{
        let mut lie = batch(Compression::None);
        lie[23..27].copy_from_slice(&[0, 0, 0, 2]);
        lie[57..61].copy_from_slice(&[0, 0, 0, 3]);
        signed(lie)
    });
    let field = RecordField::Length;
    let error_of_third = RecordError::Varint { field };
    let expected = BatchError::Record {
        index: 2,
        error: error_of_third,
    };
    assert_eq!(more, expected);
    let fewer = error(&lying(57, &[0, 0, 0, 1]));
    assert_eq!(fewer, BatchError::TrailingBytes { bytes: 7, count: 1 });
    let none = error(&lying(57, &[0, 0, 0, 0]));
    assert!(matches!(none, BatchError::TrailingBytes { count: 0, .. }));
}

#[test]
fn record_lengths() {
    let field = RecordField::Length;
    assert_eq!(
        record_error(&[1, 0, 0, 0, 1, 1, 0]),
        RecordError::Length { field, length: -1 }
    );
    assert_eq!(
        record_error(&[14, 0, 0, 0, 1, 1, 0]),
        RecordError::Truncated {
            field,
            need: 7,
            have: 6
        }
    );
    assert_eq!(
        record_error(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
        RecordError::Varint { field }
    );
    assert_eq!(
        record_error(&[14, 0, 0, 0, 1, 1, 0, 0]),
        RecordError::TrailingBytes { bytes: 1 }
    );
    let field = RecordField::Attributes;
    assert_eq!(
        record_error(&[0, 0, 0, 0, 0, 0, 0]),
        RecordError::Truncated {
            field,
            need: 1,
            have: 0
        }
    );
}

#[test]
fn fields_that_pass_the_records_end() {
    let varint = |field| RecordError::Varint { field };
    let check = |record: &[u8], expected: RecordError| {
        assert_eq!(record_error(record), expected, "{record:x?}");
    };
    check(&[2, 0, 0, 0, 1, 1, 0], varint(RecordField::TimestampDelta));
    check(&[4, 0, 0, 0, 1, 1, 0], varint(RecordField::OffsetDelta));
    check(&[6, 0, 0, 0, 1, 1, 0], varint(RecordField::Key));
    check(&[8, 0, 0, 0, 1, 1, 0], varint(RecordField::Value));
    check(&[10, 0, 0, 0, 1, 1, 0], varint(RecordField::HeadersCount));
    check(&[12, 0, 0, 0, 1, 1, 2], varint(RecordField::HeaderKey));
    check(&[14, 0, 0, 0, 1, 1, 2, 0], varint(RecordField::HeaderValue));
}

#[test]
fn key_and_value_lengths() {
    let key = RecordField::Key;
    let value = RecordField::Value;
    let truncated = |field, need, have| RecordError::Truncated { field, need, have };
    let negative = |field, length| RecordError::Length { field, length };
    assert_eq!(record_error(&[12, 0, 0, 0, 3, 1, 0]), negative(key, -2));
    assert_eq!(record_error(&[12, 0, 0, 0, 6, 1, 0]), truncated(key, 3, 2));
    assert_eq!(record_error(&[12, 0, 0, 0, 1, 3, 0]), negative(value, -2));
    assert_eq!(
        record_error(&[12, 0, 0, 0, 1, 4, 0]),
        truncated(value, 2, 1)
    );
    let huge = [20, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0];
    assert_eq!(record_error(&huge), truncated(key, 2_147_483_647, 2));
}

#[test]
fn header_bombs_and_lies() {
    let field = RecordField::HeadersCount;
    assert_eq!(
        record_error(&[12, 0, 0, 0, 1, 1, 1]),
        RecordError::Length { field, length: -1 }
    );
    let bomb = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let too_many = RecordError::TooManyHeaders {
        count: 2_147_483_647,
        limit: 64,
    };
    assert_eq!(record_error(&bomb), too_many);
    // Even without the limit the count is believed only as far as the bytes go.
    let lie = of_record(&bomb);
    let refused = RecordBatch::parse(
        &lie,
        &BatchLimits {
            headers_per_record_max: u32::MAX,
            ..BatchLimits::default()
        },
    );
    let field = RecordField::HeaderKey;
    let error = RecordError::Varint { field };
    assert_eq!(
        refused.expect_err("no header is there"),
        BatchError::Record { index: 0, error }
    );
    assert_eq!(
        record_error(&[16, 0, 0, 0, 1, 1, 2, 1, 0]),
        RecordError::Length { field, length: -1 }
    );
    let field = RecordField::HeaderValue;
    assert_eq!(
        record_error(&[16, 0, 0, 0, 1, 1, 2, 0, 3]),
        RecordError::Length { field, length: -2 }
    );
}

#[test]
fn offset_deltas_out_of_order_or_range() {
    let one = |delta: u8| record_error(&[12, 0, 0, delta, 1, 1, 0]);
    let wrong = |delta| RecordError::OffsetDelta {
        delta,
        least: 0,
        last: 0,
    };
    assert_eq!(one(1), wrong(-1));
    assert_eq!(one(2), wrong(1));
    // The second record's delta is its fourth byte; 0 is the first one's.
    let second = batch(Compression::None).len() - 7 + 3;
    let expected = BatchError::Record {
        index: 1,
        error: RecordError::OffsetDelta {
            delta: 0,
            least: 1,
            last: 1,
        },
    };
    assert_eq!(error(&lying(second, &[0])), expected);
}

#[test]
fn timestamps_without_a_sum() {
    let expected = RecordError::Timestamp {
        delta: 1,
        base: i64::MAX,
    };
    let lie = lying(27, &i64::MAX.to_be_bytes());
    let BatchError::Record { index: 1, error } = error(&lie) else {
        panic!("another error");
    };
    assert_eq!(error, expected);
}

#[test]
fn a_lie_within_compressed_records_is_told_on_reading() {
    let limits = BatchLimits::default();
    for compression in &Compression::ALL[1..] {
        let mut bytes = batch(*compression);
        bytes[RECORDS..].fill(0xff);
        let bytes = signed(bytes);
        let batch = RecordBatch::parse(&bytes, &limits).expect("payloads are not opened");
        let read = batch.records(&limits);
        let malformed = matches!(
            read,
            Err(BatchError::Decompress {
                error: DecompressError::Malformed { .. },
                ..
            })
        );
        assert!(malformed, "{compression}: {read:?}");
    }
}

#[test]
fn a_compressed_batch_that_claims_other_records() {
    let mut bytes = batch(Compression::Zstd);
    bytes[57..61].copy_from_slice(&[0, 0, 0, 1]);
    let bytes = signed(bytes);
    let limits = BatchLimits::default();
    let batch = RecordBatch::parse(&bytes, &limits).expect("payloads are not opened");
    let records = batch.records(&limits).expect("they decompress");
    let mut records = records.iter();
    assert!(matches!(records.next(), Some(Ok(_))));
    let end = BatchError::TrailingBytes { bytes: 7, count: 1 };
    assert_eq!(records.next(), Some(Err(end)));
    assert_eq!(records.next(), None);
}

#[test]
fn what_clients_may_not_send() {
    let check = |bytes: Vec<u8>, expected: ProducedBatchError| {
        let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("well formed");
        assert_eq!(batch.check_produced(), Err(expected));
    };
    check(lying(22, &[0x20]), ProducedBatchError::Control);
    check(lying(22, &[0x40]), ProducedBatchError::DeleteHorizon);
    check(lying(22, &[0x08]), ProducedBatchError::LogAppendTime);
    let base_offset = ProducedBatchError::BaseOffset { base_offset: 9 };
    check(lying(7, &[9]), base_offset);
    let gaps = ProducedBatchError::Gaps {
        count: 2,
        offsets: 10,
    };
    check(lying(26, &[9]), gaps);
    let transactional = ProducedBatchError::TransactionalWithoutProducer;
    check(lying(22, &[0x10]), transactional);
    let mut empty = lying(57, &[0; 4]);
    empty.truncate(RECORDS);
    empty[8..12].copy_from_slice(&49_i32.to_be_bytes());
    check(signed(empty), ProducedBatchError::Empty);
}

#[test]
fn producers_need_epoch_and_sequence() {
    for (epoch, sequence) in [(-1, 0), (0, -1), (i16::MIN, i32::MIN)] {
        let mut builder = RecordBatchBuilder::new(Compression::None, 1000);
        builder.set_producer(ProducerStamp {
            producer_id: 5,
            producer_epoch: epoch,
            base_sequence: sequence,
        });
        builder.append(0, None, None, &[]).expect("it fits");
        let bytes = builder.seal().expect("not empty");
        let batch = RecordBatch::parse(&bytes, &BatchLimits::default()).expect("well formed");
        let expected = ProducedBatchError::Sequence {
            producer_id: 5,
            producer_epoch: epoch,
            base_sequence: sequence,
        };
        assert_eq!(batch.producer(), None);
        assert_eq!(batch.check_produced(), Err(expected));
    }
}

/// A buffer that knows its sums is believed no more than one that does not.
#[test]
fn a_batch_that_was_summed_while_it_came_is_checked_alike() {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    for number in 0..150_u8 {
        let value = [number; 1024];
        builder.append(1000, None, Some(&value), &[]).expect("fits");
    }
    let whole = builder.seal().expect("not empty");
    let received = |bytes: &[u8]| {
        let mut writer = BufferMut::unpooled(bytes.len() + 100, 4096);
        writer.extend_from_slice(&[0xA5; 100]);
        for piece in bytes.chunks(10_000) {
            writer.extend_from_slice(piece);
            writer.sum_written();
        }
        writer.freeze().slice(100..)
    };
    let limits = BatchLimits::default();
    let buffer = received(&whole);
    let batch = RecordBatch::parse_buffer(&buffer, &limits).expect("valid");
    assert_eq!(batch.as_bytes(), whole);
    for at in [30, 61, 32_667, 32_668, 70_000, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let error = RecordBatch::parse_buffer(&received(&flipped), &limits).expect_err("flipped");
        assert_eq!(
            error,
            RecordBatch::parse(&flipped, &limits).expect_err("flipped")
        );
        assert!(matches!(error, BatchError::Crc { .. }), "{at}: {error}");
    }
}

//! Record batches, plain and compressed.

use highwater_record::{
    BATCH_HEADER_BYTES, BatchError, BatchLimits, Compression, LeaderEpoch, Offset, RecordBatch,
    SplitBatches, body_crc, crc32c, stamp,
};

use super::memory::{self, SMALL};

/// Where a batch's CRC begins, and where what it is of.
const CRC: usize = 17;
const SUMMED: usize = 21;

/// A row of batches; then once more, with a checksum for the first that holds.
pub(crate) fn batches(data: &[u8]) {
    let limits = BatchLimits {
        decompressed_bytes_max: 1 << 20,
        ..BatchLimits::default()
    };
    row(data, &limits);
    row(&signed(data.to_vec()), &limits);
}

fn row(row: &[u8], limits: &BatchLimits) {
    let mut split = SplitBatches::new(row);
    let mut seen = 0;
    for batch in split.by_ref().map_while(Result::ok) {
        seen += batch.len();
        let parsed = memory::at_most(SMALL, "a batch", || RecordBatch::parse(batch, limits));
        let Ok(parsed) = parsed else { continue };
        assert_eq!(parsed.as_bytes(), batch);
        let _ = (parsed.check_produced(), parsed.producer());
        is_stamped(batch, limits);
        let _ = read(batch, limits);
    }
    assert_eq!(seen + split.remainder().len(), row.len());
}

/// What stands outside of the checksum can be set, and the whole's sum follows.
fn is_stamped(batch: &[u8], limits: &BatchLimits) {
    let epoch = LeaderEpoch::new(7).expect("small");
    let mut stamped = batch.to_vec();
    stamp(&mut stamped, Offset(9), epoch);
    let parsed = RecordBatch::parse(&stamped, limits).expect("the records are the same");
    assert_eq!(parsed.base_offset(), Offset(9));
    assert_eq!(parsed.leader_epoch(), Some(epoch));
    let (front, rest) = stamped.split_first_chunk().expect("a header");
    assert_eq!(body_crc(front, parsed.crc(), rest.len()), crc32c(&stamped));
}

/// Goes through a batch's records; gives how many there are.
pub(crate) fn read(batch: &[u8], limits: &BatchLimits) -> Result<u32, BatchError> {
    let batch = RecordBatch::parse(batch, limits)?;
    let records = batch.records(limits)?;
    let mut count = 0;
    let mut next = 0;
    for record in &records {
        let record = record?;
        assert!(record.offset_delta >= next, "offsets ascend");
        assert!(record.offset_delta <= batch.last_offset_delta());
        assert_eq!(record.headers.iter().count(), record.headers.len());
        next = record.offset_delta + 1;
        count += 1;
    }
    assert_eq!(count, batch.records_count(), "all are there");
    Ok(count)
}

fn signed(mut batch: Vec<u8>) -> Vec<u8> {
    let end = batch.first_chunk::<12>().map(|front| {
        let length = i32::from_be_bytes([front[8], front[9], front[10], front[11]]);
        usize::try_from(length)
            .unwrap_or(0)
            .saturating_add(12)
            .min(batch.len())
    });
    if let Some(end) = end.filter(|end| *end > SUMMED) {
        let crc = crc32c(&batch[SUMMED..end]);
        batch[CRC..SUMMED].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

pub(crate) fn gzip(data: &[u8]) {
    compressed(Compression::Gzip, data);
}

pub(crate) fn snappy(data: &[u8]) {
    compressed(Compression::Snappy, data);
}

pub(crate) fn lz4(data: &[u8]) {
    compressed(Compression::Lz4, data);
}

pub(crate) fn zstd(data: &[u8]) {
    compressed(Compression::Zstd, data);
}

/// What comes out of a batch at most, in bytes.
const OUTPUT_MAX: usize = 1 << 20;

/// LZ4's largest blocks: one compressed, one not, and the window before it.
const DECODER_BYTES: usize = 9 << 20;

/// The first two bytes are how many records there are said to be, the rest is what they are
/// compressed to. Never more comes out than may, and memory is taken for what comes out.
fn compressed(codec: Compression, data: &[u8]) {
    let Some((&count, payload)) = data.split_first_chunk() else {
        return;
    };
    let count = i32::from(u16::from_le_bytes(count)).max(1);
    let batch = batch_of(codec, count, payload);
    let limits = BatchLimits {
        decompressed_bytes_max: OUTPUT_MAX,
        zstd_window_log_max: 20,
        ..BatchLimits::default()
    };
    let parsed = RecordBatch::parse(&batch, &limits);
    let Ok(parsed) = parsed else { return };
    // A list that grows is there twice for a moment, three times with the one that replaces it.
    let bound = 3 * OUTPUT_MAX + DECODER_BYTES + SMALL;
    let out = memory::at_most(bound, "a decoder", || parsed.decompressed(&limits));
    if let Ok(out) = out {
        assert!(out.len() <= OUTPUT_MAX, "{} bytes came out", out.len());
    }
    let _ = read(&batch, &limits);
}

/// A batch around a payload.
fn batch_of(codec: Compression, count: i32, payload: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch.extend_from_slice(payload);
    let length = i32::try_from(batch.len() - 12).expect("inputs are small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[12..17].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 2]);
    batch[22] = codec.codec();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[43..57].fill(0xff);
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    signed(batch)
}

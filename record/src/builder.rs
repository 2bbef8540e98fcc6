//! Making batches, as producers do.

use crate::compression::{Compression, compress};
use crate::crc::crc32c;
use crate::header::ProducerStamp;
use crate::layout::{
    ATTRIBUTES, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_HEADER_BYTES, BATCH_LENGTH,
    BATCH_OVERHEAD_BYTES, BATCH_PREFIX_BYTES, CRC, LAST_OFFSET_DELTA, LEADER_EPOCH, MAGIC,
    MAGIC_AT, MAX_TIMESTAMP, PRODUCER_EPOCH, PRODUCER_ID, RECORDS_COUNT, TRANSACTIONAL,
};
use crate::record::Header;
use crate::varint::{put_varint, put_varlong, varint_len, varlong_len};

/// The most bytes of a batch: its length field is an `i32`.
const BATCH_BYTES_CEILING: usize = 1 << 30;

/// By how much a batch's room grows. What is not used is given back when it is sealed.
const GROWTH: usize = 8;

/// Collects records and seals them as a batch.
///
/// ```
/// use highwater_record::{Compression, Header, RecordBatchBuilder};
///
/// let mut builder = RecordBatchBuilder::new(Compression::Lz4, 16 << 10);
/// let headers = [Header::new("trace", Some(b"1")), Header::new("trace", Some(b"2"))];
/// builder.append(1_700_000_000_000, Some(b"UA"), Some(b"UA,1545,N14228"), &headers)?;
/// assert_eq!(builder.records_count(), 1);
/// let batch: Vec<u8> = builder.seal()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RecordBatchBuilder {
    compression: Compression,
    bytes_max: usize,
    /// The header's place, filled when sealed, and the records, not compressed.
    bytes: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<ProducerStamp>,
    transactional: bool,
}

/// Why a record was not taken. The batch is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The batch would pass its size. Seal it and begin another; if it is empty, the record
    /// is too large for any.
    #[error("batch would have {bytes} bytes; at most {limit} are allowed")]
    Full {
        /// What the uncompressed batch would have with the record.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The timestamp is too far from the first record's to write the difference.
    #[error("timestamp {timestamp} is too far from the batch's first, {base}")]
    Timestamp {
        /// The record's, in milliseconds.
        timestamp: i64,
        /// The first record's.
        base: i64,
    },
}

/// Why a batch could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There are no records in it.
    #[error("a batch without records cannot be sealed")]
    Empty,
    /// The codec failed; in memory that can only be a lack of it.
    #[error("cannot compress the batch with {codec}")]
    Compress {
        /// The codec.
        codec: Compression,
        /// What its library says.
        source: std::io::Error,
    },
}

impl RecordBatchBuilder {
    /// An empty batch of at most `bytes_max` bytes, header and all, before compression (at
    /// most 1 GiB).
    #[must_use]
    pub fn new(compression: Compression, bytes_max: usize) -> RecordBatchBuilder {
        RecordBatchBuilder {
            compression,
            bytes_max: bytes_max.min(BATCH_BYTES_CEILING),
            bytes: vec![0; BATCH_HEADER_BYTES],
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer: None,
            transactional: false,
        }
    }

    /// Makes the batch idempotent: who sends it and where in the sequence it stands.
    pub fn set_producer(&mut self, producer: ProducerStamp) {
        self.producer = Some(producer);
    }

    /// Makes the batch part of the producer's transaction.
    pub fn set_transactional(&mut self, transactional: bool) {
        self.transactional = transactional;
    }

    /// Adds a record with `timestamp` in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the batch is as it was then.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), AppendError> {
        let base = match self.count {
            0 => timestamp,
            _ => self.base_timestamp,
        };
        let timestamp_delta = timestamp
            .checked_sub(base)
            .ok_or(AppendError::Timestamp { timestamp, base })?;
        let content = Content {
            timestamp_delta,
            offset_delta: self.count,
            key,
            value,
            headers,
        };
        let record_bytes = content.total_len();
        self.admit(record_bytes)?;
        self.make_room(record_bytes);
        content.put(&mut self.bytes);
        self.max_timestamp = match self.count {
            0 => timestamp,
            _ => self.max_timestamp.max(timestamp),
        };
        self.base_timestamp = base;
        self.count += 1;
        Ok(())
    }

    fn admit(&self, record_bytes: usize) -> Result<(), AppendError> {
        let bytes = self.bytes.len().saturating_add(record_bytes);
        let limit = self.bytes_max;
        match bytes <= limit {
            true => Ok(()),
            false => Err(AppendError::Full { bytes, limit }),
        }
    }

    /// Makes room for an admitted record. Large batches get all that they may take before long:
    /// doubling would copy each of their bytes once more.
    fn make_room(&mut self, record_bytes: usize) {
        let needed = self.bytes.len() + record_bytes;
        if needed <= self.bytes.capacity() {
            return;
        }
        let next = self.bytes.capacity().saturating_mul(GROWTH).max(needed);
        let room = match next < self.bytes_max / 2 {
            true => next,
            false => self.bytes_max,
        };
        self.bytes.reserve_exact(room - self.bytes.len());
    }

    /// How many records there are.
    #[must_use]
    pub fn records_count(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the batch as it is now, before compression.
    #[must_use]
    pub fn size_uncompressed(&self) -> usize {
        self.bytes.len()
    }

    /// At most how many bytes [`append`](RecordBatchBuilder::append) would add for a record of
    /// these: exact but for the deltas, which are taken at their widest.
    #[must_use]
    pub fn size_estimate(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> usize {
        Content {
            timestamp_delta: i64::MIN,
            offset_delta: u32::MAX >> 1,
            key,
            value,
            headers,
        }
        .total_len()
    }

    /// Compresses the records, writes the header and gives the whole batch: base offset 0,
    /// leader epoch -1, as brokers expect it.
    ///
    /// # Errors
    ///
    /// [`SealError`].
    pub fn seal(mut self) -> Result<Vec<u8>, SealError> {
        if self.is_empty() {
            return Err(SealError::Empty);
        }
        let codec = self.compression;
        if codec != Compression::None {
            let records = self.bytes.split_off(BATCH_HEADER_BYTES);
            compress(codec, &records, &mut self.bytes)
                .map_err(|source| SealError::Compress { codec, source })?;
        }
        self.write_header();
        if self.bytes.capacity() / 2 > self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        Ok(self.bytes)
    }

    fn write_header(&mut self) {
        let length = signed(self.bytes.len() - BATCH_OVERHEAD_BYTES);
        let last_offset_delta = (self.count - 1).cast_signed();
        let attributes = self.attributes();
        let producer = self.producer.unwrap_or(ProducerStamp {
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        });
        let bytes = &mut self.bytes[..];
        bytes[BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
        bytes[LEADER_EPOCH].copy_from_slice(&(-1_i32).to_be_bytes());
        bytes[MAGIC_AT] = MAGIC;
        bytes[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
        bytes[LAST_OFFSET_DELTA].copy_from_slice(&last_offset_delta.to_be_bytes());
        bytes[BASE_TIMESTAMP].copy_from_slice(&self.base_timestamp.to_be_bytes());
        bytes[MAX_TIMESTAMP].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[PRODUCER_ID].copy_from_slice(&producer.producer_id.to_be_bytes());
        bytes[PRODUCER_EPOCH].copy_from_slice(&producer.producer_epoch.to_be_bytes());
        bytes[BASE_SEQUENCE].copy_from_slice(&producer.base_sequence.to_be_bytes());
        bytes[RECORDS_COUNT].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32c(&bytes[BATCH_PREFIX_BYTES..]);
        bytes[CRC].copy_from_slice(&crc.to_be_bytes());
    }

    fn attributes(&self) -> i16 {
        let codec = i16::from(self.compression.codec());
        match self.transactional {
            true => codec | TRANSACTIONAL,
            false => codec,
        }
    }
}

/// A record about to be written.
struct Content<'a> {
    timestamp_delta: i64,
    offset_delta: u32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [Header<'a>],
}

impl Content<'_> {
    /// Without the length in front.
    fn len(&self) -> usize {
        let headers = self.headers.iter().map(|header| {
            nullable_len(Some(header.key)).saturating_add(nullable_len(header.value))
        });
        let fixed = 1
            + varlong_len(self.timestamp_delta)
            + varlong_len(self.offset_delta.into())
            + usize_len(self.headers.len());
        [nullable_len(self.key), nullable_len(self.value)]
            .into_iter()
            .chain(headers)
            .fold(fixed, usize::saturating_add)
    }

    fn total_len(&self) -> usize {
        let len = self.len();
        len.saturating_add(usize_len(len))
    }

    /// Writes it. The batch's limit was checked, so every length is below 2^31.
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, signed(self.len()));
        out.push(0);
        put_varlong(out, self.timestamp_delta);
        put_varlong(out, self.offset_delta.into());
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        put_varint(out, signed(self.headers.len()));
        for header in self.headers {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, signed(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varint_len(-1),
        Some(bytes) => bytes.len().saturating_add(usize_len(bytes.len())),
    }
}

fn usize_len(len: usize) -> usize {
    varlong_len(i64::try_from(len).unwrap_or(i64::MAX))
}

fn signed(len: usize) -> i32 {
    i32::try_from(len).expect("a batch's bytes are bounded by BATCH_BYTES_CEILING")
}

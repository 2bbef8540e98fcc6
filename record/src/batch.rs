//! Batches as they lie in memory: found, checked, read.

use std::borrow::Cow;
use std::ops::{Deref, Range};

use crate::buffer::Buffer;
use crate::compression::{Compression, decompress};
use crate::crc::crc32c;
use crate::error::BatchError;
use crate::header::{BatchHeader, total_bytes};
use crate::layout::{BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES};
use crate::limits::BatchLimits;
use crate::record::RecordIter;

/// A whole, checked batch, lying in somebody else's bytes. Reads as its [`BatchHeader`].
///
/// ```
/// use highwater_record::{BatchLimits, Compression, RecordBatch, RecordBatchBuilder};
///
/// let mut builder = RecordBatchBuilder::new(Compression::Zstd, 1 << 20);
/// builder.append(1_700_000_000_000, Some(b"key"), Some(b"value"), &[])?;
/// let bytes = builder.seal()?;
///
/// let limits = BatchLimits::default();
/// let batch = RecordBatch::parse(&bytes, &limits)?;
/// assert_eq!(batch.records_count(), 1);
/// for record in &batch.records(&limits)? {
///     assert_eq!(record?.value, Some(&b"value"[..]));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RecordBatch<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
    records_max_timestamp: Option<i64>,
}

impl<'a> RecordBatch<'a> {
    /// Checks the batch at the front of `bytes`; what follows it is not looked at.
    ///
    /// Every length is checked, then the CRC, then, unless they are compressed, each record.
    /// Compressed records are opened by [`records`](RecordBatch::records) only. One pass over
    /// the bytes, and one over the records' small fields.
    ///
    /// # Errors
    ///
    /// [`BatchError`] says what is wrong; [`BatchError::Truncated`] that bytes are missing.
    pub fn parse(bytes: &'a [u8], limits: &BatchLimits) -> Result<RecordBatch<'a>, BatchError> {
        RecordBatch::parse_summed(bytes, limits, |range| crc32c(&bytes[range]))
    }

    /// As [`parse`](RecordBatch::parse), where a buffer may [know its
    /// sums](Buffer::crc32c): no pass over the bytes then.
    ///
    /// # Errors
    ///
    /// As [`parse`](RecordBatch::parse).
    pub fn parse_buffer(
        buffer: &'a Buffer,
        limits: &BatchLimits,
    ) -> Result<RecordBatch<'a>, BatchError> {
        RecordBatch::parse_summed(buffer, limits, |range| buffer.slice(range).crc32c())
    }

    fn parse_summed(
        bytes: &'a [u8],
        limits: &BatchLimits,
        sum: impl FnOnce(Range<usize>) -> u32,
    ) -> Result<RecordBatch<'a>, BatchError> {
        let total = total_bytes(bytes)?;
        if total > limits.batch_bytes_max {
            return Err(BatchError::TooLarge {
                bytes: total,
                limit: limits.batch_bytes_max,
            });
        }
        let bytes = bytes.get(..total).ok_or(BatchError::Truncated {
            have: bytes.len(),
            need: total,
        })?;
        let header = BatchHeader::read(bytes)?;
        let computed = sum(BATCH_PREFIX_BYTES..total);
        if computed != header.crc() {
            return Err(BatchError::Crc {
                stored: header.crc(),
                computed,
            });
        }
        let mut batch = RecordBatch {
            bytes,
            header,
            records_max_timestamp: None,
        };
        if header.compression() == Compression::None {
            batch.records_max_timestamp = batch.walk(limits)?;
        }
        Ok(batch)
    }

    fn walk(&self, limits: &BatchLimits) -> Result<Option<i64>, BatchError> {
        let mut latest = None;
        for record in self.records_in(self.body(), limits) {
            latest = latest.max(Some(record?.timestamp));
        }
        Ok(latest)
    }

    /// The whole batch.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records as they lie there, compressed or not.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }

    /// The largest timestamp among the records, for comparison with the header's claim; nothing
    /// if the records are compressed, hence not seen, or if there are none.
    #[must_use]
    pub fn records_max_timestamp(&self) -> Option<i64> {
        self.records_max_timestamp
    }

    /// The records, decompressed if need be within `limits`.
    ///
    /// # Errors
    ///
    /// [`BatchError::Decompress`]. That each record is well formed is said by the iterator.
    pub fn records(&self, limits: &BatchLimits) -> Result<Records<'a>, BatchError> {
        Ok(Records {
            header: self.header,
            body: self.decompressed(limits)?,
            limits: *limits,
        })
    }

    /// The records' bytes, decompressed if need be within `limits`: for those who want to own
    /// them and go through them with [`records_in`](RecordBatch::records_in).
    ///
    /// # Errors
    ///
    /// [`BatchError::Decompress`].
    pub fn decompressed(&self, limits: &BatchLimits) -> Result<Cow<'a, [u8]>, BatchError> {
        let codec = self.header.compression();
        if codec == Compression::None {
            return Ok(Cow::Borrowed(self.body()));
        }
        decompress(codec, self.body(), limits)
            .map(Cow::Owned)
            .map_err(|error| BatchError::Decompress { codec, error })
    }

    /// Goes through the records in `body`, this batch's decompressed bytes.
    #[must_use]
    pub fn records_in<'b>(&self, body: &'b [u8], limits: &BatchLimits) -> RecordIter<'b> {
        RecordIter::new(&self.header, body, limits.headers_per_record_max)
    }
}

impl Deref for RecordBatch<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

/// The records of a batch, with the memory they were decompressed into, if they were.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
    limits: BatchLimits,
}

impl Records<'_> {
    /// Goes through them, checking each.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.header, &self.body, self.limits.headers_per_record_max)
    }

    /// The largest timestamp, seen in the records themselves; nothing if there are none.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if a record is broken.
    pub fn max_timestamp(&self) -> Result<Option<i64>, BatchError> {
        self.iter().try_fold(None, |latest: Option<i64>, record| {
            Ok(latest.max(Some(record?.timestamp)))
        })
    }
}

impl<'r> IntoIterator for &'r Records<'_> {
    type Item = <RecordIter<'r> as Iterator>::Item;
    type IntoIter = RecordIter<'r>;

    fn into_iter(self) -> RecordIter<'r> {
        self.iter()
    }
}

/// Cuts batches in a row (a Produce request's or Fetch response's records) at their borders,
/// by their length fields only: each piece is to be [parsed](RecordBatch::parse).
///
/// It ends before a last batch that is not there whole, which Fetch responses may have;
/// [`remainder`](SplitBatches::remainder) gives it. After an error it ends too.
///
/// ```
/// use highwater_record::{Compression, RecordBatchBuilder, SplitBatches};
///
/// let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
/// builder.append(0, None, Some(b"value"), &[])?;
/// let batch = builder.seal()?;
/// let row = [&batch[..], &batch[..], &batch[..20]].concat();
///
/// let mut split = SplitBatches::new(&row);
/// assert_eq!(split.next(), Some(Ok(&batch[..])));
/// assert_eq!(split.next(), Some(Ok(&batch[..])));
/// assert_eq!(split.next(), None);
/// assert_eq!(split.remainder(), &batch[..20]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SplitBatches<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> SplitBatches<'a> {
    /// Begins at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> SplitBatches<'a> {
        SplitBatches {
            rest: bytes,
            failed: false,
        }
    }

    /// What has not been given out: after the end, a batch that is not there whole, or what
    /// could not be cut.
    #[must_use]
    pub fn remainder(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for SplitBatches<'a> {
    type Item = Result<&'a [u8], BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match total_bytes(self.rest) {
            Ok(total) => {
                let (batch, rest) = self.rest.split_at_checked(total)?;
                self.rest = rest;
                Some(Ok(batch))
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for SplitBatches<'_> {}

/// As [`SplitBatches`], but of refcounted pieces. A last batch that is not whole is left out.
pub fn split_buffer(buffer: &Buffer) -> impl Iterator<Item = Result<Buffer, BatchError>> {
    let mut split = SplitBatches::new(buffer);
    std::iter::from_fn(move || {
        let batch = split.next()?;
        let end = buffer.len() - split.remainder().len();
        Some(batch.map(|batch| buffer.slice(end - batch.len()..end)))
    })
}

//! Single records and the way through a row of them.

use crate::error::{BatchError, RecordError, RecordField};
use crate::header::{BatchHeader, TimestampType};
use crate::varint::{take_varint, take_varlong};

/// A header of a record: user's metadata. Keys may repeat, and the order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key, text by convention.
    pub key: &'a [u8],
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a text key.
    #[must_use]
    pub fn new(key: &'a str, value: Option<&'a [u8]>) -> Header<'a> {
        Header {
            key: key.as_bytes(),
            value,
        }
    }

    /// The key as text, if it is.
    #[must_use]
    pub fn key_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

/// The headers of a record, in order, checked when the record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.count).expect("each takes bytes in memory")
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, duplicates too.
    pub fn iter(&self) -> HeadersIter<'a> {
        HeadersIter { headers: *self }
    }

    /// The value of the last header with this key, as Kafka's `lastHeader` gives it.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<Header<'a>> {
        let named = |header: &Header<'_>| header.key == key.as_bytes();
        self.iter().filter(named).last()
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// Goes through [`Headers`].
#[derive(Debug, Clone)]
pub struct HeadersIter<'a> {
    headers: Headers<'a>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.headers.count = self.headers.count.checked_sub(1)?;
        let header = take_header(&mut self.headers.bytes);
        Some(header.expect("headers are checked when their record is"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.headers.len(), Some(self.headers.len()))
    }
}

impl ExactSizeIterator for HeadersIter<'_> {}

/// A record, lying in its (decompressed) batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's offset minus the batch's base offset.
    pub offset_delta: u32,
    /// Milliseconds since the Unix epoch; -1 if there is none. The batch's max timestamp if
    /// that is of type LogAppendTime.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone, in compacted topics).
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Headers<'a>,
}

/// Goes through the uncompressed records of a batch, checking each. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    count: u32,
    /// Index of the next record; past `count` once the end was checked or an error was given.
    index: u32,
    least_offset_delta: u32,
    last_offset_delta: u32,
    base_timestamp: i64,
    /// Set if it replaces the records' own timestamps.
    append_time: Option<i64>,
    headers_max: u32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    pub(crate) fn new(header: &BatchHeader, body: &'a [u8], headers_max: u32) -> RecordIter<'a> {
        let append_time = match header.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp()),
        };
        RecordIter {
            rest: body,
            count: header.records_count(),
            index: 0,
            least_offset_delta: 0,
            last_offset_delta: header.last_offset_delta(),
            base_timestamp: header.base_timestamp(),
            append_time,
            headers_max,
            done: false,
        }
    }

    /// Like the iterator, with the end as `Ok(None)`.
    fn advance(&mut self) -> Result<Option<Record<'a>>, BatchError> {
        if self.index == self.count {
            return match self.rest.len() {
                0 => Ok(None),
                bytes => Err(BatchError::TrailingBytes {
                    bytes,
                    count: self.count,
                }),
            };
        }
        let index = self.index;
        let record = self
            .take_record()
            .map_err(|error| BatchError::Record { index, error })?;
        self.index += 1;
        self.least_offset_delta = record.offset_delta + 1;
        Ok(Some(record))
    }

    fn take_record(&mut self) -> Result<Record<'a>, RecordError> {
        let length = take_length(&mut self.rest, RecordField::Length)?;
        let mut rest = take_bytes(&mut self.rest, length, RecordField::Length)?;
        // The attributes byte means nothing and, as in Kafka, is not looked at.
        take_bytes(&mut rest, 1, RecordField::Attributes)?;
        let timestamp = self.timestamp(&mut rest)?;
        let offset_delta = self.offset_delta(&mut rest)?;
        let key = take_nullable(&mut rest, RecordField::Key)?;
        let value = take_nullable(&mut rest, RecordField::Value)?;
        let headers = self.headers(&mut rest)?;
        match rest.len() {
            0 => Ok(Record {
                offset_delta,
                timestamp,
                key,
                value,
                headers,
            }),
            bytes => Err(RecordError::TrailingBytes { bytes }),
        }
    }

    fn timestamp(&self, rest: &mut &[u8]) -> Result<i64, RecordError> {
        let field = RecordField::TimestampDelta;
        let delta = take_varlong(rest).ok_or(RecordError::Varint { field })?;
        let base = self.base_timestamp;
        let own = base.checked_add(delta);
        let own = own.ok_or(RecordError::Timestamp { delta, base })?;
        Ok(self.append_time.unwrap_or(own))
    }

    fn offset_delta(&self, rest: &mut &[u8]) -> Result<u32, RecordError> {
        let field = RecordField::OffsetDelta;
        let delta = take_varint(rest).ok_or(RecordError::Varint { field })?;
        let (least, last) = (self.least_offset_delta, self.last_offset_delta);
        u32::try_from(delta)
            .ok()
            .filter(|delta| (least..=last).contains(delta))
            .ok_or(RecordError::OffsetDelta { delta, least, last })
    }

    fn headers(&self, rest: &mut &'a [u8]) -> Result<Headers<'a>, RecordError> {
        let field = RecordField::HeadersCount;
        let claimed = take_varint(rest).ok_or(RecordError::Varint { field })?;
        let count = u32::try_from(claimed).map_err(|_| RecordError::Length {
            field,
            length: claimed,
        })?;
        if count > self.headers_max {
            return Err(RecordError::TooManyHeaders {
                count,
                limit: self.headers_max,
            });
        }
        let bytes = *rest;
        for _ in 0..count {
            take_header(rest)?;
        }
        let bytes = &bytes[..bytes.len() - rest.len()];
        Ok(Headers { bytes, count })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

fn take_header<'a>(rest: &mut &'a [u8]) -> Result<Header<'a>, RecordError> {
    let key_length = take_length(rest, RecordField::HeaderKey)?;
    Ok(Header {
        key: take_bytes(rest, key_length, RecordField::HeaderKey)?,
        value: take_nullable(rest, RecordField::HeaderValue)?,
    })
}

#[inline]
fn take_length(rest: &mut &[u8], field: RecordField) -> Result<usize, RecordError> {
    let length = take_varint(rest).ok_or(RecordError::Varint { field })?;
    usize::try_from(length).map_err(|_| RecordError::Length { field, length })
}

#[inline]
fn take_bytes<'a>(
    rest: &mut &'a [u8],
    need: usize,
    field: RecordField,
) -> Result<&'a [u8], RecordError> {
    let have = rest.len();
    let (taken, left) =
        rest.split_at_checked(need)
            .ok_or(RecordError::Truncated { field, need, have })?;
    *rest = left;
    Ok(taken)
}

#[inline]
fn take_nullable<'a>(
    rest: &mut &'a [u8],
    field: RecordField,
) -> Result<Option<&'a [u8]>, RecordError> {
    match take_varint(rest).ok_or(RecordError::Varint { field })? {
        -1 => Ok(None),
        length => {
            let length =
                usize::try_from(length).map_err(|_| RecordError::Length { field, length })?;
            take_bytes(rest, length, field).map(Some)
        }
    }
}

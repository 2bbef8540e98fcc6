//! Kafka's primitive types over bytes: a bounded reader and a writer.
//!
//! Types as in the protocol guide (<https://kafka.apache.org/protocol#protocol_types>): integers
//! are big-endian; a *flexible* version writes lengths as unsigned varints of length + 1 (0 is
//! null) and closes each structure with tagged fields, an older one writes INT16 or INT32
//! lengths (-1 is null).

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::DecodeError;

/// Elements of arrays that one request may hold, over all its arrays.
///
/// A decoded element is one to two hundred bytes large while two bytes can announce it, so this
/// bounds what a request decodes to (about 16 MiB), beside the length of its frame.
pub const REQUEST_ELEMENTS_MAX: usize = 65_536;

/// Elements of arrays that one response may hold: the metadata of a large cluster fits.
pub const RESPONSE_ELEMENTS_MAX: usize = 4_194_304;

/// Unknown tagged fields that one message may hold. Real clients send none.
pub const TAGGED_FIELDS_MAX: usize = 1_024;

/// The number of tagged fields, as an UNSIGNED_VARINT, of a structure that has none.
const NO_TAGGED_FIELDS: u8 = 0;

/// What a message may still hold; every array and every tagged field is charged before anything
/// is allocated for it.
#[derive(Debug)]
pub(crate) struct Allowance {
    elements: usize,
    elements_max: usize,
    tagged_fields: usize,
}

impl Allowance {
    pub(crate) const fn request() -> Self {
        Self::new(REQUEST_ELEMENTS_MAX)
    }

    pub(crate) const fn response() -> Self {
        Self::new(RESPONSE_ELEMENTS_MAX)
    }

    const fn new(elements_max: usize) -> Self {
        Self {
            elements: elements_max,
            elements_max,
            tagged_fields: TAGGED_FIELDS_MAX,
        }
    }

    fn charge_elements(&mut self, count: usize) -> Result<(), DecodeError> {
        self.elements = self
            .elements
            .checked_sub(count)
            .ok_or(DecodeError::TooManyElements {
                elements_max: self.elements_max,
            })?;
        Ok(())
    }

    fn charge_tagged_field(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields =
            self.tagged_fields
                .checked_sub(1)
                .ok_or(DecodeError::TooManyTaggedFields {
                    tagged_fields_max: TAGGED_FIELDS_MAX,
                })?;
        Ok(())
    }
}

/// Reads a message front to back and never beyond its end. Positions in errors count from the
/// start of the slice it was made with.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    flexible: bool,
    allowance: Allowance,
    /// Where tagged fields lie, with their number: one range a structure that has any, at most
    /// [`TAGGED_FIELDS_MAX`].
    tagged: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize, flexible: bool, allowance: Allowance) -> Self {
        Self {
            bytes,
            at,
            flexible,
            allowance,
            tagged: Vec::new(),
        }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Passes over `count` bytes and says where they lie.
    pub(crate) fn take(&mut self, count: usize) -> Result<Range<usize>, DecodeError> {
        if count > self.remaining() {
            return Err(DecodeError::Truncated {
                at: self.at,
                needed: count,
                remaining: self.remaining(),
            });
        }
        let range = self.at..self.at + count;
        self.at += count;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let range = self.take(N)?;
        Ok(self.bytes[range]
            .try_into()
            .expect("take returns a range of the length asked for"))
    }

    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// An UNSIGNED_VARINT: seven bits a byte, low ones first, at most five bytes and 32 bits.
    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let start = self.at;
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let low = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { at: start })
    }

    /// The length of a STRING (INT16), or of its compact form; `None` is null.
    pub(crate) fn text_range(&mut self) -> Result<Option<Range<usize>>, DecodeError> {
        let at = self.at;
        let length = if self.flexible {
            self.compact_length()?
        } else {
            length_of(i32::from(self.i16()?), at)?
        };
        length.map(|count| self.take(count)).transpose()
    }

    /// The length of BYTES or RECORDS (INT32), or of their compact form; `None` is null.
    pub(crate) fn bytes_range(&mut self) -> Result<Option<Range<usize>>, DecodeError> {
        let at = self.at;
        let length = if self.flexible {
            self.compact_length()?
        } else {
            length_of(self.i32()?, at)?
        };
        length.map(|count| self.take(count)).transpose()
    }

    /// A string that may be null, checked to be UTF-8.
    pub(crate) fn nullable_text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let Some(range) = self.text_range()? else {
            return Ok(None);
        };
        let at = range.start;
        match std::str::from_utf8(&self.bytes[range]) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(DecodeError::NotUtf8 { at }),
        }
    }

    /// A string that may not be null, checked to be UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.at;
        self.nullable_text()?.ok_or(DecodeError::Null { at })
    }

    /// The count of an array's elements, `None` for null. Each element takes at least
    /// `element_bytes_min` bytes, so a count that the rest of the message cannot hold is refused
    /// here, before anything is allocated for it.
    pub(crate) fn nullable_count(
        &mut self,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, DecodeError> {
        assert!(
            element_bytes_min > 0,
            "an element without bytes has no bound"
        );
        let at = self.at;
        let count = if self.flexible {
            self.compact_length()?
        } else {
            length_of(self.i32()?, at)?
        };
        if let Some(count) = count {
            let needed = count.saturating_mul(element_bytes_min);
            if needed > self.remaining() {
                return Err(DecodeError::Truncated {
                    at,
                    needed,
                    remaining: self.remaining(),
                });
            }
            self.allowance.charge_elements(count)?;
        }
        Ok(count)
    }

    /// The count of an array that may not be null.
    pub(crate) fn count(&mut self, element_bytes_min: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        self.nullable_count(element_bytes_min)?
            .ok_or(DecodeError::Null { at })
    }

    /// The tagged fields at the end of a structure (none before flexible versions): `visit` sees
    /// each tag with the place of its value, and all of them are passed over.
    pub(crate) fn tagged_fields(
        &mut self,
        mut visit: impl FnMut(u32, Range<usize>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let start = self.at;
        let fields = self.unsigned_varint()?;
        for _ in 0..fields {
            self.allowance.charge_tagged_field()?;
            let tag = self.unsigned_varint()?;
            let size = self.varint_as_length()?;
            let range = self.take(size)?;
            visit(tag, range)?;
        }
        if fields > 0 {
            self.tagged.push(start..self.at);
        }
        Ok(())
    }

    /// What was read, from `start` on, in memory of its own and without any tagged fields.
    pub(crate) fn copy_without_tagged_fields(&self, start: usize) -> Bytes {
        let mut copy = BytesMut::with_capacity(self.at - start);
        let mut from = start;
        for tagged in &self.tagged {
            copy.put_slice(&self.bytes[from..tagged.start]);
            copy.put_u8(NO_TAGGED_FIELDS);
            from = tagged.end;
        }
        copy.put_slice(&self.bytes[from..self.at]);
        copy.freeze()
    }

    /// Passes over the tagged fields at the end of a structure.
    pub(crate) fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// A message must end where its frame ends.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { at: self.at, count }),
        }
    }

    /// Moves back to `at` and forgets that anything beyond `end` exists; used to walk a tagged
    /// field that is known, within its own bounds.
    pub(crate) fn within<T>(
        &mut self,
        range: Range<usize>,
        walk: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let (whole, resume) = (self.bytes, self.at);
        self.bytes = &whole[..range.end];
        self.at = range.start;
        let result = walk(self);
        let end = self.finish();
        self.bytes = whole;
        self.at = resume;
        let value = result?;
        end?;
        Ok(value)
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.varint_as_length()?.checked_sub(1))
    }

    fn varint_as_length(&mut self) -> Result<usize, DecodeError> {
        let value = self.unsigned_varint()?;
        Ok(usize::try_from(value).expect("a u32 fits in usize on every supported target"))
    }
}

fn length_of(length: i32, at: usize) -> Result<Option<usize>, DecodeError> {
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(DecodeError::NegativeLength { at, length }),
    }
}

/// Writes Kafka's primitive types in the form that the version asks for.
pub(crate) struct Writer {
    pub(crate) bytes: BytesMut,
    flexible: bool,
}

impl Writer {
    pub(crate) fn new(bytes: BytesMut, flexible: bool) -> Self {
        Self { bytes, flexible }
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.bytes.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub(crate) fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(low_byte(value));
    }

    pub(crate) fn nullable_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None if self.flexible => self.unsigned_varint(0),
            None => self.i16(-1),
        }
    }

    /// A string. Kafka's length is an INT16; ours are names and messages, cut there if longer.
    pub(crate) fn text(&mut self, text: &str) {
        let text = clip(text);
        if self.flexible {
            self.unsigned_varint(length_u32(text.len()) + 1);
        } else {
            self.i16(i16::try_from(text.len()).expect("clip keeps strings below i16::MAX"));
        }
        self.bytes.put_slice(text.as_bytes());
    }

    /// The length in front of BYTES or RECORDS, whose bytes the caller appends.
    pub(crate) fn bytes_length(&mut self, length: Option<u32>) {
        match (length, self.flexible) {
            (Some(length), true) => self.unsigned_varint(
                length
                    .checked_add(1)
                    .expect("frames are limited to i32::MAX bytes"),
            ),
            (Some(length), false) => {
                self.i32(i32::try_from(length).expect("frames are limited to i32::MAX bytes"));
            }
            (None, true) => self.unsigned_varint(0),
            (None, false) => self.i32(-1),
        }
    }

    pub(crate) fn nullable_count(&mut self, count: Option<usize>) {
        self.bytes_length(count.map(length_u32));
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.nullable_count(Some(count));
    }

    /// Closes a structure that has no tagged fields.
    pub(crate) fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.bytes.put_u8(NO_TAGGED_FIELDS);
        }
    }
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("counts and strings are far below u32::MAX")
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// The longest prefix of `text` that a STRING can carry.
fn clip(text: &str) -> &str {
    const TEXT_BYTES_MAX: usize = 32_767;
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = (0..=TEXT_BYTES_MAX)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<u32, DecodeError> {
        Reader::new(bytes, 0, true, Allowance::request()).unsigned_varint()
    }

    #[test]
    fn varints_round_trip_and_refuse_more_than_32_bits() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            300,
            0x3fff,
            0x4000,
            u32::MAX - 1,
            u32::MAX,
        ] {
            let mut writer = Writer::new(BytesMut::new(), true);
            writer.unsigned_varint(value);
            assert_eq!(varint(&writer.bytes), Ok(value));
        }
        assert_eq!(
            varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
            Err(DecodeError::VarintTooLong { at: 0 })
        );
        assert_eq!(
            varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
            Err(DecodeError::VarintTooLong { at: 0 })
        );
        assert!(matches!(
            varint(&[0x80]),
            Err(DecodeError::Truncated { .. })
        ));
    }

    #[test]
    fn a_count_beyond_the_rest_of_the_frame_is_refused() {
        let lie = [0x7f, 0xff, 0xff, 0xff, 0, 0];
        let mut reader = Reader::new(&lie, 0, false, Allowance::request());
        assert_eq!(
            reader.count(1),
            Err(DecodeError::Truncated {
                at: 0,
                needed: 0x7fff_ffff,
                remaining: 2
            })
        );
        let negative = [0xff, 0xff, 0xff, 0xfe];
        let mut reader = Reader::new(&negative, 0, false, Allowance::request());
        assert_eq!(
            reader.nullable_count(1),
            Err(DecodeError::NegativeLength { at: 0, length: -2 })
        );
    }

    #[test]
    fn elements_are_limited_over_all_arrays() {
        let mut bytes = Vec::new();
        let half = i32::try_from(REQUEST_ELEMENTS_MAX / 2).unwrap();
        for _ in 0..2 {
            bytes.extend(half.to_be_bytes());
        }
        bytes.extend(1_i32.to_be_bytes());
        bytes.resize(bytes.len() + REQUEST_ELEMENTS_MAX, 0);
        let mut reader = Reader::new(&bytes, 0, false, Allowance::request());
        assert_eq!(reader.count(1), Ok(REQUEST_ELEMENTS_MAX / 2));
        assert_eq!(reader.count(1), Ok(REQUEST_ELEMENTS_MAX / 2));
        assert_eq!(
            reader.count(1),
            Err(DecodeError::TooManyElements {
                elements_max: REQUEST_ELEMENTS_MAX
            })
        );
    }

    #[test]
    fn long_strings_are_cut_at_a_character() {
        let text = "é".repeat(20_000);
        let mut writer = Writer::new(BytesMut::new(), false);
        writer.text(&text);
        let mut reader = Reader::new(&writer.bytes, 0, false, Allowance::request());
        assert_eq!(reader.text().unwrap().len(), 32_766);
        reader.finish().unwrap();
    }
}

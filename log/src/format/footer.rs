//! The footer of a sealed file (docs/format.md, Footer).

use highwater_record::{Buffer, Offset};

use super::begin::{EPOCH_LEN, Reason, put_epochs, take_epochs};
use super::bytes::{Put, Reader, crc32, front_crc_holds, len_u32, seal_front_crc};
use super::{FormatFault, check_version};
use crate::config::SNAPSHOT_BYTES_MAX;
use crate::entry::{Epoch, Position, Snapshot};
use crate::ids::{Chain, EntryId, GroupId, LogIndex, Sequence, Term};

/// The version of footers that this program writes.
pub const FOOTER_VERSION: u16 = 1;

/// The largest footer, in bytes.
pub const FOOTER_BYTES_MAX: u64 = 128 << 20;

/// The length of the trailer, the last bytes of a sealed file.
pub const TRAILER_LEN: usize = 64;

/// The bytes that each block CRC covers.
pub const VERIFIED_BLOCK: u32 = 64 << 10;

/// How many indexes a range hash covers.
pub const RANGE_ENTRIES: u64 = 4_096;

/// The largest sparse index, in points.
pub const SPARSE_POINTS_MAX: usize = 4_096;

const MAGIC: [u8; 4] = *b"HWFT";
const FIXED_LEN: usize = 128;
const POINT_LEN: usize = 32;
const RANGE_LEN: usize = 24;

/// A point of the sparse index: where an entry's frame starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The entry.
    pub index: LogIndex,
    /// Its base offset.
    pub offset: Offset,
    /// Where its frame starts in the file, in bytes.
    pub position: u64,
    /// The largest timestamp in this file up to and with this entry, in milliseconds.
    pub timestamp: i64,
}

/// The sum of the hashes of this file's entries in a range of [`RANGE_ENTRIES`] indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeHash {
    /// The range: index divided by [`RANGE_ENTRIES`].
    pub range: u64,
    /// How many entries are in the sum.
    pub entries: u32,
    /// The sum, modulo 2^64.
    pub sum: u64,
}

/// Which file a footer must belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterOf {
    /// The salt of its file.
    pub salt: u64,
    /// The file's number.
    pub sequence: Sequence,
    /// The group.
    pub group: GroupId,
}

/// What a sealed file knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Why the file was begun.
    pub reason: Reason,
    /// Where its entries start.
    pub start: Position,
    /// Its last entry and the chain there, and the offset behind it.
    pub end: Position,
    /// The log start offset when it was sealed.
    pub log_start_offset: Offset,
    /// The largest timestamp of its records, in milliseconds; -1 if there is none.
    pub largest_timestamp: i64,
    /// The largest append time, in seconds.
    pub largest_append_time: u32,
    /// Where the last entry's frame ends, in bytes.
    pub data_end: u64,
    /// The epoch history of the whole log through this file.
    pub epochs: Vec<Epoch>,
    /// Where entries lie, ascending.
    pub points: Vec<Point>,
    /// What the entries hash to.
    pub ranges: Vec<RangeHash>,
    /// CRC-32C of each verified block before the footer.
    pub blocks: Vec<u32>,
    /// The owner's state, if it gave one.
    pub snapshot: Option<Snapshot>,
}

impl Footer {
    /// The footer as it lies on disk, padded to a multiple of `align`.
    ///
    /// # Panics
    ///
    /// If it is larger than [`FOOTER_BYTES_MAX`]: its parts have limits of their own.
    #[must_use]
    pub fn encode(&self, of: &FooterOf, align: usize) -> Vec<u8> {
        let state = self.snapshot.as_ref().map_or(&[][..], |snap| &snap.state);
        let mut bytes = Vec::with_capacity(self.encoded_len(align));
        bytes.put_u8(self.reason.to_byte());
        bytes.put(&[0; 3]);
        bytes.put_u32(VERIFIED_BLOCK);
        bytes.put_u64(self.start.first().0);
        bytes.put_u64(self.end.before.index.0);
        bytes.put_u64(self.start.offset.0);
        bytes.put_u64(self.end.offset.0);
        bytes.put_u64(self.start.chain.0);
        bytes.put_u64(self.end.chain.0);
        bytes.put_u32(self.start.before.term.0);
        bytes.put_u32(self.end.before.term.0);
        bytes.put_u64(self.log_start_offset.0);
        bytes.put_i64(self.largest_timestamp);
        bytes.put_u32(self.largest_append_time);
        bytes.put_u32(len_u32(self.epochs.len()));
        bytes.put_u64(self.data_end);
        bytes.put_u32(len_u32(self.points.len()));
        bytes.put_u32(len_u32(self.ranges.len()));
        bytes.put_u32(len_u32(self.blocks.len()));
        bytes.put_u32(len_u32(state.len()));
        bytes.put_u64(self.snapshot.as_ref().map_or(0, |snap| snap.at.0));
        bytes.put_u64(0);
        put_epochs(&mut bytes, &self.epochs);
        self.put_lists(&mut bytes);
        bytes.put(state);
        bytes.resize(self.encoded_len(align) - TRAILER_LEN, 0);
        append_trailer(&mut bytes, of);
        bytes
    }

    fn put_lists(&self, bytes: &mut Vec<u8>) {
        for point in &self.points {
            bytes.put_u64(point.index.0);
            bytes.put_u64(point.offset.0);
            bytes.put_u64(point.position);
            bytes.put_i64(point.timestamp);
        }
        for range in &self.ranges {
            bytes.put_u64(range.range);
            bytes.put_u32(range.entries);
            bytes.put_u32(0);
            bytes.put_u64(range.sum);
        }
        for block in &self.blocks {
            bytes.put_u32(*block);
        }
    }

    /// How long the footer is on disk.
    #[must_use]
    pub fn encoded_len(&self, align: usize) -> usize {
        let state = self.snapshot.as_ref().map_or(0, |snap| snap.state.len());
        let len = FIXED_LEN
            + self.epochs.len() * EPOCH_LEN
            + self.points.len() * POINT_LEN
            + self.ranges.len() * RANGE_LEN
            + self.blocks.len() * 4
            + state
            + TRAILER_LEN;
        len.next_multiple_of(align)
    }

    /// Reads a footer, from its first byte to the end of its trailer.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if it is torn, damaged or another file's, [`FormatFault::Newer`] if
    /// a newer program wrote it.
    pub fn decode(bytes: &[u8], of: &FooterOf) -> Result<Footer, FormatFault> {
        let (body, trailer) = bytes.split_last_chunk().ok_or(FormatFault::Bad)?;
        let trailer = Trailer::decode(trailer, of)?;
        let whole = u64::try_from(bytes.len()).is_ok_and(|len| len == trailer.total_len);
        let holds = crc32(body) == trailer.body_crc || mutant!(FooterUnchecked);
        if !whole || !holds {
            return Err(FormatFault::Bad);
        }
        Footer::fields(body).ok_or(FormatFault::Bad)
    }

    fn fields(body: &[u8]) -> Option<Footer> {
        let mut reader = Reader::new(body);
        let reason = Reason::from_byte(reader.u8()?)?;
        reader.zeros(3)?;
        if reader.u32()? != VERIFIED_BLOCK {
            return None;
        }
        let first = LogIndex(reader.u64()?);
        let last = LogIndex(reader.u64()?);
        let first_offset = Offset(reader.u64()?);
        let end_offset = Offset(reader.u64()?);
        let chain_before = Chain(reader.u64()?);
        let chain = Chain(reader.u64()?);
        let term_before = Term(reader.u32()?);
        let term = Term(reader.u32()?);
        let log_start_offset = Offset(reader.u64()?);
        let largest_timestamp = reader.i64()?;
        let largest_append_time = reader.u32()?;
        let epochs = reader.u32()?;
        let data_end = reader.u64()?;
        let [points, ranges, blocks, state] =
            [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
        let snapshot_at = LogIndex(reader.u64()?);
        reader.zeros(8)?;
        if first.0 == 0 || last.0 < first.0 - 1 || end_offset < first_offset {
            return None;
        }
        let footer = Footer {
            reason,
            start: position(first.before(), term_before, chain_before, first_offset),
            end: position(last, term, chain, end_offset),
            log_start_offset,
            largest_timestamp,
            largest_append_time,
            data_end,
            epochs: take_epochs(&mut reader, epochs)?,
            points: take_points(&mut reader, points)?,
            ranges: take_ranges(&mut reader, ranges)?,
            blocks: take_blocks(&mut reader, blocks)?,
            snapshot: take_snapshot(&mut reader, state, snapshot_at)?,
        };
        reader.zeros(reader.remaining())?;
        Some(footer)
    }
}

const fn position(index: LogIndex, term: Term, chain: Chain, offset: Offset) -> Position {
    Position {
        before: EntryId { index, term },
        chain,
        offset,
    }
}

fn take_points(reader: &mut Reader<'_>, claimed: u32) -> Option<Vec<Point>> {
    let count = reader.count(claimed, POINT_LEN)?;
    let mut points: Vec<Point> = Vec::with_capacity(count);
    for _ in 0..count {
        let point = Point {
            index: LogIndex(reader.u64()?),
            offset: Offset(reader.u64()?),
            position: reader.u64()?,
            timestamp: reader.i64()?,
        };
        let ascends = points.last().is_none_or(|last| {
            last.index < point.index
                && last.offset <= point.offset
                && last.position < point.position
                && last.timestamp <= point.timestamp
        });
        if !ascends {
            return None;
        }
        points.push(point);
    }
    Some(points)
}

fn take_ranges(reader: &mut Reader<'_>, claimed: u32) -> Option<Vec<RangeHash>> {
    let count = reader.count(claimed, RANGE_LEN)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let range = reader.u64()?;
        let entries = reader.u32()?;
        reader.zeros(4)?;
        let sum = reader.u64()?;
        ranges.push(RangeHash {
            range,
            entries,
            sum,
        });
    }
    Some(ranges)
}

fn take_blocks(reader: &mut Reader<'_>, claimed: u32) -> Option<Vec<u32>> {
    let count = reader.count(claimed, 4)?;
    let (words, _) = reader.take(count * 4)?.as_chunks::<4>();
    Some(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn take_snapshot(reader: &mut Reader<'_>, claimed: u32, at: LogIndex) -> Option<Option<Snapshot>> {
    let len = reader.count(claimed, 1)?;
    if len > SNAPSHOT_BYTES_MAX {
        return None;
    }
    let state = reader.take(len)?;
    if at == LogIndex::ZERO {
        return state.is_empty().then_some(None);
    }
    Some(Some(Snapshot {
        at,
        state: Buffer::from(state.to_vec()),
    }))
}

/// The last bytes of a sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// CRC-32 of the footer before the trailer.
    pub body_crc: u32,
    /// The footer's whole length in bytes, the trailer included.
    pub total_len: u64,
}

impl Trailer {
    /// Reads a trailer.
    ///
    /// # Errors
    ///
    /// As [`Footer::decode`].
    pub fn decode(bytes: &[u8; TRAILER_LEN], of: &FooterOf) -> Result<Trailer, FormatFault> {
        if bytes[4..8] != MAGIC || !front_crc_holds(bytes) {
            return Err(FormatFault::Bad);
        }
        check_version(u16::from_le_bytes([bytes[8], bytes[9]]), FOOTER_VERSION)?;
        Trailer::fields(bytes, of).ok_or(FormatFault::Bad)
    }

    fn fields(bytes: &[u8; TRAILER_LEN], of: &FooterOf) -> Option<Trailer> {
        let mut reader = Reader::new(bytes);
        reader.take(12)?;
        let body_crc = reader.u32()?;
        let total_len = reader.u64()?;
        let found = FooterOf {
            salt: reader.u64()?,
            sequence: Sequence(reader.u64()?),
            group: GroupId(reader.u64()?),
        };
        let plausible = total_len > 64 && total_len <= FOOTER_BYTES_MAX && found == *of;
        plausible.then_some(Trailer {
            body_crc,
            total_len,
        })
    }
}

fn append_trailer(bytes: &mut Vec<u8>, of: &FooterOf) {
    let total = u64::try_from(bytes.len() + TRAILER_LEN).expect("a length fits into 64 bits");
    assert!(total <= FOOTER_BYTES_MAX, "a footer of {total} bytes");
    let mut trailer = Vec::with_capacity(TRAILER_LEN);
    trailer.put_u32(0);
    trailer.put(&MAGIC);
    trailer.put_u16(FOOTER_VERSION);
    trailer.put_u16(0);
    trailer.put_u32(crc32(bytes));
    trailer.put_u64(total);
    trailer.put_u64(of.salt);
    trailer.put_u64(of.sequence.0);
    trailer.put_u64(of.group.0);
    trailer.resize(TRAILER_LEN, 0);
    seal_front_crc(&mut trailer);
    bytes.put(&trailer);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: FooterOf = FooterOf {
        salt: 0xaa,
        sequence: Sequence(2),
        group: GroupId(3),
    };

    fn sample() -> Footer {
        Footer {
            reason: Reason::Roll,
            start: position(LogIndex(4), Term(1), Chain(0x11), Offset(40)),
            end: position(LogIndex(6), Term(2), Chain(0x22), Offset(60)),
            log_start_offset: Offset(7),
            largest_timestamp: 1_000,
            largest_append_time: 9,
            data_end: 5_000,
            epochs: vec![Epoch {
                term: Term(1),
                first_index: LogIndex(1),
                first_offset: Offset(0),
            }],
            points: vec![Point {
                index: LogIndex(5),
                offset: Offset(40),
                position: 4_216,
                timestamp: 900,
            }],
            ranges: vec![RangeHash {
                range: 0,
                entries: 2,
                sum: 0x33,
            }],
            blocks: vec![0x44],
            snapshot: Some(Snapshot {
                at: LogIndex(6),
                state: Buffer::from(b"snap".to_vec()),
            }),
        }
    }

    #[test]
    fn golden_footer() {
        let mut expected = vec![1, 0, 0, 0, 0, 0, 1, 0];
        for number in [5u64, 6, 40, 60, 0x11, 0x22] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(&7u64.to_le_bytes());
        expected.extend_from_slice(&1_000i64.to_le_bytes());
        expected.extend_from_slice(&[9, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&5_000u64.to_le_bytes());
        expected.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0]);
        for number in [6u64, 0] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        for number in [1u64, 1, 0, 5, 40, 4_216, 900, 0, 2, 0x33] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[0x44, 0, 0, 0]);
        expected.extend_from_slice(b"snap");
        expected.resize(512 - TRAILER_LEN, 0);
        let bytes = sample().encode(&OF, 512);
        assert_eq!(bytes.len(), 512);
        assert_eq!(bytes[..512 - TRAILER_LEN], expected[..]);
        assert_eq!(bytes[452..456], *b"HWFT");
        assert_eq!(bytes[448..452], [0x69, 0x1e, 0x6e, 0xb4]);
        assert_eq!(bytes[460..464], crc32(&expected).to_le_bytes());
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample().encode(&OF, 4096);
        assert_eq!(Footer::decode(&bytes, &OF), Ok(sample()));
        let without = Footer {
            snapshot: None,
            ..sample()
        };
        let bytes = without.encode(&OF, 4096);
        assert_eq!(Footer::decode(&bytes, &OF), Ok(without));
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        let good = sample().encode(&OF, 512);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(Footer::decode(&bad, &OF).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_files_footer_is_bad() {
        let bytes = sample().encode(&OF, 512);
        let others = [
            FooterOf { salt: 1, ..OF },
            FooterOf {
                sequence: Sequence(9),
                ..OF
            },
            FooterOf {
                group: GroupId(9),
                ..OF
            },
        ];
        for of in others {
            assert_eq!(Footer::decode(&bytes, &of), Err(FormatFault::Bad));
        }
    }

    #[test]
    fn hostile_fields_are_bad_without_a_panic() {
        let bytes = sample().encode(&OF, 512);
        let body = &bytes[..512 - TRAILER_LEN];
        for at in 0..128 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut hostile = body.to_vec();
                hostile[at] = value;
                // Whatever it says, it is read or refused.
                let _ = Footer::fields(&hostile);
            }
        }
        for len in 0..216 {
            assert_eq!(Footer::fields(&body[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample().encode(&OF, 512);
        bytes[456] = 3;
        seal_front_crc(&mut bytes[448..]);
        assert_eq!(
            Footer::decode(&bytes, &OF),
            Err(FormatFault::Newer { found: 3, known: 1 })
        );
    }
}

//! Units of the hard-state journal (docs/format.md, The hard-state journal).

use super::bytes::{Put, Reader, front_crc_holds, len_u32, seal_front_crc};
use super::{BLOCK_MAX, FormatFault, check_version};
use crate::entry::HardState;
use crate::ids::{GroupId, Incarnation, LogIndex, NodeId, Sequence, Term};

/// The version of journal units that this program writes.
pub const JOURNAL_VERSION: u16 = 1;

/// The length of a unit's header, and of a record, in bytes.
pub const RECORD_LEN: usize = 64;

const MAGIC: [u8; 4] = *b"HWJU";

const FLAG_VOTE: u32 = 1;
const FLAG_POSITION: u32 = 2;
const FLAG_QUARANTINE: u32 = 4;
const FLAG_REACHES_END: u32 = 8;
const FLAG_DROPPED: u32 = 16;
const FLAGS: u32 = FLAG_VOTE | FLAG_POSITION | FLAG_QUARANTINE | FLAG_REACHES_END | FLAG_DROPPED;

/// Through which entry, and in which file, a log is known to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncedPosition {
    /// The file that the entry lies in, or that begins behind it.
    pub sequence: Sequence,
    /// The last synced entry.
    pub index: LogIndex,
}

/// That a group's log has holes, and where the first one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuarantineRecord {
    /// The first entry that is bad or missing.
    pub first: LogIndex,
    /// Whether nothing behind the hole is verified: the replica is no voter until it has
    /// rejoined.
    pub reaches_end: bool,
}

/// The whole state of a group as the journal keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRecord {
    /// Whose.
    pub group: GroupId,
    /// Ascending with each record of the group, over all journals of the directory.
    pub sequence: u64,
    /// Its promises.
    pub hard: HardState,
    /// Through where its log is synced.
    pub position: Option<SyncedPosition>,
    /// Whether its log has holes.
    pub quarantine: Option<QuarantineRecord>,
    /// Whether the group was dropped.
    pub dropped: bool,
}

impl GroupRecord {
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.put_u64(self.group.0);
        bytes.put_u64(self.sequence);
        bytes.put_u32(self.hard.term.0);
        bytes.put_u32(self.hard.vote.map_or(0, |node| node.0));
        bytes.put_u32(self.flags());
        bytes.put_u32(0);
        bytes.put_u64(self.position.map_or(0, |at| at.sequence.0));
        bytes.put_u64(self.position.map_or(0, |at| at.index.0));
        bytes.put_u64(self.quarantine.map_or(0, |hole| hole.first.0));
        bytes.put_u64(0);
    }

    fn flags(&self) -> u32 {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        flag(self.hard.vote.is_some(), FLAG_VOTE)
            | flag(self.position.is_some(), FLAG_POSITION)
            | flag(self.quarantine.is_some(), FLAG_QUARANTINE)
            | flag(
                self.quarantine.is_some_and(|hole| hole.reaches_end),
                FLAG_REACHES_END,
            )
            | flag(self.dropped, FLAG_DROPPED)
    }

    fn take(reader: &mut Reader<'_>) -> Option<GroupRecord> {
        let group = GroupId(reader.u64()?);
        let sequence = reader.u64()?;
        let term = Term(reader.u32()?);
        let vote = NodeId(reader.u32()?);
        let flags = reader.u32()?;
        reader.zeros(4)?;
        let position = SyncedPosition {
            sequence: Sequence(reader.u64()?),
            index: LogIndex(reader.u64()?),
        };
        let quarantine = QuarantineRecord {
            first: LogIndex(reader.u64()?),
            reaches_end: flags & FLAG_REACHES_END != 0,
        };
        reader.zeros(8)?;
        if flags & !FLAGS != 0 {
            return None;
        }
        Some(GroupRecord {
            group,
            sequence,
            hard: HardState {
                term,
                vote: (flags & FLAG_VOTE != 0).then_some(vote),
            },
            position: (flags & FLAG_POSITION != 0).then_some(position),
            quarantine: (flags & FLAG_QUARANTINE != 0).then_some(quarantine),
            dropped: flags & FLAG_DROPPED != 0,
        })
    }
}

/// A unit's header, but for checksum, length and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitHeader {
    /// Whether the unit is a checkpoint: it stands for everything before it.
    pub checkpoint: bool,
    /// Whether promises were lost here once: this directory's groups never vote again.
    pub promises_lost: bool,
    /// The journal's shard.
    pub shard: u32,
    /// The data directory.
    pub incarnation: Incarnation,
    /// Which checkpoint it is or follows.
    pub generation: u64,
    /// Its number in its generation; a checkpoint is 0.
    pub number: u64,
    /// The checksum of the unit before it in its generation; 0 for a checkpoint.
    pub previous_crc: u32,
}

/// One write of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its header.
    pub header: UnitHeader,
    /// Its records.
    pub records: Vec<GroupRecord>,
    /// Its checksum, which the next unit names.
    pub crc: u32,
    /// Its length on disk, in bytes.
    pub len: usize,
}

impl Unit {
    /// How long a unit with `records` records is, padded to `align`.
    #[must_use]
    pub const fn encoded_len(records: usize, align: usize) -> usize {
        (RECORD_LEN + records * RECORD_LEN).next_multiple_of(align)
    }

    /// A unit as it lies on disk, padded to a multiple of `align`.
    #[must_use]
    pub fn encode(header: &UnitHeader, records: &[GroupRecord], align: usize) -> Vec<u8> {
        let len = Unit::encoded_len(records.len(), align);
        let mut bytes = Vec::with_capacity(len);
        bytes.put_u32(0);
        bytes.put(&MAGIC);
        bytes.put_u16(JOURNAL_VERSION);
        bytes.put_u8(if header.checkpoint { 1 } else { 2 });
        bytes.put_u8(u8::from(header.promises_lost));
        bytes.put_u32(header.shard);
        bytes.put(&header.incarnation.0);
        bytes.put_u32(len_u32(records.len()));
        bytes.put_u32(len_u32(len));
        bytes.put_u64(header.generation);
        bytes.put_u64(header.number);
        bytes.put_u32(header.previous_crc);
        bytes.put_u32(0);
        for record in records {
            record.put(&mut bytes);
        }
        bytes.resize(len, 0);
        seal_front_crc(&mut bytes);
        bytes
    }

    /// Reads the unit at the front of `bytes`.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if there is none, [`FormatFault::Newer`] if a newer program wrote
    /// it.
    pub fn decode(bytes: &[u8]) -> Result<Unit, FormatFault> {
        let len = Unit::claimed_len(bytes).ok_or(FormatFault::Bad)?;
        let unit = bytes.get(..len).ok_or(FormatFault::Bad)?;
        if !front_crc_holds(unit) {
            return Err(FormatFault::Bad);
        }
        check_version(u16::from_le_bytes([unit[8], unit[9]]), JOURNAL_VERSION)?;
        Unit::fields(unit).ok_or(FormatFault::Bad)
    }

    /// The length that a unit claims, if it looks like one. It is believed only as far as the
    /// checksum over that length holds.
    fn claimed_len(bytes: &[u8]) -> Option<usize> {
        let header = bytes.get(..RECORD_LEN)?;
        let claimed = u32::from_le_bytes(*header[36..].first_chunk()?);
        let len = usize::try_from(claimed).ok()?;
        let whole = header[4..8] == MAGIC && len >= RECORD_LEN && len <= bytes.len();
        whole.then_some(len)
    }

    fn fields(bytes: &[u8]) -> Option<Unit> {
        let mut reader = Reader::new(bytes);
        let crc = reader.u32()?;
        reader.take(6)?;
        let checkpoint = match reader.u8()? {
            1 => true,
            2 => false,
            _ => return None,
        };
        let promises_lost = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let shard = reader.u32()?;
        let incarnation = Incarnation(reader.array()?);
        let records = reader.u32()?;
        let _len = reader.u32()?;
        let header = UnitHeader {
            checkpoint,
            promises_lost,
            shard,
            incarnation,
            generation: reader.u64()?,
            number: reader.u64()?,
            previous_crc: reader.u32()?,
        };
        reader.zeros(4)?;
        let count = reader.count(records, RECORD_LEN)?;
        let records = (0..count)
            .map(|_| GroupRecord::take(&mut reader))
            .collect::<Option<Vec<GroupRecord>>>()?;
        let padded = reader.remaining() < BLOCK_MAX;
        reader.zeros(reader.remaining())?;
        let numbered = header.checkpoint == (header.number == 0);
        (padded && numbered).then_some(Unit {
            header,
            records,
            crc,
            len: bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> UnitHeader {
        UnitHeader {
            checkpoint: false,
            promises_lost: false,
            shard: 1,
            incarnation: Incarnation([2; 16]),
            generation: 3,
            number: 4,
            previous_crc: 5,
        }
    }

    fn record() -> GroupRecord {
        GroupRecord {
            group: GroupId(6),
            sequence: 7,
            hard: HardState {
                term: Term(8),
                vote: Some(NodeId(9)),
            },
            position: Some(SyncedPosition {
                sequence: Sequence(10),
                index: LogIndex(11),
            }),
            quarantine: Some(QuarantineRecord {
                first: LogIndex(12),
                reaches_end: true,
            }),
            dropped: false,
        }
    }

    fn plain() -> GroupRecord {
        GroupRecord {
            hard: HardState::default(),
            position: None,
            quarantine: None,
            dropped: true,
            ..record()
        }
    }

    #[test]
    fn golden_unit() {
        let mut expected = vec![0xc7, 0xab, 0xe5, 0x17];
        expected.extend_from_slice(b"HWJU\x01\0\x02\0\x01\0\0\0");
        expected.extend_from_slice(&[2; 16]);
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 2, 0, 0]);
        for number in [3u64, 4, 5] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        for number in [6u64, 7] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[8, 0, 0, 0, 9, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0]);
        for number in [10u64, 11, 12, 0] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.resize(512, 0);
        assert_eq!(Unit::encode(&header(), &[record()], 512), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let checkpoint = UnitHeader {
            checkpoint: true,
            promises_lost: true,
            number: 0,
            previous_crc: 0,
            ..header()
        };
        for header in [header(), checkpoint] {
            let records = [record(), plain()];
            let bytes = Unit::encode(&header, &records, 4096);
            let unit = Unit::decode(&bytes).unwrap();
            assert_eq!(unit.header, header);
            assert_eq!(unit.records, records);
            assert_eq!(unit.len, 4096);
            assert_eq!(unit.crc.to_le_bytes(), bytes[..4]);
        }
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        let good = Unit::encode(&header(), &[record()], 512);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!(Unit::decode(&bad), Err(FormatFault::Bad), "byte {at}");
        }
    }

    #[test]
    fn p28_hostile_lengths_are_bad() {
        let good = Unit::encode(&header(), &[record()], 512);
        for len in 0..good.len() {
            assert_eq!(Unit::decode(&good[..len]), Err(FormatFault::Bad));
        }
        let mut many = good.clone();
        many[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        seal_front_crc(&mut many);
        assert_eq!(Unit::decode(&many), Err(FormatFault::Bad));
        let mut long = good;
        long[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Unit::decode(&long), Err(FormatFault::Bad));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = Unit::encode(&header(), &[], 512);
        bytes[8] = 2;
        seal_front_crc(&mut bytes);
        assert_eq!(
            Unit::decode(&bytes),
            Err(FormatFault::Newer { found: 2, known: 1 })
        );
    }
}

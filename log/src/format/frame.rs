//! A frame: 64 bytes of header, a body, zeros up to a multiple of 8 (docs/format.md, Frames).

use highwater_record::Offset;
use twox_hash::XxHash3_64;

use super::bytes::{Reader, crc32};
use super::{FormatFault, check_version};
use crate::config::BODY_BYTES_MAX;
use crate::entry::EntryKind;
use crate::ids::{Chain, EntryId, GroupId, LogIndex, Term};

/// The length of a frame's header in bytes.
pub const HEADER_LEN: usize = 64;

/// What frames and their positions in a file are multiples of.
pub const FRAME_ALIGN: usize = 8;

/// The version of frames that this program writes.
pub const FRAME_VERSION: u8 = 1;

/// A `watermark_lag` that claims nothing.
pub const LAG_NONE: u32 = u32::MAX;

/// Where in a header the salt lies, for searching.
pub(crate) const SALT_AT: usize = 16;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// An entry: a Kafka record batch.
    Data,
    /// An entry of its owner's.
    Control,
    /// The first frame of a file; no entry.
    Begin,
    /// Reserved.
    Pad,
}

impl FrameKind {
    /// The entry's kind, if the frame is one.
    #[must_use]
    pub const fn entry(self) -> Option<EntryKind> {
        match self {
            FrameKind::Data => Some(EntryKind::Data),
            FrameKind::Control => Some(EntryKind::Control),
            FrameKind::Begin | FrameKind::Pad => None,
        }
    }

    const fn to_byte(self) -> u8 {
        match self {
            FrameKind::Data => 1,
            FrameKind::Control => 2,
            FrameKind::Begin => 3,
            FrameKind::Pad => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<FrameKind> {
        match byte {
            1 => Some(FrameKind::Data),
            2 => Some(FrameKind::Control),
            3 => Some(FrameKind::Begin),
            4 => Some(FrameKind::Pad),
            _ => None,
        }
    }
}

impl From<EntryKind> for FrameKind {
    fn from(kind: EntryKind) -> FrameKind {
        match kind {
            EntryKind::Data => FrameKind::Data,
            EntryKind::Control => FrameKind::Control,
        }
    }
}

/// A frame's header, but for its checksum, which is checked when it is read and made when it is
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// The body's length in bytes, at most [`BODY_BYTES_MAX`].
    pub body_len: u32,
    /// What the frame holds.
    pub kind: FrameKind,
    /// The salt of its file.
    pub salt: u64,
    /// The entry's index; a `begin`'s first index.
    pub index: LogIndex,
    /// The entry's term; a `begin`'s term before its first entry.
    pub term: Term,
    /// How many offsets the entry takes up.
    pub offset_span: u32,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The chain at the entry; a `begin`'s before its first entry.
    pub chain: Chain,
    /// Index minus the highest index known to be synced when the frame was submitted;
    /// [`LAG_NONE`] claims nothing.
    pub watermark_lag: u32,
    /// When the leader appended it, in seconds since the Unix epoch.
    pub append_time: u32,
}

impl FrameHeader {
    /// Which entry it is.
    #[must_use]
    pub const fn id(&self) -> EntryId {
        EntryId {
            index: self.index,
            term: self.term,
        }
    }

    /// The highest index that the frame claims was synced when it was submitted, if it claims
    /// anything.
    #[must_use]
    pub fn watermark(&self) -> Option<LogIndex> {
        if self.watermark_lag == LAG_NONE {
            return None;
        }
        self.index
            .0
            .checked_sub(u64::from(self.watermark_lag))
            .map(LogIndex)
    }

    /// The lag by which a frame at `index` claims that `synced` is durable: less if it does not
    /// fit, never more.
    #[must_use]
    pub fn lag(index: LogIndex, synced: LogIndex) -> u32 {
        assert!(
            synced < index,
            "a frame cannot claim that it is synced itself"
        );
        u32::try_from(index.0 - synced.0).unwrap_or(LAG_NONE)
    }

    /// How many bytes the whole frame takes up in its file.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        frame_len(self.body_len())
    }

    /// The body's length as a `usize`.
    #[must_use]
    pub fn body_len(&self) -> usize {
        usize::try_from(self.body_len).expect("a body's length is at most 80 MiB")
    }

    /// The header as it lies on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12] = FRAME_VERSION;
        bytes[13] = self.kind.to_byte();
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.offset_span.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base_offset.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.chain.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.watermark_lag.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.append_time.to_le_bytes());
        let crc = crc32(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; nothing of it is believed before its checksum holds. The salt is the
    /// caller's to compare.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if it is none, [`FormatFault::Newer`] if a newer program wrote it.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<FrameHeader, FormatFault> {
        if !super::bytes::front_crc_holds(bytes) && !mutant!(HeaderUnchecked) {
            return Err(FormatFault::Bad);
        }
        FrameHeader::fields(bytes)
    }

    fn fields(bytes: &[u8; HEADER_LEN]) -> Result<FrameHeader, FormatFault> {
        check_version(u16::from(bytes[12]), u16::from(FRAME_VERSION))?;
        let parse = || {
            let mut reader = Reader::new(&bytes[4..]);
            let body_crc = reader.u32()?;
            let body_len = reader.u32()?;
            let _version = reader.u8()?;
            let kind = FrameKind::from_byte(reader.u8()?)?;
            reader.zeros(2)?;
            let header = FrameHeader {
                body_crc,
                body_len,
                kind,
                salt: reader.u64()?,
                index: LogIndex(reader.u64()?),
                term: Term(reader.u32()?),
                offset_span: reader.u32()?,
                base_offset: Offset(reader.u64()?),
                chain: Chain(reader.u64()?),
                watermark_lag: reader.u32()?,
                append_time: reader.u32()?,
            };
            header.is_plausible().then_some(header)
        };
        parse().ok_or(FormatFault::Bad)
    }

    /// Whether the fields are ones that this program writes: limits that later arithmetic
    /// relies on.
    fn is_plausible(&self) -> bool {
        let end = self.base_offset.0.checked_add(u64::from(self.offset_span));
        let len = usize::try_from(self.body_len);
        len.is_ok_and(|len| len <= BODY_BYTES_MAX)
            && self.term <= Term::MAX
            && self.index.0 > 0
            && self.index.0 < u64::MAX / 2
            && end.is_some_and(|end| end <= Offset::MAX.0)
            && (self.watermark_lag == LAG_NONE || u64::from(self.watermark_lag) <= self.index.0)
    }

    /// The chain at this entry, after `previous`. Uses the replicated fields only.
    #[must_use]
    pub fn chain_after(&self, group: GroupId, previous: Chain) -> Chain {
        let mut bytes = [0; 8 + REPLICATED_LEN];
        bytes[..8].copy_from_slice(&previous.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.replicated());
        Chain(XxHash3_64::oneshot_with_seed(group.0, &bytes))
    }

    /// The replicated fields, but for the chain, in their order on disk.
    pub(crate) fn replicated(&self) -> [u8; REPLICATED_LEN] {
        let mut bytes = [0; REPLICATED_LEN];
        bytes[0..4].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[8] = FRAME_VERSION;
        bytes[9] = self.kind.to_byte();
        bytes[12..20].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.offset_span.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.base_offset.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.append_time.to_le_bytes());
        bytes
    }
}

/// How many header bytes enter the chain.
pub(crate) const REPLICATED_LEN: usize = 40;

/// How many bytes a frame with a body of `body_len` takes up.
#[must_use]
pub const fn frame_len(body_len: usize) -> usize {
    HEADER_LEN + body_len.next_multiple_of(FRAME_ALIGN)
}

/// A header with this salt at the front of `bytes`, if one is there: what the search behind a
/// bad frame looks for at every 8-byte position.
#[must_use]
pub fn header_with_salt(bytes: &[u8; HEADER_LEN], salt: u64) -> Option<FrameHeader> {
    let field = bytes[SALT_AT..].first_chunk::<8>()?;
    if u64::from_le_bytes(*field) != salt && !mutant!(SaltUnchecked) {
        return None;
    }
    FrameHeader::decode(bytes).ok()
}

/// Any header at the front of `bytes`, whatever its salt: asked for a file whose identity, and
/// so its salt, is unreadable.
#[must_use]
pub fn header_with_any_salt(bytes: &[u8; HEADER_LEN]) -> Option<FrameHeader> {
    // The fields cost less than the checksum and fail on nearly everything that is no header.
    let header = FrameHeader::fields(bytes).ok()?;
    super::bytes::front_crc_holds(bytes).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            body_crc: 0x1122_3344,
            body_len: 13,
            kind: FrameKind::Data,
            salt: 0x0102_0304_0506_0708,
            index: LogIndex(7),
            term: Term(3),
            offset_span: 5,
            base_offset: Offset(40),
            chain: Chain(0xfeed_beef_cafe_f00d),
            watermark_lag: 2,
            append_time: 1_700_000_000,
        }
    }

    #[test]
    fn golden_header() {
        let expected: [u8; HEADER_LEN] = [
            0x7b, 0x76, 0xc0, 0x6b, // header_crc
            0x44, 0x33, 0x22, 0x11, // body_crc
            13, 0, 0, 0, // body_len
            1, 1, 0, 0, // version, kind, flags
            8, 7, 6, 5, 4, 3, 2, 1, // salt
            7, 0, 0, 0, 0, 0, 0, 0, // index
            3, 0, 0, 0, // term
            5, 0, 0, 0, // offset_span
            40, 0, 0, 0, 0, 0, 0, 0, // base_offset
            0x0d, 0xf0, 0xfe, 0xca, 0xef, 0xbe, 0xed, 0xfe, // chain
            2, 0, 0, 0, // watermark_lag
            0x00, 0xf1, 0x53, 0x65, // append_time
        ];
        assert_eq!(sample().encode(), expected);
        assert_eq!(FrameHeader::decode(&expected), Ok(sample()));
    }

    #[test]
    fn golden_chain() {
        let first = sample().chain_after(GroupId(9), Chain::ZERO);
        assert_eq!(first, Chain(0xe27a_f3ff_205d_48de));
        assert_ne!(sample().chain_after(GroupId(8), Chain::ZERO), first);
        assert_ne!(sample().chain_after(GroupId(9), Chain(1)), first);
    }

    #[test]
    fn the_chain_covers_replicated_fields_only() {
        let reference = sample().chain_after(GroupId(1), Chain(2));
        let local = FrameHeader {
            salt: 1,
            watermark_lag: LAG_NONE,
            chain: Chain(5),
            ..sample()
        };
        assert_eq!(local.chain_after(GroupId(1), Chain(2)), reference);
        let changes: [fn(&mut FrameHeader); 8] = [
            |header| header.body_crc ^= 1,
            |header| header.body_len ^= 1,
            |header| header.kind = FrameKind::Control,
            |header| header.index = LogIndex(8),
            |header| header.term = Term(4),
            |header| header.offset_span ^= 1,
            |header| header.base_offset = Offset(41),
            |header| header.append_time ^= 1,
        ];
        for change in changes {
            let mut header = sample();
            change(&mut header);
            assert_ne!(header.chain_after(GroupId(1), Chain(2)), reference);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = sample().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                FrameHeader::decode(&bad),
                Err(FormatFault::Bad),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample().encode();
        bytes[12] = 2;
        super::super::bytes::seal_front_crc(&mut bytes);
        assert_eq!(
            FrameHeader::decode(&bytes),
            Err(FormatFault::Newer { found: 2, known: 1 })
        );
    }

    #[test]
    fn implausible_fields_are_refused_though_the_checksum_holds() {
        let lies: [fn(&mut FrameHeader); 5] = [
            |header| header.body_len = u32::MAX,
            |header| header.term = Term(u32::MAX),
            |header| header.index = LogIndex(0),
            |header| header.base_offset = Offset(u64::MAX),
            |header| header.watermark_lag = 8,
        ];
        for lie in lies {
            let mut header = sample();
            lie(&mut header);
            assert_eq!(FrameHeader::decode(&header.encode()), Err(FormatFault::Bad));
        }
    }

    #[test]
    fn watermarks() {
        assert_eq!(sample().watermark(), Some(LogIndex(5)));
        let none = FrameHeader {
            watermark_lag: LAG_NONE,
            ..sample()
        };
        assert_eq!(none.watermark(), None);
        assert_eq!(FrameHeader::lag(LogIndex(7), LogIndex(5)), 2);
        assert_eq!(FrameHeader::lag(LogIndex(1 << 40), LogIndex(1)), LAG_NONE);
    }

    #[test]
    fn frames_are_multiples_of_eight() {
        assert_eq!(frame_len(0), 64);
        assert_eq!(frame_len(1), 72);
        assert_eq!(frame_len(8), 72);
    }

    #[test]
    fn searching_goes_by_the_salt() {
        let bytes = sample().encode();
        assert_eq!(header_with_salt(&bytes, sample().salt), Some(sample()));
        assert_eq!(header_with_salt(&bytes, 0), None);
        assert_eq!(header_with_any_salt(&bytes), Some(sample()));
        assert_eq!(header_with_any_salt(&[0; HEADER_LEN]), None);
    }
}

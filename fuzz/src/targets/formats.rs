//! Units of bytes on disk.

use highwater_log::format::begin::Begin;
use highwater_log::format::directory::DirectoryIdentity;
use highwater_log::format::footer::{Footer, FooterOf, TRAILER_LEN};
use highwater_log::format::frame::{FrameHeader, HEADER_LEN};
use highwater_log::format::identity::FileIdentity;
use highwater_log::format::journal::Unit;
use highwater_log::{GroupId, Sequence};

use super::memory::{self, SMALL};
use super::script::Script;

/// What is decoded is larger than its bytes by no more than this.
const GROWTH: usize = 8;

/// The first byte says what the others are. Checksums are made to hold.
pub(crate) fn check(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    let bound = GROWTH * bytes.len() + SMALL;
    memory::at_most(bound, "a unit on disk", || match what % 6 {
        0 => frame(bytes),
        1 => begin(bytes),
        2 => footer(bytes),
        3 => unit(bytes),
        4 => identity(bytes),
        _ => directory(bytes),
    });
}

/// Puts the checksum of the others into the first four bytes.
pub(crate) fn mend(bytes: &mut [u8]) {
    if let Some((crc, rest)) = bytes.split_first_chunk_mut::<4>() {
        *crc = crc32fast::hash(rest).to_le_bytes();
    }
}

fn frame(bytes: &[u8]) {
    let Some(mut header) = bytes.first_chunk::<HEADER_LEN>().copied() else {
        return;
    };
    mend(&mut header);
    if let Ok(read) = FrameHeader::decode(&header) {
        assert_eq!(read.encode(), header);
        assert!(read.frame_len() >= HEADER_LEN + read.body_len());
        assert!(read.watermark().is_none_or(|mark| mark <= read.index));
    }
}

/// A body by itself, whose header is the one that it would be written with.
fn begin(bytes: &[u8]) {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    let mut header = *header;
    mend(&mut header);
    let Ok(header) = FrameHeader::decode(&header) else {
        return;
    };
    if let Ok(begin) = Begin::decode(&header, body) {
        assert_eq!(begin.encode_body(), body);
        assert_eq!(begin.header(header.salt, body), header);
    }
}

fn footer(bytes: &[u8]) {
    let of = FooterOf {
        salt: 1,
        sequence: Sequence(2),
        group: GroupId(3),
    };
    let Some(body_len) = bytes.len().checked_sub(TRAILER_LEN) else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let total = u64::try_from(bytes.len()).expect("inputs are small");
    let body_crc = crc32fast::hash(&bytes[..body_len]);
    let trailer = &mut bytes[body_len..];
    trailer[4..8].copy_from_slice(b"HWFT");
    trailer[8..10].copy_from_slice(&1_u16.to_le_bytes());
    trailer[12..16].copy_from_slice(&body_crc.to_le_bytes());
    trailer[16..24].copy_from_slice(&total.to_le_bytes());
    for (at, number) in [(24, of.salt), (32, of.sequence.0), (40, of.group.0)] {
        trailer[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    mend(trailer);
    if let Ok(footer) = Footer::decode(&bytes, &of) {
        let again = Footer::decode(&footer.encode(&of, 8), &of);
        assert_eq!(again.expect("what we write, we read"), footer);
    }
}

fn unit(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let claimed = bytes.get(36..40).map(|field| Script::new(field).u32());
    let len = claimed
        .and_then(|len| usize::try_from(len).ok())
        .unwrap_or(0);
    if let Some(unit) = bytes.get_mut(..len) {
        mend(unit);
    }
    if let Ok(unit) = Unit::decode(&bytes) {
        assert!(unit.len <= bytes.len());
        let written = Unit::encode(&unit.header, &unit.records, 8);
        let again = Unit::decode(&written).expect("what we write, we read");
        assert_eq!((again.header, again.records), (unit.header, unit.records));
    }
}

fn identity(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let claimed = bytes.get(12..16).map(|field| Script::new(field).u32());
    let len = claimed
        .and_then(|len| usize::try_from(len).ok())
        .unwrap_or(0);
    if let Some(block) = bytes.get_mut(..len) {
        mend(block);
    }
    if let Ok(identity) = FileIdentity::decode(&bytes) {
        assert_eq!(FileIdentity::decode(&identity.encode()), Ok(identity));
    }
}

fn directory(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    mend(&mut bytes);
    if let Ok(identity) = DirectoryIdentity::decode(&bytes) {
        assert_eq!(DirectoryIdentity::decode(&identity.encode()), Ok(identity));
    }
}

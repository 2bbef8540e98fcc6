//! The identity block at the front of a group's file (docs/format.md, Identity block).

use super::bytes::{Put, Reader, front_crc_holds, seal_front_crc};
use super::{BLOCK, BLOCK_MAX, FormatFault, check_version};
use crate::ids::{ClusterId, GroupId, Incarnation, Sequence};

/// The version of identity blocks that this program writes.
pub const IDENTITY_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"HWSG";

/// The flag of a file that was recycled.
const RECYCLED: u16 = 1;

/// Whose file it is, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Where the first frame starts, in bytes: a power of two, at least [`BLOCK`].
    pub first_frame: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The data directory.
    pub incarnation: Incarnation,
    /// The group.
    pub group: GroupId,
    /// Its number in the group.
    pub sequence: Sequence,
    /// What marks its frames.
    pub salt: u64,
    /// The length that it was made with, in bytes.
    pub size: u64,
    /// Whether it was another file before: behind what was written into it lie that one's bytes
    /// instead of zeros, under another salt.
    pub recycled: bool,
}

impl FileIdentity {
    /// The block as it lies on disk, `first_frame` bytes.
    ///
    /// # Panics
    ///
    /// If `first_frame` is no length of a block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = self.block_len().expect("the caller chose a block's length");
        let mut bytes = Vec::with_capacity(len);
        bytes.put_u32(0);
        bytes.put(&MAGIC);
        bytes.put_u16(IDENTITY_VERSION);
        bytes.put_u16(if self.recycled { RECYCLED } else { 0 });
        bytes.put_u32(self.first_frame);
        bytes.put(&self.cluster.0);
        bytes.put(&self.incarnation.0);
        bytes.put_u64(self.group.0);
        bytes.put_u64(self.sequence.0);
        bytes.put_u64(self.salt);
        bytes.put_u64(self.size);
        bytes.resize(len, 0);
        seal_front_crc(&mut bytes);
        bytes
    }

    /// Reads a block from the front of `bytes`.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if there is none, [`FormatFault::Newer`] if a newer program wrote
    /// it.
    pub fn decode(bytes: &[u8]) -> Result<FileIdentity, FormatFault> {
        let claimed = FileIdentity::fields(bytes).ok_or(FormatFault::Bad)?;
        // The length is believed only as far as the checksum over just that length holds.
        let len = claimed.block_len().ok_or(FormatFault::Bad)?;
        let block = bytes.get(..len).ok_or(FormatFault::Bad)?;
        if bytes[4..8] != MAGIC || !front_crc_holds(block) {
            return Err(FormatFault::Bad);
        }
        check_version(u16::from_le_bytes([bytes[8], bytes[9]]), IDENTITY_VERSION)?;
        Ok(claimed)
    }

    fn fields(bytes: &[u8]) -> Option<FileIdentity> {
        let mut reader = Reader::new(bytes);
        reader.take(10)?;
        let flags = u16::from_le_bytes(reader.array()?);
        Some(FileIdentity {
            recycled: flags & RECYCLED != 0,
            first_frame: reader.u32()?,
            cluster: ClusterId(reader.array()?),
            incarnation: Incarnation(reader.array()?),
            group: GroupId(reader.u64()?),
            sequence: Sequence(reader.u64()?),
            salt: reader.u64()?,
            size: reader.u64()?,
        })
    }

    fn block_len(&self) -> Option<usize> {
        let len = usize::try_from(self.first_frame).ok()?;
        (len.is_power_of_two() && (BLOCK..=BLOCK_MAX).contains(&len)).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FileIdentity {
        FileIdentity {
            first_frame: 4096,
            cluster: ClusterId([1; 16]),
            incarnation: Incarnation([2; 16]),
            group: GroupId(3),
            sequence: Sequence(4),
            salt: 5,
            size: 65_536,
            recycled: false,
        }
    }

    #[test]
    fn golden_block() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), 4096);
        let mut expected = vec![0xd9, 0xe6, 0x82, 0x8c];
        expected.extend_from_slice(b"HWSG\x01\0\0\0\0\x10\0\0");
        expected.extend_from_slice(&[1; 16]);
        expected.extend_from_slice(&[2; 16]);
        for number in [3u64, 4, 5, 65_536] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(bytes[..80], expected[..]);
        assert!(bytes[80..].iter().all(|&byte| byte == 0));
        assert_eq!(FileIdentity::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn a_recycled_file_says_so() {
        let recycled = FileIdentity {
            recycled: true,
            ..sample()
        };
        let bytes = recycled.encode();
        assert_eq!(bytes[4..12], *b"HWSG\x01\0\x01\0");
        assert_eq!(FileIdentity::decode(&bytes), Ok(recycled));
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        let good = sample().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(
                FileIdentity::decode(&bad),
                Err(FormatFault::Bad),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_larger_block_is_covered_whole() {
        let large = FileIdentity {
            first_frame: 16_384,
            ..sample()
        };
        let mut bytes = large.encode();
        assert_eq!(FileIdentity::decode(&bytes), Ok(large));
        bytes[16_383] = 1;
        assert_eq!(FileIdentity::decode(&bytes), Err(FormatFault::Bad));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample().encode();
        bytes[8] = 9;
        seal_front_crc(&mut bytes);
        assert_eq!(
            FileIdentity::decode(&bytes),
            Err(FormatFault::Newer { found: 9, known: 1 })
        );
    }

    #[test]
    fn short_bytes_are_bad() {
        for len in [0, 3, 79, 80, 4095] {
            let bytes = &sample().encode()[..len];
            assert_eq!(FileIdentity::decode(bytes), Err(FormatFault::Bad));
        }
    }
}

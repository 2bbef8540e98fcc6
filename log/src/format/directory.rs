//! The file `identity` of a data directory (docs/format.md).

use super::bytes::{Put, Reader, front_crc_holds, seal_front_crc};
use super::{BLOCK, FormatFault, check_version};
use crate::ids::{ClusterId, Incarnation, NodeId};

/// The version of directory identities that this program writes.
pub const DIRECTORY_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"HWDD";

/// Whose data directory it is, and how often it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// The node's number.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The random number that it was formatted with.
    pub incarnation: Incarnation,
    /// How often it was opened.
    pub boots: u64,
    /// When it was formatted, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How many shards' journals were ever made in it.
    pub journals: u32,
}

impl DirectoryIdentity {
    /// The block as it lies on disk, [`BLOCK`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK);
        bytes.put_u32(0);
        bytes.put(&MAGIC);
        bytes.put_u16(DIRECTORY_VERSION);
        bytes.put_u16(0);
        bytes.put_u32(self.node.0);
        bytes.put(&self.cluster.0);
        bytes.put(&self.incarnation.0);
        bytes.put_u64(self.boots);
        bytes.put_i64(self.created_ms);
        bytes.put_u32(self.journals);
        bytes.resize(BLOCK, 0);
        seal_front_crc(&mut bytes);
        bytes
    }

    /// Reads the block.
    ///
    /// # Errors
    ///
    /// [`FormatFault::Bad`] if it is none, [`FormatFault::Newer`] if a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<DirectoryIdentity, FormatFault> {
        let block = bytes.get(..BLOCK).ok_or(FormatFault::Bad)?;
        if block[4..8] != MAGIC || !front_crc_holds(block) {
            return Err(FormatFault::Bad);
        }
        check_version(u16::from_le_bytes([block[8], block[9]]), DIRECTORY_VERSION)?;
        DirectoryIdentity::fields(block).ok_or(FormatFault::Bad)
    }

    fn fields(bytes: &[u8]) -> Option<DirectoryIdentity> {
        let mut reader = Reader::new(bytes);
        reader.take(12)?;
        Some(DirectoryIdentity {
            node: NodeId(reader.u32()?),
            cluster: ClusterId(reader.array()?),
            incarnation: Incarnation(reader.array()?),
            boots: reader.u64()?,
            created_ms: reader.i64()?,
            journals: reader.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> DirectoryIdentity {
        DirectoryIdentity {
            node: NodeId(3),
            cluster: ClusterId([1; 16]),
            incarnation: Incarnation([2; 16]),
            boots: 4,
            created_ms: -5,
            journals: 6,
        }
    }

    #[test]
    fn golden_block() {
        let bytes = sample().encode();
        let mut expected = vec![0xb5, 0x49, 0x06, 0x16];
        expected.extend_from_slice(b"HWDD\x01\0\0\0\x03\0\0\0");
        expected.extend_from_slice(&[1; 16]);
        expected.extend_from_slice(&[2; 16]);
        expected.extend_from_slice(&4u64.to_le_bytes());
        expected.extend_from_slice(&(-5i64).to_le_bytes());
        expected.extend_from_slice(&6u32.to_le_bytes());
        assert_eq!(bytes[..68], expected[..]);
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(DirectoryIdentity::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        let good = sample().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(DirectoryIdentity::decode(&bad).is_err(), "byte {at}");
        }
        assert_eq!(DirectoryIdentity::decode(&good[1..]), Err(FormatFault::Bad));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        seal_front_crc(&mut bytes);
        assert_eq!(
            DirectoryIdentity::decode(&bytes),
            Err(FormatFault::Newer { found: 2, known: 1 })
        );
    }
}

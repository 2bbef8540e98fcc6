//! What a replica needs beside its entries: in the footer of each file, and in a base.
//!
//! The bytes (little-endian), described in `docs/format.md`, section "Group state": version u8
//! (1), three reserved, producers' length u32, index that they include u64, owner's length u32,
//! reserved u32, index that it includes u64, producers, owner's state.

use highwater_consensus::LogIndex;
use highwater_record::Buffer;

use crate::positions;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;

/// Why a group's state could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupStateError {
    /// It is cut short or has an impossible length or index.
    #[error("the state of {bytes} bytes is not one")]
    Malformed {
        /// How long it is.
        bytes: usize,
    },
    /// A newer program wrote it.
    #[error("the state has version {found}, known is {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
}

/// The state of a group beside its entries. It comes from the disk, and with a base from a peer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// The last entry that `producers` includes.
    pub producers_at: LogIndex,
    /// The idempotent producers, as [`ProducerStates`](crate::ProducerStates) are encoded; no bytes
    /// if nobody has written.
    pub producers: Buffer,
    /// The state of the group's owner and the last entry that it includes, if it keeps any.
    pub owner: Option<(LogIndex, Buffer)>,
}

impl GroupState {
    /// Its bytes.
    ///
    /// # Panics
    ///
    /// If a part has 4 GiB or more.
    #[must_use]
    pub fn encode(&self) -> Buffer {
        let none = (LogIndex::ZERO, Buffer::new());
        let (owner_at, owner) = self.owner.as_ref().unwrap_or(&none);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.producers.len() + owner.len());
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&len(self.producers.len()).to_le_bytes());
        bytes.extend_from_slice(&self.producers_at.0.to_le_bytes());
        bytes.extend_from_slice(&len(owner.len()).to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&owner_at.0.to_le_bytes());
        bytes.extend_from_slice(&self.producers);
        bytes.extend_from_slice(owner);
        Buffer::from(bytes)
    }

    /// The state that `bytes` are; the state of a new group if there are none. Its parts share
    /// their memory.
    ///
    /// # Errors
    ///
    /// [`GroupStateError`] if they are none.
    pub fn decode(bytes: &Buffer) -> Result<GroupState, GroupStateError> {
        if bytes.is_empty() {
            return Ok(GroupState::default());
        }
        let malformed = || GroupStateError::Malformed { bytes: bytes.len() };
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(malformed)?;
        if header[0] != VERSION {
            return Err(GroupStateError::Version { found: header[0] });
        }
        let producers_len = read_u32(header, 4);
        let owner_len = read_u32(header, 16);
        let producers_end = HEADER_BYTES
            .checked_add(producers_len)
            .ok_or_else(malformed)?;
        let end = producers_end.checked_add(owner_len).ok_or_else(malformed)?;
        let (producers_at, owner_at) = (read_u64(header, 8), read_u64(header, 24));
        let indexes_fit = producers_at.max(owner_at) <= positions::INDEX_MAX;
        if end != bytes.len() || !indexes_fit {
            return Err(malformed());
        }
        let owner = bytes.slice(producers_end..);
        Ok(GroupState {
            producers_at: LogIndex(producers_at),
            producers: bytes.slice(HEADER_BYTES..producers_end),
            owner: (owner_at > 0).then_some((LogIndex(owner_at), owner)),
        })
    }
}

fn len(len: usize) -> u32 {
    u32::try_from(len).expect("states are far below 4 GiB")
}

fn read_u32(bytes: &[u8; HEADER_BYTES], at: usize) -> usize {
    let field = bytes[at..at + 4].try_into().expect("four bytes");
    usize::try_from(u32::from_le_bytes(field)).expect("an address space of 32 bits or more")
}

fn read_u64(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> GroupState {
        GroupState {
            producers_at: LogIndex(7),
            producers: Buffer::from(b"producers".to_vec()),
            owner: Some((LogIndex(5), Buffer::from(b"owner".to_vec()))),
        }
    }

    #[test]
    fn a_state_comes_out_as_it_went_in() {
        let nothing = GroupState::default();
        for state in [state(), nothing] {
            assert_eq!(GroupState::decode(&state.encode()), Ok(state));
        }
        assert_eq!(
            GroupState::decode(&Buffer::new()),
            Ok(GroupState::default())
        );
    }

    #[test]
    fn a_hostile_state_is_an_error() {
        let good = state().encode();
        for len in 1..good.len() {
            assert!(GroupState::decode(&good.slice(..len)).is_err(), "{len}");
        }
        for at in [4, 15, 16, 31] {
            let mut bad = good.to_vec();
            bad[at] = 0xff;
            assert!(GroupState::decode(&Buffer::from(bad)).is_err(), "{at}");
        }
        let mut newer = good.to_vec();
        newer[0] = 2;
        let read = GroupState::decode(&Buffer::from(newer));
        assert_eq!(read, Err(GroupStateError::Version { found: 2 }));
    }
}

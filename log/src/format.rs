//! The bytes on disk, as docs/format.md lays them down: pure codecs, no I/O.
//!
//! Decoders take bytes that may be anything and answer with a typed error; they never panic and
//! never allocate by a number that is not yet known to be true.

pub mod begin;
pub mod directory;
pub mod footer;
pub mod frame;
pub mod identity;
pub mod journal;

mod bytes;

/// The smallest block: identity blocks are at least this long, journal units are padded to it.
pub const BLOCK: usize = 4096;

/// The largest block (the largest alignment of a disk that is supported).
pub const BLOCK_MAX: usize = 1 << 20;

/// Why a unit of bytes is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatFault {
    /// Checksum, magic, length or a field does not hold: torn, damaged, or never written.
    #[error("bad or never written")]
    Bad,
    /// Whole and good, but written by a newer program: to be refused untouched.
    #[error("format version {found} is newer than {known}")]
    Newer {
        /// The version found.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
}

/// Newer versions are refused by themselves; 0 never existed.
fn check_version(found: u16, known: u16) -> Result<(), FormatFault> {
    if found > known {
        return Err(FormatFault::Newer { found, known });
    }
    if found == 0 {
        return Err(FormatFault::Bad);
    }
    Ok(())
}

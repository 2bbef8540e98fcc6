//! Which pages of a file reach the disk before its power is cut.

use std::fs::File;
use std::io;

use rustix::fs::{Advice, fadvise};

use super::system;

/// A page of the cache, in bytes: what is written back at least.
pub const PAGE_BYTES: u64 = 4096;

/// Writes the pages of a range back and waits until they are on the disk, while others of the
/// file stay in memory (sync_file_range(2)). What belongs to them in the file system's books
/// (lengths, new blocks) is not written: it takes effect where blocks were written before.
///
/// The kernel may write more: where a file came into the cache in large pieces (folios), all of
/// a piece goes. [`drop_cache`] before the writes makes the pieces small.
///
/// # Errors
///
/// As the system says.
pub fn write_back(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    system::sync_file_range(file, offset, bytes)
}

/// Lets the cache forget what it holds of a file and has written back.
///
/// # Errors
///
/// As the system says.
pub fn drop_cache(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

//! What every backend refuses before it touches anything, so that a mistake found on one of
//! them is found on all.

use highwater_record::Buffer;

use super::{IN_FLIGHT_MAX, READ_BYTES_MAX, StorageError};

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// The longest part of a path, in bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// Refuses a file's path that is empty or could leave the data directory.
pub(super) fn file_path(path: &str) -> Result<(), StorageError> {
    let good = path.len() <= PATH_BYTES_MAX && path.split('/').all(name_is_good);
    if good {
        Ok(())
    } else {
        Err(invalid(path, "not a path within the data directory"))
    }
}

/// As [`file_path`], but `""` is fine: the data directory itself.
pub(super) fn dir_path(path: &str) -> Result<(), StorageError> {
    if path.is_empty() {
        Ok(())
    } else {
        file_path(path)
    }
}

/// Refuses a rename to the same name or into itself.
pub(super) fn rename(from: &str, to: &str) -> Result<(), StorageError> {
    file_path(from)?;
    file_path(to)?;
    let rest = to.strip_prefix(from);
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(invalid(
            to,
            format!("is or lies within {from}, which is renamed to it"),
        ));
    }
    Ok(())
}

/// Refuses a file that could not be made whole.
pub(super) fn create(
    path: &str,
    len: u64,
    first: &Buffer,
    alignment: usize,
) -> Result<(), StorageError> {
    file_path(path)?;
    if len == 0 || !is_aligned(len, alignment) {
        return Err(invalid(
            path,
            format!("length {len} is no multiple of {alignment}"),
        ));
    }
    if first.len() as u64 > len {
        let reason = format!("{} first bytes in a file of {len}", first.len());
        return Err(invalid(path, reason));
    }
    if first.is_empty() {
        Ok(())
    } else {
        memory(path, first, alignment)
    }
}

/// Refuses a write that is empty, not aligned in the file or in memory, or leaves the file.
pub(super) fn write(
    path: &str,
    offset: u64,
    data: &Buffer,
    file_len: u64,
    alignment: usize,
) -> Result<(), StorageError> {
    if data.is_empty() || !is_aligned(offset, alignment) {
        let reason = format!(
            "write of {} bytes at {offset}, alignment {alignment}",
            data.len()
        );
        return Err(invalid(path, reason));
    }
    memory(path, data, alignment)?;
    match offset.checked_add(data.len() as u64) {
        Some(end) if end <= file_len => Ok(()),
        _ => {
            let reason = format!("write of {} at {offset}, file of {file_len}", data.len());
            Err(invalid(path, reason))
        }
    }
}

/// Refuses zeros that are none, not aligned, or leave the file.
pub(super) fn zero(
    path: &str,
    offset: u64,
    len: u64,
    file_len: u64,
    alignment: usize,
) -> Result<(), StorageError> {
    let fits = offset.checked_add(len).is_some_and(|end| end <= file_len);
    if len > 0 && fits && is_aligned(offset, alignment) && is_aligned(len, alignment) {
        Ok(())
    } else {
        let reason =
            format!("zeros of {len} at {offset}, file of {file_len}, alignment {alignment}");
        Err(invalid(path, reason))
    }
}

/// Refuses to zero what holds something already. Only a disk in memory knows.
pub(super) fn unwritten(path: &str, is_zero: bool) -> Result<(), StorageError> {
    if is_zero {
        Ok(())
    } else {
        Err(invalid(path, "zeros over what was written"))
    }
}

/// Refuses a read that is empty, too large or not aligned.
pub(super) fn read(
    path: &str,
    offset: u64,
    len: usize,
    alignment: usize,
) -> Result<(), StorageError> {
    let fits = len > 0 && len <= READ_BYTES_MAX && offset.checked_add(len as u64).is_some();
    if fits && is_aligned(offset, alignment) && is_aligned(len as u64, alignment) {
        Ok(())
    } else {
        let reason = format!("read of {len} bytes at {offset}, alignment {alignment}");
        Err(invalid(path, reason))
    }
}

/// Refuses a length that is not aligned.
pub(super) fn truncate(path: &str, len: u64, alignment: usize) -> Result<(), StorageError> {
    if is_aligned(len, alignment) {
        Ok(())
    } else {
        Err(invalid(
            path,
            format!("cut to {len} bytes, alignment {alignment}"),
        ))
    }
}

/// Refuses a window that leaves its mapping.
pub(super) fn window(
    path: &str,
    offset: usize,
    len: usize,
    mapping_len: usize,
) -> Result<(), StorageError> {
    match offset.checked_add(len) {
        Some(end) if end <= mapping_len => Ok(()),
        _ => Err(invalid(
            path,
            format!("window of {len} at {offset}, mapping of {mapping_len}"),
        )),
    }
}

/// Refuses to change a file through an id that was opened for reading.
pub(super) fn writable(path: &str, write: bool) -> Result<(), StorageError> {
    if write {
        Ok(())
    } else {
        Err(invalid(path, "opened for reading only"))
    }
}

/// Refuses to change a file that is mapped (RULES.md G-22, G-24). Only a disk in memory knows.
pub(super) fn unmapped(path: &str, is_mapped: bool) -> Result<(), StorageError> {
    if is_mapped {
        Err(invalid(path, "changed while it is mapped"))
    } else {
        Ok(())
    }
}

/// Refuses to map nothing.
pub(super) fn mappable(path: &str, len: u64) -> Result<usize, StorageError> {
    match usize::try_from(len) {
        Ok(len) if len > 0 => Ok(len),
        _ => Err(invalid(path, format!("mapping of {len} bytes"))),
    }
}

/// Refuses an operation beyond [`IN_FLIGHT_MAX`].
pub(super) fn in_flight(count: usize) -> Result<(), StorageError> {
    if count < IN_FLIGHT_MAX {
        return Ok(());
    }
    let reason = format!("{count} operations are in flight");
    Err(StorageError::Resources {
        path: "(storage)".to_owned(),
        reason,
    })
}

/// The error for an id that names no open file.
pub(super) fn stale(file: super::FileId) -> StorageError {
    invalid(&format!("file#{}", file.0), "not an open file")
}

/// The error for a broken contract.
pub(super) fn invalid(path: &str, reason: impl Into<String>) -> StorageError {
    StorageError::Invalid {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn memory(path: &str, data: &Buffer, alignment: usize) -> Result<(), StorageError> {
    let address = data.as_ptr().addr();
    if address.is_multiple_of(alignment) && data.len().is_multiple_of(alignment) {
        Ok(())
    } else {
        let reason = format!(
            "{} bytes at {address:#x}, alignment {alignment}",
            data.len()
        );
        Err(invalid(path, reason))
    }
}

fn is_aligned(value: u64, alignment: usize) -> bool {
    value.is_multiple_of(alignment as u64)
}

fn name_is_good(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_within_the_data_directory() {
        for good in ["identity", "groups/7/0000000001.log", "a..b", ".hidden"] {
            assert_eq!(file_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "./a",
            "a\0b",
        ] {
            assert!(file_path(bad).is_err(), "{bad:?}");
        }
        assert!(file_path(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
        assert!(file_path(&"x/".repeat(PATH_BYTES_MAX)).is_err());
        assert_eq!(dir_path(""), Ok(()));
        assert!(dir_path("..").is_err());
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        assert!(read("f", u64::MAX - 511, 1024, 512).is_err());
        assert!(window("f", usize::MAX, 2, 4096).is_err());
    }
}

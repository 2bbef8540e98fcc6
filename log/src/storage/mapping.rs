//! Read-only mappings of sealed files.
//!
//! A page of a mapping that the disk cannot deliver kills the process (SIGBUS) when it is
//! touched. So a window is populated first, by a thread that may block, with a call that
//! reports the error instead; and what is mapped is never cut, punched or written
//! (RULES.md G-21 to G-23).
#![expect(
    unsafe_code,
    reason = "a mapping is sound only while nobody changes its file"
)]

use std::os::fd::OwnedFd;

use memmap2::{Advice, Mmap, MmapOptions};

use super::{Mapping, StorageError, check};

/// A whole sealed file, mapped.
#[derive(Debug)]
pub(super) struct SealedMapping {
    path: String,
    map: Mmap,
}

impl SealedMapping {
    /// Maps the first `len` bytes of `file`, all there are.
    pub(super) fn new(path: String, file: &OwnedFd, len: usize) -> Result<Self, StorageError> {
        let mut options = MmapOptions::new();
        // SAFETY: the bytes must not change, and the file not shrink, while they are borrowed.
        // Only sealed files are mapped (the contract of `Op::Map`): this process never writes,
        // cuts or punches them again, the directory's lock keeps other instances of it away,
        // and modes 0700 and 0400 everybody else. A rename or unlink leaves the mapped inode
        // as it is. Root with an editor is beyond what we can exclude; the bytes are plain
        // `u8`s under a checksum, so torn contents are detected and invalid ones impossible.
        let map = unsafe { options.len(len).map(file) };
        match map {
            Ok(map) => Ok(Self { path, map }),
            Err(error) => Err(failed(path, "mmap", &error)),
        }
    }
}

impl Mapping for SealedMapping {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn populate(&self, offset: usize, len: usize) -> Result<(), StorageError> {
        check::window(&self.path, offset, len, self.map.len())?;
        if len == 0 {
            return Ok(());
        }
        // Linux 5.14 or later. EFAULT stands for the SIGBUS that a touch would have met.
        let advised = self.map.advise_range(Advice::PopulateRead, offset, len);
        advised.map_err(|error| failed(self.path.clone(), "madvise(POPULATE_READ)", &error))
    }
}

fn failed(path: String, call: &'static str, error: &std::io::Error) -> StorageError {
    let reason = error.to_string();
    match error.kind() {
        std::io::ErrorKind::OutOfMemory => StorageError::Resources { path, reason },
        _ => StorageError::Io { path, call, reason },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    /// What a failing disk or a cut file does to a mapping, and what makes it an error.
    #[test]
    fn populate_reports_what_a_touch_would_die_of() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[7; 64 << 10]).unwrap();
        let fd = file.as_fd().try_clone_to_owned().unwrap();
        let mapping = SealedMapping::new("a".to_owned(), &fd, 64 << 10).unwrap();
        assert_eq!(mapping.populate(0, 64 << 10), Ok(()));
        assert!(mapping.bytes().iter().all(|byte| *byte == 7));
        File::set_len(&file, 8 << 10).unwrap();
        assert_eq!(mapping.populate(0, 8 << 10), Ok(()));
        let populated = mapping.populate(32 << 10, 4096);
        assert!(
            matches!(populated, Err(StorageError::Io { .. })),
            "{populated:?}"
        );
    }
}

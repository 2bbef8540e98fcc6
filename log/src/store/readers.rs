//! Reads that are under way in open files, and files that are closed when those have ended.
//!
//! A read takes several steps, and between two of them its file may be sealed, retired or found
//! to be one open file too many. A descriptor that was closed then would be refused at the next
//! step, and the log would call damaged what is whole.

use std::collections::BTreeMap;

use crate::storage::FileId;

/// How many reads each open file has, and whether it is to be closed behind the last.
#[derive(Debug, Default)]
pub(super) struct Readers {
    files: BTreeMap<FileId, Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    /// At least one.
    reads: usize,
    /// Nobody else needs the file.
    leaves: bool,
}

impl Readers {
    /// A read of `file` begins.
    pub(super) fn begin(&mut self, file: FileId) {
        self.files.entry(file).or_default().reads += 1;
    }

    /// A read of `file` has ended. Gives whether the file is to be closed now.
    #[must_use]
    pub(super) fn end(&mut self, file: FileId) -> bool {
        let reading = self.files.get_mut(&file).expect("what ends has begun");
        reading.reads -= 1;
        if reading.reads > 0 {
            return false;
        }
        let leaves = reading.leaves;
        self.files.remove(&file);
        leaves
    }

    /// `file` is needed by nobody but its reads. Gives whether there are any: then the last of
    /// them is told to close it.
    #[must_use]
    pub(super) fn leave(&mut self, file: FileId) -> bool {
        match self.files.get_mut(&file) {
            Some(reading) => {
                reading.leaves = true;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_read_closes_what_is_left() {
        let mut readers = Readers::default();
        let file = FileId(1);
        readers.begin(file);
        readers.begin(file);
        assert!(readers.leave(file));
        assert!(!readers.end(file));
        assert!(readers.end(file));
        assert!(!readers.leave(file), "nobody reads it");
    }

    #[test]
    fn a_file_that_is_still_needed_stays_open() {
        let mut readers = Readers::default();
        readers.begin(FileId(1));
        assert!(!readers.end(FileId(1)));
        readers.begin(FileId(1));
        assert!(readers.leave(FileId(1)));
        assert!(readers.end(FileId(1)));
    }
}

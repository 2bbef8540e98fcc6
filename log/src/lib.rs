//! One partition's log on one disk: frames, files, group commit, recovery, and the hard-state journal.

pub mod storage;

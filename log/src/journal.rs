//! The hard-state journal: promises, synced positions and quarantine, mirrored in two files.

pub(crate) mod image;

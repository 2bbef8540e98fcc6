//! Members of a group on a network and disks of the test's making.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod cluster;
mod image;
mod oracle;
mod paper;
mod pitfalls;
mod random;
mod scenarios;
mod words;

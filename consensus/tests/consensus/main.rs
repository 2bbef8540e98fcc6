//! Members of a group on a network and disks of the test's making.

mod cluster;
mod image;
mod oracle;
mod paper;
pub(crate) mod pitfalls;
pub(crate) mod random;
mod scenarios;
pub(crate) mod standing;
mod words;

//! Highwater, the embedded replicated log and its server.

pub mod config;
pub mod offline;

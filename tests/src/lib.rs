//! Whole-system checks: simulator, guards, campaigns.

pub mod history;
pub mod sim;

//! Whole-system checks: simulator, guards, campaigns.

pub mod chaos;
mod clock;
pub mod disk_image;
pub mod history;
pub mod power;
pub mod sim;
mod stop;

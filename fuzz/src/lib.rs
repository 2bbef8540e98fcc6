//! What libFuzzer's targets run: see `targets`.

// Worlds and models of the log's own tests.
#[path = "../../log/tests/common/mod.rs"]
mod common;
#[path = "../../log/tests/crash_images/start.rs"]
mod start;
mod targets;

/// Feeds the target of that name.
///
/// # Panics
///
/// If something does not hold, or there is no such target.
pub fn feed(name: &str, data: &[u8]) {
    targets::feed(name, data);
}

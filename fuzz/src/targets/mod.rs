//! What takes bytes of others, and what must hold of it whatever they are: no panic, no more memory
//! than its bound, what was accepted can be written again, what was read is what was written.
//!
//! libFuzzer's targets run it on nightly (`fuzz/run`), `tests/tests/corpora.rs` on stable, over the
//! corpora.

mod controller;
mod crashes;
mod damage;
mod files;
mod formats;
mod frames;
mod generated;
mod kafka;
mod memory;
mod peer;
mod records;
mod script;
mod service;
mod text;

/// Takes whatever bytes there are; a panic is a finding.
type Target = fn(&[u8]);

/// What is fed, by name.
const TARGETS: [(&str, Target); 21] = [
    ("config", text::config),
    ("controller", controller::check),
    ("group_state", controller::group_state),
    ("gzip", records::gzip),
    ("history", text::history),
    ("kafka_answer", kafka::answer),
    ("kafka_frames", frames::check),
    ("kafka_request", kafka::request),
    ("kafka_service", service::check),
    ("log_crashes", crashes::check),
    ("log_damage", damage::check),
    ("log_files", files::check),
    ("log_formats", formats::check),
    ("lz4", records::lz4),
    ("peer_append", peer::append),
    ("peer_certificate", text::certificate),
    ("peer_frame", peer::frame),
    ("peer_hello", peer::hello),
    ("record_batch", records::batches),
    ("snappy", records::snappy),
    ("zstd", records::zstd),
];

/// The names of all targets.
#[allow(
    dead_code,
    reason = "for the corpora's test; libFuzzer's targets know their names"
)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

/// Feeds a target.
///
/// # Panics
///
/// If something does not hold.
pub(crate) fn feed(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, check) = target.expect("each target is listed");
    check(data);
}

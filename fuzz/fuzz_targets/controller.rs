//! The controller's records and snapshots, and the snapshots of producers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("controller", data));

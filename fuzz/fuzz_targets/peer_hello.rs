//! The first bytes of another node on a lane.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("peer_hello", data));

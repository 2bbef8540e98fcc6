//! An append of another node, with bodies of any bytes whose checksums hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("peer_append", data));

//! A frame of another node, with headers whose checksum holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("peer_frame", data));

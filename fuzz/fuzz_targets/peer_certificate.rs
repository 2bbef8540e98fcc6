//! A certificate that somebody shows on the peer port.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("peer_certificate", data));

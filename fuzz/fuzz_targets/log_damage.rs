//! A data directory that was whole, and was damaged in some places.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("log_damage", data));

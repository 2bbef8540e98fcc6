//! Records compressed by Zstandard.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("zstd", data));

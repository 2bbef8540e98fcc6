//! Records compressed by snappy, framed or bare.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("snappy", data));

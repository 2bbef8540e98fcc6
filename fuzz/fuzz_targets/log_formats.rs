//! Each unit of bytes on disk, with a checksum that holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("log_formats", data));

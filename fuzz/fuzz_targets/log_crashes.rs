//! A log's life as a script, with crashes between any two steps.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("log_crashes", data));

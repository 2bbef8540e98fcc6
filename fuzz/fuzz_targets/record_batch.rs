//! Rows of record batches, and the records in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("record_batch", data));

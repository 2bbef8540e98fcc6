//! A response frame, as the client reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("kafka_answer", data));

//! Frames off a stream that comes in any pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("kafka_frames", data));

//! A request frame of a client, before anybody knows who it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("kafka_request", data));

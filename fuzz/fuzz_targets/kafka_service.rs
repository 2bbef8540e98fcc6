//! A connection's requests, and what other nodes tell the service that answers them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("kafka_service", data));

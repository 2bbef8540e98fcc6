//! What a group's files and a peer's base have beside entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| highwater_fuzz::feed("group_state", data));

//! A file of lines or comma-separated values, as `highwater produce` reads it.
//!
//! The reader is private to the command, whose unit tests go over the corpus.
#![no_main]
#![allow(dead_code, reason = "the command uses all of it")]

#[path = "../src/csv_rows.rs"]
mod csv_rows;
#[path = "../../cli/src/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| csv_rows::check(data));

//! Histories as JSON lines, one event a line, so that outsiders can check ours and we theirs.
//!
//! The form, with `type` one of `invoke`, `ok`, `fail` and `info`; `time` in nanoseconds. What is
//! only known at the end is left out before:
//!
//! ```text
//! {"time":1,"process":4,"op":1,"type":"invoke","f":"send","topic":"t","partition":0,"values":[7,8],"idempotent":true}
//! {"time":2,"process":4,"op":1,"type":"ok","f":"send",...,"offset":12}
//! {..."f":"poll","topic":"t","partition":0,"from":12,"leader":true,"records":[[12,7],[13,8]],"high_watermark":14}
//! {..."type":"fail","f":"poll",...,"log_start":3}           the position was out of range
//! {..."f":"assign","topic":"t","partition":0,"offset":12}
//! {..."f":"list-offsets","topic":"t","partition":0,"latest":14}
//! {..."f":"delete-records","topic":"t","partition":0,"offset":3}
//! {..."f":"delete-topic","topic":"t"}
//! {..."f":"commit-offset","group":"g","topic":"t","partition":0,"offset":12}
//! {..."f":"fetch-offset","group":"g","topic":"t","partition":0,"offset":12}
//! {..."f":"final-read","topic":"t","partition":0,"node":2,"start":0,"records":[[0,7]],"refused":[[1,3]]}
//! ```

mod json;

pub use json::{read_event, write_event};

use std::io::BufRead;

use anyhow::Context;
use highwater_engine::testing::history::{Checker, Rules, Verdict};

/// Judges the lines of a history.
///
/// # Errors
///
/// If a line cannot be read or is no event.
pub fn check_lines(lines: impl BufRead, rules: Rules) -> anyhow::Result<Verdict> {
    let mut checker = Checker::new(rules);
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event = read_event(&line).with_context(|| format!("line {number}"))?;
        checker.observe(&event);
    }
    Ok(checker.finish())
}

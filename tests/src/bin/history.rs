//! `history`: checks histories of clients' operations, whoever made them.
//!
//! ```text
//! history FILE...           JSON lines as `highwater_tests::history` describes them
//! history --retention FILE  of topics that remove old records by themselves
//! ```
//!
//! Ends with 1 if a promise is broken, and names the events that show it, numbered from 0.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use anyhow::Context;
use highwater_engine::testing::history::Rules;
use highwater_tests::history::check_lines;

const HELP: &str = "usage: history [--retention] FILE...";

fn main() -> anyhow::Result<ExitCode> {
    let mut rules = Rules::default();
    let mut files = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--retention" => rules.retention = true,
            flag if flag.starts_with("--") => anyhow::bail!("{flag} is not known; {HELP}"),
            _ => files.push(argument),
        }
    }
    anyhow::ensure!(!files.is_empty(), HELP);
    let mut code = ExitCode::SUCCESS;
    for path in files {
        let file = File::open(&path).with_context(|| path.clone())?;
        let verdict = check_lines(BufReader::new(file), rules).with_context(|| path.clone())?;
        for anomaly in &verdict.anomalies {
            println!("{path}: {anomaly}");
        }
        println!(
            "{path}: {} events, {} records acknowledged, {} read, {} of them finally: {}",
            verdict.events,
            verdict.acked,
            verdict.read,
            verdict.read_finally,
            if verdict.is_clean() {
                "clean"
            } else {
                "NOT CLEAN"
            },
        );
        for (kind, count) in &verdict.counts {
            println!("{path}: {kind}: {count}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

//! `chaos`: real processes under real faults, and clients whose histories are judged.
//!
//! ```text
//! chaos --scenario swarm --minutes 3 --seed 7
//! chaos --scenario all --record
//! ```
//!
//! Ends with 1 if a promise is broken; everything that was seen is in the folder that it names.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let is_clean = highwater_tests::chaos::main(std::env::args().skip(1))?;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

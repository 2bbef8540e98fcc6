//! `sim`: runs the simulated world over seeds, and for a failure prints the command that repeats
//! it, with as few faults as are needed.
//!
//! ```text
//! sim --seeds 200                     seeds 1 to 200
//! sim --seeds 1000000 --minutes 30    as many as there is time for
//! sim --seeds 1 --first 17 --trace    one seed, with all that happens in it
//! sim --seeds 5000 --record           a campaign: it fails if a rare path was never reached,
//!                                     and is added to docs/campaigns.csv
//! ```

use std::process::ExitCode;

use anyhow::Context;
use highwater_tests::sim::{self, Wanted};

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().any(|it| it == "--help" || it == "-h") {
        println!("{}", sim::HELP);
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Wanted::parse(std::env::args().skip(1)).context(sim::HELP)?;
    let is_clean = sim::run(&wanted)?;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

//! `power`: cuts the power of real file systems under the log, or under clusters of processes.
//!
//! ```text
//! power --cuts 1000                         the log, on ext4 and XFS, through all storages
//! power --cuts 1 --seed 7 --fs xfs --storage uring
//! power --nodes 3 --cuts 20                 three processes of `highwater start`
//! power --cuts 100000 --minutes 60 --record added to docs/power-campaigns.csv
//! ```
//!
//! It takes the right to mount.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().any(|it| it == "--help" || it == "-h") {
        println!("{}", highwater_tests::power::HELP);
        return Ok(ExitCode::SUCCESS);
    }
    highwater_tests::power::main(std::env::args().skip(1))
}

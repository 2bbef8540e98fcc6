//! Real power loss: the log on real file systems, whose power is cut while it writes.
//!
//! A writer, a process of its own, drives a production store on a [disk image](crate::disk_image)
//! and tells, before the disk hears of it, what it is about to do, and then what was acknowledged.
//! Whoever listens cuts the power at a moment drawn from a seed, kills the writer, mounts the
//! image again, opens the log, and holds what is there against a model of what the contract
//! allows: every acknowledged entry with its bytes, no promise taken back, nothing invented, and
//! of what was not acknowledged a front part. It is the model that the log's own tests use.
//! The next life begins with what the last one has left.
//!
//! | part | |
//! |---|---|
//! | `writer` | the process that writes |
//! | `held` | its disk, which can be stopped with writes under way that happen in part |
//! | `message` | what it tells |
//! | `process` | its other end |
//! | `chain` | lives on one disk, and the judgement of each |
//! | `campaign`, `tally`, `record` | many of them, and the sums |
//! | [`cluster`], `trio` | the same with processes of `highwater start`, each on a disk of its own |

mod args;
mod campaign;
mod chain;
pub mod cluster;
mod held;
#[path = "../../../log/tests/common/mod.rs"]
mod log_model;
mod message;
mod mutants;
mod process;
mod record;
mod tally;
mod trio;
mod writer;

use std::process::ExitCode;

use anyhow::Context;

pub use args::{Backend, HELP, Wanted};
pub use campaign::run;

/// The binary's `main`: the campaign, or one of the writers that it starts.
///
/// # Errors
///
/// If the command line is not understood, or the system refuses.
pub fn main(args: impl Iterator<Item = String>) -> anyhow::Result<ExitCode> {
    let mut args = args.peekable();
    if args.next_if(|word| word == process::WRITER).is_some() {
        let life = args.next().context("a writer wants a life")?;
        writer::live(&serde_json::from_str(&life)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Wanted::parse(args).context(HELP)?;
    Ok(if run(&wanted)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

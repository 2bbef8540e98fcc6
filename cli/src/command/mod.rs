//! The subcommands, one file each.

mod config;

use clap::Subcommand;

use crate::exit::Failure;
use crate::print::Printer;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Config(config::Arguments),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// With the kind that decides the exit code, and a line for a person.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Config(arguments) => arguments.run(printer),
        }
    }
}

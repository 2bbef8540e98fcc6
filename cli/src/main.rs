//! The `highwater` command: flags in, the libraries' work, words and exit codes out.

mod cluster;
mod command;
mod exit;
mod format;
mod input;
mod interrupt;
mod local;
mod nodes;
mod print;
mod scrape;
mod tally;
mod time;
mod usage;

#[cfg(test)]
#[path = "../../fuzz/src/csv_rows.rs"]
mod csv_rows;

use std::process::ExitCode;

use clap::Parser;

use command::Command;
use print::Printer;

/// A replicated log that keeps what it acknowledges: on disk, on a quorum.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, max_term_width = 100, after_help = exit::HELP)]
struct Arguments {
    /// Print one JSON object a line instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::report(&error),
    };
    let printer = Printer::new(arguments.json);
    match arguments.command.run(&printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

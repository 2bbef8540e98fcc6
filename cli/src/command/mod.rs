//! The subcommands, one file each.

mod bench;
mod config;
mod consume;
mod demo;
mod dev;
mod init;
mod log;
mod produce;
mod start;
mod status;
mod topic;

use clap::Subcommand;

use crate::exit::Failure;
use crate::print::Printer;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Arguments),
    Dev(dev::Arguments),
    Init(init::Arguments),
    Start(start::Arguments),
    Config(config::Arguments),
    Topic(topic::Arguments),
    Status(status::Arguments),
    Produce(produce::Arguments),
    Consume(consume::Arguments),
    Log(log::Arguments),
    Bench(bench::Arguments),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// With the kind that decides the exit code, and a line for a person.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Demo(arguments) => arguments.run(printer),
            Self::Dev(arguments) => arguments.run(printer),
            Self::Init(arguments) => arguments.run(printer),
            Self::Start(arguments) => arguments.run(printer),
            Self::Config(arguments) => arguments.run(printer),
            Self::Topic(arguments) => arguments.run(printer),
            Self::Status(arguments) => arguments.run(printer),
            Self::Produce(arguments) => arguments.run(printer),
            Self::Consume(arguments) => arguments.run(printer),
            Self::Log(arguments) => arguments.run(printer),
            Self::Bench(arguments) => arguments.run(printer),
        }
    }
}

/// `KEY=VALUE`, as clap reads it.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

//! Output: text for people or one JSON object a line, on stdout; a closed pipe ends quietly.

use std::io::{self, Write};

use serde_json::Value;

use crate::exit::Failure;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    /// Prints JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints one result, in the form that was asked for.
    ///
    /// # Errors
    /// When stdout cannot be written. A reader that has left (`| head`) is no error: the
    /// process ends there, quietly.
    pub(crate) fn line(
        self,
        text: impl FnOnce() -> String,
        object: impl FnOnce() -> Value,
    ) -> Result<(), Failure> {
        write_all(self.format(text, object).as_bytes())
    }

    /// The same, for what has processes to end and folders to remove before the process may end.
    ///
    /// # Errors
    /// [`ReaderGone`] when the reader has left, or another when stdout cannot be written.
    pub(crate) fn line_while_read(
        self,
        text: impl FnOnce() -> String,
        object: impl FnOnce() -> Value,
    ) -> anyhow::Result<()> {
        match write(self.format(text, object).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
            result => Ok(result?),
        }
    }

    fn format(self, text: impl FnOnce() -> String, object: impl FnOnce() -> Value) -> String {
        let line = match self.json {
            true => object().to_string(),
            false => text(),
        };
        format!("{line}\n")
    }
}

/// Whoever reads stdout has left.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
pub(crate) struct ReaderGone;

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes to stdout; ends the process quietly where its reader has left.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub(crate) fn write_all(bytes: &[u8]) -> Result<(), Failure> {
    match write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

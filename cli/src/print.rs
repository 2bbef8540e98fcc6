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
        let line = if self.json {
            object().to_string()
        } else {
            text()
        };
        write_all(format!("{line}\n").as_bytes())
    }
}

/// Writes to stdout; ends the process quietly where its reader has left.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub(crate) fn write_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

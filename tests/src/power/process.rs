//! A writer's process, as seen by whoever cuts its power.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::message::{Message, parse};
use super::writer::Life;

/// The word on the command line that makes the binary a writer.
pub(super) const WRITER: &str = "writer";

/// Messages that wait to be looked at, at most; then the writer waits.
const MESSAGES_MAX: usize = 10_000;

/// A writer that runs, or has ended.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    messages: Receiver<Message>,
    reader: Option<JoinHandle<()>>,
}

/// What came of waiting for a message.
#[derive(Debug)]
pub(super) enum Heard {
    /// This.
    Message(Message),
    /// The writer has ended, or has closed its end of the pipe.
    End,
    /// Nothing in time.
    Nothing,
}

impl Process {
    /// Starts a writer, which dies with the thread that starts it; what it complains of goes to
    /// the file `errors`.
    pub(super) fn start(life: &Life, errors: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(std::env::current_exe()?).arg(WRITER);
        command.arg(serde_json::to_string(life)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(File::create(errors)?).spawn()?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let (to, messages) = sync_channel(MESSAGES_MAX);
        let reader = thread::spawn(move || {
            let lines = BufReader::new(output).lines();
            let whole = lines.map_while(Result::ok).map_while(|line| parse(&line));
            for message in whole {
                if to.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Process {
            child,
            messages,
            reader: Some(reader),
        })
    }

    /// The next message, or that there is none by then.
    pub(super) fn hear(&self, by: Instant) -> Heard {
        let left = by.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left) {
            Ok(message) => Heard::Message(message),
            Err(RecvTimeoutError::Disconnected) => Heard::End,
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
        }
    }

    /// Kills it, and gives all that it has still said.
    pub(super) fn kill(mut self) -> anyhow::Result<Vec<Message>> {
        self.child.kill()?;
        Ok(self.messages.iter().collect())
    }
}

impl Drop for Process {
    /// The disk is free when it has gone.
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.messages = sync_channel(0).1;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// So long a writer may be silent that is to do something: far longer than it should.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

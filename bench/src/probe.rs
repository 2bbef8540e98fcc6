//! What the disk does by itself while a load runs: small synced writes at a low fixed rate. A disk
//! that stands still for all, as shared ones do, is told from a log that keeps its records waiting.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::latency::Latencies;
use crate::limits::disk::SmallWrites;
use crate::pace::due;

/// Writes a second: a few hundredths of what a disk takes of these.
const RATE: u32 = 200;

/// How late a timer may be. From then on it was the disk that kept the write waiting.
const TIMER: Duration = Duration::from_millis(1);

/// A thread that writes 4 KiB, synced, 200 times a second, to a file that was written before.
#[derive(Debug)]
pub struct DiskProbe {
    /// The thread ends with it.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Latencies>>>,
}

impl DiskProbe {
    /// Starts it in a scratch directory within `folder`. Its first write is done then.
    ///
    /// # Errors
    /// When the directory cannot be written, or there is no thread.
    pub fn start(folder: &Path) -> Result<DiskProbe> {
        let folder = folder.to_owned();
        let (running, ended) = channel();
        let (first, ready) = channel();
        let thread = std::thread::Builder::new()
            .name("disk-probe".to_owned())
            .spawn(move || write(folder, &first, &ended))?;
        let probe = DiskProbe {
            running: Some(running),
            thread: Some(thread),
        };
        match ready.recv() {
            Ok(()) => Ok(probe),
            // It has ended without: it says why.
            Err(_) => Err(probe.end().err().unwrap_or_else(|| anyhow!("it has ended"))),
        }
    }

    /// Ends it. Gives how long each write took from when it was to be made, or from when it was, if
    /// that was in time.
    ///
    /// # Errors
    /// When the disk has failed.
    pub fn end(mut self) -> Result<Latencies> {
        self.running = None;
        let thread = self.thread.take().context("it ends once")?;
        let ended = thread.join();
        ended.map_err(|_| anyhow!("the disk's probe has panicked"))?
    }
}

impl Drop for DiskProbe {
    /// Waits for the write that is under way, and until its directory is gone.
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // What it has to say is of no use to anybody any more.
            let _ = thread.join();
        }
    }
}

fn write(folder: PathBuf, first: &Sender<()>, ended: &Receiver<()>) -> Result<Latencies> {
    let mut writes = SmallWrites::new(&folder)?;
    let mut latencies = Latencies::default();
    let start = Instant::now();
    let (mut number, mut due_at) = (0, start);
    loop {
        let now = Instant::now();
        writes.write()?;
        let since = match now.saturating_duration_since(due_at) > TIMER {
            true => due_at,
            false => now,
        };
        latencies.record(since.elapsed());
        if number == 0 {
            first.send(())?;
        }
        number += 1;
        due_at = start + due(number, RATE);
        let wait = due_at.saturating_duration_since(Instant::now());
        if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return Ok(latencies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_at_its_rate_until_it_is_ended_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let probe = DiskProbe::start(folder.path()).unwrap();
        let latencies = probe.end().unwrap();
        let most = began.elapsed().as_secs_f64() * f64::from(RATE) + 1.0;
        assert!((1.0..=most).contains(&(latencies.count() as f64)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(DiskProbe::start(folder.path()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = DiskProbe::start(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(
            format!("{error:#}").contains("/nowhere/at/all"),
            "{error:#}"
        );
    }
}

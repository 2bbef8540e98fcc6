//! Processes that stop where they are, before their machine's power is cut.
//!
//! A file system that was shut down under a process that lives on may lie to it: on ext4 and XFS
//! an fdatasync(2) that the shutdown meets can give success and lose the data (seen on Linux 6.18).
//! The process would acknowledge what a real power cut, which ends it too, would never have let it
//! say. So it is stopped first. What it has asked the kernel for goes on, and is cut short.

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to stop, which is about as long as its longest system call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel's threads for io_uring are called, which run no code of the process.
const RING_THREADS: &str = "iou-";

/// Stops these processes, and waits until none of them runs code of its own any more. One that
/// has ended is left out.
///
/// # Errors
///
/// If one goes on running, or cannot be looked at.
pub(crate) fn stop(processes: &[Pid]) -> anyhow::Result<()> {
    for &process in processes {
        match kill_process(process, Signal::STOP) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).context("stopping a process"),
        }
    }
    processes.iter().try_for_each(|&process| wait(process))
}

fn wait(process: Pid) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while runs(process)? {
        ensure!(Instant::now() < deadline, "{process:?} does not stop");
        thread::yield_now();
    }
    Ok(())
}

/// Whether any thread may still run code of the process.
fn runs(process: Pid) -> anyhow::Result<bool> {
    let path = format!("/proc/{}/task", process.as_raw_nonzero());
    let threads = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        threads => threads.context(path)?,
    };
    for thread in threads {
        let Ok(thread) = thread else { continue };
        // One that cannot be read has ended.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        if may_run(&stat) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a thread may run code of its process, by its line in proc_pid_stat(5): it does not if
/// it is stopped, has ended, or is in a system call that stops it before it comes back (`D`).
fn may_run(stat: &str) -> bool {
    let Some((before, after)) = stat.rsplit_once(") ") else {
        return false;
    };
    let is_of_kernel = before
        .split_once('(')
        .is_some_and(|(_, name)| name.starts_with(RING_THREADS));
    !is_of_kernel && !after.starts_with(['T', 't', 'D', 'Z', 'X'])
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn stopped_waiting_and_kernel_threads_run_nothing() {
        for still in [
            "7 (highwater) T 1 7",
            "7 (a) b) t 1 7",
            "7 (highwater) D 1 7",
            "7 (highwater) Z 1 7",
            "7 (iou-wrk-7) S 1 7",
            "",
        ] {
            assert!(!may_run(still), "{still}");
        }
        assert!(may_run("7 (highwater) R 1 7"));
        assert!(may_run("7 (a) T) S 1 7"));
    }

    #[test]
    fn a_stopped_process_says_no_more() {
        let mut talker = Command::new("yes");
        let mut talker = talker.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(talker.stdout.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        let pid = Pid::from_raw(i32::try_from(talker.id()).unwrap()).unwrap();
        assert!(runs(pid).unwrap());
        stop(&[pid]).unwrap();
        assert!(!runs(pid).unwrap());
        talker.kill().unwrap();
        talker.wait().unwrap();
        stop(&[pid]).unwrap();
    }
}

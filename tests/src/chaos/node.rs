//! One node: a process of `highwater start`, and what can be done to it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};

use super::cgroup::Cgroup;
use super::disk::Disk;
use super::net::Namespace;

/// How long an end that was asked for may take; timing decides nothing, this ends what hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked.
const POLL: Duration = Duration::from_millis(10);

/// Where Debian's package `faketime` has what fakes the clock of threads too.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Below what any node has open, so that nothing more can be.
const DESCRIPTORS_FEW: u64 = 16;

/// What makes a node, and does not change.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    /// Its number.
    pub(crate) id: usize,
    /// The program.
    pub(crate) binary: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// Options on top: `KEY=VALUE`.
    pub(crate) options: Vec<String>,
    /// Where its output and its log go.
    pub(crate) logs: PathBuf,
    /// Whether its wall clock can be shifted.
    pub(crate) has_clock: bool,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    plan: NodePlan,
    namespace: Arc<Namespace>,
    /// Where its data lie.
    pub(crate) disk: Disk,
    cgroup: Option<Cgroup>,
    process: Option<Child>,
    is_ready: bool,
    /// What a fault lets happen to the process without it being held against the node.
    excuse: Excuse,
    /// The one that makes a sync fail.
    tracer: Option<Child>,
}

/// What a fault lets happen to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    /// Nothing: it runs.
    None,
    /// It was told to end: it is awaited before it is started again.
    End,
    /// It may end, and is broken if it has not: it is ended before it is started again.
    Broken,
}

/// Whether clocks can be shifted here.
pub(crate) fn can_shift_clocks() -> bool {
    Path::new(FAKETIME).exists()
}

impl Node {
    pub(crate) fn new(
        plan: NodePlan,
        namespace: Arc<Namespace>,
        disk: Disk,
        cgroup: Option<Cgroup>,
    ) -> anyhow::Result<Self> {
        let node = Self {
            plan,
            namespace,
            disk,
            cgroup,
            process: None,
            is_ready: false,
            excuse: Excuse::None,
            tracer: None,
        };
        if node.plan.has_clock {
            node.shift_clock(0)?;
        }
        Ok(node)
    }

    fn file(&self, ending: &str) -> PathBuf {
        let name = format!("node-{}.{ending}", self.plan.id);
        self.plan.logs.join(name)
    }

    /// Starts it, unless it runs. A process that a fault has left broken is ended before, and
    /// its disk is mounted anew.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.settle()?;
        if self.process.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("log"))?;
        let mut command = self.command();
        command.stdout(File::create(self.file("out"))?).stderr(log);
        let process = self.namespace.inside(move || command.spawn());
        let process = process.context("setpriv and the node's program")?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.take(process.id())?;
        }
        self.process = Some(process);
        self.is_ready = false;
        Ok(())
    }

    /// What a fault has left of the last process is ended.
    fn settle(&mut self) -> anyhow::Result<()> {
        match std::mem::replace(&mut self.excuse, Excuse::None) {
            Excuse::None => {}
            Excuse::End => self.wait_for_end()?,
            Excuse::Broken => {
                self.kill();
                if matches!(self.disk, Disk::Image(_)) {
                    self.disk.restore_power()?;
                }
            }
        }
        Ok(())
    }

    /// It dies with the thread that starts it.
    fn command(&self) -> Command {
        let plan = &self.plan;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&plan.binary)
            .args(["--json", "start", "--config"])
            .arg(&plan.config)
            .arg("--set")
            .arg(format!("node.data_dir={}", self.disk.data().display()))
            .stdin(Stdio::null());
        for option in &plan.options {
            command.args(["--set", option]);
        }
        if plan.has_clock {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", self.file("clock"))
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("DONT_FAKE_MONOTONIC", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Whether it runs and has said that it is ready.
    pub(crate) fn is_ready(&mut self) -> bool {
        if self.process.is_some() && !self.is_ready {
            let said = fs::read_to_string(self.file("out")).unwrap_or_default();
            self.is_ready = said.contains("\"ready\"");
        }
        self.process.is_some() && self.is_ready
    }

    /// If its process has ended although nobody asked: how.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.excuse == Excuse::End {
            // Whoever awaits it looks how it ended.
            return None;
        }
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        self.reap();
        (self.excuse == Excuse::None).then_some(status)
    }

    /// Kills it; waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.send_kill();
        self.reap();
    }

    /// Kills it.
    pub(crate) fn send_kill(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
        }
    }

    /// Waits until a killed process is gone.
    pub(crate) fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.wait();
            if self.plan.has_clock {
                forget_faketime(process.id());
            }
        }
        self.end_tracer();
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&mut self) -> anyhow::Result<()> {
        self.excuse = Excuse::End;
        self.signal(Signal::TERM)
    }

    /// Waits until it has ended, well.
    pub(crate) fn wait_for_end(&mut self) -> anyhow::Result<()> {
        let was_ready = self.is_ready();
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "node {} does not end",
                self.plan.id
            );
            std::thread::sleep(POLL);
        };
        // Nobody else awaits it.
        self.reap();
        // Before it is ready it may not have said yet what is to be done with the signal.
        let is_early = !was_ready && status.signal() == Some(Signal::TERM.as_raw());
        ensure!(
            status.success() || is_early,
            "node {} ended with {status}",
            self.plan.id
        );
        Ok(())
    }

    /// Stops it where it is, or lets it go on.
    pub(crate) fn pause(&self, is_paused: bool) -> anyhow::Result<()> {
        self.signal(if is_paused {
            Signal::STOP
        } else {
            Signal::CONT
        })
    }

    /// A signal, if it runs.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match self.pid() {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    /// The number of its process, if it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let id = self.process.as_ref()?.id();
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    /// Its disk is broken from now on: whatever it does, the next start is a new process.
    pub(crate) fn break_disk(&mut self) {
        self.excuse = Excuse::Broken;
    }

    /// Undoes what faults have done to it, and ends what they have left; it is to be started.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        self.pause(false)?;
        self.allow_descriptors(true)?;
        if self.cgroup.is_some() {
            self.starve(None)?;
        }
        if self.plan.has_clock {
            self.shift_clock(0)?;
        }
        if matches!(self.disk, Disk::Image(_)) && self.excuse != Excuse::Broken {
            self.disk.empty()?;
        }
        self.settle()
    }

    /// Makes its next sync fail, once. It is killed if there is none until its next start.
    pub(crate) fn fail_sync(&mut self) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else {
            bail!("it does not run");
        };
        let tracer = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:error=EIO:when=1"])
            .args(["-p", &pid.as_raw_nonzero().to_string()])
            .arg("-o")
            .arg(self.file("strace"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("strace")?;
        self.tracer = Some(tracer);
        self.excuse = Excuse::Broken;
        Ok(())
    }

    fn end_tracer(&mut self) {
        if let Some(mut tracer) = self.tracer.take() {
            // It ends by itself when what it traces has ended.
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
    }

    /// So many percent of a core.
    pub(crate) fn starve(&self, percent: Option<u32>) -> anyhow::Result<()> {
        let group = self.cgroup.as_ref().context("no control group")?;
        Ok(group.limit(percent)?)
    }

    /// Takes all further descriptors away, or gives them back.
    pub(crate) fn allow_descriptors(&self, are_allowed: bool) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let now = rustix::process::getrlimit(Resource::Nofile);
        let current = match are_allowed {
            true => now.current,
            false => Some(DESCRIPTORS_FEW),
        };
        let maximum = now.maximum;
        let limit = Rlimit { current, maximum };
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit)?;
        Ok(())
    }

    /// Its wall clock is ahead by so many seconds; libfaketime looks every second.
    pub(crate) fn shift_clock(&self, seconds: i64) -> anyhow::Result<()> {
        // In one piece, since it may be read at any time.
        let new = self.file("clock.new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, self.file("clock"))?)
    }
}

/// Removes what libfaketime leaves of a process.
fn forget_faketime(process: u32) {
    for name in ["faketime_shm", "sem.faketime_sem"] {
        let _ = fs::remove_file(format!("/dev/shm/{name}_{process}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

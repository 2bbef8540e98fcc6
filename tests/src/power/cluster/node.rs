//! One node: a process of `highwater start`, and its disk.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Settings, wait_for};
use crate::disk_image::DiskImage;

/// How much of a node's log is told when it has ended, in lines.
const LOG_LINES_TOLD: usize = 10;

/// A node. Its process ends with it.
#[derive(Debug)]
pub struct Node {
    id: u16,
    config: PathBuf,
    options: Vec<String>,
    /// Standard output of the process that runs, where it says that it is ready.
    output: PathBuf,
    /// Standard error of all processes so far.
    log: PathBuf,
    process: Option<Child>,
    /// Nothing once it is kept.
    disk: Option<DiskImage>,
}

impl Node {
    /// Puts what `highwater init` has made for a node on a disk of its own.
    pub(super) fn make(
        id: u16,
        settings: &Settings,
        root: &Path,
        folder: &Path,
    ) -> anyhow::Result<Node> {
        let name = format!("node-{id}");
        let made = root.join(&name);
        let disk = DiskImage::create(folder, &name, settings.file_system, settings.disk_bytes)?;
        let data = disk.path().join("data");
        let mut copy = Command::new("cp");
        let copied = copy.arg("-a").arg(made.join("data")).arg(&data).status()?;
        ensure!(copied.success(), "{copy:?}: {copied}");
        // What init has made durable is durable here too.
        rustix::fs::syncfs(File::open(disk.path())?)?;
        let options = vec![
            format!("node.data_dir={}", data.display()),
            format!("node.storage={}", settings.storage),
        ];
        Ok(Node {
            id,
            config: made.join("highwater.toml"),
            options,
            output: folder.join(format!("{name}.out")),
            log: folder.join(format!("{name}.log")),
            process: None,
            disk: Some(disk),
        })
    }

    /// Its disk.
    ///
    /// # Panics
    ///
    /// Never: only a node that is gone has none.
    #[must_use]
    pub fn disk(&self) -> &DiskImage {
        self.disk.as_ref().expect("a node has a disk until its end")
    }

    /// Its disk. Nobody may use it while it is mounted anew.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn disk_mut(&mut self) -> &mut DiskImage {
        self.disk.as_mut().expect("a node has a disk until its end")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.disk().path().join("data")
    }

    /// The id of its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The same, for signals.
    pub(super) fn process_id(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid()?).ok()?)
    }

    /// What it has said of its lives so far.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Starts it, unless it runs. It dies with the thread that starts it.
    pub(super) fn spawn(&mut self, binary: &Path) -> anyhow::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
            .args(["--json", "start", "--config"])
            .arg(&self.config);
        for option in &self.options {
            command.args(["--set", option]);
        }
        command.stdin(Stdio::null()).stderr(log?);
        command.stdout(File::create(&self.output)?);
        self.process = Some(command.spawn().context("setpriv")?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it ends instead.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let what = format!("node {} to be ready", self.id);
        wait_for(&what, || {
            if let Some(status) = self.has_ended()? {
                let log = self.log()?;
                let lines: Vec<&str> = log.lines().collect();
                let told = lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n");
                anyhow::bail!("node {} has ended: {status}\n{told}", self.id);
            }
            let output = fs::read_to_string(&self.output)?;
            Ok(output.contains("\"ready\"").then_some(()))
        })
    }

    /// How its process has ended, if it has.
    ///
    /// # Errors
    ///
    /// If it never was started.
    pub fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let process = self.process.as_mut().context("it does not run")?;
        Ok(process.try_wait()?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_for_end(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("node {} to end", self.id);
        let status = wait_for(&what, || self.has_ended())?;
        self.process = None;
        Ok(status)
    }

    /// Asks it to end, and waits until it has, well.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.process_id().context("it does not run")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.wait_for_end()?;
        ensure!(status.success(), "node {} has ended: {status}", self.id);
        Ok(())
    }

    /// Kills it.
    pub(super) fn send_kill(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
        }
    }

    /// Waits until the killed process is gone.
    pub(super) fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Nobody else waits for it.
            let _ = process.wait();
        }
    }

    /// Ends it, and keeps its disk. Gives the path.
    pub(super) fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.send_kill();
        self.reap();
        self.disk.take().context("it has a disk")?.keep()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.send_kill();
        self.reap();
    }
}

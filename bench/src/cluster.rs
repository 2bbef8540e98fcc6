//! A cluster of processes on this machine, for the time of a measurement.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use highwater_client::{Client, Datagrams};
use tempfile::TempDir;

/// Where base ports are sought: below what the system itself gives away.
const BASE_PORTS: std::ops::Range<u16> = 10_000..30_000;

/// What `highwater init` adds to the base port for Kafka, peers and metrics.
const ABOVE: [u16; 3] = [0, 100, 200];

/// How often a base port is sought.
const SEARCHES_MAX: usize = 1_000;

/// How long a node may take to end after it was told to.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How long the files of a deleted topic may take to go.
const EMPTY_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Processes of `highwater start` in a temporary folder. Dropping it ends them and removes the
/// folder.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<Child>,
    folder: TempDir,
    bootstrap: String,
}

impl LocalCluster {
    /// Makes a cluster of `nodes` nodes below `folder`, with options as `KEY=VALUE`, and starts it
    /// by running `executable`.
    ///
    /// # Errors
    /// When the folder cannot be written, or a node does not start.
    pub fn start(executable: &Path, folder: &Path, nodes: u16, set: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("highwater-bench-")
            .tempdir_in(folder)
            .with_context(|| format!("cannot make a folder in {}", folder.display()))?;
        let base = free_base_port(nodes)?;
        init(executable, folder.path(), nodes, base)?;
        let ports = (0..nodes).map(|id| format!("127.0.0.1:{}", base + id));
        let mut cluster = Self {
            nodes: Vec::new(),
            bootstrap: ports.collect::<Vec<_>>().join(","),
            folder,
        };
        for id in 0..nodes {
            let config = cluster
                .folder
                .path()
                .join(format!("node-{id}/highwater.toml"));
            cluster.nodes.push(start(executable, &config, set)?);
        }
        cluster.nodes.iter_mut().try_for_each(wait_until_ready)?;
        Ok(cluster)
    }

    /// Its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Child::id).collect()
    }

    /// A client of it, over QUIC, with payloads of up to so much, or TCP.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn connect(&self, quic: bool, datagrams: Datagrams) -> Result<Client> {
        let builder = Client::builder()
            .bootstrap(&self.bootstrap)
            .datagrams(datagrams);
        let builder = match quic {
            true => builder.quic(self.ca()),
            false => builder.tcp(),
        };
        Ok(builder.connect().await?)
    }

    /// Waits until no topic's files are left: a deletion goes on after it was answered.
    ///
    /// # Errors
    /// When they do not go, or the folder cannot be read.
    pub async fn wait_until_empty(&self) -> Result<()> {
        let give_up = Instant::now() + EMPTY_PATIENCE;
        for id in 0..self.nodes.len() {
            let groups = self.folder.path().join(format!("node-{id}/data/groups"));
            // The controller's stays.
            while std::fs::read_dir(&groups)?.count() > 1 {
                if Instant::now() > give_up {
                    bail!("the files of a deleted topic do not go");
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Tells all nodes to end, and waits for them.
    ///
    /// # Errors
    /// When one had failed, or does not end.
    pub fn stop(mut self) -> Result<()> {
        for node in &self.nodes {
            let pid = i32::try_from(node.id())?;
            let pid = rustix::process::Pid::from_raw(pid).context("a process has an id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let give_up = Instant::now() + STOP_PATIENCE;
        for node in &mut self.nodes {
            loop {
                match node.try_wait()? {
                    Some(status) if status.success() => break,
                    Some(status) => bail!("a node ended with {status}"),
                    None if Instant::now() > give_up => bail!("a node does not end"),
                    None => std::thread::sleep(POLL),
                }
            }
        }
        Ok(())
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // One that has ended cannot be ended again.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn init(executable: &Path, folder: &Path, nodes: u16, base: u16) -> Result<()> {
    let done = Command::new(executable)
        .arg("init")
        .arg(folder)
        .args([
            "--nodes",
            &nodes.to_string(),
            "--base-port",
            &base.to_string(),
        ])
        .output()
        .with_context(|| format!("cannot run {}", executable.display()))?;
    if !done.status.success() {
        bail!("{}", String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(())
}

fn start(executable: &Path, config: &Path, set: &[String]) -> Result<Child> {
    let mut command = Command::new(executable);
    command.args(["--json", "start", "--config"]).arg(config);
    for option in set {
        command.args(["--set", option]);
    }
    command
        .env("HIGHWATER_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// A node says so in its first line; why not, it says on stderr.
fn wait_until_ready(node: &mut Child) -> Result<()> {
    let stdout = node.stdout.take().context("its stdout is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match line.is_empty() {
        true => bail!("a node did not start"),
        false => Ok(()),
    }
}

/// A base port for `highwater init` from which on all that it takes is free.
fn free_base_port(nodes: u16) -> Result<u16> {
    let is_free = |port: u16| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    let are_free = |base: &u16| {
        let mut all = ABOVE
            .into_iter()
            .flat_map(|above| (0..nodes).map(move |id| above + id));
        all.all(|above| is_free(base + above))
    };
    std::iter::repeat_with(|| fastrand::u16(BASE_PORTS))
        .take(SEARCHES_MAX)
        .find(are_free)
        .context("no free ports on 127.0.0.1")
}

//! One node: a process of `highwater start`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, wait_for};

/// How a process is started: `Command::spawn`, or something before it.
pub(crate) type Launch = fn(&mut Command) -> io::Result<Child>;

pub(crate) struct Node {
    id: u16,
    base_port: u16,
    /// What `highwater init` has made for it.
    folder: PathBuf,
    /// Standard output of the process that runs, where it says that it is ready.
    output: PathBuf,
    /// Standard error of all processes so far.
    log: PathBuf,
    options: Vec<String>,
    launch: Launch,
    /// A program that runs the node, and what it is told before.
    under: Vec<String>,
    process: Option<Child>,
}

impl Node {
    pub(super) fn new(id: u16, base_port: u16, root: &Path, logs: &Path, options: &[&str]) -> Self {
        Self {
            id,
            base_port,
            folder: root.join(format!("node-{id}")),
            output: logs.join(format!("node-{id}.out")),
            log: logs.join(format!("node-{id}.log")),
            options: options.iter().map(ToString::to_string).collect(),
            launch: Command::spawn,
            under: Vec::new(),
            process: None,
        }
    }

    /// Its processes are started in this way from now on.
    pub(crate) fn launch_by(&mut self, launch: Launch) {
        self.launch = launch;
    }

    /// It is run by this program from now on, which becomes it: `unshare`, for instance.
    pub(crate) fn run_under(&mut self, program: &[&str]) {
        self.under = program.iter().map(ToString::to_string).collect();
    }

    pub(crate) fn kafka(&self) -> SocketAddr {
        self.address(0)
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.address(100)
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.address(200)
    }

    fn address(&self, above: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base_port + above + self.id).into()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("highwater.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// What the node has said so far.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// What it tells of itself over HTTP, in Prometheus' text format.
    pub(crate) fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// One of its numbers, such as `memory_used_bytes`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.scrape();
        let start = format!("highwater_{name}{{");
        let line = text.lines().find(|line| line.starts_with(&start));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Command {
        let words = self.under.iter().map(String::as_str);
        let mut words = words.chain([env!("CARGO_BIN_EXE_highwater")]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).args(["--json", "start", "--config"]);
        command.arg(self.config()).stdin(Stdio::null());
        for option in &self.options {
            command.args(["--set", option]);
        }
        command
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts it, if it does not run.
    pub(crate) fn spawn(&mut self) {
        if self.process.is_some() {
            return;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let mut command = self.command();
        command
            .stdout(File::create(&self.output).unwrap())
            .stderr(log.unwrap());
        self.process = Some((self.launch)(&mut command).unwrap());
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        let what = format!("node {} to be ready", self.id);
        wait_for(&what, || {
            let ended = self.process().try_wait().unwrap();
            assert_eq!(ended, None, "node {} ended instead of starting", self.id);
            let output = fs::read_to_string(&self.output).unwrap();
            output.contains("\"ready\"").then_some(())
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    fn process(&mut self) -> &mut Child {
        self.process.as_mut().expect("the node runs")
    }

    /// `kill -9`; waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.send_kill();
        self.reap();
    }

    pub(super) fn send_kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
        }
    }

    pub(super) fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.pid()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Asks it to end, and waits until it has, well.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_for_end();
        assert!(status.success(), "node {}: {status}", self.id);
    }

    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let what = format!("node {} to end", self.id);
        let status = wait_for(&what, || self.process().try_wait().unwrap());
        self.process = None;
        status
    }
}

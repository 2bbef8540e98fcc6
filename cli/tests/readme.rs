//! README's screens, run as they stand: the commands are taken from its text. What is different
//! here are the binary in place of `cargo run`, free ports, and a temporary folder.
//!
//! kcat's lines are run where kcat is: by `tests/clients/run.py`.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use cluster::{free_base_port, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const README: &str = include_str!("../../README.md");
const SAMPLE: &str = include_str!("../data/flights-sample.csv");

/// How README runs the binary.
const CARGO_RUN: &str = "cargo run --release --";

/// Kafka's port of node 0, there.
const README_PORT: u16 = 9092;

const NODES: u16 = 3;

/// The commands of a section.
fn screen(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(&format!("## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(command_of).collect()
}

/// The command that an indented line is, if it is one.
fn command_of(line: &str) -> Option<&str> {
    line.strip_prefix("    ")
        .filter(|line| !line.starts_with(' '))
}

/// A folder like a fresh clone, as far as README's commands look at it, and free ports.
struct Shell {
    folder: TempDir,
    base_port: u16,
    /// The `export` lines so far.
    exports: Vec<String>,
    nodes: Vec<Child>,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("cli/data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("flights-sample.csv"), SAMPLE).unwrap();
        Self {
            folder,
            base_port: free_base_port(NODES),
            exports: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// What the shell gets instead of a line of README.
    fn translated(&self, line: &str) -> String {
        let mut line = line.replace(CARGO_RUN, env!("CARGO_BIN_EXE_highwater"));
        for node in 0..NODES {
            let port = |base: u16| format!("127.0.0.1:{}", base + node);
            line = line.replace(&port(README_PORT), &port(self.base_port));
        }
        if line.contains(" init ") {
            line = format!("{line} --base-port {}", self.base_port);
        }
        line
    }

    fn command(&self, line: &str) -> Command {
        let mut lines = self.exports.clone();
        lines.push(format!("exec {}", self.translated(line)));
        let mut command = Command::new("sh");
        command.args(["-ec", &lines.join("\n")]);
        for variable in ["HIGHWATER_BOOTSTRAP", "HIGHWATER_CA", "HIGHWATER_LOG"] {
            command.env_remove(variable);
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// What a command prints that must succeed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{line}: {status}: {stderr}");
        String::from_utf8(stdout).unwrap()
    }

    /// Starts the node of this line, and those that its comment speaks of.
    fn start_nodes(&mut self, line: &str) {
        let (line, others) = line.split_once("    # and ").unwrap();
        for node in ["node-0"].into_iter().chain(others.split(", ")) {
            let mut command = self.command(&line.replace("node-0", node));
            let log = self.folder.path().join(format!("{node}.log"));
            let log = std::fs::File::create(log).unwrap();
            command.stdout(Stdio::null()).stderr(log);
            self.nodes.push(command.spawn().unwrap());
        }
    }

    /// Waits until each node is a member: who types the next command is slower than that.
    fn wait_until_joined(&self) {
        let status = format!("{CARGO_RUN} --json status");
        wait_for("the nodes to join", || {
            let output = self.command(&status).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let alive = text.lines().filter(|line| line.contains("\"alive\":true"));
            (alive.count() == usize::from(NODES)).then_some(())
        });
    }

    fn stop_nodes(&mut self) {
        for node in &self.nodes {
            let id = i32::try_from(node.id()).unwrap();
            kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        }
        for mut node in self.nodes.drain(..) {
            let status = node.wait().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may have ended by itself.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

#[test]
fn three_processes_and_our_client() {
    let mut shell = Shell::new();
    for line in screen("Three processes") {
        if line.starts_with("export ") {
            shell.exports.push(shell.translated(line));
            shell.wait_until_joined();
        } else if line.contains(" start ") {
            shell.start_nodes(line);
        } else if line.contains(" log ") {
            shell.stop_nodes();
            shell.run(line);
        } else {
            check(line, &shell.run(line));
        }
    }
    assert!(
        shell.nodes.is_empty(),
        "README reads a stopped node's files"
    );
    assert_eq!(shell.exports.len(), 1);
}

/// What README lets a reader expect of a command.
#[track_caller]
fn check(line: &str, printed: &str) {
    if line.contains(" consume ") {
        let mut read: Vec<&str> = printed.lines().collect();
        let mut rows: Vec<&str> = SAMPLE.lines().skip(1).collect();
        read.sort_unstable();
        rows.sort_unstable();
        assert_eq!(read, rows, "{line}");
    }
    if line.contains(" status") {
        assert!(printed.contains("flights-5"), "{printed}");
    }
}

/// Those that are run elsewhere (`demo`, `dev`) do not have wrong flags either.
#[test]
fn every_command_of_ours_is_understood() {
    let ours: Vec<&str> = { README.lines().filter_map(command_of) }
        .filter(|line| line.starts_with(CARGO_RUN) && !line.contains(" -p "))
        .collect();
    for command in ["demo", "dev", "init", "start", "produce", "consume"] {
        let words = format!("{CARGO_RUN} {command}");
        let is_shown = ours.iter().any(|line| line.starts_with(&words));
        assert!(is_shown, "README does not show {command}");
    }
    let shell = Shell::new();
    for line in ours {
        let line = line.split(" #").next().unwrap();
        shell.run(&format!("{line} --help"));
    }
}

/// Files that README points to.
#[test]
fn what_is_linked_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let links = README.split("](").skip(1);
    let links: Vec<_> = links.map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 3, "{links:?}");
    for link in links {
        assert!(root.join(link).exists(), "{link}");
    }
}

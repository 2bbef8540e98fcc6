//! `highwater dev`, for tests of commands.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Nodes in one process, until this is dropped.
pub(crate) struct Dev {
    process: Child,
    bootstrap: String,
    _folder: TempDir,
}

impl Dev {
    pub(crate) fn start(nodes: u32, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args([
            "--json",
            "dev",
            "--port",
            "0",
            "--nodes",
            &nodes.to_string(),
        ]);
        command.arg("--dir").arg(folder.path().join("dev"));
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut ready = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let bootstrap = ready["bootstrap"].as_str().unwrap().to_owned();
        Self {
            process,
            bootstrap,
            _folder: folder,
        }
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut process = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(arguments)
            .env("HIGHWATER_BOOTSTRAP", &self.bootstrap)
            .env_remove("HIGHWATER_CA")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(input).unwrap();
        process.wait_with_output().unwrap()
    }

    /// What a command prints that must succeed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run_with(arguments, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

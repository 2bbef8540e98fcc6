//! `highwater bench` against `highwater dev`: what it says is what was done, however fast.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A cluster of one node, until this is dropped.
struct Dev {
    process: Child,
    bootstrap: String,
    folder: TempDir,
}

impl Dev {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(["--json", "dev", "--port", "0", "--nodes", "1", "--dir"])
            .arg(folder.path().join("dev"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let bootstrap = ready["bootstrap"].as_str().unwrap().to_owned();
        Self {
            process,
            bootstrap,
            folder,
        }
    }

    fn bench(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(["--json", "bench"])
            .args(arguments)
            .env("HIGHWATER_BOOTSTRAP", &self.bootstrap)
            .env_remove("HIGHWATER_CA")
            .output()
            .unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(output: &Output) -> Vec<Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_record_that_was_to_be_sent_is_read_and_two_runs_can_be_compared() {
    let dev = Dev::start();
    let run = |rate: &str| {
        let arguments = ["--seconds", "2", "--warm-up", "0.5", "--record-bytes", "64"];
        dev.bench(&[&["end-to-end", "--rate", rate][..], &arguments].concat())
    };
    let slow = run("200");
    let [durability, report] = &lines(&slow)[..] else {
        panic!("{slow:?}");
    };
    assert!(
        durability["durability"]
            .as_str()
            .unwrap()
            .contains("synced")
    );
    // By the rate alone, however late they were sent.
    assert_eq!(report["records"], 400);
    assert_eq!(report["rate"], 200);
    let (read, acknowledged) = (&report["read"]["max_us"], &report["acknowledged"]["p50_us"]);
    assert!(
        read.as_u64() > Some(0) && acknowledged.as_u64() > Some(0),
        "{report}"
    );

    let paths = ["a.json", "b.json"].map(|name| dev.folder.path().join(name));
    std::fs::write(&paths[0], &slow.stdout).unwrap();
    std::fs::write(&paths[1], &run("200").stdout).unwrap();
    let paths = paths.each_ref().map(|path| path.to_str().unwrap());
    let compared = lines(&dev.bench(&["compare", paths[0], paths[1]]));
    let figures = compared[0]["figures"].as_array().unwrap();
    let records = figures.iter().find(|it| it["figure"] == "records").unwrap();
    assert_eq!(records["of"], "end_to_end rate=200");
    assert_eq!(records["ratio"], 1.0);
    let nowhere = dev.bench(&["compare", paths[0], "nowhere.json"]);
    let stderr = String::from_utf8(nowhere.stderr).unwrap();
    assert!(
        !nowhere.status.success() && stderr.contains("nowhere.json"),
        "{stderr}"
    );
}

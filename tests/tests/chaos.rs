//! `chaos`, for half a minute: that it runs, finds nothing, and finds what is planted.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The server, which the same build has put beside this test.
fn server() -> Option<PathBuf> {
    let server = Path::new(env!("CARGO_BIN_EXE_chaos")).with_file_name("highwater");
    server.exists().then_some(server)
}

fn chaos(out: &Path, arguments: &[&str]) -> Option<Output> {
    let Some(server) = server() else {
        println!("skipped: no server beside the tests; cargo build --workspace --bin highwater");
        return None;
    };
    let run = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--scenario", "short"])
        .args(arguments)
        .arg("--binary")
        .arg(server)
        .arg("--out")
        .arg(out)
        .output();
    Some(run.unwrap())
}

#[test]
fn half_a_minute_of_faults_breaks_no_promise_and_a_lost_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let Some(run) = chaos(&folder.path().join("clean"), &[]) else {
        return;
    };
    let text = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    print!("{errors}{text}");
    assert!(run.status.success(), "{errors}{text}");
    assert!(text.contains("short: clean"), "{text}");

    let planted = ["--minutes", "0.1", "--spoil", "record"];
    let Some(run) = chaos(&folder.path().join("planted"), &planted) else {
        return;
    };
    let text = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{errors}{text}");
    assert!(text.contains("lost-on-node-middle"), "{text}");
}

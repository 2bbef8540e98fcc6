//! The binary where no cluster is: wrong usage, nobody there, nothing there. Each failure is one
//! line on stderr, with the exit code that `--help` documents.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn highwater(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(arguments)
        .env_remove("HIGHWATER_BOOTSTRAP")
        .env_remove("HIGHWATER_CA")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for this test")
}

/// Runs it and expects one line on stderr that mentions `words`.
#[track_caller]
fn check_failure(arguments: &[&str], code: i32, words: &str) {
    let output = highwater(arguments);
    let stderr = String::from_utf8(output.stderr).expect("stderr is text");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("highwater: "), "{stderr}");
    assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
}

/// A port of this machine at which nobody listens.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    address.to_string()
}

#[test]
fn wrong_usage_is_code_2() {
    check_failure(&["consume", "flights", "--formt", "x"], 2, "--format");
    check_failure(&["topic", "create"], 2, "<TOPIC>");
    check_failure(&["consume", "fl/ights"], 2, "fl/ights");
    check_failure(&["consume", "flights", "--format", "%q"], 2, "%q");
    check_failure(&["consume", "flights", "--from", "soon"], 2, "soon");
    check_failure(&["produce", "flights", "-z", "rar"], 2, "zstd");
    check_failure(
        &["topic", "create", "flights", "--config", "x"],
        2,
        "KEY=VALUE",
    );
    check_failure(&["nonsense"], 2, "nonsense");
}

#[test]
fn wrong_configuration_is_code_3() {
    check_failure(
        &["config", "--config", "/nonexistent.toml"],
        3,
        "/nonexistent.toml",
    );
    check_failure(&["config", "--set", "node.nonsense=1"], 3, "node.nonsense");
    let quic = ["topic", "list", "--transport", "quic"];
    check_failure(&quic, 3, "--ca");
    let quic = [
        "topic",
        "list",
        "--transport",
        "quic",
        "--ca",
        "/nonexistent.pem",
    ];
    check_failure(&quic, 3, "/nonexistent.pem");
    check_failure(&["topic", "list", "--bootstrap", "nowhere"], 3, "nowhere");
}

#[test]
fn an_absent_server_is_code_4_and_the_line_says_how_to_start_one() {
    let address = free_port();
    for command in [
        &["topic", "list"][..],
        &["topic", "describe", "flights"],
        &["produce", "flights"],
        &["consume", "flights"],
        &["status"],
    ] {
        let arguments = [command, &["--bootstrap", &address]].concat();
        check_failure(&arguments, 4, "highwater dev");
        check_failure(&arguments, 4, &address);
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let arguments = ["produce", "flights", "--file", "/nonexistent.csv"];
    check_failure(&arguments, 1, "/nonexistent.csv");
    check_failure(&["produce", "flights", "--file", "/"], 1, "cannot read /");
}

#[test]
fn the_bootstrap_address_comes_from_the_environment_too() {
    let address = free_port();
    let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["topic", "list"])
        .env("HIGHWATER_BOOTSTRAP", &address)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8(output.stderr)
            .expect("stderr is text")
            .contains(&address)
    );
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        &["demo"][..],
        &["config"],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "delete"],
        &["produce"],
        &["log", "dump"],
        &["log", "verify"],
        &["bench", "limits"],
        &["bench", "cluster"],
        &["bench", "produce"],
        &["bench", "consume"],
        &["bench", "end-to-end"],
        &["bench", "compare"],
        &["consume"],
    ] {
        let output = highwater(&[command, &["--help"]].concat());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command:?}");
        assert!(help.contains("Examples:"), "{command:?}: {help}");
    }
    let help = String::from_utf8(highwater(&["--help"]).stdout).unwrap();
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn json_puts_one_object_on_a_line() {
    let output = highwater(&["--json", "config"]);
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.lines().count() > 3);
    for line in stdout.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["key"].is_string(), "{line}");
    }
}

#[test]
fn what_is_no_data_directory_is_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    for action in ["dump", "verify"] {
        check_failure(&["log", action, "/nonexistent"], 3, "/nonexistent");
        check_failure(&["log", action, empty], 3, "data directory");
    }
}

//! Real power cuts, a few: on ext4 and XFS, through every storage. Campaigns of many more are
//! run by the binary `power`.
//!
//! Where rights or mkfs lack, the tests say so and do nothing.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::Write;
use std::process::{Command, Output};

use highwater_tests::disk_image::{FileSystem, why_unavailable};

/// The word for the file systems that there can be here; nothing if there are none.
fn file_systems() -> Option<&'static str> {
    let can_be = |file_system: FileSystem| {
        let why = why_unavailable(file_system);
        if let Some(why) = &why {
            // Past the capture of a passing test's output.
            let name = file_system.name();
            let _ = writeln!(std::io::stderr(), "power cuts not tested on {name}: {why}");
        }
        why.is_none()
    };
    match FileSystem::ALL.map(can_be) {
        [true, true] => Some("both"),
        [true, false] => Some("ext4"),
        [false, true] => Some("xfs"),
        [false, false] => None,
    }
}

/// Runs a campaign; what it keeps goes with the test.
fn power(words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_power"));
    command.args(words).env("TMPDIR", folder.path());
    command.output().unwrap()
}

/// The number before these words in what was said.
fn number_before(words: &str, said: &str) -> u64 {
    let before = said.split(words).next().unwrap();
    before.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn the_log_keeps_what_it_promised() {
    let Some(file_systems) = file_systems() else {
        return;
    };
    let output = power(&["--cuts", "90", "--fs", file_systems]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    // The cuts would prove little if nothing had been under way.
    let all = said.split("in all: ").nth(1).unwrap();
    assert!(number_before(" acknowledged there", all) > 10_000, "{all}");
    assert!(number_before(" torn tails", all) > 0, "{all}");
    assert!(
        number_before(" with writes torn", &all.replace('(', " ")) > 0,
        "{all}"
    );
}

#[test]
fn three_nodes_keep_what_they_promised() {
    let Some(file_systems) = file_systems() else {
        return;
    };
    let output = power(&["--cuts", "4", "--fs", file_systems, "--nodes", "3"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{stderr}");
    let all = said.split("in all: ").nth(1).unwrap();
    assert!(number_before(" acknowledged there", all) > 800, "{all}");
}

#[test]
fn an_acknowledgement_before_the_disk_is_found() {
    if file_systems().is_none() {
        return;
    }
    let output = power(&[
        "--cuts",
        "20",
        "--fs",
        "ext4",
        "--storage",
        "uring",
        "--lie",
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("again: power"), "{said}");
}

//! The example that README shows, and that README shows just that.

use std::process::Command;

use highwater::setup::make_cluster;

mod common;

#[test]
fn the_example_runs_twice_on_the_same_files() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("log");
    make_cluster(&folder, &common::plan(1)).expect("the files can be made");
    for expected in ["0 of 1: ", "1 of 2: "] {
        let run = Command::new(common::example("embed")).arg(&folder).output();
        let run = run.expect("the example runs");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{run:?}");
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../../README.md");
    let (_, example) = include_str!("../examples/embed.rs")
        .split_once("\n\n")
        .expect("a line of documentation comes first");
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README's section on embedding is not server/examples/embed.rs"
    );
}

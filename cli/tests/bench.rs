//! `highwater bench` against `highwater dev`: what it says is what was done, however fast.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod dev;

use dev::Dev;
use serde_json::Value;
use tempfile::TempDir;

fn bench(dev: &Dev, arguments: &[&str]) -> String {
    dev.run(&[&["--json", "bench"], arguments].concat(), b"")
}

fn lines(printed: &str) -> Vec<Value> {
    let lines = printed.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_record_that_was_to_be_sent_is_read_and_two_runs_can_be_compared() {
    let dev = Dev::start(1, &[]);
    let folder = TempDir::new().unwrap();
    let run = |rate: &str| {
        let arguments = ["--seconds", "2", "--warm-up", "0.5", "--record-bytes", "64"];
        bench(
            &dev,
            &[&["end-to-end", "--rate", rate][..], &arguments].concat(),
        )
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

    let paths = ["a.json", "b.json"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], &slow).unwrap();
    std::fs::write(&paths[1], run("200")).unwrap();
    let paths = paths.each_ref().map(|path| path.to_str().unwrap());
    let compared = lines(&bench(&dev, &["compare", paths[0], paths[1]]));
    let figures = compared[0]["figures"].as_array().unwrap();
    let records = figures.iter().find(|it| it["figure"] == "records").unwrap();
    assert_eq!(records["of"], "end_to_end rate=200");
    assert_eq!(records["ratio"], 1.0);
    let nowhere = dev.run_with(&["bench", "compare", paths[0], "nowhere.json"], b"");
    let stderr = String::from_utf8(nowhere.stderr).unwrap();
    assert!(
        !nowhere.status.success() && stderr.contains("nowhere.json"),
        "{stderr}"
    );
}

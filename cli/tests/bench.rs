//! `highwater bench` against `highwater dev`: what it says is what was done, however fast.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod dev;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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

#[test]
fn what_is_sent_is_read_at_the_tail_meanwhile() {
    let dev = Dev::start(1, &[]);
    let short = ["--seconds", "1", "--warm-up", "0.3", "--record-bytes", "64"];
    let several = ["--producers", "2", "--consumers", "3"];
    for rate in [&["--rate", "500"][..], &[]] {
        let printed = bench(&dev, &[&["mixed"], rate, &several, &short].concat());
        let [_, report] = &lines(&printed)[..] else {
            panic!("{printed:?}");
        };
        assert_eq!(report["kind"], "mixed");
        for side in ["produced", "consumed"] {
            let side = &report[side];
            let records = side["records"].as_u64().unwrap();
            assert!(records > 0, "{report}");
            assert_eq!(side["bytes"], records * 64, "{report}");
        }
        let half = |of: &str| report[of]["p50_us"].as_u64().unwrap();
        assert!(half("acknowledged") > 0 && half("read") > 0, "{report}");
    }
    let idle = ["bench", "mixed", "--consumers", "7"];
    let refused = dev.run_with(&[&idle[..], &short].concat(), b"");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && stderr.contains("cannot share 6 partitions"),
        "{stderr}"
    );
}

#[test]
fn a_load_is_held_against_what_was_measured_in_the_same_run() {
    let dev = Dev::start(1, &[]);
    let short = ["--seconds", "0.5", "--warm-up", "0.1"];
    bench(&dev, &[&["produce"], &short[..]].concat());
    let printed = bench(&dev, &["consume", "--limits"]);
    let [durability, tcp, report] = &lines(&printed)[..] else {
        panic!("{printed}");
    };
    assert!(durability["durability"].is_string());
    assert_eq!(tcp["limit"], "tcp");
    let most = tcp["mb_per_second"]["median"].as_f64().unwrap() * 1e6;
    let ratio = report["bytes_per_second"].as_f64().unwrap() / most;
    let stated = report["ratio_to_loopback"].as_f64().unwrap();
    assert!((stated - ratio).abs() <= 1e-9 * ratio, "{printed}");
}

fn limits(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["--json", "bench", "limits"]).args(arguments);
    let output = command.args(["--run-seconds", "0.02"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    lines(&String::from_utf8(output.stdout).unwrap())
}

fn names(figures: &[Value]) -> Vec<&str> {
    let names = figures.iter().map(|it| it["limit"].as_str());
    names.map(Option::unwrap).collect()
}

#[test]
fn each_ceiling_is_measured_and_what_is_not_is_named() {
    let printed = limits(&[]);
    let [durability, disk, figures @ ..] = &printed[..] else {
        panic!("{printed:?}");
    };
    let durability = durability["durability"].as_str().unwrap();
    assert!(durability.contains("nothing is written"), "{durability}");
    let disk = disk["passed_over"].as_str().unwrap();
    assert!(disk.contains("disk") && disk.contains("--dir"), "{disk}");
    assert_eq!(
        names(figures),
        [
            "memory_copy",
            "crc32c",
            "crc32c",
            "tcp",
            "tcp",
            "quic",
            "quic"
        ]
    );
    for figure in figures {
        let rates = [&figure["gb_per_second"], &figure["mb_per_second"]];
        let median = rates.into_iter().find_map(|rate| rate["median"].as_f64());
        assert!(median > Some(0.0), "{figure}");
    }
    let of = |name: &'static str| figures.iter().filter(move |it| it["limit"] == name);
    let writes: Vec<_> = of("tcp").map(|it| it["write_bytes"].clone()).collect();
    assert_eq!(writes, [65_536, 1_048_576]);
    let datagrams: Vec<_> = of("quic").map(|it| it["datagram_bytes"].clone()).collect();
    assert_eq!(datagrams, [1_452, 65_000]);
}

#[test]
fn a_ceiling_can_be_had_alone() {
    for (word, name) in [("copy", "memory_copy"), ("crc", "crc32c"), ("tcp", "tcp")] {
        let printed = limits(&[word]);
        assert!(
            names(&printed[1..]).iter().all(|it| *it == name),
            "{printed:?}"
        );
        assert!(printed.len() > 1, "{printed:?}");
    }
    let printed = limits(&["quic", "--datagram-bytes", "8900"]);
    assert_eq!(names(&printed[1..]), ["quic"]);
    assert_eq!(printed[1]["datagram_bytes"], 8_900);
}

#[test]
fn nothing_is_left_behind_when_nobody_reads_any_more() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["bench", "limits", "disk", "--run-seconds", "0.01", "--dir"]);
    let command = command.arg(folder.path()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("durability"), "{first}");
    drop(stdout);
    assert!(process.wait().unwrap().success(), "as `| head` leaves it");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn pipeline(arguments: &[&str]) -> std::process::Output {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["--json", "bench", "limits", "pipeline", "--dir"]);
    command.arg(folder.path()).args(arguments);
    let output = command.output().unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the folder that was made is removed");
    output
}

#[test]
fn the_bare_path_is_measured_as_it_was_asked_for() {
    let short = ["--runs", "2", "--seconds", "0.4", "--warm-up", "0.1"];
    let small = ["--batch-bytes", "20480", "--rate", "100"];
    let steady = ["--files", "steady", "--datagram-bytes", "1452"];
    for arguments in [
        &short[..],
        &[&short[..], &small].concat(),
        &[&short[..], &steady].concat(),
    ] {
        let output = pipeline(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        let [durability, report] = &lines(&String::from_utf8(output.stdout).unwrap())[..] else {
            panic!("{arguments:?}");
        };
        let durability = durability["durability"].as_str().unwrap();
        assert!(durability.contains("two of three"), "{durability}");
        let rate = &report["mb_per_second"];
        assert!(rate["max"].as_f64() > Some(0.0), "{report}");
        if arguments.contains(&"--rate") {
            // However late they are sent, no more than 51 batches of 20 KiB are due by the end of the
            // 0.4 seconds that count; and all that were due in them are waited for.
            assert!(rate["max"].as_f64() < Some(2.7), "{report}");
            assert!(report["latency"]["p50_us"].as_u64() > Some(0), "{report}");
        }
        let datagram = match arguments.contains(&"1452") {
            true => 1_452,
            false => 65_000,
        };
        assert_eq!(report["datagram_bytes"], datagram);
    }
}

#[test]
fn a_batch_that_the_disk_cannot_take_whole_is_refused() {
    for (arguments, said) in [
        (["--batch-bytes", "1000"], "multiple of 4096"),
        (["--window-bytes", "1000000000"], "at most 16777216"),
    ] {
        let output = pipeline(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && stderr.contains(said),
            "{stderr}"
        );
    }
}

#[test]
fn a_sweep_raises_the_rate_to_the_highest_and_draws_it() {
    let dev = Dev::start(1, &[]);
    let folder = TempDir::new().unwrap();
    let paths = ["sweep.svg", "sweep.html"].map(|name| folder.path().join(name));
    let [svg, html] = paths.each_ref().map(|path| path.to_str().unwrap());
    let rates = [
        "--from",
        "100",
        "--factor",
        "2",
        "--to",
        "200",
        "--p99-max-ms",
        "60000",
    ];
    let load = ["--seconds", "1", "--warm-up", "0.5", "--record-bytes", "64"];
    let files = ["--svg", svg, "--html", html];
    let printed = bench(&dev, &[&["sweep"][..], &rates, &load, &files].concat());
    let printed = lines(&printed);
    let (first, last) = (&printed[1], &printed[printed.len() - 1]);
    assert_eq!(first["rate"], 100);
    // A machine that is too slow for the first rate is not asked for the second.
    let rate = if first["broken"].is_null() { 200 } else { 100 };
    assert_eq!(last["rate"], rate);
    let curve = last["curve"].as_array().unwrap();
    assert_eq!(curve.last().unwrap()[0], 100.0);
    let [svg, html] = paths.map(|path| std::fs::read_to_string(path).unwrap());
    assert!(svg.starts_with("<svg"));
    assert!(
        html.contains("durability: on disk (synced)")
            && html.contains(&format!("{rate} records/s"))
    );
}

//! The fuzzers' corpora on stable: each input is fed to its target as libFuzzer does it, and some
//! that differ from it a little. `fuzz/run` makes them grow.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../../log/tests/common/mod.rs"]
mod common;
#[path = "../../log/tests/crash_images/start.rs"]
mod start;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};

use fastrand::Rng;

/// How often each target is fed what differs from its corpus.
const MUTATED: usize = 200;

/// One test: memory is counted for the whole process.
#[test]
fn every_input_is_taken_as_it_must_be() {
    for name in targets::names() {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let _speaks = Speaks(format!("target {name}"));
        targets::feed(name, &[]);
        for (path, input) in &corpus {
            let _speaks = Speaks(format!("cargo fuzz run {name} {}", path.display()));
            targets::feed(name, input);
        }
        let mut rng = Rng::with_seed(1);
        for round in 0..MUTATED {
            let input = mutated(&corpus, &mut rng);
            let _speaks = Speaks(format!("target {name}, mutation {round}: {input:?}"));
            targets::feed(name, &input);
        }
    }
}

/// Says what was fed, if that ends in a panic.
struct Speaks(String);

impl Drop for Speaks {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// All inputs of a target, in order.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = std::fs::read_dir(folder.join(name)).into_iter().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let input = std::fs::read(&path).unwrap();
        (path, input)
    };
    paths.into_iter().map(read).collect()
}

/// An input with a few bytes changed, cut off, or taken from another one.
fn mutated(corpus: &[(PathBuf, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng| corpus[rng.usize(..corpus.len())].1.clone();
    let mut input = pick(rng);
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        match rng.u8(..5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.u8(..)),
            2 => input.extend(pick(rng)),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = *rng
                        .choice(&[0, 1, 0x7f, 0x80, 0xff, rng.clone().u8(..)])
                        .unwrap();
                }
            }
        }
    }
    input
}

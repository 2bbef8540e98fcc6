//! Guards the arrows between the crates (ARCHITECTURE.md): who may depend on whom, and that
//! what the simulator drives knows neither a runtime nor a network.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may know of the workspace. A crate that is missing here, or an arrow that is
/// not, fails the test: the change then belongs into ARCHITECTURE.md first.
const ARROWS: &[(&str, &[&str])] = &[
    ("highwater-record", &[]),
    ("highwater-consensus", &[]),
    ("highwater-protocol", &["record"]),
    ("highwater-log", &["record"]),
    ("highwater-net", &["record"]),
    (
        "highwater-engine",
        &["consensus", "log", "protocol", "record"],
    ),
    ("highwater-client", &["net", "protocol", "record"]),
    ("highwater", &["engine", "log", "net", "protocol", "record"]),
    (
        "highwater-bench",
        &["client", "log", "net", "protocol", "record"],
    ),
    (
        "highwater-cli",
        &["highwater", "client", "bench", "log", "record"],
    ),
];

/// The crates below the shell.
const DETERMINISTIC: &[&str] = &[
    "highwater-record",
    "highwater-protocol",
    "highwater-consensus",
    "highwater-log",
    "highwater-engine",
];

/// What none of them may reach, by any path of ordinary dependencies (what a build script uses
/// is not in the program).
const FORBIDDEN: &[&str] = &[
    "tokio",
    "quinn",
    "quinn-proto",
    "rustls",
    "mio",
    "async-std",
    "rand",
    "getrandom",
];

struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<(String, bool)>>,
}

impl Graph {
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", &host()])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("valid JSON");
        let names = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let edges = metadata["resolve"]["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .map(|node| {
                let deps = node["deps"].as_array().expect("deps");
                let edges = deps.iter().map(edge).collect();
                (text(&node["id"]), edges)
            })
            .collect();
        Self { names, edges }
    }

    fn id(&self, name: &str) -> &str {
        self.names
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(id, _)| id.as_str())
            .unwrap_or_else(|| panic!("no package {name}"))
    }

    /// Names of the packages that `name` is linked with.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for (dependency, linked) in &self.edges[id] {
                if *linked && seen.insert(dependency.as_str()) {
                    open.push(dependency);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.edges[self.id(name)]
            .iter()
            .filter(|(_, linked)| *linked)
            .map(|(id, _)| self.names[id].as_str())
            .collect()
    }
}

/// The triple of this machine: other systems' packages need not be at hand.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output();
    let stdout = output.expect("rustc runs").stdout;
    String::from_utf8_lossy(&stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc -vV names its host")
        .to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// The package that an edge leads to, and whether it is linked (not for tests or builds only).
fn edge(dep: &Value) -> (String, bool) {
    let kinds = dep["dep_kinds"].as_array().expect("dep_kinds");
    let linked = kinds.iter().any(|kind| kind["kind"].is_null());
    (text(&dep["pkg"]), linked)
}

#[test]
fn crates_know_only_what_the_map_says() {
    let graph = Graph::load();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ARROWS {
        let allowed: BTreeSet<String> = allowed
            .iter()
            .map(|short| match *short {
                "highwater" => "highwater".to_owned(),
                short => format!("highwater-{short}"),
            })
            .collect();
        for known in graph.direct(name).intersection(&ours) {
            assert!(
                allowed.contains(*known),
                "{name} must not know {known}; see the table in ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn every_crate_is_on_the_map() {
    let graph = Graph::load();
    let mut mapped: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    mapped.insert("highwater-tests");
    let present: BTreeSet<&str> = graph
        .names
        .values()
        .map(String::as_str)
        .filter(|name| *name == "highwater" || name.starts_with("highwater-"))
        .collect();
    assert_eq!(present, mapped);
}

#[test]
fn nothing_uses_the_tests() {
    let graph = Graph::load();
    for (name, _) in ARROWS {
        assert!(!graph.direct(name).contains("highwater-tests"), "{name}");
    }
}

#[test]
fn the_deterministic_crates_reach_no_runtime_and_no_network() {
    let graph = Graph::load();
    for name in DETERMINISTIC {
        let reach = graph.reach(name);
        for forbidden in FORBIDDEN {
            assert!(!reach.contains(forbidden), "{name} reaches {forbidden}");
        }
    }
}

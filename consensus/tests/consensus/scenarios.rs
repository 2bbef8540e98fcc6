//! Scenario files with expected traces: `testdata/*.txt`.
//!
//! A line is a command; the indented lines under it are what it led to. `#` begins a comment.
//! After a change that is meant to change traces, run the tests once with `UPDATE_TRACES=1` and
//! read the difference.
//!
//! | command | |
//! |---|---|
//! | `nodes 3` | voters 1 to 3 with empty disks |
//! | `logs 1,1,2 1 -` | voters whose logs have entries of these terms; `-` is empty |
//! | `campaign N`, `propose N`, `read N`, `beat N` | |
//! | `transfer N TO` | N hands leadership to TO |
//! | `deliver FROM TO` | everything on its way in that direction, and only what is so now |
//! | `drop FROM TO` | loses it |
//! | `persist N` | makes the oldest write durable; `persist N all`: all |
//! | `settle` | delivers and persists everything, in silence |
//! | `crash N`, `restart N` | losing what is not durable |
//! | `restart N end FIRST`, `restart N hole FIRST` | with a quarantine |
//! | `relink A B` | the link ends, and a new session begins |
//! | `time MS` | time passes at once, and timers go off |
//! | `log-start N FIRST` | retention |
//! | `full N`, `roomy N` | the disk has no room, has room again |
//! | `chunk N` | N's driver has read what it was asked for |
//! | `show` | the state of all |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_consensus::{LogIndex, Quarantine};

use crate::suite::cluster::{Cluster, node};
use crate::suite::words;

/// The cluster of a file, once it has said of what kind.
struct Scenario {
    cluster: Option<Cluster>,
}

impl Scenario {
    /// Carries out a command and returns its trace.
    fn run(&mut self, command: &str) -> Vec<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, arguments) = words.split_first().expect("a command");
        match *verb {
            "nodes" => self.begin(Cluster::new(number(arguments, 0) as u32)),
            "logs" => self.begin(with_logs(arguments)),
            _ => {
                let cluster = self.cluster.as_mut().expect("`nodes` or `logs` first");
                obey(cluster, verb, arguments);
            }
        }
        let trace = self
            .cluster
            .as_mut()
            .and_then(|cluster| cluster.trace.as_mut());
        trace.map(std::mem::take).unwrap_or_default()
    }

    fn begin(&mut self, mut cluster: Cluster) {
        cluster.trace = Some(Vec::new());
        self.cluster = Some(cluster);
    }
}

fn number(arguments: &[&str], at: usize) -> u64 {
    arguments[at].parse().expect("a number")
}

fn with_logs(arguments: &[&str]) -> Cluster {
    let logs: Vec<Vec<u32>> = arguments
        .iter()
        .map(|log| {
            log.split(',')
                .filter_map(|term| term.parse().ok())
                .collect()
        })
        .collect();
    let logs: Vec<&[u32]> = logs.iter().map(Vec::as_slice).collect();
    Cluster::with_logs(&logs)
}

fn obey(cluster: &mut Cluster, verb: &str, arguments: &[&str]) {
    let n = || number(arguments, 0) as u32;
    let second = || number(arguments, 1);
    let index = || LogIndex(second());
    match verb {
        "campaign" => cluster.campaign(n()),
        "propose" => {
            if let Err(error) = cluster.propose(n()) {
                say(cluster, format!("n{} refuses: {error}", n()));
            }
        }
        "read" => {
            if cluster.read(n()).is_none() {
                say(cluster, format!("n{} refuses", n()));
            }
        }
        "beat" => cluster.beat(node(n())),
        "transfer" => {
            let to = node(second() as u32);
            let begun = cluster.call(n(), |raft, now| raft.transfer_leadership(now, to));
            if let Err(error) = begun {
                say(cluster, format!("n{} refuses: {error}", n()));
            }
        }
        "deliver" => deliver(cluster, n(), second() as u32),
        "drop" => {
            for packet in cluster.take_packets(n(), second() as u32) {
                say(
                    cluster,
                    format!("lost: {}", words::content(&packet.content)),
                );
            }
        }
        "persist" => {
            cluster.sync_one(node(n()));
            while arguments.get(1) == Some(&"all") && cluster.sync_one(node(n())) {}
        }
        "settle" => {
            cluster.settle();
            cluster.trace = Some(Vec::new());
        }
        "crash" => cluster.crash(n()),
        "restart" => {
            let first = arguments.get(2).map(|_| LogIndex(number(arguments, 2)));
            let quarantine = match (arguments.get(1).copied(), first) {
                (Some("end"), Some(first)) => Quarantine::ToEnd { first },
                (Some("hole"), Some(first)) => Quarantine::Hole { first },
                _ => Quarantine::None,
            };
            cluster.start(node(n()), quarantine);
        }
        "relink" => {
            let (a, b) = (node(n()), node(second() as u32));
            cluster.disconnect(a, b);
            cluster.connect(a, b);
        }
        "time" => {
            cluster.now += Duration::from_millis(u64::from(n()));
            for n in cluster.running() {
                cluster.call(n.0, |raft, now| raft.handle_timeout(now));
            }
        }
        "log-start" => {
            let disk = cluster.disks.get_mut(&node(n())).unwrap();
            disk.memory.start_at(index());
            disk.durable.start_at(index());
            cluster.call(n(), |raft, _| raft.handle_log_start(index()));
        }
        "full" => cluster.call(n(), |raft, _| raft.handle_disk_full(true)),
        "roomy" => cluster.call(n(), |raft, _| raft.handle_disk_full(false)),
        "chunk" => assert!(cluster.read_chunk(node(n())), "nothing to read"),
        "show" => show(cluster),
        _ => panic!("unknown command {verb}"),
    }
}

fn say(cluster: &mut Cluster, words: String) {
    if let Some(trace) = &mut cluster.trace {
        trace.push(words);
    }
}

fn deliver(cluster: &mut Cluster, from: u32, to: u32) {
    for packet in cluster.take_packets(from, to) {
        let what = words::content(&packet.content);
        say(cluster, format!("n{from} -> n{to}: {what}"));
        cluster.deliver(packet);
        for error in std::mem::take(&mut cluster.errors) {
            say(cluster, format!("n{to} ignores it: {error}"));
        }
    }
}

fn show(cluster: &mut Cluster) {
    for n in cluster.running() {
        let raft = cluster.raft(n.0);
        let line = format!(
            "{n} {:?} {}: start after {}, last {}, synced {}, commit {}",
            raft.role(),
            raft.term(),
            raft.before(),
            raft.last(),
            raft.synced_index(),
            raft.commit_index(),
        );
        say(cluster, line);
    }
}

/// The file with the traces that its commands have led to.
fn replay(text: &str) -> String {
    let mut scenario = Scenario { cluster: None };
    let mut replayed = String::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(replayed, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for result in scenario.run(line) {
            writeln!(replayed, "    {result}").unwrap();
        }
    }
    replayed
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn scenarios_lead_where_they_are_expected_to() {
    let may_update = std::env::var_os("UPDATE_TRACES").is_some();
    let files = files();
    assert!(
        files.len() >= 8,
        "only {} scenarios were found",
        files.len()
    );
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        let replayed = replay(&expected);
        if may_update {
            std::fs::write(&file, &replayed).unwrap();
        }
        let pairs = expected.lines().zip(replayed.lines()).zip(1..);
        for ((want, have), line) in pairs {
            assert!(
                want == have || may_update,
                "{}:{line}\n want {want}\n have {have}",
                file.display()
            );
        }
        assert!(
            expected.len() == replayed.len() || may_update,
            "{} ends early",
            file.display()
        );
    }
}

//! The example `kv`, as its users run it: three processes, and what is left when they are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use highwater::setup::make_cluster;
use rustix::process::{Pid, Signal, kill_process};

mod common;

/// How long anything may take: nothing depends on it but how soon a hang is called one.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

type Map = BTreeMap<String, String>;

/// One node's process.
struct Process {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Process {
    fn start(folder: &Path) -> Process {
        let mut child = Command::new(common::example("kv"))
            .arg("run")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let requests = child.stdin.take().expect("it is a pipe");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (lines, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            requests,
            answers,
        }
    }

    fn send(&mut self, request: &str) {
        // A process that has ended does not answer; the reader of the answer sees that.
        let _ = writeln!(self.requests, "{request}");
    }

    /// The next line of its output; nothing if it has ended.
    fn line(&mut self) -> Option<String> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("ids are small");
        let pid = Pid::from_raw(id).expect("it is not zero");
        kill_process(pid, signal).expect("it is a child of this process");
    }
}

impl Drop for Process {
    /// `kill -9`.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The three, and the one client that they have.
struct Cluster {
    folders: Vec<PathBuf>,
    processes: Vec<Option<Process>>,
    /// Whom the client asks next.
    current: usize,
    /// What was acknowledged. There is no other writer, and a put is sent until it is
    /// acknowledged, so this is what every map must come to.
    expected: Map,
    _root: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folders = make_cluster(&root.path().join("cluster"), &common::plan(3));
        let mut cluster = Cluster {
            folders: folders.expect("the files can be made"),
            processes: vec![None, None, None],
            current: 0,
            expected: Map::new(),
            _root: root,
        };
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        let nodes = 0..self.folders.len();
        let stopped: Vec<usize> = nodes
            .filter(|node| self.processes[*node].is_none())
            .collect();
        for node in &stopped {
            self.processes[*node] = Some(Process::start(&self.folders[*node]));
        }
        // Started again they may come one by one, but the first time they wait for each other.
        for node in stopped {
            let ready = self.process(node).line();
            assert_eq!(ready, Some(format!("ready {node}")));
        }
    }

    fn process(&mut self, node: usize) -> &mut Process {
        self.processes[node].as_mut().expect("it runs")
    }

    fn kill(&mut self, node: usize) {
        self.processes[node] = None;
    }

    /// Asks until there is an answer that is final.
    fn ask(&mut self, request: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "{request}: nobody answers");
            let process = self.processes[self.current].as_mut();
            let answer = process.and_then(|process| {
                process.send(request);
                process.line()
            });
            let Some(answer) = answer else {
                self.current = (self.current + 1) % self.processes.len();
                continue;
            };
            match answer.split_once(' ').unwrap_or((&*answer, "")) {
                ("redirect", node) => self.current = node.parse().expect("a node's number"),
                ("retry" | "unknown", _) => {}
                _ => return answer,
            }
            // Whoever is named may be dead, and nobody knows yet.
            std::thread::sleep(POLL);
        }
    }

    /// Puts ten pairs at once: keys come again, with other values.
    fn put(&mut self, round: u32) {
        let pairs: Map = (0..10).map(|n| pair(round * 10 + n)).collect();
        let answer = self.ask(&request(&pairs));
        assert!(answer.starts_with("ok "), "{answer}");
        self.expected.extend(pairs);
    }

    /// Puts many, and reads some on the way.
    fn put_all(&mut self, rounds: std::ops::Range<u32>) {
        for round in rounds {
            self.put(round);
            if round % 10 == 0 {
                self.get_last(round);
            }
        }
    }

    /// The last acknowledged value of a key that a round has put.
    fn get_last(&mut self, round: u32) {
        let (key, _) = pair(round * 10 + 9);
        let answer = self.ask(&format!("get {key}"));
        assert_eq!(answer, format!("value {}", self.expected[&key]));
    }

    fn leader(&mut self) -> usize {
        self.ask("get nothing");
        self.current
    }

    fn dump(&mut self, node: usize) -> Map {
        let process = self.process(node);
        process.send("dump");
        let mut map = Map::new();
        loop {
            let line = process.line().expect("it runs");
            let Some(pair) = line.strip_prefix("  ") else {
                assert!(line.starts_with("ok "), "{line}");
                return map;
            };
            let (key, value) = pair.split_once(' ').expect("key and value");
            map.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Waits until every node's map is what was acknowledged.
    fn settle(&mut self) {
        let end = Instant::now() + PATIENCE;
        for node in 0..self.processes.len() {
            while self.dump(node) != self.expected {
                assert!(Instant::now() < end, "node {node} has another map");
                std::thread::sleep(POLL);
            }
        }
    }
}

fn pair(number: u32) -> (String, String) {
    (format!("key-{}", number % 700), format!("value-{number}"))
}

fn request(pairs: &Map) -> String {
    let pairs = pairs.iter().map(|(key, value)| format!(" {key} {value}"));
    format!("put{}", pairs.collect::<String>())
}

#[test]
fn kills_of_leader_and_followers_lose_nothing() {
    let mut cluster = Cluster::start();
    cluster.put_all(0..100);

    // In the middle of a put, whose outcome nobody is told.
    let leader = cluster.leader();
    let pairs: Map = (1_000..1_010).map(pair).collect();
    cluster.process(leader).send(&request(&pairs));
    cluster.kill(leader);
    // Right after the change of leaders: everything acknowledged by the last one is read.
    cluster.get_last(99);
    cluster.put_all(100..150);
    cluster.start_all();
    cluster.put_all(150..200);

    for follower in (0..3)
        .filter(|node| *node != cluster.leader())
        .collect::<Vec<_>>()
    {
        cluster.kill(follower);
        cluster.put_all(200..230);
        cluster.start_all();
    }
    cluster.put_all(230..300);
    cluster.settle();
}

#[test]
fn a_leader_that_was_succeeded_unawares_serves_no_old_value() {
    let mut cluster = Cluster::start();
    cluster.put_all(0..10);
    let old = cluster.leader();
    let mut succeeded = cluster.processes[old].take().expect("it runs");
    succeeded.signal(Signal::STOP);
    // It reads this as the first thing when it goes on.
    succeeded.send("get key-9");
    // The same key gets another value meanwhile, from another leader.
    cluster.put(70);
    succeeded.signal(Signal::CONT);
    let answer = succeeded.line().expect("it runs");
    let new = format!("value {}", cluster.expected["key-9"]);
    let is_honest = answer == new || answer.starts_with("redirect") || answer.starts_with("retry");
    assert!(is_honest, "{answer}");
    cluster.processes[old] = Some(succeeded);
    cluster.settle();
}

#[test]
fn all_three_killed_at_once_lose_nothing() {
    let mut cluster = Cluster::start();
    for life in 0..3 {
        cluster.put_all(life * 110..(life + 1) * 110);
        (0..3).for_each(|node| cluster.kill(node));
        // What a kill may leave of a checkpoint: nothing, a part, or all but its new name.
        let torn = cluster.folders[0].join("kv.unfinished");
        std::fs::write(torn, "999999\nkey-1 wro").expect("it can be written");
        cluster.start_all();
        cluster.get_last((life + 1) * 110 - 1);
        cluster.settle();
    }
    // Otherwise nothing of the above had to do with checkpoints.
    for folder in &cluster.folders {
        assert!(folder.join("kv.checkpoint").exists());
    }
}

//! One run of a scenario: a cluster, clients, faults; then all is healed, comes to rest, and is
//! judged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use highwater_client::{
    AdminError, ErrorCode, NewTopic, QuorumDescription, TopicName, TopicPartition, blocking,
};
use highwater_engine::testing::history::{
    Action, Checker, Event, Partition, Phase, Rules, Verdict,
};

use super::cluster::{Cluster, Means, PATIENCE, POLL, shape};
use super::disk::copy;
use super::injector::Injector;
use super::kind::Kind;
use super::load::{self, Acks, Load, Outages, Shared};
use super::net::{Carried, Namespace};
use super::recorder::first_value;
use super::replicas::{self, NodeLogs};
use super::scenario::{Disk, LoadPlan, Scenario};
use super::schedule;
use super::sorted::merge;
use crate::clock::now;
use crate::history::{read_event, write_event};

/// What a run is made with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// The server.
    pub(crate) binary: PathBuf,
    /// A Python with the libraries of others, if there is one.
    pub(crate) python: Option<PathBuf>,
    /// What is done to a replica's data before it is read: to see that it is noticed.
    pub(crate) spoil: Option<Spoil>,
}

/// What is spoilt on purpose, so that it can be seen that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// A byte of node 0's log is changed before it is read.
    Log,
    /// An acknowledged record is missing in what node 0's replica is said to have.
    Record,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// What is wrong that no history shows.
    pub(crate) wrong: Vec<String>,
    pub(crate) faults: BTreeMap<Kind, u64>,
    /// How long there were faults.
    pub(crate) lasted: Duration,
    /// Leaders of all partitions and of the cluster's own group.
    pub(crate) leaders: usize,
    pub(crate) outages: Outages,
    pub(crate) carried: Option<Carried>,
}

impl Outcome {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.wrong.is_empty()
    }
}

/// Runs a scenario for as long as there are to be faults; everything is put into `folder`, which
/// is empty.
pub(crate) fn run(
    scenario: &Scenario,
    means: &Means,
    tools: &Tools,
    seed: u64,
    lasts: Duration,
    folder: &Path,
) -> anyhow::Result<Outcome> {
    let is_possible = |kind| means.allow(kind);
    let faults = schedule::draw(scenario, seed, lasts, shape(scenario), is_possible);
    let injector = Injector::new(faults, &folder.join("faults.log"))?;
    let mut cluster = Cluster::make(scenario, means, &tools.binary, folder, seed)?;
    let outcome = attempt(scenario, tools, seed, lasts, folder, &mut cluster, injector);
    if !outcome.as_ref().is_ok_and(Outcome::is_clean) {
        keep(scenario, &cluster.kill_all(), folder);
    }
    outcome
}

fn attempt(
    scenario: &Scenario,
    tools: &Tools,
    seed: u64,
    lasts: Duration,
    folder: &Path,
    cluster: &mut Cluster,
    mut injector: Injector,
) -> anyhow::Result<Outcome> {
    cluster.start_all()?;
    let partitions = partitions(&scenario.load);
    let admin = Admin::connect(cluster)?;
    admin.create_topics(&scenario.load)?;
    let runs = folder.join("runs");
    fs::create_dir(&runs)?;
    let shared = Arc::new(Shared {
        reach: cluster.reach().clone(),
        acks: Acks::new(partitions.len()),
        reads: load::readings(partitions.len()),
        is_sent: AtomicBool::new(false),
        is_read: AtomicBool::new(false),
        folder: runs.clone(),
        record_bytes: scenario.load.record_bytes,
        partitions: partitions.clone(),
    });
    let python = tools.python.as_deref();
    let mut load = Load::start(&scenario.load, shared, cluster.places(), python, seed)?;
    let begin = Instant::now();
    injector.run(cluster, lasts, |at, injector, cluster| {
        say(at, injector, cluster, &load);
        !load.has_failed()
    })?;
    let lasted = begin.elapsed();
    let outages = load.shared().acks.outages();
    eprintln!("  all faults are over: healing, waiting until all is at rest");
    cluster.heal()?;
    let lines = come_to_rest(&admin, &partitions, &mut load)?;
    let mut wrong = std::mem::take(&mut injector.wrong);
    drop(admin);
    let carried = cluster.carried();
    let directories = cluster.stop()?;
    if tools.spoil == Some(Spoil::Log) {
        spoil_log(&directories[0])?;
    }
    let nodes = directories
        .iter()
        .map(|directory| replicas::read(directory));
    let mut nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
    if tools.spoil == Some(Spoil::Record) {
        spoil_record(&mut nodes[0]);
    }
    wrong.extend(replicas::verify(&tools.binary, &directories)?);
    let verdict = judge(&lines, &partitions, &nodes, &folder.join("history.jsonl"))?;
    fs::remove_dir_all(&runs)?;
    Ok(Outcome {
        verdict,
        wrong,
        faults: injector.counts(),
        lasted,
        leaders: leaders(&nodes),
        outages,
        carried,
    })
}

/// Copies what lies on file systems that go with this run: it is what is to be looked at.
fn keep(scenario: &Scenario, directories: &[PathBuf], folder: &Path) {
    if scenario.disk == Disk::Folder {
        return;
    }
    for (node, directory) in directories.iter().enumerate() {
        let kept = copy(directory, &folder.join(format!("kept/node-{node}")));
        // What went wrong with the run is to be told first of all.
        if let Err(error) = kept {
            eprintln!("  not all of node {node} is kept: {error:#}");
        }
    }
}

fn say(at: Duration, injector: &Injector, cluster: &mut Cluster, load: &Load) {
    let away = cluster.away();
    let acked = load.shared().acks.count();
    let away = match away[..] {
        [] => String::new(),
        _ => format!(", away: nodes {away:?}"),
    };
    let (seconds, faults) = (at.as_secs(), injector.count());
    eprintln!("  {seconds:4} s: {faults} faults, {acked} records acknowledged{away}");
}

/// All partitions of the load's topics.
fn partitions(plan: &LoadPlan) -> Vec<Partition> {
    let topics = 0..plan.topics;
    let partitions = topics.flat_map(|topic| (0..plan.partitions).map(move |it| (topic, it)));
    partitions
        .map(|(topic, partition)| {
            let index = i32::try_from(partition).expect("a few partitions");
            Partition::new(&topic_name(topic), index)
        })
        .collect()
}

fn topic_name(topic: u32) -> String {
    format!("chaos-{topic}")
}

/// Who makes topics, and asks how far replicas are.
struct Admin {
    /// Where it lives: sockets belong to where the thread is that opens them.
    place: Arc<Namespace>,
    client: blocking::Client,
}

impl Admin {
    fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let builder = cluster.reach().client(true);
        let place = Arc::clone(&cluster.places().ours);
        let client = place.inside(move || blocking::Client::connect(builder))?;
        Ok(Self { place, client })
    }

    fn inside<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&blocking::Client) -> T + Send + 'static,
    ) -> T {
        let client = self.client.clone();
        self.place.inside(move || ask(&client))
    }

    fn create_topics(&self, plan: &LoadPlan) -> anyhow::Result<()> {
        for topic in 0..plan.topics {
            let topic = NewTopic::new(&TopicName::new(&topic_name(topic))?)
                .partitions(plan.partitions)
                .replication_factor(REPLICAS)
                .config("segment.bytes", plan.segment_bytes.to_string());
            wait_for("a topic to be made", || {
                let topic = topic.clone();
                let made = self.inside(|client| client.wait(client.admin().create_topic(topic)));
                match made {
                    Ok(()) => Some(()),
                    Err(AdminError::Refused { error, .. }) if is_there(error) => Some(()),
                    // Too early: not all nodes have joined.
                    Err(_) => None,
                }
            })?;
        }
        Ok(())
    }

    /// Where each partition ends, if all of its replicas have all of it.
    fn rest(&self, partitions: &[Partition]) -> Option<Vec<u64>> {
        let asked: Vec<TopicPartition> = partitions
            .iter()
            .map(|partition| TopicPartition {
                topic: TopicName::new(&partition.topic).expect("we made it"),
                partition: u32::try_from(partition.index).expect("we made it"),
            })
            .collect();
        let told = self.inside(move |client| {
            let admin = client.admin();
            // The leaders of now are to be asked.
            for at in asked.iter().filter(|at| at.partition == 0) {
                client.wait(admin.describe_topic(&at.topic)).ok()?;
            }
            Some(client.wait(admin.describe_quorums(&asked)))
        });
        told?
            .into_iter()
            .map(|it| it.ok().and_then(end_at_rest))
            .collect()
    }
}

/// Where a partition ends, if all of its replicas have all of it.
fn end_at_rest(quorum: QuorumDescription) -> Option<u64> {
    let high = quorum.high_watermark;
    if quorum.leader_epoch < 0 {
        // Nobody has used it yet.
        return Some(0);
    }
    let mut voters = quorum.voters.iter();
    let is_whole = quorum.voters.len() == usize::from(REPLICAS)
        && voters.all(|voter| voter.log_end_offset == Some(high));
    is_whole.then_some(high.0)
}

/// Replicas of each partition.
const REPLICAS: u16 = 3;

fn is_there(error: ErrorCode) -> bool {
    error == ErrorCode::TopicAlreadyExists
}

/// Waits until something is there; how long it takes decides nothing, unless it hangs.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// Every record has its end, every replica has all, every consumer has read all. Gives what the
/// clients have written down.
fn come_to_rest(
    admin: &Admin,
    partitions: &[Partition],
    load: &mut Load,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut lines = load.end_producers()?;
    let ends = wait_for("all replicas to have all", || admin.rest(partitions))?;
    let shared = Arc::clone(load.shared());
    wait_for("all consumers to have read all", || {
        let mut readers = shared.reads.iter();
        let is_done = readers.all(|reading| {
            let mut ends = ends.iter().enumerate();
            ends.all(|(place, end)| reading.position(place) >= *end)
        });
        is_done.then_some(())
    })?;
    lines.extend(load.end_readers()?);
    Ok(lines)
}

/// How many leaders there were of all groups.
fn leaders(nodes: &[NodeLogs]) -> usize {
    let mut of_group = BTreeMap::new();
    for (group, replica) in nodes.iter().flatten() {
        let most: &mut usize = of_group.entry(*group).or_default();
        *most = replica.terms().max(*most);
    }
    of_group.values().sum()
}

/// Puts the lines of all clients and the final reads into one history, and judges it.
fn judge(
    lines: &[PathBuf],
    partitions: &[Partition],
    nodes: &[NodeLogs],
    path: &Path,
) -> anyhow::Result<Verdict> {
    let mut history = BufWriter::new(File::create(path)?);
    let mut checker = Checker::new(Rules::default());
    merge(lines, |line| {
        checker.observe(&read_event(line)?);
        Ok(writeln!(history, "{line}")?)
    })?;
    let mut op = first_value(u64::from(FINAL_READER));
    for (node, logs) in (0..).zip(nodes) {
        for replica in logs.values() {
            let known = replica.partition.as_ref();
            let Some(partition) = known.filter(|it| partitions.contains(it)) else {
                continue;
            };
            op += 1;
            for event in final_read(op, node, partition, replica) {
                checker.observe(&event);
                writeln!(history, "{}", write_event(&event))?;
            }
        }
    }
    history.flush()?;
    Ok(checker.finish())
}

/// The number of whoever reads in the end.
const FINAL_READER: u32 = 1_000;

fn final_read(
    op: u64,
    node: u32,
    partition: &Partition,
    replica: &replicas::Replica,
) -> [Event; 2] {
    let read = |records, start| Action::FinalRead {
        partition: partition.clone(),
        node,
        start,
        records,
        refused: Vec::new(),
    };
    let event = |phase, action| Event {
        time: Duration::from_nanos(now()),
        process: u64::from(FINAL_READER) + u64::from(node),
        op,
        phase,
        action,
    };
    [
        event(Phase::Invoke, read(Vec::new(), 0)),
        event(Phase::Ok, read(replica.records.clone(), replica.start)),
    ]
}

/// Changes one byte in the middle of the fullest file.
fn spoil_log(directory: &Path) -> anyhow::Result<()> {
    let mut fullest: Option<(usize, PathBuf)> = None;
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            // Files are made in advance, with zeros in them.
            let used = fs::read(&path)?.iter().filter(|byte| **byte != 0).count();
            fullest = fullest.max(Some((used, path)));
        }
    }
    let (_, path) = fullest.context("there is no file")?;
    let mut bytes = fs::read(&path)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    bytes[end / 2] ^= 1;
    Ok(fs::write(&path, bytes)?)
}

/// Takes one record out of what a node is said to have.
fn spoil_record(logs: &mut NodeLogs) {
    let replicas = logs.values_mut();
    let fullest = replicas.max_by_key(|replica| replica.records.len());
    if let Some(replica) = fullest {
        replica.records.remove(replica.records.len() / 2);
    }
}

/// Makes a folder anew.
pub(crate) fn make_empty(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!(error),
        _ => Ok(fs::create_dir_all(folder)?),
    }
}

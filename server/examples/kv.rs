//! A replicated map: three processes, each with a node inside it, and the log as their store.
//!
//! Every change is a record of one partition. Each process applies the committed records, in
//! order, to a map in its memory, so that all maps are equal as far as they have come. A write is
//! answered once it is on disk on two of the three; a process that is killed finds its map again
//! by its last checkpoint and the records behind it.
//!
//! ```text
//! cargo run -p highwater --example kv -- init /tmp/kv
//! cargo run -p highwater --example kv -- run /tmp/kv/node-0     # and node-1, node-2: a terminal each
//! ```
//!
//! Then type requests; each gets one answer:
//!
//! ```text
//! put KEY VALUE [KEY VALUE]..   ok OFFSET       all pairs are on disk on a majority
//!                               unknown         leadership was lost meanwhile: perhaps, perhaps not
//! get KEY                       value VALUE     what the last acknowledged put says
//!                               none            it was never put
//! either of them                redirect NODE   another node leads; nothing was done, ask it
//!                               retry WHY       nothing was done; ask again
//! dump                          KEY VALUE       one line a pair, each after two spaces, then
//!                               ok OFFSET       up to where this node has applied the log
//! ```
//!
//! End of input ends the process in order; `kill -9` ends it too, and loses nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use highwater::config::Config;
use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use highwater::{NewRecord, Node, NodeError, Offset, Record, TopicPartition};

type Error = Box<dyn std::error::Error>;

/// The topic with all changes. One partition: an order over all keys is what makes it one map.
const TOPIC: &str = "kv";

/// The log is the only full copy of the map, so nothing of it may expire. (A service whose log
/// may not grow for ever keeps its checkpoints on several machines and then deletes the records
/// before the oldest of them.)
const CONFIGS: &[(&str, &str)] = &[("retention.ms", "-1"), ("retention.bytes", "-1")];

/// How many records are applied between two checkpoints. More cost less while running, and
/// longer after a crash; lost is nothing either way.
const CHECKPOINT_EVERY: u64 = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["init", folder] => init(Path::new(folder), ClusterPlan::default().base_port),
        ["init", folder, port] => match port.parse() {
            Ok(port) => init(Path::new(folder), port),
            Err(_) => Err(format!("{port} is no port").into()),
        },
        ["run", folder] => run(Path::new(folder)),
        _ => Err("usage: kv init FOLDER [BASE_PORT] | kv run FOLDER/node-N".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the files of a cluster: identities, certificates, formatted data directories. Only this
/// does; a node that finds its directory empty must not believe that it is new.
fn init(folder: &Path, base_port: u16) -> Result<(), Error> {
    let plan = ClusterPlan {
        base_port,
        ..ClusterPlan::default()
    };
    for node in make_cluster(folder, &plan)? {
        println!("{}", node.display());
    }
    Ok(())
}

fn run(folder: &Path) -> Result<(), Error> {
    let node = Node::start(Config::read(&folder.join(CONFIG_FILE))?)?;
    // Waits here for the other two when the cluster starts for the first time, since the topic is
    // to have three replicas; later for one of them, since one of three is no majority.
    block_on(node.ensure_topic(TOPIC, 1, CONFIGS))?;
    let service = Arc::new(Service {
        log: TopicPartition::new(TOPIC, 0)?,
        checkpoint: folder.join("kv.checkpoint"),
        state: Mutex::default(),
        applied: Condvar::new(),
        node,
    });
    *service.state() = Checkpoint::read(&service.checkpoint)?;
    let applier = service.clone();
    std::thread::spawn(move || {
        let Err(error) = applier.apply_all();
        // A service that cannot follow its log has nothing true left to say. The next process
        // begins at the checkpoint.
        eprintln!("kv: {error}");
        std::process::exit(1);
    });
    println!("ready {}", service.node.id());
    for line in io::stdin().lock().lines() {
        println!("{}", service.answer(&line?));
    }
    Checkpoint::write(&service.checkpoint, &service.state())?;
    // Hands leadership over first, so that the others need not miss this node before they elect.
    service.node.stop()?;
    Ok(())
}

/// What a process serves.
struct Service {
    node: Node,
    log: TopicPartition,
    checkpoint: PathBuf,
    state: Mutex<State>,
    /// Told whenever more is applied.
    applied: Condvar,
}

/// The map, and the offset of the first record that is not in it yet. They belong together: a
/// map without its offset cannot be continued, only built anew.
#[derive(Default)]
struct State {
    map: BTreeMap<String, String>,
    next: Offset,
}

impl State {
    /// The one place where the map changes, and a function of the record alone: no clock, no
    /// chance, nothing of this node. That is why the maps are equal.
    fn apply(&mut self, record: Record) {
        let text = |bytes: Option<Vec<u8>>| {
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        self.map.insert(text(record.key), text(record.value));
        self.next = record.offset.next();
    }
}

/// Writing.
impl Service {
    /// The map is not touched here, only by the record when it comes back committed: otherwise a
    /// reader might see what is never committed, and each node a different order.
    fn put(&self, pairs: &[&str]) -> String {
        let records = pairs.chunks_exact(2);
        let records: Vec<NewRecord> = records.map(|it| NewRecord::new(it[0], it[1])).collect();
        match block_on(self.node.append(&self.log, &records)) {
            Ok(first) => format!("ok {first}"),
            // The records may be committed by the next leader, or be gone. A put may be sent
            // again whole: the same value twice is the same map. What a repeated put can do is
            // overwrite somebody else's later one. A service that minds, or one whose changes are
            // not idempotent ("add 5"), puts a request's id into its record, remembers in `State`
            // which it has applied, and skips the second.
            Err(NodeError::Indefinite) => "unknown".to_owned(),
            Err(error) => self.refused(error),
        }
    }

    /// After every error but `Indefinite` it is certain that nothing was done.
    fn refused(&self, error: NodeError) -> String {
        let leader = match error {
            // Nobody leads at this moment: wait until somebody does.
            NodeError::NotLeader { leader: None } => block_on(self.node.leader(&self.log)),
            NodeError::NotLeader { leader: Some(id) } => Ok(id),
            error => Err(error),
        };
        match leader {
            Ok(id) if id == self.node.id() => "retry this node leads now".to_owned(),
            Ok(id) => format!("redirect {id}"),
            Err(error) => format!("retry {error}"),
        }
    }
}

/// Reading.
impl Service {
    /// The barrier asks a majority whether this node still leads, and says up to which offset
    /// everything acknowledged so far must lie. Without it a leader that has been succeeded, and
    /// does not know it yet, would serve old values.
    fn get(&self, key: &str) -> String {
        match block_on(self.node.barrier(&self.log)) {
            Ok(point) => match self.applied_to(point).map.get(key) {
                Some(value) => format!("value {value}"),
                None => "none".to_owned(),
            },
            Err(error) => self.refused(error),
        }
    }

    fn applied_to(&self, point: Offset) -> MutexGuard<'_, State> {
        let waiting = self.applied.wait_while(self.state(), |it| it.next < point);
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node has, leader or not, perhaps behind the others.
    fn dump(&self) -> String {
        let state = self.state();
        let pairs = state.map.iter();
        let lines: String = pairs.map(|(k, v)| format!("  {k} {v}\n")).collect();
        format!("{lines}ok {}", state.next)
    }

    fn answer(&self, line: &str) -> String {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["put", ref pairs @ ..] if !pairs.is_empty() && pairs.len() % 2 == 0 => self.put(pairs),
            ["get", key] => self.get(key),
            ["dump"] => self.dump(),
            _ => "usage: put KEY VALUE [KEY VALUE].. | get KEY | dump".to_owned(),
        }
    }
}

/// Applying.
impl Service {
    /// Follows the commits on this node's own replica. The leader applies the same way: what it
    /// has appended itself is no different.
    fn apply_all(&self) -> Result<std::convert::Infallible, Error> {
        let mut saved = self.state().next;
        let mut follow = self.node.follow(self.log.clone(), saved);
        loop {
            let records = block_on(follow.next())?;
            let mut state = self.state();
            records.into_iter().for_each(|record| state.apply(record));
            self.applied.notify_all();
            if saved.distance_to(state.next) >= Some(CHECKPOINT_EVERY) {
                Checkpoint::write(&self.checkpoint, &state)?;
                saved = state.next;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A record is applied whole or not at all, so what a panic leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that shortens the way back: the offset in the first line, then a pair a line.
struct Checkpoint;

impl Checkpoint {
    /// Map and offset in one file, and the file in one step. If they lay in two, a crash between
    /// them would leave a map with records twice, or without some for ever. Until the rename is
    /// on disk the old checkpoint holds; a half-written new one is never looked at, and the next
    /// write begins it anew.
    fn write(path: &Path, state: &State) -> io::Result<()> {
        let mut text = format!("{}\n", state.next);
        let pairs = state.map.iter();
        pairs.for_each(|(key, value)| text += &format!("{key} {value}\n"));
        let unfinished = path.with_extension("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        // Before the rename: else the new name could reach the disk without the contents.
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        let folder = path.parent().expect("it lies in the node's folder");
        File::open(folder)?.sync_all()
    }

    /// A process without one begins at the front of the log.
    fn read(path: &Path) -> Result<State, Error> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            other => other?,
        };
        let mut lines = text.lines();
        let next = lines.next().ok_or("the checkpoint is empty")?.parse()?;
        let pairs = lines.filter_map(|line| line.split_once(' '));
        Ok(State {
            map: pairs.map(|(k, v)| (k.into(), v.into())).collect(),
            next: Offset(next),
        })
    }
}

/// A node's futures need no particular runtime, and this program has no use for more than one
/// request at a time.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("it opens nothing").block_on(future)
}

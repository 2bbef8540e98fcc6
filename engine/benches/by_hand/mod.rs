//! A few nodes of one shard, driven by hand through the engine's public seam: frames in, turns,
//! frames out. No sockets, no threads, no clock: what is measured is the engine and what it
//! stands on, and it does the same every time.

mod disk;
mod load;
mod requests;
mod storage;

use std::time::Duration;

use bytes::Bytes;
use highwater_engine::controller::{ClusterDefaults, Listener, NodeRegistration, RECORD_VERSION};
use highwater_engine::kafka::{Desk, KafkaConfig, KafkaService};
use highwater_engine::{
    CONTROLLER, ConnId, GroupConfig, GroupSpec, Input, NodeId, Now, Output, Session, Shard,
    ShardConfig, ShardId, Timing,
};
use highwater_log::{ClusterId, Incarnation, Store, StoreConfig};
use highwater_protocol::ErrorCode;
use highwater_record::{Budget, Buffer, BufferPool};

use self::disk::Disk;
pub(crate) use self::load::{Load, Run};
use self::storage::QuickStorage;

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

const CLUSTER: ClusterId = ClusterId(*b"driven by hands.");
const CONN: ConnId = ConnId(1);
const SESSION: Session = Session(1);

/// What a shard may take for what it stamps and sends, and its log for what it writes, in bytes.
const POOL_BYTES: usize = 256 << 20;

/// Less than the default, so that what is measured finds the cache full.
const TAIL_CACHE_BYTES: usize = 8 << 20;

/// More turns than any of this needs.
const ROUNDS_MAX: u32 = 100_000;

struct Node {
    id: NodeId,
    disk: Disk,
    shard: Shard<QuickStorage, KafkaService>,
}

/// Nodes that trust one another, and one client of the first.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    outputs: Vec<(NodeId, Output)>,
    now: Duration,
    answers: Vec<Vec<Bytes>>,
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation([node.0.to_le_bytes()[0]; 16])
}

impl Cluster {
    /// This many nodes, of which the first leads the only partition of the only topic.
    pub(crate) fn new(count: u32) -> Cluster {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            outputs: Vec::new(),
            now: Duration::from_secs(1),
            answers: Vec::new(),
        };
        let now = cluster.clock();
        cluster.nodes = (1..=count).map(|id| open(NodeId(id), count, now)).collect();
        for node in &mut cluster.nodes {
            for peer in (1..=count).map(NodeId).filter(|peer| *peer != node.id) {
                node.shard.push(Input::PeerUp {
                    node: peer,
                    session: SESSION,
                    incarnation: incarnation(peer),
                });
            }
        }
        cluster.run_until("every node is registered", |cluster| {
            let mut nodes = cluster.nodes.iter();
            nodes.all(|node| node.shard.service().cluster().is_ready())
        });
        cluster.insist(&requests::create_topic(count), requests::created);
        cluster
    }

    fn clock(&self) -> Now {
        let millis = i64::try_from(self.now.as_millis()).expect("a short life");
        Now {
            monotonic: self.now,
            wall_ms: EPOCH_MS + millis,
        }
    }

    /// Asks until it is done, as a client does that meets a cluster which has just begun.
    fn insist(&mut self, request: &Buffer, read: fn(&[Bytes]) -> ErrorCode) {
        for _ in 0..100 {
            self.push(request.clone());
            self.run_until("an answer", |cluster| !cluster.answers.is_empty());
            let code = read(&self.answers.remove(0));
            if code == ErrorCode::None {
                return;
            }
            assert!(code.is_retriable(), "{code:?}");
            self.run_for(Duration::from_millis(100));
        }
        panic!("asked in vain");
    }

    fn push(&mut self, frame: Buffer) {
        let request = Input::Request { conn: CONN, frame };
        self.nodes[0].shard.push(request);
    }

    /// Sends requests at once and goes on until all are answered. Time stands still.
    pub(crate) fn ask(&mut self, frames: Vec<Buffer>) {
        let answered = self.answers.len() + frames.len();
        for frame in frames {
            self.push(frame);
        }
        for _ in 0..ROUNDS_MAX {
            self.round();
            if self.answers.len() >= answered {
                return;
            }
        }
        panic!("asked in vain");
    }

    /// The answers that have come, taken.
    pub(crate) fn answers(&mut self) -> Vec<Vec<Bytes>> {
        std::mem::take(&mut self.answers)
    }

    /// What is written from now on is acknowledged and gone.
    pub(crate) fn drop_writes(&self) {
        for node in &self.nodes {
            node.disk.drop_writes();
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("time passes", |cluster| cluster.now >= end);
    }

    /// Goes on until it holds. Time passes where nothing else happens.
    fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Cluster) -> bool) {
        for _ in 0..ROUNDS_MAX {
            if holds(self) {
                return;
            }
            if !self.round() {
                self.now += Duration::from_millis(1);
            }
        }
        panic!("in vain: {what}");
    }

    /// A turn of every node, then what has come out is carried; whether anything has.
    fn round(&mut self) -> bool {
        let now = self.clock();
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut more = false;
        for node in &mut self.nodes {
            more |= node.shard.turn(now).more;
            while let Some(output) = node.shard.poll_output() {
                outputs.push((node.id, output));
            }
        }
        more |= !outputs.is_empty();
        for (from, output) in outputs.drain(..) {
            self.carry(from, output);
        }
        self.outputs = outputs;
        more
    }

    fn carry(&mut self, from: NodeId, output: Output) {
        match output {
            Output::PeerFrame {
                to,
                session,
                lane,
                chunks,
            } => {
                let bytes = gather(&chunks);
                let node = self.nodes.iter_mut().find(|node| node.id == to);
                let node = node.expect("peers are nodes");
                node.shard.push(Input::PeerFrame {
                    from,
                    session,
                    lane,
                    bytes,
                });
            }
            Output::Response { chunks, .. } => self.answers.push(chunks),
            other => panic!("{from}: {other:?}"),
        }
    }
}

/// A frame as its receiver has it: in one piece, by the one copy that the way through packets
/// costs too.
fn gather(chunks: &[Buffer]) -> Buffer {
    let mut bytes = Vec::with_capacity(chunks.iter().map(|chunk| chunk.len()).sum());
    for chunk in chunks {
        bytes.extend_from_slice(chunk);
    }
    Buffer::from(bytes)
}

fn open(id: NodeId, nodes: u32, now: Now) -> Node {
    let disk = Disk::new(id, CLUSTER, incarnation(id));
    let directory = disk.open();
    let config = StoreConfig {
        reserve_bytes: 0,
        tail_cache_bytes: TAIL_CACHE_BYTES,
        ..StoreConfig::default()
    };
    let pool = || BufferPool::new(Budget::new(POOL_BYTES), 4096);
    let opened = Store::open(disk.storage(), pool(), config, &directory, &[]);
    let (store, recovered) = opened.expect("an empty disk");
    let shard = Shard::open(
        shard_config(id, nodes),
        store,
        recovered.groups,
        pool(),
        service(id, nodes),
        now,
    );
    Node {
        id,
        disk,
        shard: shard.expect("an empty disk"),
    }
}

fn shard_config(id: NodeId, nodes: u32) -> ShardConfig {
    let controller = GroupSpec {
        group: CONTROLLER,
        replicas: (1..=nodes).map(NodeId).collect(),
        config: GroupConfig {
            retention_ms: None,
            ..GroupConfig::default()
        },
    };
    ShardConfig {
        cluster: CLUSTER,
        node: id,
        incarnation: incarnation(id),
        shard: ShardId(0),
        shards: 1,
        seed: id.0.into(),
        timing: Timing::default(),
        controller: Some(controller),
        last_known_wall_ms: None,
    }
}

fn service(id: NodeId, nodes: u32) -> KafkaService {
    let registration = NodeRegistration {
        node: id,
        incarnation: incarnation(id),
        boot: 1,
        record_versions: (RECORD_VERSION, RECORD_VERSION),
        listeners: vec![Listener {
            name: "kafka".to_owned(),
            host: format!("node{}", id.0),
            port: 9092,
        }],
    };
    KafkaService::new(Desk::new(KafkaConfig {
        registration,
        shard: ShardId(0),
        cluster_id: "by hand".to_owned(),
        listener: "127.0.0.1:9092".to_owned(),
        metrics_listener: "127.0.0.1:9644".to_owned(),
        auto_create: false,
        defaults: ClusterDefaults {
            partitions: 1,
            replication: u16::try_from(nodes).expect("few nodes"),
        },
        seed: id.0.into(),
    }))
}

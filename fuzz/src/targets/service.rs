//! A node of one, whole but for sockets and threads, and its clients.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use highwater_engine::controller::{ClusterDefaults, Listener, NodeRegistration, RECORD_VERSION};
use highwater_engine::kafka::{Desk, KafkaConfig, KafkaService, REQUESTS_IN_FLIGHT_MAX};
use highwater_engine::{
    CONTROLLER, ConnId, GroupConfig, GroupSpec, Input, NodeId, Now, Output, Shard, ShardConfig,
    ShardId, Timing,
};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{
    ClusterId, Directory, DirectoryFormat, Expected, Incarnation, Store, StoreConfig,
};
use highwater_protocol::messages::{CreatableTopic, CreateTopicsRequest, StrBytes, TopicName};
use highwater_protocol::{Call, LENGTH_BYTES, RequestHeader, frame_length};
use highwater_record::{Budget, Buffer, BufferPool};

use super::script::Script;

/// How many turns may pass until a node comes to rest.
const TURNS_MAX: usize = 20_000;

/// Longer than any request may wait.
const LONG: Duration = Duration::from_secs(700);

const JOURNAL_BYTES: u64 = 64 << 10;
const CLUSTER: ClusterId = ClusterId([1; 16]);
const INCARNATION: Incarnation = Incarnation([2; 16]);
const NODE: NodeId = NodeId(0);

/// A node that has a topic `t` of two partitions.
static WITH_TOPIC: LazyLock<MemoryDisk> = LazyLock::new(|| {
    let disk = MemoryDisk::new();
    let format = DirectoryFormat {
        node: highwater_log::NodeId(NODE.0),
        cluster: CLUSTER,
        incarnation: INCARNATION,
        created_ms: 0,
    };
    Directory::format(&mut MemoryStorage::new(&disk), &format).expect("the disk is empty");
    let mut node = Node::start(&disk);
    node.request(ConnId(1), create_topic());
    node.settle();
    assert_eq!(node.answered.get(&ConnId(1)), Some(&1));
    drop(node);
    disk
});

fn create_topic() -> Vec<u8> {
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_num_partitions(2)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let header = RequestHeader {
        key: CreateTopicsRequest::KEY,
        version: 7,
        correlation_id: 1,
        client_id: None,
    };
    let chunks = request.encode(&header).expect("it fits its version");
    chunks.concat()[LENGTH_BYTES..].to_vec()
}

struct Node {
    shard: Shard<MemoryStorage, KafkaService<Desk>>,
    now: Now,
    answered: BTreeMap<ConnId, usize>,
    closed: Vec<ConnId>,
}

impl Node {
    /// Starts a node and waits until it knows its topics.
    fn start(disk: &MemoryDisk) -> Self {
        let mut storage = MemoryStorage::new(disk);
        let directory = Directory::open(&mut storage, &Expected::default(), 1, JOURNAL_BYTES);
        let directory = directory.expect("nothing has damaged it");
        let pool = BufferPool::new(Budget::new(64 << 20), 4_096);
        let config = StoreConfig {
            reserve_bytes: 0,
            ..StoreConfig::default()
        };
        let groups = directory.groups();
        let opened = Store::open(storage, pool.clone(), config, &directory, &groups);
        let (store, recovered) = opened.expect("nothing has damaged it");
        let now = Now {
            monotonic: Duration::from_secs(1),
            wall_ms: 1_700_000_000_000,
        };
        let groups = recovered.groups;
        let shard = Shard::open(shard_config(), store, groups, pool, service(), now);
        let mut node = Self {
            shard: shard.expect("it was left whole"),
            now,
            answered: BTreeMap::new(),
            closed: Vec::new(),
        };
        for _ in 0..TURNS_MAX {
            if node.shard.service().cluster().is_ready() {
                return node;
            }
            node.turn(Duration::from_millis(10));
        }
        panic!("the node does not become ready");
    }

    fn request(&mut self, conn: ConnId, frame: Vec<u8>) {
        let frame = Buffer::from(frame);
        self.shard.push(Input::Request { conn, frame });
    }

    /// A turn; if there is nothing more to do, time passes to the next deadline, at most by so much.
    fn turn(&mut self, most: Duration) -> bool {
        let turn = self.shard.turn(self.now);
        let mut busy = turn.more;
        while let Some(output) = self.shard.poll_output() {
            busy = true;
            self.take(output);
        }
        if !busy {
            let end = self.now.monotonic + most;
            let due = turn.next_deadline.unwrap_or(end);
            self.now.monotonic = due.clamp(self.now.monotonic + Duration::from_micros(1), end);
        }
        busy
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Response { conn, chunks } => {
                *self.answered.entry(conn).or_default() += 1;
                is_a_frame(&chunks);
            }
            Output::Close { conn } => self.close(conn),
            Output::Failed { reason } => panic!("the node has failed: {reason}"),
            Output::PeerFrame { .. } | Output::ToShard { .. } | Output::LocalDone { .. } => {}
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.shard.push(Input::ConnClosed { conn });
        self.closed.push(conn);
    }

    /// Turns until nobody waits any more.
    fn settle(&mut self) {
        let end = self.now.monotonic + LONG;
        while self.now.monotonic < end {
            let is_busy = self.turn(Duration::from_secs(1));
            if !is_busy && self.shard.service().requests_running() == 0 {
                return;
            }
        }
        panic!("a request is never answered");
    }
}

/// None for a request that wants no answer, or a frame as long as it says.
fn is_a_frame(chunks: &[Bytes]) {
    let frame = chunks.concat();
    if let Some(prefix) = frame.first_chunk() {
        let length = frame_length(*prefix, usize::MAX).expect("lengths are not negative");
        assert_eq!(length, frame.len() - LENGTH_BYTES);
    }
}

fn shard_config() -> ShardConfig {
    ShardConfig {
        cluster: CLUSTER,
        node: NODE,
        incarnation: INCARNATION,
        shard: ShardId(0),
        shards: 1,
        seed: 7,
        timing: Timing::default(),
        controller: Some(GroupSpec {
            group: CONTROLLER,
            replicas: vec![NODE],
            config: GroupConfig::default(),
        }),
        last_known_wall_ms: None,
    }
}

fn service() -> KafkaService {
    KafkaService::new(Desk::new(KafkaConfig {
        registration: NodeRegistration {
            node: NODE,
            incarnation: INCARNATION,
            boot: 1,
            record_versions: (RECORD_VERSION, RECORD_VERSION),
            listeners: vec![Listener {
                name: "kafka".to_owned(),
                host: "localhost".to_owned(),
                port: 9092,
            }],
        },
        shard: ShardId(0),
        cluster_id: "fed".to_owned(),
        listener: "localhost:9092".to_owned(),
        metrics_listener: "127.0.0.1:9644".to_owned(),
        auto_create: true,
        defaults: ClusterDefaults {
            partitions: 1,
            replication: 1,
        },
        seed: 7,
    }))
}

/// What is said to a node: a byte of which connection and what, then as many bytes of a frame as
/// two bytes say. Each request is answered, or its connection closed.
pub(crate) fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let disk = WITH_TOPIC.fork();
    let mut node = Node::start(&disk);
    let mut asked: BTreeMap<ConnId, usize> = BTreeMap::new();
    let mut said = 0;
    while !script.is_over() && said < 4 * REQUESTS_IN_FLIGHT_MAX {
        said += 1;
        let choice = script.u8();
        let conn = ConnId(u64::from(choice % 4));
        if node.closed.contains(&conn) {
            let _ = script.bytes(usize::MAX);
            continue;
        }
        match choice / 4 % 8 {
            0 => node.settle(),
            1 => node.close(conn),
            2 => drop(node.turn(Duration::from_millis(50))),
            _ => {
                node.request(conn, script.bytes(usize::MAX).to_vec());
                *asked.entry(conn).or_default() += 1;
            }
        }
    }
    node.settle();
    for (conn, asked) in asked {
        let answered = node.answered.get(&conn).copied().unwrap_or(0);
        let closed = node.closed.contains(&conn);
        assert!(
            answered == asked || closed,
            "{conn:?}: {answered} of {asked} are answered"
        );
    }
}

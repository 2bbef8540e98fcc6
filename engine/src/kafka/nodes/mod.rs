//! Whole nodes in memory, asked by Kafka's frames: shards over disks that survive them, with links
//! that lose nothing, on virtual time.

mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use highwater_log::{ClusterId, Incarnation};
use highwater_protocol::{Call, LENGTH_BYTES, RequestHeader};
use highwater_record::{Budget, Buffer, BufferPool};

use super::{Desk, KafkaConfig, KafkaService};
use crate::controller::{ClusterDefaults, Listener, NodeRegistration, RECORD_VERSION};
use crate::testing::{Disk, SimStorage};
use crate::{
    CONTROLLER, ConnId, GroupConfig, GroupSpec, Input, NodeId, Now, Output, Session, Shard,
    ShardConfig, ShardId, Timing,
};

const EPOCH_MS: i64 = 1_700_000_000_000;

/// More turns than any of these tests needs: whoever takes them goes round in circles.
const TURNS_MAX: u32 = 200_000;

type NodeShard = Shard<SimStorage, KafkaService>;

/// What a test may choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: u32,
    pub(super) shards: u16,
    pub(super) auto_create: bool,
}

struct Node {
    disk: Disk,
    boot: u64,
    /// None while it is down.
    shards: Vec<NodeShard>,
}

/// Nodes and their clients.
pub(super) struct Nodes {
    shape: Shape,
    nodes: BTreeMap<NodeId, Node>,
    now: Duration,
    session: u64,
    conns: u64,
    correlation: i32,
    /// What clients were sent, whole frames.
    received: BTreeMap<Client, VecDeque<Bytes>>,
    closed: Vec<Client>,
}

/// A connection to a shard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client {
    node: NodeId,
    shard: ShardId,
    conn: ConnId,
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation([node.0.to_le_bytes()[0]; 16])
}

impl Nodes {
    /// Starts them all, and waits until each is registered.
    pub(super) fn new(shape: Shape) -> Nodes {
        let ids = (1..=shape.nodes).map(NodeId);
        let mut nodes = Nodes {
            shape,
            nodes: ids
                .map(|id| {
                    let node = Node {
                        disk: Disk::with_delays(id, Duration::from_millis(2), u64::from(id.0)),
                        boot: 0,
                        shards: Vec::new(),
                    };
                    (id, node)
                })
                .collect(),
            now: Duration::from_secs(1),
            session: 0,
            conns: 0,
            correlation: 0,
            received: BTreeMap::new(),
            closed: Vec::new(),
        };
        for id in 1..=shape.nodes {
            nodes.start(NodeId(id));
        }
        nodes.run_until("every node is registered", Nodes::is_ready);
        nodes
    }

    pub(super) fn single() -> Nodes {
        Nodes::new(Shape {
            nodes: 1,
            shards: 1,
            auto_create: true,
        })
    }

    fn clock(&self) -> Now {
        Now {
            monotonic: self.now,
            wall_ms: EPOCH_MS + i64::try_from(self.now.as_millis()).unwrap(),
        }
    }

    pub(super) fn wall_ms(&self) -> i64 {
        self.clock().wall_ms
    }

    /// Starts a node, over what its disk remembers.
    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.clock();
        let shape = self.shape;
        let node = self.nodes.get_mut(&id).unwrap();
        node.boot += 1;
        let seed = u64::from(id.0) * 1_000 + node.boot;
        let registration = NodeRegistration {
            node: id,
            incarnation: incarnation(id),
            boot: node.boot,
            record_versions: (RECORD_VERSION, RECORD_VERSION),
            listeners: vec![Listener {
                name: "kafka".to_owned(),
                host: format!("node{}", id.0),
                port: 9092,
            }],
        };
        let opened = node.disk.open(now.monotonic, shape.shards);
        let opened = opened.unwrap_or_else(|error| panic!("{id}: {error:?}"));
        for (shard, (store, recovered)) in (0..shape.shards).zip(opened.stores) {
            let controller = GroupSpec {
                group: CONTROLLER,
                replicas: (1..=shape.nodes).map(NodeId).collect(),
                config: GroupConfig {
                    retention_ms: None,
                    ..GroupConfig::default()
                },
            };
            let config = ShardConfig {
                cluster: ClusterId(*b"nodes in memory."),
                node: id,
                incarnation: incarnation(id),
                shard: ShardId(shard),
                shards: shape.shards,
                seed: seed + u64::from(shard),
                timing: Timing::default(),
                controller: (shard == 0).then_some(controller),
                last_known_wall_ms: None,
            };
            let service = KafkaService::new(Desk::new(KafkaConfig {
                registration: registration.clone(),
                shard: ShardId(shard),
                cluster_id: "nodes".to_owned(),
                listener: "127.0.0.1:9092".to_owned(),
                metrics_listener: "127.0.0.1:9292".to_owned(),
                auto_create: shape.auto_create,
                defaults: ClusterDefaults {
                    partitions: 4,
                    replication: u16::try_from(shape.nodes.min(3)).unwrap(),
                },
                seed,
            }));
            let pool = BufferPool::new(Budget::new(64 << 20), 4096);
            let shard = Shard::open(config, store, recovered, pool, service, now);
            node.shards.push(shard.unwrap());
        }
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|&p| p != id).collect();
        for peer in peers {
            if !self.nodes[&peer].shards.is_empty() {
                self.link(id, peer);
            }
        }
    }

    fn link(&mut self, one: NodeId, other: NodeId) {
        self.session += 1;
        for (node, peer) in [(one, other), (other, one)] {
            let session = Session(self.session);
            for shard in &mut self.nodes.get_mut(&node).unwrap().shards {
                shard.push(Input::PeerUp {
                    node: peer,
                    session,
                    incarnation: incarnation(peer),
                });
            }
        }
    }

    /// Kills a node; its peers notice.
    pub(super) fn kill(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.shards.clear();
        node.disk.power_cut();
        for (peer, node) in &mut self.nodes {
            for shard in &mut node.shards {
                // The session is not looked up: whichever it was, it is over.
                for session in (0..=self.session).map(Session) {
                    shard.push(Input::PeerDown { node: id, session });
                }
                assert_ne!(*peer, id);
            }
        }
    }

    fn is_ready(&self) -> bool {
        let mut shards = self.nodes.values().flat_map(|node| &node.shards);
        shards.all(|shard| shard.service().cluster().is_ready())
    }

    /// The desk of a node's first shard.
    pub(super) fn desk(&self, node: NodeId) -> &Desk {
        self.nodes[&node].shards[0].service().cluster()
    }

    /// Whether some shard of the node has a replica of the group.
    pub(super) fn has_group(&self, node: NodeId, group: crate::GroupId) -> bool {
        let mut shards = self.nodes[&node].shards.iter();
        shards.any(|shard| shard.groups().any(|here| here == group))
    }

    /// Goes on until it holds.
    pub(super) fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Nodes) -> bool) {
        for _ in 0..TURNS_MAX {
            if holds(self) {
                return;
            }
            self.turn();
        }
        panic!("in vain: {what}");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("time passes", |nodes| nodes.now >= end);
    }

    /// A turn of every shard; time goes on to the next deadline if nothing else happens.
    fn turn(&mut self) {
        let now = self.clock();
        let mut next: Option<Duration> = None;
        let mut busy = false;
        let mut outputs = Vec::new();
        for (&id, node) in &mut self.nodes {
            for (number, shard) in (0..).zip(&mut node.shards) {
                let place = ShardId(number);
                node.disk.set_now(place, now.monotonic);
                let turn = shard.turn(now);
                busy |= turn.more;
                let disk_due = node.disk.next_due(place);
                let due = turn.next_deadline.into_iter().chain(disk_due).min();
                next = next.into_iter().chain(due).min();
                while let Some(output) = shard.poll_output() {
                    busy = true;
                    outputs.push((id, place, output));
                }
            }
        }
        for (node, shard, output) in outputs {
            self.deliver(node, shard, output);
        }
        if !busy {
            let step = Duration::from_millis(1);
            let due = next.unwrap_or(self.now + step);
            self.now = due.clamp(self.now + Duration::from_micros(1), self.now + step);
        }
    }

    fn deliver(&mut self, node: NodeId, shard: ShardId, output: Output) {
        match output {
            Output::PeerFrame {
                to,
                session,
                lane,
                chunks,
            } => {
                let bytes: Vec<u8> = chunks
                    .iter()
                    .flat_map(|chunk| chunk.iter().copied())
                    .collect();
                let bytes = Buffer::from(bytes);
                if let Some(front) = self.nodes.get_mut(&to).unwrap().shards.first_mut() {
                    front.push(Input::PeerFrame {
                        from: node,
                        session,
                        lane,
                        bytes,
                    });
                }
            }
            Output::Response { conn, chunks } => {
                if !chunks.is_empty() {
                    let client = Client { node, shard, conn };
                    let frame = Bytes::from(chunks.concat());
                    self.received.entry(client).or_default().push_back(frame);
                }
            }
            Output::Close { conn } => self.closed.push(Client { node, shard, conn }),
            Output::ToShard { to, message } => {
                let shards = &mut self.nodes.get_mut(&node).unwrap().shards;
                shards[usize::from(to.0)].push(Input::FromShard {
                    from: shard,
                    message,
                });
            }
            Output::LocalDone { .. } => {}
            Output::Failed { reason } => panic!("{node} failed: {reason}"),
        }
    }

    /// Connects to a node's shard.
    pub(super) fn connect(&mut self, node: u32, shard: u16) -> Client {
        self.conns += 1;
        Client {
            node: NodeId(node),
            shard: ShardId(shard),
            conn: ConnId(self.conns),
        }
    }

    /// Sends a request; its correlation id.
    pub(super) fn send<C: Call>(&mut self, client: Client, call: &C, version: i16) -> i32 {
        self.correlation += 1;
        let header = RequestHeader {
            key: C::KEY,
            version,
            correlation_id: self.correlation,
            client_id: None,
        };
        let frame = call.encode(&header).unwrap().concat();
        self.send_bytes(client, &frame[LENGTH_BYTES..]);
        self.correlation
    }

    pub(super) fn send_bytes(&mut self, client: Client, frame: &[u8]) {
        let node = self.nodes.get_mut(&client.node).unwrap();
        // As a listener does: into pooled memory of its own.
        let frame = Buffer::aligned_copy(frame, 4096);
        let conn = client.conn;
        node.shards[usize::from(client.shard.0)].push(Input::Request { conn, frame });
    }

    pub(super) fn is_closed(&self, client: Client) -> bool {
        self.closed.contains(&client)
    }

    /// Waits for the answer to the request that was sent last.
    pub(super) fn answer<C: Call>(&mut self, client: Client, version: i16) -> C::Answer {
        let has_answer = |nodes: &Nodes| {
            assert!(!nodes.is_closed(client), "closed instead of answered");
            let received = nodes.received.get(&client);
            received.is_some_and(|frames| !frames.is_empty())
        };
        self.run_until("an answer", has_answer);
        let frames = self.received.get_mut(&client).unwrap();
        let frame = frames.pop_front().unwrap();
        let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), frame.len() - LENGTH_BYTES);
        let frame = frame.slice(LENGTH_BYTES..);
        C::decode_answer(version, &frame).unwrap()
    }

    /// Asks and waits for the answer.
    pub(super) fn ask<C: Call>(&mut self, client: Client, call: &C, version: i16) -> C::Answer {
        let correlation = self.send(client, call, version);
        let answer = self.answer::<C>(client, version);
        assert_eq!(correlation, self.correlation);
        answer
    }
}

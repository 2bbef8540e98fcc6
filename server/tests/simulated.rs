//! A service's state machine on a simulated cluster: a map, with its checkpoints, as in
//! `examples/kv.rs`. What is right survives every seed, and what is wrong is found.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::testing::{SimCluster, SimFollow};
use highwater::{NewRecord, NodeError, Offset, Record, TopicPartition};

const NODES: u32 = 3;

/// How many writes a run tries.
const ROUNDS: u64 = 400;

/// A wrong checkpoint is found in one of so many seeds, or the simulation is worth little.
const SEEDS_MAX: u64 = 150;

/// How many records are applied between two checkpoints.
const CHECKPOINT_EVERY: u64 = 4;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// How the service saves where it is.
#[derive(Debug, Clone, Copy)]
enum Checkpoints {
    /// Map and offset in one step.
    Whole,
    /// The planted bug: the offset, then the map. A crash between them loses records for good.
    OffsetFirst,
    /// Another: the map, and never the offset. Harmless for a map, but see `applied`.
    MapOnly,
}

/// The service on one node, in one life of it.
struct Service {
    node: u32,
    life: u64,
    checkpoints: Checkpoints,
    state: State,
    saved: Offset,
    follow: SimFollow,
}

/// The map, and how many records it is made of: a number that is wrong as soon as a record is
/// applied twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    map: Map,
    applied: u64,
}

impl State {
    fn apply(&mut self, record: &Record) {
        let (key, value) = (record.key.clone(), record.value.clone());
        self.map
            .insert(key.unwrap_or_default(), value.unwrap_or_default());
        self.applied += 1;
    }

    fn encode(&self) -> Vec<u8> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it was text");
        let pairs = self
            .map
            .iter()
            .map(|(k, v)| format!("\n{} {}", text(k), text(v)));
        format!("{}{}", self.applied, pairs.collect::<String>()).into_bytes()
    }

    fn decode(bytes: &[u8]) -> State {
        let text = std::str::from_utf8(bytes).expect("it was text");
        let mut lines = text.lines();
        let applied = lines.next().and_then(|line| line.parse().ok());
        let pairs = lines.filter_map(|line| line.split_once(' '));
        State {
            map: pairs.map(|(k, v)| (k.into(), v.into())).collect(),
            applied: applied.expect("a number comes first"),
        }
    }
}

impl Service {
    /// Begins where the last life has saved that it was.
    fn start(cluster: &SimCluster, node: u32, checkpoints: Checkpoints) -> Option<Service> {
        let life = cluster.life(node)?;
        let state = cluster.load(node, "map").map(State::decode);
        let state = state.unwrap_or_default();
        let next = match checkpoints {
            Checkpoints::Whole => state.applied,
            _ => match cluster.load(node, "offset") {
                Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
                None => 0,
            },
        };
        Some(Service {
            node,
            life,
            checkpoints,
            state,
            saved: Offset(next),
            follow: cluster.follow(node, kv(), Offset(next)),
        })
    }

    /// Applies what is new, and saves now and then. Fails as soon as the node has crashed.
    fn step(&mut self, cluster: &mut SimCluster) -> Result<(), NodeError> {
        let records = self.follow.poll(cluster)?;
        records.iter().for_each(|record| self.state.apply(record));
        let next = self.follow.position();
        if self.saved.distance_to(next) >= Some(CHECKPOINT_EVERY) {
            self.save(cluster, next)?;
            self.saved = next;
        }
        Ok(())
    }

    fn save(&self, cluster: &mut SimCluster, next: Offset) -> Result<(), NodeError> {
        let map = self.state.encode();
        match self.checkpoints {
            // Its offset is the number of records that it is made of.
            Checkpoints::Whole | Checkpoints::MapOnly => cluster.save(self.node, "map", &map),
            Checkpoints::OffsetFirst => {
                cluster.save(self.node, "offset", &next.0.to_le_bytes())?;
                cluster.save(self.node, "map", &map)
            }
        }
    }
}

fn kv() -> TopicPartition {
    TopicPartition::new("kv", 0).expect("a good name")
}

/// All services of a run.
struct Run {
    cluster: SimCluster,
    checkpoints: Checkpoints,
    services: Vec<Option<Service>>,
    /// Whom the client asks.
    target: u32,
    restarts: u32,
}

impl Run {
    fn new(seed: u64, checkpoints: Checkpoints) -> Run {
        Run {
            cluster: SimCluster::new(seed)
                .nodes(NODES)
                .with_faults()
                .topic("kv", 1),
            checkpoints,
            services: (0..NODES).map(|_| None).collect(),
            target: 0,
            restarts: 0,
        }
    }

    fn put(&mut self, number: u64) {
        let record = NewRecord::new(format!("key-{}", number % 50), format!("value-{number}"));
        match self.cluster.append(self.target, &kv(), &[record]) {
            Ok(_) => {}
            Err(NodeError::NotLeader {
                leader: Some(leader),
            }) => self.target = leader,
            Err(_) => self.target = (self.target + 1) % NODES,
        }
    }

    /// Every service takes a step; one whose node has crashed is started again with it.
    fn step(&mut self) {
        for (node, service) in (0..NODES).zip(&mut self.services) {
            let life = self.cluster.life(node);
            if service.as_ref().map(|it| it.life) != life {
                self.restarts += 1;
                *service = Service::start(&self.cluster, node, self.checkpoints);
            }
            if let Some(running) = service {
                // What fails now is tried again, by this life or the next.
                let _ = running.step(&mut self.cluster);
            }
        }
    }

    /// Runs under faults, then without, and compares the maps with the log. Gives the hash of
    /// the run and how often services were started, or says which map is wrong.
    fn finish(mut self) -> Result<(u64, u32), String> {
        for number in 0..ROUNDS {
            self.put(number);
            self.step();
            let pause = self.cluster.draw(40);
            self.cluster.run_for(Duration::from_millis(pause));
        }
        self.cluster.check();
        let leader = self.cluster.leader(&kv());
        let end = self.cluster.barrier(leader, &kv()).expect("all is well");
        // Until the others have heard of the last commit.
        self.cluster.run_for(Duration::from_secs(1));
        self.step();
        let mut expected = State::default();
        let records = self.cluster.read(leader, &kv(), Offset::ZERO, 1 << 24);
        let records = records.expect("all is well");
        records.iter().for_each(|record| expected.apply(record));
        assert_eq!(expected.applied, end.0, "the whole log was read");
        for service in self.services.iter().flatten() {
            if service.state != expected {
                return Err(format!("node {} has another map", service.node));
            }
        }
        Ok((self.cluster.trace_hash(), self.restarts))
    }
}

#[test]
fn a_map_that_is_saved_whole_survives_every_seed() {
    let mut restarts = 0;
    for seed in 1..=40 {
        let run = Run::new(seed, Checkpoints::Whole).finish();
        restarts += run.unwrap_or_else(|why| panic!("seed {seed}: {why}")).1;
    }
    // Each service was started once in any case.
    let restarts = restarts - 40 * NODES;
    assert!(restarts > 100, "hardly a node has crashed: {restarts}");
}

#[test]
fn wrong_checkpoints_are_found() {
    for planted in [Checkpoints::OffsetFirst, Checkpoints::MapOnly] {
        let found = (1..=SEEDS_MAX).find(|seed| Run::new(*seed, planted).finish().is_err());
        assert!(
            found.is_some(),
            "{planted:?} goes unnoticed in {SEEDS_MAX} seeds"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [5, 6] {
        let run = || Run::new(seed, Checkpoints::Whole).finish();
        assert_eq!(run(), run());
    }
}

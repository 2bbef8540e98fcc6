//! Random histories with crashes at random points, against a naive model: what was persisted is
//! there, nothing is there that was not written, and no alarm is raised without a fault.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{ModelGroup, ModelLog, check_epochs};
use common::{Node, Recover, format, open_with};
use fastrand::Rng;
use highwater_log::storage::{Keep, MemoryDisk, MemoryStorage};
use highwater_log::{
    Base, Chain, EntryId, Epoch, GroupConfig, GroupId, HardState, LogIndex, NodeId, Position,
    Retention, Term, WriteId,
};
use highwater_record::{Buffer, Offset};

const GROUPS: [GroupId; 2] = [GroupId(3), GroupId(11)];

struct World {
    rng: Rng,
    disk: MemoryDisk,
    node: Option<Node>,
    model: BTreeMap<GroupId, ModelGroup>,
    crashes: usize,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let alignment = if rng.bool() { 512 } else { 4096 };
        let disk = MemoryDisk::with_alignment(alignment);
        format(&disk);
        let mut world = World {
            rng,
            disk,
            node: None,
            model: BTreeMap::new(),
            crashes: 0,
            seed,
        };
        world.open();
        for group in GROUPS {
            let config = world.group_config();
            let node = world.node.as_mut().unwrap();
            node.store.create_group(group, config).unwrap();
            world.model.insert(group, ModelGroup::new());
        }
        world
    }

    fn group_config(&mut self) -> GroupConfig {
        GroupConfig {
            segment_bytes: 64 << 10,
            segment_age: Duration::from_secs(self.rng.u64(1..1_000)),
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().unwrap()
    }

    fn open(&mut self) {
        let config = highwater_log::StoreConfig {
            seed: self.rng.u64(..),
            tail_cache_bytes: self.rng.usize(0..200_000),
            map_sealed: self.rng.bool(),
            ..common::config()
        };
        let context = format!("seed {}, crash {}", self.seed, self.crashes);
        let storage = MemoryStorage::new(&self.disk);
        let (mut node, recovered) = open_with(storage, config).unwrap();
        let odd: Vec<String> = recovered.alarms.iter().map(ToString::to_string).collect();
        assert!(odd.is_empty(), "{context}: {odd:?}");
        let present: Vec<GroupId> = recovered.groups.iter().map(|group| group.group).collect();
        for (group, model) in &mut self.model {
            if present.contains(group) {
                let found = recovered.group(*group);
                let replayed = found.replay.iter().map(|entry| entry.id.index);
                assert!(replayed.is_sorted());
                let entries = node.read_all(*group);
                let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
                model.check(found, &ids, &context);
                check_epochs(found, &ids, &context);
            } else {
                let empty = |(_, log): &(WriteId, ModelLog)| *log == ModelLog::default();
                assert!(model.logs.iter().any(empty), "{context}: {group} is gone");
                let unpromised = |(_, hard): &(WriteId, HardState)| *hard == HardState::default();
                assert!(model.hards.iter().any(unpromised), "{context}");
                *model = ModelGroup::new();
                let config = GroupConfig::default();
                node.store.create_group(*group, config).unwrap();
            }
        }
        node.next_write = 0;
        self.node = Some(node);
    }

    fn crash(&mut self) {
        self.node = None;
        self.crashes += 1;
        match self.rng.u8(..4) {
            0 => {
                // The process dies; what it had handed over happens or not.
                let rng = &mut self.rng;
                self.disk.kill(|_| {
                    if rng.bool() {
                        Keep::Everything
                    } else {
                        Keep::Nothing
                    }
                });
            }
            _ => self.disk.power_cut_by_chance(&mut self.rng),
        }
        self.open();
        if self.rng.u8(..3) == 0 {
            // At once again: nothing was acted on, so the same is recovered.
            let before = self.ends();
            self.node = None;
            self.disk.power_cut_by_chance(&mut self.rng);
            self.open();
            assert_eq!(
                self.ends(),
                before,
                "seed {}: recovery is idempotent",
                self.seed
            );
        }
    }

    fn ends(&mut self) -> Vec<Position> {
        let node = self.node.as_ref().unwrap();
        GROUPS
            .iter()
            .map(|group| node.store.end(*group).unwrap())
            .collect()
    }

    fn step(&mut self) {
        let group = GROUPS[self.rng.usize(..GROUPS.len())];
        match self.rng.u8(..40) {
            0..=13 => self.append(group),
            14..=15 => self.promise(group),
            16..=17 => self.cut(group),
            18 => self.base(group),
            19..=20 => self.commit(group),
            21 => self.seal(group),
            22 => self.retain(group),
            23..=24 => {
                let time = Duration::from_millis(self.rng.u64(..200));
                self.node().now += time;
            }
            25..=37 => self.turn(),
            38 => {
                self.node().settle();
                self.turn();
            }
            _ => self.crash(),
        }
    }

    fn turn(&mut self) {
        let node = self.node.as_mut().unwrap();
        node.store.wait();
        node.turn();
        for (group, write) in &node.persisted {
            self.model.get_mut(group).unwrap().persisted(*write);
        }
        assert!(
            node.alarms().is_empty(),
            "seed {}: {:?}",
            self.seed,
            node.alarms()
        );
        node.persisted.clear();
        let closed =
            |event: &highwater_log::Event| matches!(event, highwater_log::Event::Closed { .. });
        node.events.retain(closed);
    }

    fn append(&mut self, group: GroupId) {
        let count = self.rng.u64(1..5);
        let large = self.rng.u8(..8) == 0;
        for _ in 0..count {
            let bytes = if large {
                self.rng.usize(1_000..30_000)
            } else {
                self.rng.usize(0..400)
            };
            let model = self.model.get_mut(&group).unwrap();
            if model.hard.term == Term(0) {
                return self.promise(group);
            }
            let node = self.node.as_mut().unwrap();
            let write = node.append_sized(group, model.hard.term.0, bytes);
            let end = node.store.end(group).unwrap().offset;
            model.log.entries.push((model.hard.term, end));
            model.note_log(write);
        }
    }

    fn promise(&mut self, group: GroupId) {
        let model = self.model.get_mut(&group).unwrap();
        let term = Term(model.hard.term.0 + 1);
        let vote = self.rng.bool().then(|| NodeId(self.rng.u32(1..4)));
        model.hard = HardState { term, vote };
        let node = self.node.as_mut().unwrap();
        let write = node.write_id();
        node.store.set_hard_state(group, write, model.hard).unwrap();
        model.hards.push((write, model.hard));
    }

    fn cut(&mut self, group: GroupId) {
        self.promise(group);
        let model = self.model.get_mut(&group).unwrap();
        let lowest = model.commit.max(model.log.start.before.index).next();
        let last = model.log.last().index;
        if last < lowest {
            return;
        }
        let depth = self.rng.u64(..6);
        let first = LogIndex(last.0.saturating_sub(depth)).max(lowest);
        let node = self.node.as_mut().unwrap();
        let write = node.cut(group, first.0);
        model.log.cut(first);
        model.note_log(write);
        if self.rng.bool() {
            self.append(group);
        }
    }

    fn base(&mut self, group: GroupId) {
        self.promise(group);
        let model = self.model.get_mut(&group).unwrap();
        let index = model.log.last().index.advance(self.rng.u64(1..20));
        let offset = Offset(model.log.end_offset().0 + self.rng.u64(..100));
        let term = model.hard.term;
        model.state = format!("base at {index}").into_bytes();
        let start = Position {
            before: EntryId { index, term },
            chain: Chain(self.rng.u64(..)),
            offset,
        };
        let base = Base {
            start,
            log_start_offset: offset,
            epochs: vec![Epoch {
                term,
                first_index: index,
                first_offset: offset,
            }],
            state: Buffer::from(model.state.clone()),
        };
        let node = self.node.as_mut().unwrap();
        let write = node.base(group, base);
        model.log = ModelLog {
            start,
            entries: Vec::new(),
        };
        model.commit = index;
        model.note_log(write);
        model.log_start = offset;
    }

    /// Commits what is durable here, as a group of one would.
    fn commit(&mut self, group: GroupId) {
        let node = self.node.as_mut().unwrap();
        let synced = node.store.synced(group).unwrap();
        let model = self.model.get_mut(&group).unwrap();
        let synced = synced.min(model.log.last().index);
        if synced > model.commit {
            model.commit = synced;
            node.store.commit(group, synced);
        }
    }

    fn seal(&mut self, group: GroupId) {
        self.commit(group);
        let model = self.model.get_mut(&group).unwrap();
        let node = self.node.as_mut().unwrap();
        let closed = node.events.iter().filter_map(|event| match event {
            highwater_log::Event::Closed {
                group: of,
                sequence,
                last,
            } if *of == group && *last <= model.commit => Some(*sequence),
            _ => None,
        });
        for sequence in closed.collect::<Vec<_>>() {
            let snapshot = highwater_log::Snapshot {
                at: model.commit,
                state: Buffer::from(vec![7; self.rng.usize(..10_000)]),
            };
            node.store.seal(group, sequence, snapshot).unwrap();
        }
    }

    fn retain(&mut self, group: GroupId) {
        let node = self.node.as_mut().unwrap();
        let model = self.model.get_mut(&group).unwrap();
        let retention = Retention {
            bytes: Some(self.rng.u64(..100_000)),
            age_ms: None,
        };
        if let Some(start) = node.store.retention_start(group, &retention, 0) {
            node.store.set_log_start(group, start).unwrap();
            model.log_start = model.log_start.max(start);
        }
    }
}

fn run(seed: u64, steps: usize) -> usize {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.crash();
    world.crashes
}

/// Another range of seeds is given at build time, by `HIGHWATER_SEED_FROM` and
/// `HIGHWATER_SEEDS`: `HIGHWATER_SEED_FROM=17 HIGHWATER_SEEDS=18` repeats one of them.
fn seeds() -> std::ops::Range<u64> {
    let number = |text: Option<&str>, default| text.map_or(default, |text| text.parse().unwrap());
    let from = number(std::option_env!("HIGHWATER_SEED_FROM"), 0);
    from..number(std::option_env!("HIGHWATER_SEEDS"), 150)
}

#[test]
fn random_histories_survive_crashes() {
    let crashes: usize = seeds().map(|seed| run(seed, 400)).sum();
    assert!(crashes > 0);
}

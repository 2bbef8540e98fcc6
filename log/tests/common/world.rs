//! A store with two groups beside a naive model, driven at random, with crashes.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use highwater_log::storage::{Faults, FaultyStorage, Keep, MemoryDisk};
use highwater_log::{
    Base, Chain, EntryId, Epoch, Event, GroupConfig, GroupId, HardState, LogIndex, NodeId,
    Position, Retention, Snapshot, Term,
};
use highwater_record::{Buffer, Offset};

use super::model::{ModelGroup, ModelLog, check_epochs};
use super::{Node, Recover, config, format, open_with};

pub(crate) const GROUPS: [GroupId; 2] = [GroupId(3), GroupId(11)];

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) disk: MemoryDisk,
    pub(crate) node: Option<Node<FaultyStorage>>,
    pub(crate) model: BTreeMap<GroupId, ModelGroup>,
    pub(crate) crashes: usize,
    /// How often the disk failed, and the store closed itself.
    pub(crate) failures: usize,
    seed: u64,
    /// What goes wrong while the store is used; nothing does while it is opened and checked.
    faults: Faults,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> World {
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
            failures: 0,
            seed,
            faults,
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

    pub(crate) fn group_config(&mut self) -> GroupConfig {
        GroupConfig {
            segment_bytes: 64 << 10,
            segment_age: Duration::from_secs(self.rng.u64(1..1_000)),
        }
    }

    pub(crate) fn node(&mut self) -> &mut Node<FaultyStorage> {
        self.node.as_mut().unwrap()
    }

    pub(crate) fn open(&mut self) {
        let config = highwater_log::StoreConfig {
            seed: self.rng.u64(..),
            tail_cache_bytes: self.rng.usize(0..200_000),
            map_sealed: self.rng.bool(),
            recycle_bytes: self.rng.u64(0..400_000),
            ..config()
        };
        let context = format!("seed {}, crash {}", self.seed, self.crashes);
        let storage = FaultyStorage::new(&self.disk, Faults::default(), self.rng.u64(..));
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
                model.compare_absent(&context);
                *model = ModelGroup::new();
                let config = GroupConfig::default();
                node.store.create_group(*group, config).unwrap();
            }
        }
        node.next_write = 0;
        node.store
            .storage()
            .control()
            .set_faults(self.faults.clone());
        self.node = Some(node);
    }

    pub(crate) fn crash(&mut self) {
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

    pub(crate) fn ends(&mut self) -> Vec<Position> {
        let node = self.node.as_ref().unwrap();
        GROUPS
            .iter()
            .map(|group| node.store.end(*group).unwrap())
            .collect()
    }

    pub(crate) fn step(&mut self) {
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
            38 => (0..20).for_each(|_| self.turn()),
            _ => self.crash(),
        }
    }

    pub(crate) fn turn(&mut self) {
        let node = self.node.as_mut().unwrap();
        let control = node.store.storage().control().clone();
        if self.rng.bool() {
            node.now = control.next_due().map_or(node.now, |due| due.max(node.now));
        }
        control.set_now(node.now);
        node.turn();
        if node.failed {
            // What is durable is durable; nothing else is known any more.
            self.failures += 1;
            return self.crash();
        }
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
        let closed = |event: &Event| matches!(event, Event::Closed { .. });
        node.events.retain(closed);
    }

    pub(crate) fn append(&mut self, group: GroupId) {
        let count = self.rng.u64(1..5);
        let large = self.rng.u8(..8) == 0;
        for _ in 0..count {
            let bytes = if large {
                self.rng.usize(1_000..30_000)
            } else {
                self.rng.usize(0..400)
            };
            self.append_of(group, bytes);
        }
    }

    /// Appends an entry with a body of so many bytes; a group without a term gets one instead.
    pub(crate) fn append_of(&mut self, group: GroupId, bytes: usize) {
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

    pub(crate) fn promise(&mut self, group: GroupId) {
        let model = self.model.get_mut(&group).unwrap();
        let term = Term(model.hard.term.0 + 1);
        let vote = self.rng.bool().then(|| NodeId(self.rng.u32(1..4)));
        model.hard = HardState { term, vote };
        let node = self.node.as_mut().unwrap();
        let write = node.write_id();
        node.store.set_hard_state(group, write, model.hard).unwrap();
        model.hards.push((write, model.hard));
    }

    pub(crate) fn cut(&mut self, group: GroupId) {
        let some = |rng: &mut Rng| rng.u64(..6);
        if self.cut_by(group, some) && self.rng.bool() {
            self.append(group);
        }
    }

    /// Takes back all that is not committed.
    pub(crate) fn cut_deep(&mut self, group: GroupId) {
        self.cut_by(group, |_| u64::MAX);
    }

    /// Takes back the last entry and so many before it, those that are not committed. Whether
    /// there was one.
    fn cut_by(&mut self, group: GroupId, depth: impl Fn(&mut Rng) -> u64) -> bool {
        self.promise(group);
        let model = self.model.get_mut(&group).unwrap();
        let lowest = model.commit.max(model.log.start.before.index).next();
        let last = model.log.last().index;
        if last < lowest {
            return false;
        }
        let depth = depth(&mut self.rng);
        let first = LogIndex(last.0.saturating_sub(depth)).max(lowest);
        let node = self.node.as_mut().unwrap();
        let write = node.cut(group, first.0);
        model.log.cut(first);
        model.note_log(write);
        true
    }

    pub(crate) fn base(&mut self, group: GroupId) {
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
    pub(crate) fn commit(&mut self, group: GroupId) {
        let node = self.node.as_mut().unwrap();
        let synced = node.store.synced(group).unwrap();
        let model = self.model.get_mut(&group).unwrap();
        let synced = synced.min(model.log.last().index);
        if synced > model.commit {
            model.commit = synced;
            node.store.commit(group, synced);
        }
    }

    pub(crate) fn seal(&mut self, group: GroupId) {
        self.commit(group);
        let model = self.model.get_mut(&group).unwrap();
        let node = self.node.as_mut().unwrap();
        let mut closed = Vec::new();
        node.events.retain(|event| match event {
            Event::Closed {
                group: of,
                sequence,
                last,
            } if *of == group && *last <= model.commit => {
                closed.push(*sequence);
                false
            }
            _ => true,
        });
        for sequence in closed {
            let snapshot = Snapshot {
                at: model.commit,
                state: Buffer::from(vec![7; self.rng.usize(..10_000)]),
            };
            node.store.seal(group, sequence, snapshot).unwrap();
        }
    }

    pub(crate) fn retain(&mut self, group: GroupId) {
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

    /// The faults end: everything staged is persisted, and every group takes more.
    pub(crate) fn recover_from_faults(&mut self) {
        for group in GROUPS {
            self.promise(group);
            self.append(group);
        }
        let node = self.node();
        node.store.storage().control().set_faults(Faults::default());
        for _ in 0..2_000 {
            let node = self.node();
            node.now += Duration::from_millis(50);
            let idle = !node.store.is_busy();
            self.turn();
            if idle {
                break;
            }
        }
        for group in GROUPS {
            let model = &self.model[&group];
            assert_eq!(model.logs.len(), 1, "seed {}: {group} is stuck", self.seed);
            assert_eq!(model.hards.len(), 1, "seed {}: {group} is stuck", self.seed);
        }
    }
}

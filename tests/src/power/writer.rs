//! The process that writes until its disk loses power: a store, driven at random.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use highwater_log::storage::{Access, DataDirectory};
use highwater_log::{
    Base, Chain, EntryId, Epoch, Event, GroupConfig, GroupId, HardState, LogIndex, NodeId,
    Position, Retention, Snapshot, StoreConfig,
};
use highwater_record::{Buffer, Offset, crc32c};
use serde::{Deserialize, Serialize};

use super::args::Backend;
use super::held::{HeldStorage, Tear};
use super::log_model::{Node, config, open_with, pool};
use super::message::{Message, Outlet, SharedOutlet};
use super::mutants;
use crate::clock::now;

/// How much may be staged and not durable, over all groups, in bytes. A writer that is so far
/// ahead waits.
const UNSYNCED_BYTES_MAX: usize = 4 << 20;

/// Turns that there are still when the disk is held, so that several groups write.
const TURNS_HELD_MAX: u32 = 40;

/// A life of a writer, as its command line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// The data directory.
    pub(super) data: PathBuf,
    pub(super) backend: Backend,
    pub(super) seed: u64,
    /// After how many operations the disk is held, if it is.
    pub(super) held_after: Option<u64>,
    /// The groups that are to be there, and up to where they are committed; those that are not
    /// there are made. The number of one that was dropped is not among them.
    pub(super) groups: Vec<(u64, u64)>,
    /// Only open, recover, and end.
    pub(super) recover_only: bool,
    /// Plant the bug that a write is acknowledged before it is durable.
    pub(super) lies: bool,
    /// Plant this bug of the log.
    pub(super) mutant: Option<usize>,
}

/// Lives it, to the end of the process.
pub(super) fn live(life: &Life) -> anyhow::Result<()> {
    if let Some(place) = life.mutant {
        mutants::plant(place);
    }
    let outlet = Rc::new(RefCell::new(Outlet::new(std::io::stdout())));
    let mut rng = Rng::with_seed(life.seed);
    let held = open_storage(life, &outlet, rng.u64(..))?;
    let config = StoreConfig {
        seed: rng.u64(..),
        tail_cache_bytes: rng.usize(0..200_000),
        map_sealed: rng.bool(),
        recycle_bytes: rng.u64(0..2_000_000),
        ..config()
    };
    let (mut node, _) = open_with(held, config)?;
    if life.recover_only {
        return Ok(());
    }
    node.next_write = 0;
    if life.lies {
        node.store.storage_mut().lie();
    }
    for &(group, index) in &life.groups {
        node.store.commit(GroupId(group), LogIndex(index));
    }
    let groups = life.groups.iter().map(|&(group, _)| GroupId(group));
    let groups = groups.collect();
    let mut writer = Writer {
        node,
        rng,
        outlet,
        groups,
        began: Instant::now(),
    };
    writer.begin();
    writer.run()
}

fn open_storage(life: &Life, outlet: &SharedOutlet, seed: u64) -> anyhow::Result<HeldStorage> {
    let directory = DataDirectory::open(&life.data, Access::ReadWrite)?;
    let storage = life.backend.open(directory, pool())?;
    let tear = match life.backend {
        Backend::Buffered => Tear::Cached,
        Backend::Uring | Backend::Portable => Tear::Sectors,
    };
    let outlet = outlet.clone();
    Ok(HeldStorage::new(
        storage,
        tear,
        life.held_after,
        seed,
        outlet,
    ))
}

/// What a group's entries and files are like: by its place among the groups.
fn sizes(place: usize, rng: &mut Rng) -> (usize, u64) {
    let is_large = rng.u8(..16) == 0;
    match place % 4 {
        0 => (rng.usize(..400), 64 << 10),
        1 => (rng.usize(1_000..30_000), 256 << 10),
        2 if is_large => (rng.usize(100_000..400_000), 1 << 20),
        2 => (rng.usize(100..4_000), 1 << 20),
        _ if is_large => (rng.usize(4_000..40_000), 64 << 10),
        _ => (rng.usize(..100), 64 << 10),
    }
}

struct Writer {
    node: Node<HeldStorage>,
    rng: Rng,
    outlet: SharedOutlet,
    groups: Vec<GroupId>,
    began: Instant,
}

impl Writer {
    fn say(&self, message: &Message) {
        self.outlet.borrow_mut().say(message);
    }

    /// Makes the groups that are not there.
    fn begin(&mut self) {
        for place in 0..self.groups.len() {
            let group = self.groups[place];
            let (_, segment_bytes) = sizes(place, &mut self.rng);
            let config = GroupConfig {
                segment_bytes,
                segment_age: Duration::from_millis(self.rng.u64(5..10_000)),
            };
            if self.node.store.start(group).is_ok() {
                self.node
                    .store
                    .configure_group(group, config)
                    .expect("it is there");
            } else {
                self.node
                    .store
                    .create_group(group, config)
                    .expect("it is not there");
                self.say(&Message::Create { group: group.0 });
            }
            self.promise(group);
        }
    }

    /// Writes until the disk is gone.
    fn run(&mut self) -> anyhow::Result<()> {
        let mut turns_held = self.rng.u32(..TURNS_HELD_MAX);
        loop {
            (0..self.rng.u8(1..6)).for_each(|_| self.step());
            self.turn()?;
            let is_held = self.node.store.storage().is_held();
            if is_held && turns_held == 0 {
                self.node.store.storage_mut().end();
            }
            turns_held -= u32::from(is_held);
            let is_ahead = self.unsynced_bytes() > UNSYNCED_BYTES_MAX;
            if is_held || is_ahead || self.rng.u8(..8) == 0 {
                self.outlet.borrow_mut().flush()?;
                self.node.store.wait();
            }
        }
    }

    fn unsynced_bytes(&self) -> usize {
        let groups = self.groups.iter();
        groups
            .filter_map(|&group| self.node.store.unsynced_bytes(group).ok())
            .sum()
    }

    fn step(&mut self) {
        let place = self.rng.usize(..self.groups.len());
        let group = self.groups[place];
        match self.rng.u8(..60) {
            0..=35 => self.append(place, group),
            36..=39 => self.promise(group),
            40..=42 => self.cut(group),
            43 if self.rng.u8(..8) == 0 => self.base(group),
            44..=49 => self.commit(group),
            50..=53 => self.seal(group),
            54..=56 => self.retain(group),
            57 if self.rng.u8(..40) == 0 => self.replace(place, group),
            _ => {}
        }
    }

    /// What was said is handed over before the disk hears of it.
    fn turn(&mut self) -> anyhow::Result<()> {
        self.outlet.borrow_mut().flush().context("nobody listens")?;
        self.node.now = self.began.elapsed();
        self.node.turn();
        let at = now();
        for (group, write) in std::mem::take(&mut self.node.persisted) {
            self.say(&Message::Persisted {
                group: group.0,
                write: write.0,
                at,
            });
        }
        if let Some(why) = self.trouble() {
            self.say(&Message::Failed { why });
            self.outlet.borrow_mut().flush()?;
            loop {
                thread::park();
            }
        }
        let closed = |event: &Event| matches!(event, Event::Closed { .. });
        self.node.events.retain(closed);
        Ok(())
    }

    /// Why there is nothing to do any more: the store has closed itself, or has found damage.
    fn trouble(&self) -> Option<String> {
        self.node.events.iter().find_map(|event| match event {
            Event::Failed { error } => Some(error.to_string()),
            Event::Alarm(alarm) => Some(alarm.to_string()),
            _ => None,
        })
    }

    fn append(&mut self, place: usize, group: GroupId) {
        let term = self.node.store.hard_state(group).expect("it is there").term;
        for _ in 0..self.rng.u8(1..5) {
            let (bytes, _) = sizes(place, &mut self.rng);
            let entry = self.node.next_entry(group, term.0, bytes);
            let end = entry.base_offset.advance(u64::from(entry.offset_span));
            let write = self.node.write_id();
            let message = Message::Append {
                group: group.0,
                write: write.0,
                index: entry.id.index.0,
                term: term.0,
                end_offset: end.0,
                crc: crc32c(&entry.body),
            };
            self.node
                .store
                .append(group, write, &[entry])
                .expect("it follows");
            self.say(&message);
        }
    }

    fn promise(&mut self, group: GroupId) {
        let before = self.node.store.hard_state(group).expect("it is there");
        let term = before.term.0 + 1;
        let vote = self.rng.bool().then(|| self.rng.u32(1..4));
        let hard = HardState {
            term: highwater_log::Term(term),
            vote: vote.map(NodeId),
        };
        let write = self.node.write_id();
        self.node
            .store
            .set_hard_state(group, write, hard)
            .expect("it is higher");
        self.say(&Message::Promise {
            group: group.0,
            write: write.0,
            term,
            vote,
        });
    }

    /// Takes back the last entries, as a follower does; then there is a higher term.
    fn cut(&mut self, group: GroupId) {
        self.promise(group);
        let last = self.node.last(group).index;
        let first = LogIndex(last.0.saturating_sub(self.rng.u64(..6)));
        let write = self.node.write_id();
        // What is committed, or before the log, stays.
        if self.node.store.cut(group, write, first).is_ok() {
            self.say(&Message::Cut {
                group: group.0,
                write: write.0,
                first: first.0,
            });
        }
    }

    fn base(&mut self, group: GroupId) {
        self.promise(group);
        let term = self.node.store.hard_state(group).expect("it is there").term;
        let end = self.node.store.end(group).expect("it is there");
        let index = end.before.index.advance(self.rng.u64(1..20));
        let offset = Offset(end.offset.0 + self.rng.u64(..100));
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
            state: Buffer::from(format!("base at {index}").into_bytes()),
        };
        let write = self.node.base(group, base);
        self.say(&Message::Base {
            group: group.0,
            write: write.0,
            index: index.0,
            term: term.0,
            chain: start.chain.0,
            offset: offset.0,
        });
    }

    /// As a group of one would: what is durable here is committed.
    fn commit(&mut self, group: GroupId) {
        let synced = self.node.store.synced(group).expect("it is there");
        let index = synced.min(self.node.last(group).index);
        self.node.store.commit(group, index);
        self.say(&Message::Commit {
            group: group.0,
            index: index.0,
        });
    }

    fn seal(&mut self, group: GroupId) {
        self.commit(group);
        let synced = self.node.store.synced(group).expect("it is there");
        let at = synced.min(self.node.last(group).index);
        let mut closed = Vec::new();
        self.node.events.retain(|event| match event {
            Event::Closed {
                group: of,
                sequence,
                last,
            } if *of == group && *last <= at => {
                closed.push(*sequence);
                false
            }
            _ => true,
        });
        for sequence in closed {
            let state = Buffer::from(vec![7; self.rng.usize(..10_000)]);
            let snapshot = Snapshot { at, state };
            self.node
                .store
                .seal(group, sequence, snapshot)
                .expect("it is there");
        }
    }

    fn retain(&mut self, group: GroupId) {
        let retention = Retention {
            bytes: Some(self.rng.u64(..1_000_000)),
            age_ms: None,
        };
        if let Some(start) = self.node.store.retention_start(group, &retention, 0) {
            self.node
                .store
                .set_log_start(group, start)
                .expect("it is there");
            self.say(&Message::LogStart {
                group: group.0,
                offset: start.0,
            });
        }
    }

    /// Removes a group, and has a new one in its place.
    fn replace(&mut self, place: usize, group: GroupId) {
        self.node.store.drop_group(group).expect("it is there");
        self.say(&Message::Drop { group: group.0 });
        let highest = self.groups.iter().max().expect("there are groups");
        let new = GroupId(highest.0 + 1);
        self.groups[place] = new;
        let config = GroupConfig {
            segment_bytes: 64 << 10,
            ..GroupConfig::default()
        };
        self.node
            .store
            .create_group(new, config)
            .expect("it was never there");
        self.say(&Message::Create { group: new.0 });
        self.promise(new);
    }
}

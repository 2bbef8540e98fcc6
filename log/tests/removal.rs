//! The removal of a group on a node with several shards, and what crashes make of it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use common::power::PowerFails;
use common::{GROUP, HALF_BYTES, Node, format, open_store_of};
use highwater_log::format::journal::Unit;
use highwater_log::storage::{Keep, MemoryDisk, MemoryStorage, Storage};
use highwater_log::{Alarm, Directory, Expected, GroupId, OpenError, Recovered, StoreConfig};

/// A group of another shard, whatever the number of shards.
const OTHER: GroupId = GroupId(12);

/// Shards, what they have found, and all that is wrong.
struct Life<S> {
    nodes: Vec<Node<S>>,
    recovered: Vec<Recovered>,
    alarms: Vec<Alarm>,
}

/// Opens all shards of a node; each has a storage of its own on the same disk.
fn open_shards<S: Storage>(
    shards: u32,
    mut storage: impl FnMut() -> S,
) -> Result<Life<S>, OpenError> {
    let mut front = storage();
    let directory = Directory::open(&mut front, &Expected::default(), shards, HALF_BYTES)?;
    let mut life = Life {
        nodes: Vec::new(),
        recovered: Vec::new(),
        alarms: directory.alarms().to_vec(),
    };
    for shard in 0..shards {
        let config = StoreConfig {
            shard,
            ..common::config()
        };
        let groups = directory.groups();
        let mine = groups
            .into_iter()
            .filter(|group| shard_of(*group, shards) == shard);
        let (node, recovered) =
            open_store_of(storage(), config, &directory, &mine.collect::<Vec<_>>())?;
        life.alarms.extend(recovered.alarms.iter().cloned());
        life.nodes.push(node);
        life.recovered.push(recovered);
    }
    Ok(life)
}

fn shard_of(group: GroupId, shards: u32) -> u32 {
    u32::try_from(group.0 % u64::from(shards)).unwrap()
}

fn open(disk: &MemoryDisk, shards: u32) -> Life<MemoryStorage> {
    open_shards(shards, || MemoryStorage::new(disk)).unwrap()
}

impl<S: Storage> Life<S> {
    fn node(&mut self, group: GroupId) -> &mut Node<S> {
        let shards = u32::try_from(self.nodes.len()).unwrap();
        &mut self.nodes[usize::try_from(shard_of(group, shards)).unwrap()]
    }

    fn has(&self, group: GroupId) -> bool {
        let groups = self
            .recovered
            .iter()
            .flat_map(|recovered| &recovered.groups);
        groups.into_iter().any(|found| found.group == group)
    }
}

/// A node that has both groups, and has been started once more, so that each journal knows of
/// both.
fn node_with_groups(shards: u32) -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let mut life = open(&disk, shards);
    for group in [GROUP, OTHER] {
        let node = life.node(group);
        node.create(group);
        node.append(group, 1, 5);
        node.idle();
    }
    drop(life);
    drop(open(&disk, shards));
    disk
}

/// Removes the group, whole; then writes so many promises that the removal's own record leaves
/// its journal with a checkpoint or two.
fn remove_and_forget(disk: &MemoryDisk, shards: u32) {
    let mut life = open(disk, shards);
    let node = life.node(GROUP);
    node.store.drop_group(GROUP).unwrap();
    node.settle();
    let filler = GroupId(GROUP.0 + 60);
    node.create(filler);
    for term in 2..40 {
        node.promise(filler, term);
        node.settle();
    }
    drop(life);
    disk.power_cut(|_| Keep::Nothing);
}

fn stays_removed(disk: &MemoryDisk, shards: u32, context: &str) {
    let life = open(disk, shards);
    assert_eq!(life.alarms, [], "{context}");
    assert!(!life.has(GROUP), "{context}: the group is there again");
    assert!(life.has(OTHER), "{context}: another group is gone");
}

/// Starts with a crash at every step; after each of them, starts again with any number of shards.
fn starts_with_crashes(disk: &MemoryDisk, shards: u32, context: &str) {
    for steps in 0.. {
        let copy = disk.fork();
        let power = PowerFails::new(&copy, steps);
        let is_finished = open_shards(shards, || power.beside(&copy)).is_ok();
        copy.power_cut(|_| Keep::Nothing);
        for then in 1..=3 {
            let context = format!("{context}, step {steps} of {shards} shards, then {then}");
            stays_removed(&copy.fork(), then, &context);
        }
        if is_finished {
            return;
        }
    }
}

#[test]
fn what_was_removed_stays_so_though_another_journal_has_an_older_record_of_it() {
    for before in 1..=3 {
        let disk = node_with_groups(before);
        for shards in 1..=3 {
            let disk = disk.fork();
            remove_and_forget(&disk, shards);
            let context = format!("made by {before} shards, removed by {shards}");
            stays_removed(&disk.fork(), shards, &context);
            for then in 1..=3 {
                starts_with_crashes(&disk, then, &context);
            }
        }
    }
}

#[test]
fn the_record_of_what_was_removed_goes_once_no_journal_has_an_older_one() {
    let disk = node_with_groups(2);
    remove_and_forget(&disk, 2);
    assert!(checkpoints_with(&disk, GROUP) > 0, "it is kept at first");
    for _ in 0..4 {
        drop(open(&disk, 2));
    }
    assert_eq!(checkpoints_with(&disk, GROUP), 0);
    assert!(checkpoints_with(&disk, OTHER) > 0);
}

/// In how many halves of two journals the checkpoint has a record of the group.
fn checkpoints_with(disk: &MemoryDisk, group: GroupId) -> usize {
    let journals = ["journal/0000-a", "journal/0001-a"].map(|path| disk.contents(path).unwrap());
    let half = usize::try_from(HALF_BYTES).unwrap();
    let halves = journals
        .iter()
        .flat_map(|bytes| [&bytes[..half], &bytes[half..]]);
    let units = halves.filter_map(|half| Unit::decode(half).ok());
    let names_it = |unit: &Unit| unit.records.iter().any(|record| record.group == group);
    units.filter(names_it).count()
}

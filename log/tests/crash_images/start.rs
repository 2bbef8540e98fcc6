//! A start of a node on an image, what it found, and what the contract says of that.

use std::collections::BTreeMap;

use highwater_log::storage::{MemoryDisk, MemoryStorage, Storage};
use highwater_log::{Alarm, Damage, Directory, EntryId, Expected, GroupId, RecoveredGroup};

use crate::common::model::{ModelGroup, check_epochs};
use crate::common::{HALF_BYTES, Node, config, open_store};

/// What a start found of a group.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) group: RecoveredGroup,
    /// Its entries, each read with the bytes that were written.
    pub(crate) ids: Vec<EntryId>,
}

/// What a start found.
pub(crate) type Logs = BTreeMap<GroupId, Found>;

/// A node that has started.
pub(crate) struct Started<S: Storage = MemoryStorage> {
    pub(crate) node: Node<S>,
    pub(crate) groups: Vec<RecoveredGroup>,
    /// The directory's and the groups'.
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) promises_lost: bool,
}

/// Starts a node, which must not refuse.
pub(crate) fn start(disk: &MemoryDisk, context: &str) -> Started {
    let mut storage = MemoryStorage::new(disk);
    let directory = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES);
    let directory = directory.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut alarms = directory.alarms().to_vec();
    let promises_lost = directory.promises_lost();
    let opened = open_store(storage, config(), &directory);
    let (node, recovered) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    alarms.extend(recovered.alarms);
    Started {
        node,
        groups: recovered.groups,
        alarms,
        promises_lost,
    }
}

/// Starts a node after a mere crash: it raises no alarm, and can read all that it has.
pub(crate) fn sound_start(disk: &MemoryDisk, context: &str) -> (Node<MemoryStorage>, Logs) {
    let started = start(disk, context);
    let mere = |alarm: &&Alarm| alarm.damage != Damage::JournalLast;
    let odd: Vec<String> = started
        .alarms
        .iter()
        .filter(mere)
        .map(ToString::to_string)
        .collect();
    assert!(odd.is_empty(), "{context}: an alarm for a crash: {odd:?}");
    assert!(!started.promises_lost, "{context}: promises are lost");
    let mut node = started.node;
    let mut logs = Logs::new();
    for mut group in started.groups {
        let entries = node.read_all(group.group);
        let ids = entries.iter().map(|entry| entry.id).collect();
        group.replay.clear();
        logs.insert(group.group, Found { group, ids });
    }
    (node, logs)
}

/// What was found is what the contract allows: all that was acknowledged, and of what was not a
/// front part.
pub(crate) fn judge(model: &BTreeMap<GroupId, ModelGroup>, logs: &Logs, context: &str) {
    for (group, model) in model {
        let context = format!("{context}, group {group}");
        let Some(found) = logs.get(group) else {
            model.compare_absent(&context);
            continue;
        };
        model.compare(&found.group, &found.ids, &context);
        check_epochs(&found.group, &found.ids, &context);
    }
}

/// Two starts, with nothing but a crash between them, found the same.
pub(crate) fn assert_same(first: &Logs, second: &Logs, context: &str) {
    let facts = |logs: &Logs| -> Vec<_> {
        let facts = logs.values().map(|found| {
            let group = &found.group;
            let promised = (group.group, group.hard_state, group.quarantine.clone());
            let extent = (group.start, group.last, group.end_offset);
            let state = (group.log_start_offset, group.snapshot.clone());
            (promised, extent, state, found.ids.clone())
        });
        facts.collect()
    };
    assert_eq!(facts(first), facts(second), "{context}");
}

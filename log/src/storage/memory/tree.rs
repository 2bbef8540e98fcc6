//! The directories of a disk in memory: entries as a process sees them, as a power cut leaves
//! them, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};

use super::node::ChangeId;

/// A file or directory, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage) struct NodeId(pub(super) u64);

/// The data directory itself.
pub(super) const ROOT: NodeId = NodeId(0);

/// What a directory calls a node: its key in a [`Names`].
pub(super) type Name = (NodeId, String);

/// What lies under each name.
pub(super) type Names = BTreeMap<Name, NodeId>;

/// All directories of a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) live: Names,
    durable: Names,
    changes: Vec<EntryChange>,
}

/// A change of one or two entries that a power cut keeps or undoes as a whole.
#[derive(Debug, Clone)]
pub(super) struct EntryChange {
    pub(super) id: ChangeId,
    pub(super) what: String,
    entries: Vec<Entry>,
    /// Whether its operation has completed: only then does a sync cover it.
    completed: bool,
}

/// What a name comes to mean.
#[derive(Debug, Clone)]
struct Entry {
    name: Name,
    node: Option<NodeId>,
    synced: bool,
}

impl Tree {
    /// The node of this path, as a process sees it.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        let mut node = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            node = *self.live.get(&(node, part.to_owned()))?;
        }
        Some(node)
    }

    /// The key of this path, if its directory is there.
    pub(super) fn name(&self, path: &str) -> Option<Name> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Some((self.find(dir)?, name.to_owned()))
    }

    /// The path of a node, as a process sees it.
    pub(super) fn path(&self, node: NodeId) -> Option<String> {
        let mut path = String::new();
        let mut node = node;
        while node != ROOT {
            let ((dir, name), _) = self.live.iter().find(|(_, held)| **held == node)?;
            path = if path.is_empty() {
                name.clone()
            } else {
                format!("{name}/{path}")
            };
            node = *dir;
        }
        Some(path)
    }

    /// What a directory holds, in order of name.
    pub(super) fn entries(&self, dir: NodeId) -> impl Iterator<Item = (&String, NodeId)> {
        self.live
            .range((dir, String::new())..)
            .take_while(move |((of, _), _)| *of == dir)
            .map(|((_, name), node)| (name, *node))
    }

    /// Changes entries: visible at once, durable when their directories are synced.
    pub(super) fn begin(&mut self, id: ChangeId, what: String, sets: Vec<(Name, Option<NodeId>)>) {
        for (name, node) in &sets {
            set(&mut self.live, name, *node);
        }
        let entry = |(name, node)| Entry {
            name,
            node,
            synced: false,
        };
        let entries = sets.into_iter().map(entry).collect();
        self.changes.push(EntryChange {
            id,
            what,
            entries,
            completed: false,
        });
    }

    /// The operation behind a change has completed, or its process has died.
    pub(super) fn complete(&mut self, id: ChangeId) {
        for change in self.changes.iter_mut().filter(|change| change.id == id) {
            change.completed = true;
        }
    }

    /// The changes that a sync of this directory, begun now, covers.
    pub(super) fn unsynced(&self, dir: NodeId) -> Vec<ChangeId> {
        let touches = |change: &&EntryChange| change.entries.iter().any(|e| e.name.0 == dir);
        let covered = self.changes.iter().filter(|change| change.completed);
        covered.filter(touches).map(|change| change.id).collect()
    }

    /// A sync of `dir` that covers these changes has completed. A rename between directories
    /// stays pending until both are synced.
    pub(super) fn sync(&mut self, dir: NodeId, ids: &[ChangeId]) {
        for change in self
            .changes
            .iter_mut()
            .filter(|change| ids.contains(&change.id))
        {
            for entry in change
                .entries
                .iter_mut()
                .filter(|entry| entry.name.0 == dir)
            {
                entry.synced = true;
            }
        }
        while let Some(at) = self.changes.iter().position(EntryChange::is_synced) {
            let change = self.changes.remove(at);
            for entry in change.entries {
                self.supersede(&entry.name, change.id);
                set(&mut self.durable, &entry.name, entry.node);
            }
        }
    }

    /// Changes that a power cut may undo, in the order they were begun in.
    pub(super) fn pending(&self) -> &[EntryChange] {
        &self.changes
    }

    /// Whether an operation in flight is behind this change.
    pub(super) fn is_in_flight(change: &EntryChange) -> bool {
        !change.completed
    }

    /// The power is cut; `keep` says which pending changes survive.
    pub(super) fn power_cut(&mut self, keep: &BTreeSet<ChangeId>) {
        for change in std::mem::take(&mut self.changes) {
            if keep.contains(&change.id) {
                for entry in change.entries {
                    set(&mut self.durable, &entry.name, entry.node);
                }
            }
        }
        self.forget_unreachable();
        self.live = self.durable.clone();
    }

    /// The process dies; `drop` says which changes of operations in flight never happened.
    pub(super) fn kill(&mut self, drop: &BTreeSet<ChangeId>) {
        self.changes.retain(|change| !drop.contains(&change.id));
        self.live = self.durable.clone();
        for change in &mut self.changes {
            change.completed = true;
            for entry in &change.entries {
                set(&mut self.live, &entry.name, entry.node);
            }
        }
    }

    /// Every node that has a name now, or may have one after a power cut.
    pub(super) fn named(&self) -> BTreeSet<NodeId> {
        self.names().collect()
    }

    /// Whether it has a name, or had one that a power cut may bring back.
    pub(super) fn is_named(&self, node: NodeId) -> bool {
        self.names().any(|named| named == node)
    }

    fn names(&self) -> impl Iterator<Item = NodeId> {
        let pending = self.changes.iter().flat_map(|change| &change.entries);
        let pending = pending.filter_map(|entry| entry.node);
        let settled = self.live.values().chain(self.durable.values()).copied();
        settled.chain(pending).chain([ROOT])
    }

    /// Drops what earlier pending changes say about a name that a later one has settled.
    fn supersede(&mut self, name: &Name, settled: ChangeId) {
        for change in self.changes.iter_mut().filter(|change| change.id < settled) {
            change.entries.retain(|entry| entry.name != *name);
        }
        self.changes.retain(|change| !change.entries.is_empty());
    }

    /// Drops durable entries below directories that themselves were not durable.
    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut found = 0;
        while found < reachable.len() {
            found = reachable.len();
            for ((dir, _), node) in &self.durable {
                if reachable.contains(dir) {
                    reachable.insert(*node);
                }
            }
        }
        self.durable.retain(|(dir, _), _| reachable.contains(dir));
    }
}

impl EntryChange {
    fn is_synced(&self) -> bool {
        self.entries.iter().all(|entry| entry.synced)
    }
}

fn set(names: &mut Names, name: &Name, node: Option<NodeId>) {
    match node {
        Some(node) => drop(names.insert(name.clone(), node)),
        None => drop(names.remove(name)),
    }
}

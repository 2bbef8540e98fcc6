//! A disk in memory: its files and directories, what of them is durable, and what a process
//! that uses it does to them.
//!
//! An operation happens in two steps: `begin` makes it visible, `finish` makes durable what
//! the operation promises (see [`Effect`]). Between the two, and for directory entries until
//! the directory is synced, a power cut may undo it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::node::{ChangeId, Data, FileNode, Left};
use super::tree::{Name, NodeId, ROOT, Tree};
use crate::storage::{DirEntry, StorageError, check};

/// The state of a disk. Cheap to clone: bytes are shared until they are written.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Image {
    pub(super) alignment: usize,
    /// Bytes that all files together may have.
    pub(super) capacity: u64,
    /// Grows with each crash, so that a storage of an earlier life is refused.
    pub(super) life: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) tree: Tree,
    next_id: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir,
    File(FileNode),
}

/// What an operation that has begun does when it finishes.
#[derive(Debug)]
pub(in crate::storage) enum Effect {
    /// Nothing.
    None,
    /// These changes of a file's bytes become durable.
    Data {
        node: NodeId,
        changes: Vec<ChangeId>,
    },
    /// What is zero there has to be zero still.
    Zeros {
        node: NodeId,
        offset: u64,
        len: usize,
    },
    /// A new file's bytes become durable; its entry waits for a sync of the directory.
    Create {
        node: NodeId,
        changes: Vec<ChangeId>,
        entry: ChangeId,
    },
    /// A change of entries is complete: the next sync of its directory covers it.
    Entry(ChangeId),
    /// What a sync of this directory covers becomes durable.
    SyncDir { dir: NodeId, changes: Vec<ChangeId> },
    /// The file's mark changes.
    Protect { node: NodeId, read_only: bool },
}

impl Image {
    pub(super) fn new(alignment: usize) -> Self {
        assert!(
            alignment.is_power_of_two() && alignment >= 512,
            "alignment {alignment}"
        );
        Self {
            alignment,
            capacity: u64::MAX,
            life: 0,
            nodes: BTreeMap::from([(ROOT, Node::Dir)]),
            tree: Tree::default(),
            next_id: 1,
        }
    }

    /// The file of this path.
    pub(in crate::storage) fn file(&self, path: &str) -> Result<NodeId, StorageError> {
        let node = self.tree.find(path).ok_or_else(|| not_found(path))?;
        match self.nodes[&node] {
            Node::File(_) => Ok(node),
            Node::Dir => Err(not_found(path)),
        }
    }

    fn dir(&self, path: &str) -> Result<NodeId, StorageError> {
        let node = self.tree.find(path).ok_or_else(|| not_found(path))?;
        match self.nodes[&node] {
            Node::Dir => Ok(node),
            Node::File(_) => Err(not_found(path)),
        }
    }

    pub(in crate::storage) fn node(&self, node: NodeId) -> &FileNode {
        match &self.nodes[&node] {
            Node::File(file) => file,
            Node::Dir => panic!("{node:?} is a directory"),
        }
    }

    pub(in crate::storage) fn node_mut(&mut self, node: NodeId) -> &mut FileNode {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => file,
            other => panic!("{node:?} is {other:?}, not a file"),
        }
    }

    /// What a file is called, for reports.
    pub(in crate::storage) fn path_of(&self, node: NodeId) -> String {
        self.tree
            .path(node)
            .unwrap_or_else(|| format!("(unlinked {})", node.0))
    }

    /// Bytes that the files have.
    pub(in crate::storage) fn used(&self) -> u64 {
        let len = |node: &Node| match node {
            Node::File(file) => file.live.len(),
            Node::Dir => 0,
        };
        self.nodes.values().map(len).sum()
    }

    pub(in crate::storage) fn create(
        &mut self,
        path: &str,
        len: u64,
        first: &[u8],
    ) -> Result<Effect, StorageError> {
        let name = self.free_name(path)?;
        if self.used().saturating_add(len) > self.capacity {
            return Err(StorageError::NoSpace {
                path: path.to_owned(),
            });
        }
        let node = self.add_node(Node::File(FileNode::default()));
        let mut changes = vec![self.change(node, Data::Resize { len })];
        if !first.is_empty() {
            changes.push(self.change(
                node,
                Data::Write {
                    offset: 0,
                    bytes: first.into(),
                },
            ));
        }
        let entry = self.entry(format!("create {path}"), vec![(name, Some(node))]);
        Ok(Effect::Create {
            node,
            changes,
            entry,
        })
    }

    pub(in crate::storage) fn write(&mut self, node: NodeId, offset: u64, bytes: &[u8]) -> Effect {
        let change = self.change(
            node,
            Data::Write {
                offset,
                bytes: bytes.into(),
            },
        );
        Effect::Data {
            node,
            changes: vec![change],
        }
    }

    /// Zeros what was never written: nobody sees a difference, now or after a power cut, unless
    /// something is written there meanwhile, since a disk may do either last.
    pub(in crate::storage) fn zero(
        &self,
        node: NodeId,
        offset: u64,
        len: u64,
    ) -> Result<Effect, StorageError> {
        let len = usize::try_from(len).expect("a file in memory is smaller than memory");
        let effect = Effect::Zeros { node, offset, len };
        self.check_zeros(&effect).map(|()| effect)
    }

    /// Refuses zeros that have met a write.
    pub(in crate::storage) fn check_zeros(&self, effect: &Effect) -> Result<(), StorageError> {
        let &Effect::Zeros { node, offset, len } = effect else {
            return Ok(());
        };
        match self.nodes.get(&node) {
            Some(Node::File(file)) => {
                check::unwritten(&self.path_of(node), file.live.is_zero(offset, len))
            }
            // It was unlinked and closed since.
            _ => Ok(()),
        }
    }

    pub(in crate::storage) fn truncate(&mut self, node: NodeId, len: u64) -> Effect {
        Effect::Data {
            node,
            changes: vec![self.change(node, Data::Resize { len })],
        }
    }

    pub(in crate::storage) fn sync(&self, node: NodeId) -> Effect {
        Effect::Data {
            node,
            changes: self.node(node).unsynced(),
        }
    }

    pub(in crate::storage) fn rename(
        &mut self,
        from: &str,
        to: &str,
    ) -> Result<Effect, StorageError> {
        let node = self.tree.find(from).ok_or_else(|| not_found(from))?;
        let old = self.tree.name(from).ok_or_else(|| not_found(from))?;
        let new = self.name_in_dir(to)?;
        if let Some(replaced) = self.tree.find(to)
            && !(self.is_file(node) && self.is_file(replaced))
        {
            return Err(StorageError::Exists {
                path: to.to_owned(),
            });
        }
        let what = format!("rename {from} to {to}");
        Ok(Effect::Entry(
            self.entry(what, vec![(old, None), (new, Some(node))]),
        ))
    }

    pub(in crate::storage) fn unlink(&mut self, path: &str) -> Result<Effect, StorageError> {
        self.file(path)?;
        let name = self.tree.name(path).ok_or_else(|| not_found(path))?;
        Ok(Effect::Entry(
            self.entry(format!("unlink {path}"), vec![(name, None)]),
        ))
    }

    pub(in crate::storage) fn make_dir(&mut self, path: &str) -> Result<Effect, StorageError> {
        if self.dir(path).is_ok() {
            return Ok(Effect::None);
        }
        let name = self.free_name(path)?;
        let node = self.add_node(Node::Dir);
        Ok(Effect::Entry(
            self.entry(format!("mkdir {path}"), vec![(name, Some(node))]),
        ))
    }

    pub(in crate::storage) fn remove_dir(&mut self, path: &str) -> Result<Effect, StorageError> {
        let node = self.dir(path)?;
        if self.tree.entries(node).next().is_some() {
            return Err(StorageError::Exists {
                path: path.to_owned(),
            });
        }
        let name = self.tree.name(path).ok_or_else(|| not_found(path))?;
        Ok(Effect::Entry(
            self.entry(format!("rmdir {path}"), vec![(name, None)]),
        ))
    }

    pub(in crate::storage) fn sync_dir(&self, path: &str) -> Result<Effect, StorageError> {
        let dir = self.dir(path)?;
        Ok(Effect::SyncDir {
            dir,
            changes: self.tree.unsynced(dir),
        })
    }

    pub(in crate::storage) fn list(&self, path: &str) -> Result<Vec<DirEntry>, StorageError> {
        let entry = |(name, node): (&String, NodeId)| {
            let (is_dir, len) = match &self.nodes[&node] {
                Node::Dir => (true, 0),
                Node::File(file) => (false, file.live.len()),
            };
            DirEntry {
                name: name.clone(),
                is_dir,
                len,
            }
        };
        Ok(self.tree.entries(self.dir(path)?).map(entry).collect())
    }

    /// Makes durable what the operation promises.
    pub(in crate::storage) fn finish(&mut self, effect: &Effect) {
        match effect {
            Effect::None | Effect::Zeros { .. } => {}
            Effect::Data { node, changes } => self.with_node(*node, |file| file.settle(changes)),
            Effect::Create {
                node,
                changes,
                entry,
            } => {
                self.with_node(*node, |file| file.settle(changes));
                self.tree.complete(*entry);
            }
            Effect::Entry(change) => self.tree.complete(*change),
            Effect::SyncDir { dir, changes } => {
                self.tree.sync(*dir, changes);
                self.collect();
            }
            Effect::Protect { node, read_only } => {
                self.with_node(*node, |file| file.read_only = *read_only)
            }
        }
    }

    /// Instead of `finish`: the operation has failed, or its process has died. What it did to
    /// entries stays, and the next sync of their directory covers it.
    pub(in crate::storage) fn abandon(&mut self, effect: &Effect, left: Left) {
        match effect {
            Effect::Data { node, changes } => {
                self.with_node(*node, |file| file.abandon(changes, left));
            }
            Effect::Create {
                node,
                changes,
                entry,
            } => {
                self.with_node(*node, |file| file.abandon(changes, left));
                self.tree.complete(*entry);
            }
            Effect::Entry(change) => self.tree.complete(*change),
            Effect::None
            | Effect::Zeros { .. }
            | Effect::SyncDir { .. }
            | Effect::Protect { .. } => {}
        }
    }

    /// Does something to a file, unless it was unlinked and closed since.
    pub(in crate::storage) fn with_node(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut FileNode),
    ) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&node) {
            change(file);
        }
    }

    /// An id names the file.
    pub(in crate::storage) fn opened(&mut self, node: NodeId) {
        self.node_mut(node).open += 1;
    }

    /// An id no longer names the file.
    pub(in crate::storage) fn closed(&mut self, node: NodeId) {
        let file = self.node_mut(node);
        file.open = file.open.checked_sub(1).expect("closed as often as opened");
        if file.open == 0 && !self.tree.is_named(node) {
            self.nodes.remove(&node);
        }
    }

    /// Forgets nodes without a name that nobody has open.
    pub(super) fn collect(&mut self) {
        let named = self.tree.named();
        self.nodes.retain(|node, held| match held {
            Node::File(file) => file.open > 0 || named.contains(node),
            Node::Dir => named.contains(node),
        });
    }

    fn change(&mut self, node: NodeId, data: Data) -> ChangeId {
        let id = ChangeId(self.fresh_id());
        self.node_mut(node).begin(id, data);
        id
    }

    fn entry(&mut self, what: String, sets: Vec<(Name, Option<NodeId>)>) -> ChangeId {
        let id = ChangeId(self.fresh_id());
        self.tree.begin(id, what, sets);
        id
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.fresh_id());
        self.nodes.insert(id, node);
        id
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// The key of a path that is free.
    fn free_name(&self, path: &str) -> Result<Name, StorageError> {
        let name = self.name_in_dir(path)?;
        match self.tree.live.contains_key(&name) {
            true => Err(StorageError::Exists {
                path: path.to_owned(),
            }),
            false => Ok(name),
        }
    }

    /// The key of a path whose directory is there.
    fn name_in_dir(&self, path: &str) -> Result<Name, StorageError> {
        let name = self.tree.name(path).ok_or_else(|| not_found(path))?;
        match self.nodes[&name.0] {
            Node::Dir => Ok(name),
            Node::File(_) => Err(not_found(path)),
        }
    }

    fn is_file(&self, node: NodeId) -> bool {
        matches!(self.nodes[&node], Node::File(_))
    }

    /// An independent copy. Nobody has its files open or mapped.
    pub(super) fn fork(&self) -> Self {
        let mut fork = self.clone();
        for node in fork.nodes.values_mut() {
            if let Node::File(file) = node {
                file.open = 0;
                file.mapped = Weak::new();
                for change in &mut file.changes {
                    change.in_flight = false;
                }
            }
        }
        fork
    }

    /// Registers a mapping of the file, which lives as long as what is given back.
    pub(super) fn mapped(&mut self, node: NodeId) -> Arc<()> {
        let file = self.node_mut(node);
        let alive = file.mapped.upgrade().unwrap_or_default();
        file.mapped = Arc::downgrade(&alive);
        alive
    }
}

fn not_found(path: &str) -> StorageError {
    StorageError::NotFound {
        path: path.to_owned(),
    }
}

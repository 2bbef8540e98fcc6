//! One file of a disk in memory: what a process reads, what a power cut leaves, and the changes
//! between the two.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::content::Content;

/// Names one pending change of a disk in memory. Later changes have larger ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub(super) u64);

/// A file.
///
/// Invariant: `live` is `durable` with all `changes` applied in order, but where a later
/// settled change lies over an earlier pending one.
#[derive(Debug, Clone, Default)]
pub(in crate::storage) struct FileNode {
    pub(super) live: Content,
    pub(super) durable: Content,
    pub(super) changes: Vec<DataChange>,
    pub(super) read_only: bool,
    /// Ids that name it, in all storages on the disk.
    pub(super) open: u32,
    /// Alive while somebody maps it.
    pub(super) mapped: Weak<()>,
}

/// A change of a file's bytes that a power cut may undo, whole or in parts.
#[derive(Debug, Clone)]
pub(super) struct DataChange {
    pub(super) id: ChangeId,
    pub(super) data: Data,
    /// Whether its operation has not completed: only then does no sync cover it.
    pub(super) in_flight: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Write { offset: u64, bytes: Arc<[u8]> },
    Resize { len: u64 },
}

/// What is left of an operation that failed, or whose process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Left {
    /// All of it can be read, and a sync of the file makes it durable.
    Unsynced,
    /// Nothing: as if it had never been. So a page cache drops, when a sync fails, what it
    /// could not write, and a later sync that succeeds does not bring it back.
    Nothing,
}

impl FileNode {
    pub(super) fn begin(&mut self, id: ChangeId, data: Data) {
        data.apply(&mut self.live);
        self.changes.push(DataChange {
            id,
            data,
            in_flight: true,
        });
    }

    /// Makes these changes durable, in the order they were begun in.
    pub(super) fn settle(&mut self, ids: &[ChangeId]) {
        let (settled, pending) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition::<Vec<_>, _>(|change| ids.contains(&change.id));
        self.changes = pending;
        for change in settled {
            change.data.apply(&mut self.durable);
            self.supersede(&change);
        }
    }

    /// The operation behind these changes will not make them durable.
    pub(super) fn abandon(&mut self, ids: &[ChangeId], left: Left) {
        match left {
            Left::Unsynced => {
                for change in self
                    .changes
                    .iter_mut()
                    .filter(|change| ids.contains(&change.id))
                {
                    change.in_flight = false;
                }
            }
            Left::Nothing => {
                self.changes.retain(|change| !ids.contains(&change.id));
                self.live = self.durable.clone();
                for change in &self.changes {
                    change.data.apply(&mut self.live);
                }
            }
        }
    }

    /// The changes that a sync of the file, begun now, covers.
    pub(super) fn unsynced(&self) -> Vec<ChangeId> {
        let completed = self.changes.iter().filter(|change| !change.in_flight);
        completed.map(|change| change.id).collect()
    }

    /// Flips a bit at rest.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        for content in [&mut self.durable, &mut self.live] {
            let flipped = content
                .read(bit / 8, 1)
                .first()
                .map(|byte| byte ^ (1 << (bit % 8)));
            content.write(bit / 8, flipped.as_slice());
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.mapped.strong_count() > 0
    }

    /// Takes from earlier pending changes what `settled` lies over: a power cut that keeps
    /// them must not bring it back.
    fn supersede(&mut self, settled: &DataChange) {
        let earlier = std::mem::take(&mut self.changes);
        for change in earlier {
            if change.id > settled.id {
                self.changes.push(change);
                continue;
            }
            let DataChange {
                id,
                data,
                in_flight,
            } = change;
            let left = data.without(&settled.data);
            self.changes.extend(left.into_iter().map(|data| DataChange {
                id,
                data,
                in_flight,
            }));
        }
    }
}

impl Data {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::Resize { len } => content.resize(*len),
        }
    }

    /// What is left of this change where a later one lies over it.
    fn without(self, later: &Data) -> Vec<Data> {
        match (self, later) {
            (Self::Resize { .. }, Self::Resize { .. }) => Vec::new(),
            (
                Self::Write { offset, bytes },
                Self::Write {
                    offset: at,
                    bytes: over,
                },
            ) => {
                let end = offset + bytes.len() as u64;
                let over_end = at + over.len() as u64;
                let before = piece(offset, &bytes, offset..end.min(*at));
                let behind = piece(offset, &bytes, offset.max(over_end)..end);
                before.into_iter().chain(behind).collect()
            }
            (change, _) => vec![change],
        }
    }
}

/// The part of a write that lies in `range` of the file, if there is any.
fn piece(offset: u64, bytes: &Arc<[u8]>, range: Range<u64>) -> Option<Data> {
    if range.is_empty() {
        return None;
    }
    if range == (offset..offset + bytes.len() as u64) {
        return Some(Data::Write {
            offset,
            bytes: bytes.clone(),
        });
    }
    let index = |at: u64| usize::try_from(at - offset).expect("within the write");
    let bytes = bytes[index(range.start)..index(range.end)].into();
    Some(Data::Write {
        offset: range.start,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(len: u64) -> FileNode {
        FileNode {
            live: Content::zeros(len),
            durable: Content::zeros(len),
            ..Default::default()
        }
    }

    fn write(node: &mut FileNode, id: u64, offset: u64, fill: u8, len: usize) {
        let bytes = vec![fill; len].into();
        node.begin(ChangeId(id), Data::Write { offset, bytes });
    }

    /// What lies in the file if all pending changes survive.
    fn all_kept(node: &FileNode) -> Vec<u8> {
        let mut content = node.durable.clone();
        for change in &node.changes {
            change.data.apply(&mut content);
        }
        content.read(0, usize::MAX)
    }

    #[test]
    fn a_change_is_live_at_once_and_durable_when_settled() {
        let mut node = node(8);
        write(&mut node, 1, 2, 7, 4);
        assert_eq!(node.live.read(0, 8), [0, 0, 7, 7, 7, 7, 0, 0]);
        assert_eq!(node.durable.read(0, 8), [0; 8]);
        node.settle(&[ChangeId(1)]);
        assert_eq!(node.durable.read(0, 8), node.live.read(0, 8));
        assert!(node.changes.is_empty());
    }

    #[test]
    fn a_settled_write_is_not_undone_by_an_earlier_pending_one() {
        let mut node = node(8);
        write(&mut node, 1, 0, 1, 8);
        write(&mut node, 2, 2, 2, 3);
        node.settle(&[ChangeId(2)]);
        assert_eq!(node.changes.len(), 2, "the two sides of the first write");
        assert_eq!(all_kept(&node), [1, 1, 2, 2, 2, 1, 1, 1]);
        node.settle(&[ChangeId(1)]);
        assert_eq!(node.durable.read(0, 8), [1, 1, 2, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn a_settled_resize_voids_earlier_ones() {
        let mut node = node(8);
        node.begin(ChangeId(1), Data::Resize { len: 2 });
        node.begin(ChangeId(2), Data::Resize { len: 4 });
        node.settle(&[ChangeId(2)]);
        assert!(node.changes.is_empty());
        assert_eq!(node.durable.len(), 4);
    }
}

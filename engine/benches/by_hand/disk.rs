//! A node's disk, in memory.

use std::cell::Cell;
use std::rc::Rc;

use highwater_engine::NodeId;
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{ClusterId, Directory, DirectoryFormat, Expected, Incarnation};

use super::storage::QuickStorage;

/// The size of a half of a journal file, in bytes.
const JOURNAL_HALF_BYTES: u64 = 64 << 10;

/// A disk, formatted.
pub(crate) struct Disk {
    disk: MemoryDisk,
    drops_writes: Rc<Cell<bool>>,
}

impl Disk {
    pub(crate) fn new(node: NodeId, cluster: ClusterId, incarnation: Incarnation) -> Disk {
        let disk = MemoryDisk::new();
        let format = DirectoryFormat {
            node: highwater_log::NodeId(node.0),
            cluster,
            incarnation,
            created_ms: 0,
        };
        let formatted = Directory::format(&mut MemoryStorage::new(&disk), &format);
        formatted.expect("a new disk is empty and well");
        Disk {
            disk,
            drops_writes: Rc::default(),
        }
    }

    pub(crate) fn open(&self) -> Directory {
        let mut front = MemoryStorage::new(&self.disk);
        let opened = Directory::open(&mut front, &Expected::default(), 1, JOURNAL_HALF_BYTES);
        opened.expect("it is formatted")
    }

    pub(crate) fn storage(&self) -> QuickStorage {
        QuickStorage::new(&self.disk, &self.drops_writes)
    }

    /// From now on what is written is acknowledged and gone.
    pub(crate) fn drop_writes(&self) {
        self.drops_writes.set(true);
    }
}

//! A node's disk, which survives the node.
#![allow(missing_docs, unreachable_pub)]
use crate::store_stub::{self, RecoveredGroup, Store};
use highwater_log::storage::MemoryStorage;
use std::time::Duration;
pub type SimStorage = MemoryStorage;
pub struct Disk {
    disk: store_stub::Disk,
}
impl Disk {
    pub fn new(_delay_max: Duration, _seed: u64) -> Disk {
        Disk {
            disk: Default::default(),
        }
    }
    pub fn set_now(&self, _now: Duration) {}
    pub fn next_due(&self) -> Option<Duration> {
        None
    }
    pub fn open(&mut self, seed: u64, _now: Duration) -> (Store<SimStorage>, Vec<RecoveredGroup>) {
        Store::open(self.disk.clone(), seed)
    }
    pub fn crash(&mut self) {}
}

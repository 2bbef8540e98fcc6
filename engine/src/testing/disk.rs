//! A node's disk, which survives the node.
#![allow(missing_docs, unreachable_pub)]
use crate::store_stub::{self, RecoveredGroup, Store};
use highwater_log::storage::MemoryStorage;
use std::time::Duration;
pub type SimStorage = MemoryStorage;
pub struct Disk {
    disks: Vec<store_stub::Disk>,
}
impl Disk {
    pub fn new(_delay_max: Duration, _seed: u64) -> Disk {
        Disk {
            disks: vec![Default::default(); 0],
        }
    }
    pub fn set_now(&self, _now: Duration) {}
    pub fn next_due(&self, _shard: crate::ShardId) -> Option<Duration> {
        None
    }
    pub fn open(
        &mut self,
        seed: u64,
        _now: Duration,
        shards: u16,
        _groups: &[crate::GroupId],
    ) -> Result<Vec<(Store<SimStorage>, Vec<RecoveredGroup>)>, super::Violation> {
        while self.disks.len() < usize::from(shards) {
            self.disks.push(Default::default());
        }
        Ok(self
            .disks
            .iter()
            .map(|d| Store::open(d.clone(), seed))
            .collect())
    }
    pub fn crash(&mut self) {}
}

//! A node's disk, which survives the node, and the stores of its lives.

use std::time::Duration;

use fastrand::Rng;
use highwater_log::storage::{FaultControl, Faults, FaultyStorage, MemoryDisk};
use highwater_log::{Directory, DirectoryFormat, Expected, RecoveredGroup, Store, StoreConfig};
use highwater_record::{Budget, BufferPool};

use super::oracle::Violation;
use super::world::{CLUSTER, EPOCH_MS, incarnation_of};
use crate::{GroupId, NodeId, ShardId};

/// The storage that simulated shards run on.
pub(crate) type SimStorage = FaultyStorage;

/// The size of a half of a journal file: small, so that halves change often.
const JOURNAL_HALF_BYTES: u64 = 64 << 10;

/// A store and what it has found, for each shard.
pub(crate) type Opened = (Store<SimStorage>, Vec<RecoveredGroup>);

/// A disk.
pub(crate) struct Disk {
    disk: MemoryDisk,
    faults: Faults,
    rng: Rng,
    format: DirectoryFormat,
    is_formatted: bool,
    controls: Vec<FaultControl>,
}

impl Disk {
    /// A disk that is not formatted yet.
    pub(super) fn new(node: NodeId, faults: Faults, seed: u64) -> Disk {
        Disk {
            disk: MemoryDisk::new(),
            faults,
            rng: Rng::with_seed(seed),
            format: DirectoryFormat {
                node: highwater_log::NodeId(node.0),
                cluster: CLUSTER,
                incarnation: incarnation_of(node),
                created_ms: EPOCH_MS,
            },
            is_formatted: false,
            controls: Vec::new(),
        }
    }

    /// A disk without faults, whose operations take their time.
    #[cfg(test)]
    pub(crate) fn with_delays(node: NodeId, delay_max: Duration, seed: u64) -> Disk {
        let faults = Faults {
            delay_max,
            ..Faults::default()
        };
        Disk::new(node, faults, seed)
    }

    pub(crate) fn set_now(&self, now: Duration) {
        for control in &self.controls {
            control.set_now(now);
        }
    }

    /// When the next operation of a shard's completes.
    pub(crate) fn next_due(&self, shard: ShardId) -> Option<Duration> {
        self.controls.get(usize::from(shard.0))?.next_due()
    }

    /// A new life: the stores of all shards. Opening takes no time and meets no faults.
    pub(crate) fn open(&mut self, now: Duration, shards: u16) -> Result<Vec<Opened>, Violation> {
        let failed = |error: &dyn std::fmt::Display| Violation {
            rule: "D4 what was written can be read again",
            what: error.to_string(),
        };
        let mut front = self.storage(now);
        if !self.is_formatted {
            Directory::format(&mut front, &self.format).map_err(|error| failed(&error))?;
            self.is_formatted = true;
        }
        let expected = Expected::default();
        let directory = Directory::open(&mut front, &expected, shards.into(), JOURNAL_HALF_BYTES)
            .map_err(|error| failed(&error))?;
        drop(front);
        self.controls.clear();
        let mut opened = Vec::new();
        for shard in 0..shards {
            let storage = self.storage(now);
            self.controls.push(storage.control().clone());
            let here: Vec<GroupId> = directory.groups();
            let is_mine = |group: &GroupId| ShardId::of_group(*group, shards) == ShardId(shard);
            let mine: Vec<GroupId> = here.into_iter().filter(is_mine).collect();
            let config = StoreConfig {
                shard: shard.into(),
                seed: self.rng.u64(..),
                tail_cache_bytes: self.rng.usize(0..200_000),
                map_sealed: self.rng.bool(),
                reserve_bytes: 0,
                ..StoreConfig::default()
            };
            let pool = BufferPool::new(Budget::new(256 << 20), 4096);
            let (store, recovered) = Store::open(storage, pool, config, &directory, &mine)
                .map_err(|error| failed(&error))?;
            if let Some(alarm) = recovered.alarms.first() {
                return Err(failed(alarm));
            }
            opened.push((store, recovered.groups));
        }
        for control in &self.controls {
            control.set_faults(self.faults.clone());
        }
        Ok(opened)
    }

    fn storage(&mut self, now: Duration) -> SimStorage {
        let storage = FaultyStorage::new(&self.disk, Faults::default(), self.rng.u64(..));
        storage.control().set_now(now);
        storage
    }

    /// From now on nothing fails; operations still take their time.
    pub(super) fn calm_down(&mut self) {
        self.faults = Faults {
            delay_min: self.faults.delay_min,
            delay_max: self.faults.delay_max,
            ..Faults::default()
        };
        for control in &self.controls {
            control.set_faults(self.faults.clone());
        }
    }

    /// The node has died, with its stores: what was not durable survives by chance.
    pub(crate) fn crash(&mut self) {
        self.controls.clear();
        self.disk.power_cut_by_chance(&mut self.rng);
    }
}

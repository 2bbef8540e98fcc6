//! A node's disk, which survives the node, and the stores of its lives.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use highwater_log::storage::{FaultControl, Faults, FaultyStorage, Keep, MemoryDisk};
use highwater_log::{
    Alarm, Damage, Directory, DirectoryFormat, Expected, OpenError, RecoveredGroup, Store,
    StoreConfig,
};
use highwater_record::{Budget, BufferPool};

use super::plan::{Plan, stream};
use super::world::{CLUSTER, EPOCH_MS, incarnation_of};
use crate::{GroupId, LogIndex, NodeId, ShardId, positions};

/// The storage that simulated shards run on.
pub(crate) type SimStorage = FaultyStorage;

/// The size of a half of a journal file: small, so that halves change often.
const JOURNAL_HALF_BYTES: u64 = 16 << 10;

/// How many of a file's first bytes identify it; the frames follow.
const IDENTITY_BYTES: usize = 4096;

/// A store and what it has found, for each shard.
pub(crate) type Opened = (Store<SimStorage>, Vec<RecoveredGroup>);

/// What a life begins with.
pub(crate) struct OpenedDisk {
    pub(crate) stores: Vec<Opened>,
    /// What is damaged.
    pub(super) alarms: Vec<Alarm>,
    /// How many groups a crash has left with a torn write.
    pub(super) torn: u64,
    /// How many groups have a state from a footer or base.
    pub(super) footers: u64,
    /// How many groups a crash had left half removed.
    pub(super) half_removed: u64,
}

/// A unit of the journal that a crash has torn was never acted on: it is told, and no damage.
fn is_damage(alarm: &&Alarm) -> bool {
    alarm.damage != Damage::JournalLast
}

/// A disk.
pub(crate) struct Disk {
    pub(super) disk: MemoryDisk,
    faults: Faults,
    /// What is wrong with it now, if it is more than usual.
    slow: Option<Duration>,
    is_full: bool,
    rng: Rng,
    format: DirectoryFormat,
    is_formatted: bool,
    controls: Vec<FaultControl>,
}

impl Disk {
    /// A disk that is not formatted yet.
    pub(super) fn new(node: NodeId, plan: &Plan) -> Disk {
        let is_victim = plan.victim() == Some(node);
        let faults = Faults {
            delay_min: Duration::from_micros(50),
            delay_max: plan.disk_delay_max.max(Duration::from_micros(50)),
            stall_rate: plan.disk_stalls,
            stall: Duration::from_millis(700),
            write_error: plan.disk_errors,
            sync_error: plan.disk_errors,
            no_space: plan.disk_shortages,
            no_resources: plan.disk_shortages,
            read_error: if is_victim {
                plan.disk_read_errors
            } else {
                0.0
            },
            read_flip: if is_victim { plan.disk_read_flips } else { 0.0 },
            ..Faults::default()
        };
        let rng = stream(plan.seed, &format!("disk {node}"));
        Disk::with_faults(node, faults, rng)
    }

    /// A disk without faults, whose operations take their time.
    #[cfg(test)]
    pub(crate) fn with_delays(node: NodeId, delay_max: Duration, seed: u64) -> Disk {
        let faults = Faults {
            delay_max,
            ..Faults::default()
        };
        Disk::with_faults(node, faults, Rng::with_seed(seed))
    }

    fn with_faults(node: NodeId, faults: Faults, rng: Rng) -> Disk {
        Disk {
            disk: MemoryDisk::new(),
            faults,
            slow: None,
            is_full: false,
            rng,
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

    /// What a shard's operations are due by.
    pub(crate) fn set_now(&self, shard: ShardId, now: Duration) {
        if let Some(control) = self.controls.get(usize::from(shard.0)) {
            control.set_now(now);
        }
    }

    /// When the next operation of a shard's completes.
    pub(crate) fn next_due(&self, shard: ShardId) -> Option<Duration> {
        self.controls.get(usize::from(shard.0))?.next_due()
    }

    /// A new life: the stores of all shards. Opening takes no time and meets no faults.
    pub(crate) fn open(&mut self, now: Duration, shards: u16) -> Result<OpenedDisk, OpenError> {
        let mut front = self.storage(now);
        if !self.is_formatted {
            let formatted = Directory::format(&mut front, &self.format);
            formatted.expect("a new disk is empty and well");
            self.is_formatted = true;
        }
        let expected = Expected::default();
        let directory = Directory::open(&mut front, &expected, shards.into(), JOURNAL_HALF_BYTES)?;
        drop(front);
        self.controls.clear();
        let mut opened = OpenedDisk {
            stores: Vec::new(),
            alarms: directory
                .alarms()
                .iter()
                .filter(is_damage)
                .cloned()
                .collect(),
            torn: 0,
            footers: 0,
            half_removed: directory.half_removed().count() as u64,
        };
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
                recycle_bytes: self.rng.u64(0..1_000_000),
                reserve_bytes: 0,
                scrub_bytes_per_second: 1 << 20,
                scrub_interval: Duration::from_secs(30),
                ..StoreConfig::default()
            };
            let pool = BufferPool::new(Budget::new(256 << 20), 4096);
            let (store, recovered) = Store::open(storage, pool, config, &directory, &mine)?;
            opened.alarms.extend(recovered.alarms);
            let groups = recovered.groups;
            opened.torn += groups.iter().filter(|it| it.torn.is_some()).count() as u64;
            opened.footers += groups.iter().filter(|it| it.snapshot.is_some()).count() as u64;
            opened.stores.push((store, groups));
        }
        self.tell_faults();
        Ok(opened)
    }

    /// Up to where the log of each group would go if the power were cut now, and nothing of what
    /// is pending survived; nothing if something is damaged.
    pub(super) fn durable_ends(
        &self,
        shards: u16,
    ) -> Result<Option<BTreeMap<GroupId, LogIndex>>, OpenError> {
        let mut image = Disk {
            disk: self.disk.fork(),
            faults: Faults::default(),
            slow: None,
            is_full: false,
            rng: Rng::with_seed(0),
            format: self.format,
            is_formatted: self.is_formatted,
            controls: Vec::new(),
        };
        image.disk.set_capacity(u64::MAX);
        image.disk.power_cut(|_| Keep::Nothing);
        let opened = image.open(Duration::ZERO, shards)?;
        if !opened.alarms.is_empty() {
            return Ok(None);
        }
        let groups = opened.stores.into_iter().flat_map(|(_, groups)| groups);
        let end = |it: RecoveredGroup| (it.group, positions::index_from_log(it.last.index));
        Ok(Some(groups.map(end).collect()))
    }

    fn storage(&mut self, now: Duration) -> SimStorage {
        let storage = FaultyStorage::new(&self.disk, Faults::default(), self.rng.u64(..));
        storage.control().set_now(now);
        storage
    }

    fn tell_faults(&self) {
        let mut faults = self.faults.clone();
        faults.delay_max = faults.delay_max.max(self.slow.unwrap_or_default());
        for control in &self.controls {
            control.set_faults(faults.clone());
        }
    }

    /// Whether its operations take longer than usual.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.is_some()
    }

    /// Whether it has no room for new files.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// There is no room for new files.
    pub(super) fn fill(&mut self) {
        self.is_full = true;
        self.disk.set_capacity(0);
    }

    /// Operations take longer.
    pub(super) fn slow_down(&mut self, delay_max: Duration) {
        self.slow = Some(delay_max);
        self.tell_faults();
    }

    /// There is room again, and operations take as long as usual.
    pub(super) fn recover(&mut self) {
        self.is_full = false;
        self.disk.set_capacity(u64::MAX);
        self.slow = None;
        self.tell_faults();
    }

    /// From now on nothing fails; operations still take their time.
    pub(super) fn calm_down(&mut self) {
        self.faults = Faults {
            delay_min: self.faults.delay_min,
            delay_max: self.faults.delay_max,
            ..Faults::default()
        };
        self.recover();
    }

    /// The power is cut: what was not durable survives by chance.
    pub(crate) fn power_cut(&mut self) {
        self.controls.clear();
        self.disk.power_cut_by_chance(&mut self.rng);
    }

    /// The process is killed: what was in flight has happened or not, what was written before
    /// can be read again.
    pub(super) fn kill(&mut self) {
        self.controls.clear();
        let rng = &mut self.rng;
        self.disk.kill(|_| match rng.bool() {
            true => Keep::Everything,
            false => Keep::Nothing,
        });
    }

    /// Whether a directory that is empty is refused as one that was never formatted.
    pub(super) fn refuses_to_be_empty(&self) -> bool {
        let empty = MemoryDisk::new();
        let mut front = FaultyStorage::new(&empty, Faults::default(), 0);
        let opened = Directory::open(&mut front, &Expected::default(), 1, JOURNAL_HALF_BYTES);
        matches!(opened, Err(OpenError::NotFormatted)) && empty.files().is_empty()
    }

    /// Flips a bit of a file of a group or of the journal, by chance; which one.
    pub(super) fn rot(&mut self, pick: u64) -> Option<String> {
        let mut rng = Rng::with_seed(pick);
        let files = self.disk.files().into_iter();
        let may_rot = |path: &String| path.starts_with("groups/") || path.starts_with("journal/");
        let path = rng.choice(files.filter(may_rot).collect::<Vec<_>>())?;
        let contents = self.disk.durable_contents(&path).ok()?;
        let written = contents.iter().rposition(|byte| *byte != 0)? + 1;
        // Its identity is hit as often as all that follows.
        let byte = match rng.bool() {
            true => rng.usize(..written.min(IDENTITY_BYTES)),
            false => rng.usize(..written),
        };
        let bit = byte as u64 * 8 + rng.u64(..8);
        self.disk.flip_bit(&path, bit).ok()?;
        Some(format!("{path} bit {bit} of {written} bytes"))
    }
}

//! Power cuts under three nodes: of one, or of all at once.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use highwater_client::{TopicName, blocking};

use super::chain::{Setting, draw_cut};
use super::cluster::{Cluster, Load, Settings, read_back};
use super::tally::Tally;

/// How large a node's disk is, in bytes.
const DISK_BYTES: u64 = 512 << 20;

/// Partitions of the topic.
const PARTITIONS: u32 = 4;

/// How many records are acknowledged before a cut, at least.
const RECORDS_BEFORE: usize = 200;

/// And after it, before it is said that the cluster goes on.
const RECORDS_AFTER: usize = 50;

/// A cluster of three nodes under load.
#[derive(Debug)]
pub(super) struct Trio {
    cluster: Cluster,
    topic: TopicName,
    load: Load,
    rng: Rng,
    /// How many acknowledged records were looked for before.
    counted: u64,
}

impl Trio {
    pub(super) fn new(setting: Setting, folder: &Path) -> anyhow::Result<Trio> {
        let settings = Settings {
            nodes: 3,
            file_system: setting.file_system,
            disk_bytes: DISK_BYTES,
            storage: setting.backend.name(),
        };
        let cluster = Cluster::start(&settings, folder)?;
        let topic = cluster.create_topic("load", PARTITIONS)?;
        let load = Load::start(cluster.client(), &topic, PARTITIONS);
        Ok(Trio {
            cluster,
            topic,
            load,
            rng: setting.rng(),
            counted: 0,
        })
    }

    /// A power cut, and the judgement of what is left.
    ///
    /// # Errors
    ///
    /// What is not as it should be.
    pub(super) fn live(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.load.wait_for_more(RECORDS_BEFORE)?;
        let one = self.rng.usize(..3);
        let is_of_all = self.rng.bool();
        let victims = if is_of_all { vec![0, 1, 2] } else { vec![one] };
        thread::sleep(Duration::from_micros(self.rng.u64(..20_000)));
        let cut = draw_cut(&mut self.rng);
        self.cluster.cut_power(&victims, cut)?;
        tally.count_cut(cut, false, false);
        tally.all_at_once += u64::from(is_of_all);
        if self.rng.u8(..4) == 0 {
            self.cluster.spawn(&victims)?;
            thread::sleep(Duration::from_millis(self.rng.u64(..400)));
            let cut = draw_cut(&mut self.rng);
            self.cluster.cut_power(&victims, cut)?;
            tally.cuts_in_recovery += 1;
        }
        self.cluster.start_all()?;
        self.load.wait_for_more(RECORDS_AFTER)?;
        self.judge(tally)
    }

    fn judge(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let client = blocking::Client::connect(self.cluster.client())?;
        let acknowledged = self.load.acknowledged();
        tally.entries_read += read_back(&client, &self.topic, &acknowledged)?;
        let count = acknowledged.len() as u64;
        tally.acknowledged += count - self.counted;
        self.counted = count;
        Ok(())
    }

    /// The load ends, and all that was sent is there; the nodes end, and have the same.
    ///
    /// # Errors
    ///
    /// What is not as it should be.
    pub(super) fn finish(self, tally: &mut Tally) -> anyhow::Result<()> {
        let Trio {
            mut cluster,
            topic,
            load,
            counted,
            ..
        } = self;
        let acknowledged = load.finish()?;
        let client = blocking::Client::connect(cluster.client())?;
        tally.entries_read += read_back(&client, &topic, &acknowledged)?;
        tally.acknowledged += acknowledged.len() as u64 - counted;
        cluster.wait_until_caught_up(&topic)?;
        cluster.verify()
    }

    /// Ends the cluster, and keeps its disks, which do not hold what they should.
    pub(super) fn keep(self) -> anyhow::Result<Vec<PathBuf>> {
        self.cluster.keep()
    }
}

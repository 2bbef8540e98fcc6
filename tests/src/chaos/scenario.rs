//! Scenarios: TOML files that say which cluster, which load and which faults.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::kind::Kind;
use crate::disk_image::FileSystem;

/// Smallest and largest number of nodes.
const NODES: std::ops::RangeInclusive<usize> = 3..=9;

/// What is to be run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The name of its file, without the ending.
    #[serde(skip)]
    pub(crate) name: String,
    /// In a sentence.
    pub(crate) about: String,
    /// How many nodes.
    #[serde(default = "three")]
    pub(crate) nodes: usize,
    /// What is drawn follows from it.
    pub(crate) seed: u64,
    /// How long there are faults, unless the command says otherwise.
    pub(crate) minutes: f64,
    /// Whether a majority is always left alone by what takes nodes away.
    #[serde(default = "yes")]
    pub(crate) spare_a_majority: bool,
    /// Whether nodes write with plain system calls instead of io_uring.
    #[serde(default)]
    pub(crate) portable: bool,
    /// Options of all nodes: `KEY=VALUE`.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// On what the nodes' data lie.
    #[serde(default)]
    pub(crate) disk: Disk,
    /// What clients do.
    #[serde(default)]
    pub(crate) load: LoadPlan,
    /// Faults that are drawn.
    pub(crate) swarm: Option<Swarm>,
    /// Faults that are listed.
    #[serde(default)]
    pub(crate) timeline: Vec<Listed>,
}

/// On what the nodes' data lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Disk {
    /// Folders of the file system that is there.
    #[default]
    Folder,
    /// A file system for each.
    Ext4,
    /// A file system for each.
    Xfs,
}

impl Disk {
    /// The file system of a node's own, if it has one.
    pub(crate) const fn file_system(self) -> Option<FileSystem> {
        match self {
            Disk::Folder => None,
            Disk::Ext4 => Some(FileSystem::Ext4),
            Disk::Xfs => Some(FileSystem::Xfs),
        }
    }
}

/// What clients do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoadPlan {
    /// Topics.
    pub(crate) topics: u32,
    /// Partitions of each.
    pub(crate) partitions: u32,
    /// `segment.bytes` of each: small, so that files are sealed and read back.
    pub(crate) segment_bytes: u64,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// Records a second of all producers together.
    pub(crate) rate: u32,
    /// Idempotent producers of ours, over QUIC.
    pub(crate) quic: u32,
    /// Producers of ours that are not idempotent, over TCP.
    pub(crate) plain: u32,
    /// Idempotent producers of librdkafka.
    pub(crate) librdkafka: u32,
    /// Producers of kafka-python.
    pub(crate) kafka_python: u32,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self {
            topics: 2,
            partitions: 3,
            segment_bytes: 4 << 20,
            record_bytes: 64,
            rate: 3_000,
            quic: 2,
            plain: 1,
            librdkafka: 1,
            kafka_python: 1,
        }
    }
}

/// Faults that are drawn from the seed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Swarm {
    /// Seconds from one to the next, at least and at most.
    pub(crate) every_s: [f64; 2],
    /// Seconds that one lasts, at least and at most.
    pub(crate) lasts_s: [f64; 2],
    /// How often each kind is drawn, in relation to the others.
    pub(crate) weights: BTreeMap<Kind, u32>,
}

/// A fault that is listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// Of what kind.
    pub(crate) fault: Kind,
    /// Seconds from the beginning.
    pub(crate) at_s: f64,
    /// Seconds that it lasts.
    #[serde(default)]
    pub(crate) for_s: f64,
    /// Whom it hits.
    #[serde(default)]
    pub(crate) node: usize,
    /// And between it and whom.
    #[serde(default)]
    pub(crate) peer: usize,
    /// How much; what it means depends on the kind.
    pub(crate) amount: Option<i64>,
}

const fn three() -> usize {
    3
}

const fn yes() -> bool {
    true
}

impl Scenario {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Scenario> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("{shown}"))?;
        let mut scenario: Scenario = toml::from_str(&text).with_context(|| format!("{shown}"))?;
        let name = path.file_stem().unwrap_or_default();
        scenario.name = name.to_string_lossy().into_owned();
        scenario.check().with_context(|| format!("{shown}"))?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(NODES.contains(&self.nodes), "nodes are 3 to 9");
        ensure!(self.minutes > 0.0, "minutes are more than none");
        ensure!(
            self.load.topics > 0 && self.load.partitions > 0,
            "no partition"
        );
        for listed in &self.timeline {
            let are_there = listed.node.max(listed.peer) < self.nodes;
            ensure!(are_there, "{:?}: no such node", listed.fault);
        }
        if let Some(swarm) = &self.swarm {
            let ordered = |[least, most]: [f64; 2]| 0.0 < least && least <= most;
            ensure!(ordered(swarm.every_s), "every_s is no range");
            ensure!(ordered(swarm.lasts_s), "lasts_s is no range");
            ensure!(swarm.weights.values().any(|it| *it > 0), "nothing is drawn");
        }
        Ok(())
    }

    /// Which kinds of faults it can have.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        let listed = self.timeline.iter().map(|listed| listed.fault);
        let drawn = self.swarm.iter().flat_map(|swarm| swarm.weights.keys());
        listed.chain(drawn.copied())
    }
}

//! What a run is to be like, drawn from its seed: each fault is on or off, often or rare, so
//! that rare combinations happen, and runs without faults too.

use std::time::Duration;

use fastrand::Rng;

use crate::NodeId;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many nodes, each with a replica of every group.
    pub nodes: u32,
    /// How many shards the nodes have, one after the other, round and round.
    pub shards: Vec<u16>,
    /// The largest value of a record; large ones fill files, which are then sealed.
    pub value_bytes_max: usize,
    /// How large a group's files become.
    pub segment_bytes: u64,
    /// How many groups.
    pub groups: u64,
    /// How many producers and as many readers.
    pub clients: u32,
    /// How long faults happen.
    pub turbulence: Duration,
    /// How long after the last fault everything must have come to rest.
    pub patience: Duration,
    /// The chance that a frame is lost although its link stays up.
    pub loss: f64,
    /// The chance that a frame comes twice.
    pub duplication: f64,
    /// The chance that a frame overtakes others of its lane.
    pub reordering: f64,
    /// The chance that a bit of a frame is flipped.
    pub garbling: f64,
    /// The longest that a frame takes.
    pub delay_max: Duration,
    /// The mean time between crashes, if nodes crash.
    pub crash_every: Option<Duration>,
    /// The mean time between cuts of links, if links are cut.
    pub cut_every: Option<Duration>,
    /// The mean time between transfers of leadership, if somebody asks for them.
    pub transfer_every: Option<Duration>,
    /// The mean time between deletions of records, if somebody asks for them.
    pub delete_every: Option<Duration>,
    /// How long a client waits for an answer before it asks again, perhaps somebody else.
    pub answer_max: Duration,
    /// The longest that an operation of the disk takes.
    pub disk_delay_max: Duration,
    /// The chance that it takes most of a second longer.
    pub disk_stalls: f64,
    /// The chance that a write or a sync fails, after which the node ends and is started again.
    pub disk_errors: f64,
    /// The chance that a new file finds no room, or a read no descriptor.
    pub disk_shortages: f64,
}

impl Plan {
    /// The plan of a seed, for this many nodes.
    ///
    /// # Panics
    ///
    /// If there are no nodes.
    #[must_use]
    pub fn of_seed(seed: u64, nodes: u32) -> Plan {
        assert!(nodes > 0, "a world has a node at least");
        let mut rng = Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut chance = |rate: f64| if rng.bool() { 0.0 } else { rng.f64() * rate };
        let (loss, duplication, reordering, garbling) =
            (chance(0.2), chance(0.1), chance(0.1), chance(0.02));
        let disk_stalls = chance(0.01);
        let disk_errors = chance(0.001);
        let disk_shortages = chance(0.05);
        let mut every = |from: u64, to: u64| {
            let happens = rng.u8(..4) > 0;
            happens.then(|| Duration::from_millis(rng.u64(from..to)))
        };
        let crash_every = every(1_000, 8_000);
        let cut_every = every(500, 6_000);
        let transfer_every = every(1_000, 10_000);
        let delete_every = every(1_000, 10_000);
        Plan {
            seed,
            nodes,
            disk_stalls,
            disk_errors,
            disk_shortages,
            shards: match rng.bool() {
                true => vec![1],
                false => (0..3).map(|_| rng.u16(1..=3)).collect(),
            },
            value_bytes_max: [50, 500, 5_000][rng.usize(..3)],
            segment_bytes: 64 << 10,
            groups: rng.u64(1..=3),
            clients: rng.u32(1..=4),
            turbulence: Duration::from_secs(12),
            patience: Duration::from_secs(40),
            loss,
            duplication,
            reordering,
            garbling,
            delay_max: Duration::from_micros(rng.u64(200..20_000)),
            crash_every,
            cut_every,
            transfer_every,
            delete_every,
            answer_max: Duration::from_millis(match rng.bool() {
                true => rng.u64(10..300),
                false => 4_000,
            }),
            disk_delay_max: Duration::from_micros(rng.u64(200..10_000)),
        }
    }

    /// The same, but nothing fails, and nobody asks for anything out of turn.
    #[must_use]
    pub fn without_faults(self) -> Plan {
        Plan {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            garbling: 0.0,
            crash_every: None,
            cut_every: None,
            transfer_every: None,
            delete_every: None,
            disk_stalls: 0.0,
            disk_errors: 0.0,
            disk_shortages: 0.0,
            ..self
        }
    }

    /// How many shards a node has.
    pub(super) fn shards_of(&self, node: NodeId) -> u16 {
        let at = usize::try_from(node.0).expect("few nodes") % self.shards.len();
        self.shards[at]
    }
}

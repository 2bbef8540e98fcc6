//! What a run is to be like, drawn from its seed: each fault is on or off, often or rare, so
//! that rare combinations happen, and runs without faults too.

use std::time::Duration;

use fastrand::Rng;

use super::schedule::{self, Fault, FaultKind};
use crate::NodeId;

/// Which faults a run may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// All that the protocol promises to survive, each switched on or off by the seed.
    #[default]
    Swarm,
    /// No faults at all.
    Calm,
    /// Links, clocks and leadership; disks and nodes are well.
    Net,
    /// Disks and nodes; the network is well.
    Disk,
    /// More than the protocol promises to survive: data rots on any replica. It may stop; what
    /// it says must be true all the same.
    Beyond,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 5] = [
        Profile::Swarm,
        Profile::Calm,
        Profile::Net,
        Profile::Disk,
        Profile::Beyond,
    ];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Swarm => "swarm",
            Profile::Calm => "calm",
            Profile::Net => "net",
            Profile::Disk => "disk",
            Profile::Beyond => "beyond",
        }
    }

    /// The profile of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|it| it.name() == name)
    }

    pub(super) fn has_net(self) -> bool {
        matches!(self, Profile::Swarm | Profile::Net | Profile::Beyond)
    }

    pub(super) fn has_disk(self) -> bool {
        matches!(self, Profile::Swarm | Profile::Disk | Profile::Beyond)
    }
}

/// A topic that is there for the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication: i16,
    /// Bytes above which old files are removed, if they are.
    pub retention_bytes: Option<u64>,
    /// How old in milliseconds what is removed must be: less than a run lasts, or more than it
    /// lasts and than clocks may be off before they are doubted. None: as topics have it that say
    /// nothing, a week.
    pub retention_ms: Option<u64>,
}

/// An age in milliseconds that nothing reaches in a run, whatever its clocks do.
const NEVER_OLD_MS: u64 = 15 * 60 * 1_000;

impl TopicPlan {
    /// Whether anything in it may be removed in a run.
    pub(super) fn may_shrink(&self) -> bool {
        self.retention_bytes.is_some() || self.retention_ms.is_some_and(|ms| ms < NEVER_OLD_MS)
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Which faults there may be.
    pub profile: Profile,
    /// How many nodes.
    pub nodes: u32,
    /// How many shards the nodes have, one after the other, round and round.
    pub shards: Vec<u16>,
    /// The largest value of a record; large ones fill files, which are then sealed.
    pub value_bytes_max: usize,
    /// The most records that producers put into a batch.
    pub batch_records_max: u64,
    /// How large a partition's files become.
    pub segment_bytes: u64,
    /// The topics.
    pub topics: Vec<TopicPlan>,
    /// How many groups there are beside the topics', with a replica on every node, for tests that
    /// drive the world by themselves.
    pub groups: u64,
    /// Whether further topics are created and deleted all the time.
    pub churn: bool,
    /// How many idempotent producers.
    pub producers: u32,
    /// How many idempotent producers with several batches under way at once.
    pub pipelined_producers: u32,
    /// How many producers without sequence numbers.
    pub plain_producers: u32,
    /// How many consumers.
    pub consumers: u32,
    /// How long producers wait between two batches, at most.
    pub pause_max: Duration,
    /// How long faults happen.
    pub turbulence: Duration,
    /// How many records are to be acknowledged before faults end, if that takes no longer than the
    /// turbulence once more.
    pub acked_min: u64,
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
    /// The chance that a client's connection breaks before it has its answer.
    pub hangup: f64,
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
    /// The chance that a read fails, on the one node whose disk may damage what it holds.
    pub disk_read_errors: f64,
    /// The chance that a read gives a bit that is flipped, on that node.
    pub disk_read_flips: f64,
    /// What happens when.
    pub faults: Vec<Fault>,
}

/// A stream of chance of its own for each use, so that one more draw in one does not change the
/// others.
pub(super) fn stream(seed: u64, name: &str) -> Rng {
    let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Rng::with_seed(hash)
}

impl Plan {
    /// The plan of a seed, for this many nodes, with everything that may be survived.
    ///
    /// # Panics
    ///
    /// If there are no nodes.
    #[must_use]
    pub fn of_seed(seed: u64, nodes: u32) -> Plan {
        Plan::new(seed, nodes, Profile::Swarm)
    }

    /// The plan of a seed, for this many nodes, with the faults of a profile.
    ///
    /// # Panics
    ///
    /// If there are no nodes.
    #[must_use]
    pub fn new(seed: u64, nodes: u32, profile: Profile) -> Plan {
        assert!(nodes > 0, "a world has a node at least");
        let mut rng = stream(seed, "plan");
        let net = profile.has_net();
        let mut chance = |is_meant: bool, rate: f64| {
            let drawn = if rng.bool() { 0.0 } else { rng.f64() * rate };
            if is_meant { drawn } else { 0.0 }
        };
        let (loss, duplication) = (chance(net, 0.2), chance(net, 0.1));
        let (reordering, garbling) = (chance(net, 0.1), chance(net, 0.02));
        let hangup = chance(net, 0.05);
        let disk = profile.has_disk();
        let disk_stalls = chance(disk, 0.01);
        let disk_errors = chance(disk, 0.0002);
        let disk_shortages = chance(disk, 0.05);
        // Many records, or large ones.
        let (value_bytes_max, batch_records_max) =
            [(50, 20), (500, 12), (5_000, 6)][rng.usize(..3)];
        let mut reads = stream(seed, "reads");
        let mut chance = |rate: f64| match disk && reads.bool() {
            true => reads.f64() * rate,
            false => 0.0,
        };
        let (disk_read_errors, disk_read_flips) = (chance(0.02), chance(0.001));
        let mut pipelined = stream(seed, "pipelined");
        let mut plan = Plan {
            seed,
            profile,
            nodes,
            shards: match rng.bool() {
                true => vec![1],
                false => (0..3).map(|_| rng.u16(1..=3)).collect(),
            },
            value_bytes_max,
            batch_records_max,
            segment_bytes: 64 << 10,
            topics: Vec::new(),
            groups: 0,
            churn: rng.u8(..3) == 0,
            producers: rng.u32(PRODUCERS_MIN..=4),
            pipelined_producers: pipelined.u32(0..=2),
            plain_producers: rng.u32(0..=2),
            consumers: rng.u32(1..=4),
            pause_max: pause_max(seed, batch_records_max),
            turbulence: Duration::from_secs(60),
            acked_min: 1_000,
            patience: Duration::from_secs(60),
            loss,
            duplication,
            reordering,
            garbling,
            delay_max: Duration::from_micros(rng.u64(200..20_000)),
            hangup,
            answer_max: Duration::from_millis(match rng.bool() {
                true => rng.u64(50..600),
                false => 4_000,
            }),
            disk_delay_max: Duration::from_micros(rng.u64(200..10_000)),
            disk_stalls,
            disk_errors,
            disk_shortages,
            disk_read_errors,
            disk_read_flips,
            faults: Vec::new(),
        };
        if plan.producers + plan.pipelined_producers + plan.plain_producers == PRODUCERS_MIN {
            // Enough is acknowledged by few too, if they do not wait that long.
            plan.pause_max /= 2;
        }
        plan.topics = topics(&mut rng, nodes);
        let mut ages = stream(seed, "ages");
        for topic in &mut plan.topics {
            topic.retention_ms = match ages.u8(..12) {
                0 => Some(20_000),
                1..=6 => Some(NEVER_OLD_MS),
                _ => None,
            };
        }
        plan.faults = schedule::draw(&plan);
        plan
    }

    /// The node whose disk may damage what it holds, and the copy of the journal that may be: so
    /// of each record that is committed a good copy is elsewhere, and of what a node has promised
    /// one on its disk. None where a quorum needs every node.
    pub(super) fn victim(&self) -> Option<NodeId> {
        let mut rng = stream(self.seed, "victim");
        (self.nodes > 2 && self.profile.has_disk()).then(|| NodeId(rng.u32(1..=self.nodes)))
    }

    /// Whether what partitions know of a producer may be lost.
    pub(super) fn forgets_producers(&self) -> bool {
        let forgets = |fault: &Fault| matches!(fault.kind, FaultKind::DeleteRecords { .. });
        self.topics.iter().any(TopicPlan::may_shrink) || self.faults.iter().any(forgets)
    }

    /// The same, but nothing fails, and nobody asks for anything out of turn.
    #[must_use]
    pub fn without_faults(self) -> Plan {
        Plan {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            garbling: 0.0,
            hangup: 0.0,
            faults: Vec::new(),
            disk_stalls: 0.0,
            disk_errors: 0.0,
            disk_shortages: 0.0,
            disk_read_errors: 0.0,
            disk_read_flips: 0.0,
            ..self
        }
    }

    /// How many shards a node has.
    pub(super) fn shards_of(&self, node: NodeId) -> u16 {
        let at = usize::try_from(node.0).expect("few nodes") % self.shards.len();
        self.shards[at]
    }
}

/// How many producers there are at least.
const PRODUCERS_MIN: u32 = 2;

/// How long producers wait. A second of simulated time costs what happens in it, and faults happen
/// by the clock: most runs have a light load, so that more faults are met for the same work, and
/// one in sixteen a load under which batches, files and queues are full. Whose batches are small
/// sends them more often.
fn pause_max(seed: u64, batch_records_max: u64) -> Duration {
    let mut rng = stream(seed, "load");
    let pauses = match rng.u8(..16) {
        0 => [20, 50, 100],
        _ => [250, 500, 1_000],
    };
    Duration::from_millis(pauses[rng.usize(..3)] * batch_records_max.min(12) / 12)
}

fn topics(rng: &mut Rng, nodes: u32) -> Vec<TopicPlan> {
    let most = i16::try_from(nodes.min(5)).expect("five at most");
    let topic = |number| TopicPlan {
        name: format!("topic-{number}"),
        partitions: rng.i32(1..=3),
        replication: if rng.bool() { most } else { most.min(3) },
        retention_bytes: (rng.u8(..4) == 0).then(|| rng.u64(100_000..400_000)),
        retention_ms: None,
    };
    (1..=2).map(topic).collect()
}

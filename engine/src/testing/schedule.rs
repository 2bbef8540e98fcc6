//! Faults that happen at a time: drawn before the run, each with all that it needs, so that a run
//! without one of them is the same run in everything else.

use std::time::Duration;

use fastrand::Rng;

use super::plan::{Plan, Profile, stream};
use crate::NodeId;

/// Something that is done to the world at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The power of nodes is cut: what was not durable survives by chance (F10 to F13).
    PowerCut {
        /// Whose.
        nodes: Vec<NodeId>,
        /// How long until they are started again.
        down: Duration,
    },
    /// The process of a node is killed: what it had written can be read again (F01).
    Kill {
        /// Whose.
        node: NodeId,
        /// How long until it is started again.
        down: Duration,
    },
    /// A node does nothing for a while, then finds all that came meanwhile (F04).
    Pause {
        /// Which.
        node: NodeId,
        /// How long.
        lasts: Duration,
    },
    /// A node is cut from others (F40 to F42).
    Cut {
        /// Which.
        node: NodeId,
        /// From whom.
        peers: Vec<NodeId>,
        /// Whether nothing passes from the lower to the higher node, and the other way.
        ways: (bool, bool),
        /// Whether the ends notice at once that the link is down.
        noticed: bool,
        /// How long.
        lasts: Duration,
    },
    /// A link goes down and up again and again (F43).
    Flap {
        /// An end.
        node: NodeId,
        /// The other.
        peer: NodeId,
        /// How often.
        times: u32,
        /// How long it is down, and then up.
        period: Duration,
    },
    /// The wall clock of a node jumps (F30).
    ClockJump {
        /// Whose.
        node: NodeId,
        /// How far, in milliseconds.
        ms: i64,
    },
    /// The clock of a node runs at another speed from now on (F31).
    Drift {
        /// Whose.
        node: NodeId,
        /// Faster by so many millionths.
        ppm: i32,
    },
    /// A node's disk has no room for new files (F23).
    DiskFull {
        /// Whose.
        node: NodeId,
        /// How long.
        lasts: Duration,
    },
    /// Every operation of a node's disk takes long (F25).
    SlowDisk {
        /// Whose.
        node: NodeId,
        /// How long an operation takes at most.
        delay_max: Duration,
        /// How long.
        lasts: Duration,
    },
    /// A node is killed and started with an empty disk under its old id, which must refuse; then
    /// its own disk comes back (F07).
    Emptied {
        /// Which.
        node: NodeId,
        /// How long until its own disk comes back.
        down: Duration,
    },
    /// The power of a node is cut, and something on its disk rots (F16, F29).
    Rot {
        /// Whose.
        node: NodeId,
        /// Which file and bit, by chance.
        pick: u64,
        /// How long until it is started again.
        down: Duration,
    },
    /// Something that lies on the disk of the plan's victim is damaged: bits flip, or a write
    /// is found not to be there, or to be somewhere else (F14 to F16, F29).
    Decay {
        /// Whose.
        node: NodeId,
        /// What, by chance.
        pick: u64,
    },
    /// Somebody asks for a transfer of leadership.
    Transfer {
        /// Of which group and to whom, by chance.
        pick: u64,
    },
    /// Somebody deletes records.
    DeleteRecords {
        /// Which, by chance.
        pick: u64,
    },
    /// Clients ask a node much at once, and read no answers (F80, F93).
    Flood {
        /// Whom.
        node: NodeId,
        /// How many requests.
        requests: u32,
    },
}

impl FaultKind {
    /// Its name in summaries.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            FaultKind::PowerCut { .. } => "power cut",
            FaultKind::Kill { .. } => "kill",
            FaultKind::Pause { .. } => "pause",
            FaultKind::Cut { .. } => "cut",
            FaultKind::Flap { .. } => "flapping link",
            FaultKind::ClockJump { .. } => "clock jump",
            FaultKind::Drift { .. } => "clock drift",
            FaultKind::DiskFull { .. } => "full disk",
            FaultKind::SlowDisk { .. } => "slow disk",
            FaultKind::Emptied { .. } => "emptied node",
            FaultKind::Rot { .. } => "bit rot",
            FaultKind::Decay { .. } => "decay",
            FaultKind::Transfer { .. } => "transfer",
            FaultKind::DeleteRecords { .. } => "delete records",
            FaultKind::Flood { .. } => "flood",
        }
    }
}

/// A day and a bit, in milliseconds: clocks jump by more than a partition remembers producers.
const DAY_MS: i64 = 90_000_000;

/// Ten years, in milliseconds.
const YEARS_MS: i64 = 10 * 365 * 24 * 3_600_000;

/// How far wall clocks jump.
const JUMPS_MS: [i64; 6] = [5_000, -5_000, 1_200_000, -1_200_000, DAY_MS, -DAY_MS];

/// The same, where they are far off: once before 1970.
const FAR_JUMPS_MS: [i64; 6] = [
    YEARS_MS,
    -YEARS_MS,
    DAY_MS,
    -7 * YEARS_MS,
    YEARS_MS,
    -YEARS_MS,
];

/// Draws the faults of a plan.
pub(super) fn draw(plan: &Plan) -> Vec<Fault> {
    if plan.profile == Profile::Calm {
        return Vec::new();
    }
    let (net, disk) = (plan.profile.has_net(), plan.profile.has_disk());
    let mut faults = Vec::new();
    let mut add =
        |is_meant: bool, name: &str, mean_ms: u64, make: &dyn Fn(&mut Rng) -> FaultKind| {
            let mut rng = stream(plan.seed, name);
            // A third of the runs goes without each.
            if !is_meant || rng.u8(..3) == 0 {
                return;
            }
            let mean = rng.u64(mean_ms / 3..mean_ms * 2);
            let mut at = Duration::ZERO;
            loop {
                at += Duration::from_millis(rng.u64(1..mean * 2));
                if at >= plan.turbulence {
                    return;
                }
                let kind = make(&mut rng);
                faults.push(Fault { at, kind });
            }
        };
    let nodes = plan.nodes;
    let any = move |rng: &mut Rng| NodeId(rng.u32(1..=nodes));
    let millis = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    add(disk, "power", 6_000, &|rng| FaultKind::PowerCut {
        nodes: some_nodes(rng, nodes),
        down: millis(rng, 10, 3_000),
    });
    add(disk, "kill", 9_000, &|rng| FaultKind::Kill {
        node: any(rng),
        down: millis(rng, 10, 3_000),
    });
    add(true, "pause", 9_000, &|rng| FaultKind::Pause {
        node: any(rng),
        lasts: millis(rng, 10, 6_000),
    });
    add(net && nodes > 1, "cut", 5_000, &|rng| any_cut(rng, nodes));
    add(net && nodes > 1, "flap", 15_000, &|rng| {
        let node = any(rng);
        FaultKind::Flap {
            node,
            peer: another(rng, nodes, node),
            times: rng.u32(2..12),
            period: millis(rng, 50, 700),
        }
    });
    let jumps_ms = match stream(plan.seed, "far").u8(..3) {
        0 => FAR_JUMPS_MS,
        _ => JUMPS_MS,
    };
    add(net, "jump", 15_000, &|rng| FaultKind::ClockJump {
        node: any(rng),
        ms: jumps_ms[rng.usize(..jumps_ms.len())],
    });
    add(net, "drift", 30_000, &|rng| FaultKind::Drift {
        node: any(rng),
        ppm: rng.i32(-100_000..=100_000),
    });
    add(disk, "full", 20_000, &|rng| FaultKind::DiskFull {
        node: any(rng),
        lasts: millis(rng, 100, 5_000),
    });
    add(disk, "slow", 15_000, &|rng| FaultKind::SlowDisk {
        node: any(rng),
        delay_max: millis(rng, 20, 2_000),
        lasts: millis(rng, 500, 6_000),
    });
    add(disk, "emptied", 40_000, &|rng| FaultKind::Emptied {
        node: any(rng),
        down: millis(rng, 10, 3_000),
    });
    let victim = plan.victim();
    add(victim.is_some(), "decay", 10_000, &|rng| FaultKind::Decay {
        node: victim.expect("else nothing is meant"),
        pick: rng.u64(..),
    });
    let beyond = plan.profile == Profile::Beyond;
    add(beyond, "rot", 15_000, &|rng| FaultKind::Rot {
        node: any(rng),
        pick: rng.u64(..),
        down: millis(rng, 10, 3_000),
    });
    add(true, "transfer", 8_000, &|rng| FaultKind::Transfer {
        pick: rng.u64(..),
    });
    add(true, "delete", 10_000, &|rng| FaultKind::DeleteRecords {
        pick: rng.u64(..),
    });
    add(net, "flood", 30_000, &|rng| FaultKind::Flood {
        node: any(rng),
        requests: rng.u32(1..200),
    });
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// One node mostly, sometimes several, sometimes all.
fn some_nodes(rng: &mut Rng, nodes: u32) -> Vec<NodeId> {
    let all = (1..=nodes).map(NodeId);
    match rng.u8(..8) {
        0 => all.collect(),
        1 => all.filter(|_| rng.bool()).collect(),
        _ => vec![NodeId(rng.u32(1..=nodes))],
    }
}

fn another(rng: &mut Rng, nodes: u32, node: NodeId) -> NodeId {
    let step = rng.u32(1..nodes);
    NodeId((node.0 - 1 + step) % nodes + 1)
}

/// A link, or all links of a node, one way or both.
fn any_cut(rng: &mut Rng, nodes: u32) -> FaultKind {
    let node = NodeId(rng.u32(1..=nodes));
    let only = another(rng, nodes, node);
    let alone = rng.bool();
    let peers = (1..=nodes).map(NodeId);
    FaultKind::Cut {
        node,
        peers: peers
            .filter(|&peer| peer != node && (alone || peer == only))
            .collect(),
        ways: [(true, true), (true, false), (false, true)][rng.usize(..3)],
        noticed: rng.bool(),
        lasts: Duration::from_millis(rng.u64(50..6_000)),
    }
}

//! A fault as the steps that make it and end it.

use std::fmt;
use std::time::Duration;

use super::kind::Kind;
use super::net::{Link, Spoilt};
use crate::disk_image::Cut;

/// One thing that is done to the cluster.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These processes are killed at once.
    Kill(Vec<usize>),
    /// A process is told to end.
    Stop(usize),
    /// A process is started, unless it runs. One that a fault has left broken is ended before.
    Start(usize),
    /// A process is stopped where it is.
    Pause(usize),
    /// It goes on.
    Continue(usize),
    /// The power of these nodes is cut at once, and comes back.
    CutPower(Vec<usize>, Cut),
    /// A disk is filled.
    Fill(usize),
    /// There is room again.
    Empty(usize),
    /// A file system becomes read-only.
    MakeReadOnly(usize),
    /// The next sync of a process fails.
    FailSync(usize),
    /// A process gets so many percent of a core; nothing: as much as there is.
    Starve(usize, Option<u32>),
    /// A process may open nothing more; or again.
    Descriptors(usize, bool),
    /// A wall clock is ahead by so many seconds.
    Clock(usize, i64),
    /// Links are spoilt.
    Spoil(Spoilt),
    /// They are mended.
    Mend,
}

/// A fault: what is done when, from the beginning of the run.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Its kind.
    pub(crate) kind: Kind,
    /// In words.
    pub(crate) what: String,
    /// In order of time.
    pub(crate) steps: Vec<(Duration, Step)>,
}

impl Fault {
    /// When it begins.
    pub(crate) fn begins(&self) -> Duration {
        self.steps.first().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// When it ends.
    pub(crate) fn ends(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |(at, _)| *at)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, until) = (self.begins().as_secs_f64(), self.ends().as_secs_f64());
        write!(f, "{at:.1} s to {until:.1} s: {}", self.what)
    }
}

/// What a fault is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    /// When it begins.
    pub(crate) at: Duration,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Whom it hits.
    pub(crate) node: usize,
    /// And between it and whom.
    pub(crate) peer: usize,
    /// How much: packets of a thousand, percent of a core, seconds of a clock, milliseconds of a
    /// delay, bytes, a count.
    pub(crate) amount: i64,
}

/// How many nodes and groups of clients there are; clients have the numbers behind the nodes'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Nodes.
    pub(crate) nodes: usize,
    /// Groups of clients.
    pub(crate) clients: usize,
}

/// How long a process that was told to end is given before it is started again.
const ENDS_WITHIN: Duration = Duration::from_millis(1_500);

/// How long a killed process in a storm lives.
const STORM_MS: std::ops::Range<u64> = 50..500;

/// How long a flapping link is up, and how long down.
const FLAP_MS: std::ops::Range<u64> = 50..2_000;

impl Given {
    /// The fault.
    pub(crate) fn make(&self, kind: Kind, shape: Shape, random: &mut fastrand::Rng) -> Fault {
        let what = format!("{} {}", kind.name(), self.describe(kind));
        let steps = self.steps(kind, shape, random);
        Fault { kind, what, steps }
    }

    fn describe(&self, kind: Kind) -> String {
        let (node, peer, amount) = (self.node, self.peer, self.amount);
        match kind {
            Kind::KillAll | Kind::RollingRestart | Kind::PowerCutAll => "of all nodes".to_owned(),
            Kind::Cut => format!("between nodes {node} and {peer}"),
            Kind::OneWay => format!("from node {node} to node {peer}"),
            Kind::RestartStorm => format!("of node {node}, {amount} times"),
            Kind::Clock => format!("of node {node} by {amount} s"),
            Kind::Starve => format!("node {node}: {amount} percent of a core"),
            Kind::Loss | Kind::Duplication | Kind::Reordering | Kind::Corruption => {
                format!("round node {node}: {amount} in a thousand")
            }
            Kind::Slow => format!("round node {node}: {amount} ms"),
            Kind::SmallPackets => format!("round node {node}: {amount} bytes"),
            Kind::Narrow => format!("round node {node}: {amount} bytes a second"),
            _ => format!("of node {node}"),
        }
    }

    fn steps(&self, kind: Kind, shape: Shape, random: &mut fastrand::Rng) -> Vec<(Duration, Step)> {
        let (node, at, end) = (self.node, self.at, self.at + self.lasts);
        let all: Vec<usize> = (0..shape.nodes).collect();
        let start_all = |at| all.iter().map(move |node| (at, Step::Start(*node)));
        let cut = *random
            .choice(&[Cut::Everything, Cut::KeepJournal])
            .expect("there are two");
        let one = |first, last| vec![(at, first), (end, last)];
        match kind {
            Kind::Kill => one(Step::Kill(vec![node]), Step::Start(node)),
            Kind::KillAll => [(at, Step::Kill(all.clone()))]
                .into_iter()
                .chain(start_all(end))
                .collect(),
            Kind::Stop => one(Step::Stop(node), Step::Start(node)),
            Kind::RollingRestart => self.roll(shape.nodes),
            Kind::RestartStorm => self.storm(random),
            Kind::Pause => one(Step::Pause(node), Step::Continue(node)),
            Kind::Starve => {
                let percent = Some(self.amount_u32());
                one(Step::Starve(node, percent), Step::Starve(node, None))
            }
            Kind::Descriptors => one(
                Step::Descriptors(node, false),
                Step::Descriptors(node, true),
            ),
            Kind::Clock => one(Step::Clock(node, self.amount), Step::Clock(node, 0)),
            Kind::PowerCut => one(Step::CutPower(vec![node], cut), Step::Start(node)),
            Kind::PowerCutAll => [(at, Step::CutPower(all.clone(), cut))]
                .into_iter()
                .chain(start_all(end))
                .collect(),
            Kind::FullDisk => one(Step::Fill(node), Step::Empty(node)),
            Kind::ReadOnly => one(Step::MakeReadOnly(node), Step::Start(node)),
            Kind::FailedSync => one(Step::FailSync(node), Step::Start(node)),
            Kind::Flap => self.flap(shape, random),
            _ => {
                let spoilt = self.spoilt(kind, shape);
                one(Step::Spoil(spoilt), Step::Mend)
            }
        }
    }

    /// One node after the other, each as long after the one before as the fault lasts.
    fn roll(&self, nodes: usize) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        let mut at = self.at;
        for node in 0..nodes {
            steps.push((at, Step::Stop(node)));
            steps.push((at + ENDS_WITHIN, Step::Start(node)));
            at += self.lasts;
        }
        steps
    }

    fn storm(&self, random: &mut fastrand::Rng) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        let mut at = self.at;
        for _ in 0..self.amount {
            steps.push((at, Step::Kill(vec![self.node])));
            steps.push((at, Step::Start(self.node)));
            at += Duration::from_millis(random.u64(STORM_MS));
        }
        steps
    }

    fn flap(&self, shape: Shape, random: &mut fastrand::Rng) -> Vec<(Duration, Step)> {
        let spoilt = self.spoilt(Kind::Isolate, shape);
        let mut steps = Vec::new();
        let mut at = self.at;
        while at < self.at + self.lasts {
            steps.push((at, Step::Spoil(spoilt.clone())));
            at += Duration::from_millis(random.u64(FLAP_MS));
            steps.push((at, Step::Mend));
            at += Duration::from_millis(random.u64(FLAP_MS));
        }
        steps
    }

    fn spoilt(&self, kind: Kind, shape: Shape) -> Spoilt {
        let (node, peer) = (self.node, self.peer);
        let ends = shape.nodes + shape.clients;
        let others = (0..ends).filter(|end| *end != node);
        let links = match kind {
            Kind::Cut => vec![(node, peer), (peer, node)],
            Kind::OneWay => vec![(node, peer)],
            Kind::Deaf => others.map(|other| (other, node)).collect(),
            Kind::ClientsCut => (shape.nodes..ends)
                .flat_map(|client| [(client, node), (node, client)])
                .collect(),
            _ => others
                .flat_map(|other| [(other, node), (node, other)])
                .collect(),
        };
        let how = self.link(kind);
        Spoilt { links, how }
    }

    fn amount_u32(&self) -> u32 {
        u32::try_from(self.amount.max(1)).unwrap_or(u32::MAX)
    }

    fn link(&self, kind: Kind) -> Link {
        let amount = self.amount_u32();
        let share = f64::from(amount) / 1_000.0;
        let mut link = Link::default();
        match kind {
            Kind::Slow => {
                link.delay = Duration::from_millis(amount.into());
                link.jitter = link.delay;
            }
            Kind::Loss => link.loss = share,
            Kind::Duplication => link.duplication = share,
            Kind::Reordering => link.reordering = share,
            Kind::Corruption => link.corruption = share,
            Kind::SmallPackets => link.packet_bytes_max = usize::try_from(amount).ok(),
            Kind::Narrow => link.bytes_per_second = Some(amount),
            Kind::Hold => link.hold = true,
            _ => link.cut = true,
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        nodes: 3,
        clients: 2,
    };

    fn made(kind: Kind) -> Fault {
        let given = Given {
            at: Duration::from_secs(5),
            lasts: Duration::from_secs(3),
            node: 1,
            peer: 2,
            amount: 7,
        };
        given.make(kind, SHAPE, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn every_fault_begins_and_is_undone() {
        for kind in Kind::ALL {
            let fault = made(kind);
            assert_eq!(fault.begins(), Duration::from_secs(5), "{kind:?}");
            assert!(fault.steps.is_sorted_by_key(|(at, _)| *at), "{kind:?}");
            let undoes = matches!(
                fault.steps.last(),
                Some((
                    _,
                    Step::Start(_) | Step::Continue(_) | Step::Mend | Step::Empty(_)
                )) | Some((
                    _,
                    Step::Starve(_, None) | Step::Descriptors(_, true) | Step::Clock(_, 0)
                ))
            );
            assert!(undoes, "{fault:?}");
        }
    }

    #[test]
    fn one_way_spoils_one_way() {
        let spoilt = |kind| match made(kind).steps.remove(0).1 {
            Step::Spoil(spoilt) => spoilt.links,
            other => panic!("{other:?}"),
        };
        assert_eq!(spoilt(Kind::OneWay), [(1, 2)]);
        assert_eq!(spoilt(Kind::Cut), [(1, 2), (2, 1)]);
        assert_eq!(spoilt(Kind::Deaf), [(0, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(spoilt(Kind::ClientsCut), [(3, 1), (1, 3), (4, 1), (1, 4)]);
    }
}

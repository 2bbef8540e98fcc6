//! The links to peers, and what waits to go out over them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_consensus::{BeatRound, BeatRow, Lane, NodeId, Session, Term};
use highwater_log::Incarnation;

use super::config::ShardConfig;
use super::standing::{PartId, Standing};
use crate::ops::GroupId;
use crate::peer::{FrameBuilder, Route, Section};

/// How many rounds of beats to a peer may be unanswered before the oldest is forgotten.
const ROUNDS_MAX: usize = 64;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: Session,
    incarnation: Incarnation,
    /// When the next beats are due.
    beat_due: Duration,
    /// Which groups had which rows, by round.
    rounds: VecDeque<Round>,
    standing: Standing,
    lanes: BTreeMap<Lane, LaneOut>,
}

/// A round of beats that is not answered, or not by all.
#[derive(Debug)]
struct Round {
    number: BeatRound,
    groups: Vec<GroupId>,
    /// Their rows, if the peer is to keep them.
    kept: Vec<BeatRow>,
    /// The shards of the peer that have answered those.
    kept_by: BTreeSet<u16>,
}

/// What goes out by one lane.
#[derive(Debug, Default)]
struct LaneOut {
    builder: FrameBuilder,
    full: Vec<Vec<highwater_record::Buffer>>,
}

/// All links that are up.
#[derive(Debug)]
pub(super) struct Links {
    me: Route,
    shard: u16,
    heartbeat_interval: Duration,
    next_round: BeatRound,
    by_node: BTreeMap<NodeId, Link>,
}

/// A frame ready to go.
pub(super) struct FrameOut {
    pub(super) to: NodeId,
    pub(super) session: Session,
    pub(super) lane: Lane,
    pub(super) chunks: Vec<highwater_record::Buffer>,
}

impl Links {
    pub(super) fn new(config: &ShardConfig) -> Links {
        Links {
            me: Route {
                cluster: config.cluster,
                from: config.node,
                from_incarnation: config.incarnation,
                to: config.node,
                to_incarnation: config.incarnation,
                session: Session(0),
            },
            shard: config.shard.0,
            heartbeat_interval: config.timing.heartbeat_interval,
            next_round: BeatRound::default(),
            by_node: BTreeMap::new(),
        }
    }

    /// A link is up. Beats to different peers are sent at different times of the interval.
    pub(super) fn up(
        &mut self,
        now: Duration,
        node: NodeId,
        session: Session,
        incarnation: Incarnation,
    ) {
        let slice = self.heartbeat_interval / 8 * (node.0 % 8);
        let link = Link {
            session,
            incarnation,
            beat_due: now + slice,
            rounds: VecDeque::new(),
            standing: Standing::default(),
            lanes: BTreeMap::new(),
        };
        self.by_node.insert(node, link);
    }

    /// A link is down, if it was the one that is up.
    pub(super) fn down(&mut self, node: NodeId, session: Session) {
        if self.session(node) == Some(session) {
            self.by_node.remove(&node);
        }
    }

    pub(super) fn session(&self, node: NodeId) -> Option<Session> {
        self.by_node.get(&node).map(|link| link.session)
    }

    /// All peers that are linked, in order.
    pub(super) fn peers(&self) -> Vec<(NodeId, Session)> {
        let links = self.by_node.iter();
        links.map(|(&node, link)| (node, link.session)).collect()
    }

    /// What a frame of `node` must say of its ends.
    pub(super) fn route_from(&self, node: NodeId) -> Option<Route> {
        let link = self.by_node.get(&node)?;
        Some(Route {
            from: node,
            from_incarnation: link.incarnation,
            session: link.session,
            ..self.me
        })
    }

    /// Adds a section to the frame for `to`, if its session is still up.
    pub(super) fn push(&mut self, to: NodeId, session: Session, lane: Lane, section: &Section) {
        let Some(link) = self.by_node.get_mut(&to) else {
            return;
        };
        if link.session != session {
            return;
        }
        let route = Route {
            to,
            to_incarnation: link.incarnation,
            session,
            ..self.me
        };
        let out = link.lanes.entry(lane).or_default();
        if out.builder.is_full() {
            out.full.push(out.builder.finish(&route, self.shard));
        }
        out.builder.push(section);
    }

    /// Finishes all frames.
    pub(super) fn finish(&mut self) -> Vec<FrameOut> {
        let mut frames = Vec::new();
        for (&to, link) in &mut self.by_node {
            if link.lanes.is_empty() {
                continue;
            }
            let route = Route {
                to,
                to_incarnation: link.incarnation,
                session: link.session,
                ..self.me
            };
            for (lane, mut out) in std::mem::take(&mut link.lanes) {
                if !out.builder.is_empty() {
                    out.full.push(out.builder.finish(&route, self.shard));
                }
                frames.extend(out.full.into_iter().map(|chunks| FrameOut {
                    to,
                    session: link.session,
                    lane,
                    chunks,
                }));
            }
        }
        frames
    }

    /// The first peer whose beats are due; they are due again an interval later.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<NodeId> {
        let interval = self.heartbeat_interval;
        let mut links = self.by_node.iter_mut();
        let (&node, link) = links.find(|(_, link)| link.beat_due <= now)?;
        link.beat_due = now + interval;
        Some(node)
    }

    /// When the next beats are due.
    pub(super) fn next_beat(&self) -> Option<Duration> {
        self.by_node.values().map(|link| link.beat_due).min()
    }

    pub(super) fn new_round(&mut self) -> BeatRound {
        self.next_round = BeatRound(self.next_round.0 + 1);
        self.next_round
    }

    /// What stands at a peer that is linked.
    pub(super) fn standing(&mut self, node: NodeId) -> Option<&mut Standing> {
        self.by_node.get_mut(&node).map(|link| &mut link.standing)
    }

    /// Whether the group's row of this term stands at a peer.
    pub(super) fn stands_at(&self, node: NodeId, group: GroupId, term: Term) -> bool {
        let link = self.by_node.get(&node);
        link.is_some_and(|link| link.standing.stands(group, term))
    }

    /// The group's row may have changed, for all peers.
    pub(super) fn watch(&mut self, group: GroupId) {
        for link in self.by_node.values_mut() {
            link.standing.watch(group);
        }
    }

    /// The rows of `round`, in their order, and whether the peer is to keep them.
    pub(super) fn note_round(
        &mut self,
        to: NodeId,
        round: BeatRound,
        rows: &[(GroupId, BeatRow)],
        is_kept: bool,
    ) {
        let Some(link) = self.by_node.get_mut(&to) else {
            return;
        };
        if link.rounds.len() == ROUNDS_MAX {
            link.rounds.pop_front();
        }
        let kept = rows.iter().filter(|_| is_kept);
        link.rounds.push_back(Round {
            number: round,
            groups: rows.iter().map(|(group, _)| *group).collect(),
            kept: kept.map(|(_, row)| *row).collect(),
            kept_by: BTreeSet::new(),
        });
    }

    /// The rows that a shard of `node` was to keep and has confirmed, with their places; once, and
    /// only of a round whose rows were to be kept.
    pub(super) fn take_kept_rows(
        &mut self,
        node: NodeId,
        part: PartId,
        confirmed: &[(u32, GroupId)],
    ) -> Option<Vec<(u32, GroupId, BeatRow)>> {
        let link = self.by_node.get_mut(&node)?;
        let mut rounds = link.rounds.iter_mut();
        let round = rounds.find(|round| round.number == part.round)?;
        if round.kept.is_empty() || confirmed.is_empty() || !round.kept_by.insert(part.shard) {
            return None;
        }
        let rows = confirmed.iter().filter_map(|&(place, group)| {
            let at = usize::try_from(place).ok()?;
            Some((place, group, *round.kept.get(at)?))
        });
        Some(rows.collect())
    }

    /// The groups whose rows are in `round`, if it is still remembered.
    pub(super) fn round(&self, node: NodeId, round: BeatRound) -> Option<&[GroupId]> {
        let link = self.by_node.get(&node)?;
        let mut rounds = link.rounds.iter();
        rounds
            .find(|known| known.number == round)
            .map(|round| round.groups.as_slice())
    }
}

//! What may happen next, and how far a search goes.

use std::fmt;
use std::rc::Rc;

use super::node::{Node, Rot};
use super::world::{NODES, World};
use crate::{Lane, NodeId, Raft, RoleKind};

/// How far a search goes, and how often each fault may occur in one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    /// Nobody campaigns in a later term.
    pub(super) terms: u32,
    /// Entries that clients propose.
    pub(super) proposals: u8,
    pub(super) crashes: u8,
    /// Messages lost in the middle of a lane.
    pub(super) losses: u8,
    /// Sessions that end and begin anew between two running nodes.
    pub(super) relinks: u8,
    /// Beats of a leader to all.
    pub(super) beats: u8,
    pub(super) transfers: u8,
    pub(super) reads: u8,
    /// Stopped nodes whose disk loses an entry, or all from one on.
    pub(super) rots: u8,
    /// Messages on their way: a state with more is not gone on from.
    pub(super) packets: u8,
    /// Pre-votes are messages like others.
    pub(super) has_pre_votes: bool,
    /// Each entry travels alone.
    pub(super) has_small_appends: bool,
    /// Answers of a term that their addressee has left are delivered like others.
    pub(super) has_void_answers: bool,
}

/// A queue of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) lane: Lane,
}

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Deliver(Way),
    Lose(Way),
    Persist(NodeId),
    /// A crash and a new start. Of what is not known to be durable this much is: parts of log
    /// writes, and hard states. And perhaps something that was durable has become unreadable.
    Crash(NodeId, usize, usize, Option<Rot>),
    /// The timer goes off, and if there are no pre-votes the node campaigns.
    TimeOut(NodeId),
    Propose(NodeId),
    Beat(NodeId),
    Relink(NodeId, NodeId),
    Transfer(NodeId, NodeId),
    Read(NodeId),
    /// A hole is filled by a copy of a peer's.
    Repair(NodeId),
}

/// What may happen next.
impl World {
    pub(super) fn actions(&self, bounds: &Bounds) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut before = None;
        for (way, _) in &self.packets {
            if before != Some(way) {
                actions.push(Action::Deliver(*way));
            } else if self.spent.losses < bounds.losses && before == Some(way) {
                // With nothing behind it a loss is a message that never comes.
                let lose = Action::Lose(*way);
                if actions.last() != Some(&lose) {
                    actions.push(lose);
                }
            }
            before = Some(way);
        }
        for node in NODES {
            self.actions_of(bounds, node, &mut actions);
        }
        self.actions_of_links(bounds, &mut actions);
        actions
    }

    fn actions_of(&self, bounds: &Bounds, node: NodeId, to: &mut Vec<Action>) {
        if !self.node(node).queue.is_empty() {
            to.push(Action::Persist(node));
        }
        if self.spent.crashes < bounds.crashes {
            self.crashes_of(bounds, node, to);
        }
        let raft = self.raft(node);
        let leads = raft.role() == RoleKind::Leader;
        if self.may_time_out(bounds, node, raft) {
            to.push(Action::TimeOut(node));
        }
        if leads && self.spent.proposals < bounds.proposals {
            to.push(Action::Propose(node));
        }
        if leads && self.spent.beats < bounds.beats {
            to.push(Action::Beat(node));
        }
        if leads && self.spent.reads < bounds.reads {
            to.push(Action::Read(node));
        }
        if leads && self.spent.transfers < bounds.transfers {
            let others = NODES.into_iter().filter(|&other| other != node);
            to.extend(others.map(|other| Action::Transfer(node, other)));
        }
        if self.repair_of(node).is_some() {
            to.push(Action::Repair(node));
        }
    }

    fn may_time_out(&self, bounds: &Bounds, node: NodeId, raft: &Raft) -> bool {
        let is_linked = NODES.iter().any(|&peer| raft.session_of(peer).is_some());
        let has_term = raft.term().get() < bounds.terms;
        match raft.role() {
            RoleKind::Leader if bounds.has_pre_votes => true,
            RoleKind::PreCandidate => false,
            _ => {
                // The first to campaign is n1: a start with equal nodes looks alike to all.
                let is_first = self.rounds == 0 && self.is_untouched();
                raft.may_campaign() && has_term && is_linked && (!is_first || node == NODES[0])
            }
        }
    }

    /// Whether nothing has happened yet, and the nodes are alike.
    fn is_untouched(&self) -> bool {
        let is_alike = self.disks().iter().all(|disk| *disk == self.disks()[0]);
        let is_idle = |node: &Rc<Node>| node.queue.is_empty();
        is_alike
            && self.disks()[0].vote.is_none()
            && self.spent == Bounds::default()
            && self.packets.is_empty()
            && self.nodes.iter().all(is_idle)
            && NODES.iter().all(|&node| is_new(self.raft(node)))
    }

    fn crashes_of(&self, bounds: &Bounds, node: NodeId, to: &mut Vec<Action>) {
        let of = self.node(node);
        let (logs, hard_states) = of.parts();
        for logs in 0..=logs {
            for hard_states in of.hard_states_before(logs)..=hard_states {
                to.push(Action::Crash(node, logs, hard_states, None));
            }
        }
        let is_any_ill = self.nodes.iter().any(|node| node.is_ill());
        if self.spent.rots == bounds.rots || is_any_ill {
            return;
        }
        // Nothing that was on its way survives: those crashes are explored without rot.
        let len = of.durable.log.len();
        let rots = (0..len)
            .map(Rot::ToEnd)
            .chain((1..len).map(|last| Rot::Entry(last - 1)));
        to.extend(rots.map(|rot| Action::Crash(node, 0, 0, Some(rot))));
    }

    fn actions_of_links(&self, bounds: &Bounds, to: &mut Vec<Action>) {
        if self.spent.relinks == bounds.relinks {
            return;
        }
        for (a, b) in [
            (NODES[0], NODES[1]),
            (NODES[0], NODES[2]),
            (NODES[1], NODES[2]),
        ] {
            to.push(Action::Relink(a, b));
        }
    }

    /// The hole of a running node, if a peer that runs has the entry.
    fn repair_of(&self, node: NodeId) -> Option<usize> {
        let of = self.node(node);
        let hole = of.memory.hole?;
        let entry = of.memory.log[hole];
        let has = |peer: &&Rc<Node>| peer.durable.reads(hole) == Some(entry) && of.queue.is_empty();
        self.nodes.iter().find(has).map(|_| hole)
    }
}

fn is_new(raft: &Raft) -> bool {
    raft.role() == RoleKind::Follower && raft.leader().is_none() && raft.commit_index().0 == 0
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ({:?})", self.from, self.to, self.lane)
    }
}

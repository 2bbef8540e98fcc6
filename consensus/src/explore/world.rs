//! A state of three nodes, their disks and the network, and what an action makes of it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use super::actions::{Action, Bounds, Way};
use super::node::{Image, Node, Rot};
use super::oracle::Oracle;
use crate::{
    BeatException, BeatRound, BeatRow, EntryKind, Lane, Message, NodeId, ProposedEntry, Raft,
    RoleKind, Session,
};

/// By how much a node's clock moves between two calls: more than any election timeout.
const STEP: Duration = Duration::from_secs(2);

/// Something on its way.
#[derive(Clone, Debug, Hash)]
pub(super) enum Content {
    Message(Message),
    Beat(BeatRound, BeatRow),
    BeatAck(BeatRound, Option<BeatException>),
}

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) nodes: [Rc<Node>; 3],
    /// In order of their ways; in a way, in the order in which they were sent.
    pub(super) packets: Vec<(Way, Rc<Content>)>,
    /// Of the pairs 1-2, 1-3, 2-3.
    pub(super) sessions: [u64; 3],
    pub(super) oracle: Oracle,
    pub(super) spent: Bounds,
    pub(super) rounds: u64,
    /// Rare things that have just happened.
    pub(super) reached: Vec<&'static str>,
}

/// All nodes.
pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

pub(super) fn at(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn pair(a: NodeId, b: NodeId) -> usize {
    at(a) + at(b) - 1
}

impl World {
    /// Nodes with these logs, all durable, all in `term`, linked to one another. The first
    /// `committed` entries of the first log are committed.
    pub(super) fn new(term: u32, logs: [&[u32]; 3], committed: usize) -> World {
        let node = |log: &[u32]| {
            let durable = Image {
                term,
                log: log.to_vec(),
                ..Image::default()
            };
            Rc::new(Node {
                raft: None,
                clock: Duration::ZERO,
                memory: durable.clone(),
                durable,
                queue: VecDeque::new(),
                essence: 0,
            })
        };
        let mut world = World {
            nodes: logs.map(node),
            packets: Vec::new(),
            sessions: [0; 3],
            oracle: Oracle::with_committed(&logs[0][..committed]),
            spent: Bounds::default(),
            rounds: 0,
            reached: Vec::new(),
        };
        for node in NODES {
            world.restart(&Bounds::default(), node);
        }
        world.nodes.iter_mut().for_each(|node| {
            Rc::get_mut(node).expect("nobody else has it").sum_up();
        });
        world
    }

    /// A hash of all that decides what may follow.
    pub(super) fn essence(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for node in &self.nodes {
            node.essence.hash(&mut hasher);
        }
        (&self.packets, &self.sessions, self.rounds).hash(&mut hasher);
        (&self.oracle, &self.spent).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[at(node)]
    }

    pub(super) fn raft(&self, node: NodeId) -> &Raft {
        self.node(node).raft.as_ref().expect("it runs")
    }

    pub(super) fn raft_mut(&mut self, node: NodeId) -> &mut Raft {
        self.node_mut(node).raft.as_mut().expect("it runs")
    }

    pub(super) fn node_mut(&mut self, node: NodeId) -> &mut Node {
        Rc::make_mut(&mut self.nodes[at(node)])
    }

    pub(super) fn disks(&self) -> [&Image; 3] {
        [0, 1, 2].map(|at| &self.nodes[at].durable)
    }
}

/// Letting it happen.
impl World {
    /// # Panics
    /// If a rule is broken.
    pub(super) fn apply(&mut self, bounds: &Bounds, action: Action) {
        self.reached.clear();
        match action {
            Action::Deliver(way) => self.deliver(bounds, way),
            Action::Lose(way) => {
                self.spent.losses += 1;
                self.take(way);
            }
            Action::Persist(node) => self.persist(bounds, node),
            Action::Crash(node, logs, hard_states, rot) => {
                self.crash(node, logs, hard_states, rot);
                self.restart(bounds, node);
            }
            Action::TimeOut(node) => self.time_out(bounds, node),
            Action::Propose(node) => {
                self.spent.proposals += 1;
                let entry = ProposedEntry {
                    kind: EntryKind::Data,
                    size: 0,
                };
                // Refused while leadership is handed over.
                let _ = self.call(bounds, node, |raft, _| raft.propose(&[entry]));
            }
            Action::Beat(node) => {
                self.spent.beats += 1;
                self.beat(bounds, node);
            }
            Action::Relink(a, b) => {
                self.spent.relinks += 1;
                self.link(bounds, a, b);
            }
            Action::Transfer(node, to) => {
                self.spent.transfers += 1;
                let _ = self.call(bounds, node, |raft, now| raft.transfer_leadership(now, to));
            }
            Action::Read(node) => self.read(bounds, node),
            Action::Repair(node) => self.repair(bounds, node),
        }
        self.nodes.iter_mut().for_each(|node| {
            if let Some(node) = Rc::get_mut(node) {
                node.sum_up();
            }
        });
        let nodes = [0, 1, 2].map(|at| &*self.nodes[at]);
        self.oracle.check(nodes);
        if !bounds.has_void_answers {
            self.forget_void_answers();
        }
    }

    /// Drops answers of a term that their addressee has left: terms never fall in a life, so
    /// whenever they came they would change nothing.
    fn forget_void_answers(&mut self) {
        let nodes = &self.nodes;
        let term = |node: NodeId| nodes[at(node)].raft.as_ref().map(Raft::term);
        self.packets.retain(|(way, content)| match &**content {
            Content::Message(
                answer @ (Message::VoteReply { .. } | Message::AppendReply { .. }),
            ) => Some(answer.term()) >= term(way.to),
            _ => true,
        });
    }

    /// Whether more is on its way than the search goes on from.
    pub(super) fn is_crowded(&self, bounds: &Bounds) -> bool {
        self.packets.len() > usize::from(bounds.packets)
    }

    fn call<T>(
        &mut self,
        bounds: &Bounds,
        node: NodeId,
        call: impl FnOnce(&mut Raft, Duration) -> T,
    ) -> T {
        let of = self.node_mut(node);
        of.clock += STEP;
        let now = of.clock;
        let result = call(of.raft.as_mut().expect("it runs"), now);
        self.take_outputs(bounds, node);
        result
    }

    fn take(&mut self, way: Way) -> Option<Rc<Content>> {
        let found = self.packets.iter().position(|(of, _)| *of == way)?;
        Some(self.packets.remove(found).1)
    }

    pub(super) fn post(&mut self, way: Way, content: Content) {
        let end = self.packets.partition_point(|(of, _)| *of <= way);
        self.packets.insert(end, (way, Rc::new(content)));
    }

    fn deliver(&mut self, bounds: &Bounds, way: Way) {
        let content = self.take(way).expect("it is on its way");
        let session = Session(self.sessions[pair(way.from, way.to)]);
        let Way { from, to, .. } = way;
        match (*content).clone() {
            Content::Message(message) => {
                let handle =
                    |raft: &mut Raft, now| raft.handle_message(now, from, session, message);
                let handled = self.call(bounds, to, handle);
                assert_eq!(handled, Ok(()), "honest nodes, and yet");
            }
            Content::Beat(round, row) => {
                let handle = |raft: &mut Raft, now| raft.handle_beat(now, from, session, row);
                let exception = self.call(bounds, to, handle);
                let back = Way {
                    from: to,
                    to: from,
                    ..way
                };
                self.post(back, Content::BeatAck(round, exception));
            }
            Content::BeatAck(round, exception) => {
                self.call(bounds, to, |raft, now| {
                    raft.handle_beat_ack(now, from, session, round, exception);
                });
            }
        }
    }

    fn persist(&mut self, bounds: &Bounds, node: NodeId) {
        let of = self.node_mut(node);
        let (write, op) = of.queue.pop_front().expect("something is on its way");
        of.durable.apply(&op);
        if let Some(write) = write {
            self.call(bounds, node, |raft, now| raft.handle_persisted(now, write));
        }
    }

    fn crash(&mut self, node: NodeId, logs: usize, hard_states: usize, rot: Option<Rot>) {
        self.spent.crashes += 1;
        self.packets.retain(|(way, _)| way.to != node);
        self.oracle.crashed(node);
        let of = self.node_mut(node);
        of.crash(logs, hard_states);
        if let Some(rot) = rot {
            of.rot(rot);
            self.spent.rots += 1;
        }
    }

    fn restart(&mut self, bounds: &Bounds, node: NodeId) {
        self.node_mut(node).restart(node);
        self.take_outputs(bounds, node);
        for peer in NODES {
            if peer != node && self.node(peer).raft.is_some() {
                self.link(bounds, node, peer);
            }
        }
    }

    fn link(&mut self, bounds: &Bounds, a: NodeId, b: NodeId) {
        let is_between = |way: &Way| [way.from, way.to] == [a, b] || [way.from, way.to] == [b, a];
        self.packets.retain(|(way, _)| !is_between(way));
        self.sessions[pair(a, b)] += 1;
        let session = Session(self.sessions[pair(a, b)]);
        self.call(bounds, a, |raft, now| raft.handle_peer_up(now, b, session));
        self.call(bounds, b, |raft, now| raft.handle_peer_up(now, a, session));
    }

    fn time_out(&mut self, bounds: &Bounds, node: NodeId) {
        let led = self.raft(node).role() == RoleKind::Leader;
        self.call(bounds, node, |raft, now| raft.handle_timeout(now));
        if bounds.has_pre_votes {
            return;
        }
        if led {
            assert_eq!(
                self.raft(node).role(),
                RoleKind::Follower,
                "it hears nobody"
            );
            self.call(bounds, node, |raft, now| raft.campaign(now));
        }
        let raft = self.raft(node);
        let term = raft.term().next().expect("small");
        let linked = |peer: &NodeId| Some((*peer, raft.session_of(*peer)?));
        let (peer, session) = NODES.iter().find_map(linked).expect("it is linked");
        let granted = Message::PreVoteReply {
            term,
            granted: true,
        };
        let handle = |raft: &mut Raft, now| raft.handle_message(now, peer, session, granted);
        let handled = self.call(bounds, node, handle);
        assert_eq!(handled, Ok(()));
    }

    pub(super) fn beat(&mut self, bounds: &Bounds, node: NodeId) {
        self.rounds += 1;
        let round = BeatRound(self.rounds);
        for to in NODES {
            let row = self.call(bounds, node, |raft, _| raft.beat_row(to, round));
            let way = Way {
                from: node,
                to,
                lane: Lane::Control,
            };
            if let Some(row) = row {
                self.post(way, Content::Beat(round, row));
            }
        }
    }

    fn read(&mut self, bounds: &Bounds, node: NodeId) {
        self.spent.reads += 1;
        let read = self.raft_mut(node).read_index().expect("it leads");
        self.oracle.read_begins(node, read);
        self.take_outputs(bounds, node);
    }

    fn repair(&mut self, bounds: &Bounds, node: NodeId) {
        let of = self.node_mut(node);
        of.memory.hole = None;
        of.durable.hole = None;
        self.call(bounds, node, |raft, _| raft.handle_repaired());
    }
}

/// In words.
impl World {
    /// An action, and what it is about.
    pub(super) fn describe(&self, action: Action) -> String {
        let content = |way: Way| {
            let of = self.packets.iter().find(|(of, _)| *of == way);
            of.map_or(String::new(), |(_, content)| format!("{content:?}"))
        };
        match action {
            Action::Deliver(way) => format!("deliver {way}: {}", content(way)),
            Action::Lose(way) => format!("lose {way}: {}", content(way)),
            Action::Persist(node) => format!("persist {node}: {:?}", self.node(node).queue[0].1),
            other => format!("{other:?}"),
        }
    }

    /// The nodes, a line each.
    pub(super) fn show(&self) -> String {
        let line = |node: NodeId| {
            let of = self.node(node);
            let (disk, log) = (&of.durable, &of.memory.log);
            let raft = self.raft(node);
            let (role, term, commit) = (raft.role(), raft.term(), raft.commit_index());
            let state = format!("{role:?} {term}, commit {commit}, log {log:?}");
            let vote = disk
                .vote
                .map_or("nobody".to_owned(), |vote| vote.to_string());
            let kept = format!("t{}, vote {vote}, log {:?}", disk.term, disk.log);
            format!("        {node} {state}; on disk {kept}\n")
        };
        NODES.map(line).concat()
    }
}

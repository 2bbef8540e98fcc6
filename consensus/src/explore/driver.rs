//! What drives a node: it obeys outputs, and holds every promise against the disk.

use super::actions::{Bounds, Way};
use super::node::Op;
use super::world::{Content, NODES, World, at};
use crate::{AppendOutcome, Lane, LogIndex, Message, NodeId, Output, RoleKind, Term, WriteId};

/// The driver.
impl World {
    pub(super) fn take_outputs(&mut self, bounds: &Bounds, node: NodeId) {
        while let Some(output) = self.raft_mut(node).poll_output() {
            self.obey(bounds, node, output);
        }
    }

    fn obey(&mut self, bounds: &Bounds, node: NodeId, output: Output) {
        match output {
            Output::HardState { write, term, vote } => {
                self.write(node, write, Op::HardState(term, vote));
            }
            Output::Append { write, entries } => {
                let terms = entries.iter().map(|entry| entry.id.term.get()).collect();
                self.write(node, write, Op::Append(terms));
            }
            Output::Cut { write, first } => {
                let len = usize::try_from(first.0).expect("small") - 1;
                if self.node(node).durable.log.len() > len {
                    self.reached.push("a synced entry is cut");
                }
                self.write(node, write, Op::Cut(len));
            }
            Output::Base { .. } => panic!("a base, where no log has ever been shortened"),
            Output::Send {
                to, lane, message, ..
            } => self.send(bounds, node, to, lane, message),
            Output::Committed { index } => self.committed(node, index),
            Output::ReadReady { read, index } => {
                self.reached.push("a read point is confirmed");
                self.oracle.read_ends(node, read, Some(index));
            }
            Output::ReadFailed { read } => self.oracle.read_ends(node, read, None),
            Output::RoleChanged {
                term,
                role: RoleKind::Leader,
                ..
            } => self.leads(bounds, node, term),
            Output::CatchUp {
                to, session, next, ..
            } => {
                self.reached.push("catch-up");
                let mut chunk = self.node(node).memory.entries_from(next);
                chunk.truncate(if bounds.has_small_appends { 1 } else { 16 });
                self.raft_mut(node).handle_chunk(to, session, &chunk);
            }
            Output::BeatWanted => self.beat(bounds, node),
            Output::QuarantineEnded => {
                self.reached.push("a quarantine ends");
                self.node_mut(node).memory.apply(&Op::Rejoined);
                self.node_mut(node).queue.push_back((None, Op::Rejoined));
            }
            Output::RoleChanged { .. } | Output::TransferEnded { .. } => {}
        }
    }

    fn write(&mut self, node: NodeId, write: WriteId, op: Op) {
        let of = self.node_mut(node);
        of.memory.apply(&op);
        of.queue.push_back((Some(write), op));
    }

    fn send(&mut self, bounds: &Bounds, from: NodeId, to: NodeId, lane: Lane, message: Message) {
        if matches!(message, Message::PreVote { .. }) && !bounds.has_pre_votes {
            return;
        }
        self.check_promise(from, to, &message);
        let has_entries =
            matches!(&message, Message::Append { entries, .. } if !entries.is_empty());
        self.post(Way { from, to, lane }, Content::Message(message));
        if has_entries && bounds.has_small_appends {
            self.raft_mut(from).set_allowance(to, 1);
        }
    }

    /// What leaves a node is covered by its disk.
    fn check_promise(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let node = &self.nodes[at(from)];
        match *message {
            Message::Vote { term, .. } => {
                self.oracle.votes(from, term.get(), from, &node.durable);
            }
            Message::VoteReply {
                term,
                granted: true,
            } => {
                if self.spent.crashes > 0 {
                    self.reached.push("a vote after a crash");
                }
                self.oracle.votes(from, term.get(), to, &node.durable);
            }
            Message::AppendReply { outcome, .. } => {
                if let AppendOutcome::Accepted { promised, .. } = outcome {
                    let len = usize::try_from(promised.0).expect("small");
                    let (memory, durable) =
                        (node.memory.log.get(..len), node.durable.log.get(..len));
                    assert!(durable.is_some(), "an acknowledgement before the sync");
                    assert_eq!(memory, durable, "it acknowledges what is being replaced");
                }
                if let AppendOutcome::Conflict { .. } = outcome {
                    self.reached.push("a conflict");
                }
            }
            _ => {}
        }
    }

    fn leads(&mut self, bounds: &Bounds, node: NodeId, term: Term) {
        self.reached.push("a leader");
        self.oracle
            .leads(node, term.get(), &self.nodes[at(node)].memory);
        if bounds.has_small_appends {
            let raft = self.raft_mut(node);
            NODES.iter().for_each(|&peer| raft.set_allowance(peer, 1));
        }
    }

    fn committed(&mut self, node: NodeId, index: LogIndex) {
        let before = self.oracle.committed();
        let log = &self.nodes[at(node)].memory;
        let disks = [0, 1, 2].map(|at| &self.nodes[at].durable);
        self.oracle.commits(node, index, log, disks);
        if self.oracle.committed() > before {
            self.reached.push("a commit");
        }
    }
}

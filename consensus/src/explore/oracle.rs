//! What must hold in every state, known by one who sees all nodes and their disks.

use std::collections::BTreeMap;

use super::node::{Image, Node};
use crate::types::{LogIndex, NodeId, ReadId};

/// What has been said and done and must not be contradicted.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Oracle {
    leaders: BTreeMap<u32, NodeId>,
    /// Votes that have left a node: (term, voter), candidate.
    votes: BTreeMap<(u32, NodeId), NodeId>,
    /// Terms of the entries that were announced as committed, from index 1 on.
    committed: Vec<u32>,
    /// And the terms of the leaders that announced them.
    committed_in: Vec<u32>,
    /// How much was committed when a read was asked for.
    reads: BTreeMap<(NodeId, ReadId), usize>,
}

impl Oracle {
    pub(super) fn with_committed(committed: &[u32]) -> Oracle {
        Oracle {
            committed: committed.to_vec(),
            committed_in: committed.to_vec(),
            ..Oracle::default()
        }
    }

    /// Election Safety, and Leader Completeness for what earlier leaders have committed (paper,
    /// figure 3).
    pub(super) fn leads(&mut self, node: NodeId, term: u32, log: &Image) {
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "two leaders of t{term}");
        let earlier = self.committed_in.partition_point(|&of| of < term);
        let has = log.log.get(..earlier);
        let committed = &self.committed[..earlier];
        assert_eq!(
            has,
            Some(committed),
            "{node} leads without what is committed"
        );
    }

    /// A vote leaves the node: the only one in its term, and durable.
    pub(super) fn votes(&mut self, voter: NodeId, term: u32, candidate: NodeId, durable: &Image) {
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        assert_eq!(first, candidate, "{voter} votes twice in t{term}");
        let (kept, vote) = (durable.term, durable.vote);
        assert_eq!(
            (kept, vote),
            (term, Some(candidate)),
            "an undurable vote leaves"
        );
    }

    /// Everything up to `index` is announced: as ever before, and what is new is readable on a
    /// quorum's disks at this very moment.
    pub(super) fn commits(
        &mut self,
        node: NodeId,
        index: LogIndex,
        log: &Image,
        disks: [&Image; 3],
    ) {
        let index = usize::try_from(index.0).expect("small");
        let announced = log.log.get(..index).expect("it commits what it has");
        let known = index.min(self.committed.len());
        assert_eq!(
            announced[..known],
            self.committed[..known],
            "{node} commits otherwise"
        );
        for (at, &term) in announced.iter().enumerate().skip(known) {
            let has = |disk: &&Image| disk.reads(at) == Some(term);
            let copies = disks.iter().filter(|disk| has(disk)).count();
            assert!(copies >= 2, "{node} commits {}, not on a quorum", at + 1);
            self.committed.push(term);
            self.committed_in.push(log.term);
        }
    }

    pub(super) fn read_begins(&mut self, node: NodeId, read: ReadId) {
        self.reads.insert((node, read), self.committed.len());
    }

    /// A read point sees all that was committed when it was asked for.
    pub(super) fn read_ends(&mut self, node: NodeId, read: ReadId, at: Option<LogIndex>) {
        let least = self.reads.remove(&(node, read)).expect("asked for once");
        let least = LogIndex(least as u64);
        assert!(
            at.is_none_or(|at| at >= least),
            "{node} reads at {at:?}, committed was {least}"
        );
    }

    pub(super) fn crashed(&mut self, node: NodeId) {
        self.reads.retain(|&(at, _), _| at != node);
    }

    pub(super) fn committed(&self) -> usize {
        self.committed.len()
    }

    /// Log Matching on all pairs of logs, in memory and on disks; and what was acknowledged stays
    /// on a quorum of disks, save where one of them has lost it by itself.
    pub(super) fn check(&mut self, nodes: [&Node; 3]) {
        let logs = nodes.map(|node| [&node.memory, &node.durable]);
        let logs = logs.as_flattened();
        for (at, one) in logs.iter().enumerate() {
            for other in &logs[at + 1..] {
                log_matching(&one.log, &other.log);
            }
        }
        for (at, &term) in self.committed.iter().enumerate() {
            let has = |node: &&Node| node.is_ill() || node.durable.reads(at) == Some(term);
            let copies = nodes.iter().filter(|node| has(node)).count();
            assert!(copies >= 2, "entry {}, acknowledged, is lost", at + 1);
        }
        self.forget(nodes);
    }

    /// A term that every disk has left behind does not return, nor a vote in a term that the
    /// voter's disk has left behind: what is never asked again need not tell states apart.
    fn forget(&mut self, nodes: [&Node; 3]) {
        let durable = |node: NodeId| nodes[node.0 as usize - 1].durable.term;
        self.votes
            .retain(|&(term, voter), _| term >= durable(voter));
        let oldest = nodes.iter().map(|node| node.durable.term).min();
        self.leaders.retain(|&term, _| Some(term) >= oldest);
    }
}

fn log_matching(one: &[u32], other: &[u32]) {
    let mut pairs = one.iter().zip(other).rev();
    if pairs.any(|(one, other)| one == other) {
        assert!(
            pairs.all(|(one, other)| one == other),
            "logs differ below a common entry: {one:?} {other:?}"
        );
    }
}

//! What must hold across nodes (paper, figure 3), seen by one who sees everything.

use std::collections::BTreeMap;

use highwater_consensus::{EntryId, LogIndex, Membership, NodeId, ReadId, Term};

use crate::suite::image::{Disk, Image};

/// The history of a run so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// What was ever reported committed, from index 1 on.
    pub(crate) committed: Vec<(EntryId, u64)>,
    /// How far each node had to be when it asked for a read.
    reads: BTreeMap<(NodeId, ReadId), LogIndex>,
}

impl Oracle {
    pub(crate) fn commit_index(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// Election Safety, and Leader Completeness.
    pub(crate) fn leader_elected(&mut self, term: Term, node: NodeId, log: &Image) {
        let other = self.leaders.insert(term, node);
        assert!(
            other.is_none_or(|other| other == node),
            "two leaders of {term}"
        );
        for (id, body) in &self.committed {
            if id.index > log.before.index {
                let has = log.get(id.index).map(|e| (e.meta.id, e.body));
                assert_eq!(has, Some((*id, *body)), "{node} leads without {id}");
            }
        }
    }

    /// State Machine Safety; and what is newly committed must survive a power cut at this very
    /// moment on a quorum.
    pub(crate) fn reported_committed(
        &mut self,
        node: NodeId,
        index: LogIndex,
        log: &Image,
        membership: &Membership,
        disks: &BTreeMap<NodeId, Disk>,
    ) {
        for entry in &log.entries {
            let id = entry.meta.id;
            if id.index > index {
                break;
            }
            let at = usize::try_from(id.index.0 - 1).expect("small");
            match self.committed.get(at) {
                Some(&(known, body)) => {
                    assert_eq!((known, body), (id, entry.body), "{node} commits otherwise");
                }
                None => {
                    assert_eq!(at, self.committed.len(), "a gap in what is committed");
                    let synced = |voter: NodeId| disks[&voter].durable.has(id);
                    let is_safe = membership.has_quorum(synced);
                    assert!(is_safe, "{node} commits {id}, not on a quorum of disks");
                    self.committed.push((id, entry.body));
                }
            }
        }
    }

    pub(crate) fn read_begins(&mut self, node: NodeId, read: ReadId) {
        let reused = self.reads.insert((node, read), self.commit_index());
        assert!(reused.is_none(), "a read's number was used twice");
    }

    /// A read point sees all that was committed when it was asked for.
    pub(crate) fn read_answered(&mut self, node: NodeId, read: ReadId, index: LogIndex) {
        let least = self.reads.remove(&(node, read)).expect("asked for once");
        assert!(
            index >= least,
            "{node} reads at {index}, committed was {least}"
        );
    }

    pub(crate) fn read_failed(&mut self, node: NodeId, read: ReadId) {
        self.reads.remove(&(node, read)).expect("asked for once");
    }

    /// A crashed node forgets its reads.
    pub(crate) fn crashed(&mut self, node: NodeId) {
        self.reads.retain(|&(at, _), _| at != node);
    }

    /// Log Matching, on all pairs of logs.
    pub(crate) fn check_logs(&self, disks: &BTreeMap<NodeId, Disk>) {
        let images: Vec<&Image> = disks
            .values()
            .flat_map(|d| [&d.memory, &d.durable])
            .collect();
        for (at, one) in images.iter().enumerate() {
            for other in &images[at + 1..] {
                log_matching(one, other);
            }
        }
    }
}

fn log_matching(one: &Image, other: &Image) {
    let mut must_agree = false;
    for entry in one.entries.iter().rev() {
        let Some(theirs) = other.get(entry.meta.id.index) else {
            continue;
        };
        let same = theirs.meta.id == entry.meta.id;
        assert!(same || !must_agree, "logs differ below a common entry");
        assert!(!same || theirs.body == entry.body, "one entry, two bodies");
        must_agree |= same;
    }
}

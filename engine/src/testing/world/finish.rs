//! In the end the whole log of every replica is read, each by itself.

use std::collections::btree_map::Entry as MapEntry;
use std::time::Duration;

use highwater_record::Buffer;

use super::super::client::records_from;
use super::super::history::{Action, Invocation, Partition, ReadRecord};
use super::super::oracle::{Violation, demand};
use super::audit::AUDIT_BYTES;
use super::{Asker, World, front};
use crate::{
    CommittedEntry, CommittedKind, GroupId, LogIndex, NodeId, Op, OpError, OpResult, Outcome,
};

/// The process in histories that reads replicas.
const READER: u64 = 3;

/// How long reading all replicas may take.
const FINAL_READ_MAX: Duration = Duration::from_secs(60);

/// The reading of one replica.
#[derive(Debug)]
pub(super) struct FinalRead {
    partition: Partition,
    open: Invocation,
    next: LogIndex,
    start: i64,
    /// Behind the last record that was read.
    end: i64,
    records: Vec<ReadRecord>,
    /// Whether entries are read one by one, up to the one that the disk refuses.
    is_careful: bool,
    /// Whether the entry before the next one was refused.
    has_refused: bool,
    refused: Vec<(i64, i64)>,
    is_done: bool,
}

/// What the first replica that was read has in an entry.
pub(super) struct Read {
    kind: CommittedKind,
    body: Buffer,
    records: Vec<ReadRecord>,
}

impl Read {
    fn new(entry: &CommittedEntry) -> Result<Read, Violation> {
        let records = match entry.kind {
            CommittedKind::Data { .. } => records_from(&entry.body, i64::MIN)?,
            _ => Vec::new(),
        };
        Ok(Read {
            kind: entry.kind,
            body: entry.body.clone(),
            records,
        })
    }
}

impl FinalRead {
    /// The next entry is there. What another replica has in it is not taken apart again if it is
    /// the same, byte for byte.
    fn take(&mut self, entry: &CommittedEntry, first: &Read) -> Result<(), Violation> {
        self.next = entry.index.next();
        if let CommittedKind::Data {
            base_offset,
            offset_span,
        } = entry.kind
        {
            if std::mem::take(&mut self.has_refused) {
                self.refuse_up_to(base_offset.to_wire());
            }
            let start = self.start;
            let mut take = |records: &[ReadRecord]| {
                let records = records.iter().filter(|record| record.offset >= start);
                self.records.extend(records);
            };
            match first.kind == entry.kind && first.body[..] == entry.body[..] {
                true => take(&first.records),
                false => take(&Read::new(entry)?.records),
            }
            self.end = base_offset.advance(offset_span.into()).to_wire();
        }
        Ok(())
    }

    /// What was to be read next was deleted meanwhile, and all before it: the reading begins anew.
    fn begin_at(&mut self, first: LogIndex, start: i64) {
        self.next = first;
        self.start = start;
        self.end = start;
        self.records.clear();
        self.refused.clear();
        self.has_refused = false;
    }

    /// The next entry, or one of several, is refused: it is damaged, and not told wrongly.
    fn refuse(&mut self) {
        if self.is_careful {
            self.has_refused = true;
            self.next = self.next.next();
        }
        self.is_careful = !self.is_careful;
    }

    fn refuse_up_to(&mut self, end: i64) {
        if self.end < end {
            self.refused.push((self.end, end));
        }
    }
}

impl World {
    /// Reads all replicas.
    pub(super) fn read_replicas(&mut self) -> Result<(), Violation> {
        let mut placed = self.placed();
        let mut all = std::mem::take(&mut self.known);
        for (group, partition) in self.groups() {
            let nodes = placed.remove(&group).unwrap_or_default();
            all.insert(group, (partition, nodes));
        }
        for (group, (partition, nodes)) in all {
            for node in nodes {
                self.begin_final_read(node, group, &partition);
            }
        }
        let end = self.now + FINAL_READ_MAX;
        self.run_until(end, |world| world.finals.values().all(|it| it.is_done))?;
        let open = self.finals.iter().find(|(_, it)| !it.is_done);
        demand(open.is_none(), "L1 every replica can be read", || {
            format!("{open:?}")
        })
    }

    fn begin_final_read(&mut self, node: NodeId, group: GroupId, partition: &Partition) {
        let question = Action::final_read(partition, node.0);
        let open = self.history.invoke(READER, question);
        let status = self.nodes[&node].status(group);
        let start = status
            .as_ref()
            .map_or(0, |it| it.log_start_offset.to_wire());
        let read = FinalRead {
            partition: partition.clone(),
            open,
            next: LogIndex(1),
            start,
            end: start,
            records: Vec::new(),
            is_careful: false,
            has_refused: false,
            refused: Vec::new(),
            is_done: false,
        };
        self.finals.insert((node, group), read);
        match status {
            Some(_) => self.ask_final(node, group),
            // A node that does not start refuses everything.
            None => self.end_final_read(node, group),
        }
    }

    fn ask_final(&mut self, node: NodeId, group: GroupId) {
        let read = &self.finals[&(node, group)];
        let op = Op::ReadEntries {
            from: read.next,
            max_bytes: match read.is_careful {
                true => 1,
                false => AUDIT_BYTES * 4,
            },
        };
        self.ask(Asker::Final(node, group), front(node), group, op);
    }

    pub(super) fn read_finally(
        &mut self,
        node: NodeId,
        group: GroupId,
        result: OpResult,
    ) -> Result<(), Violation> {
        let may_refuse = self.damaged.contains(&node) || self.may_rot(node);
        let status = self.nodes[&node].status(group);
        let start = status.map(|it| it.log_start_offset.to_wire());
        let Some(read) = self.finals.get_mut(&(node, group)) else {
            return Ok(());
        };
        match result {
            Ok(Outcome::Entries { entries, .. }) => {
                for entry in entries {
                    demand(entry.index == read.next, "entries come in order", || {
                        format!("{node} {group}: {} for {}", entry.index, read.next)
                    })?;
                    let first = match self.read.entry((group, entry.index)) {
                        MapEntry::Occupied(known) => known.into_mut(),
                        MapEntry::Vacant(new) => new.insert(Read::new(&entry)?),
                    };
                    read.take(&entry, first)?;
                }
            }
            Err(OpError::BelowLogStart { first }) => {
                read.begin_at(first, start.unwrap_or(read.start));
            }
            Err(OpError::Storage(_)) if may_refuse => read.refuse(),
            Err(_) => {}
            Ok(other) => {
                return demand(false, "answers fit their questions", || {
                    format!("{other:?}")
                });
            }
        }
        let next = read.next;
        let status = self.nodes[&node].status(group);
        match status.is_some_and(|status| next <= status.commit_index) {
            true => self.ask_final(node, group),
            false => self.end_final_read(node, group),
        }
        Ok(())
    }

    fn end_final_read(&mut self, node: NodeId, group: GroupId) {
        let refuses_end = self.refuses_end(node, group);
        let Some(read) = self.finals.get_mut(&(node, group)) else {
            return;
        };
        read.is_done = true;
        if read.has_refused || refuses_end {
            read.refuse_up_to(i64::MAX);
        }
        let answer = Action::FinalRead {
            partition: read.partition.clone(),
            node: node.0,
            start: read.start,
            records: std::mem::take(&mut read.records),
            refused: std::mem::take(&mut read.refused),
        };
        self.history.ok(read.open, answer);
    }

    /// Whether a replica that may lack what others have committed says nothing of it: it does
    /// not lead, and where its log ends is no claim that nothing is behind it.
    fn refuses_end(&self, node: NodeId, group: GroupId) -> bool {
        let may_lack = self.may_stop() || self.damaged.contains(&node);
        let Some(status) = self.nodes[&node].status(group) else {
            return may_lack;
        };
        let is_behind = status.commit_index < self.oracle.commit_of(group);
        may_lack && is_behind && !status.is_leader
    }
}

//! In the end the whole log of every replica is read, each by itself.

use std::time::Duration;

use super::super::client::records_from;
use super::super::history::{Action, Invocation, Partition, ReadRecord};
use super::super::oracle::{Violation, demand};
use super::audit::AUDIT_BYTES;
use super::{Asker, World, front};
use crate::{CommittedKind, GroupId, LogIndex, NodeId, Op, OpError, OpResult, Outcome};

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
    records: Vec<ReadRecord>,
    is_done: bool,
}

impl World {
    /// Reads all replicas.
    pub(super) fn read_replicas(&mut self) -> Result<(), Violation> {
        let groups = self.groups();
        for (group, nodes) in self.placed() {
            let Some(partition) = groups.get(&group) else {
                continue;
            };
            for node in nodes {
                self.begin_final_read(node, group, partition);
            }
        }
        let end = self.now + FINAL_READ_MAX;
        self.run_until(end, |world| world.finals.values().all(|it| it.is_done))?;
        let open = self.finals.iter().find(|(_, it)| !it.is_done);
        demand(
            open.is_none() || self.may_stop(),
            "L1 every replica can be read",
            || format!("{open:?}"),
        )
    }

    fn begin_final_read(&mut self, node: NodeId, group: GroupId, partition: &Partition) {
        let Some(status) = self.nodes[&node].status(group) else {
            return;
        };
        let question = Action::final_read(partition, node.0);
        let read = FinalRead {
            partition: partition.clone(),
            open: self.history.invoke(READER, question),
            next: LogIndex(1),
            start: status.log_start_offset.to_wire(),
            records: Vec::new(),
            is_done: false,
        };
        self.finals.insert((node, group), read);
        self.ask_final(node, group, LogIndex(1));
    }

    fn ask_final(&mut self, node: NodeId, group: GroupId, from: LogIndex) {
        let op = Op::ReadEntries {
            from,
            max_bytes: AUDIT_BYTES * 4,
        };
        self.ask(Asker::Final(node, group), front(node), group, op);
    }

    pub(super) fn read_finally(
        &mut self,
        node: NodeId,
        group: GroupId,
        result: OpResult,
    ) -> Result<(), Violation> {
        let Some(read) = self.finals.get_mut(&(node, group)) else {
            return Ok(());
        };
        match result {
            Ok(Outcome::Entries {
                entries,
                commit_index,
            }) => {
                for entry in entries {
                    demand(entry.index == read.next, "entries come in order", || {
                        format!("{node} {group}: {} for {}", entry.index, read.next)
                    })?;
                    read.next = read.next.next();
                    if matches!(entry.kind, CommittedKind::Data { .. }) {
                        read.records.extend(records_from(&entry.body, read.start)?);
                    }
                }
                if read.next > commit_index {
                    self.end_final_read(node, group);
                    return Ok(());
                }
            }
            Err(OpError::BelowLogStart { first }) => read.next = first,
            // What is damaged is refused, not told wrongly: its copy elsewhere is what counts.
            Err(OpError::Storage(_)) if self.damaged.contains(&node) => {
                read.is_done = true;
                let question = Action::final_read(&read.partition, node.0);
                let open = read.open;
                self.history.fail(open, question);
                return Ok(());
            }
            Err(_) => {}
            Ok(other) => {
                return demand(false, "answers fit their questions", || {
                    format!("{other:?}")
                });
            }
        }
        let next = self.finals[&(node, group)].next;
        self.ask_final(node, group, next);
        Ok(())
    }

    fn end_final_read(&mut self, node: NodeId, group: GroupId) {
        let Some(read) = self.finals.get_mut(&(node, group)) else {
            return;
        };
        read.is_done = true;
        let answer = Action::FinalRead {
            partition: read.partition.clone(),
            node: node.0,
            start: read.start,
            records: std::mem::take(&mut read.records),
        };
        self.history.ok(read.open, answer);
    }
}

//! Clients ask and are told, and an auditor looks at what every replica has committed.

use std::time::Duration;

use super::super::client::{Producer, Wish};
use super::super::oracle::{Violation, demand};
use super::{AUDIT_INTERVAL, Asker, Event, Place, World, front};
use crate::{GroupId, Input, NodeId, Op, OpError, OpResult, Outcome, ShardId, Ticket};

impl World {
    pub(super) fn ask(&mut self, asker: Asker, turn: u64, to: Place, group: GroupId, op: Op) {
        let ticket = self.new_ticket(asker, turn);
        self.input(to, Input::Local { ticket, group, op });
    }

    pub(super) fn new_ticket(&mut self, asker: Asker, turn: u64) -> Ticket {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, (asker, turn));
        Ticket(self.next_ticket)
    }

    pub(super) fn answered(
        &mut self,
        node: NodeId,
        asker: Asker,
        turn: u64,
        result: OpResult,
    ) -> Result<(), Violation> {
        let is_storage = matches!(result, Err(OpError::Storage(_)));
        let may_fail = self.plan.disk_errors + self.plan.disk_shortages > 0.0;
        demand(
            !is_storage || may_fail,
            "L2 a disk without faults serves",
            || format!("{node}: {asker:?} is told {result:?}"),
        )?;
        match asker {
            Asker::Producer(_) | Asker::Reader(_) => self.client(asker, turn, Some(result)),
            Asker::Auditor(of, group) => {
                if self.nodes[&of].life == turn {
                    return self.audited(node, group, result);
                }
                Ok(())
            }
            Asker::Embedded => {
                self.scripted.answer(turn, result);
                Ok(())
            }
            Asker::Nobody => Ok(()),
        }
    }

    /// A client is answered, has waited long enough, or may go on.
    pub(super) fn client(
        &mut self,
        asker: Asker,
        turn: u64,
        result: Option<OpResult>,
    ) -> Result<(), Violation> {
        if self.waiting.get(&asker) != Some(&turn) {
            return Ok(());
        }
        let (rng, nodes) = (&mut self.client_rng, self.plan.nodes);
        let is_first = turn == 0;
        if let Some(result) = &result {
            self.trace
                .note(self.now, &format!("{asker:?} told {}", brief(result)));
        }
        let wish = match asker {
            Asker::Producer(index) => {
                let producer = &mut self.producers[index];
                if !is_first {
                    producer.told(rng, nodes, result.as_ref(), &mut self.oracle)?;
                }
                producer.wish(rng)
            }
            Asker::Reader(index) => {
                let reader = &mut self.readers[index];
                if !is_first {
                    reader.told(rng, nodes, result.as_ref(), &mut self.oracle)?;
                }
                Some(reader.wish(rng, &self.oracle))
            }
            Asker::Auditor(..) | Asker::Embedded | Asker::Nobody => None,
        };
        let Some(Wish { node, group, op }) = wish else {
            self.waiting.remove(&asker);
            return Ok(());
        };
        let turn = turn + 1;
        self.waiting.insert(asker, turn);
        self.after(self.plan.answer_max, Event::Client { asker, turn });
        // A short pause, so that a refused client does not spin.
        let pause = Duration::from_micros(self.client_rng.u64(100..20_000));
        let shard = self.client_rng.u16(0..self.plan.shards_of(node));
        let to = Place {
            node,
            shard: ShardId(shard),
        };
        let ticket = self.new_ticket(asker, turn);
        let question = Input::Local { ticket, group, op };
        self.after(pause, Event::Question { to, question });
        Ok(())
    }

    /// Asks every replica what it has committed since the last look.
    pub(super) fn audit(&mut self) {
        self.after(AUDIT_INTERVAL, Event::Audit);
        let nodes: Vec<(NodeId, u64)> = self
            .nodes
            .values()
            .filter(|node| node.is_alive())
            .map(|node| (node.id, node.life))
            .collect();
        for (node, life) in nodes {
            for group in (1..=self.plan.groups).map(GroupId) {
                let read = self.audited.entry((node, group)).or_default();
                let from = read.next();
                let asker = Asker::Auditor(node, group);
                let max_bytes = 64 << 10;
                let op = Op::ReadEntries { from, max_bytes };
                self.ask(asker, life, front(node), group, op);
            }
        }
    }

    pub(super) fn audited(
        &mut self,
        node: NodeId,
        group: GroupId,
        result: OpResult,
    ) -> Result<(), Violation> {
        match result {
            Ok(Outcome::Entries { entries, .. }) => {
                for entry in entries {
                    let read = self.audited.entry((node, group)).or_default();
                    if entry.index != read.next() {
                        // The answer to an earlier look.
                        continue;
                    }
                    *read = entry.index;
                    self.oracle.committed(node, group, &entry)?;
                }
                Ok(())
            }
            Err(OpError::BelowLogStart { first }) => {
                let read = self.audited.entry((node, group)).or_default();
                *read = (*read).max(first.previous());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether producers are done and every replica has told all that the leader has committed.
    pub(super) fn is_at_rest(&self) -> bool {
        self.producers.iter().all(Producer::is_done)
            && (1..=self.plan.groups)
                .map(GroupId)
                .all(|group| self.is_settled(group))
    }

    pub(super) fn is_settled(&self, group: GroupId) -> bool {
        let mut ends = self.nodes.values().map(|node| {
            let status = node.status(group)?;
            let audited = self.audited.get(&(node.id, group)).copied();
            let is_told = audited.unwrap_or_default() == status.commit_index;
            (is_told && status.commit_index == status.last_index).then_some(status.commit_index)
        });
        let first = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }

    pub(super) fn describe_unrest(&self) -> String {
        let mut text = String::new();
        for producer in self.producers.iter().filter(|it| !it.is_done()) {
            text += &format!("{producer:?}; ");
        }
        for node in self.nodes.values() {
            for group in (1..=self.plan.groups).map(GroupId) {
                let status = node.status(group);
                let audited = self.audited.get(&(node.id, group));
                text += &format!("{} {group}: {status:?}, audited {audited:?}; ", node.id);
            }
        }
        text
    }
}

fn brief(result: &OpResult) -> String {
    match result {
        Ok(Outcome::Fetched(fetched)) => format!(
            "{} spans up to {:?} of {:?}",
            fetched.spans.len(),
            fetched.next_offset,
            fetched.high_watermark
        ),
        other => format!("{other:?}"),
    }
}

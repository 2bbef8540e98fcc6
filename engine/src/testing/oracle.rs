//! What must always hold, checked against what replicas and clients see.
//!
//! The letters are those of the project's catalogue of faults: S what clients see, R what
//! replicas do. What clients are told is judged by the history's checker.

use std::collections::BTreeMap;
use std::fmt;

use highwater_record::{BatchHeader, Offset};

use crate::{CommittedEntry, CommittedKind, GroupId, LogIndex, NodeId, ReplicaStatus};

/// Something that must never happen has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// Which promise is broken.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

/// A violation if `holds` is false.
pub(super) fn demand(
    holds: bool,
    rule: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation { rule, what: what() })
    }
}

/// A batch, as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The producer.
    pub producer: i64,
    /// The sequence number of its first record.
    pub sequence: i32,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {} of producer {}", self.sequence, self.producer)
    }
}

/// An entry that somebody has seen committed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: CommittedKind,
    body_crc: u32,
    batch: Option<BatchId>,
}

/// One group, as it must be everywhere.
#[derive(Debug, Default)]
struct Group {
    /// Committed entries by index, as the first replica told them.
    log: BTreeMap<u64, Seen>,
    /// Where each batch was seen.
    batches: BTreeMap<BatchId, Offset>,
    /// Who led in which epoch.
    leaders: BTreeMap<u32, NodeId>,
}

/// How a replica stood, in one life of its node.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    high_watermark: Offset,
    commit_index: LogIndex,
    log_start: Offset,
}

/// All that must hold.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    groups: BTreeMap<GroupId, Group>,
    standings: BTreeMap<(NodeId, GroupId), Standing>,
}

impl Oracle {
    fn group(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    /// A node has begun a new life: what was volatile in it may go back.
    pub(super) fn reborn(&mut self, node: NodeId) {
        self.standings.retain(|(of, _), _| *of != node);
    }

    /// How a replica stands after a turn.
    pub(super) fn standing(
        &mut self,
        node: NodeId,
        group: GroupId,
        now: &ReplicaStatus,
    ) -> Result<(), Violation> {
        if now.is_leader {
            let epoch = now.leader_epoch.get();
            let leader = *self.group(group).leaders.entry(epoch).or_insert(node);
            demand(leader == node, "R1 one leader per term", || {
                format!("{leader} and {node} both lead {group} in epoch {epoch}")
            })?;
        }
        let before = self.standings.entry((node, group)).or_default();
        demand(
            now.high_watermark >= before.high_watermark,
            "S6 the high watermark never falls",
            || {
                let (old, new) = (before.high_watermark, now.high_watermark);
                format!("{node} {group}: {new:?} after {old:?}")
            },
        )?;
        demand(
            now.commit_index >= before.commit_index,
            "R5 the commit index never falls",
            || {
                let (old, new) = (before.commit_index, now.commit_index);
                format!("{node} {group}: {new} after {old}")
            },
        )?;
        demand(
            now.log_start_offset >= before.log_start,
            "R5 the log start never falls",
            || format!("{node} {group}: {:?}", now.log_start_offset),
        )?;
        demand(
            now.high_watermark <= now.log_end_offset,
            "S6 nothing is visible that is not there",
            || format!("{node} {group}: {now:?}"),
        )?;
        *before = Standing {
            high_watermark: now.high_watermark,
            commit_index: now.commit_index,
            log_start: now.log_start_offset,
        };
        Ok(())
    }

    /// A replica tells a committed entry.
    pub(super) fn committed(
        &mut self,
        node: NodeId,
        group: GroupId,
        entry: &CommittedEntry,
    ) -> Result<(), Violation> {
        let seen = Seen {
            kind: entry.kind,
            body_crc: highwater_record::crc32c(&entry.body),
            batch: batch_of(&entry.body),
        };
        let index = entry.index;
        let known = self.group(group);
        match known.log.get(&index.0) {
            Some(first) => demand(*first == seen, "R2 committed logs agree", || {
                format!("{node} {group} index {index}: {seen:?}, elsewhere {first:?}")
            })?,
            None => known.learn(node, group, index, seen)?,
        }
        Ok(())
    }

    /// Somebody was given a batch by a replica.
    pub(super) fn fetched(
        &mut self,
        node: NodeId,
        group: GroupId,
        asked: Offset,
        batch: &[u8],
    ) -> Result<(), Violation> {
        let header = BatchHeader::read(batch).map_err(|error| Violation {
            rule: "D2 only whole batches are served",
            what: error.to_string(),
        })?;
        let (base_offset, end_offset) = (header.base_offset(), header.end_offset());
        demand(end_offset > asked, "S6 reads go forward", || {
            format!("{node} {group}: asked for {asked:?}, given ..{end_offset:?}")
        })?;
        let Some(batch) = id_of(&header) else {
            return Ok(());
        };
        let known = self.group(group);
        let first = *known.batches.entry(batch).or_insert(base_offset);
        demand(first == base_offset, "S5 each batch is there once", || {
            format!("{node} {group}: {batch} at {base_offset:?} and at {first:?}")
        })
    }

    /// Up to where somebody has seen entries of a group committed.
    pub(super) fn commit_of(&self, group: GroupId) -> LogIndex {
        let log = self.groups.get(&group).map(|group| &group.log);
        let last = log.and_then(|log| log.last_key_value());
        LogIndex(last.map_or(0, |(index, _)| *index))
    }

    /// How many entries were seen committed.
    pub(super) fn committed_count(&self) -> u64 {
        self.groups.values().map(|it| it.log.len() as u64).sum()
    }

    /// How many groups have had so many terms with a leader.
    pub(super) fn groups_with_leaders(&self, leaders: usize) -> u64 {
        let many = self
            .groups
            .values()
            .filter(|it| it.leaders.len() >= leaders);
        many.count() as u64
    }

    /// How many terms had a leader.
    pub(super) fn leader_count(&self) -> u64 {
        self.groups.values().map(|it| it.leaders.len() as u64).sum()
    }
}

impl Group {
    /// The first sight of a committed entry.
    fn learn(
        &mut self,
        node: NodeId,
        group: GroupId,
        index: LogIndex,
        seen: Seen,
    ) -> Result<(), Violation> {
        if let CommittedKind::Data {
            base_offset,
            offset_span,
        } = seen.kind
        {
            let end = base_offset.advance(offset_span.into());
            let before = self.log.range(..index.0).next_back();
            if let Some((&at, before)) = before
                && at + 1 == index.0
                && let CommittedKind::Data {
                    base_offset: first,
                    offset_span: span,
                } = before.kind
            {
                let expected = first.advance(span.into());
                demand(base_offset == expected, "offsets are dense", || {
                    format!("{node} {group} index {index}: {base_offset:?} after {expected:?}")
                })?;
            }
            if let Some(batch) = seen.batch {
                let first = *self.batches.entry(batch).or_insert(base_offset);
                demand(first == base_offset, "S5 each batch is there once", || {
                    format!("{node} {group}: {batch} at {base_offset:?}..{end:?} and at {first:?}")
                })?;
            }
        }
        self.log.insert(index.0, seen);
        Ok(())
    }
}

fn batch_of(body: &[u8]) -> Option<BatchId> {
    id_of(&BatchHeader::read(body).ok()?)
}

fn id_of(header: &BatchHeader) -> Option<BatchId> {
    let producer = header.producer()?;
    Some(BatchId {
        producer: producer.producer_id,
        sequence: producer.base_sequence,
    })
}

//! Clients of the simulated world: producers that retry until they are told, readers that read
//! from the front.

use fastrand::Rng;
use highwater_record::{
    BatchHeader, Buffer, Compression, Offset, ProducerStamp, RecordBatchBuilder, sequence_after,
};

use super::oracle::{BatchId, Oracle, Violation, demand};
use crate::{
    Batch, Fetch, GroupId, NodeId, OffsetSpec, Op, OpError, OpResult, Outcome, Produce, ReadFrom,
};

/// What a client wants to do next.
pub(super) struct Wish {
    pub(super) node: NodeId,
    pub(super) group: GroupId,
    pub(super) op: Op,
}

/// An idempotent producer: one batch at a time, sent again until it is acknowledged.
#[derive(Debug)]
pub(super) struct Producer {
    id: i64,
    group: GroupId,
    next_sequence: i32,
    current: Option<Batch>,
    node: NodeId,
    value_bytes_max: usize,
    /// How many batches it may still begin; the rest of a run it only finishes.
    pub(super) left: u32,
}

impl Producer {
    pub(super) fn new(id: i64, group: GroupId, left: u32, value_bytes_max: usize) -> Producer {
        Producer {
            id,
            group,
            next_sequence: 0,
            current: None,
            node: NodeId(1),
            value_bytes_max,
            left,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.current.is_none() && self.left == 0
    }

    pub(super) fn wish(&mut self, rng: &mut Rng) -> Option<Wish> {
        if self.current.is_none() {
            self.left = self.left.checked_sub(1)?;
            self.current = Some(self.make_batch(rng));
        }
        let batch = self.current.clone().expect("just made");
        Some(Wish {
            node: self.node,
            group: self.group,
            op: Op::Produce(Produce {
                batches: vec![batch],
            }),
        })
    }

    fn make_batch(&mut self, rng: &mut Rng) -> Batch {
        let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
        builder.set_producer(ProducerStamp {
            producer_id: self.id,
            producer_epoch: 0,
            base_sequence: self.next_sequence,
        });
        let records = rng.u32(1..=3);
        for record in 0..records {
            let value = format!("{}/{}/{record}", self.id, self.next_sequence);
            let padded = value + &"x".repeat(rng.usize(..self.value_bytes_max));
            let time = i64::from(self.next_sequence);
            builder
                .append(time, None, Some(padded.as_bytes()), &[])
                .expect("a small record fits");
        }
        let bytes = Buffer::from(builder.seal().expect("there are records"));
        let header = BatchHeader::read(&bytes).expect("just built");
        Batch { bytes, header }
    }

    pub(super) fn told(
        &mut self,
        rng: &mut Rng,
        nodes: u32,
        result: Option<&OpResult>,
        oracle: &mut Oracle,
    ) -> Result<(), Violation> {
        let Some(batch) = &self.current else {
            return Ok(());
        };
        let id = BatchId {
            producer: self.id,
            sequence: self.next_sequence,
        };
        match result {
            Some(Ok(Outcome::Produced { base_offset, .. })) => {
                let span = batch.header.offset_span();
                oracle.acked(self.group, id, *base_offset, span)?;
                self.next_sequence = sequence_after(self.next_sequence, span);
                self.current = None;
            }
            Some(Ok(other)) => {
                return demand(false, "answers fit their questions", || {
                    format!("{other:?}")
                });
            }
            // A producer that has one batch in flight and sends it until it is acknowledged is
            // always in sequence.
            Some(Err(OpError::Producer(error))) => {
                return demand(false, "S5 no producer in sequence is refused", || {
                    format!("{}: {id}: {error}", self.group)
                });
            }
            Some(Err(OpError::NotLeader {
                leader: Some(leader),
                ..
            })) if rng.u8(..4) > 0 => self.node = *leader,
            Some(Err(OpError::Busy(_))) if rng.bool() => {}
            // Nothing heard: perhaps it is only slow, and the batch under way.
            None if rng.bool() => {}
            Some(Err(_)) | None => self.node = NodeId(rng.u32(1..=nodes)),
        }
        Ok(())
    }
}

/// A reader: from the front to the end, then again the end, on whichever node leads; in between
/// it asks where the end is.
#[derive(Debug)]
pub(super) struct Reader {
    group: GroupId,
    node: NodeId,
    offset: Offset,
    any_replica: bool,
    /// It asks for the latest offset now, at a time when this much was acknowledged.
    latest_above: Option<Offset>,
}

impl Reader {
    pub(super) fn new(group: GroupId, any_replica: bool) -> Reader {
        Reader {
            group,
            node: NodeId(1),
            offset: Offset::ZERO,
            any_replica,
            latest_above: None,
        }
    }

    pub(super) fn offset(&self) -> Offset {
        self.offset
    }

    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    pub(super) fn wish(&mut self, rng: &mut Rng, oracle: &Oracle) -> Wish {
        let ask_latest = !self.any_replica && rng.u8(..4) == 0;
        self.latest_above = ask_latest.then(|| oracle.acked_end(self.group));
        let op = if ask_latest {
            Op::ListOffset {
                spec: OffsetSpec::Latest,
                current_leader_epoch: None,
            }
        } else {
            Op::Fetch(Fetch {
                offset: self.offset,
                max_bytes: rng.usize(1..4_096),
                must_progress: true,
                current_leader_epoch: None,
                from: if self.any_replica {
                    ReadFrom::AnyReplica
                } else {
                    ReadFrom::Leader
                },
            })
        };
        Wish {
            node: self.node,
            group: self.group,
            op,
        }
    }

    pub(super) fn told(
        &mut self,
        rng: &mut Rng,
        nodes: u32,
        result: Option<&OpResult>,
        oracle: &mut Oracle,
    ) -> Result<(), Violation> {
        match result {
            Some(Ok(Outcome::Fetched(fetched))) => {
                for span in &fetched.spans {
                    let header = BatchHeader::read(span).map_err(|error| Violation {
                        rule: "D2 only whole batches are served",
                        what: error.to_string(),
                    })?;
                    oracle.fetched(self.node, self.group, self.offset, &header)?;
                    demand(
                        header.end_offset() > self.offset,
                        "S6 reads go forward",
                        || format!("{:?} again", header.base_offset()),
                    )?;
                    self.offset = header.end_offset();
                }
                let (offset, high_watermark) = (self.offset, fetched.high_watermark);
                let empty = fetched.spans.is_empty();
                demand(
                    empty || offset <= high_watermark,
                    "S6 nothing above the high watermark is served",
                    || format!("{offset:?} of {high_watermark:?}"),
                )?;
                if self.any_replica && rng.u8(..4) == 0 {
                    self.node = NodeId(rng.u32(1..=nodes));
                }
            }
            Some(Ok(Outcome::Listed {
                offset: Some(latest),
                ..
            })) => {
                let above = self.latest_above.unwrap_or_default();
                oracle.latest(self.node, self.group, above, *latest)?;
            }
            Some(Ok(other)) => {
                return demand(false, "answers fit their questions", || {
                    format!("{other:?}")
                });
            }
            Some(Err(OpError::OffsetOutOfRange {
                offset,
                log_start_offset,
                log_end_offset,
            })) => {
                demand(
                    offset < log_start_offset,
                    "S6 nobody is told that what he has read is not there",
                    || format!("{}: {offset:?} of ..{log_end_offset:?}", self.group),
                )?;
                self.offset = *log_start_offset;
            }
            Some(Err(OpError::NotLeader {
                leader: Some(leader),
                ..
            })) if rng.u8(..4) > 0 => self.node = *leader,
            Some(Err(_)) | None => self.node = NodeId(rng.u32(1..=nodes)),
        }
        Ok(())
    }
}

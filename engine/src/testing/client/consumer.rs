//! Consumers: from the front to the end of a partition, then waiting at its end; in between they
//! ask where the end is.

use bytes::Bytes;
use highwater_protocol::messages::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, TopicName,
};
use highwater_protocol::{ErrorCode, FetchPartition, FetchRequest, FetchTopic};

use super::super::history::{Action, History, Invocation, Partition, ReadRecord};
use super::super::oracle::{Violation, demand};
use super::{Scene, Seat, Wish, read, records_from, the, wish};
use crate::NodeId;

const FETCH_VERSION: i16 = 12;
const LIST_VERSION: i16 = 7;

/// Kafka's numbers for the two ends of a log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// A consumer of a partition.
#[derive(Debug)]
pub(in super::super) struct Consumer {
    seat: Seat,
    position: i64,
    /// What is under way in the history.
    open: Option<Invocation>,
    asked: Asked,
    /// Its position is out of range: it must ask for the log start.
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Leader,
    Records,
    Latest,
    Earliest,
}

impl Consumer {
    pub(in super::super) fn new(process: u64, partition: Partition) -> Consumer {
        Consumer {
            seat: Seat::new(process, partition),
            position: 0,
            open: None,
            asked: Asked::Leader,
            is_lost: false,
        }
    }

    pub(in super::super) fn position(&self) -> i64 {
        self.position
    }

    pub(in super::super) fn partition(&self) -> &Partition {
        &self.seat.partition
    }

    pub(super) fn wish(&mut self, scene: &mut Scene<'_>) -> Wish {
        let Some(leader) = self.seat.leader() else {
            self.asked = Asked::Leader;
            return self.seat.look(scene);
        };
        if self.is_lost {
            self.asked = Asked::Earliest;
            return self.list(leader, EARLIEST);
        }
        if scene.rng.u8(..4) == 0 {
            self.asked = Asked::Latest;
            self.open = Some(scene.history.invoke(self.seat.process, self.listed(None)));
            return self.list(leader, LATEST);
        }
        self.asked = Asked::Records;
        let action = self.polled(Vec::new(), None, None);
        self.open = Some(scene.history.invoke(self.seat.process, action));
        self.fetch(scene, leader)
    }

    fn fetch(&self, scene: &mut Scene<'_>, leader: NodeId) -> Wish {
        let partition = FetchPartition {
            index: self.seat.partition.index,
            current_leader_epoch: -1,
            fetch_offset: self.position,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: scene.rng.i32(1..20_000),
        };
        let request = FetchRequest {
            max_wait_ms: scene.rng.i32(0..400),
            min_bytes: 1,
            max_bytes: 50 << 20,
            topics: vec![FetchTopic {
                name: self.seat.topic(),
                partitions: vec![partition],
            }],
            ..FetchRequest::default()
        };
        wish(leader, &request, FETCH_VERSION)
    }

    fn list(&self, leader: NodeId, timestamp: i64) -> Wish {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.seat.partition.index)
            .with_timestamp(timestamp)
            .with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(self.seat.topic()))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        wish(leader, &request, LIST_VERSION)
    }

    fn polled(
        &self,
        records: Vec<ReadRecord>,
        high_watermark: Option<i64>,
        log_start: Option<i64>,
    ) -> Action {
        Action::Poll {
            partition: self.seat.partition.clone(),
            from: self.position,
            // A leader that is new, or deposed and does not know it, gives a consumer nothing yet
            // rather than an error: it waits, and asks again. ListOffsets is never old.
            leader: false,
            records,
            high_watermark,
            log_start,
        }
    }

    fn listed(&self, latest: Option<i64>) -> Action {
        Action::ListOffsets {
            partition: self.seat.partition.clone(),
            latest,
        }
    }

    pub(super) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Option<&Bytes>,
    ) -> Result<(), Violation> {
        match (self.asked, answer) {
            (Asked::Leader, answer) => self.seat.looked(scene, answer).map(drop),
            (Asked::Records, Some(answer)) => self.told_records(scene, answer),
            (Asked::Latest, Some(answer)) => self.told_latest(scene, answer),
            (Asked::Earliest, Some(answer)) => self.told_earliest(scene, answer),
            (_, None) => {
                scene.reached.hit("a fetch is not answered in time");
                self.seat.lose_leader();
                if !self.is_lost {
                    self.give_up(scene.history);
                }
                Ok(())
            }
        }
    }

    fn told_records(&mut self, scene: &mut Scene<'_>, answer: &Bytes) -> Result<(), Violation> {
        let answer = read::<FetchRequest>(FETCH_VERSION, answer)?;
        let topic = answer.topics.into_iter().next();
        let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
        let partition = the(partition, "a fetch names its partition")?;
        match partition.error {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                scene.reached.hit("a fetch is out of range");
                self.is_lost = true;
                return Ok(());
            }
            error => return self.refused(scene, error),
        }
        let bytes = partition.records.unwrap_or_default();
        let records = records_from(&bytes, self.position)?;
        let end = records.last().map(|last| last.offset + 1);
        demand(
            end.is_none_or(|end| end <= partition.high_watermark),
            "S6 nothing above the high watermark is served",
            || format!("{end:?} of {}", partition.high_watermark),
        )?;
        demand(
            bytes.is_empty() || end.is_some(),
            "S6 reads go forward",
            || format!("{}: nothing from {} on", self.seat.partition, self.position),
        )?;
        match end {
            Some(_) => scene.reached.hit("a fetch finds records"),
            None => scene.reached.hit("a fetch waits in vain"),
        }
        let action = self.polled(records, Some(partition.high_watermark), None);
        self.close(|open| scene.history.ok(open, action));
        self.position = end.unwrap_or(self.position);
        Ok(())
    }

    fn told_latest(&mut self, scene: &mut Scene<'_>, answer: &Bytes) -> Result<(), Violation> {
        let (error, offset) = listed(answer)?;
        if !error.is_none() {
            return self.refused(scene, error);
        }
        let action = self.listed(Some(offset));
        self.close(|open| scene.history.ok(open, action));
        Ok(())
    }

    fn told_earliest(&mut self, scene: &mut Scene<'_>, answer: &Bytes) -> Result<(), Violation> {
        let (error, offset) = listed(answer)?;
        if !error.is_none() {
            self.seat.lose_leader();
            return Ok(());
        }
        scene.reached.hit("a consumer goes on at the log start");
        self.is_lost = false;
        let action = self.polled(Vec::new(), None, Some(offset));
        self.close(|open| scene.history.fail(open, action));
        self.position = offset;
        Ok(())
    }

    fn refused(&mut self, scene: &mut Scene<'_>, error: ErrorCode) -> Result<(), Violation> {
        let name = match error {
            ErrorCode::NotLeaderOrFollower => "a fetch meets a follower",
            ErrorCode::OffsetNotAvailable => "a fetch meets a leader that is too new",
            ErrorCode::NotEnoughReplicas => "a fetch meets a busy node",
            ErrorCode::UnknownTopicOrPartition => "a fetch meets no such topic",
            ErrorCode::KafkaStorageError => "a fetch meets a damaged or failing disk",
            ErrorCode::LeaderNotAvailable => "a fetch meets no leader",
            ErrorCode::RequestTimedOut => "a fetch times out in the node",
            other => {
                return demand(false, "answers fit their questions", || {
                    format!("{:?} is told {other:?}", self.seat)
                });
            }
        };
        scene.reached.hit(name);
        self.seat.lose_leader();
        self.give_up(scene.history);
        Ok(())
    }

    fn close(&mut self, end: impl FnOnce(Invocation)) {
        if let Some(open) = self.open.take() {
            end(open);
        }
    }

    pub(super) fn give_up(&mut self, history: &mut History) {
        let action = match self.asked {
            Asked::Latest => self.listed(None),
            _ => self.polled(Vec::new(), None, None),
        };
        self.close(|open| history.info(open, action));
    }
}

/// What ListOffsets tells of the one partition.
fn listed(answer: &Bytes) -> Result<(ErrorCode, i64), Violation> {
    let answer = read::<ListOffsetsRequest>(LIST_VERSION, answer)?;
    let topic = answer.topics.into_iter().next();
    let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
    let partition = the(partition, "ListOffsets names its partition")?;
    Ok((ErrorCode::from_code(partition.error_code), partition.offset))
}

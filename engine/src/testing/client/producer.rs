//! Producers: idempotent ones that send a batch until it is acknowledged, and plain ones that
//! send it once.

use bytes::Bytes;
use highwater_protocol::messages::InitProducerIdRequest;
use highwater_protocol::{
    Acks, ErrorCode, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use highwater_record::{Compression, ProducerStamp, RecordBatchBuilder, sequence_after};

use super::super::history::{Action, History, Invocation, Partition};
use super::super::oracle::{Violation, demand};
use super::{Scene, Seat, Wish, read, the, wish};

const PRODUCE_VERSION: i16 = 9;
const INIT_VERSION: i16 = 4;

/// The largest batch that is built, in bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What a producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Manner {
    /// Its batches have sequence numbers.
    Idempotent,
    /// They have none.
    Plain,
    /// The same, and it writes to topics that come and go.
    Passing,
}

/// How large what it sends is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Load {
    /// The largest value of a record.
    pub(in super::super) value_bytes_max: usize,
    /// The most records of a batch.
    pub(in super::super) batch_records_max: u64,
}

/// A producer: one batch at a time.
#[derive(Debug)]
pub(in super::super) struct Producer {
    seat: Seat,
    manner: Manner,
    compression: Compression,
    load: Load,
    /// Its id and epoch, once it has them.
    id: Option<(i64, i16)>,
    next_sequence: i32,
    current: Option<Sending>,
    asked: Asked,
}

/// What was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Id,
    Leader,
    Produce,
}

/// A batch under way.
struct Sending {
    open: Invocation,
    values: Vec<u64>,
    batch: Bytes,
    tries: u32,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} tried {} times", self.values, self.tries)
    }
}

impl Producer {
    pub(in super::super) fn new(
        process: u64,
        partition: Partition,
        manner: Manner,
        compression: Compression,
        load: Load,
    ) -> Producer {
        Producer {
            seat: Seat::new(process, partition),
            manner,
            compression,
            load,
            id: None,
            next_sequence: 0,
            current: None,
            asked: Asked::Leader,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn wish(&mut self, scene: &mut Scene<'_>) -> Option<Wish> {
        if scene.calm && self.current.is_none() {
            return None;
        }
        if self.manner == Manner::Passing && self.current.is_none() {
            self.follow_topic(scene)?;
        }
        if self.manner == Manner::Idempotent && self.id.is_none() {
            self.asked = Asked::Id;
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id((-1).into());
            return Some(wish(scene.any_node(), &request, INIT_VERSION));
        }
        let Some(leader) = self.seat.leader() else {
            self.asked = Asked::Leader;
            return Some(self.seat.look(scene));
        };
        self.asked = Asked::Produce;
        if self.current.is_none() {
            self.current = Some(self.begin(scene));
        }
        let current = self.current.as_mut().expect("just begun");
        current.tries += 1;
        let request = ProduceRequest {
            transactional_id: None,
            acks: Acks::All,
            timeout_ms: 2_000,
            topics: vec![ProduceTopic {
                name: self.seat.topic(),
                partitions: vec![ProducePartition {
                    index: self.seat.partition.index,
                    records: Some(current.batch.clone()),
                }],
            }],
        };
        Some(wish(leader, &request, PRODUCE_VERSION))
    }

    /// Goes to the topic that is there now.
    fn follow_topic(&mut self, scene: &mut Scene<'_>) -> Option<()> {
        let topic = scene.passing.clone()?;
        if topic != self.seat.partition.topic {
            self.seat.partition.topic = topic;
            self.seat.lose_leader();
        }
        Some(())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) -> Sending {
        let count = scene.rng.u64(1..=self.load.batch_records_max);
        let first = *scene.last_value + 1;
        *scene.last_value += count;
        let values: Vec<u64> = (first..first + count).collect();
        let batch = self.build(scene, &values);
        let open = scene
            .history
            .invoke(self.seat.process, self.action(&values, None));
        Sending {
            open,
            values,
            batch,
            tries: 0,
        }
    }

    fn build(&self, scene: &mut Scene<'_>, values: &[u64]) -> Bytes {
        let mut builder = RecordBatchBuilder::new(self.compression, BATCH_BYTES_MAX);
        if let Some((producer_id, producer_epoch)) = self.id {
            builder.set_producer(ProducerStamp {
                producer_id,
                producer_epoch,
                base_sequence: self.next_sequence,
            });
        }
        for value in values {
            let mut bytes = value.to_be_bytes().to_vec();
            let padding = scene.rng.usize(..self.load.value_bytes_max);
            bytes.resize(bytes.len() + padding, b'x');
            let time = i64::try_from(*value).expect("few values");
            builder
                .append(time, None, Some(&bytes), &[])
                .expect("a small record fits");
        }
        Bytes::from(builder.seal().expect("there are records"))
    }

    fn action(&self, values: &[u64], base_offset: Option<i64>) -> Action {
        Action::Send {
            partition: self.seat.partition.clone(),
            values: values.to_vec(),
            idempotent: self.manner == Manner::Idempotent,
            base_offset,
        }
    }

    pub(super) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Option<&Bytes>,
    ) -> Result<(), Violation> {
        match self.asked {
            Asked::Id => self.told_id(scene, answer),
            Asked::Leader => self.seat.looked(scene, answer).map(drop),
            Asked::Produce => self.told_produced(scene, answer),
        }
    }

    fn told_id(&mut self, scene: &mut Scene<'_>, answer: Option<&Bytes>) -> Result<(), Violation> {
        let Some(answer) = answer else {
            return Ok(());
        };
        let answer = read::<InitProducerIdRequest>(INIT_VERSION, answer)?;
        if answer.error_code == 0 {
            scene.reached.hit("a producer gets its id");
            self.id = Some((answer.producer_id.0, answer.producer_epoch));
        } else {
            scene.reached.hit("a producer gets no id yet");
        }
        Ok(())
    }

    fn told_produced(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Option<&Bytes>,
    ) -> Result<(), Violation> {
        let Some(answer) = answer else {
            scene.reached.hit("a produce is not answered in time");
            self.unknown(scene);
            return Ok(());
        };
        let answer = read::<ProduceRequest<Bytes>>(PRODUCE_VERSION, answer)?;
        let topic = answer.topics.into_iter().next();
        let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
        let partition = the(partition, "a produce names its partition")?;
        match partition.error {
            ErrorCode::None => self.acked(scene, &partition),
            error => self.refused(scene, error),
        }
    }

    fn acked(
        &mut self,
        scene: &mut Scene<'_>,
        answer: &ProducePartitionResponse,
    ) -> Result<(), Violation> {
        let current = the(self.current.take(), "a batch is under way")?;
        if current.tries > 1 {
            scene
                .reached
                .hit("a produce is acknowledged after another try");
        }
        let action = self.action(&current.values, Some(answer.base_offset));
        scene.history.ok(current.open, action);
        let count = u32::try_from(current.values.len()).expect("few records");
        self.next_sequence = sequence_after(self.next_sequence, count);
        Ok(())
    }

    fn refused(&mut self, scene: &mut Scene<'_>, error: ErrorCode) -> Result<(), Violation> {
        if error == ErrorCode::UnknownProducerId && scene.forgets_producers {
            self.forgotten(scene);
            return Ok(());
        }
        let (name, is_definite) = meaning(error).ok_or_else(|| Violation {
            rule: "S5 no producer in sequence is refused",
            what: format!("{:?} is told {error:?}", self.seat),
        })?;
        scene.reached.hit(name);
        if self.manner == Manner::Idempotent {
            if scene.rng.u8(..4) > 0 {
                self.seat.lose_leader();
            }
            return Ok(());
        }
        self.seat.lose_leader();
        if !is_definite {
            self.unknown(scene);
            return Ok(());
        }
        let current = the(self.current.take(), "a batch is under way")?;
        let action = self.action(&current.values, None);
        scene.history.fail(current.open, action);
        demand(current.tries == 1, "plain producers try once", String::new)
    }

    /// What the log knew of the producer is gone, because its records are, or for their age. An
    /// earlier try of the batch may have been appended. It goes on under another id.
    fn forgotten(&mut self, scene: &mut Scene<'_>) {
        scene.reached.hit("a producer is forgotten");
        self.id = None;
        self.next_sequence = 0;
        if let Some(current) = self.current.take() {
            let action = self.action(&current.values, None);
            match current.tries {
                1 => scene.history.fail(current.open, action),
                _ => scene.history.info(current.open, action),
            }
        }
    }

    /// Nobody knows what became of the batch.
    fn unknown(&mut self, scene: &mut Scene<'_>) {
        // Perhaps it is only slow, and the batch under way.
        if scene.rng.bool() {
            self.seat.lose_leader();
        }
        if self.manner != Manner::Idempotent {
            self.give_up(scene.history);
        }
    }

    pub(super) fn give_up(&mut self, history: &mut History) {
        if let Some(current) = self.current.take() {
            let action = self.action(&current.values, None);
            history.info(current.open, action);
        }
    }
}

/// What a refusal is called among what was reached, and whether it says that nothing was done;
/// none for what a correct producer is never told.
fn meaning(error: ErrorCode) -> Option<(&'static str, bool)> {
    match error {
        ErrorCode::NotLeaderOrFollower => Some(("a produce meets a follower", true)),
        ErrorCode::NotEnoughReplicas => Some(("a produce meets a full window or disk", true)),
        ErrorCode::UnknownTopicOrPartition => Some(("a produce meets no such topic", true)),
        ErrorCode::LeaderNotAvailable => Some(("a produce meets no leader", true)),
        ErrorCode::RequestTimedOut => Some(("a produce has an unknown outcome", false)),
        ErrorCode::KafkaStorageError => Some(("a produce meets a damaged disk", false)),
        _ => None,
    }
}

//! Producers: idempotent ones that send a batch until it is acknowledged, one or several at a
//! time, and plain ones that send it once.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::messages::InitProducerIdRequest;
use highwater_protocol::{
    Acks, ErrorCode, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use highwater_record::{Compression, ProducerStamp, RecordBatchBuilder, sequence_after};

use super::super::history::{Action, History, Invocation, Partition};
use super::super::oracle::{Violation, demand};
use super::{Scene, Seat, Wish, frame, read, the, wish};
use crate::PRODUCER_BATCHES_MAX;

const PRODUCE_VERSION: i16 = 9;
const INIT_VERSION: i16 = 4;

/// The largest batch that is built, in bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What a producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Manner {
    /// Its batches have sequence numbers.
    Idempotent,
    /// The same, and several are under way at once.
    Pipelined,
    /// They have none.
    Plain,
    /// The same, and it writes to topics that come and go.
    Passing,
}

impl Manner {
    fn is_idempotent(self) -> bool {
        matches!(self, Manner::Idempotent | Manner::Pipelined)
    }

    /// How many batches are under way at once: brokers know the last five again (KIP-98), so
    /// clients send no more.
    fn window(self) -> usize {
        match self {
            Manner::Pipelined => PRODUCER_BATCHES_MAX,
            Manner::Idempotent | Manner::Plain | Manner::Passing => 1,
        }
    }
}

/// How large what it sends is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Load {
    /// The largest value of a record.
    pub(in super::super) value_bytes_max: usize,
    /// The most records of a batch.
    pub(in super::super) batch_records_max: u64,
}

/// A producer.
#[derive(Debug)]
pub(in super::super) struct Producer {
    seat: Seat,
    manner: Manner,
    compression: Compression,
    load: Load,
    /// Its id and epoch, once it has them.
    id: Option<(i64, i16)>,
    next_sequence: i32,
    /// What is under way, in the order of its sequence numbers.
    current: VecDeque<Sending>,
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
    /// Whether a try had no answer, or one that says nothing: it may have been appended.
    may_be_there: bool,
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
            current: VecDeque::new(),
            asked: Asked::Leader,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.current.is_empty()
    }

    pub(super) fn wish(&mut self, scene: &mut Scene<'_>) -> Option<Wish> {
        if scene.calm && self.is_done() {
            return None;
        }
        if self.manner == Manner::Passing && self.is_done() {
            self.follow_topic(scene)?;
        }
        if self.manner.is_idempotent() && self.id.is_none() {
            self.asked = Asked::Id;
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id((-1).into());
            return Some(wish(scene.any_node(), &request, INIT_VERSION));
        }
        let Some(node) = self.seat.leader() else {
            self.asked = Asked::Leader;
            return Some(self.seat.look(scene));
        };
        self.asked = Asked::Produce;
        self.fill(scene);
        let frames = self.current.iter().enumerate();
        let frames = frames.map(|(number, sending)| self.request(number, &sending.batch));
        let frames = frames.collect();
        Some(Wish { node, frames })
    }

    /// Begins what may be under way beside what is.
    fn fill(&mut self, scene: &mut Scene<'_>) {
        let window = scene.rng.usize(1..=self.manner.window());
        while self.current.len() < window && (self.is_done() || !scene.calm) {
            let sending = self.begin(scene);
            self.current.push_back(sending);
        }
        if self.current.len() > 1 {
            scene
                .reached
                .hit("several batches of a producer are under way");
        }
        for sending in &mut self.current {
            sending.tries += 1;
        }
    }

    fn request(&self, number: usize, batch: &Bytes) -> Vec<u8> {
        let request = ProduceRequest {
            transactional_id: None,
            acks: Acks::All,
            timeout_ms: 2_000,
            topics: vec![ProduceTopic {
                name: self.seat.topic(),
                partitions: vec![ProducePartition {
                    index: self.seat.partition.index,
                    records: Some(batch.clone()),
                }],
            }],
        };
        frame(&request, PRODUCE_VERSION, number)
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
        let base_sequence = self.next_sequence;
        let count = scene.rng.u64(1..=self.load.batch_records_max);
        let first = *scene.last_value + 1;
        *scene.last_value += count;
        let values: Vec<u64> = (first..first + count).collect();
        let batch = self.build(scene, &values, base_sequence);
        let span = u32::try_from(count).expect("few records");
        self.next_sequence = sequence_after(base_sequence, span);
        let open = scene
            .history
            .invoke(self.seat.process, self.action(&values, None));
        Sending {
            open,
            values,
            batch,
            tries: 0,
            may_be_there: false,
        }
    }

    fn build(&self, scene: &mut Scene<'_>, values: &[u64], base_sequence: i32) -> Bytes {
        let mut builder = RecordBatchBuilder::new(self.compression, BATCH_BYTES_MAX);
        if let Some((producer_id, producer_epoch)) = self.id {
            builder.set_producer(ProducerStamp {
                producer_id,
                producer_epoch,
                base_sequence,
            });
        }
        for value in values {
            let padding = scene.rng.usize(..self.load.value_bytes_max);
            let mut bytes = Vec::with_capacity(size_of::<u64>() + padding);
            bytes.extend_from_slice(&value.to_be_bytes());
            bytes.resize(bytes.len() + padding, b'x');
            builder
                .append(scene.wall_ms, None, Some(&bytes), &[])
                .expect("a small record fits");
        }
        Bytes::from(builder.seal().expect("there are records"))
    }

    fn action(&self, values: &[u64], base_offset: Option<i64>) -> Action {
        Action::Send {
            partition: self.seat.partition.clone(),
            values: values.to_vec(),
            idempotent: self.manner.is_idempotent(),
            base_offset,
        }
    }

    pub(super) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        answers: &[Bytes],
    ) -> Result<(), Violation> {
        match self.asked {
            Asked::Id => self.told_id(scene, answers.first()),
            Asked::Leader => self.seat.looked(scene, answers.first()).map(drop),
            Asked::Produce => self.told_produced(scene, answers),
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

    fn told_produced(&mut self, scene: &mut Scene<'_>, answers: &[Bytes]) -> Result<(), Violation> {
        // What the one before was refused for, if it was.
        let mut before = None;
        let mut is_forgotten = false;
        let mut left = VecDeque::new();
        for answer in answers {
            let sending = the(self.current.pop_front(), "a batch is under way")?;
            let answer = produced(answer)?;
            let refused = match answer.error {
                ErrorCode::None => {
                    self.acked(scene, sending, &answer);
                    continue;
                }
                // A leader may not know the producer either, if it has refused the first batch.
                ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId
                    if before.is_some_and(may_break_the_order) =>
                {
                    Some(sending)
                }
                ErrorCode::UnknownProducerId if scene.forgets_producers => {
                    is_forgotten = true;
                    Some(sending)
                }
                error => {
                    if before.is_some() {
                        scene.reached.hit("a batch behind a refused one is refused");
                    }
                    self.refused(scene, sending, error)?
                }
            };
            before = Some(answer.error);
            left.extend(refused);
        }
        let is_answered = self.current.is_empty();
        for sending in &mut self.current {
            sending.may_be_there = true;
        }
        left.append(&mut self.current);
        self.current = left;
        if is_forgotten {
            self.forgotten(scene);
        } else if !is_answered {
            scene.reached.hit("a produce is not answered in time");
            self.unknown(scene);
        }
        Ok(())
    }

    fn acked(
        &mut self,
        scene: &mut Scene<'_>,
        sending: Sending,
        answer: &ProducePartitionResponse,
    ) {
        if sending.tries > 1 {
            scene
                .reached
                .hit("a produce is acknowledged after another try");
        }
        *scene.acked += u64::try_from(sending.values.len()).expect("few records");
        let action = self.action(&sending.values, Some(answer.base_offset));
        scene.history.ok(sending.open, action);
    }

    /// A batch is refused; it is given back if it is to be sent again.
    fn refused(
        &mut self,
        scene: &mut Scene<'_>,
        mut sending: Sending,
        error: ErrorCode,
    ) -> Result<Option<Sending>, Violation> {
        let (name, is_definite) = meaning(error).ok_or_else(|| Violation {
            rule: "S5 no producer in sequence is refused",
            what: format!("{:?} is told {error:?}", self.seat),
        })?;
        scene.reached.hit(name);
        sending.may_be_there |= !is_definite;
        if self.manner.is_idempotent() {
            if scene.rng.u8(..4) > 0 {
                self.seat.lose_leader();
            }
            return Ok(Some(sending));
        }
        self.seat.lose_leader();
        demand(sending.tries == 1, "plain producers try once", String::new)?;
        self.leave(scene.history, sending);
        Ok(None)
    }

    /// What the log knew of the producer is gone, because its records are, or for their age. It
    /// goes on under another id.
    fn forgotten(&mut self, scene: &mut Scene<'_>) {
        scene.reached.hit("a producer is forgotten");
        self.id = None;
        self.next_sequence = 0;
        for sending in std::mem::take(&mut self.current) {
            self.leave(scene.history, sending);
        }
    }

    /// A batch is not sent again.
    fn leave(&self, history: &mut History, sending: Sending) {
        let action = self.action(&sending.values, None);
        match sending.may_be_there {
            true => history.info(sending.open, action),
            false => history.fail(sending.open, action),
        }
    }

    /// Nobody knows what became of what was not answered.
    fn unknown(&mut self, scene: &mut Scene<'_>) {
        // Perhaps it is only slow, and the batch under way.
        if scene.rng.bool() {
            self.seat.lose_leader();
        }
        if !self.manner.is_idempotent() {
            self.give_up(scene.history);
        }
    }

    pub(super) fn give_up(&mut self, history: &mut History) {
        for mut sending in std::mem::take(&mut self.current) {
            sending.may_be_there |= sending.tries > 0;
            self.leave(history, sending);
        }
    }
}

/// What is said of the one partition of a produce.
fn produced(answer: &Bytes) -> Result<ProducePartitionResponse, Violation> {
    let answer = read::<ProduceRequest<Bytes>>(PRODUCE_VERSION, answer)?;
    let topic = answer.topics.into_iter().next();
    let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
    the(partition, "a produce names its partition")
}

/// Whether the batch behind one with this answer may be told that it comes too early. Not if that was
/// refused for a reason that passes: then those behind it are refused alike.
fn may_break_the_order(error: ErrorCode) -> bool {
    !matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::UnknownTopicOrPartition
    )
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

//! What a history is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A partition, as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic. One that is deleted and created again must get another name.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub index: i32,
}

impl Partition {
    /// A partition of a topic.
    #[must_use]
    pub fn new(topic: &str, index: i32) -> Partition {
        Partition {
            topic: Arc::from(topic),
            index,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// A record, as somebody has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Its value; no two records that were ever sent have the same.
    pub value: u64,
}

/// Which end of an operation an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It begins.
    Invoke,
    /// It has happened.
    Ok,
    /// It has not happened and never will.
    Fail,
    /// It may have happened, or may happen yet: a timeout, a lost connection, an error that
    /// promises nothing.
    Info,
}

/// What is done. A beginning and an end have the same action; what is only known at the end is
/// empty at the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A producer sends records in one batch.
    Send {
        /// Where to.
        partition: Partition,
        /// The values of the records.
        values: Vec<u64>,
        /// Whether the producer is idempotent: its records are in order and there once.
        idempotent: bool,
        /// The offset of the first record, once it is acknowledged.
        base_offset: Option<i64>,
    },
    /// A consumer reads on.
    Poll {
        /// Where.
        partition: Partition,
        /// Its position: the first offset that it has not read.
        from: i64,
        /// Whether the answer must have all that was acknowledged before the question.
        leader: bool,
        /// What it was given, from its position on.
        records: Vec<ReadRecord>,
        /// The offset behind the last committed record, if it was told: an answer may be empty
        /// though there is something, while the disk is slow.
        high_watermark: Option<i64>,
        /// If it fails because its position is out of range: the log start it was told, where
        /// it goes on.
        log_start: Option<i64>,
    },
    /// A consumer's position is set, by itself or because partitions were assigned anew.
    Assign {
        /// Where.
        partition: Partition,
        /// The position.
        offset: i64,
    },
    /// Somebody asks the leader for the end of the log.
    ListOffsets {
        /// Of which partition.
        partition: Partition,
        /// The offset behind the last record.
        latest: Option<i64>,
    },
    /// Somebody deletes the records before an offset.
    DeleteRecords {
        /// Of which partition.
        partition: Partition,
        /// The first offset that stays.
        before: i64,
    },
    /// Somebody deletes a topic, and all that was in it.
    DeleteTopic {
        /// Which.
        topic: Arc<str>,
    },
    /// A consumer group stores a position.
    CommitOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The position.
        offset: i64,
    },
    /// Somebody asks for a group's position.
    FetchOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The position; none if there is none, or the answer is not there yet.
        offset: Option<i64>,
    },
    /// After everything: the whole log of one replica is read.
    FinalRead {
        /// Of which partition.
        partition: Partition,
        /// Whose replica.
        node: u32,
        /// The first offset still there.
        start: i64,
        /// All records.
        records: Vec<ReadRecord>,
        /// Ranges of offsets, with exclusive ends, of which the replica says that it cannot
        /// tell them, for they are damaged or it is not well; to the end of the log if the end
        /// is the largest number.
        refused: Vec<(i64, i64)>,
    },
}

impl Action {
    /// The beginning of a send of an idempotent producer.
    #[must_use]
    pub fn send(partition: &Partition, values: &[u64]) -> Action {
        Action::Send {
            partition: partition.clone(),
            values: values.to_vec(),
            idempotent: true,
            base_offset: None,
        }
    }

    /// The end of a send that is acknowledged.
    #[must_use]
    pub fn sent(partition: &Partition, values: &[u64], base_offset: i64) -> Action {
        Action::Send {
            partition: partition.clone(),
            values: values.to_vec(),
            idempotent: true,
            base_offset: Some(base_offset),
        }
    }

    /// The beginning of a poll that asks the leader.
    #[must_use]
    pub fn poll(partition: &Partition, from: i64) -> Action {
        Action::polled(partition, from, &[])
    }

    /// The end of a poll that asked the leader.
    #[must_use]
    pub fn polled(partition: &Partition, from: i64, records: &[(i64, u64)]) -> Action {
        Action::Poll {
            partition: partition.clone(),
            from,
            leader: true,
            records: records_of(records),
            high_watermark: None,
            log_start: None,
        }
    }

    /// The beginning of a final read.
    #[must_use]
    pub fn final_read(partition: &Partition, node: u32) -> Action {
        Action::final_answer(partition, node, 0, &[])
    }

    /// The end of a final read.
    #[must_use]
    pub fn final_answer(
        partition: &Partition,
        node: u32,
        start: i64,
        records: &[(i64, u64)],
    ) -> Action {
        Action::FinalRead {
            partition: partition.clone(),
            node,
            start,
            records: records_of(records),
            refused: Vec::new(),
        }
    }

    /// Whether an end with this action can belong to a beginning with the other: the same
    /// question.
    #[must_use]
    pub fn asks_the_same(&self, other: &Action) -> bool {
        self.question() == other.question()
    }

    /// The action without what is only known at the end.
    fn question(&self) -> Question<'_> {
        match self {
            Action::Send {
                partition,
                values,
                idempotent,
                ..
            } => Question::Send(partition, values, *idempotent),
            Action::Poll {
                partition,
                from,
                leader,
                ..
            } => Question::Poll(partition, *from, *leader),
            Action::Assign { partition, offset } => Question::Assign(partition, *offset),
            Action::ListOffsets { partition, .. } => Question::ListOffsets(partition),
            Action::DeleteRecords { partition, before } => {
                Question::DeleteRecords(partition, *before)
            }
            Action::DeleteTopic { topic } => Question::DeleteTopic(topic),
            Action::CommitOffset {
                group,
                partition,
                offset,
            } => Question::CommitOffset(group, partition, *offset),
            Action::FetchOffset {
                group, partition, ..
            } => Question::FetchOffset(group, partition),
            Action::FinalRead {
                partition, node, ..
            } => Question::FinalRead(partition, *node),
        }
    }
}

/// What is known of an action at its beginning.
#[derive(PartialEq, Eq)]
enum Question<'a> {
    Send(&'a Partition, &'a [u64], bool),
    Poll(&'a Partition, i64, bool),
    Assign(&'a Partition, i64),
    ListOffsets(&'a Partition),
    DeleteRecords(&'a Partition, i64),
    DeleteTopic(&'a str),
    CommitOffset(&'a str, &'a Partition, i64),
    FetchOffset(&'a str, &'a Partition),
    FinalRead(&'a Partition, u32),
}

fn records_of(records: &[(i64, u64)]) -> Vec<ReadRecord> {
    let of = |&(offset, value): &(i64, u64)| ReadRecord { offset, value };
    records.iter().map(of).collect()
}

/// The beginning or the end of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, on any clock; for people, since the order of events is that of the list.
    pub time: Duration,
    /// Which client. A client that crashes and comes back is another one.
    pub process: u64,
    /// Which operation: its beginning and its end have the same number, and no other has.
    pub op: u64,
    /// Which end of it.
    pub phase: Phase,
    /// What.
    pub action: Action,
}

/// What is open until its end is told to the [`History`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invocation {
    process: u64,
    op: u64,
}

/// A list of events in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    now: Duration,
    ops: u64,
}

impl History {
    /// From now on events happen at this time.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// An operation begins.
    pub fn invoke(&mut self, process: u64, action: Action) -> Invocation {
        self.ops += 1;
        let invocation = Invocation {
            process,
            op: self.ops,
        };
        self.push(invocation, Phase::Invoke, action);
        invocation
    }

    /// It has happened.
    pub fn ok(&mut self, invocation: Invocation, action: Action) {
        self.push(invocation, Phase::Ok, action);
    }

    /// It has not happened.
    pub fn fail(&mut self, invocation: Invocation, action: Action) {
        self.push(invocation, Phase::Fail, action);
    }

    /// Nobody knows.
    pub fn info(&mut self, invocation: Invocation, action: Action) {
        self.push(invocation, Phase::Info, action);
    }

    fn push(&mut self, of: Invocation, phase: Phase, action: Action) {
        self.events.push(Event {
            time: self.now,
            process: of.process,
            op: of.op,
            phase,
            action,
        });
    }
}

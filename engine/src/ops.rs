//! The seam between requests and partitions: what may be asked of a group, and what it answers.
//!
//! Whoever serves requests puts [`Op`]s into an [`OpQueue`] and gets each answered once, by
//! [`OpResult`], in a later step of the same or of a later turn. The queue does not know where a
//! group lives: the shard routes an operation to the partition, to another shard of this node,
//! or refuses it. So a handler is a state machine that can be tested with a queue and nothing
//! else.

use std::collections::VecDeque;

use highwater_consensus::{LogIndex, NodeId};
pub use highwater_log::GroupId;
use highwater_record::{BatchHeader, Buffer, LeaderEpoch, Offset};

use crate::producer_state::ProducerError;

/// The group that holds the cluster's metadata.
pub const CONTROLLER: GroupId = GroupId(0);

/// What an operation is called between its submission and its answer. Unique in the life of a
/// shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Something asked of a group.
#[derive(Debug, Clone)]
pub enum Op {
    /// Append record batches. Answered by [`Outcome::Produced`] when the last of them is
    /// committed.
    Produce(Produce),
    /// Read committed record batches. Answered at once or after a read of the disk, by
    /// [`Outcome::Fetched`], never held back until there is more: that is
    /// [`Op::WatchOffset`]'s task.
    Fetch(Fetch),
    /// Wait until the high watermark is above an offset, or the partition's leader or term
    /// changes. Answered by [`Outcome::Moved`]; a second [`Op::Fetch`] then tells more.
    WatchOffset {
        /// The offset from which there was nothing to read.
        above: Offset,
    },
    /// Find an offset. Answered by [`Outcome::Listed`].
    ListOffset {
        /// Which one.
        spec: OffsetSpec,
        /// The leader epoch that the asker believes in, if it said one.
        current_leader_epoch: Option<LeaderEpoch>,
    },
    /// Find where a leader epoch ends. Answered by [`Outcome::EpochEnd`].
    EpochEnd {
        /// The epoch that is asked about.
        epoch: LeaderEpoch,
        /// The leader epoch that the asker believes in, if it said one.
        current_leader_epoch: Option<LeaderEpoch>,
    },
    /// Establish a linearizable read point: the answer, [`Outcome::Barrier`], names an index
    /// that no write acknowledged before the question lies above.
    Barrier,
    /// Append a control entry; its bytes mean something to the group's owner only. Answered by
    /// [`Outcome::Proposed`] when it is committed.
    Propose {
        /// The entry's body.
        body: Buffer,
    },
    /// Read committed entries of all kinds, from any replica, in order. Answered by
    /// [`Outcome::Entries`], perhaps with none.
    ReadEntries {
        /// The first index wanted.
        from: LogIndex,
        /// Bytes of bodies; one entry is always given if there is one.
        max_bytes: usize,
    },
    /// Wait until the commit index of this replica is above an index. Answered by
    /// [`Outcome::Moved`].
    WatchIndex {
        /// The index up to which the asker knows the entries.
        above: LogIndex,
    },
    /// Delete all records before an offset (Kafka's DeleteRecords). Answered by
    /// [`Outcome::LogStart`] when it is committed.
    DeleteRecords {
        /// The new log start offset; `None` means the high watermark.
        before: Option<Offset>,
    },
    /// Hand leadership to another replica. Answered by [`Outcome::Transferring`] once it is
    /// under way.
    Transfer {
        /// Who is to lead; `None` lets the group choose the most caught-up voter.
        to: Option<NodeId>,
    },
    /// Tell how the replica stands. Answered by [`Outcome::Status`].
    Status,
    /// Tell how far each replica is, as the leader knows. Answered by [`Outcome::Quorum`]; it
    /// wakes no group that has never had a leader.
    Quorum,
}

/// Record batches to append, in order, as one unit: all of them or none.
#[derive(Debug, Clone)]
pub struct Produce {
    /// The batches, one v2 batch each, already validated.
    pub batches: Vec<Batch>,
}

/// A whole, validated v2 record batch and what its header says.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The batch's bytes, from its base offset field on; its CRC has been checked.
    pub bytes: Buffer,
    /// What its header says; it must be the header of `bytes`.
    pub header: BatchHeader,
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The first offset wanted.
    pub offset: Offset,
    /// Bytes of batches; whole batches are given, and one at least if `must_progress`.
    pub max_bytes: usize,
    /// Give one batch even if it is larger than `max_bytes` (KIP-74: only for the first
    /// partition with data).
    pub must_progress: bool,
    /// The leader epoch that the asker believes in, if it said one.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Who may answer.
    pub from: ReadFrom,
}

/// Which replica may answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Only the leader, as Kafka's clients expect.
    Leader,
    /// Any replica, as far as it knows the commits.
    AnyReplica,
}

/// Which offset [`Op::ListOffset`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one still there: the log start offset.
    Earliest,
    /// The one behind the last committed record: the high watermark.
    Latest,
    /// That of the first batch with a record at or after this time, in milliseconds since the
    /// Unix epoch.
    Timestamp(i64),
    /// That of the record with the largest timestamp (KIP-734).
    MaxTimestamp,
}

/// What came of an operation.
pub type OpResult = Result<Outcome, OpError>;

/// The answer to an operation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The batches are committed.
    Produced {
        /// The offset of the first record of the first batch.
        base_offset: Offset,
        /// The leader's clock when it was appended, in milliseconds, if the topic's timestamps
        /// are the log's.
        log_append_time_ms: Option<i64>,
        /// The log start offset.
        log_start_offset: Offset,
    },
    /// Committed batches.
    Fetched(Fetched),
    /// What was waited for has happened, or may have.
    Moved,
    /// The offset that was looked for.
    Listed {
        /// It, or `None` if no record is that late.
        offset: Option<Offset>,
        /// The timestamp of the batch it lies in, in milliseconds; -1 where Kafka has none.
        timestamp: i64,
        /// The leader epoch of that batch, where there is one.
        leader_epoch: Option<LeaderEpoch>,
    },
    /// Where an epoch ends.
    EpochEnd {
        /// The largest epoch at or below the one asked about that has entries here.
        epoch: Option<LeaderEpoch>,
        /// The offset behind its last entry.
        end_offset: Option<Offset>,
    },
    /// The read point.
    Barrier {
        /// Apply entries up to and with this index before reading.
        index: LogIndex,
        /// The high watermark at that index.
        high_watermark: Offset,
    },
    /// The control entry is committed.
    Proposed {
        /// Its index.
        index: LogIndex,
    },
    /// Committed entries.
    Entries {
        /// Consecutive entries from the index asked for on.
        entries: Vec<CommittedEntry>,
        /// This replica's commit index.
        commit_index: LogIndex,
    },
    /// The log start offset is committed.
    LogStart {
        /// It.
        log_start_offset: Offset,
    },
    /// A hand-over of leadership has begun.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// How the replica stands.
    Status(ReplicaStatus),
    /// How far each replica is.
    Quorum(Quorum),
}

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches as they lie on disk, in order; the first holds the offset asked for. Empty
    /// if there is nothing there yet.
    pub spans: Vec<Buffer>,
    /// The offset behind the last batch in `spans`; the one asked for if there is none.
    pub next_offset: Offset,
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    /// The first offset still there.
    pub log_start_offset: Offset,
}

/// An entry that is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Its index.
    pub index: LogIndex,
    /// Its kind.
    pub kind: CommittedKind,
    /// Its bytes: a record batch, or what was proposed; empty for entries of the engine's own.
    pub body: Buffer,
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommittedKind {
    /// A record batch.
    Data {
        /// The offset of its first record.
        base_offset: Offset,
        /// How many offsets it takes.
        offset_span: u32,
    },
    /// What [`Op::Propose`] appended.
    Control,
    /// The engine's own: a new leader's first entry, a move of the log start.
    Internal,
}

/// How a replica stands, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Whether this replica leads.
    pub is_leader: bool,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub leader_epoch: LeaderEpoch,
    /// The first offset still there.
    pub log_start_offset: Offset,
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    /// The offset behind the last record.
    pub log_end_offset: Offset,
    /// The commit index.
    pub commit_index: LogIndex,
    /// The last index.
    pub last_index: LogIndex,
}

/// How far the replicas of a group are, as its leader knows. For the controller's group an entry
/// counts as an offset, since its entries have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The leader: whoever answers.
    pub leader: NodeId,
    /// Its term.
    pub leader_epoch: LeaderEpoch,
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    /// Those whose votes count, in the order of their placement.
    pub voters: Vec<QuorumReplica>,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Which.
    pub node: NodeId,
    /// The leader's own log end offset; of another replica the offset behind what it has synced,
    /// never more than that, or `None` if it has said nothing since its link came up.
    pub log_end_offset: Option<Offset>,
}

/// Why an operation failed, and whether it may have happened all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// This node has no such group (yet, or any more). Nothing was done; refresh the metadata.
    #[error("no replica of this partition is here")]
    UnknownGroup,
    /// Another replica leads, or none. Nothing was done; go there.
    #[error("not the leader (leader: {leader:?}, epoch {epoch:?})")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
        /// The newest epoch that this replica knows.
        epoch: LeaderEpoch,
    },
    /// Something was appended and its leader deposed before it was committed: it may yet be
    /// committed, or not. Never to be reported as a refusal.
    #[error("leadership was lost before the outcome was known")]
    Indefinite,
    /// Memory, disk or the window of uncommitted entries is full. Nothing was done; try later.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// The new leader has not committed in its term yet. Try again soon.
    #[error("the leader does not know its high watermark yet")]
    OffsetNotAvailable,
    /// The offset is below the log start, or above the log end.
    #[error("offset {offset} is outside of {log_start_offset}..{log_end_offset}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset still there.
        log_start_offset: Offset,
        /// The offset behind the last record.
        log_end_offset: Offset,
    },
    /// The entries below are gone; the group's owner begins from its snapshot.
    #[error("entries before {first} are gone")]
    BelowLogStart {
        /// The first index still there.
        first: LogIndex,
    },
    /// The asker believes in an older leader epoch. Refresh the metadata.
    #[error("leader epoch {asked} is over, it is {current} now")]
    FencedLeaderEpoch {
        /// What the asker believes in.
        asked: LeaderEpoch,
        /// The current one.
        current: LeaderEpoch,
    },
    /// The asker believes in a newer leader epoch than this replica knows. Try again soon.
    #[error("leader epoch {asked} is not known yet, it is {current} here")]
    UnknownLeaderEpoch {
        /// What the asker believes in.
        asked: LeaderEpoch,
        /// The current one.
        current: LeaderEpoch,
    },
    /// The producer's sequence or epoch is wrong. Nothing was appended.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The entry is larger than an entry may be. Nothing was appended.
    #[error("{bytes} bytes are more than an entry may have ({limit})")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The disk cannot give this range, or has failed.
    #[error("storage: {0}")]
    Storage(String),
    /// The operation was cancelled by [`OpQueue::cancel`], or the shard it crossed to is gone.
    /// A produce or proposal may have happened.
    #[error("cancelled")]
    Cancelled,
}

/// Something to do about groups themselves; not answered.
#[derive(Debug, Clone)]
pub enum GroupCommand {
    /// Host a replica of a group. Without effect if it is here already.
    Create(GroupSpec),
    /// Remove the replica and its files, for good.
    Drop(GroupId),
    /// Remove every replica of a group below `below`, but those in `live`: after a start or a
    /// restored state, when what was deleted meanwhile is no longer told one by one. Numbers are
    /// given out in order and once, so a number below that is not live was deleted by a
    /// committed command; the controller itself is always live.
    Retain {
        /// The first number that has not been given out yet.
        below: GroupId,
        /// Those that are to stay, ascending.
        live: Vec<GroupId>,
    },
    /// Change what can be changed.
    Configure {
        /// Which group.
        group: GroupId,
        /// Its configuration from now on.
        config: GroupConfig,
    },
}

/// A group as its create record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its number.
    pub group: GroupId,
    /// Its voters in order of preference: the first is to lead when all are well.
    pub replicas: Vec<NodeId>,
    /// How it is kept.
    pub config: GroupConfig,
}

/// How a group's log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Bytes above which whole files are removed from the front; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// Milliseconds after which whole files are removed; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// How large a file may become, in bytes.
    pub segment_bytes: u64,
    /// How old a file may become before the next is begun, in milliseconds.
    pub segment_ms: u64,
    /// The largest batch, in bytes, after which an append is refused with
    /// [`OpError::TooLarge`].
    pub max_message_bytes: usize,
    /// Whether the leader's clock replaces the producer's timestamps.
    pub log_append_time: bool,
}

impl Default for GroupConfig {
    /// Kafka's defaults: a week, files of 1 GiB, batches of 1 MiB (KAFKA: topic configs).
    fn default() -> GroupConfig {
        GroupConfig {
            retention_bytes: None,
            retention_ms: Some(7 * 24 * 60 * 60 * 1_000),
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1_000,
            max_message_bytes: 1_048_588,
            log_append_time: false,
        }
    }
}

/// What a handler asks for, in order; taken out by the shard.
#[derive(Debug)]
pub enum Asked {
    /// An operation to be answered.
    Op {
        /// Its name.
        id: OpId,
        /// On which group.
        group: GroupId,
        /// What.
        op: Op,
    },
    /// No answer is wanted any more, or the answer so far: a waiting operation is answered with
    /// [`OpError::Cancelled`] at once; one that is on its way is answered as it would be.
    Cancel {
        /// Which operation.
        id: OpId,
        /// On which group.
        group: GroupId,
    },
    /// Something about groups themselves.
    Group(GroupCommand),
}

/// Where handlers put what they ask for.
#[derive(Debug, Default)]
pub struct OpQueue {
    next: u64,
    asked: VecDeque<Asked>,
}

impl OpQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> OpQueue {
        OpQueue::default()
    }

    /// Asks `op` of `group` and returns what its answer will be called.
    pub fn submit(&mut self, group: GroupId, op: Op) -> OpId {
        self.next += 1;
        let id = OpId(self.next);
        self.asked.push_back(Asked::Op { id, group, op });
        id
    }

    /// Stops waiting for `id`, which was asked of `group`; see [`Asked::Cancel`].
    pub fn cancel(&mut self, group: GroupId, id: OpId) {
        self.asked.push_back(Asked::Cancel { id, group });
    }

    /// Creates, drops or configures a replica on this node.
    pub fn command(&mut self, command: GroupCommand) {
        self.asked.push_back(Asked::Group(command));
    }

    /// Takes the oldest question out.
    pub fn take(&mut self) -> Option<Asked> {
        self.asked.pop_front()
    }
}

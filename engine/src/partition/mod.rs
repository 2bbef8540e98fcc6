//! One replica of one group: its Raft member and its log, bound together.
//!
//! Messages, completions and operations come in at any time of a turn; they are noted and the
//! partition becomes dirty. Once a turn the shard [steps](Partition::step) it: what consensus
//! wants is done, what producers sent is admitted and proposed, and what that brings is done
//! too. Nothing here waits: what needs the disk or a quorum lies in [`Waiting`] until then.

mod admit;
mod apply;
mod beats;
mod events;
mod operate;
mod producers;
mod read;
mod repair;
mod restore;
mod retention;
mod send;
mod state;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_consensus as consensus;
use highwater_consensus::{Lane, LogIndex, NodeId, Raft, RoleKind, Session};
use highwater_log::storage::Storage;
use highwater_log::{self as log, Store};
use highwater_record::{Buffer, BufferPool, Offset};

use crate::counters::PartitionCounters;
use crate::io::{LeaderHint, Now, ShardId, Ticket};
use crate::ops::{GroupConfig, GroupId, GroupSpec, OpId, OpResult, ReplicaStatus};
use crate::peer::Section;
use crate::positions::{self, Positions};

pub(crate) use beats::{KeptId, KeptPlace};
pub(crate) use restore::Restored;
pub use state::{GroupState, GroupStateError};

use producers::Producers;
use read::PendingRead;
use send::SendQueue;
use waiting::{Queued, Waiting};

/// Who asked for an operation, and what they call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// This shard's service.
    Service(OpId),
    /// Another shard of this node.
    Shard(ShardId, OpId),
    /// The shard's owner.
    Local(Ticket),
}

/// What stepping a partition needs of its shard.
pub(crate) struct Env<'a, S: Storage> {
    pub(crate) now: Now,
    /// Whether what the wall clock calls old is not to be believed (F30).
    pub(crate) is_wall_doubted: bool,
    pub(crate) store: &'a mut Store<S>,
    pub(crate) pool: &'a BufferPool,
    pub(crate) effects: &'a mut Effects,
    /// The state of a group's owner and the last entry that it includes, if it keeps any.
    pub(crate) owner_state: &'a dyn Fn(GroupId) -> Option<(LogIndex, Buffer)>,
}

/// What stepping partitions leaves for the shard to do.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Operations that are answered.
    pub(crate) done: Vec<(Origin, OpResult)>,
    /// What is to be sent.
    pub(crate) sends: Vec<PeerSend>,
    /// Leaders that have become known.
    pub(crate) leaders: Vec<LeaderHint>,
    /// Groups whose rows are to be sent without waiting for the interval.
    pub(crate) beats: Vec<GroupId>,
    /// State of a group's owner that came with a base.
    pub(crate) restored: Vec<(GroupId, LogIndex, Buffer)>,
    /// What partitions have done, in numbers; never taken.
    pub(crate) counters: PartitionCounters,
}

impl Effects {
    /// Whether nothing waits to be taken; what is to be sent goes at the end of the turn.
    pub(crate) fn is_settled(&self) -> bool {
        self.done.is_empty()
            && self.leaders.is_empty()
            && self.beats.is_empty()
            && self.restored.is_empty()
    }
}

/// A section on its way to a peer.
#[derive(Debug)]
pub(crate) struct PeerSend {
    pub(crate) to: NodeId,
    pub(crate) session: Session,
    pub(crate) lane: Lane,
    pub(crate) section: Section,
}

/// An entry whose bytes are here and whose append consensus has not yet put out.
#[derive(Debug)]
struct Arriving {
    entry: log::NewEntry,
    /// Its batch, if it came from a producer here: then the producers' state has it already.
    is_proposal: bool,
}

/// One replica of one group.
pub(crate) struct Partition {
    group: GroupId,
    spec: GroupSpec,
    raft: Raft,
    positions: Positions,
    producers: Producers,
    log_start_offset: Offset,
    waiting: Waiting,
    /// Produces and proposals not yet admitted, in order.
    queued: VecDeque<Queued>,
    queued_bytes: usize,
    /// Bytes of entries that consensus may put out as appends in this step.
    arriving: BTreeMap<(u64, u32), Arriving>,
    /// Bases that came with messages handled in this step.
    bases: BTreeMap<LogIndex, log::Base>,
    reads: BTreeMap<u64, PendingRead>,
    next_read: u64,
    senders: BTreeMap<(NodeId, Lane), SendQueue>,
    /// What was read for a follower far behind, until consensus has said what of it to send.
    chunks: BTreeMap<NodeId, Vec<log::Entry>>,
    /// Where the next proposal of this step begins, if there was one.
    admitted_end: Option<Offset>,
    /// Files that are full, until all in them is committed.
    closed: VecDeque<(log::Sequence, log::LogIndex)>,
    /// The disk holds something that contradicts the leader: this replica takes part no more.
    frozen: Option<String>,
    retention_due: Duration,
    supplier: repair::Supplier,
    making_way: repair::MakingWay,
    is_disk_full: bool,
    kept_place: Option<KeptPlace>,
}

impl Partition {
    /// A replica with what its disk remembers.
    pub(crate) fn new(
        spec: GroupSpec,
        config: consensus::Config,
        restored: Restored,
        seed: u64,
        now: Now,
    ) -> Result<Partition, consensus::ConfigError> {
        let raft = Raft::new(config, restored.raft, seed, now.monotonic)?;
        Ok(Partition {
            group: spec.group,
            spec,
            raft,
            positions: restored.positions,
            producers: restored.producers,
            log_start_offset: restored.log_start_offset,
            waiting: Waiting::default(),
            queued: VecDeque::new(),
            queued_bytes: 0,
            arriving: BTreeMap::new(),
            bases: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            senders: BTreeMap::new(),
            chunks: BTreeMap::new(),
            admitted_end: None,
            closed: restored.closed,
            frozen: None,
            retention_due: now.monotonic + retention::INTERVAL,
            supplier: repair::Supplier::default(),
            making_way: repair::MakingWay::default(),
            is_disk_full: false,
            kept_place: None,
        })
    }

    /// Who leads, as far as this replica, which leads, knows.
    pub(crate) fn leader_hint(&self) -> LeaderHint {
        LeaderHint {
            group: self.group,
            epoch: positions::epoch(self.raft.term()),
            leader: self.raft.node(),
        }
    }

    /// What can be changed is changed.
    pub(crate) fn configure(&mut self, config: GroupConfig) {
        self.spec.config = config;
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.role() == RoleKind::Leader
    }

    /// It contradicts its leader, or itself, and takes part no more.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Appends with entries on their way to followers; none unless leading.
    pub(crate) fn appends_in_flight(&self) -> usize {
        let replicas = self.spec.replicas.iter();
        replicas
            .map(|&replica| self.raft.in_flight_appends(replica))
            .sum()
    }

    /// Nothing was ever written here and nobody has asked: it elects nobody by itself, so that
    /// thousands of unused partitions cost nothing (DESIGN.md section 4, Size). The controller's
    /// group never sleeps.
    fn is_dormant(&self) -> bool {
        self.group != crate::ops::CONTROLLER
            && self.raft.term() == consensus::Term::ZERO
            && self.raft.last() == consensus::EntryId::ZERO
            && self.raft.role() == RoleKind::Follower
            && self.waiting.held.is_empty()
    }

    /// When it is to be looked at again, if nothing happens before. `is_heard`: it leads, and need
    /// not look by itself whether a quorum hears it.
    pub(crate) fn next_timeout(&self, is_heard: bool) -> Option<Duration> {
        if self.frozen.is_some() {
            return None;
        }
        let is_asleep = self.is_dormant() || self.is_waited_for() || is_heard;
        let election = self.raft.next_timeout().filter(|_| !is_asleep);
        let retention = self.is_leader().then_some(self.retention_due);
        [election, retention, self.waiting.held_until()]
            .into_iter()
            .flatten()
            .min()
    }

    /// How the replica stands.
    pub(crate) fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            is_leader: self.is_leader(),
            leader: self.raft.leader(),
            leader_epoch: positions::epoch(self.raft.term()),
            log_start_offset: self.log_start_offset,
            high_watermark: self.positions.high_watermark(),
            log_end_offset: self.positions.end_offset(),
            commit_index: self.raft.commit_index(),
            last_index: self.raft.last().index,
        }
    }

    /// Does all that has become possible: once a turn, after its inputs.
    pub(crate) fn step<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        self.apply_outputs(env);
        self.arriving.clear();
        self.bases.clear();
        if self.admit_queued(env) {
            self.apply_outputs(env);
            assert!(self.arriving.is_empty(), "what was proposed is put out");
        }
        self.release_held(env);
    }

    /// A message of a peer about this group.
    pub(crate) fn handle_section<S: Storage>(
        &mut self,
        store: &log::Store<S>,
        now: Now,
        from: NodeId,
        session: Session,
        section: Section,
    ) {
        if self.frozen.is_some() {
            return;
        }
        let message = match section {
            Section::Message { message, .. } => message,
            Section::Append {
                message, entries, ..
            } => {
                for entry in entries {
                    self.arrive(entry);
                }
                message
            }
            Section::Base { message, base, .. } => {
                let before = positions::index_from_log(base.start.before.index);
                self.bases.insert(before, base);
                message
            }
            Section::Beats(_)
            | Section::BeatAnswers(_)
            | Section::Repeat(_)
            | Section::RepeatAnswer(_)
            | Section::Leaders(_)
            | Section::Wanted { .. }
            | Section::Supply { .. }
            | Section::Service { .. } => return,
        };
        let is_busy = self.is_disk_full || self.cannot_cut(store, &message);
        self.raft.handle_disk_full(is_busy);
        let handled = self
            .raft
            .handle_message(now.monotonic, from, session, message);
        if let Err(error) = handled {
            tracing::debug!(group = self.group.0, %error, "message ignored");
        }
    }

    fn arrive(&mut self, entry: log::Entry) {
        let key = (entry.id.index.0, entry.id.term.0);
        let entry = log::NewEntry {
            id: entry.id,
            kind: entry.kind,
            base_offset: entry.base_offset,
            offset_span: entry.offset_span,
            append_time: entry.append_time,
            body: entry.body,
            body_crc: entry.body_crc,
            chain: Some(entry.chain),
        };
        let arriving = Arriving {
            entry,
            is_proposal: false,
        };
        self.arriving.insert(key, arriving);
    }

    pub(crate) fn handle_peer_up(&mut self, now: Now, peer: NodeId, session: Session) {
        self.senders.retain(|(to, _), _| *to != peer);
        self.raft.handle_peer_up(now.monotonic, peer, session);
    }

    pub(crate) fn handle_peer_down(&mut self, now: Now, peer: NodeId, session: Session) {
        self.senders.retain(|(to, _), _| *to != peer);
        self.chunks.remove(&peer);
        self.raft.handle_peer_down(now.monotonic, peer, session);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout<S: Storage>(&mut self, env: &mut Env<'_, S>) {
        if self.frozen.is_some() {
            return;
        }
        if !self.is_dormant() {
            self.raft.handle_timeout(env.now.monotonic);
        }
        self.waiting
            .expire_held(env.now.monotonic, env.effects, || {
                crate::ops::OpError::NotLeader {
                    leader: self.raft.leader(),
                    epoch: positions::epoch(self.raft.term()),
                }
            });
        self.propose_retention(env);
        self.make_way(env);
    }

    /// This replica contradicts its leader, or itself. It goes on to exist, silent, so that a
    /// person can look at it; its peers take it for dead.
    fn freeze(&mut self, reason: String) {
        tracing::error!(group = self.group.0, reason, "replica frozen");
        self.frozen = Some(reason);
    }
}

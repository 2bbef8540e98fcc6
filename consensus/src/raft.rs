//! One member of one group: [`Raft`], its state and its calls.

use std::time::Duration;

use crate::config::{Config, Restored};
use crate::error::{ConfigError, MessageError, ProposeError, ReadError, TransferError};
use crate::message::{BeatException, BeatRow, Message};
use crate::output::{Output, RoleKind};
use crate::types::{
    BeatRound, EntryId, EntryMeta, LogIndex, NodeId, ProposedEntry, ReadId, Session, Term, WriteId,
};

/// One member of one group.
///
/// `now` is the time since an arbitrary origin, the same for all calls, and never runs backwards.
/// After each call, or after all calls of a turn, take [outputs](Raft::poll_output) until there
/// are none.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    restored: Restored,
}

/// Commands.
impl Raft {
    /// A member with what its disk remembers. Its random numbers come from `seed`, which must
    /// differ between the members of a group. A group's only voter begins to elect itself.
    pub fn new(
        config: Config,
        restored: Restored,
        _seed: u64,
        _now: Duration,
    ) -> Result<Raft, ConfigError> {
        config.validate()?;
        Ok(Raft { config, restored })
    }

    /// Appends entries to the leader's log and returns the identity of the first; the others
    /// follow it by index, in the same term. All of them or none.
    pub fn propose(&mut self, entries: &[ProposedEntry]) -> Result<EntryId, ProposeError> {
        let _ = entries;
        Err(ProposeError::NotLeader { leader: None })
    }

    /// Asks for a read point; [`Output::ReadReady`] or [`Output::ReadFailed`] answers
    /// (thesis, section 6.4).
    pub fn read_index(&mut self) -> Result<ReadId, ReadError> {
        Err(ReadError::NotLeader { leader: None })
    }

    /// Hands leadership to `to` (thesis, section 3.10): proposals are refused until it has taken
    /// over, or an election timeout has passed.
    pub fn transfer_leadership(&mut self, now: Duration, to: NodeId) -> Result<(), TransferError> {
        let _ = (now, to);
        Err(TransferError::NotLeader { leader: None })
    }

    /// Campaigns now instead of at the next timeout, by way of a pre-vote. Without effect on a
    /// leader, a learner, and whoever may not campaign.
    pub fn campaign(&mut self, now: Duration) {
        let _ = now;
    }

    /// How many more bytes of entries may be sent to `peer`: the part of the peer's allowance
    /// (over all groups) that this group may use. Unlimited until it is first set; sending
    /// lowers it, and at 0 nothing but probes is sent until it is set again.
    pub fn set_allowance(&mut self, peer: NodeId, bytes: u64) {
        let _ = (peer, bytes);
    }

    /// The row of this group in the beat frame `round` to `peer`; `None` if there is nothing to
    /// say: not the leader, no member, no session. Calling it counts as sending it.
    pub fn beat_row(&mut self, peer: NodeId, round: BeatRound) -> Option<BeatRow> {
        let _ = (peer, round);
        None
    }
}

/// Events.
impl Raft {
    /// A message of a peer has come in `session`.
    pub fn handle_message(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        message: Message,
    ) -> Result<(), MessageError> {
        let _ = (now, from, session, message);
        Ok(())
    }

    /// A beat frame of `from` has a row for this group. The answer is `None` if all is well.
    pub fn handle_beat(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        row: BeatRow,
    ) -> Option<BeatException> {
        let _ = (now, from, session, row);
        None
    }

    /// `from` has answered the beat frame `round`, which had a row of this group.
    pub fn handle_beat_ack(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        round: BeatRound,
        exception: Option<BeatException>,
    ) {
        let _ = (now, from, session, round, exception);
    }

    /// Time has passed. Too early a call does nothing.
    pub fn handle_timeout(&mut self, now: Duration) {
        let _ = now;
    }

    /// Everything up to and with `write` is durable.
    pub fn handle_persisted(&mut self, now: Duration, write: WriteId) {
        let _ = (now, write);
    }

    /// A link to `peer` is up, under a session never seen before.
    pub fn handle_peer_up(&mut self, now: Duration, peer: NodeId, session: Session) {
        let _ = (now, peer, session);
    }

    /// The link of `session` is down.
    pub fn handle_peer_down(&mut self, now: Duration, peer: NodeId, session: Session) {
        let _ = (now, peer, session);
    }

    /// The driver has read what [`Output::CatchUp`] asked for: consecutive entries from the
    /// index asked for on. An [`Output::Send`] with exactly these entries, or a part from the
    /// front, may follow at once. What is no longer wanted is ignored.
    pub fn handle_chunk(&mut self, to: NodeId, session: Session, entries: &[EntryMeta]) {
        let _ = (to, session, entries);
    }

    /// The log now starts at `first`: what lies before it is gone, or going. It must be
    /// committed.
    pub fn handle_log_start(&mut self, first: LogIndex) {
        let _ = first;
    }

    /// Whether the disk has no room for entries of a leader. While full, appends are answered
    /// with [`AppendOutcome::Busy`](crate::AppendOutcome::Busy).
    pub fn handle_disk_full(&mut self, full: bool) {
        let _ = full;
    }

    /// All holes of [`Quarantine::Hole`](crate::Quarantine::Hole) are filled by repaired copies.
    pub fn handle_repaired(&mut self) {}

    /// The next thing to do, `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
}

/// Questions.
impl Raft {
    /// When [`Raft::handle_timeout`] is to be called next; `None` if never. It moves with each
    /// beat, always later: a driver may look again only when the time it knew has come.
    pub fn next_timeout(&self) -> Option<Duration> {
        None
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// The group's members.
    pub fn membership(&self) -> &crate::Membership {
        &self.config.membership
    }

    /// Its role.
    pub fn role(&self) -> RoleKind {
        RoleKind::Follower
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.restored.term
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        None
    }

    /// The last entry of the log, synced or not.
    pub fn last(&self) -> EntryId {
        EntryId::ZERO
    }

    /// All entries up to here are decided.
    pub fn commit_index(&self) -> LogIndex {
        LogIndex::ZERO
    }

    /// All entries up to here are on this node's disk.
    pub fn synced_index(&self) -> LogIndex {
        LogIndex::ZERO
    }

    /// Whether this node leads and has committed an entry of its own term, so that its commit
    /// index is at least that of every leader before it.
    pub fn leads_with_commit(&self) -> bool {
        false
    }

    /// Bytes of entries on their way to `peer`, sent and not yet synced there; 0 unless leading.
    pub fn in_flight_bytes(&self, peer: NodeId) -> u64 {
        let _ = peer;
        0
    }

    /// The term of the entry at `index`, `None` outside the log.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let _ = index;
        None
    }
}

//! One member of one group: [`Raft`], its state and its calls.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::config::{Config, Restored};
use crate::election::Grant;
use crate::error::{ConfigError, MessageError, ProposeError, ReadError, TransferError};
use crate::follow::Append;
use crate::invariants::Observed;
use crate::membership::Membership;
use crate::message::{BeatException, BeatRow, Lane, Message};
use crate::output::{Output, RoleKind};
use crate::quarantine::Health;
use crate::role::{Follower, Following, Role};
use crate::tail::Tail;
use crate::types::{
    BeatRound, EntryId, EntryMeta, LogIndex, NodeId, ProposedEntry, ReadId, Session, Term, WriteId,
};
use crate::writes::Writes;

/// One member of one group.
///
/// `now` is the time since an arbitrary origin, the same for all calls, and never runs backwards.
/// After each call, or after all calls of a turn, take [outputs](Raft::poll_output) until there
/// are none.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) rng: fastrand::Rng,
    pub(crate) hard: HardState,
    /// The hard state that was last put out, and by which write.
    staged_hard: HardState,
    pub(crate) staged_write: WriteId,
    pub(crate) tail: Tail,
    pub(crate) writes: Writes,
    /// Never falls; at most the last index. Not stored: a restarted node learns it anew (P30).
    pub(crate) commit: LogIndex,
    pub(crate) role: Role,
    /// How the log stands against that of the current term's leader; `None` in its own term.
    pub(crate) following: Option<Following>,
    pub(crate) health: Health,
    /// See [`Restored::promises_lost`]. For this life and all that follow.
    pub(crate) promises_lost: bool,
    /// A grant that waits for the disk.
    pub(crate) grant: Option<Grant>,
    links: BTreeMap<NodeId, Session>,
    pub(crate) is_disk_full: bool,
    pub(crate) last_read: ReadId,
    pub(crate) announced: (Term, RoleKind, Option<NodeId>),
    pub(crate) outputs: VecDeque<Output>,
    /// The state after the last call, to compare with.
    observed: Option<Box<Observed>>,
}

/// What survives a crash beside the log (paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct HardState {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
}

/// Commands.
impl Raft {
    /// A member with what its disk remembers. Its random numbers come from `seed`, which must
    /// differ between the members of a group. A group's only voter begins to elect itself.
    pub fn new(
        config: Config,
        restored: Restored,
        seed: u64,
        now: Duration,
    ) -> Result<Raft, ConfigError> {
        config.validate()?;
        let Restored {
            before,
            epochs,
            last,
            ..
        } = &restored;
        let tail = Tail::restore(*before, epochs, *last, config.tail_entries_max)
            .map_err(ConfigError::Restored)?;
        let health = Health::restore(restored.quarantine, *last).map_err(ConfigError::Restored)?;
        let staged_hard = HardState {
            term: restored.term,
            vote: restored.vote,
        };
        let mut hard = staged_hard;
        if mutant!("vote forgotten by a restart") {
            hard.vote = None;
        }
        if tail.last().term > hard.term {
            if !restored.promises_lost {
                return Err(ConfigError::Restored("an entry is of a later term (P04)"));
            }
            hard = HardState {
                term: tail.last().term,
                vote: None,
            };
        }
        let mut raft = Raft {
            config,
            rng: fastrand::Rng::with_seed(seed),
            hard,
            staged_hard,
            staged_write: WriteId::ZERO,
            commit: tail.before().index,
            writes: Writes::restore(tail.last().index),
            tail,
            role: Role::Follower(Follower::idle()),
            following: None,
            health,
            promises_lost: restored.promises_lost,
            grant: None,
            links: BTreeMap::new(),
            is_disk_full: false,
            last_read: ReadId(0),
            announced: (hard.term, RoleKind::Follower, None),
            outputs: VecDeque::new(),
            observed: None,
        };
        raft.begin(now);
        Ok(raft)
    }

    fn begin(&mut self, now: Duration) {
        if self.is_sole_voter() && self.may_campaign() {
            self.become_candidate(now, false);
        } else if self.is_voter() {
            let deadline = self.draw_deadline(now);
            if let Role::Follower(follower) = &mut self.role {
                follower.deadline = Some(deadline);
            }
        }
        self.end_call();
    }

    /// Appends entries to the leader's log and returns the identity of the first; the others
    /// follow it by index, in the same term. All of them or none.
    pub fn propose(&mut self, entries: &[ProposedEntry]) -> Result<EntryId, ProposeError> {
        let proposed = self.admit(entries);
        self.end_call();
        proposed
    }

    /// Asks for a read point; [`Output::ReadReady`] or [`Output::ReadFailed`] answers
    /// (thesis, section 6.4).
    pub fn read_index(&mut self) -> Result<ReadId, ReadError> {
        let read = self.begin_read();
        self.end_call();
        read
    }

    /// Hands leadership to `to` (thesis, section 3.10): proposals are refused until it has taken
    /// over, or an election timeout has passed.
    pub fn transfer_leadership(&mut self, now: Duration, to: NodeId) -> Result<(), TransferError> {
        let begun = self.begin_transfer(now, to);
        self.end_call();
        begun
    }

    /// Campaigns now instead of at the next timeout, by way of a pre-vote. Without effect on a
    /// leader, a candidate, a learner, and whoever may not campaign.
    pub fn campaign(&mut self, now: Duration) {
        if matches!(self.role, Role::Follower(_)) && self.may_campaign() {
            self.election_timed_out(now);
        }
        self.end_call();
    }

    /// How many more bytes of entries may be sent to `peer`: the part of the peer's allowance
    /// (over all groups) that this group may use. Unlimited at the start of each leadership until
    /// it is set; sending lowers it, and at 0 nothing but probes is sent until it is set again.
    pub fn set_allowance(&mut self, peer: NodeId, bytes: u64) {
        if let Some(progress) = self.progress_mut(peer) {
            progress.allowance = bytes;
            self.must_send();
        }
    }

    /// The row of this group in the beat frame `round` to `peer`; `None` if there is nothing to
    /// say: not the leader, no member, no session. Calling it counts as sending it.
    pub fn beat_row(&mut self, peer: NodeId, round: BeatRound) -> Option<BeatRow> {
        self.make_beat_row(peer, round)
    }
}

/// Events.
impl Raft {
    /// A message of a peer has come in `session`.
    ///
    /// An error changes nothing but, for a [`Diverged`](MessageError::Diverged) one, the known
    /// leader; it is the driver's to count, and an alarm if it is that one.
    pub fn handle_message(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        message: Message,
    ) -> Result<(), MessageError> {
        self.check_sender(from, session)?;
        let handled = self.dispatch(now, from, session, message);
        self.end_call();
        handled
    }

    fn check_sender(&self, from: NodeId, session: Session) -> Result<(), MessageError> {
        if from == self.config.node || !self.config.membership.contains(from) {
            return Err(MessageError::NotAMember { from });
        }
        let current = self.session_of(from);
        if current != Some(session) {
            return Err(MessageError::OtherSession {
                from,
                session,
                current,
            });
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        message: Message,
    ) -> Result<(), MessageError> {
        if message.is_of_a_voter() && !self.config.membership.is_voter(from) {
            let what = "a learner campaigns or leads";
            return Err(MessageError::Malformed { from, what });
        }
        match message {
            Message::PreVote { term, last } => self.handle_pre_vote(now, from, term, last),
            Message::PreVoteReply { term, granted } => {
                self.handle_pre_vote_reply(now, from, term, granted);
            }
            Message::Vote {
                term,
                last,
                transfer,
            } => self.handle_vote(now, from, term, last, transfer),
            Message::VoteReply { term, granted } => {
                self.handle_vote_reply(now, from, term, granted);
            }
            Message::Append {
                term,
                window,
                previous,
                entries,
                commit,
            } => {
                let append = Append {
                    term,
                    window,
                    previous,
                    entries,
                    commit,
                };
                return self.handle_append(now, from, session, append);
            }
            Message::AppendReply {
                term,
                window,
                outcome,
            } => return self.handle_append_reply(now, from, term, window, outcome),
            Message::Base {
                term,
                window,
                before,
            } => return self.handle_base(now, from, session, term, window, before),
            Message::TimeoutNow { term } => self.handle_timeout_now(now, from, term),
        }
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
        if self.check_sender(from, session).is_err() {
            return Some(BeatException::Unknown);
        }
        let exception = self.answer_beat(now, from, session, row);
        self.end_call();
        exception
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
        if self.check_sender(from, session).is_ok() {
            self.beat_acknowledged(now, from, round, exception);
        }
        self.end_call();
    }

    /// Time has passed. Too early a call does nothing.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.role.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.role {
            Role::Leader(_) => self.leader_timed_out(now),
            _ => self.election_timed_out(now),
        }
        self.end_call();
    }

    /// Everything up to and with `write` is durable.
    ///
    /// # Panics
    /// If `write` was never put out.
    pub fn handle_persisted(&mut self, now: Duration, write: WriteId) {
        if self.writes.persisted(write) {
            self.release_grant();
            self.own_vote_persisted(now);
            self.try_rejoin();
            self.advance_commit();
        }
        self.end_call();
    }

    /// A link to `peer` is up, under a session never seen before.
    pub fn handle_peer_up(&mut self, now: Duration, peer: NodeId, session: Session) {
        if peer == self.config.node || !self.config.membership.contains(peer) {
            return;
        }
        if let Some(old) = self.session_of(peer) {
            self.handle_peer_down(now, peer, old);
        }
        self.links.insert(peer, session);
        self.begin_session(peer, Some(session));
        self.ask(peer);
        self.end_call();
    }

    /// The link of `session` is down.
    ///
    /// If it was the leader's, that may well be dead: the election timeout is cut short. Should
    /// the others still hear the leader, they refuse the pre-vote, and nothing comes of it.
    pub fn handle_peer_down(&mut self, now: Duration, peer: NodeId, session: Session) {
        if self.session_of(peer) != Some(session) {
            return;
        }
        self.links.remove(&peer);
        self.begin_session(peer, None);
        self.abandon_transfer(peer);
        self.lose_leader(now, peer);
        self.end_call();
    }

    fn begin_session(&mut self, peer: NodeId, session: Option<Session>) {
        let next = self.tail.last().index.next();
        if let Some(progress) = self.progress_mut(peer) {
            progress.begin_session(session, next);
            self.must_send();
        }
    }

    /// The driver has read what [`Output::CatchUp`] asked for: consecutive entries from the
    /// index asked for on, none if it could not read. An [`Output::Send`] with these entries, or
    /// those of them that are still in the log, may follow at once. What is no longer wanted is
    /// ignored.
    pub fn handle_chunk(&mut self, to: NodeId, session: Session, entries: &[EntryMeta]) {
        self.send_chunk(to, session, entries);
        self.end_call();
    }

    /// The log now starts at `first`: what lies before it is gone, or going. A lower one than
    /// before changes nothing.
    ///
    /// # Panics
    /// If an entry before `first` is not committed.
    pub fn handle_log_start(&mut self, first: LogIndex) {
        if first <= self.tail.before().index.next() {
            return;
        }
        assert!(first.previous() <= self.commit, "retention beyond commit");
        self.tail.start_at(first);
        self.health = self.health.after_start(first);
        self.must_send();
        self.end_call();
    }

    /// Whether the disk has no room for entries of a leader. While full, appends are answered
    /// with [`AppendOutcome::Busy`](crate::AppendOutcome::Busy).
    pub fn handle_disk_full(&mut self, full: bool) {
        self.is_disk_full = full;
    }

    /// Where the terms of this log begin, now that more of it can be read: a hole may have hidden
    /// an election, and then what lies in it was taken for entries of the term before.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Restored`] if that is no history of this log; nothing was changed.
    pub fn handle_history(&mut self, epochs: &[(Term, LogIndex)]) -> Result<(), ConfigError> {
        let learnt = self.tail.learn_epochs(epochs);
        self.end_call();
        learnt.map_err(ConfigError::Restored)
    }

    /// All holes of [`Quarantine::Hole`](crate::Quarantine::Hole) are filled by repaired copies,
    /// synced.
    pub fn handle_repaired(&mut self) {
        if matches!(self.health, Health::Hole { .. }) {
            self.end_quarantine();
            self.advance_commit();
        }
        self.end_call();
    }

    /// The next thing to do, `None` when there is nothing more. Appends and acknowledgements are
    /// made here, from all that the turn has brought.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.send_appends();
            self.send_acknowledgement();
        }
        self.outputs.pop_front()
    }
}

/// Questions.
impl Raft {
    /// Whether [`Raft::poll_output`] has something to put out. After most beats and their answers
    /// it has not, so that a driver of many idle groups need not ask further.
    pub fn has_output(&self) -> bool {
        let must_send = match &self.role {
            Role::Leader(leader) => leader.must_send,
            _ => false,
        };
        !self.outputs.is_empty() || must_send || self.owed_acknowledgement().is_some()
    }

    /// When [`Raft::handle_timeout`] is to be called next; `None` if never. A beat or an append
    /// only moves it to later: after those a driver need not look before the time it knew has
    /// come. After anything else it should.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.role.deadline()
    }

    /// Whether this node leads and is [handing over](Raft::transfer_leadership).
    pub fn is_transferring(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_some())
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// The group's members.
    pub fn membership(&self) -> &Membership {
        &self.config.membership
    }

    /// Its role.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Leader(_) => Some(self.config.node),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The last entry of the log, synced or not.
    pub fn last(&self) -> EntryId {
        self.tail.last()
    }

    /// The entry before the first one kept.
    pub fn before(&self) -> EntryId {
        self.tail.before()
    }

    /// All entries up to here are decided.
    pub fn commit_index(&self) -> LogIndex {
        self.commit
    }

    /// All entries up to here are on this node's disk; 0 while a base waits for it.
    pub fn synced_index(&self) -> LogIndex {
        self.writes.synced()
    }

    /// Whether this node leads and has committed an entry of its own term, so that its commit
    /// index is at least that of every leader before it.
    pub fn leads_with_commit(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.commit >= leader.noop,
            _ => false,
        }
    }

    /// Bytes of entries on their way to `peer`, sent and not yet synced there; 0 unless leading.
    pub fn in_flight_bytes(&self, peer: NodeId) -> u64 {
        self.progress_of(peer).map_or(0, |p| p.in_flight_bytes())
    }

    /// Appends with entries on their way to `peer`, sent and not yet synced there; 0 unless
    /// leading.
    pub fn in_flight_appends(&self, peer: NodeId) -> usize {
        self.progress_of(peer).map_or(0, |p| p.in_flight_appends())
    }

    /// How far `peer` has synced, for all that this leader knows; `None` unless leading.
    pub fn match_index(&self, peer: NodeId) -> Option<LogIndex> {
        self.progress_of(peer).map(|progress| progress.match_index)
    }

    /// The term of the entry at `index`, `None` outside the log.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.tail.term_at(index)
    }

    /// Whether part of the log is still quarantined.
    pub fn is_quarantined(&self) -> bool {
        self.health != Health::Whole
    }

    /// Whether this node's promises are lost, see [`Restored::promises_lost`].
    pub fn has_lost_promises(&self) -> bool {
        self.promises_lost
    }

    /// What an observer may compare with a later state, see [`crate::invariants`].
    pub fn observe(&self) -> Observed {
        Observed::of(self)
    }
}

/// Doors to the disk and the network.
impl Raft {
    /// Puts out the hard state if it has changed, and returns the write that makes it durable.
    pub(crate) fn stage_hard_state(&mut self) -> WriteId {
        if self.hard != self.staged_hard {
            self.staged_hard = self.hard;
            self.staged_write = self.writes.hard_state();
            self.outputs.push_back(Output::HardState {
                write: self.staged_write,
                term: self.hard.term,
                vote: self.hard.vote,
            });
        }
        self.staged_write
    }

    /// Appends to the log. The term of the entries is put out before them (P04).
    pub(crate) fn stage_append(&mut self, entries: Vec<EntryMeta>) {
        if !mutant!("persist entry before term") {
            self.stage_hard_state();
        }
        for entry in &entries {
            assert!(entry.id.term <= self.hard.term, "an entry of a later term");
            self.tail.push(*entry);
        }
        let write = self.writes.append(self.tail.last().index);
        self.outputs.push_back(Output::Append { write, entries });
    }

    /// Cuts everything from `first` on. Never what is committed (paper, section 5.3; P40).
    pub(crate) fn stage_cut(&mut self, first: LogIndex) {
        assert!(first > self.commit, "a cut of what is committed");
        assert!(
            !matches!(self.role, Role::Leader(_)),
            "a leader cuts nothing"
        );
        self.stage_hard_state();
        self.tail.cut(first);
        let write = self.writes.cut(first);
        self.outputs.push_back(Output::Cut { write, first });
        let was_whole = self.health == Health::Whole;
        self.health = self.health.after_cut(first);
        if self.health == Health::Whole && !was_whole {
            self.end_quarantine();
        }
    }

    /// Replaces the log by an empty one behind `before`.
    pub(crate) fn stage_base(&mut self, before: EntryId) {
        assert!(before.index > self.commit, "a base below commit");
        self.stage_hard_state();
        self.tail.restart(before);
        let write = self.writes.base(before.index);
        self.outputs.push_back(Output::Base { write, before });
        if self.health != Health::Whole {
            self.health = self.health.after_cut(LogIndex(1));
            if self.health == Health::Whole {
                self.end_quarantine();
            }
        }
    }

    /// Everything up to `index` is decided.
    pub(crate) fn commit_through(&mut self, index: LogIndex) {
        if index > self.commit {
            assert!(index <= self.tail.last().index, "a commit behind the log");
            self.commit = index;
            self.outputs.push_back(Output::Committed { index });
        }
    }

    /// Sends `message` if there is a link.
    pub(crate) fn send(&mut self, to: NodeId, lane: Lane, message: Message) {
        if let Some(session) = self.session_of(to) {
            self.outputs.push_back(Output::Send {
                to,
                session,
                lane,
                message,
            });
        }
    }

    /// The session with `peer`, if it can be reached.
    pub fn session_of(&self, peer: NodeId) -> Option<Session> {
        self.links.get(&peer).copied()
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.config.membership.is_voter(self.config.node)
    }

    pub(crate) fn is_sole_voter(&self) -> bool {
        self.config.membership.is_sole_voter(self.config.node)
    }

    /// How far this node's disk may be counted. What a sole voter has synced was committed by
    /// that, also where it is unreadable now.
    pub(crate) fn promised(&self) -> LogIndex {
        if self.promises_lost {
            return LogIndex::ZERO;
        }
        let synced = self.writes.synced();
        if self.is_sole_voter() && self.health.may_vote() {
            return synced;
        }
        self.health.promised(synced, self.commit)
    }

    /// What ends each call: the hard state is put out, and in debug builds the state is checked
    /// against what must always hold, and against the state before.
    pub(crate) fn end_call(&mut self) {
        self.stage_hard_state();
        if cfg!(debug_assertions) {
            let observed = Box::new(self.observe());
            crate::invariants::check(self);
            if let Some(before) = &self.observed {
                crate::invariants::check_delta(before, &observed);
            }
            self.observed = Some(observed);
        }
    }
}

#[cfg(test)]
impl crate::explore::Essence for Raft {
    fn essence(&self, _: &Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Raft {
            config: _,
            rng: _,
            hard,
            staged_hard,
            staged_write,
            tail,
            writes,
            commit,
            role,
            following,
            health,
            promises_lost,
            grant,
            links,
            is_disk_full,
            last_read,
            announced,
            outputs,
            observed: _,
        } = self;
        assert!(outputs.is_empty(), "it is between two calls");
        (hard, staged_hard, writes.age(*staged_write)).hash(to);
        (tail, commit, following, health, promises_lost).hash(to);
        (links, is_disk_full, last_read, announced).hash(to);
        writes.essence(writes, to);
        role.essence(writes, to);
        grant.is_some().hash(to);
        if let Some(grant) = grant {
            grant.essence(writes, to);
        }
    }
}

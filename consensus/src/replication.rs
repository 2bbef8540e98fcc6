//! The leader's side of replication: what to send to whom, and what comes back.
//!
//! Sending is lazy: calls note that something may have to be sent, and taking outputs builds the
//! appends, so that all that was proposed in a turn travels as one append per follower.

use std::time::Duration;

use crate::commit;
use crate::error::{MessageError, ProposeError};
use crate::message::{AppendOutcome, Lane, Message};
use crate::output::Output;
use crate::progress::{Mode, Progress};
use crate::raft::Raft;
use crate::role::{Leader, Role};
use crate::types::{EntryId, EntryKind, EntryMeta, LogIndex, NodeId, ProposedEntry, Session, Term};

/// What an entry costs beyond its bytes, so that entries without any are bounded too.
const ENTRY_OVERHEAD: u64 = 64;

/// A probe carries this many bytes of entries at most: if it is refused they are wasted.
const PROBE_BYTES_MAX: u64 = 64 << 10;

pub(crate) fn cost(size: u32) -> u64 {
    u64::from(size) + ENTRY_OVERHEAD
}

/// Proposing.
impl Raft {
    pub(crate) fn admit(&mut self, entries: &[ProposedEntry]) -> Result<EntryId, ProposeError> {
        let limit = self.config.uncommitted_bytes_max;
        let leader_known = self.leader();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ProposeError::NotLeader {
                leader: leader_known,
            });
        };
        if let Some(transfer) = leader.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        if entries.is_empty() || entries.iter().any(|e| e.kind == EntryKind::Noop) {
            return Err(ProposeError::Malformed);
        }
        let bytes: u64 = entries.iter().map(|entry| cost(entry.size)).sum();
        let count = leader.uncommitted.len() + entries.len();
        if count > 2 && leader.uncommitted_bytes + bytes > limit {
            return Err(ProposeError::Busy {
                uncommitted_bytes: leader.uncommitted_bytes,
                limit,
            });
        }
        let first = self.tail.last().index.next();
        for (entry, index) in entries.iter().zip(first.0..) {
            leader.uncommitted_bytes += cost(entry.size);
            leader
                .uncommitted
                .push_back((LogIndex(index), cost(entry.size)));
        }
        self.append_as_leader(entries);
        Ok(EntryId {
            index: first,
            term: self.hard.term,
        })
    }
}

/// Sending.
impl Raft {
    /// Sends to every follower what its state allows.
    pub(crate) fn send_appends(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if !std::mem::take(&mut leader.must_send) {
            return;
        }
        let followers: Vec<NodeId> = leader.progress.keys().copied().collect();
        for to in followers {
            while self.send_step(to) {}
        }
    }

    /// Sends one thing to `to`, or changes how it is served. Returns whether there may be more.
    fn send_step(&mut self, to: NodeId) -> bool {
        let Some(progress) = self.progress_of(to) else {
            return false;
        };
        let (mode, next) = (progress.mode, progress.next_index);
        if progress.session.is_none() {
            return false;
        }
        let is_below_start = next <= self.tail.before().index;
        match mode {
            Mode::Probe { waiting: true } | Mode::Base { waiting: true } => false,
            Mode::CatchUp { reading: true } => false,
            Mode::Base { waiting: false } => self.send_base(to),
            _ if is_below_start => self.begin_base(to),
            Mode::Probe { waiting: false } => self.send_probe(to),
            _ if next > self.tail.last().index => false,
            Mode::Replicate if !self.tail.remembers(next) => {
                self.set_mode(to, Mode::CatchUp { reading: false })
            }
            Mode::Replicate => self.send_tail(to),
            Mode::CatchUp { reading: false } => self.send_catch_up(to),
        }
    }

    fn set_mode(&mut self, to: NodeId, mode: Mode) -> bool {
        if let Some(progress) = self.progress_mut(to) {
            progress.mode = mode;
        }
        true
    }

    /// One append to find out whether the logs agree before `next_index`; with the entries at
    /// hand, if they are small, in the hope that they do.
    fn send_probe(&mut self, to: NodeId) -> bool {
        let Some(next) = self.progress_of(to).map(|p| p.next_index) else {
            return false;
        };
        let allowance = self.progress_of(to).map_or(0, |p| p.allowance);
        let entries = if self.tail.remembers(next) {
            let mut entries = self.take_tail(next, PROBE_BYTES_MAX);
            if total_cost(&entries) > PROBE_BYTES_MAX.min(allowance) {
                entries.clear();
            }
            entries
        } else {
            Vec::new()
        };
        self.send_entries(to, Lane::Append, entries);
        self.set_mode(to, Mode::Probe { waiting: true });
        false
    }

    fn send_tail(&mut self, to: NodeId) -> bool {
        let window = self.config.window_bytes_max;
        let Some(progress) = self.progress_of(to) else {
            return false;
        };
        let Some(room) = progress.room(window) else {
            return false;
        };
        let (next, is_idle) = (progress.next_index, progress.is_idle());
        let max = room.min(self.config.append_bytes_max);
        let entries = self.take_tail(next, max);
        // A large entry waits until it is alone: then no limit holds it up.
        if total_cost(&entries) > room && !is_idle {
            return false;
        }
        self.send_entries(to, Lane::Append, entries);
        true
    }

    /// Asks the driver for the next chunk; or, with the end in reach, lets what is on its way
    /// arrive before the tail is sent on another lane, which would overtake it.
    fn send_catch_up(&mut self, to: NodeId) -> bool {
        let window = self.config.window_bytes_max;
        let max_bytes_max = self.config.append_bytes_max;
        let Some(progress) = self.progress_of(to) else {
            return false;
        };
        let next = progress.next_index;
        if self.tail.remembers(next) {
            return progress.is_idle() && self.set_mode(to, Mode::Replicate);
        }
        let (Some(room), Some(session)) = (progress.room(window), progress.session) else {
            return false;
        };
        self.outputs.push_back(Output::CatchUp {
            to,
            session,
            next,
            max_bytes: room.min(max_bytes_max),
        });
        self.set_mode(to, Mode::CatchUp { reading: true });
        false
    }

    /// What the driver has read for a follower far behind.
    pub(crate) fn send_chunk(&mut self, to: NodeId, session: Session, entries: &[EntryMeta]) {
        let is_wanted = self.progress_of(to).is_some_and(|progress| {
            progress.session == Some(session)
                && progress.mode == (Mode::CatchUp { reading: true })
                && entries
                    .first()
                    .is_none_or(|e| e.id.index == progress.next_index)
        });
        // What was asked for before a change of mode or window is not wanted any more (P47).
        if !is_wanted {
            return;
        }
        self.set_mode(to, Mode::CatchUp { reading: false });
        let is_ours = |(entry, index): &(&EntryMeta, u64)| {
            entry.id.index.0 == *index && self.tail.contains(entry.id)
        };
        let first = entries.first().map_or(0, |entry| entry.id.index.0);
        let entries: Vec<EntryMeta> = entries
            .iter()
            .zip(first..)
            .take_while(is_ours)
            .map(|(entry, _)| *entry)
            .collect();
        if !entries.is_empty() {
            self.send_entries(to, Lane::Bulk, entries);
        } else if let Some(progress) = self.progress_mut(to) {
            // It could not be read: not again at once.
            progress.pause();
        }
        self.must_send();
    }

    /// The log start has overtaken the follower; answers to what was sent before matter no more.
    fn begin_base(&mut self, to: NodeId) -> bool {
        let start = self.tail.before().index.next();
        if let Some(progress) = self.progress_mut(to) {
            progress.become_probe(start);
            progress.mode = Mode::Base { waiting: false };
        }
        true
    }

    fn send_base(&mut self, to: NodeId) -> bool {
        let before = self.tail.before();
        let term = self.hard.term;
        let Some(progress) = self.progress_mut(to) else {
            return false;
        };
        progress.mode = Mode::Base { waiting: true };
        progress.next_index = before.index.next();
        progress.note_sent(before.index);
        let window = progress.window;
        let base = Message::Base {
            term,
            window,
            before,
        };
        self.send(to, Lane::Bulk, base);
        false
    }

    /// Sends `entries`, which begin at `next_index`, or none.
    fn send_entries(&mut self, to: NodeId, lane: Lane, entries: Vec<EntryMeta>) {
        let Some(next) = self.progress_of(to).map(|p| p.next_index) else {
            return;
        };
        let previous = self
            .tail
            .id_at(next.previous())
            .expect("a follower below the log start gets a base");
        let (term, commit) = (self.hard.term, self.commit);
        let Some(progress) = self.progress_mut(to) else {
            return;
        };
        progress.note_sent(previous.index);
        if let Some(last) = entries.last() {
            progress.sent(last.id.index, total_cost(&entries));
        }
        let append = Message::Append {
            term,
            window: progress.window,
            previous,
            entries,
            commit,
        };
        self.send(to, lane, append);
    }

    /// Entries from `first` on, of `max` bytes together, but one at least if there is one.
    fn take_tail(&self, first: LogIndex, max: u64) -> Vec<EntryMeta> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for meta in self.tail.metas_from(first) {
            bytes += cost(meta.size);
            if bytes > max && !entries.is_empty() {
                break;
            }
            entries.push(*meta);
        }
        entries
    }
}

fn total_cost(entries: &[EntryMeta]) -> u64 {
    entries.iter().map(|entry| cost(entry.size)).sum()
}

/// Answers.
impl Raft {
    pub(crate) fn handle_append_reply(
        &mut self,
        now: Duration,
        from: NodeId,
        term: Term,
        window: u64,
        outcome: AppendOutcome,
    ) -> Result<(), MessageError> {
        if term > self.hard.term {
            self.become_follower(now, term, None);
            return Ok(());
        }
        let last = self.tail.last();
        let is_current_term = term == self.hard.term || mutant!("match from stale ack");
        let Some(progress) = self.progress_mut(from).filter(|_| is_current_term) else {
            return Ok(());
        };
        progress.heard(now);
        let is_current = window == progress.window;
        match outcome {
            AppendOutcome::Accepted {
                matched,
                synced,
                promised,
            } => {
                if promised > synced || synced > matched || matched > last.index {
                    return Err(malformed(from, "it acknowledges what it cannot have"));
                }
                let moved = progress.acknowledged(matched, synced, promised);
                if is_current && progress.mode_expects_match() {
                    progress.become_replicate();
                }
                self.must_send();
                if moved {
                    self.advance_commit();
                    self.continue_transfer(from);
                }
            }
            AppendOutcome::Conflict { at, first } if is_current => {
                if first > at.index || at.index < progress.verified {
                    return Err(malformed(from, "it refuses what it has taken"));
                }
                self.back_up(from, at, first);
            }
            AppendOutcome::Busy { .. } if is_current => progress.pause(),
            AppendOutcome::Conflict { .. } | AppendOutcome::Busy { .. } | AppendOutcome::Stale => {}
        }
        Ok(())
    }

    /// The follower's log has another entry where the append began, or ends before it: goes to
    /// the last place where they can agree, a whole term at once (paper, end of section 5.3).
    fn back_up(&mut self, to: NodeId, at: EntryId, first: LogIndex) {
        let common = self.tail.last_common(at, first);
        let start = self.tail.before().index.next();
        let Some(progress) = self.progress_mut(to) else {
            return;
        };
        progress.become_probe(common.map_or(start, |id| id.index.next()));
        if common.is_none() {
            progress.mode = Mode::Base { waiting: false };
        }
        self.must_send();
    }

    /// What was on its way to `to` is taken for lost: probes from what is known to be there.
    pub(crate) fn restart_probe(&mut self, to: NodeId) {
        let last = self.tail.last().index;
        let start = self.tail.before().index.next();
        let Some(progress) = self.progress_mut(to) else {
            return;
        };
        let is_verified = progress.verified > LogIndex::ZERO;
        let is_probing = matches!(progress.mode, Mode::Probe { .. });
        let next = if is_verified {
            progress.verified.next()
        } else if is_probing {
            progress.next_index
        } else {
            last.next()
        };
        progress.become_probe(next.max(start));
        self.must_send();
    }

    /// Commits what a quorum has synced, if it is of the leader's own term (paper, figure 2 and
    /// section 5.4.2, figure 8; P01).
    pub(crate) fn advance_commit(&mut self) {
        let mut own = self.promised();
        if mutant!("leader counts itself before its flush") {
            own = self.tail.last().index;
        }
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let synced_on = |node: NodeId| {
            if node == self.config.node {
                return own;
            }
            let progress = leader.progress.get(&node);
            progress.map_or(LogIndex::ZERO, |progress| progress.match_index)
        };
        let candidate = commit::candidate(&self.config.membership, synced_on);
        let is_of_own_term = self.tail.term_at(candidate) == Some(self.hard.term)
            || mutant!("commit earlier-term entry by count");
        if candidate <= self.commit || !is_of_own_term {
            return;
        }
        let was_ready = self.commit >= leader.noop;
        self.commit_through(candidate);
        let commit = self.commit;
        if let Role::Leader(leader) = &mut self.role {
            leader.forget_committed(commit);
            if !was_ready && leader.reads.ready(commit) {
                self.outputs.push_back(Output::BeatWanted);
            }
        }
        self.answer_reads();
        // The quarantined promise more once their holes are known to be committed.
        if self.promised() > own {
            self.advance_commit();
        }
    }

    pub(crate) fn must_send(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.must_send = true;
        }
    }

    pub(crate) fn progress_of(&self, node: NodeId) -> Option<&Progress> {
        match &self.role {
            Role::Leader(leader) => leader.progress.get(&node),
            _ => None,
        }
    }

    pub(crate) fn progress_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leader) => leader.progress.get_mut(&node),
            _ => None,
        }
    }
}

impl Progress {
    /// Whether an accepted append tells where the logs agree, which was not known.
    fn mode_expects_match(&self) -> bool {
        matches!(self.mode, Mode::Probe { .. } | Mode::Base { .. })
    }
}

impl Leader {
    fn forget_committed(&mut self, commit: LogIndex) {
        while let Some(&(index, bytes)) = self.uncommitted.front()
            && index <= commit
        {
            self.uncommitted.pop_front();
            self.uncommitted_bytes -= bytes;
        }
    }
}

fn malformed(from: NodeId, what: &'static str) -> MessageError {
    MessageError::Malformed { from, what }
}

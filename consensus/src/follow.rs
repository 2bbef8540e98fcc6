//! The follower's side of replication: what it takes of a leader's log, and what it answers.

use std::time::Duration;

use crate::error::MessageError;
use crate::message::{AppendOutcome, Lane, Message};
use crate::output::Output;
use crate::raft::Raft;
use crate::role::{Follower, Following, Role};
use crate::types::{EntryId, EntryMeta, LogIndex, NodeId, Session, Term};

/// An append as it came.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) term: Term,
    pub(crate) window: u64,
    pub(crate) previous: EntryId,
    pub(crate) entries: Vec<EntryMeta>,
    pub(crate) commit: LogIndex,
}

impl Append {
    /// The last entry of it, `previous` if it has none.
    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.previous, |entry| entry.id)
    }

    /// Whether its entries follow one another, none of a later term than its sender's.
    fn is_well_formed(&self) -> bool {
        let mut previous = self.previous;
        if previous.index > LogIndex::MAX {
            return false;
        }
        for entry in &self.entries {
            let follows = previous.index.next() == entry.id.index;
            if !follows || entry.id.term < previous.term || entry.id.term == Term::ZERO {
                return false;
            }
            previous = entry.id;
        }
        previous.term <= self.term
    }
}

/// What is to be done with an append.
enum Verdict {
    /// The logs agree up to here once `entries[skip..]` are appended.
    Take { skip: usize, matched: LogIndex },
    /// They do not agree before its first entry; this is what is here.
    Refuse { at: EntryId, first: LogIndex },
    /// It contradicts what is committed.
    Diverge { index: LogIndex },
}

impl Raft {
    /// A message of a leader of `term`, at least the current one: follows it. Returns `false`
    /// if there is another leader of that term, which cannot be.
    pub(crate) fn hear_leader(&mut self, now: Duration, from: NodeId, term: Term) -> bool {
        if term > self.hard.term {
            self.become_follower(now, term, Some(from));
        }
        match &self.role {
            Role::Leader(_) => return false,
            Role::Follower(follower) if follower.leader == Some(from) => {}
            Role::Follower(follower) if follower.leader.is_some() => return false,
            _ => self.become_follower(now, term, Some(from)),
        }
        let deadline = self.is_voter().then(|| self.draw_deadline(now));
        if let Role::Follower(follower) = &mut self.role {
            follower.heard = Some(now);
            follower.deadline = deadline;
        }
        true
    }

    /// AppendEntries (paper, figure 2).
    pub(crate) fn handle_append(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        append: Append,
    ) -> Result<(), MessageError> {
        if append.term < self.hard.term && !mutant!("accept stale AppendEntries") {
            self.answer(from, append.window, AppendOutcome::Stale);
            return Ok(());
        }
        if !append.is_well_formed() {
            return Err(MessageError::Malformed {
                from,
                what: "entries that do not follow one another",
            });
        }
        if !self.hear_leader(now, from, append.term) {
            return Err(self.diverged(from, append.previous.index));
        }
        if !self.enter_window(session, append.window) {
            return Ok(());
        }
        if self.is_disk_full {
            let last = self.tail.last().index;
            self.refuse(from, append.window, AppendOutcome::Busy { last });
            return Ok(());
        }
        match self.judge(&append) {
            Verdict::Take { skip, matched } => {
                self.take(append.entries.into_iter().skip(skip).collect());
                self.follow_through(matched, append.commit);
            }
            Verdict::Refuse { at, first } => {
                let conflict = AppendOutcome::Conflict { at, first };
                self.refuse(from, append.window, conflict);
            }
            Verdict::Diverge { index } => return Err(self.diverged(from, index)),
        }
        Ok(())
    }

    /// Whether a message of `window` is to be looked at: not if it is of an older one, or of one
    /// that was refused already.
    fn enter_window(&mut self, session: Session, window: u64) -> bool {
        let known = self.following.filter(|f| f.session == session);
        if let Some(known) = known
            && (known.window > window || (known.window == window && known.is_refused))
        {
            return false;
        }
        if known.is_none_or(|known| known.window < window) {
            self.following = Some(Following {
                session,
                window,
                is_refused: false,
                matched: known.map_or(LogIndex::ZERO, |known| known.matched),
                told: known.map_or((LogIndex::ZERO, LogIndex::ZERO), |known| known.told),
                must_answer: true,
            });
        }
        true
    }

    /// Compares an append with the log (paper, figure 2, AppendEntries 2 to 4; P40).
    fn judge(&self, append: &Append) -> Verdict {
        let before = self.tail.before();
        let previous = append.previous;
        if previous.index > self.tail.last().index
            || (previous.index >= before.index
                && !self.tail.contains(previous)
                && !mutant!("append without consistency check"))
        {
            return self.refusal_of(previous);
        }
        // What lies at or below the log's start is committed, so the leader has it too (P46).
        let agrees = |id: EntryId| id.index < before.index || self.tail.contains(id);
        let mut skip = append.entries.iter().take_while(|e| agrees(e.id)).count();
        if mutant!("append truncates matching suffix") {
            skip = 0;
        }
        let matched = append.last().index.max(before.index);
        match append.entries.get(skip).map(|entry| entry.id.index) {
            Some(index) if index <= self.commit => Verdict::Diverge { index },
            _ => Verdict::Take { skip, matched },
        }
    }

    fn refusal_of(&self, previous: EntryId) -> Verdict {
        if previous.index <= self.commit {
            return Verdict::Diverge {
                index: previous.index,
            };
        }
        let index = previous.index.min(self.tail.last().index);
        let at = self.tail.id_at(index).expect("it is not below the start");
        Verdict::Refuse {
            at,
            first: self.tail.first_of_term_at(index),
        }
    }

    /// Appends what is new, and cuts away what is in its way.
    fn take(&mut self, entries: Vec<EntryMeta>) {
        let Some(first) = entries.first().map(|entry| entry.id.index) else {
            return;
        };
        if first <= self.tail.last().index || self.health.must_cut() {
            self.stage_cut(first);
        }
        self.stage_append(entries);
    }

    /// The logs agree up to `matched`, and the leader has committed up to `commit`.
    fn follow_through(&mut self, matched: LogIndex, commit: LogIndex) {
        let Some(following) = &mut self.following else {
            return;
        };
        following.matched = following.matched.max(matched);
        let mut verified = following.matched;
        if mutant!("commit beyond match") {
            verified = self.tail.last().index;
        }
        self.commit_through(commit.min(verified));
    }

    /// A leader whose log starts behind the end of this one.
    pub(crate) fn handle_base(
        &mut self,
        now: Duration,
        from: NodeId,
        session: Session,
        term: Term,
        window: u64,
        before: EntryId,
    ) -> Result<(), MessageError> {
        if term < self.hard.term {
            self.answer(from, window, AppendOutcome::Stale);
            return Ok(());
        }
        let is_entry = before.term > Term::ZERO && before.index > LogIndex::ZERO;
        if before.term > term || !is_entry || before.index > LogIndex::MAX {
            return Err(MessageError::Malformed {
                from,
                what: "a base that cannot be",
            });
        }
        if !self.hear_leader(now, from, term) {
            return Err(self.diverged(from, before.index));
        }
        if !self.enter_window(session, window) {
            return Ok(());
        }
        let goes_back = mutant!("applied goes back on snapshot");
        if (before.index > self.tail.before().index && !self.tail.contains(before)) || goes_back {
            if before.index <= self.commit && !goes_back {
                return Err(self.diverged(from, before.index));
            }
            self.stage_base(before);
        }
        // Else it has all of that already, and a base would only lose what lies behind (P40).
        let matched = before.index.max(self.tail.before().index);
        self.follow_through(matched, before.index);
        Ok(())
    }

    /// TimeoutNow (thesis, section 3.10).
    pub(crate) fn handle_timeout_now(&mut self, now: Duration, from: NodeId, term: Term) {
        let is_leader = self.leader() == Some(from);
        if term == self.hard.term && is_leader && self.may_campaign() {
            self.become_candidate(now, true);
        }
    }
}

/// Answers.
impl Raft {
    /// Tells the leader what has been taken and synced since it was last told.
    pub(crate) fn send_acknowledgement(&mut self) {
        let Some((leader, position)) = self.owed_acknowledgement() else {
            return;
        };
        let following = self.following.as_mut();
        let following = following.expect("an acknowledgement is owed for what it follows");
        let matched = following.matched;
        following.must_answer = false;
        following.told = position;
        let (window, session) = (following.window, following.session);
        if self.session_of(leader) == Some(session) {
            let (synced, promised) = position;
            let outcome = AppendOutcome::Accepted {
                matched,
                synced,
                promised,
            };
            self.answer(leader, window, outcome);
        }
    }

    /// To whom what has been taken, synced and promised is to be told, and how far that is.
    pub(crate) fn owed_acknowledgement(&self) -> Option<(NodeId, (LogIndex, LogIndex))> {
        let Role::Follower(Follower {
            leader: Some(leader),
            ..
        }) = self.role
        else {
            return None;
        };
        let following = self.following.as_ref()?;
        let (mut synced, mut promised) = (self.writes.synced(), self.promised());
        if mutant!("ack before fsync") {
            (synced, promised) = (self.tail.last().index, self.tail.last().index);
        }
        let matched = following.matched;
        let position = (synced.min(matched), promised.min(matched));
        // What was taken before a refusal still counts, and is synced later (a full disk).
        let must_answer = following.must_answer && !following.is_refused;
        (position > following.told || must_answer).then_some((leader, position))
    }

    /// Refuses a window, once: nothing of it is taken any more.
    fn refuse(&mut self, to: NodeId, window: u64, outcome: AppendOutcome) {
        if let Some(following) = &mut self.following {
            following.is_refused = true;
        }
        self.answer(to, window, outcome);
    }

    fn answer(&mut self, to: NodeId, window: u64, outcome: AppendOutcome) {
        let reply = Message::AppendReply {
            term: self.hard.term,
            window,
            outcome,
        };
        self.send(to, Lane::Append, reply);
    }

    fn diverged(&self, from: NodeId, index: LogIndex) -> MessageError {
        let term = self.tail.term_at(index).unwrap_or(self.hard.term);
        MessageError::Diverged { from, index, term }
    }

    /// How far the logs agree, as verified in `session`.
    pub(crate) fn matched_in(&self, session: Session) -> Option<LogIndex> {
        self.following
            .filter(|following| following.session == session)
            .map(|following| following.matched)
    }

    /// Ends a quarantine to the log's end, if the log has caught up with all that this node may
    /// once have promised.
    pub(crate) fn try_rejoin(&mut self) {
        let Some(following) = &self.following else {
            return;
        };
        let verified = following.matched.min(self.writes.synced());
        if !self
            .health
            .has_rejoined(following.session, self.hard.term, verified)
        {
            return;
        }
        if self.health.must_cut() {
            self.stage_cut(self.tail.last().index.next());
        }
        self.end_quarantine();
    }

    pub(crate) fn end_quarantine(&mut self) {
        self.health = crate::quarantine::Health::Whole;
        self.outputs.push_back(Output::QuarantineEnded);
        if let Some(following) = &mut self.following {
            following.must_answer = true;
        }
    }
}

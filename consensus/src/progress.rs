//! What a leader knows of one follower, and what is on its way there.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{BeatRound, LogIndex, Session};

/// How many beats a leader waits for a sign of progress before it takes what is on its way for
/// lost and probes. A probe costs a few bytes, and a slow follower answers where it stands, so
/// nothing is sent twice for being slow.
const STALLED_BEATS_MAX: u32 = 4;

/// How many unanswered beats are remembered; older ones confirm no read.
const ROUNDS_MAX: usize = 16;

/// How a follower is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Where the logs agree is not known. One append at a time, until one is accepted.
    Probe {
        /// It is on its way.
        waiting: bool,
    },
    /// Appends leave as they come, ahead of their acknowledgements, within the window.
    Replicate,
    /// The follower is further behind than the leader's memory: its driver reads for it.
    CatchUp {
        /// Reading.
        reading: bool,
    },
    /// The follower ended before the leader's log starts.
    Base {
        /// The base is on its way.
        waiting: bool,
    },
}

/// A leader's view of one follower (paper, figure 2: `nextIndex`, `matchIndex`).
///
/// All but the contact time belongs to one session and is forgotten with it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The session that is up.
    pub(crate) session: Option<Session>,
    /// How it is served.
    pub(crate) mode: Mode,
    /// The next entry to send.
    pub(crate) next_index: LogIndex,
    /// Synced there and vouched for, by what it said in this session. Never above `verified`.
    pub(crate) match_index: LogIndex,
    /// Received there, by what it said in this session: the logs agree up to here, and it loses
    /// nothing of that before the session ends. Never above `sent_index`.
    pub(crate) verified: LogIndex,
    /// The highest index that was sent in this session, or named as the one before.
    sent_index: LogIndex,
    /// The number of the attempt; an answer to an older one moves no mode.
    pub(crate) window: u64,
    /// Appends that are not yet synced there: last index and bytes of each.
    in_flight: VecDeque<(LogIndex, u64)>,
    in_flight_bytes: u64,
    /// What the driver allows to be sent.
    pub(crate) allowance: u64,
    /// When it last answered in this term.
    pub(crate) contact: Duration,
    /// Whether it confirmed the last beat that it answered. One that did not belongs to no quorum
    /// now, and is not in contact, whatever it says of appends.
    confirms_beats: bool,
    stalled_beats: u32,
    rounds: VecDeque<(BeatRound, u64)>,
    /// The newest read epoch that it has confirmed.
    pub(crate) confirmed_epoch: u64,
}

impl Progress {
    /// A follower of which a new leader knows nothing.
    pub(crate) fn new(session: Option<Session>, next: LogIndex, now: Duration) -> Progress {
        Progress {
            session,
            mode: Mode::Probe { waiting: false },
            next_index: next,
            match_index: LogIndex::ZERO,
            verified: LogIndex::ZERO,
            sent_index: LogIndex::ZERO,
            window: 1,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            allowance: u64::MAX,
            contact: now,
            confirms_beats: true,
            stalled_beats: 0,
            rounds: VecDeque::new(),
            confirmed_epoch: 0,
        }
    }

    /// Another session, or none: whatever was known may be wrong now, since the follower may
    /// have lost what it had not synced.
    pub(crate) fn begin_session(&mut self, session: Option<Session>, next: LogIndex) {
        let fresh = Progress::new(session, next, self.contact);
        *self = Progress {
            window: self.window + 1,
            allowance: self.allowance,
            ..fresh
        };
    }

    /// Looks again where the logs agree, at the entry before `next`; what is on its way no
    /// longer matters. Never below what is verified.
    pub(crate) fn become_probe(&mut self, next: LogIndex) {
        self.mode = Mode::Probe { waiting: false };
        self.next_index = next.max(self.verified.next());
        self.window += 1;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.stalled_beats = 0;
    }

    /// As [`Progress::become_probe`], but not before the next beat is answered.
    pub(crate) fn pause(&mut self) {
        self.become_probe(self.next_index);
        self.mode = Mode::Probe { waiting: true };
        self.stalled_beats = STALLED_BEATS_MAX;
    }

    /// A probe was accepted: behind what is verified by now appends may flow.
    pub(crate) fn become_replicate(&mut self) {
        self.mode = Mode::Replicate;
        self.next_index = self.verified.next();
        // What it has received and not yet synced stays in the window.
        self.in_flight.retain(|&(last, _)| last <= self.verified);
        self.in_flight_bytes = self.in_flight.iter().map(|&(_, bytes)| bytes).sum();
        self.stalled_beats = 0;
    }

    /// Entries through `last` have been sent.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: u64) {
        self.note_sent(last);
        self.next_index = last.next();
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
    }

    /// `last` was named to it: it may acknowledge up to here.
    pub(crate) fn note_sent(&mut self, last: LogIndex) {
        self.sent_index = self.sent_index.max(last);
    }

    /// It says that it has `matched`, has `synced` and vouches for `promised`: the second frees
    /// the window, the third counts, none further than what was sent in this session (P41).
    /// Returns whether the match index moved.
    pub(crate) fn acknowledged(
        &mut self,
        matched: LogIndex,
        synced: LogIndex,
        promised: LogIndex,
    ) -> bool {
        while let Some(&(last, bytes)) = self.in_flight.front()
            && last <= synced
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
            self.stalled_beats = 0;
        }
        let sent = match mutant!("match from stale ack") {
            true => LogIndex::MAX,
            false => self.sent_index,
        };
        let moved = promised.min(sent) > self.match_index;
        if moved {
            self.match_index = promised.min(sent);
            self.stalled_beats = 0;
        }
        self.verified = self.verified.max(matched.min(sent));
        self.next_index = self.next_index.max(self.verified.next());
        assert!(self.match_index <= self.verified);
        assert!(self.verified <= sent);
        moved
    }

    /// Bytes that may be sent now, within a window of `window_max`; `None` if nothing may. With
    /// nothing on its way one entry may, of whatever size.
    pub(crate) fn room(&self, window_max: u64) -> Option<u64> {
        if self.session.is_none() || self.allowance == 0 {
            return None;
        }
        let free = window_max.saturating_sub(self.in_flight_bytes);
        if free == 0 && !self.in_flight.is_empty() {
            return None;
        }
        Some(free.min(self.allowance))
    }

    /// Bytes on their way.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Appends on their way.
    pub(crate) fn in_flight_appends(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether it has, and vouches for, everything up to `last`, confirms its leader, and nothing
    /// is on its way to it.
    pub(crate) fn has_all(&self, last: LogIndex) -> bool {
        self.mode == Mode::Replicate
            && self.confirms_beats
            && self.in_flight.is_empty()
            && self.match_index == last
            && self.verified == last
            && self.next_index == last.next()
    }

    /// A beat leaves, in which reads up to `epoch` are asked to be confirmed.
    pub(crate) fn beat_sent(&mut self, round: BeatRound, epoch: u64) {
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back((round, epoch));
    }

    /// The beat was answered, and confirmed or not. Returns whether it was one of this leadership
    /// and session: another means nothing.
    pub(crate) fn beat_answered(
        &mut self,
        now: Duration,
        round: BeatRound,
        is_confirmed: bool,
    ) -> bool {
        let Some(&(_, epoch)) = self.rounds.iter().find(|&&(sent, _)| sent == round) else {
            return false;
        };
        self.rounds.retain(|&(sent, _)| sent > round);
        self.confirms_beats = is_confirmed;
        if is_confirmed {
            self.confirmed_epoch = self.confirmed_epoch.max(epoch);
        }
        self.heard(now);
        true
    }

    /// It has answered in this term, a beat or an append.
    pub(crate) fn heard(&mut self, now: Duration) {
        if self.confirms_beats {
            self.contact = self.contact.max(now);
        }
    }

    /// A beat was answered: whether something has been on its way for so long that it must be
    /// taken for lost. So must be the acknowledgement of what it has received and does not vouch
    /// for: it says so once, and once more when it is probed.
    pub(crate) fn is_stalled(&mut self) -> bool {
        let expects_answer = match self.mode {
            Mode::Probe { waiting } | Mode::Base { waiting } => waiting,
            Mode::Replicate | Mode::CatchUp { .. } => {
                !self.in_flight.is_empty() || self.match_index < self.verified
            }
        };
        if !expects_answer {
            self.stalled_beats = 0;
            return false;
        }
        self.stalled_beats += 1;
        self.stalled_beats > STALLED_BEATS_MAX
    }
}

#[cfg(test)]
impl crate::explore::Essence for Progress {
    fn essence(&self, _: &crate::writes::Writes, to: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Progress {
            session,
            mode,
            next_index,
            match_index,
            verified,
            sent_index,
            window,
            in_flight,
            in_flight_bytes,
            allowance,
            contact: _,
            confirms_beats,
            stalled_beats,
            rounds,
            confirmed_epoch,
        } = self;
        (session, mode, next_index, match_index, sent_index, window).hash(to);
        (in_flight, in_flight_bytes, allowance).hash(to);
        (verified, confirms_beats).hash(to);
        (stalled_beats, rounds, confirmed_epoch).hash(to);
    }
}

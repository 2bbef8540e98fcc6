//! Beats: this replica's row, and what it hears of its leader's.

use std::time::Duration;

use highwater_consensus::{BeatException, BeatRound, BeatRow, NodeId, Session, Term};

use super::Partition;
use crate::io::Now;

/// A round of beats whose rows were kept where it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeptId {
    pub(crate) from: NodeId,
    pub(crate) from_shard: u16,
    pub(crate) round: BeatRound,
}

/// Which row of which kept round is this replica's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptPlace {
    pub(crate) id: KeptId,
    /// Where it is among the rows that were kept.
    pub(crate) at: usize,
    /// Whether it [stands](highwater_consensus::Raft::stands), as of when it was last looked: then
    /// the round waits for the leader in this replica's stead.
    pub(crate) stands: bool,
}

/// The leader's side.
impl Partition {
    /// The term in which this replica leads and says so.
    pub(crate) fn leads_in(&self) -> Option<Term> {
        (self.is_leader() && !self.is_silent()).then(|| self.raft.term())
    }

    /// Whether `node` has a replica of it too.
    pub(crate) fn is_on(&self, node: NodeId) -> bool {
        self.raft.membership().contains(node)
    }

    /// Whether this replica and those that are told by `hears` are a quorum.
    pub(crate) fn is_quorum(&self, hears: impl Fn(NodeId) -> bool) -> bool {
        let node = self.raft.node();
        let membership = self.raft.membership();
        membership.quorum_value(|voter| voter == node || hears(voter)) == Some(true)
    }

    /// Whether it is handing over its leadership.
    pub(crate) fn is_transferring(&self) -> bool {
        self.raft.is_transferring()
    }

    /// The row for `peer`, if this replica leads and `peer` follows.
    pub(crate) fn beat_row(&mut self, peer: NodeId, round: BeatRound) -> Option<BeatRow> {
        if self.is_silent() {
            return None;
        }
        self.raft.beat_row(peer, round)
    }

    /// The row for `peer`, if there is no more to say than it says.
    pub(crate) fn standing_row(&self, peer: NodeId) -> Option<BeatRow> {
        self.raft.standing_row(peer).filter(|_| !self.is_silent())
    }

    /// The answer to a row that this replica sent.
    pub(crate) fn handle_beat_ack(
        &mut self,
        now: Now,
        from: NodeId,
        session: Session,
        round: BeatRound,
        exception: Option<BeatException>,
    ) {
        self.raft
            .handle_beat_ack(now.monotonic, from, session, round, exception);
    }

    /// The last of the answers at `at` to a row of `term` that was repeated to `peer`.
    pub(crate) fn confirm_again(
        &mut self,
        at: Duration,
        peer: NodeId,
        session: Session,
        term: Term,
    ) {
        self.raft.confirm_again(at, peer, session, term);
    }
}

/// The follower's side.
impl Partition {
    /// A leader's row for this group; what is to be said against it.
    pub(crate) fn handle_beat(
        &mut self,
        now: Now,
        from: NodeId,
        session: Session,
        row: BeatRow,
    ) -> Option<BeatException> {
        if self.frozen.is_some() {
            return Some(BeatException::Unknown);
        }
        self.raft.handle_beat(now.monotonic, from, session, row)
    }

    /// Whether the row, repeated, needs nobody to look at it.
    pub(crate) fn stands(&self, from: NodeId, session: Session, row: BeatRow) -> bool {
        self.frozen.is_none() && self.raft.stands(from, session, row)
    }

    /// The last of the repetitions of a row, at `at`.
    pub(crate) fn hear_again(
        &mut self,
        at: Duration,
        from: NodeId,
        session: Session,
        row: BeatRow,
    ) {
        if self.frozen.is_none() {
            self.raft.hear_again(at, from, session, row);
        }
    }

    /// Its row in a round that is kept, if there is one.
    pub(crate) fn kept_place(&self) -> Option<KeptPlace> {
        self.kept_place
    }

    /// Gives the place that it had.
    pub(crate) fn set_kept_place(&mut self, place: Option<KeptPlace>) -> Option<KeptPlace> {
        std::mem::replace(&mut self.kept_place, place)
    }

    /// Whether a kept round waits for the leader in this replica's stead.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.kept_place.is_some_and(|place| place.stands)
    }

    /// Whether the next [`step`](Self::step) has something to do that a beat has brought about.
    pub(crate) fn has_output(&self) -> bool {
        self.raft.has_output()
    }
}

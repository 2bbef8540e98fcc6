//! What a node may still vouch for when part of its log is unreadable.

use crate::config::Quarantine;
use crate::types::{LogIndex, Session, Term};

/// The restored quarantine, and how far it has been mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Health {
    /// All is readable.
    Whole,
    /// See [`Quarantine::Hole`].
    Hole {
        first: LogIndex,
        /// No hole lies behind this.
        last: LogIndex,
    },
    /// See [`Quarantine::ToEnd`].
    ToEnd {
        first: LogIndex,
        /// The unreadable entries have been cut away, or replaced by a base.
        is_cut: bool,
        goal: Option<Goal>,
    },
}

/// What a leader named as its last entry in its first beat of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Goal {
    pub(crate) session: Session,
    pub(crate) term: Term,
    pub(crate) last: LogIndex,
}

impl Health {
    /// What was restored, in a log that ends with `last`.
    pub(crate) fn restore(quarantine: Quarantine, last: LogIndex) -> Result<Health, &'static str> {
        match quarantine {
            Quarantine::None => Ok(Health::Whole),
            Quarantine::Hole { first } if first >= last => {
                Err("a hole that reaches the end was given as one that does not")
            }
            Quarantine::Hole { first } => Ok(Health::Hole { first, last }),
            Quarantine::ToEnd { first } if first != last.next() => {
                Err("the verified log does not end where the hole begins")
            }
            Quarantine::ToEnd { first } => Ok(Health::ToEnd {
                first,
                is_cut: false,
                goal: None,
            }),
        }
    }

    /// Whether it may vote and campaign at all.
    pub(crate) fn may_vote(self) -> bool {
        !matches!(self, Health::ToEnd { .. })
    }

    /// Whether what is unreadable still stands where the next entry goes.
    pub(crate) fn must_cut(self) -> bool {
        matches!(self, Health::ToEnd { is_cut: false, .. })
    }

    /// By how much its election timeouts are stretched: it is to campaign last.
    pub(crate) fn patience(self) -> u32 {
        match self {
            Health::Whole => 1,
            Health::Hole { .. } | Health::ToEnd { .. } => 3,
        }
    }

    /// Whether there is a hole that is not known to be committed.
    pub(crate) fn is_in_doubt(self, commit: LogIndex) -> bool {
        matches!(self, Health::Hole { last, .. } if commit < last)
    }

    /// How much of a log that is synced through `synced` it vouches for, knowing that everything
    /// up to `commit` is decided. A hole below the commit index is held by a quorum of others.
    pub(crate) fn promised(self, synced: LogIndex, commit: LogIndex) -> LogIndex {
        match self {
            Health::Whole => synced,
            Health::Hole { last, .. } if commit >= last => synced,
            Health::Hole { .. } if mutant!("ack over a hole") => synced,
            Health::Hole { first, .. } => synced.min(first.previous()),
            Health::ToEnd { .. } if mutant!("quarantined node acknowledges") => synced,
            Health::ToEnd { .. } => LogIndex::ZERO,
        }
    }

    /// Entries from `first` on were cut. Returns the health after that.
    pub(crate) fn after_cut(self, cut: LogIndex) -> Health {
        match self {
            Health::Hole { first, .. } if cut <= first => Health::Whole,
            Health::Hole { first, last } => Health::Hole {
                first,
                last: last.min(cut.previous()),
            },
            Health::ToEnd { first, goal, .. } => Health::ToEnd {
                first,
                is_cut: true,
                goal,
            },
            Health::Whole => Health::Whole,
        }
    }

    /// The log was replaced by a base, or now starts at `first_kept`.
    pub(crate) fn after_start(self, first_kept: LogIndex) -> Health {
        match self {
            Health::Hole { last, .. } if first_kept > last => Health::Whole,
            Health::Hole { first, last } => Health::Hole {
                first: first.max(first_kept),
                last,
            },
            other => other,
        }
    }

    /// The leader of `term` beats in `session` and names `last`.
    pub(crate) fn heard_beat(&mut self, session: Session, term: Term, last: LogIndex) {
        if let Health::ToEnd { goal, .. } = self
            && goal.is_none_or(|known| (known.session, known.term) != (session, term))
        {
            *goal = Some(Goal {
                session,
                term,
                last,
            });
        }
    }

    /// Whether a log that agrees with that of the leader of `term`, as said in `session`, and is
    /// synced, through `verified`, holds everything that this node may once have promised.
    pub(crate) fn has_rejoined(self, session: Session, term: Term, verified: LogIndex) -> bool {
        match self {
            Health::ToEnd {
                goal: Some(goal), ..
            } => {
                (goal.session, goal.term) == (session, term)
                    && (verified >= goal.last || mutant!("rejoin before all is back"))
            }
            _ => false,
        }
    }
}

//! Rounds of beats that are kept: what the follower's side remembers of rows that may be repeated
//! (see [`beats`](super::beats)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_consensus::{BeatException, BeatRow, Lane, NodeId, Session};
use highwater_log::storage::Storage;

use super::Shard;
use crate::counters::count;
use crate::io::Now;
use crate::ops::GroupId;
use crate::partition::{KeptId, KeptPlace, Partition};
use crate::peer::{BeatRepeat, RepeatAnswer, Section};
use crate::service::Service;

/// How many rounds of one peer's shard are kept; the oldest goes for another. Who sends them keeps
/// to fewer, since each is at least as large as a part of those before it.
const KEPT_MAX: usize = 64;

/// A row as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptRow {
    pub(super) group: GroupId,
    pub(super) row: BeatRow,
    /// In the round that it came with.
    pub(super) place: u32,
}

/// A round: for the replicas whose rows stand it waits for their leader.
#[derive(Debug)]
pub(super) struct KeptRound {
    pub(super) session: Session,
    pub(super) rows: Vec<KeptRow>,
    /// When it came, or was last repeated.
    pub(super) heard: Duration,
    /// The rows that do not stand: whenever they are repeated somebody has to look at them.
    pub(super) odd: BTreeSet<usize>,
}

/// All rounds that are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rounds: BTreeMap<KeptId, KeptRound>,
}

impl Kept {
    pub(super) fn get(&self, id: KeptId, session: Session) -> Option<&KeptRound> {
        let round = self.rounds.get(&id);
        round.filter(|round| round.session == session)
    }

    pub(super) fn insert(&mut self, id: KeptId, round: KeptRound) {
        self.rounds.insert(id, round);
    }

    fn remove(&mut self, id: KeptId) -> Option<KeptRound> {
        self.rounds.remove(&id)
    }

    /// The round that has to go for another one of this shard of a peer.
    pub(super) fn in_the_way_of(&self, id: KeptId) -> Option<KeptId> {
        let of_its_shard =
            |other: &&KeptId| (other.from, other.from_shard) == (id.from, id.from_shard);
        let rounds = self.rounds.keys().filter(of_its_shard);
        if rounds.clone().count() < KEPT_MAX {
            return None;
        }
        rounds.min().copied()
    }

    /// All of one peer.
    pub(super) fn of(&self, node: NodeId) -> Vec<KeptId> {
        let rounds = self.rounds.keys().filter(|id| id.from == node);
        rounds.copied().collect()
    }

    /// Those that were not heard for so long.
    pub(super) fn silent(&self, now: Duration, patience: Duration) -> Vec<KeptId> {
        let rounds = self.rounds.iter();
        let silent = rounds.filter(|(_, round)| round.heard + patience <= now);
        silent.map(|(id, _)| *id).collect()
    }

    /// When the first will have been silent for so long.
    pub(super) fn next_silent(&self, patience: Duration) -> Option<Duration> {
        self.rounds.values().map(|it| it.heard + patience).min()
    }

    /// A round is repeated.
    pub(super) fn hear(&mut self, id: KeptId, now: Duration) {
        if let Some(round) = self.rounds.get_mut(&id) {
            round.heard = now;
        }
    }

    /// The row at this place stands, or not.
    pub(super) fn set(&mut self, place: KeptPlace) {
        if let Some(round) = self.rounds.get_mut(&place.id) {
            match place.stands {
                true => round.odd.remove(&place.at),
                false => round.odd.insert(place.at),
            };
        }
    }

    /// Looks whether a replica's row stands.
    pub(super) fn review(&mut self, partition: &mut Partition) {
        let Some(place) = partition.kept_place() else {
            return;
        };
        let Some(round) = self.rounds.get(&place.id) else {
            return;
        };
        let row = round.rows[place.at].row;
        let stands = partition.stands(place.id.from, round.session, row);
        if stands != place.stands {
            let place = KeptPlace { stands, ..place };
            partition.set_kept_place(Some(place));
            self.set(place);
        }
    }

    /// Tells a replica what its leader has said in its stead. Before anything else is done with it.
    pub(super) fn tell(&self, partition: &mut Partition) {
        let Some(place) = partition.kept_place() else {
            return;
        };
        if let Some(round) = self.rounds.get(&place.id) {
            round.tell(partition, place);
        }
    }
}

impl KeptRound {
    fn tell(&self, partition: &mut Partition, place: KeptPlace) {
        if place.stands {
            let row = self.rows[place.at].row;
            partition.hear_again(self.heard, place.id.from, self.session, row);
        }
    }
}

impl<S: Storage, V: Service> Shard<S, V> {
    /// Keeps rows that were confirmed.
    pub(super) fn keep(&mut self, now: Now, id: KeptId, session: Session, rows: Vec<KeptRow>) {
        if self.kept.get(id, session).is_some() {
            // It has come twice.
            return self.kept.hear(id, now.monotonic);
        }
        if let Some(oldest) = self.kept.in_the_way_of(id) {
            self.let_go(oldest);
        }
        let mut odd = BTreeSet::new();
        for (at, kept) in rows.iter().enumerate() {
            let Some(partition) = self.partitions.get_mut(&kept.group) else {
                odd.insert(at);
                continue;
            };
            self.kept.tell(partition);
            let stands = partition.stands(id.from, session, kept.row);
            let before = partition.set_kept_place(Some(KeptPlace { id, at, stands }));
            if let Some(before) = before {
                // Should that be repeated, it is not for it any more to wait.
                let stands = false;
                self.kept.set(KeptPlace { stands, ..before });
                if before.id == id {
                    odd.insert(before.at);
                }
            }
            if !stands {
                odd.insert(at);
                self.timeouts.set(kept.group, partition.next_timeout(false));
            }
        }
        let round = KeptRound {
            session,
            rows,
            heard: now.monotonic,
            odd,
        };
        self.kept.insert(id, round);
    }

    /// "Rows as in that round": the same as if they had come.
    pub(super) fn repeat_received(
        &mut self,
        now: Now,
        from: NodeId,
        from_shard: u16,
        session: Session,
        repeat: BeatRepeat,
    ) {
        let id = KeptId {
            from,
            from_shard,
            round: repeat.of,
        };
        let is_known = self.kept.get(id, session).is_some();
        let exceptions = match is_known {
            true => self.hear_again(now, id, session),
            false => Vec::new(),
        };
        self.counters.repeats_heard += 1;
        self.counters.repeats_unknown += u64::from(!is_known);
        self.counters.repeat_exceptions += count(exceptions.len());
        let answer = Section::RepeatAnswer(RepeatAnswer {
            to_shard: from_shard,
            round: repeat.round,
            of: repeat.of,
            is_known,
            exceptions,
        });
        self.links.push(from, session, Lane::Control, &answer);
    }

    /// What is to be said against the rows of a round that is repeated.
    fn hear_again(&mut self, now: Now, id: KeptId, session: Session) -> Vec<(u32, BeatException)> {
        if !mutant!(UnsteppedRowsStand) {
            self.review_unstepped(id);
        }
        self.kept.hear(id, now.monotonic);
        let Some(round) = self.kept.get(id, session) else {
            return Vec::new();
        };
        let odd = round.odd.iter().map(|&at| (at, round.rows[at]));
        let odd: Vec<(usize, KeptRow)> = odd.collect();
        let mut exceptions = Vec::new();
        for (at, kept) in odd {
            let exception = self.hear_row(now, id.from, session, kept.group, kept.row);
            exceptions.extend(exception.map(|exception| (kept.place, exception)));
            if let Some(partition) = self.partitions.get_mut(&kept.group)
                && partition
                    .kept_place()
                    .is_some_and(|place| (place.id, place.at) == (id, at))
            {
                self.kept.review(partition);
            }
        }
        exceptions
    }

    /// What has happened to a replica in this turn is known to it, though it was not stepped since.
    fn review_unstepped(&mut self, id: KeptId) {
        for group in &self.dirty {
            if let Some(partition) = self.partitions.get_mut(group)
                && partition.kept_place().is_some_and(|place| place.id == id)
            {
                self.kept.review(partition);
            }
        }
    }

    /// Rounds that were not heard for the shortest election timeout wait no longer: from now on
    /// each replica does.
    pub(super) fn let_go_of_silent(&mut self, now: Now) {
        if mutant!(KeptForEver) {
            return;
        }
        let patience = self.config.timing.election_timeout_min;
        for id in self.kept.silent(now.monotonic, patience) {
            self.counters.repeats_missed += 1;
            self.let_go(id);
        }
    }

    /// When that is to be looked at.
    pub(super) fn next_let_go(&self) -> Option<Duration> {
        self.kept
            .next_silent(self.config.timing.election_timeout_min)
    }

    /// A round is kept no longer.
    pub(super) fn let_go(&mut self, id: KeptId) {
        let Some(round) = self.kept.remove(id) else {
            return;
        };
        for kept in &round.rows {
            let Some(partition) = self.partitions.get_mut(&kept.group) else {
                continue;
            };
            if let Some(place) = partition.kept_place().filter(|place| place.id == id) {
                round.tell(partition, place);
                partition.set_kept_place(None);
                self.timeouts.set(kept.group, partition.next_timeout(false));
            }
        }
    }
}

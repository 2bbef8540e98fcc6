//! Which rows stand at a peer: what the leader's side of a link remembers of the rows that need
//! not be sent again (see [`beats`](super::beats)).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_consensus::{BeatRound, BeatRow, Term};

use crate::ops::GroupId;

/// For how many beats a row must have said the same before the peer is to keep it, and how often
/// such rows are gathered for it. What is written to every second is spared the way to and fro.
const SETTLED_BEATS: u64 = 4;

/// After how many beats without an answer a part is given up, and its rows are sent again. The
/// peer has let go of it by then, and whoever hangs there is to be found out row by row.
const UNANSWERED_MAX: usize = 8;

/// The rows of one round that one shard of the peer has confirmed and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId {
    pub(super) round: BeatRound,
    pub(super) shard: u16,
}

#[derive(Debug)]
struct Part {
    /// By their place in the round, ascending.
    groups: Vec<(u32, GroupId)>,
    /// How many of them have not gone elsewhere.
    standing: usize,
    /// The rounds that repeat it and are not answered.
    unanswered: VecDeque<BeatRound>,
    answered_at: Duration,
}

/// A row that a peer keeps.
#[derive(Debug, Clone, Copy)]
struct Stood {
    part: PartId,
    row: BeatRow,
}

/// A row that goes with every beat, since the peer does not keep it as it is.
#[derive(Debug, Clone, Copy)]
struct Watched {
    row: Option<BeatRow>,
    /// The beat since which it has said that.
    since: u64,
}

/// How a row is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Not at all: it stands.
    Stands,
    /// For the peer to keep.
    ToKeep,
    /// As ever.
    Plain,
}

/// All rows for one peer, in one session.
///
/// A row is watched, or stands, or both, until the next beat finds out. All that makes a row
/// change has the group watched again: so what stands and is not watched is as it was when the
/// peer confirmed it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Whether the peer has said that it knows rounds that are repeated.
    pub(super) knows_repeats: bool,
    beats: u64,
    watched: BTreeMap<GroupId, Watched>,
    stood: BTreeMap<GroupId, Stood>,
    parts: BTreeMap<PartId, Part>,
}

/// What was given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// What stood in it, and of which term.
    pub(super) groups: Vec<(GroupId, Term)>,
    /// When the peer last confirmed that.
    pub(super) answered_at: Duration,
    /// Those that were not watched: nobody else has their rows sent.
    pub(super) unsent: Vec<GroupId>,
}

impl Standing {
    /// The group's row may have changed.
    pub(super) fn watch(&mut self, group: GroupId) {
        let since = self.beats;
        let watched = Watched { row: None, since };
        self.watched.entry(group).or_insert(watched);
    }

    /// There is no row of this group for this peer.
    pub(super) fn unwatch(&mut self, group: GroupId) {
        self.watched.remove(&group);
    }

    /// The groups whose rows may not stand.
    pub(super) fn watched(&self) -> Vec<GroupId> {
        self.watched.keys().copied().collect()
    }

    /// A beat begins: the parts that need not be repeated any more, since nobody has answered them
    /// for long, or nothing is left of them.
    pub(super) fn begin_beat(&mut self) -> Vec<PartId> {
        self.beats += 1;
        let is_over = |part: &Part| part.unanswered.len() >= UNANSWERED_MAX || part.standing == 0;
        let parts = self.parts.iter().filter(|(_, part)| is_over(part));
        parts.map(|(id, _)| *id).collect()
    }

    /// The part that would go on to speak for a group that is not led any more, or is led in
    /// another term than its row says.
    pub(super) fn outlived(&self, group: GroupId, led_in: Option<Term>) -> Option<PartId> {
        let stood = self.stood.get(&group)?;
        (led_in != Some(stood.row.term)).then_some(stood.part)
    }

    /// How the row of a watched group is to be sent; `row` is what stands, if anything does.
    pub(super) fn look(&mut self, group: GroupId, row: Option<BeatRow>) -> Sending {
        let stood = self.stood.get(&group).map(|stood| stood.row);
        if row.is_some() && row == stood {
            self.watched.remove(&group);
            return Sending::Stands;
        }
        let since = self.beats;
        let watched = self.watched.entry(group);
        let watched = watched.or_insert(Watched { row: None, since });
        if watched.row != row {
            *watched = Watched { row, since };
        }
        let is_settled = row.is_some() && self.beats >= watched.since + SETTLED_BEATS;
        match is_settled && self.knows_repeats && self.beats.is_multiple_of(SETTLED_BEATS) {
            true => Sending::ToKeep,
            false => Sending::Plain,
        }
    }

    /// A part that is to be sent anew along with `rows` others: one that is not twice as large as
    /// they, or most of whose rows have gone elsewhere. So each part is less than half as large as
    /// the one before, there are few, and a row is sent anew only as its part grows by half.
    pub(super) fn part_to_merge(&self, rows: usize) -> Option<PartId> {
        let mut parts = self.parts.iter();
        let is_due = |part: &Part| {
            part.standing <= rows.saturating_mul(2) || part.standing * 2 <= part.groups.len()
        };
        parts.find(|(_, part)| is_due(part)).map(|(id, _)| *id)
    }

    /// The rows of a part are sent from now on, until they are kept anew.
    pub(super) fn give_up(&mut self, id: PartId) -> GivenUp {
        let Some(part) = self.parts.remove(&id) else {
            return GivenUp::default();
        };
        let (mut groups, mut unsent) = (Vec::new(), Vec::new());
        for (_, group) in part.groups {
            if let Some(stood) = self.stood.get(&group).copied().filter(|it| it.part == id) {
                self.stood.remove(&group);
                groups.push((group, stood.row.term));
                let row = Some(stood.row);
                let since = self.beats.saturating_sub(SETTLED_BEATS);
                self.watched.entry(group).or_insert_with(|| {
                    unsent.push(group);
                    Watched { row, since }
                });
            }
        }
        GivenUp {
            groups,
            answered_at: part.answered_at,
            unsent,
        }
    }

    /// The parts that stand, and are repeated by `round`.
    pub(super) fn repeat(&mut self, round: BeatRound) -> Vec<PartId> {
        for part in self.parts.values_mut() {
            part.unanswered.push_back(round);
        }
        self.parts.keys().copied().collect()
    }

    /// A shard of the peer has confirmed rows that it was to keep.
    pub(super) fn stand(&mut self, now: Duration, id: PartId, rows: &[(u32, GroupId, BeatRow)]) {
        for &(_, group, row) in rows {
            self.leave(group);
            self.stood.insert(group, Stood { part: id, row });
        }
        let part = Part {
            groups: rows
                .iter()
                .map(|&(place, group, _)| (place, group))
                .collect(),
            standing: rows.len(),
            unanswered: VecDeque::new(),
            answered_at: now,
        };
        self.parts.insert(id, part);
    }

    /// The group that stands in a part, at this place of its round.
    pub(super) fn group_at(&self, id: PartId, place: u32) -> Option<GroupId> {
        let groups = &self.parts.get(&id)?.groups;
        let at = groups.binary_search_by_key(&place, |(place, _)| *place);
        let (_, group) = *groups.get(at.ok()?)?;
        let stood = self.stood.get(&group)?;
        (stood.part == id).then_some(group)
    }

    /// The peer does not confirm the group's row.
    pub(super) fn refuse(&mut self, group: GroupId) {
        self.leave(group);
        self.watch(group);
    }

    fn leave(&mut self, group: GroupId) {
        if let Some(stood) = self.stood.remove(&group)
            && let Some(part) = self.parts.get_mut(&stood.part)
        {
            part.standing -= 1;
        }
    }

    /// The peer has confirmed a part again.
    pub(super) fn answered(&mut self, now: Duration, id: PartId, round: BeatRound) {
        if let Some(part) = self.parts.get_mut(&id)
            && part.unanswered.contains(&round)
        {
            part.unanswered.retain(|&sent| sent > round);
            part.answered_at = now;
        }
    }

    /// Whether the group has a row of this term in a part: that is repeated, and given up when
    /// nobody has answered it for long.
    pub(super) fn stands(&self, group: GroupId, term: Term) -> bool {
        let stood = self.stood.get(&group);
        stood.is_some_and(|stood| stood.row.term == term)
    }

    /// When the peer last confirmed the group's row, and of which term that is.
    pub(super) fn confirmed(&self, group: GroupId) -> Option<(Duration, Term)> {
        let stood = self.stood.get(&group)?;
        let part = self.parts.get(&stood.part)?;
        Some((part.answered_at, stood.row.term))
    }
}

#[cfg(test)]
mod tests {
    use highwater_consensus::LogIndex;
    use proptest::prelude::*;

    use super::*;

    const SHARD: u16 = 0;

    fn row(last: u64) -> BeatRow {
        BeatRow {
            term: Term::new(1).unwrap(),
            last: LogIndex(last),
            commit: LogIndex(last),
        }
    }

    /// A leader's side whose peer confirms all at once.
    #[derive(Default)]
    struct Peer {
        standing: Standing,
        round: u64,
        /// What each group's row says now, and what the peer keeps.
        rows: BTreeMap<GroupId, BeatRow>,
        kept: BTreeMap<PartId, BTreeMap<GroupId, BeatRow>>,
    }

    impl Peer {
        fn new() -> Peer {
            let mut peer = Peer::default();
            peer.standing.knows_repeats = true;
            peer
        }

        fn write(&mut self, group: GroupId) {
            let last = self.rows.get(&group).map_or(1, |row| row.last.0 + 1);
            self.rows.insert(group, row(last));
            self.standing.watch(group);
        }

        /// A beat; how many rows went with it.
        fn beat(&mut self) -> usize {
            for part in self.standing.begin_beat() {
                self.standing.give_up(part);
            }
            let (mut sent, mut to_keep) = (0, Vec::new());
            for group in self.standing.watched() {
                match self.standing.look(group, self.rows.get(&group).copied()) {
                    Sending::Stands => {}
                    Sending::Plain => sent += 1,
                    Sending::ToKeep => to_keep.push(group),
                }
            }
            while !to_keep.is_empty()
                && let Some(part) = self.standing.part_to_merge(to_keep.len())
            {
                to_keep.extend(self.standing.give_up(part).unsent);
            }
            self.round += 1;
            let round = BeatRound(self.round);
            let id = PartId {
                round,
                shard: SHARD,
            };
            if !to_keep.is_empty() {
                let rows = to_keep.iter().zip(0..);
                let rows: Vec<(u32, GroupId, BeatRow)> = rows
                    .map(|(group, place)| (place, *group, self.rows[group]))
                    .collect();
                self.standing.stand(Duration::ZERO, id, &rows);
                let rows = rows.into_iter().map(|(_, group, row)| (group, row));
                self.kept.insert(id, rows.collect());
            }
            sent + to_keep.len()
        }

        /// What is not sent has been kept as it is, and each part counts what stands in it.
        fn check(&mut self) {
            for (group, row) in &self.rows {
                if self.standing.watched.contains_key(group) {
                    continue;
                }
                let stood = self.standing.stood[group];
                assert!(self.standing.parts.contains_key(&stood.part));
                assert_eq!(self.kept[&stood.part].get(group), Some(row));
            }
            for (id, part) in &self.standing.parts {
                let stood = self.standing.stood.values();
                assert_eq!(stood.filter(|it| it.part == *id).count(), part.standing);
            }
        }
    }

    #[test]
    fn what_says_the_same_for_some_beats_is_kept_and_not_sent_again() {
        let mut peer = Peer::new();
        (1..=100).map(GroupId).for_each(|group| peer.write(group));
        let sent: usize = (0..2 * SETTLED_BEATS + 1).map(|_| peer.beat()).sum();
        assert!((100..=900).contains(&sent), "{sent}");
        assert_eq!(peer.beat(), 0);
        peer.write(GroupId(7));
        assert_eq!(peer.beat(), 1, "the others stand");
        peer.check();
    }

    #[test]
    fn who_does_not_know_repeats_is_sent_all_rows() {
        let mut peer = Peer::new();
        peer.standing.knows_repeats = false;
        (1..=3).map(GroupId).for_each(|group| peer.write(group));
        for _ in 0..20 {
            assert_eq!(peer.beat(), 3);
        }
    }

    #[test]
    fn a_part_that_nobody_answers_for_long_is_sent_as_rows() {
        let mut peer = Peer::new();
        peer.write(GroupId(1));
        while peer.beat() > 0 {}
        for round in (1_000..).take(UNANSWERED_MAX) {
            assert_eq!(peer.standing.repeat(BeatRound(round)).len(), 1);
        }
        assert_eq!(peer.beat(), 1);
        (0..SETTLED_BEATS).for_each(|_| _ = peer.beat());
        assert_eq!(peer.standing.repeat(BeatRound(2_000)).len(), 1, "a new one");
        assert_eq!(peer.kept.len(), 2);
    }

    #[test]
    fn a_late_answer_counts_only_if_it_is_of_the_last_rounds() {
        let mut peer = Peer::new();
        peer.write(GroupId(1));
        while peer.beat() > 0 {}
        let id = peer.standing.repeat(BeatRound(1_000))[0];
        let at = |standing: &Standing| standing.confirmed(GroupId(1)).unwrap().0;
        let second = Duration::from_secs(1);
        peer.standing.answered(second, id, BeatRound(999));
        assert_eq!(at(&peer.standing), Duration::ZERO);
        peer.standing.answered(second, id, BeatRound(1_000));
        assert_eq!(at(&peer.standing), second);
        peer.standing.answered(second * 2, id, BeatRound(1_000));
        assert_eq!(at(&peer.standing), second, "it was answered");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_sent_until_it_is_kept_in_few_parts(
            steps in prop::collection::vec(prop::option::of(1_u64..200), 1..600),
        ) {
            let mut peer = Peer::new();
            for step in steps {
                match step {
                    Some(group) => peer.write(GroupId(group)),
                    None => _ = peer.beat(),
                }
                peer.check();
            }
            for _ in 0..3 * SETTLED_BEATS {
                peer.beat();
                peer.check();
            }
            prop_assert_eq!(peer.beat(), 0);
            prop_assert!(peer.standing.parts.len() <= 9, "{}", peer.standing.parts.len());
        }
    }
}

//! Beats: a row for every group that this shard leads and a peer follows, each interval, and the
//! answers to them (DESIGN.md section 5, Liveness).
//!
//! A group that is idle costs neither side anything. Its row *stands* when there is no more to say
//! than it says ([`Raft::standing_row`](highwater_consensus::Raft::standing_row)). Rows that have
//! stood for some beats go in a round that the peer's shards *keep*, each the rows that it
//! confirms; from then on one small section for each of those parts says "rows as in round n", and
//! means that they were sent. [`Standing`](super::standing::Standing) is what the leader's side of
//! a link remembers of that, [`Kept`](super::kept::Kept) the follower's.
//!
//! What makes it mean the same:
//! - All that could make a row say something else steps the group, and whatever is stepped is looked
//!   at before the next beat leaves: its row is sent again. If it is not led any more, or in another
//!   term, the whole part is given up, so that nobody goes on to hear a leader that is none.
//! - The follower looks at a group too whenever it is stepped, and at those that wait for their step
//!   before it answers. Those whose row would do more than to tell that the leader is alive are
//!   given the row whenever it is repeated, as if it had come, and what they have to say against it
//!   goes back.
//! - For the others the round itself waits for the leader. When it has not come for the shortest
//!   election timeout, each replica is told when it was last heard and waits on by itself. Whoever
//!   wants something of a replica before that has it told first ([`Kept::tell`](super::kept)).
//! - A leader whose rows stand at a quorum does not look whether it is heard: each part is given up
//!   when nobody has answered it for some beats, and then its leaders are told of the last answer
//!   and look again. An answer to what was repeated confirms no read: reads wait for rounds with a
//!   row of their group.
//! - A new session begins with nothing.

use std::collections::BTreeMap;

use highwater_consensus::{BeatException, BeatRound, BeatRow, Lane, NodeId, Session};
use highwater_log::storage::Storage;

use super::Shard;
use super::kept::KeptRow;
use super::standing::{PartId, Sending};
use crate::io::Now;
use crate::ops::GroupId;
use crate::partition::KeptId;
use crate::peer::{BeatAnswers, BeatRepeat, Beats, RepeatAnswer, Section};
use crate::service::Service;

/// How many rows a frame of beats has at most; a shard that leads more sends several.
const ROWS_MAX: usize = 16_384;

/// The leader's side.
impl<S: Storage, V: Service> Shard<S, V> {
    /// Sends beats to the peers whose time has come.
    pub(super) fn send_beats(&mut self, now: Now) {
        while let Some(to) = self.links.take_due(now.monotonic) {
            self.give_up_what_is_over(to);
            let (plain, mut to_keep) = self.rows_to_send(to);
            self.merge_parts(to, &mut to_keep);
            for groups in plain.chunks(ROWS_MAX) {
                self.send_rows(to, groups, false);
            }
            for groups in to_keep.chunks(ROWS_MAX) {
                self.send_rows(to, groups, true);
            }
            self.repeat_parts(to);
        }
    }

    /// Sends beats of one group to all its followers at once, for a read that waits.
    pub(super) fn send_beat_of(&mut self, group: GroupId) {
        for (to, _) in self.links.peers() {
            self.send_rows(to, &[group], false);
        }
    }

    fn give_up_what_is_over(&mut self, to: NodeId) {
        let Some(standing) = self.links.standing(to) else {
            return;
        };
        let (over, watched) = (standing.begin_beat(), standing.watched());
        for part in over {
            self.give_up(to, part);
        }
        for group in watched {
            let partition = self.partitions.get(&group);
            let led_in = partition.and_then(|it| it.leads_in());
            let standing = self.links.standing(to);
            if let Some(part) = standing.and_then(|it| it.outlived(group, led_in))
                && !mutant!(LostRowsRepeated)
            {
                self.give_up(to, part);
            }
        }
    }

    /// The groups whose rows do not stand: those whose rows go as ever, and those to be kept.
    fn rows_to_send(&mut self, to: NodeId) -> (Vec<GroupId>, Vec<GroupId>) {
        let (mut plain, mut to_keep) = (Vec::new(), Vec::new());
        let Some(standing) = self.links.standing(to) else {
            return (plain, to_keep);
        };
        for group in standing.watched() {
            match self.partitions.get(&group) {
                Some(it) if it.leads_in().is_some() && it.is_on(to) => {
                    match standing.look(group, it.standing_row(to)) {
                        Sending::Stands => {}
                        Sending::ToKeep => to_keep.push(group),
                        Sending::Plain => plain.push(group),
                    }
                }
                _ => standing.unwatch(group),
            }
        }
        (plain, to_keep)
    }

    /// Small parts go into the one that is about to be.
    fn merge_parts(&mut self, to: NodeId, to_keep: &mut Vec<GroupId>) {
        while !to_keep.is_empty() {
            let standing = self.links.standing(to);
            let Some(part) = standing.and_then(|it| it.part_to_merge(to_keep.len())) else {
                return;
            };
            to_keep.extend(self.give_up(to, part));
        }
    }

    /// The rows of a part are sent from now on. Its groups are told when they were last confirmed.
    /// Gives those that are not watched anyway.
    fn give_up(&mut self, to: NodeId, part: PartId) -> Vec<GroupId> {
        let Some(session) = self.links.session(to) else {
            return Vec::new();
        };
        let given_up = self.links.standing(to).map(|it| it.give_up(part));
        let given_up = given_up.unwrap_or_default();
        for &(group, term) in &given_up.groups {
            if let Some(partition) = self.partitions.get_mut(&group) {
                partition.confirm_again(given_up.answered_at, to, session, term);
            }
            self.wait_for(group);
        }
        given_up.unsent
    }

    fn send_rows(&mut self, to: NodeId, groups: &[GroupId], is_kept: bool) {
        let Some(session) = self.links.session(to) else {
            return;
        };
        let round = self.links.new_round();
        let rows: Vec<_> = groups
            .iter()
            .filter_map(|group| {
                let row = self.partitions.get_mut(group)?.beat_row(to, round)?;
                Some((*group, row))
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        self.counters.beat_rows_sent += crate::counters::count(rows.len());
        self.links.note_round(to, round, &rows, is_kept);
        let beats = Section::Beats(Beats {
            round,
            rows,
            places: Vec::new(),
            is_kept,
        });
        self.links.push(to, session, Lane::Control, &beats);
    }

    fn repeat_parts(&mut self, to: NodeId) {
        let Some(session) = self.links.session(to) else {
            return;
        };
        let round = self.links.new_round();
        let parts = self.links.standing(to).map(|it| it.repeat(round));
        for part in parts.unwrap_or_default() {
            let repeat = Section::Repeat(BeatRepeat {
                to_shard: part.shard,
                round,
                of: part.round,
            });
            self.links.push(to, session, Lane::Control, &repeat);
        }
    }

    /// A peer's answer to a round, or to the part of it that one of its shards has.
    pub(super) fn beats_answered(
        &mut self,
        now: Now,
        from: NodeId,
        from_shard: u16,
        session: Session,
        answers: &BeatAnswers,
    ) {
        let Some(groups) = self.links.round(from, answers.round) else {
            return;
        };
        let exceptions: BTreeMap<u32, BeatException> = answers.exceptions.iter().copied().collect();
        let mut confirmed = Vec::new();
        let mut answered = 0;
        for &(first, count) in &answers.answered {
            let end = first.saturating_add(count);
            // However the runs overlap, a row is answered once.
            for place in first.max(answered)..end {
                let Some(&group) = usize::try_from(place).ok().and_then(|at| groups.get(at)) else {
                    break;
                };
                let exception = exceptions.get(&place).copied();
                if exception.is_none() {
                    confirmed.push((place, group));
                }
                let Some(partition) = self.partitions.get_mut(&group) else {
                    continue;
                };
                partition.handle_beat_ack(now, from, session, answers.round, exception);
                if partition.has_output() {
                    self.dirty.insert(group);
                }
            }
            answered = answered.max(end);
        }
        let shard = from_shard;
        let round = answers.round;
        self.let_stand(now, from, PartId { round, shard }, &confirmed);
    }

    /// What a shard has confirmed of a round that it was to keep stands from now on. Not if one of
    /// the groups is not led any more: that it was, must not be repeated.
    fn let_stand(&mut self, now: Now, from: NodeId, part: PartId, confirmed: &[(u32, GroupId)]) {
        let Some(rows) = self.links.take_kept_rows(from, part, confirmed) else {
            return;
        };
        let is_led = |group: &GroupId, row: &BeatRow| {
            let partition = self.partitions.get(group);
            partition.and_then(|it| it.leads_in()) == Some(row.term)
        };
        if rows.iter().all(|(_, group, row)| is_led(group, row))
            && let Some(standing) = self.links.standing(from)
        {
            standing.stand(now.monotonic, part, &rows);
        }
    }

    /// A shard of a peer answers to what was repeated to it.
    pub(super) fn repeat_answered(
        &mut self,
        now: Now,
        from: NodeId,
        from_shard: u16,
        session: Session,
        answer: &RepeatAnswer,
    ) {
        let part = PartId {
            round: answer.of,
            shard: from_shard,
        };
        if !answer.is_known {
            self.give_up(from, part);
            return;
        }
        for &(place, exception) in &answer.exceptions {
            let standing = self.links.standing(from);
            if let Some(group) = standing.and_then(|it| it.group_at(part, place)) {
                self.row_refused(now, from, session, group, (answer.round, exception));
            }
        }
        if let Some(standing) = self.links.standing(from) {
            standing.answered(now.monotonic, part, answer.round);
        }
    }

    /// A row that was repeated is not confirmed. A higher term is heard at once; else the row is
    /// sent with the next beat, and what is said to that counts.
    fn row_refused(
        &mut self,
        now: Now,
        from: NodeId,
        session: Session,
        group: GroupId,
        (round, exception): (BeatRound, BeatException),
    ) {
        self.confirm_by(from, session, group);
        if let Some(partition) = self.partitions.get_mut(&group) {
            partition.handle_beat_ack(now, from, session, round, Some(exception));
            if partition.has_output() {
                self.dirty.insert(group);
            }
        }
        if let Some(standing) = self.links.standing(from) {
            standing.refuse(group);
        }
        self.wait_for(group);
    }

    /// Whether the rows of a group that is led here stand at a quorum, so that nobody need look
    /// whether it is heard before one of its parts is given up.
    pub(super) fn is_heard(&self, group: GroupId) -> bool {
        let Some(partition) = self.partitions.get(&group) else {
            return false;
        };
        let stands_at = |term| move |node| self.links.stands_at(node, group, term);
        let led_in = partition.leads_in();
        led_in.is_some_and(|term| partition.is_quorum(stands_at(term)))
            && !partition.is_transferring()
    }

    /// The group is looked at again when it is due, though its rows may have stood so far.
    pub(super) fn wait_for(&mut self, group: GroupId) {
        let partition = self.partitions.get(&group);
        let due = partition.and_then(|it| it.next_timeout(false));
        if due.is_some() && !mutant!(UnheardLeaderUnwatched) {
            self.timeouts.set(group, due);
        }
    }

    /// Tells a leader when this peer last confirmed the row that stands there.
    pub(super) fn confirm_by(&mut self, peer: NodeId, session: Session, group: GroupId) {
        let standing = self.links.standing(peer);
        if let Some((at, term)) = standing.and_then(|it| it.confirmed(group))
            && let Some(partition) = self.partitions.get_mut(&group)
        {
            partition.confirm_again(at, peer, session, term);
        }
    }

    /// Tells a leader when each peer last confirmed it: before it looks for its quorum.
    pub(super) fn confirm(&mut self, group: GroupId) {
        for (peer, session) in self.links.peers() {
            self.confirm_by(peer, session, group);
        }
    }
}

/// The follower's side.
impl<S: Storage, V: Service> Shard<S, V> {
    /// Rows of a leader: each group that is here hears it, and what it has to say against it
    /// goes back at once.
    pub(super) fn beats_received(
        &mut self,
        now: Now,
        from: NodeId,
        from_shard: u16,
        session: Session,
        beats: Beats,
    ) {
        let mut answered = Vec::new();
        let mut exceptions = Vec::new();
        let mut confirmed = Vec::new();
        for ((group, row), place) in beats.rows.into_iter().zip(beats.places) {
            let exception = self.hear_row(now, from, session, group, row);
            add_place(&mut answered, place);
            match exception {
                Some(exception) => exceptions.push((place, exception)),
                None if beats.is_kept => confirmed.push(KeptRow { group, row, place }),
                None => {}
            }
        }
        let answers = Section::BeatAnswers(BeatAnswers {
            to_shard: from_shard,
            round: beats.round,
            answered,
            exceptions,
        });
        self.links.push(from, session, Lane::Control, &answers);
        if !confirmed.is_empty() {
            let round = beats.round;
            let id = KeptId {
                from,
                from_shard,
                round,
            };
            self.keep(now, id, session, confirmed);
        }
    }

    /// A row has come, or one that came earlier is to be heard as if it had.
    pub(super) fn hear_row(
        &mut self,
        now: Now,
        from: NodeId,
        session: Session,
        group: GroupId,
        row: BeatRow,
    ) -> Option<BeatException> {
        let Some(partition) = self.partitions.get_mut(&group) else {
            return Some(BeatException::Unknown);
        };
        self.kept.tell(partition);
        let exception = partition.handle_beat(now, from, session, row);
        if partition.has_output() {
            self.dirty.insert(group);
        }
        exception
    }
}

/// Adds a place to runs of places.
fn add_place(runs: &mut Vec<(u32, u32)>, place: u32) {
    match runs.last_mut() {
        Some((first, count)) if first.checked_add(*count) == Some(place) => *count += 1,
        _ => runs.push((place, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_runs() {
        let mut runs = Vec::new();
        for place in [0, 1, 2, 5, 7, 8] {
            add_place(&mut runs, place);
        }
        assert_eq!(runs, [(0, 3), (5, 1), (7, 2)]);
    }
}

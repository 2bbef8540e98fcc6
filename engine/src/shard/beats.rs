//! Beats: one frame per peer and interval with a row for every group that this shard leads
//! there, and the answers to it (DESIGN.md section 5, Liveness).

use std::collections::BTreeMap;

use highwater_consensus::{BeatException, Lane, NodeId, Session};
use highwater_log::storage::Storage;

use super::Shard;
use crate::io::Now;
use crate::ops::GroupId;
use crate::peer::{BeatAnswers, Beats, Section};
use crate::service::Service;

/// How many rows a frame of beats has at most; a shard that leads more sends several.
const ROWS_MAX: usize = 16_384;

impl<S: Storage, V: Service> Shard<S, V> {
    /// Sends beats to the peers whose time has come.
    pub(super) fn send_beats(&mut self, now: Now) {
        while let Some(to) = self.links.take_due(now.monotonic) {
            let groups: Vec<GroupId> = self.led.iter().copied().collect();
            for groups in groups.chunks(ROWS_MAX) {
                self.send_rows(to, groups);
            }
        }
    }

    /// Sends beats of one group to all its followers at once, for a read that waits.
    pub(super) fn send_beat_of(&mut self, now: Now, group: GroupId) {
        let _ = now;
        for (to, _) in self.links.peers() {
            self.send_rows(to, &[group]);
        }
    }

    fn send_rows(&mut self, to: NodeId, groups: &[GroupId]) {
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
        let groups = rows.iter().map(|(group, _)| *group).collect();
        self.links.note_round(to, round, groups);
        let beats = Section::Beats(Beats {
            round,
            rows,
            places: Vec::new(),
            is_kept: false,
        });
        self.links.push(to, session, Lane::Control, &beats);
    }

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
        for ((group, row), place) in beats.rows.into_iter().zip(beats.places) {
            let exception = match self.partitions.get_mut(&group) {
                Some(partition) => {
                    let exception = partition.handle_beat(now, from, session, row);
                    if partition.has_output() {
                        self.dirty.insert(group);
                    }
                    exception
                }
                None => Some(BeatException::Unknown),
            };
            add_place(&mut answered, place);
            exceptions.extend(exception.map(|exception| (place, exception)));
        }
        let answers = Section::BeatAnswers(BeatAnswers {
            to_shard: from_shard,
            round: beats.round,
            answered,
            exceptions,
        });
        self.links.push(from, session, Lane::Control, &answers);
    }

    /// A peer's answer to a round, or to the part of it that one of its shards has.
    pub(super) fn beats_answered(
        &mut self,
        now: Now,
        from: NodeId,
        session: Session,
        answers: &BeatAnswers,
    ) {
        let Some(groups) = self.links.round(from, answers.round) else {
            return;
        };
        let exceptions: BTreeMap<u32, BeatException> = answers.exceptions.iter().copied().collect();
        let mut answered = 0;
        for &(first, count) in &answers.answered {
            let end = first.saturating_add(count);
            // However the runs overlap, a row is answered once.
            for place in first.max(answered)..end {
                let Some(&group) = usize::try_from(place).ok().and_then(|at| groups.get(at)) else {
                    break;
                };
                let Some(partition) = self.partitions.get_mut(&group) else {
                    continue;
                };
                let exception = exceptions.get(&place).copied();
                partition.handle_beat_ack(now, from, session, answers.round, exception);
                if partition.has_output() {
                    self.dirty.insert(group);
                }
            }
            answered = answered.max(end);
        }
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

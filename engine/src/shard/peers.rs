//! Frames of peers: taken apart, each part brought to its partition, here or on another shard.

use std::collections::BTreeMap;

use highwater_consensus::{Lane, NodeId, Session};
use highwater_log::Incarnation;
use highwater_log::storage::Storage;
use highwater_record::Buffer;

use super::Shard;
use crate::io::{LeaderHint, Now, Output, ShardId, ShardMessage};
use crate::ops::GroupId;
use crate::partition::PeerSend;
use crate::peer::{self, Beats, Section};
use crate::service::{Service, ServiceAddress};

impl<S: Storage, V: Service> Shard<S, V> {
    pub(super) fn peer_up(
        &mut self,
        now: Now,
        node: NodeId,
        session: Session,
        incarnation: Incarnation,
    ) {
        if let Some(old) = self.links.session(node) {
            self.peer_down(now, node, old);
        }
        self.links.up(now.monotonic, node, session, incarnation);
        for (&group, partition) in &mut self.partitions {
            self.kept.tell(partition);
            partition.handle_peer_up(now, node, session);
            self.dirty.insert(group);
        }
        self.service.handle_peer(now, node, true);
        let led = self.partitions.values().filter(|it| it.is_leader());
        let hints: Vec<LeaderHint> = led.map(|partition| partition.leader_hint()).collect();
        if !hints.is_empty() {
            self.links
                .push(node, session, Lane::Control, &Section::Leaders(hints));
        }
    }

    pub(super) fn peer_down(&mut self, now: Now, node: NodeId, session: Session) {
        if self.links.session(node) != Some(session) {
            return;
        }
        self.forget_beats(node, session);
        self.links.down(node, session);
        for (&group, partition) in &mut self.partitions {
            self.kept.tell(partition);
            partition.handle_peer_down(now, node, session);
            self.dirty.insert(group);
        }
        self.service.handle_peer(now, node, false);
    }

    /// A session ends, and with it what stood in it. Before that each replica is told when it was
    /// last heard.
    fn forget_beats(&mut self, node: NodeId, session: Session) {
        for kept in self.kept.of(node) {
            self.let_go(kept);
        }
        let groups: Vec<GroupId> = self.led.iter().copied().collect();
        for group in groups {
            self.confirm_by(node, session, group);
        }
    }

    pub(super) fn peer_frame(&mut self, now: Now, from: NodeId, session: Session, bytes: &Buffer) {
        let route = self.links.route_from(from);
        let Some(route) = route.filter(|route| route.session == session) else {
            self.counters.sections_ignored += 1;
            return;
        };
        let frame = match peer::decode(bytes, &route) {
            Ok(frame) => frame,
            Err(error) => {
                self.counters.frames_refused += 1;
                tracing::warn!(from = from.0, %error, "peer frame refused");
                return;
            }
        };
        self.note_knowledge(from, session, frame.knows_repeats);
        let mut elsewhere: BTreeMap<ShardId, Vec<Section>> = BTreeMap::new();
        for section in frame.sections {
            for (shard, part) in self.split(section) {
                if shard == self.config.shard {
                    self.section(now, from, frame.from_shard, session, part);
                } else {
                    elsewhere.entry(shard).or_default().push(part);
                }
            }
        }
        for (to, sections) in elsewhere {
            let message = ShardMessage::Peer {
                from,
                from_shard: frame.from_shard,
                session,
                knows_repeats: frame.knows_repeats,
                sections,
            };
            self.outputs.push_back(Output::ToShard { to, message });
        }
    }

    /// What a frame of the peer has said that it knows.
    pub(super) fn note_knowledge(&mut self, from: NodeId, session: Session, knows_repeats: bool) {
        if self.links.session(from) == Some(session)
            && let Some(standing) = self.links.standing(from)
        {
            standing.knows_repeats = knows_repeats;
        }
    }

    /// The parts of a section, by the shard that each is for.
    fn split(&self, section: Section) -> Vec<(ShardId, Section)> {
        let shards = self.config.shards;
        if let Some(group) = section.group() {
            return vec![(ShardId::of_group(group, shards), section)];
        }
        match section {
            Section::Beats(beats) => {
                let mut parts: BTreeMap<ShardId, Beats> = BTreeMap::new();
                for (row, place) in beats.rows.into_iter().zip(beats.places) {
                    let shard = ShardId::of_group(row.0, shards);
                    let part = parts.entry(shard).or_insert_with(|| Beats {
                        round: beats.round,
                        rows: Vec::new(),
                        places: Vec::new(),
                        is_kept: beats.is_kept,
                    });
                    part.rows.push(row);
                    part.places.push(place);
                }
                let parts = parts.into_iter();
                parts
                    .map(|(shard, beats)| (shard, Section::Beats(beats)))
                    .collect()
            }
            Section::BeatAnswers(answers) => {
                let shard = ShardId(answers.to_shard);
                let is_here = shard.0 < shards;
                let part = is_here.then_some((shard, Section::BeatAnswers(answers)));
                part.into_iter().collect()
            }
            Section::Repeat(repeat) => {
                let shard = ShardId(repeat.to_shard);
                let part = (shard.0 < shards).then_some((shard, Section::Repeat(repeat)));
                part.into_iter().collect()
            }
            Section::RepeatAnswer(answer) => {
                let shard = ShardId(answer.to_shard);
                let part = (shard.0 < shards).then_some((shard, Section::RepeatAnswer(answer)));
                part.into_iter().collect()
            }
            Section::Service { to_shard, message } => {
                let shard = ShardId(to_shard);
                let part =
                    (shard.0 < shards).then_some((shard, Section::Service { to_shard, message }));
                part.into_iter().collect()
            }
            Section::Leaders(hints) => (0..shards)
                .map(|shard| (ShardId(shard), Section::Leaders(hints.clone())))
                .collect(),
            Section::Message { .. }
            | Section::Append { .. }
            | Section::Base { .. }
            | Section::Wanted { .. }
            | Section::Supply { .. } => unreachable!("these are of one group"),
        }
    }

    /// A part of a frame that is for this shard.
    pub(super) fn section(
        &mut self,
        now: Now,
        from: NodeId,
        from_shard: u16,
        session: Session,
        section: Section,
    ) {
        if self.links.session(from) != Some(session) {
            self.counters.sections_ignored += 1;
            return;
        }
        match section {
            Section::Beats(beats) => self.beats_received(now, from, from_shard, session, beats),
            Section::BeatAnswers(answers) => {
                self.beats_answered(now, from, from_shard, session, &answers);
            }
            Section::Repeat(repeat) => {
                self.repeat_received(now, from, from_shard, session, repeat);
            }
            Section::RepeatAnswer(answer) => {
                self.repeat_answered(now, from, from_shard, session, &answer);
            }
            Section::Leaders(hints) => {
                for hint in hints {
                    self.service.handle_leader(now, hint);
                }
            }
            Section::Service { message, .. } => {
                let from = ServiceAddress {
                    node: from,
                    shard: ShardId(from_shard),
                };
                self.service
                    .handle_message(now, from, message, &mut self.ops);
            }
            Section::Wanted {
                group,
                from: first,
                last,
                max_bytes,
            } => self.with_partition(now, group, |partition, env| {
                partition.handle_wanted(env, from, (first, last), max_bytes);
            }),
            Section::Supply { group, entries } => {
                self.with_partition(now, group, |partition, env| {
                    partition.handle_supply(env, from, &entries);
                });
            }
            of_group => {
                let group = of_group.group().expect("the others are of one group");
                match self.partitions.get_mut(&group) {
                    Some(partition) => {
                        self.kept.tell(partition);
                        partition.handle_section(&self.store, now, from, session, of_group);
                        self.dirty.insert(group);
                    }
                    None => self.counters.sections_ignored += 1,
                }
            }
        }
    }

    /// A leader has become known to a replica here: this shard's service, the other shards' and,
    /// if it is this node, the peers are told.
    pub(super) fn leader_known(&mut self, now: Now, hint: LeaderHint) {
        self.service.handle_leader(now, hint);
        for shard in (0..self.config.shards).map(ShardId) {
            if shard != self.config.shard {
                let message = ShardMessage::Leader(hint);
                self.outputs
                    .push_back(Output::ToShard { to: shard, message });
            }
        }
        if hint.leader == self.config.node {
            let section = Section::Leaders(vec![hint]);
            for (to, session) in self.links.peers() {
                self.links.push(to, session, Lane::Control, &section);
            }
        }
    }

    /// A message of this shard's service for another.
    pub(super) fn send_service_message(&mut self, to: ServiceAddress, message: Buffer) {
        if to.node == self.config.node {
            let from = ServiceAddress {
                node: self.config.node,
                shard: self.config.shard,
            };
            let message = ShardMessage::Service { from, message };
            let to = to.shard;
            self.outputs.push_back(Output::ToShard { to, message });
        } else if let Some(session) = self.links.session(to.node) {
            let section = Section::Service {
                to_shard: to.shard.0,
                message,
            };
            self.links.push(to.node, session, Lane::Control, &section);
        }
    }

    /// Everything that is to go to peers goes, one frame per peer and lane.
    pub(super) fn put_out_frames(&mut self) {
        for send in std::mem::take(&mut self.effects.sends) {
            let PeerSend {
                to,
                session,
                lane,
                section,
            } = send;
            self.links.push(to, session, lane, &section);
        }
        for frame in self.links.finish() {
            self.counters.frames_sent += 1;
            self.outputs.push_back(Output::PeerFrame {
                to: frame.to,
                session: frame.session,
                lane: frame.lane,
                chunks: frame.chunks,
            });
        }
    }
}

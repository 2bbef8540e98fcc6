//! Holes in the log: what is missing is asked of other replicas, and given to those that ask.
//!
//! The log decides what fits (`Store::supply`); here is only who is asked. Any replica will do,
//! leader or not: what it gives is believed for its chain, not for its word. A leader whose holes
//! stay makes way for others: it hands over, or if it can bring nobody that far it falls silent.

use std::time::Duration;

use highwater_consensus::{Lane, LogIndex, Message, NodeId, Session};
use highwater_log::storage::Storage;
use highwater_log::{self as log, Entry, EntryKind, Read, ReadError};
use highwater_record::BatchHeader;

use super::read::{PendingRead, READS_MAX};
use super::{Effects, Env, Partition, PeerSend};
use crate::peer::Section;
use crate::positions;

/// How many bytes of entries are asked for, and given, at once; one entry is, however large.
const SUPPLY_BYTES_MAX: u32 = 1 << 20;

/// How long a leader goes on with a hole in its log. What peers have is there by then: they are
/// asked every second.
const HOLE_PATIENCE: Duration = Duration::from_secs(5);

/// A leader's way out, when its log has a hole.
#[derive(Debug, Default)]
pub(super) struct MakingWay {
    /// When it is to hand over; nothing while the log is whole, or another leads.
    due: Option<Duration>,
    /// How often it has.
    turns: usize,
    /// How far the group had come when `due` was set.
    reached: Reached,
    /// It says nothing more while it leads, so that it soon does not.
    is_silent: bool,
}

/// What moves while a leader is of use: the commit index, and what each follower holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reached {
    commit: LogIndex,
    matched: Vec<Option<LogIndex>>,
}

/// Which peer is asked next.
#[derive(Debug, Default)]
pub(super) struct Supplier {
    /// How often another one was turned to.
    turns: usize,
    /// Whether the present one has given something since it was asked.
    has_supplied: bool,
}

impl Partition {
    /// The log lacks entries. One peer is asked; the log says so again if nothing comes, and then
    /// it is the next one's turn.
    pub(crate) fn ask_for_entries<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        from: log::LogIndex,
        last: log::LogIndex,
    ) {
        let replicas = self.spec.replicas.iter();
        let there = replicas.filter_map(|&to| Some((to, self.raft.session_of(to)?)));
        let there: Vec<(NodeId, Session)> = there.collect();
        if there.is_empty() || self.is_frozen() {
            return;
        }
        if !std::mem::take(&mut self.supplier.has_supplied) {
            self.supplier.turns += 1;
        }
        let (to, session) = there[self.supplier.turns % there.len()];
        let section = Section::Wanted {
            group: self.group,
            from: positions::index_from_log(from),
            last: positions::index_from_log(last),
            max_bytes: SUPPLY_BYTES_MAX,
        };
        tracing::debug!(group = self.group.0, to = to.0, %from, %last, "entries wanted");
        send_bulk(env.effects, (to, session), section);
    }

    /// A peer lacks entries: it gets them if they are here, and good.
    pub(crate) fn handle_wanted<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        from: NodeId,
        (first, last): (LogIndex, LogIndex),
        max_bytes: u32,
    ) {
        let Some(session) = self.raft.session_of(from) else {
            return;
        };
        if self.is_frozen() || self.reads.len() >= READS_MAX {
            return;
        }
        let (first, last) = (
            positions::index_to_log(first),
            positions::index_to_log(last),
        );
        let max_bytes = usize::try_from(max_bytes.min(SUPPLY_BYTES_MAX)).expect("at most 1 MiB");
        let ticket = self.new_ticket();
        match env.store.read(self.group, first, max_bytes, ticket) {
            Ok(Read::Ready(entries)) => {
                self.supply_read(env.effects, (from, session), last, Ok(entries));
            }
            Ok(Read::Pending) => {
                let to = from;
                let read = PendingRead::Supply { to, session, last };
                self.reads.insert(ticket.0, read);
            }
            Err(error) => self.supply_read(env.effects, (from, session), last, Err(error)),
        }
    }

    /// What a peer wants was read, or cannot be: then it hears that, and asks somebody else.
    pub(super) fn supply_read(
        &mut self,
        effects: &mut Effects,
        to: (NodeId, Session),
        last: log::LogIndex,
        result: Result<Vec<Entry>, ReadError>,
    ) {
        if self.raft.session_of(to.0) != Some(to.1) {
            return;
        }
        let mut entries = result.unwrap_or_default();
        entries.retain(|entry| entry.id.index <= last);
        effects.counters.entries_supplied += crate::counters::count(entries.len());
        let group = self.group;
        send_bulk(effects, to, Section::Supply { group, entries });
    }

    /// A peer has given what was asked for, or says that it cannot.
    pub(crate) fn handle_supply<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        from: NodeId,
        entries: &[Entry],
    ) {
        if self.is_frozen() || entries.is_empty() {
            return;
        }
        match env.store.supply(self.group, entries) {
            Ok(()) => {
                self.supplier.has_supplied = true;
                entries.iter().for_each(|entry| self.learn(entry));
            }
            Err(error) => {
                tracing::warn!(group = self.group.0, from = from.0, %error, "not what was there");
            }
        }
    }

    /// What producers have written in a hole was not known either.
    fn learn(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Data
            && let Ok(header) = BatchHeader::read(&entry.body)
        {
            let index = positions::index_from_log(entry.id.index);
            self.producers
                .learn(index, entry.base_offset, &header, entry.append_time);
        }
    }

    /// A file is whole again; all of the log may be.
    pub(crate) fn handle_repaired<S: Storage>(&mut self, env: &mut Env<'_, S>, is_whole: bool) {
        let Ok(epochs) = env.store.epochs(self.group) else {
            return;
        };
        let epochs = epochs.iter().map(|epoch| {
            let first = positions::index_from_log(epoch.first_index);
            (positions::term_from_log(epoch.term), first)
        });
        if let Err(error) = self.raft.handle_history(&epochs.collect::<Vec<_>>()) {
            tracing::warn!(group = self.group.0, %error, "terms of the repaired log");
        }
        if is_whole {
            tracing::info!(group = self.group.0, "the log is whole again");
            self.producers.mended();
            self.raft.handle_repaired();
        }
    }
}

/// Following without a whole log.
impl Partition {
    /// Whether an append conflicts right behind a hole: a log is cut behind the entry before, and
    /// where that ends is known once the hole is filled. The leader has the entry, for the logs
    /// agree up to there. Until then it hears that this replica is busy, and tries again.
    pub(super) fn cannot_cut<S: Storage>(&self, store: &log::Store<S>, message: &Message) -> bool {
        let Message::Append { entries, .. } = message else {
            return false;
        };
        if store.first_hole(self.group).is_none() {
            return false;
        }
        let end = store.end(self.group).map(|end| end.before.index);
        let term_at = |index| store.term_at(self.group, index).ok().flatten();
        let conflict = entries
            .iter()
            .map(|entry| positions::id_to_log(entry.id))
            .find(|id| term_at(id.index) != Some(id.term));
        conflict
            .filter(|id| end.is_ok_and(|end| id.index <= end))
            .is_some_and(|id| !store.can_cut(self.group, id.index))
    }
}

/// Leading without a whole log.
impl Partition {
    /// A leader with a hole cannot serve all that is committed, nor bring others up to date with
    /// it; its owner may lack just that to go on. Another replica may have it, so it hands over:
    /// to each that has all of the log's end in turn, since which of them are whole it cannot know.
    /// Without such a one it goes on, for most of a log is better than none; but if nothing moves
    /// any more, then what is lost is what the others wait for, and it falls silent.
    pub(super) fn make_way<S: Storage>(&mut self, env: &Env<'_, S>) {
        let now = env.now.monotonic;
        if !self.is_leader() || env.store.first_hole(self.group).is_none() {
            self.making_way.due = None;
            return;
        }
        let Some(due) = self.making_way.due else {
            self.making_way.due = Some(now + HOLE_PATIENCE);
            self.making_way.reached = self.reached();
            return;
        };
        if now < due {
            return;
        }
        self.making_way.due = Some(now + HOLE_PATIENCE);
        let reached = self.reached();
        let has_moved = reached != self.making_way.reached;
        self.making_way.reached = reached;
        let last = self.raft.last().index;
        let others = self.spec.replicas.iter().copied();
        let others: Vec<NodeId> = others
            .filter(|&node| self.raft.match_index(node) == Some(last))
            .collect();
        if others.is_empty() {
            if !has_moved && self.raft.commit_index() < last {
                self.fall_silent();
            }
            return;
        }
        let to = others[self.making_way.turns % others.len()];
        self.making_way.turns += 1;
        let begun = self.raft.transfer_leadership(now, to);
        tracing::warn!(
            group = self.group.0,
            to = to.0,
            ?begun,
            "a hole stays: handing over"
        );
    }

    fn reached(&self) -> Reached {
        let replicas = self.spec.replicas.iter();
        Reached {
            commit: self.raft.commit_index(),
            matched: replicas.map(|&node| self.raft.match_index(node)).collect(),
        }
    }

    /// The others take it for dead and choose among themselves; it hears of no quorum any more,
    /// and by that follows before long. To consensus its messages are lost, which is always safe.
    fn fall_silent(&mut self) {
        tracing::warn!(group = self.group.0, "nothing moves past a hole: silent");
        self.making_way.is_silent = true;
    }

    /// Whether it says nothing to its peers, neither by messages nor by rows.
    pub(super) fn is_silent(&self) -> bool {
        self.frozen.is_some() || self.making_way.is_silent
    }

    /// Another may have led meanwhile.
    pub(super) fn restart_making_way(&mut self) {
        self.making_way.due = None;
        self.making_way.is_silent = false;
    }
}

fn send_bulk(effects: &mut Effects, (to, session): (NodeId, Session), section: Section) {
    effects.sends.push(PeerSend {
        to,
        session,
        lane: Lane::Bulk,
        section,
    });
}

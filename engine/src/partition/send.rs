//! Messages to peers, with the bytes of their entries.
//!
//! What consensus sends was appended before, so that its bytes are nearly always in memory. If
//! not, the message waits for the disk, and those behind it on the same lane to the same peer
//! wait with it: consensus counts on their order.

use std::collections::VecDeque;

use highwater_consensus::{EntryMeta, Lane, LogIndex, Message, NodeId, Session};
use highwater_log::storage::Storage;
use highwater_log::{self as log, Entry, Read};

use super::read::{PendingRead, READ_ATTEMPTS_MAX};
use super::{Env, Partition, PeerSend};
use crate::peer::Section;
use crate::positions;

/// A message whose entries are still being read.
#[derive(Debug)]
struct Unsent {
    session: Session,
    message: Message,
    /// The entries read so far, from the front.
    entries: Vec<Entry>,
    /// The read that is under way.
    read: Option<log::Ticket>,
    /// How many reads have failed.
    failed: u8,
}

/// Messages to one peer on one lane, the first of which waits for the disk.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    unsent: VecDeque<Unsent>,
}

/// What collecting a message's entries came to.
enum Collected {
    Whole,
    /// A read is under way.
    Pending,
    /// They are not in the log any more: whoever cut them sends nothing more in this term.
    Gone,
}

impl Partition {
    pub(super) fn send<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        session: Session,
        lane: Lane,
        message: Message,
    ) {
        if self.is_silent() {
            return;
        }
        let queue = self.senders.entry((to, lane)).or_default();
        queue.unsent.push_back(Unsent {
            session,
            message,
            entries: Vec::new(),
            read: None,
            failed: 0,
        });
        if queue.unsent.len() == 1 {
            self.send_queued(env, to, lane);
        }
    }

    /// Sends from the front of a queue until a message waits.
    pub(super) fn send_queued<S: Storage>(&mut self, env: &mut Env<'_, S>, to: NodeId, lane: Lane) {
        let Some(mut queue) = self.senders.remove(&(to, lane)) else {
            return;
        };
        while let Some(mut unsent) = queue.unsent.pop_front() {
            match self.collect(env, to, lane, &mut unsent) {
                Collected::Whole => self.put_out(env, to, lane, unsent),
                Collected::Gone => {}
                Collected::Pending => {
                    queue.unsent.push_front(unsent);
                    self.senders.insert((to, lane), queue);
                    return;
                }
            }
        }
    }

    /// More entries for the message at the front of a queue have been read.
    pub(super) fn send_read<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        lane: Lane,
        ticket: log::Ticket,
        result: Result<Vec<Entry>, log::ReadError>,
    ) {
        let Some(queue) = self.senders.get_mut(&(to, lane)) else {
            return;
        };
        // What was read for an earlier session nobody waits for any more.
        let front = queue.unsent.front_mut();
        let Some(front) = front.filter(|front| front.read == Some(ticket)) else {
            return;
        };
        front.read = None;
        match result {
            Ok(entries) => front.entries.extend(entries),
            Err(error) => {
                front.failed += 1;
                if front.failed == READ_ATTEMPTS_MAX {
                    tracing::warn!(group = self.group.0, to = to.0, %error, "entries not sent");
                    queue.unsent.pop_front();
                }
            }
        }
        self.send_queued(env, to, lane);
    }

    fn collect<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        lane: Lane,
        unsent: &mut Unsent,
    ) -> Collected {
        let Message::Append { entries: metas, .. } = &unsent.message else {
            return Collected::Whole;
        };
        if unsent.entries.is_empty() && lane == Lane::Bulk {
            unsent.entries = self.chunks.remove(&to).unwrap_or_default();
        }
        loop {
            unsent.entries.truncate(metas.len());
            let same =
                |(entry, meta): (&Entry, &EntryMeta)| positions::id_from_log(entry.id) == meta.id;
            if !unsent.entries.iter().zip(metas).all(same) {
                return Collected::Gone;
            }
            let missing = &metas[unsent.entries.len()..];
            let Some(next) = missing.first() else {
                return Collected::Whole;
            };
            let bytes: usize = missing
                .iter()
                .map(|meta| usize::try_from(meta.size).unwrap_or(usize::MAX))
                .sum();
            let ticket = self.new_ticket();
            let from = positions::index_to_log(next.id.index);
            match env.store.read(self.group, from, bytes, ticket) {
                Ok(Read::Ready(entries)) => unsent.entries.extend(entries),
                Ok(Read::Pending) => {
                    unsent.read = Some(ticket);
                    self.reads.insert(ticket.0, PendingRead::Send { to, lane });
                    return Collected::Pending;
                }
                Err(error) => {
                    tracing::warn!(group = self.group.0, to = to.0, %error, "entries not sent");
                    return Collected::Gone;
                }
            }
        }
    }

    fn put_out<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        lane: Lane,
        unsent: Unsent,
    ) {
        let Unsent {
            session,
            message,
            entries,
            ..
        } = unsent;
        let group = self.group;
        let section = match message {
            Message::Base { before, .. } => {
                let Some(base) = self.base_at(env, before.index) else {
                    return;
                };
                Section::Base {
                    group,
                    message,
                    base,
                }
            }
            message if entries.is_empty() => Section::Message { group, message },
            message => Section::Append {
                group,
                message,
                entries,
            },
        };
        env.effects.sends.push(PeerSend {
            to,
            session,
            lane,
            section,
        });
    }

    /// What a follower is to begin with after `before`; nothing if the log has moved on since.
    fn base_at<S: Storage>(&self, env: &Env<'_, S>, before: LogIndex) -> Option<log::Base> {
        let start = env.store.start(self.group).ok()?;
        (positions::index_from_log(start.position.before.index) == before).then(|| log::Base {
            start: start.position,
            log_start_offset: start.log_start_offset.min(start.position.offset),
            epochs: start.epochs,
            state: self.group_state(env).encode(),
        })
    }

    /// Reads entries for a follower that is far behind.
    pub(super) fn read_chunk<S: Storage>(
        &mut self,
        env: &mut Env<'_, S>,
        to: NodeId,
        session: Session,
        next: LogIndex,
        max_bytes: usize,
    ) {
        let ticket = self.new_ticket();
        let from = positions::index_to_log(next);
        match env.store.read(self.group, from, max_bytes, ticket) {
            Ok(Read::Ready(entries)) => self.chunk_read(to, session, Ok(entries)),
            Ok(Read::Pending) => {
                let read = PendingRead::CatchUp { to, session };
                self.reads.insert(ticket.0, read);
            }
            Err(error) => self.chunk_read(to, session, Err(error)),
        }
    }

    /// They are read: consensus says next what of them to send.
    pub(super) fn chunk_read(
        &mut self,
        to: NodeId,
        session: Session,
        result: Result<Vec<Entry>, log::ReadError>,
    ) {
        let entries = result.unwrap_or_else(|error| {
            tracing::warn!(group = self.group.0, to = to.0, %error, "catch-up waits");
            Vec::new()
        });
        let metas: Vec<EntryMeta> = entries.iter().map_while(positions::meta).collect();
        self.chunks.insert(to, entries);
        self.raft.handle_chunk(to, session, &metas);
    }
}

//! Operations find their partition, here or on another shard, and their answers the asker.

use highwater_log::storage::Storage;

use super::Shard;
use crate::io::{Now, Output, ShardId, ShardMessage};
use crate::ops::{Asked, GroupCommand, GroupId, Op, OpError, OpId, OpResult};
use crate::partition::Origin;
use crate::service::Service;

/// How many operations may be under way on other shards; more are refused as busy.
const REMOTE_MAX: usize = 65_536;

impl<S: Storage, V: Service> Shard<S, V> {
    /// Routes all that the service has asked.
    pub(super) fn take_asked(&mut self, now: Now) {
        while let Some(asked) = self.ops.take() {
            match asked {
                Asked::Op { id, group, op } => self.route_op(now, Origin::Service(id), group, op),
                Asked::Cancel { id, group } => {
                    self.route_cancel(now, Origin::Service(id), group);
                }
                Asked::Group(command) => self.route_command(now, command),
            }
        }
    }

    pub(super) fn route_op(&mut self, now: Now, origin: Origin, group: GroupId, op: Op) {
        let shard = ShardId::of_group(group, self.config.shards);
        if shard != self.config.shard {
            return self.ask_shard(shard, origin, group, op);
        }
        if self.partitions.contains_key(&group) {
            self.with_partition(now, group, |partition, env| {
                partition.handle_op(env, origin, op);
            });
        } else {
            let error = Err(OpError::UnknownGroup);
            self.effects.done.push((origin, error));
        }
    }

    fn ask_shard(&mut self, to: ShardId, origin: Origin, group: GroupId, op: Op) {
        if self.remote.len() >= REMOTE_MAX {
            let busy = Err(OpError::Busy("too much is under way on other shards"));
            return self.effects.done.push((origin, busy));
        }
        self.next_remote += 1;
        let id = OpId(self.next_remote);
        self.remote.insert(id, origin);
        self.remote_ids.insert(origin, id);
        let message = ShardMessage::Op { id, group, op };
        self.outputs.push_back(Output::ToShard { to, message });
    }

    pub(super) fn route_cancel(&mut self, now: Now, origin: Origin, group: GroupId) {
        let shard = ShardId::of_group(group, self.config.shards);
        if shard == self.config.shard {
            self.with_partition(now, group, |partition, env| {
                partition.handle_cancel(env, origin);
            });
        } else if let Some(&id) = self.remote_ids.get(&origin) {
            let message = ShardMessage::Cancel { id, group };
            self.outputs
                .push_back(Output::ToShard { to: shard, message });
        }
    }

    pub(super) fn route_command(&mut self, now: Now, command: GroupCommand) {
        let group = match &command {
            GroupCommand::Create(spec) => spec.group,
            GroupCommand::Drop(group) | GroupCommand::Configure { group, .. } => *group,
            GroupCommand::Retain { .. } => return self.tell_all_shards(now, command),
        };
        let shard = ShardId::of_group(group, self.config.shards);
        if shard == self.config.shard {
            self.handle_command(now, command);
        } else {
            let message = ShardMessage::Group(command);
            self.outputs
                .push_back(Output::ToShard { to: shard, message });
        }
    }

    /// A command that concerns the groups of every shard.
    fn tell_all_shards(&mut self, now: Now, command: GroupCommand) {
        for shard in (0..self.config.shards).map(ShardId) {
            if shard != self.config.shard {
                let message = ShardMessage::Group(command.clone());
                self.outputs
                    .push_back(Output::ToShard { to: shard, message });
            }
        }
        self.handle_command(now, command);
    }

    /// Something of another shard of this node.
    pub(super) fn handle_shard(&mut self, now: Now, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Op { id, group, op } => {
                self.route_op(now, Origin::Shard(from, id), group, op);
            }
            ShardMessage::Cancel { id, group } => {
                self.route_cancel(now, Origin::Shard(from, id), group);
            }
            ShardMessage::Done { id, result } => {
                if let Some(origin) = self.remote.remove(&id) {
                    self.remote_ids.remove(&origin);
                    self.answer(now, origin, result);
                }
            }
            ShardMessage::Group(command) => self.handle_command(now, command),
            ShardMessage::Peer {
                from,
                from_shard,
                session,
                knows_repeats,
                sections,
            } => {
                self.note_knowledge(from, session, knows_repeats);
                for section in sections {
                    self.section(now, from, from_shard, session, section);
                }
            }
            ShardMessage::Leader(hint) => self.service.handle_leader(now, hint),
            ShardMessage::Reachable { node, reachable } => {
                self.service.handle_peer(now, node, reachable);
            }
            ShardMessage::Service { from, message } => {
                self.service
                    .handle_message(now, from, message, &mut self.ops);
            }
        }
    }

    /// An operation is answered.
    pub(super) fn answer(&mut self, now: Now, origin: Origin, result: OpResult) {
        match origin {
            Origin::Service(id) => self.service.handle_done(now, id, result, &mut self.ops),
            Origin::Shard(to, id) => {
                let message = ShardMessage::Done { id, result };
                self.outputs.push_back(Output::ToShard { to, message });
            }
            Origin::Local(ticket) => {
                self.outputs.push_back(Output::LocalDone { ticket, result });
            }
        }
    }
}

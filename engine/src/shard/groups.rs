//! Replicas come and go.

use highwater_consensus::{self as consensus, Membership, Priority};
use highwater_log::RecoveredGroup;
use highwater_log::storage::Storage;

use super::{OpenShardError, Shard};
use crate::io::Now;
use crate::ops::{CONTROLLER, GroupCommand, GroupId, GroupSpec};
use crate::partition::{KeptPlace, Partition, Restored};
use crate::service::Service;

impl<S: Storage, V: Service> Shard<S, V> {
    pub(super) fn start(
        &mut self,
        recovered: Vec<RecoveredGroup>,
        now: Now,
    ) -> Result<(), OpenShardError> {
        for group in recovered {
            let id = group.group;
            let restored = Restored::from_log(group, self.producers.clone());
            let restored = restored.map_err(|error| OpenShardError::Group {
                group: id,
                reason: error.to_string(),
            })?;
            self.recovered.insert(id, restored);
        }
        self.service.handle_start(now, &mut self.ops);
        if let Some(spec) = self.config.controller.clone() {
            self.create_group(now, spec);
        }
        Ok(())
    }

    pub(super) fn handle_command(&mut self, now: Now, command: GroupCommand) {
        match command {
            GroupCommand::Create(spec) => self.create_group(now, spec),
            GroupCommand::Drop(group) => self.drop_group(now, group),
            GroupCommand::Retain { below, live } => self.retain_groups(now, below, &live),
            GroupCommand::Configure { group, config } => {
                let log_config = crate::positions::group_config(&config);
                if let Some(partition) = self.partitions.get_mut(&group) {
                    partition.configure(config);
                    if let Err(error) = self.store.configure_group(group, log_config) {
                        tracing::error!(group = group.0, %error, "group not configured");
                    }
                }
            }
        }
    }

    fn create_group(&mut self, now: Now, spec: GroupSpec) {
        let group = spec.group;
        let is_member = spec.replicas.contains(&self.config.node);
        if self.partitions.contains_key(&group) || !is_member {
            return;
        }
        let log_config = crate::positions::group_config(&spec.config);
        let mut restored = match self.recovered.remove(&group) {
            Some(restored) => {
                if let Err(error) = self.store.configure_group(group, log_config) {
                    tracing::error!(group = group.0, %error, "group not configured");
                }
                restored
            }
            None => {
                if let Err(error) = self.store.create_group(group, log_config) {
                    tracing::error!(group = group.0, %error, "group not created");
                    return;
                }
                Restored::new(self.producers.clone())
            }
        };
        restored.raft.promises_lost = self.store.has_lost_promises();
        let config = self.raft_config(&spec);
        let seed = self.seeds.u64(..);
        let owner = restored.owner.clone();
        let partition = Partition::new(spec, config, restored, seed, now);
        let mut partition = match partition {
            Ok(partition) => partition,
            Err(error) => {
                tracing::error!(group = group.0, %error, "group cannot take part");
                return;
            }
        };
        for (node, session) in self.links.peers() {
            partition.handle_peer_up(now, node, session);
        }
        self.partitions.insert(group, Box::new(partition));
        self.dirty.insert(group);
        if let Some((at, state)) = owner {
            self.effects.restored.push((group, at, state));
        }
    }

    fn raft_config(&self, spec: &GroupSpec) -> consensus::Config {
        let membership = Membership::of_voters(spec.replicas.iter().copied());
        let timing = self.config.timing;
        let is_preferred = spec.replicas.first() == Some(&self.config.node);
        consensus::Config {
            election_timeout_min: timing.election_timeout_min,
            election_timeout_max: timing.election_timeout_max,
            heartbeat_interval: timing.heartbeat_interval,
            priority: if is_preferred {
                Priority::Preferred
            } else {
                Priority::Normal
            },
            ..consensus::Config::new(self.config.node, membership)
        }
    }

    fn drop_group(&mut self, now: Now, group: GroupId) {
        self.with_partition(now, group, Partition::end);
        let was_recovered = self.recovered.remove(&group).is_some();
        self.timeouts.set(group, None);
        self.dirty.remove(&group);
        self.links.watch(group);
        let partition = self.partitions.get_mut(&group);
        if let Some(place) = partition.and_then(|it| it.set_kept_place(None)) {
            let stands = false;
            self.kept.set(KeptPlace { stands, ..place });
        }
        self.led.remove(&group);
        if (self.partitions.remove(&group).is_some() || was_recovered)
            && let Err(error) = self.store.drop_group(group)
        {
            tracing::error!(group = group.0, %error, "group not dropped");
        }
    }

    /// Drops what was deleted while nobody could tell this node so.
    fn retain_groups(&mut self, now: Now, below: GroupId, live: &[GroupId]) {
        let here = self.partitions.keys().chain(self.recovered.keys());
        let deleted: Vec<GroupId> = here
            .copied()
            .filter(|&group| group != CONTROLLER && group < below)
            .filter(|group| live.binary_search(group).is_err())
            .collect();
        for group in deleted {
            self.drop_group(now, group);
        }
    }
}

//! The cluster as a shard sees it: what the controller has decided, who leads what, and who can
//! be reached.

use std::collections::{BTreeMap, BTreeSet};

use highwater_consensus::NodeId;
use highwater_protocol::ErrorCode;

use super::config::KafkaConfig;
use crate::controller::{Controller, NodeRegistration, PartitionPlace, Topic};
use crate::io::{LeaderHint, ShardId};
use crate::ops::{CONTROLLER, GroupId};
use crate::service::ServiceAddress;

/// What handlers look things up in.
#[derive(Debug)]
pub(super) struct View {
    pub(super) config: KafkaConfig,
    pub(super) state: Controller,
    leaders: BTreeMap<GroupId, LeaderHint>,
    reachable: BTreeSet<NodeId>,
}

/// Who leads a partition, for metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) node: NodeId,
    /// -1 if nobody has been elected yet.
    pub(super) epoch: i32,
}

impl View {
    pub(super) fn new(config: KafkaConfig) -> View {
        View {
            config,
            state: Controller::new(),
            leaders: BTreeMap::new(),
            reachable: BTreeSet::new(),
        }
    }

    /// This service's address.
    pub(super) fn own_address(&self) -> ServiceAddress {
        ServiceAddress {
            node: self.config.registration.node,
            shard: self.config.shard,
        }
    }

    /// Whether the state is of this life of the node: it holds the registration that this node
    /// made at its start. Before that it may be arbitrarily old, and clients would be told that
    /// topics are missing.
    pub(super) fn is_current(&self) -> bool {
        let own = &self.config.registration;
        self.state.node(own.node) == Some(own)
    }

    pub(super) fn handle_leader(&mut self, hint: LeaderHint) {
        let known = self.leaders.get(&hint.group);
        if known.is_none_or(|known| known.epoch < hint.epoch) {
            self.leaders.insert(hint.group, hint);
        }
    }

    pub(super) fn handle_peer(&mut self, node: NodeId, reachable: bool) {
        if reachable {
            self.reachable.insert(node);
        } else {
            self.reachable.remove(&node);
        }
    }

    /// Forgets a group that is gone.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.leaders.remove(&group);
    }

    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.config.registration.node || self.reachable.contains(&node)
    }

    /// The nodes that clients may turn to.
    pub(super) fn live_nodes(&self) -> impl Iterator<Item = &NodeRegistration> {
        self.state
            .nodes()
            .filter(|node| self.is_reachable(node.node))
    }

    /// Who leads the controller's group, if that is known and reachable.
    pub(super) fn controller(&self) -> Option<NodeId> {
        let hint = self.leaders.get(&CONTROLLER)?;
        self.is_reachable(hint.leader).then_some(hint.leader)
    }

    /// The service that decides.
    pub(super) fn controller_address(&self) -> Option<ServiceAddress> {
        let node = self.controller()?;
        let shard = ShardId(0);
        Some(ServiceAddress { node, shard })
    }

    /// Who leads a partition, or is to: of a partition that nobody has elected a leader for, the
    /// first live replica, which will campaign when it is asked. `None` if nobody can be asked.
    pub(super) fn leader(&self, place: &PartitionPlace) -> Option<Leader> {
        match self.leaders.get(&place.group) {
            Some(hint) => self.is_reachable(hint.leader).then_some(Leader {
                node: hint.leader,
                epoch: hint.epoch.to_wire(),
            }),
            None => {
                let mut live = place.replicas.iter().filter(|n| self.is_reachable(**n));
                live.next().map(|&node| Leader { node, epoch: -1 })
            }
        }
    }

    /// A topic by the name that a client sent.
    pub(super) fn topic(&self, name: &str) -> Result<&Topic, ErrorCode> {
        match self.state.topic(name) {
            Some(topic) => Ok(topic),
            None if self.is_current() => Err(ErrorCode::UnknownTopicOrPartition),
            // It may be there. The client is to come back.
            None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}

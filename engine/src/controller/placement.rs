//! Which nodes get a new partition's replicas.

use std::collections::BTreeMap;

use highwater_consensus::NodeId;

use super::state::Controller;

/// How much each node has already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Load {
    /// Partitions that it is the first choice to lead.
    preferred: usize,
    /// Replicas.
    replicas: usize,
}

/// Chooses nodes so that leaders and replicas are spread evenly.
#[derive(Debug)]
pub(super) struct Placement {
    load: BTreeMap<NodeId, Load>,
    /// Rotates who comes first among equals, so that the second choices are spread too: they
    /// lead when the first fails.
    turn: usize,
}

impl Placement {
    /// Over all nodes that have registered, with what they have now.
    pub(super) fn new(state: &Controller) -> Placement {
        let nodes = state.nodes().map(|node| (node.node, Load::default()));
        let mut placement = Placement {
            load: nodes.collect(),
            turn: 0,
        };
        for topic in state.topics() {
            for partition in topic.partitions() {
                placement.count(&partition.replicas);
            }
        }
        placement
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.load.len()
    }

    /// Whether there is such a node.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.load.contains_key(&node)
    }

    /// The replicas of one more partition, in order of preference.
    ///
    /// # Panics
    ///
    /// If there are fewer nodes than `replication`, or that is 0.
    pub(super) fn place(&mut self, replication: usize) -> Vec<NodeId> {
        assert!(
            (1..=self.load.len()).contains(&replication),
            "checked before"
        );
        let mut nodes: Vec<NodeId> = self.load.keys().copied().collect();
        let start = self.turn % nodes.len();
        nodes.rotate_left(start);
        // Both sorts are stable: among equals the rotation decides.
        nodes.sort_by_key(|node| (self.load[node].preferred, self.load[node].replicas));
        nodes[1..].sort_by_key(|node| self.load[node].replicas);
        nodes.truncate(replication);
        self.count(&nodes);
        nodes
    }

    /// Counts a partition whose replicas are given.
    pub(super) fn count(&mut self, replicas: &[NodeId]) {
        self.turn += 1;
        for (rank, node) in replicas.iter().enumerate() {
            if let Some(load) = self.load.get_mut(node) {
                load.replicas += 1;
                load.preferred += usize::from(rank == 0);
            }
        }
    }
}

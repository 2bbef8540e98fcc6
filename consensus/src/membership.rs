//! Who belongs to a group, and what a quorum of it is (thesis, sections 4.2 and 4.3).

use std::collections::BTreeSet;

use crate::types::NodeId;

/// The members of a group.
///
/// In a joint configuration (thesis, section 4.3) `joint` holds the outgoing voters, and every
/// decision needs a majority of both sets. No entry changes a membership yet; the type and the
/// quorum functions are ready for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those whose votes and synced positions count. Without any, nothing is ever decided.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing voters of a joint configuration.
    pub joint: Option<BTreeSet<NodeId>>,
    /// Those who receive the log and decide nothing.
    pub learners: BTreeSet<NodeId>,
}

impl Membership {
    /// A membership of these voters alone.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership {
            voters: voters.into_iter().collect(),
            ..Membership::default()
        }
    }

    /// Whether `node` votes, in either half of a joint configuration.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.halves().any(|half| half.contains(&node))
    }

    /// Whether `node` votes or learns.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// All members, in ascending order.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let voters = self.halves().flatten();
        voters.chain(&self.learners).copied().collect()
    }

    /// Whether `node` alone is a quorum.
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        self.has_quorum(|voter| voter == node)
    }

    /// Whether those voters for whom `holds` is true are a quorum: a majority of the voters, in
    /// a joint configuration of each half. A configuration without voters has none.
    pub fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.halves().all(|half| {
            let count = half.iter().filter(|&&voter| holds(voter)).count();
            count > half.len() / 2 || (count == half.len() / 2 && mutant!("quorum n/2"))
        })
    }

    /// The largest value that a quorum has reached: for each voter `value` tells how far it is.
    /// `None` without voters, in either half.
    ///
    /// It counts, for each voter's value, who has reached it; the definition by sorting is what
    /// the property test compares it with.
    pub fn quorum_value<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> Option<T> {
        self.halves()
            .map(|half| majority_value(half, &value))
            .min()
            .flatten()
    }

    fn halves(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        std::iter::once(&self.voters).chain(&self.joint)
    }
}

/// The largest value that a majority of `voters` has reached.
fn majority_value<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    value: &impl Fn(NodeId) -> T,
) -> Option<T> {
    let reached_by = |bar: T| voters.iter().filter(|&&v| value(v) >= bar).count();
    voters
        .iter()
        .map(|&voter| value(voter))
        .filter(|&bar| reached_by(bar) > voters.len() / 2)
        .max()
}

//! What a quorum has synced (paper, figure 2: "if there exists an N").

use crate::membership::Membership;
use crate::types::{LogIndex, NodeId};

/// The highest index that a quorum has synced, in a joint configuration a majority of each half.
/// The leader commits it only if the entry is of its own term.
pub(crate) fn candidate(
    membership: &Membership,
    synced_on: impl Fn(NodeId) -> LogIndex,
) -> LogIndex {
    membership.quorum_value(synced_on).unwrap_or(LogIndex::ZERO)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The definition: sort, take the value that a majority has reached; the lower of both
    /// halves.
    fn by_sorting(membership: &Membership, synced: &[u64]) -> u64 {
        let half = |voters: &BTreeSet<NodeId>| {
            let mut values: Vec<u64> = voters.iter().map(|v| synced[v.0 as usize]).collect();
            values.sort_unstable();
            values[(values.len() - 1) / 2]
        };
        let joint = membership.joint.as_ref().map_or(u64::MAX, half);
        half(&membership.voters).min(joint)
    }

    fn voters() -> impl Strategy<Value = BTreeSet<NodeId>> {
        proptest::collection::btree_set((0..8_u32).prop_map(NodeId), 1..8)
    }

    proptest! {
        #[test]
        fn p11_the_commit_candidate_is_what_sorting_says(
            voters in voters(),
            joint in proptest::option::of(voters()),
            learners in proptest::collection::btree_set((8..10_u32).prop_map(NodeId), 0..2),
            synced in proptest::collection::vec(0..20_u64, 10),
        ) {
            let membership = Membership { voters, joint, learners };
            let found = candidate(&membership, |node| LogIndex(synced[node.0 as usize]));
            prop_assert_eq!(found.0, by_sorting(&membership, &synced));
            prop_assert!(membership.has_quorum(|node| synced[node.0 as usize] >= found.0));
            prop_assert!(!membership.has_quorum(|node| synced[node.0 as usize] > found.0));
        }
    }

    #[test]
    fn p12_learners_alone_commit_nothing() {
        let membership = Membership {
            learners: BTreeSet::from([NodeId(1), NodeId(2)]),
            ..Membership::default()
        };
        assert_eq!(candidate(&membership, |_| LogIndex(9)), LogIndex::ZERO);
        assert!(!membership.has_quorum(|_| true));
    }

    #[test]
    fn p13_both_halves_of_a_joint_configuration_must_agree() {
        let node = |n| NodeId(n);
        let membership = Membership {
            voters: BTreeSet::from([node(1), node(2), node(3)]),
            joint: Some(BTreeSet::from([node(1)])),
            learners: BTreeSet::new(),
        };
        assert!(!membership.is_sole_voter(node(1)));
        assert!(!membership.has_quorum(|n| n == node(1)));
        assert!(!membership.has_quorum(|n| n != node(1)));
        assert!(membership.has_quorum(|n| n != node(3)));
        let synced = |n: NodeId| LogIndex(if n == node(1) { 9 } else { 4 });
        assert_eq!(candidate(&membership, synced), LogIndex(4));
    }
}

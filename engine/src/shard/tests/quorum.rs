//! How far each replica is, as the leader knows.

use highwater_record::Offset;

use super::cluster::Cluster;
use super::{SECOND, node, produce};
use crate::ops::{Op, OpError, Outcome, Quorum};

fn quorum(cluster: &mut Cluster, number: u32) -> Quorum {
    match cluster.ask(number, Op::Quorum) {
        Some(Ok(Outcome::Quorum(quorum))) => quorum,
        other => panic!("not told: {other:?}"),
    }
}

/// The ends of nodes 1 to 3.
fn ends(quorum: &Quorum) -> Vec<Option<u64>> {
    let voters = quorum.voters.iter();
    voters
        .map(|voter| voter.log_end_offset.map(|end| end.0))
        .collect()
}

#[test]
fn a_leader_knows_how_far_each_replica_is() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for value in ["a", "b", "c"] {
        cluster.ask(1, produce(value));
    }
    cluster.run(SECOND);
    let told = quorum(&mut cluster, 1);
    assert_eq!((told.leader, told.high_watermark), (node(1), Offset(3)));
    assert_eq!(told.leader_epoch, cluster.status(1).leader_epoch);
    assert_eq!(ends(&told), [Some(3), Some(3), Some(3)]);
}

#[test]
fn a_replica_that_hears_nothing_falls_behind() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    cluster.run(SECOND);
    cluster.cut(3);
    for value in ["b", "c"] {
        cluster.ask(1, produce(value));
    }
    let told = quorum(&mut cluster, 1);
    assert_eq!(told.high_watermark, Offset(3));
    assert_eq!(ends(&told), [Some(3), Some(3), Some(1)]);
}

#[test]
fn what_is_not_committed_is_the_leaders_alone() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    cluster.run(SECOND);
    cluster.drop_appends(true);
    cluster.submit(1, produce("b"));
    let told = quorum(&mut cluster, 1);
    assert_eq!(told.high_watermark, Offset(1));
    assert_eq!(ends(&told), [Some(2), Some(1), Some(1)]);
}

#[test]
fn only_a_leader_can_tell_and_the_question_makes_nobody_one() {
    let mut cluster = Cluster::new(3);
    let refused = cluster.ask(1, Op::Quorum);
    assert!(matches!(
        refused,
        Some(Err(OpError::NotLeader { leader: None, .. }))
    ));
    assert_eq!(cluster.status(1).leader, None);
    cluster.elect(1);
    let refused = cluster.ask(2, Op::Quorum);
    let Some(Err(OpError::NotLeader { leader, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(leader, Some(node(1)));
}

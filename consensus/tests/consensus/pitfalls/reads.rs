//! E: reads.

use highwater_consensus::ReadError;

use crate::suite::cluster::{Cluster, index, node};

#[test]
pub(crate) fn p60_a_leader_that_slept_through_an_election_answers_no_read() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let read = cluster.read(1).unwrap();
    cluster.packets.clear();
    // It sleeps: the others go on, its own timer does not run.
    cluster.isolate(1);
    for _ in 0..120 {
        cluster.now += std::time::Duration::from_millis(250);
        for n in [2, 3] {
            cluster.beat(node(n));
            cluster.call(n, |raft, now| raft.handle_timeout(now));
            cluster.settle();
        }
    }
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1);
    cluster.propose(leader).unwrap();
    cluster.settle();
    cluster.lost.clear();
    cluster.beat(node(1));
    cluster.settle();
    assert!(cluster.members[&node(1)].answered.is_empty());
    assert_eq!(cluster.members[&node(1)].failed, [read]);
}

#[test]
fn p60_beats_answered_before_the_read_began_confirm_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.beat(node(1));
    while cluster.deliver_one(1, 2) || cluster.deliver_one(1, 3) {}
    // The answers are on their way; now the read begins.
    let answers = std::mem::take(&mut cluster.packets);
    let read = cluster.read(1).unwrap();
    cluster.packets.clear();
    for answer in answers {
        cluster.deliver(answer);
    }
    assert!(cluster.members[&node(1)].answered.is_empty());
    cluster.beat(node(1));
    cluster.settle();
    assert_eq!(cluster.members[&node(1)].answered, [(read, index(1))]);
}

#[test]
fn p61_each_attempt_has_a_number_of_its_own_also_across_leaderships() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let first = cluster.read(1).unwrap();
    cluster.packets.clear();
    cluster.fall_silent();
    cluster.elect(2);
    cluster.propose(2).unwrap();
    cluster.settle();
    assert_eq!(cluster.members[&node(1)].failed, [first]);
    cluster.fall_silent();
    cluster.elect(1);
    let second = cluster.read(1).unwrap();
    assert_ne!(first, second);
    cluster.settle();
    let answered = &cluster.members[&node(1)].answered;
    assert_eq!(answered.len(), 1);
    assert_eq!(answered[0].0, second);
    assert!(answered[0].1 >= index(4));
}

#[test]
fn p62_a_new_leader_answers_no_read_before_its_no_op_is_committed() {
    let mut cluster = Cluster::with_logs(&[&[1, 1], &[1, 1], &[1, 1]]);
    cluster.campaign(1);
    cluster.settle_until_leader(1);
    cluster.packets.clear();
    let read = cluster.read(1).unwrap();
    for _ in 0..3 {
        // Beats are answered, the no-op is not acknowledged.
        cluster.beat(node(1));
        while cluster.deliver_one(1, 2) || cluster.deliver_one(2, 1) {}
    }
    assert!(cluster.members[&node(1)].answered.is_empty());
    cluster.run_for(2_000);
    assert_eq!(cluster.members[&node(1)].answered, [(read, index(3))]);
}

#[test]
fn p62_a_leader_of_five_needs_two_others_to_confirm() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    cluster.read(1).unwrap();
    for (peer, answered) in [(2, 0), (3, 1)] {
        while cluster.deliver_one(1, peer) {}
        while cluster.deliver_one(peer, 1) {}
        assert_eq!(cluster.members[&node(1)].answered.len(), answered);
    }
}

#[test]
fn reads_are_refused_elsewhere_and_beyond_a_bound() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let refused = cluster.raft_mut(node(2)).read_index();
    let leader = Some(node(1));
    assert_eq!(refused, Err(ReadError::NotLeader { leader }));
    let raft = cluster.raft_mut(node(1));
    let accepted = (0..70_000)
        .take_while(|_| raft.read_index().is_ok())
        .count();
    assert_eq!(accepted, 65_536);
}

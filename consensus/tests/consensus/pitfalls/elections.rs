//! A: elections, terms, commit.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_consensus::{
    Membership, Message, MessageError, NodeId, Quarantine, Raft, Restored, RoleKind, TransferError,
};

use crate::suite::cluster::{Cluster, id, index, node, term};
use crate::suite::image::Image;

fn vote(t: u32, last: (u32, u64)) -> Message {
    Message::Vote {
        term: term(t),
        last: id(last.0, last.1),
        transfer: false,
    }
}

fn vote_reply(t: u32, granted: bool) -> Message {
    Message::VoteReply {
        term: term(t),
        granted,
    }
}

fn pre_vote_reply(t: u32, granted: bool) -> Message {
    Message::PreVoteReply {
        term: term(t),
        granted,
    }
}

#[test]
pub(crate) fn p02_a_new_leader_serves_what_was_committed_without_any_write() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..100 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster.crash(1);
    cluster.run_for(3_000);
    let leader = cluster.leader().unwrap();
    assert!(cluster.raft(leader).leads_with_commit());
    assert_eq!(cluster.commit(leader), 102);
}

#[test]
fn p03_a_grant_that_is_not_durable_never_leaves() {
    let mut cluster = Cluster::new(3);
    cluster.inject(2, 1, vote(1, (0, 0))).unwrap();
    assert!(cluster.messages(1, 2).is_empty());
    cluster.crash(1);
    cluster.restart(1);
    // The vote is forgotten, and nobody was told of it.
    cluster.inject(3, 1, vote(1, (0, 0))).unwrap();
    cluster.sync_one(node(1));
    assert_eq!(cluster.messages(1, 3), [vote_reply(1, true)]);
}

#[test]
fn p03_a_durable_grant_binds_after_a_crash() {
    let mut cluster = Cluster::new(3);
    cluster.inject(2, 1, vote(1, (0, 0))).unwrap();
    cluster.sync_one(node(1));
    cluster.crash(1);
    cluster.restart(1);
    cluster.inject(3, 1, vote(1, (0, 0))).unwrap();
    assert_eq!(cluster.messages(1, 3), [vote_reply(1, false)]);
}

#[test]
fn p03_stepping_down_in_a_term_does_not_free_its_vote() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(1);
    cluster.hold(1, true);
    cluster.campaign(1);
    cluster.inject(2, 1, pre_vote_reply(1, true)).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.hold(1, false);
    cluster.settle();
    let leader_of_the_term = Message::Append {
        term: term(1),
        window: 1,
        previous: id(0, 0),
        entries: Vec::new(),
        commit: index(0),
    };
    cluster.inject(2, 1, leader_of_the_term).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    cluster.lost.clear();
    cluster.fall_silent();
    cluster.inject(3, 1, vote(1, (9, 9))).unwrap();
    assert!(cluster.messages(1, 3).contains(&vote_reply(1, false)));
    assert!(!cluster.messages(1, 3).contains(&vote_reply(1, true)));
}

#[test]
fn p06_a_reply_of_a_higher_term_is_no_grant() {
    for granted in [false, true] {
        let mut cluster = Cluster::new(3);
        cluster.isolate(1);
        cluster.campaign(1);
        cluster.inject(2, 1, pre_vote_reply(1, true)).unwrap();
        cluster.settle();
        assert_eq!(
            cluster.raft(1).role(),
            RoleKind::Candidate,
            "one vote short"
        );
        cluster.inject(2, 1, vote_reply(2, granted)).unwrap();
        assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
        assert_eq!(cluster.raft(1).term(), term(2));
    }
}

#[test]
fn p07_a_rejoining_server_disrupts_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for _ in 0..600 {
        cluster.propose(1).unwrap();
        cluster.run_for(1_000);
    }
    cluster.heal();
    cluster.run_for(5_000);
    assert_eq!(cluster.leader(), Some(1));
    for n in 1..=3 {
        assert_eq!(cluster.raft(n).term(), term(1));
        assert_eq!(cluster.commit(n), 601);
    }
}

#[test]
fn p08a_followers_that_believed_in_a_dead_leader_elect_within_two_timeouts() {
    for seed in 0..50 {
        let mut cluster = Cluster::with_seed(3, seed);
        cluster.elect(1);
        cluster.run_for(1_000);
        // Silent, not known to be dead: the links stay up.
        cluster.isolate(1);
        cluster.run_for(3_000);
        let leader = cluster.leader();
        assert!(leader.is_some_and(|n| n != 1), "seed {seed}: {leader:?}");
    }
}

#[test]
fn p08b_a_high_term_with_a_short_log_and_low_terms_with_long_ones_converge() {
    for seed in 0..20 {
        let membership = Membership::of_voters((1..=4).map(NodeId));
        let mut cluster = Cluster::build(
            membership,
            seed,
            |_| {},
            |n| {
                let mut image = Image::default();
                let length = if n == node(3) { 1 } else { 4 };
                for meta in crate::suite::cluster::entries(1, &[5; 4][..length]) {
                    let body = meta.id.index.0;
                    image
                        .entries
                        .push(crate::suite::image::Stored { meta, body });
                }
                image.term = term(if n == node(3) { 9 } else { 5 });
                image
            },
        );
        // A quorum of four needs all that are left.
        cluster.crash(4);
        cluster.run_for(8_000);
        assert!(cluster.leader().is_some_and(|n| n != 3), "seed {seed}");
    }
}

#[test]
fn p08c_answers_of_an_earlier_round_do_not_disturb_the_winner() {
    let mut cluster = Cluster::new(5);
    cluster.campaign(1);
    cluster.settle_until_leader(1);
    for peer in 2..=5 {
        cluster.inject(peer, 1, pre_vote_reply(1, true)).unwrap();
        cluster.inject(peer, 1, vote_reply(1, true)).unwrap();
        cluster.inject(peer, 1, pre_vote_reply(0, false)).unwrap();
    }
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    cluster.settle();
    assert_eq!(cluster.raft(1).term(), term(1));
    assert_eq!(cluster.commit(1), 1);
}

#[test]
fn p08d_pre_votes_of_a_term_that_is_over_elect_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(1);
    cluster.campaign(1);
    cluster.inject(3, 1, vote_reply(5, false)).unwrap();
    cluster.campaign(1);
    cluster.inject(2, 1, pre_vote_reply(1, true)).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate);
    assert_eq!(cluster.raft(1).term(), term(5));
    cluster.inject(2, 1, pre_vote_reply(6, true)).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
}

#[test]
fn p08e_a_node_that_only_asks_resets_nobodys_timer() {
    let mut cluster = Cluster::new(3);
    let deadline = cluster.raft(1).next_timeout();
    for _ in 0..10 {
        let ask = Message::PreVote {
            term: term(1),
            last: id(0, 0),
        };
        cluster.inject(2, 1, ask).unwrap();
        cluster.now += Duration::from_millis(10);
    }
    assert_eq!(cluster.messages(1, 2), vec![pre_vote_reply(1, true); 10]);
    assert_eq!(cluster.raft(1).next_timeout(), deadline);
}

/// Runs a group in which only `edges` carry anything, and returns the share of time with a
/// leader that commits, in percent, after ten seconds.
fn served(size: u32, first_leader: u32, edges: &[(u32, u32)], seed: u64) -> u64 {
    let mut cluster = Cluster::with_seed(size, seed);
    cluster.elect(first_leader);
    for a in 1..=size {
        for b in 1..=size {
            if a != b && !edges.contains(&(a, b)) && !edges.contains(&(b, a)) {
                cluster.lost.insert((node(a), node(b)));
            }
        }
    }
    cluster.run_for(10_000);
    let mut served = 0;
    for _ in 0..200 {
        let before = cluster.oracle.commit_index();
        for n in 1..=size {
            let _ = cluster.propose(n);
        }
        cluster.run_for(50);
        served += u64::from(cluster.oracle.commit_index() > before);
    }
    served / 2
}

#[test]
fn p09_every_graph_of_three_with_a_connected_majority_is_served() {
    let edges = [(1, 2), (1, 3), (2, 3)];
    for graph in 1..8_usize {
        let some: Vec<_> = (0..3)
            .filter(|bit| graph >> bit & 1 == 1)
            .map(|at| edges[at])
            .collect();
        for seed in 0..5 {
            for first in 1..=3 {
                let served = served(3, first, &some, seed);
                assert!(served >= 80, "{some:?} from n{first}: {served} %");
            }
        }
    }
}

#[test]
fn p09_five_nodes_around_one_and_in_a_chain_are_served() {
    let around_one = [(1, 2), (1, 3), (1, 4), (1, 5)];
    let chain = [(1, 2), (2, 3), (3, 4), (4, 5)];
    for edges in [around_one, chain] {
        for first in 1..=5 {
            let served = served(5, first, &edges, 3);
            assert!(served >= 80, "{edges:?} from n{first}: {served} %");
        }
    }
}

/// What Raft cannot do (OmniPaxos calls it the constrained election): the only node that reaches
/// a majority lacks entries, so nobody votes for it, and nobody else reaches a majority. The
/// group waits, and loses nothing.
#[test]
fn p09_with_an_outdated_node_in_the_middle_the_group_waits() {
    let (old, new): (&[u32], &[u32]) = (&[1], &[1, 1]);
    let mut cluster = Cluster::with_logs(&[old, new, new, new, new]);
    for a in 2..=5 {
        for b in 2..=5 {
            cluster.lost.insert((node(a), node(b)));
        }
    }
    cluster.run_for(20_000);
    assert_eq!(cluster.leader(), None);
    let highest = (1..=5).map(|n| cluster.raft(n).term()).max();
    assert_eq!(highest, Some(term(1)), "and raises no terms meanwhile");
    cluster.lost.remove(&(node(2), node(3)));
    cluster.lost.remove(&(node(3), node(2)));
    cluster.run_for(6_000);
    assert!(cluster.leader().is_some_and(|n| n == 2 || n == 3));
}

#[test]
fn p10_a_transfer_waits_for_the_targets_disk_and_times_out_cleanly() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.hold(3, true);
    let entry = cluster.propose(1).unwrap();
    cluster
        .call(1, |raft, now| raft.transfer_leadership(now, node(3)))
        .unwrap();
    let read = cluster.read(1).unwrap();
    assert!(
        cluster.propose(1).is_err(),
        "proposals are refused meanwhile"
    );
    let twice = cluster.call(1, |raft, now| raft.transfer_leadership(now, node(2)));
    assert_eq!(twice, Err(TransferError::Transferring { to: node(3) }));
    cluster.run_for(1_450);
    assert_eq!(
        cluster.count("transfer"),
        0,
        "it has not synced the last entry"
    );
    assert!(cluster.propose(1).is_err());
    cluster.run_for(100);
    cluster.propose(1).expect("the transfer has been given up");
    cluster.hold(3, false);
    cluster.run_for(2_000);
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.oracle.commit_index() > entry.index);
    assert_eq!(cluster.members[&node(1)].answered, [(read, index(1))]);
}

#[test]
fn p10_the_targets_vote_for_itself_must_be_durable_too() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.hold(3, true);
    cluster
        .call(1, |raft, now| raft.transfer_leadership(now, node(3)))
        .unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(3).role(), RoleKind::Candidate);
    assert_eq!(
        cluster.raft(1).role(),
        RoleKind::Leader,
        "nobody was asked yet"
    );
    cluster.hold(3, false);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(3));
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
}

fn with_learner() -> Cluster {
    let membership = Membership {
        voters: BTreeSet::from([node(1), node(2), node(3)]),
        joint: None,
        learners: BTreeSet::from([node(4)]),
    };
    Cluster::build(membership, 1, |_| {}, |_| Image::default())
}

#[test]
fn p10_p12_a_learner_follows_and_decides_nothing() {
    let mut cluster = with_learner();
    cluster.elect(1);
    let refused = cluster.call(1, |raft, now| raft.transfer_leadership(now, node(4)));
    assert_eq!(refused, Err(TransferError::NotAVoter { to: node(4) }));
    cluster.isolate(2);
    cluster.isolate(3);
    let entry = cluster.propose(1).unwrap();
    cluster.settle();
    assert_eq!(
        cluster.raft(4).synced_index(),
        entry.index,
        "it has the entry"
    );
    assert!(
        cluster.raft(1).commit_index() < entry.index,
        "and does not count"
    );
    cluster.run_for(10_000);
    assert_eq!(cluster.raft(4).role(), RoleKind::Follower);
    assert_eq!(cluster.leader(), None);
    let campaign = cluster.inject(4, 2, vote(9, (9, 9)));
    assert!(matches!(campaign, Err(MessageError::Malformed { .. })));
}

#[test]
fn p12_votes_and_acknowledgements_of_others_do_not_count() {
    let mut cluster = with_learner();
    cluster.isolate(1);
    cluster.campaign(1);
    cluster.inject(4, 1, pre_vote_reply(1, true)).unwrap();
    assert_eq!(
        cluster.raft(1).role(),
        RoleKind::PreCandidate,
        "a learner's word"
    );
    let stranger = cluster.call(1, |raft, now| {
        let session = highwater_consensus::Session(1);
        raft.handle_peer_up(now, node(9), session);
        raft.handle_message(now, node(9), session, pre_vote_reply(1, true))
    });
    assert_eq!(stranger, Err(MessageError::NotAMember { from: node(9) }));
    let itself = cluster.call(1, |raft, now| {
        raft.handle_message(
            now,
            node(1),
            highwater_consensus::Session(1),
            vote_reply(1, true),
        )
    });
    assert_eq!(itself, Err(MessageError::NotAMember { from: node(1) }));
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate);
}

#[test]
fn p13_in_a_joint_configuration_the_only_old_voter_needs_the_new_ones() {
    let membership = Membership {
        voters: BTreeSet::from([node(1), node(2), node(3)]),
        joint: Some(BTreeSet::from([node(1)])),
        learners: BTreeSet::new(),
    };
    let mut cluster = Cluster::build(membership, 1, |_| {}, |_| Image::default());
    cluster.crash(2);
    cluster.crash(3);
    cluster.run_for(5_000);
    assert_eq!(cluster.leader(), None);
    cluster.restart(2);
    cluster.run_for(5_000);
    assert_eq!(
        cluster.leader(),
        Some(1),
        "only it is in both halves' majorities"
    );
}

#[test]
fn the_last_term_is_never_left() {
    let config = highwater_consensus::Config::new(node(1), Membership::of_voters([node(1)]));
    let restored = Restored {
        term: highwater_consensus::Term::MAX,
        ..Restored::default()
    };
    let mut raft = Raft::new(config, restored, 1, Duration::ZERO).unwrap();
    raft.handle_timeout(Duration::from_secs(5));
    assert_eq!(raft.role(), RoleKind::Follower);
    assert_eq!(raft.poll_output(), None);
}

#[test]
fn a_preferred_node_is_normally_elected() {
    let mut won = 0;
    for seed in 0..100 {
        let membership = Membership::of_voters((1..=3).map(NodeId));
        let configure = |config: &mut highwater_consensus::Config| {
            if config.node == node(2) {
                config.priority = highwater_consensus::Priority::Preferred;
            }
        };
        let mut cluster = Cluster::build(membership, seed, configure, |_| Image::default());
        cluster.run_for(2_000);
        won += u32::from(cluster.leader() == Some(2));
    }
    assert!(won >= 65, "only {won} of 100");
}

#[test]
fn a_sole_voter_elects_itself_at_once_and_needs_no_timer() {
    let mut cluster = Cluster::new(1);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.commit(1), 1);
    assert_eq!(cluster.raft(1).next_timeout(), None);
    cluster.propose(1).unwrap();
    cluster.read(1).unwrap();
    cluster.settle();
    assert_eq!(cluster.commit(1), 2);
    assert_eq!(cluster.members[&node(1)].answered.len(), 1);
    cluster.crash(1);
    cluster.start(node(1), Quarantine::None);
    cluster.settle();
    assert_eq!(cluster.raft(1).term(), term(2));
    assert_eq!(cluster.commit(1), 3);
}

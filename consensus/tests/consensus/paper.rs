//! A test per claim of the Raft paper, and of the parts of the thesis that are used, in their
//! order. The helpers assert the paper's figure 3 at every step.

use std::time::Duration;

use highwater_consensus::{AppendOutcome, LogIndex, Message, RoleKind};

use crate::suite::cluster::{Cluster, entries, id, index, node, term};

fn only_reply(cluster: &Cluster, from: u32, to: u32) -> Message {
    let mut messages = cluster.messages(from, to);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

fn append(t: u32, previous: (u32, u64), terms: &[u32], commit: u64) -> Message {
    Message::Append {
        term: term(t),
        window: 1,
        previous: id(previous.0, previous.1),
        entries: entries(previous.1 + 1, terms),
        commit: index(commit),
    }
}

fn vote(t: u32, last: (u32, u64)) -> Message {
    Message::Vote {
        term: term(t),
        last: id(last.0, last.1),
        transfer: false,
    }
}

// Section 5.1

#[test]
fn s5_1_a_smaller_term_is_updated_to_the_larger() {
    for role in [RoleKind::Follower, RoleKind::Candidate, RoleKind::Leader] {
        let mut cluster = Cluster::new(3);
        cluster.members.get_mut(&node(1)).unwrap().is_held = role == RoleKind::Candidate;
        if role != RoleKind::Follower {
            cluster.campaign(1);
            cluster.settle();
        }
        assert_eq!(cluster.raft(1).role(), role);
        let reply = Message::VoteReply {
            term: term(7),
            granted: false,
        };
        cluster.inject(2, 1, reply).unwrap();
        assert_eq!(cluster.raft(1).role(), RoleKind::Follower, "it steps down");
        assert_eq!(cluster.raft(1).term(), term(7));
    }
}

#[test]
fn s5_1_a_request_with_a_stale_term_is_rejected_and_told_the_current_one() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1], &[1], &[1]], 5);
    cluster.inject(2, 1, append(4, (1, 1), &[4], 1)).unwrap();
    let Message::AppendReply {
        term: t, outcome, ..
    } = only_reply(&cluster, 1, 2)
    else {
        panic!("no answer");
    };
    assert_eq!((t, outcome), (term(5), AppendOutcome::Stale));
    cluster.inject(3, 1, vote(4, (1, 1))).unwrap();
    let refusal = Message::VoteReply {
        term: term(5),
        granted: false,
    };
    assert_eq!(only_reply(&cluster, 1, 3), refusal);
    assert_eq!(cluster.log(1), [1]);
    assert_eq!(cluster.commit(1), 0);
}

// Section 5.2

#[test]
fn s5_2_servers_start_as_followers() {
    let cluster = Cluster::new(3);
    for n in 1..=3 {
        assert_eq!(cluster.raft(n).role(), RoleKind::Follower);
        assert_eq!(cluster.raft(n).leader(), None);
    }
}

#[test]
fn s5_2_a_follower_stays_one_while_it_hears_a_leader() {
    let mut cluster = Cluster::new(3);
    cluster.elect(2);
    cluster.run_for(60_000);
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.raft(2).term(), term(1), "no election in a minute");
}

#[test]
fn s5_2_a_follower_that_hears_nothing_campaigns() {
    let mut cluster = Cluster::new(3);
    cluster.run_for(1_600);
    assert!(cluster.leader().is_some());
}

#[test]
fn s5_2_a_candidate_increments_its_term_votes_for_itself_and_asks_all() {
    let mut cluster = Cluster::new(5);
    cluster.members.get_mut(&node(1)).unwrap().is_held = true;
    cluster.campaign(1);
    cluster.settle();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.sync_one(node(1));
    let durable = &cluster.disks[&node(1)].durable;
    assert_eq!((durable.term, durable.vote), (term(1), Some(node(1))));
    for peer in 2..=5 {
        assert_eq!(cluster.messages(1, peer), [vote(1, (0, 0))]);
    }
}

#[test]
fn s5_2_a_majority_of_the_whole_group_elects() {
    for (size, dead, wins) in [
        (1, 0, true),
        (3, 1, true),
        (3, 2, false),
        (5, 2, true),
        (5, 3, false),
    ] {
        let mut cluster = Cluster::new(size);
        for n in 0..dead {
            cluster.crash(size - n);
        }
        cluster.campaign(1);
        cluster.settle();
        let leads = cluster.raft(1).role() == RoleKind::Leader;
        assert_eq!(leads, wins, "{size} nodes, {dead} dead");
    }
}

#[test]
fn s5_2_a_server_votes_for_one_candidate_in_a_term_first_come_first_served() {
    let mut cluster = Cluster::new(3);
    cluster.inject(2, 1, vote(1, (0, 0))).unwrap();
    cluster.inject(3, 1, vote(1, (0, 0))).unwrap();
    let granted = |granted| Message::VoteReply {
        term: term(1),
        granted,
    };
    assert_eq!(only_reply(&cluster, 1, 3), granted(false));
    cluster.sync_one(node(1));
    assert_eq!(only_reply(&cluster, 1, 2), granted(true));
    cluster.inject(2, 1, vote(1, (0, 0))).unwrap();
    assert_eq!(cluster.messages(1, 2), [granted(true), granted(true)]);
}

#[test]
fn s5_2_a_candidate_follows_a_leader_of_its_own_term_and_no_older_one() {
    for (t, follows) in [(0, false), (1, true), (2, true)] {
        let mut cluster = Cluster::new(3);
        cluster.members.get_mut(&node(1)).unwrap().is_held = true;
        cluster.campaign(1);
        cluster.settle();
        cluster.inject(2, 1, append(t, (0, 0), &[], 0)).unwrap();
        assert_eq!(cluster.raft(1).role() == RoleKind::Follower, follows);
        assert_eq!(cluster.raft(1).leader() == Some(node(2)), follows);
    }
}

#[test]
fn s5_2_a_split_vote_ends_by_another_election() {
    let mut cluster = Cluster::new(4);
    // Two candidates of the same term, two votes each.
    cluster
        .lost
        .extend([(node(1), node(4)), (node(2), node(3))]);
    cluster.campaign(1);
    cluster.campaign(2);
    cluster.settle();
    assert_eq!(cluster.leader(), None);
    cluster.lost.clear();
    cluster.run_for(5_000);
    assert!(cluster.leader().is_some());
}

#[test]
fn s5_2_election_timeouts_are_random_within_their_range() {
    let mut timeouts: Vec<u128> = Vec::new();
    for seed in 0..200 {
        let cluster = Cluster::with_seed(1 + 2, seed);
        for n in 1..=3 {
            let deadline = cluster.raft(n).next_timeout().unwrap();
            timeouts.push((deadline - cluster.now).as_millis());
        }
    }
    assert!(timeouts.iter().all(|t| (750..1_500).contains(t)));
    for hundred in [8, 9, 10, 11, 12, 13, 14] {
        assert!(
            timeouts.iter().any(|t| t / 100 == hundred),
            "none of {hundred}00 ms"
        );
    }
}

// Section 5.3

#[test]
fn s5_3_a_leader_replicates_in_parallel_with_its_own_disk() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.members.get_mut(&node(1)).unwrap().is_held = true;
    let entry = cluster.propose(1).unwrap();
    cluster.settle();
    // The followers' disks alone are a quorum.
    assert_eq!(cluster.raft(1).commit_index(), entry.index);
    assert!(cluster.raft(1).synced_index() < entry.index);
}

#[test]
fn s5_3_an_entry_is_committed_once_a_majority_has_it() {
    for (size, silent, commits) in [
        (1, 0, true),
        (3, 1, true),
        (3, 2, false),
        (5, 2, true),
        (5, 3, false),
    ] {
        let mut cluster = Cluster::new(size);
        cluster.elect(1);
        for n in 0..silent {
            cluster.members.get_mut(&node(size - n)).unwrap().is_held = true;
        }
        let entry = cluster.propose(1).unwrap();
        cluster.settle();
        let committed = cluster.raft(1).commit_index() >= entry.index;
        assert_eq!(committed, commits, "{size} nodes, {silent} disks silent");
    }
}

#[test]
fn s5_3_committing_an_entry_commits_all_before_it_also_of_earlier_leaders() {
    let mut cluster = Cluster::with_logs(&[&[1, 2, 2], &[1, 2], &[1]]);
    cluster.elect(1);
    assert_eq!(cluster.commit(1), 4, "three old entries and the no-op");
}

#[test]
fn s5_3_followers_learn_the_commit_index_and_take_only_what_they_have() {
    let mut cluster = Cluster::with_logs(&[&[1, 1, 1], &[1, 1], &[1, 1]]);
    cluster.inject(2, 1, append(1, (1, 1), &[1], 9)).unwrap();
    assert_eq!(
        cluster.commit(1),
        2,
        "it has verified two entries in this term, not three"
    );
}

#[test]
fn s5_3_the_consistency_check_refuses_a_gap_and_another_term() {
    for (previous, refused_at) in [
        ((1, 9), Some((1, 3))),
        ((2, 2), Some((1, 2))),
        ((1, 3), None),
    ] {
        let mut cluster = Cluster::with_logs(&[&[1, 1, 1], &[], &[]]);
        cluster.inject(2, 1, append(3, previous, &[3], 0)).unwrap();
        let refusal = cluster.messages(1, 2).into_iter().find_map(|m| match m {
            Message::AppendReply {
                outcome: AppendOutcome::Conflict { at, first },
                ..
            } => Some((at, first)),
            _ => None,
        });
        let expected = refused_at.map(|(t, i)| (id(t, i), index(1)));
        assert_eq!(refusal, expected, "after {previous:?}");
        assert_eq!(
            cluster.raft(1).last().index.0,
            if refused_at.is_some() { 3 } else { 4 }
        );
    }
}

#[test]
fn s5_3_a_follower_deletes_a_conflicting_entry_and_all_that_follow() {
    let mut cluster = Cluster::with_logs(&[&[1, 1, 2, 2], &[], &[]]);
    cluster.inject(2, 1, append(3, (1, 1), &[1, 3], 0)).unwrap();
    assert_eq!(cluster.log(1), [1, 1, 3]);
}

#[test]
fn s5_3_figure_7_a_leader_brings_every_log_to_its_own() {
    let leader: &[u32] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u32]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let mut logs = vec![leader];
    logs.extend(followers);
    let mut cluster = Cluster::with_logs_in_term(&logs, 7);
    cluster.elect(1);
    cluster.run_for(1_000);
    for n in 1..=7 {
        assert_eq!(cluster.log(n), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8], "n{n}");
        assert_eq!(cluster.commit(n), 11);
    }
}

#[test]
fn s5_3_a_leader_never_changes_its_own_log() {
    let mut cluster = Cluster::with_logs(&[&[1, 2, 2], &[1, 1, 1, 1], &[1, 2]]);
    cluster.elect(1);
    assert_eq!(cluster.log(1)[..3], [1, 2, 2]);
}

// Section 5.4

#[test]
fn s5_4_1_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date() {
    let cases: [(&[u32], (u32, u64), bool); 7] = [
        (&[1], (1, 1), true),
        (&[1], (1, 2), true),
        (&[1, 1], (1, 1), false),
        (&[1], (2, 1), true),
        (&[1, 1], (2, 1), true),
        (&[2], (1, 1), false),
        (&[2], (1, 2), false),
    ];
    for (log, last, expected) in cases {
        let mut cluster = Cluster::with_logs_in_term(&[log, &[], &[]], 2);
        cluster.inject(2, 1, vote(3, last)).unwrap();
        cluster.sync_one(node(1));
        let granted = matches!(
            only_reply(&cluster, 1, 2),
            Message::VoteReply { granted: true, .. }
        );
        assert_eq!(granted, expected, "log {log:?}, candidate {last:?}");
    }
}

/// The states of figure 8, in which S1 leads again, in term 4.
fn figure_8() -> Cluster {
    let mut cluster = Cluster::with_logs_in_term(&[&[1, 2], &[1, 2], &[1], &[1], &[1, 3]], 3);
    cluster.isolate(5);
    cluster.campaign(1);
    cluster.settle_until_leader(1);
    cluster.packets.clear();
    cluster
}

#[test]
fn p01_s5_4_2_figure_8_an_old_entry_on_a_majority_is_not_committed_by_counting() {
    let mut cluster = figure_8();
    // (c): the entry of term 2 is on three of five; of term 4 nothing has arrived.
    let old_only = |previous, terms: &[u32]| Message::Append {
        term: term(4),
        window: 1,
        previous,
        entries: entries(previous.index.0 + 1, terms),
        commit: index(0),
    };
    cluster.inject(1, 2, old_only(id(2, 2), &[])).unwrap();
    cluster.inject(1, 3, old_only(id(1, 1), &[2])).unwrap();
    for n in [1, 2, 3] {
        while cluster.sync_one(node(n)) {}
    }
    for peer in [2, 3] {
        while cluster.deliver_one(peer, 1) {}
        assert_eq!(cluster.raft(1).match_index(node(peer)), Some(index(2)));
    }
    assert_eq!(cluster.commit(1), 0, "on a majority, of an earlier term");
    // (d): so S5 may yet overwrite it.
    cluster.packets.clear();
    cluster.crash(1);
    cluster.heal();
    cluster.now += Duration::from_secs(2);
    cluster.campaign(5);
    cluster.settle();
    assert_eq!(cluster.raft(5).term(), term(4), "it learns the term first");
    cluster.elect(5);
    cluster.run_for(500);
    assert_eq!(cluster.leader(), Some(5));
    for n in 2..=5 {
        assert_eq!(cluster.log(n)[..2], [1, 3]);
    }
}

#[test]
fn s5_4_2_figure_8_an_entry_of_the_own_term_commits_the_old_one_for_good() {
    let mut cluster = figure_8();
    // (e): the entry of term 4 reaches S2 and S3.
    cluster.run_for(1_200);
    assert_eq!(cluster.commit(1), 3);
    cluster.crash(1);
    cluster.heal();
    cluster.run_for(5_000);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 5);
    for n in 2..=5 {
        assert_eq!(cluster.log(n)[..3], [1, 2, 4]);
    }
}

// Section 5.5

#[test]
fn s5_5_a_crashed_follower_is_caught_up_when_it_is_back() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(3);
    for _ in 0..20 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    assert_eq!(cluster.commit(1), 21);
    cluster.restart(3);
    cluster.run_for(500);
    assert_eq!(cluster.commit(3), 21);
}

#[test]
fn s5_5_messages_may_come_twice() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..5 {
        cluster.propose(1).unwrap();
        let copies = cluster.packets.clone();
        cluster.packets.extend(copies);
        for _ in 0..4 {
            let copies = cluster.packets.clone();
            cluster.settle();
            cluster.packets.extend(copies);
        }
        cluster.settle();
    }
    cluster.run_for(300);
    assert_eq!(cluster.log(2), cluster.log(1));
    assert_eq!(cluster.commit(2), 6);
    assert!(cluster.errors.is_empty(), "{:?}", cluster.errors);
}

// Figure 2

#[test]
fn figure_2_term_vote_and_log_survive_a_crash_and_nothing_else() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster.settle();
    cluster.crash(1);
    cluster.restart(1);
    let raft = cluster.raft(1);
    assert_eq!(raft.term(), term(1));
    assert_eq!(raft.last(), id(1, 2));
    assert_eq!(raft.role(), RoleKind::Follower);
    assert_eq!(raft.commit_index(), LogIndex::ZERO);
    // The vote of term 1 is its own: nobody else gets it.
    cluster.inject(2, 1, vote(1, (9, 9))).unwrap();
    let refusal = Message::VoteReply {
        term: term(1),
        granted: false,
    };
    assert!(cluster.messages(1, 2).contains(&refusal));
}

// Section 8, and thesis 6.4

#[test]
fn s8_a_leader_begins_its_term_with_a_no_op() {
    let mut cluster = Cluster::with_logs(&[&[1, 1], &[1, 1], &[1, 1]]);
    cluster.elect(1);
    assert_eq!(cluster.log(1), [1, 1, 2]);
    assert_eq!(cluster.commit(1), 3, "and learns what is committed");
}

#[test]
fn thesis_6_4_a_read_waits_for_a_round_of_beats_and_costs_no_entry() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let last = cluster.raft(1).last();
    let reads: Vec<_> = (0..3).map(|_| cluster.read(1).unwrap()).collect();
    assert!(cluster.members[&node(1)].answered.is_empty());
    cluster.settle();
    let answered: Vec<_> = cluster.members[&node(1)]
        .answered
        .iter()
        .map(|a| a.0)
        .collect();
    assert_eq!(answered, reads);
    assert_eq!(cluster.raft(1).last(), last);
}

// Thesis 3.10

#[test]
fn thesis_3_10_leadership_is_handed_over_without_a_timeout() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster
        .call(1, |raft, now| raft.transfer_leadership(now, node(3)))
        .unwrap();
    cluster.settle();
    assert_eq!(cluster.leader(), Some(3), "at once");
    assert_eq!(cluster.log(3), [1, 1, 2]);
}

// Thesis 4.2.3 and 9.6

#[test]
fn thesis_4_2_3_a_server_that_hears_a_leader_ignores_a_candidate() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.inject(3, 2, vote(9, (9, 9))).unwrap();
    cluster.inject(3, 1, vote(9, (9, 9))).unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(2).term(), term(1));
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).term(), term(1));
}

#[test]
fn thesis_6_2_a_leader_that_hears_no_majority_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    let read = cluster.read(1).unwrap();
    cluster.run_for(1_800);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader);
    assert_eq!(cluster.members[&node(1)].failed, [read]);
    assert!(cluster.leader().is_some_and(|leader| leader != 1));
}

#[test]
fn thesis_9_6_a_pre_vote_changes_no_term_unless_it_would_be_won() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(3);
    cluster.campaign(3);
    cluster.run_for(30_000);
    assert_eq!(cluster.raft(3).term(), term(0));
}

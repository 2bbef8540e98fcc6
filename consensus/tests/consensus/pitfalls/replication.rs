//! C: replication and pipelining.

use std::collections::BTreeSet;

use highwater_consensus::{
    AppendOutcome, BeatRow, LogIndex, Membership, Message, MessageError, NodeId, ProposeError,
    Quarantine,
};

use crate::suite::cluster::{Cluster, entries, id, index, node, term};
use crate::suite::image::Image;

fn append(t: u32, window: u64, previous: (u32, u64), terms: &[u32], commit: u64) -> Message {
    Message::Append {
        term: term(t),
        window,
        previous: id(previous.0, previous.1),
        entries: entries(previous.1 + 1, terms),
        commit: index(commit),
    }
}

#[test]
fn p40_an_old_append_deletes_nothing_behind_it() {
    for previous in [0_u64, 2] {
        let log: &[u32] = &[1; 9];
        let mut cluster = Cluster::with_logs(&[log, log, log]);
        cluster.inject(2, 1, append(1, 1, (1, 9), &[], 9)).unwrap();
        assert_eq!(cluster.commit(1), 9);
        let t = u32::from(previous > 0);
        let old = append(1, 1, (t, previous), &[1, 1, 1][..3], 0);
        cluster.inject(2, 1, old).unwrap();
        assert!(
            cluster.disks[&node(1)].queue.is_empty(),
            "nothing is written"
        );
        cluster.crash(1);
        assert_eq!(cluster.log(1), log);
    }
}

#[test]
fn p40_a_conflict_with_what_is_committed_is_an_alarm_and_changes_nothing() {
    let log: &[u32] = &[1, 1, 1];
    let mut cluster = Cluster::with_logs(&[log, log, log]);
    cluster.inject(2, 1, append(1, 1, (1, 3), &[], 3)).unwrap();
    for (previous, terms) in [((1, 1), &[2_u32, 2][..]), ((2, 3), &[2])] {
        let refused = cluster.inject(3, 1, append(2, 1, previous, terms, 0));
        assert!(
            matches!(refused, Err(MessageError::Diverged { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(cluster.log(1), log);
}

#[test]
fn p41_a_late_acknowledgement_does_not_reach_the_next_session() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for _ in 0..3 {
        cluster.propose(1).unwrap();
    }
    while cluster.deliver_one(1, 2) {}
    while cluster.sync_one(node(2)) {}
    let late = cluster.take_packets(2, 1);
    assert!(!late.is_empty());
    // The same leader, in another session: the follower may have lost what it had.
    cluster.disconnect(node(1), node(2));
    cluster.connect(node(1), node(2));
    let old_match = cluster.raft(1).match_index(node(2)).unwrap();
    assert_eq!(old_match, LogIndex::ZERO, "forgotten");
    for packet in late {
        cluster.deliver(packet);
    }
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(LogIndex::ZERO));
    assert!(matches!(
        cluster.errors[0],
        MessageError::OtherSession { .. }
    ));
}

#[test]
pub(crate) fn p41_a_late_acknowledgement_of_what_was_cut_since_moves_nothing() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    // n2 acknowledges what n1 has sent to it alone. That answer comes late.
    for (a, b) in [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)] {
        cluster
            .lost
            .extend([(node(a), node(b)), (node(b), node(a))]);
    }
    cluster.propose_sized(1, &[100, 100]).unwrap();
    while cluster.deliver_one(1, 2) {}
    while cluster.sync_one(node(2)) {}
    let late = cluster.take_packets(2, 1);
    // n3 leads, and what n2 has acknowledged is cut away, on n1 as well.
    cluster
        .lost
        .extend([(node(1), node(2)), (node(2), node(1))]);
    cluster.fall_silent();
    cluster.elect(3);
    for (a, b) in [(3, 1), (3, 2), (4, 1), (5, 1)] {
        cluster.lost.remove(&(node(a), node(b)));
        cluster.lost.remove(&(node(b), node(a)));
        cluster.disconnect(node(a), node(b));
        cluster.connect(node(a), node(b));
    }
    cluster.settle();
    assert_eq!((cluster.log(1), cluster.log(2)), (vec![1, 2], vec![1, 2]));
    // n1 leads again, and the session with n2 has been up all the time.
    cluster.fall_silent();
    cluster.elect(1);
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(LogIndex::ZERO));
    assert!(!late.is_empty());
    for packet in late {
        cluster.deliver(packet);
    }
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(LogIndex::ZERO));
}

#[test]
fn p41_an_acknowledgement_is_clamped_to_what_was_sent() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.disconnect(node(1), node(2));
    cluster.connect(node(1), node(2));
    let last = cluster.propose(1).unwrap().index;
    // In this session nothing but the probe at the no-op was sent.
    let lie = Message::AppendReply {
        term: term(1),
        window: 2,
        outcome: AppendOutcome::Accepted {
            matched: last,
            synced: last,
            promised: last,
        },
    };
    let before = cluster.raft(1).match_index(node(2)).unwrap();
    assert_eq!(before, LogIndex::ZERO);
    cluster.call(1, |raft, _| raft.set_allowance(node(2), 0));
    cluster.inject(2, 1, lie).unwrap();
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(index(1)));
    assert!(cluster.raft(1).commit_index() < last);
}

#[test]
fn p42_a_beats_commit_moves_nothing_that_is_not_verified() {
    let log: &[u32] = &[1, 1, 1];
    let mut cluster = Cluster::with_logs(&[log, log, log]);
    let row = BeatRow {
        term: term(1),
        last: index(3),
        commit: index(3),
    };
    let session = cluster.sessions[&(node(2), node(1))];
    let answer = cluster.call(1, |raft, now| raft.handle_beat(now, node(2), session, row));
    assert_eq!(answer, None);
    assert_eq!(cluster.commit(1), 0, "nothing is verified in this session");
    cluster.inject(2, 1, append(1, 1, (1, 2), &[], 0)).unwrap();
    cluster.call(1, |raft, now| raft.handle_beat(now, node(2), session, row));
    assert_eq!(cluster.commit(1), 2);
}

#[test]
fn p42_a_beat_names_no_commit_beyond_what_the_follower_is_known_to_have() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.hold(3, true);
    cluster.propose(1).unwrap();
    cluster.settle();
    assert_eq!(cluster.commit(1), 2);
    let round = highwater_consensus::BeatRound(1_000_000);
    let row = cluster
        .call(1, |raft, _| raft.beat_row(node(3), round))
        .unwrap();
    assert_eq!((row.last, row.commit), (index(2), index(1)));
}

#[test]
fn p43_an_answer_to_another_beat_or_window_moves_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let read = cluster.read(1).unwrap();
    cluster.packets.clear();
    let session = cluster.sessions[&(node(1), node(2))];
    for round in [0, 1, 2, 999_999] {
        let round = highwater_consensus::BeatRound(round);
        cluster.call(1, |raft, now| {
            raft.handle_beat_ack(now, node(2), session, round, None);
        });
    }
    assert!(
        cluster.members[&node(1)].answered.is_empty(),
        "{read:?} was answered"
    );
    let refusal = Message::AppendReply {
        term: term(1),
        window: 77,
        outcome: AppendOutcome::Conflict {
            at: id(1, 1),
            first: index(1),
        },
    };
    cluster.inject(2, 1, refusal).unwrap();
    assert!(
        cluster.messages(1, 2).is_empty(),
        "no probe for a window that is not"
    );
}

#[test]
fn p44_windows_leak_into_no_later_leadership() {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let small = |config: &mut highwater_consensus::Config| {
        config.window_bytes_max = 500;
        config.append_bytes_max = 500;
        config.uncommitted_bytes_max = 5_000;
    };
    let mut cluster = Cluster::build(membership, 1, small, |_| Image::default());
    cluster.elect(1);
    for _ in 0..1_000 {
        let leader = cluster.leader().unwrap();
        while cluster.propose_sized(leader, &[400]).is_ok() {}
        assert!(cluster.raft(leader).in_flight_bytes(node(leader % 3 + 1)) >= 400);
        let next = leader % 3 + 1;
        cluster.packets.clear();
        cluster.fall_silent();
        cluster.campaign(next);
        cluster.settle();
        if cluster.leader() == Some(leader) {
            cluster.run_for(1_000);
        }
    }
    cluster.run_for(3_000);
    let leader = cluster.leader().unwrap();
    let entry = cluster.propose(leader).unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(leader).commit_index(), entry.index);
    for n in 1..=3 {
        assert_eq!(cluster.raft(leader).in_flight_bytes(node(n)), 0);
    }
    assert!(
        cluster.raft(leader).term() > term(300),
        "leadership has changed often"
    );
}

#[test]
fn p45_many_conflicting_entries_cost_a_round_trip_per_term_at_most() {
    let mut one_term = vec![1; 10];
    one_term.extend(vec![2; 100_000]);
    let mut other = vec![1; 10];
    other.extend(vec![3; 50_000]);
    let mut cluster = Cluster::with_logs_in_term(&[&other, &one_term, &other], 3);
    cluster.elect(1);
    cluster.run_for(2_000);
    assert_eq!(cluster.log(2).len(), 50_011);
    assert_eq!(cluster.commit(2), 50_011);
    assert!(
        cluster.count("conflict") <= 2,
        "{} round trips",
        cluster.count("conflict")
    );

    let mut many_terms = vec![1; 10];
    many_terms.extend((2..1_002).map(|t| t * 2));
    let mut leader = vec![1; 10];
    leader.extend((2..1_002).map(|t| t * 2 + 1));
    let mut cluster = Cluster::with_logs_in_term(&[&leader, &many_terms, &leader], 2_003);
    cluster.elect(1);
    cluster.run_for(2_000);
    assert_eq!(cluster.log(2), cluster.log(1));
    assert!(cluster.count("conflict") <= 1_001);
}

#[test]
fn p46_an_append_below_the_followers_log_start_is_answered_by_what_it_has() {
    let log: &[u32] = &[1; 60];
    let mut cluster = Cluster::with_logs(&[log, log, log]);
    cluster
        .inject(2, 1, append(1, 1, (1, 60), &[], 50))
        .unwrap();
    let disk = cluster.disks.get_mut(&node(1)).unwrap();
    disk.memory.start_at(index(51));
    disk.durable.start_at(index(51));
    cluster.call(1, |raft, _| raft.handle_log_start(index(51)));
    cluster.packets.clear();
    cluster
        .inject(2, 1, append(1, 2, (1, 40), &[1, 1], 0))
        .unwrap();
    assert_eq!(cluster.raft(1).last(), id(1, 60), "nothing is deleted");
    let answer = cluster.messages(1, 2);
    let Message::AppendReply {
        outcome: AppendOutcome::Accepted { synced, .. },
        ..
    } = answer[0]
    else {
        panic!("{answer:?}");
    };
    assert!(synced >= index(50), "have up to {synced}");
}

fn lagging() -> Cluster {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let small = |config: &mut highwater_consensus::Config| {
        config.tail_entries_max = 4;
        config.append_bytes_max = 1_000;
    };
    let mut cluster = Cluster::build(membership, 1, small, |_| Image::default());
    cluster.elect(1);
    cluster.crash(3);
    for _ in 0..100 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster
}

#[test]
fn p47_catch_up_joins_the_tail_and_both_never_run_at_once() {
    let mut cluster = lagging();
    cluster.restart(3);
    for _ in 0..50 {
        // New entries while chunks are on their way, which anything may overtake.
        cluster.propose(1).unwrap();
        for _ in 0..20 {
            cluster.propose_between_steps(1);
        }
        cluster.run_for(25);
    }
    cluster.run_for(500);
    assert_eq!(cluster.log(3), cluster.log(1));
    assert!(cluster.count("catch-up") >= 5);
    assert!(cluster.count("conflict") <= 1, "nothing overtakes anything");
}

#[test]
fn p47_a_chunk_that_comes_late_is_not_sent() {
    let mut cluster = lagging();
    cluster.restart(3);
    let session = cluster.sessions[&(node(1), node(3))];
    let chunk = entries(2, &[1; 5]);
    cluster.settle();
    assert_eq!(cluster.log(3), cluster.log(1));
    cluster.call(1, |raft, _| raft.handle_chunk(node(3), session, &chunk));
    let old = highwater_consensus::Session(1);
    cluster.call(1, |raft, _| raft.handle_chunk(node(3), old, &chunk));
    assert!(cluster.packets.is_empty());
}

#[test]
fn p48_an_answer_from_another_nodes_session_counts_for_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.isolate(3);
    let entry = cluster.propose(1).unwrap();
    let session_of_3 = cluster.sessions[&(node(1), node(3))];
    let ghost = Message::AppendReply {
        term: term(1),
        window: 1,
        outcome: AppendOutcome::Accepted {
            matched: entry.index,
            synced: entry.index,
            promised: entry.index,
        },
    };
    let refused = cluster.call(1, |raft, now| {
        raft.handle_message(now, node(2), session_of_3, ghost)
    });
    assert!(matches!(refused, Err(MessageError::OtherSession { .. })));
    assert!(cluster.raft(1).commit_index() < entry.index);
}

#[test]
fn p49_appends_in_flight_keep_no_deposed_leader_alive() {
    // n1 is cut off one way: its appends and beats arrive nowhere, all else does.
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster
        .lost
        .extend([(node(1), node(2)), (node(1), node(3))]);
    for _ in 0..40 {
        let _ = cluster.propose(1);
        cluster.run_for(100);
    }
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1);
    assert_ne!(
        cluster.raft(1).role(),
        highwater_consensus::RoleKind::Leader
    );
}

#[test]
fn p49_idle_groups_elect_within_two_timeouts_of_their_leaders_death_each_once() {
    let mut elections = 0;
    for group in 0..200 {
        let mut cluster = Cluster::with_seed(3, group);
        cluster.elect(1);
        cluster.run_for(2_000);
        cluster.crash(1);
        cluster.run_for(3_000);
        assert!(cluster.leader().is_some(), "group {group}");
        elections += cluster.count("leader") - 1;
    }
    assert!(
        elections <= 210,
        "a storm: {elections} elections in 200 groups"
    );
}

// What has no number: windows, limits, busy followers.

#[test]
fn everything_proposed_in_a_turn_is_one_append() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let raft = cluster.raft_mut(node(1));
    let proposal = [highwater_consensus::ProposedEntry {
        kind: highwater_consensus::EntryKind::Control,
        size: 9,
    }];
    raft.propose(&proposal).unwrap();
    raft.propose(&proposal).unwrap();
    let mut appends = 0;
    while let Some(output) = raft.poll_output() {
        if let highwater_consensus::Output::Send {
            message: Message::Append { entries, .. },
            ..
        } = output
        {
            assert_eq!(entries.len(), 2);
            appends += 1;
        }
    }
    assert_eq!(appends, 2, "one per follower");
}

#[test]
fn appends_flow_ahead_of_their_acknowledgements_up_to_the_window() {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let small = |config: &mut highwater_consensus::Config| config.window_bytes_max = 1_000;
    let mut cluster = Cluster::build(membership, 1, small, |_| Image::default());
    cluster.elect(1);
    cluster.isolate(3);
    for _ in 0..20 {
        cluster.propose_sized(1, &[200]).unwrap();
    }
    let sent = cluster.messages(1, 2).len();
    assert!(
        (3..=5).contains(&sent),
        "{sent} appends of 264 bytes in a window of 1,000"
    );
    assert!(cluster.raft(1).in_flight_bytes(node(2)) <= 1_000);
    assert_eq!(cluster.raft(1).in_flight_appends(node(2)), sent);
    cluster.settle();
    assert_eq!(cluster.raft(1).in_flight_appends(node(2)), 0);
    assert_eq!(cluster.commit(1), 21);
}

#[test]
fn a_large_entry_travels_alone_and_is_held_up_by_no_limit() {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let small = |config: &mut highwater_consensus::Config| {
        config.window_bytes_max = 1_000;
        config.append_bytes_max = 500;
        config.uncommitted_bytes_max = 800;
    };
    let mut cluster = Cluster::build(membership, 1, small, |_| Image::default());
    cluster.elect(1);
    cluster.propose_sized(1, &[100]).unwrap();
    cluster
        .propose_sized(1, &[50_000])
        .expect("two entries always fit");
    let refused = cluster.propose_sized(1, &[100]);
    assert!(matches!(refused, Err(ProposeError::Busy { .. })));
    cluster.settle();
    assert_eq!(cluster.commit(1), 3);
    cluster.propose_sized(1, &[100]).expect("room again");
}

#[test]
fn a_peers_allowance_stops_and_resumes_its_appends() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.call(1, |raft, _| raft.set_allowance(node(2), 0));
    cluster.propose(1).unwrap();
    assert!(cluster.messages(1, 2).is_empty());
    cluster.call(1, |raft, _| raft.set_allowance(node(2), 1_000));
    assert_eq!(cluster.messages(1, 2).len(), 1);
    assert_eq!(cluster.raft(1).in_flight_bytes(node(2)), 164);
}

#[test]
fn a_full_follower_pauses_the_leader_which_probes_until_there_is_room() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.call(3, |raft, _| raft.handle_disk_full(true));
    for _ in 0..5 {
        cluster.propose(1).unwrap();
    }
    cluster.run_for(3_000);
    assert_eq!(cluster.commit(1), 6, "the others go on");
    assert_eq!(cluster.log(3), [1]);
    let asked = cluster.count("busy");
    assert!((5..=25).contains(&asked), "{asked} probes in 20 beats");
    cluster.call(3, |raft, _| raft.handle_disk_full(false));
    cluster.run_for(500);
    assert_eq!(cluster.log(3).len(), 6);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn a_full_follower_still_acknowledges_what_it_had_taken_before() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(2);
    cluster.hold(3, true);
    let taken = cluster.propose(1).unwrap();
    cluster.settle();
    cluster.call(3, |raft, _| raft.handle_disk_full(true));
    let refused = cluster.propose(1).unwrap();
    cluster.settle();
    cluster.hold(3, false);
    cluster.run_for(1_000);
    assert_eq!(cluster.raft(1).commit_index(), taken.index);
    assert!(taken.index < refused.index);
}

#[test]
fn what_was_lost_on_the_way_is_sent_again_after_a_few_beats() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster.take_packets(1, 2);
    cluster.run_for(1_000);
    assert_eq!(cluster.log(2), cluster.log(1));
    // A loss in the middle: the follower refuses the rest once, and takes nothing of it.
    cluster.propose(1).unwrap();
    cluster.take_packets(1, 2);
    for _ in 0..5 {
        cluster.propose(1).unwrap();
    }
    let conflicts = cluster.count("conflict");
    cluster.settle();
    assert_eq!(cluster.count("conflict"), conflicts + 1);
    assert_eq!(cluster.log(2), cluster.log(1));
}

#[test]
fn a_lost_word_of_an_ended_quarantine_is_asked_for_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster.settle();
    cluster.crash(3);
    cluster.start(node(3), Quarantine::ToEnd { first: index(2) });
    cluster.settle();
    cluster.beat(node(1));
    while cluster.deliver_one(1, 3) {}
    cluster.take_packets(3, 1);
    assert!(!cluster.raft(3).is_quarantined());
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(LogIndex::ZERO));
    cluster.run_for(1_500);
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(index(2)));
}

#[test]
fn an_idle_leader_tells_a_replica_with_a_hole_what_is_committed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..5 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster.crash(3);
    cluster.start(node(3), Quarantine::Hole { first: index(3) });
    // The probe of its new session finds that all is there, and tells nothing of commits.
    let session = cluster.sessions[&(node(3), node(1))];
    cluster.take_packets(1, 3);
    let probe = append(1, 3, (1, 6), &[], 0);
    cluster.call(3, |raft, now| {
        raft.handle_message(now, node(1), session, probe).unwrap();
    });
    cluster.run_for(1_500);
    assert_eq!(cluster.commit(3), 6);
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(index(6)));
}

#[test]
fn malformed_appends_change_nothing() {
    let log: &[u32] = &[1, 1];
    let gap = {
        let mut list = entries(3, &[1, 1]);
        list.remove(0);
        list
    };
    let of = |previous, entries| Message::Append {
        term: term(2),
        window: 1,
        previous,
        entries,
        commit: index(0),
    };
    let base = |before| Message::Base {
        term: term(2),
        window: 1,
        before,
    };
    let cases = [
        of(id(1, 2), gap),
        of(id(1, 2), entries(3, &[2, 1])),
        of(id(1, 2), entries(3, &[3])),
        of(id(3, 2), Vec::new()),
        of(id(1, u64::MAX), entries(3, &[1])),
        of(id(1, u64::MAX), Vec::new()),
        of(id(0, 0), entries(1, &[0])),
        base(id(3, 9)),
        base(id(0, 0)),
        base(id(1, u64::MAX)),
    ];
    for message in cases {
        let mut cluster = Cluster::with_logs(&[log, log, log]);
        let refused = cluster.inject(2, 1, message);
        assert!(
            matches!(refused, Err(MessageError::Malformed { .. })),
            "{refused:?}"
        );
        assert_eq!(cluster.log(1), log);
    }
}

#[test]
fn answers_that_cannot_be_change_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let accepted = |matched: u64, synced: u64, promised: u64| AppendOutcome::Accepted {
        matched: index(matched),
        synced: index(synced),
        promised: index(promised),
    };
    let outcomes = [
        accepted(9, 1, 1),
        accepted(1, 2, 1),
        accepted(1, 1, 2),
        AppendOutcome::Conflict {
            at: id(1, 1),
            first: index(2),
        },
        AppendOutcome::Conflict {
            at: id(0, 0),
            first: index(0),
        },
    ];
    for outcome in outcomes {
        let reply = Message::AppendReply {
            term: term(1),
            window: 1,
            outcome,
        };
        let refused = cluster.inject(2, 1, reply);
        assert!(
            matches!(refused, Err(MessageError::Malformed { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(index(1)));
}

#[test]
pub(crate) fn a_follower_to_the_logs_end_unreadable_rejoins_by_the_leaders_first_beat() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..10 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster.crash(3);
    let quarantine = Quarantine::ToEnd { first: index(4) };
    cluster.start(node(3), quarantine);
    cluster.settle();
    // It has everything again, yet no beat has named what everything is.
    assert_eq!(cluster.log(3), cluster.log(1));
    assert!(cluster.raft(3).is_quarantined());
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(LogIndex::ZERO));
    cluster.beat(node(1));
    cluster.settle();
    assert!(!cluster.raft(3).is_quarantined());
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(index(11)));
    assert_eq!(cluster.count("quarantine ended"), 1);
}

#[test]
fn a_quarantined_follower_rejoins_no_sooner_than_it_has_what_was_named() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..10 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster.crash(3);
    cluster.start(node(3), Quarantine::ToEnd { first: index(4) });
    cluster.hold(3, true);
    cluster.settle();
    cluster.beat(node(1));
    cluster.settle();
    assert_eq!(cluster.log(3), cluster.log(1));
    assert!(cluster.raft(3).is_quarantined(), "received is not synced");
    cluster.sync_one(node(3));
    assert!(cluster.raft(3).is_quarantined(), "that was the cut");
    cluster.hold(3, false);
    cluster.settle();
    assert!(!cluster.raft(3).is_quarantined());
}

#[test]
fn only_members_get_anything() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let peers: BTreeSet<NodeId> = cluster.packets.iter().map(|p| p.to).collect();
    assert!(peers.iter().all(|n| (1..=3).contains(&n.0)));
    let round = highwater_consensus::BeatRound(1_000_000);
    assert_eq!(cluster.raft_mut(node(1)).beat_row(node(9), round), None);
    assert_eq!(cluster.raft_mut(node(1)).beat_row(node(1), round), None);
    assert_eq!(cluster.raft_mut(node(2)).beat_row(node(1), round), None);
}

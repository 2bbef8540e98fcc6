//! F: bases, log starts, recovery.

use highwater_consensus::{AppendOutcome, Message, MessageError, Output, Quarantine, RoleKind};

use crate::suite::cluster::{Cluster, entries, id, index, node, term};
use crate::suite::image::Op;

fn base(t: u32, window: u64, before: (u32, u64)) -> Message {
    Message::Base {
        term: term(t),
        window,
        before: id(before.0, before.1),
    }
}

/// n1 leads with a log that starts behind the end of n3, which is down.
fn beyond_n3(kept: u64) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(3);
    for _ in 0..30 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    cluster.beat(node(1));
    cluster.settle();
    for n in [1, 2] {
        let first = cluster.raft(n).commit_index().next();
        let first = index(first.0 - kept);
        let disk = cluster.disks.get_mut(&node(n)).unwrap();
        disk.memory.start_at(first);
        disk.durable.start_at(first);
        cluster.call(n, |raft, _| raft.handle_log_start(first));
    }
    cluster
}

#[test]
fn p73_a_follower_below_the_log_start_is_caught_up_by_a_base() {
    for kept in [0, 1, 10] {
        let mut cluster = beyond_n3(kept);
        cluster.restart(3);
        cluster.run_for(500);
        assert_eq!(cluster.count("base"), 1);
        assert_eq!(cluster.raft(3).before(), cluster.raft(1).before());
        assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
        assert_eq!(cluster.commit(3), 31);
        let entry = cluster.propose(1).unwrap();
        cluster.settle();
        assert_eq!(cluster.raft(3).synced_index(), entry.index);
    }
}

#[test]
fn until_a_base_is_durable_it_neither_counts_nor_votes() {
    let mut cluster = beyond_n3(10);
    cluster.hold(3, true);
    cluster.restart(3);
    cluster.settle();
    assert_eq!(cluster.raft(3).before().index, index(21));
    assert_eq!(cluster.raft(3).synced_index(), index(0));
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(index(0)));
    cluster.isolate(1);
    cluster.fall_silent();
    cluster.campaign(3);
    assert_eq!(
        cluster.raft(3).role(),
        RoleKind::Follower,
        "it does not campaign"
    );
    cluster.campaign(2);
    cluster.settle();
    assert_ne!(cluster.raft(2).role(), RoleKind::Leader, "nor does it vote");
    cluster.hold(3, false);
    cluster.run_for(5_000);
    assert_eq!(cluster.leader(), Some(2), "now it does");
}

#[test]
pub(crate) fn p40_p71_a_base_that_the_log_already_holds_deletes_nothing() {
    let log: &[u32] = &[1, 1, 1, 1];
    let mut cluster = Cluster::with_logs(&[log, log, log]);
    cluster.inject(2, 1, base(1, 1, (1, 2))).unwrap();
    assert!(cluster.disks[&node(1)].queue.is_empty());
    assert_eq!(cluster.log(1), log);
    assert_eq!(cluster.commit(1), 2, "a log start is committed");
    let answers = cluster.messages(1, 2);
    assert!(matches!(
        answers[0],
        Message::AppendReply {
            outcome: AppendOutcome::Accepted { .. },
            ..
        }
    ));
}

#[test]
fn p71_a_conflicting_log_is_gone_with_the_base_before_and_after_a_crash() {
    for durable in [false, true] {
        let mut cluster = Cluster::with_logs_in_term(&[&[1, 2, 2, 2, 2], &[], &[]], 2);
        cluster.inject(2, 1, base(3, 1, (1, 3))).unwrap();
        assert_eq!(cluster.raft(1).last(), id(1, 3));
        while durable && cluster.sync_one(node(1)) {}
        cluster.crash(1);
        cluster.restart(1);
        // Whole or absent, never a mixture.
        let expected = if durable { id(1, 3) } else { id(2, 5) };
        assert_eq!(cluster.raft(1).last(), expected);
    }
}

#[test]
fn p70_p72_a_second_base_supersedes_one_in_flight() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1], &[], &[]], 1);
    cluster.inject(2, 1, base(2, 1, (2, 10))).unwrap();
    cluster.inject(2, 1, base(2, 2, (2, 20))).unwrap();
    cluster.inject(2, 1, base(2, 2, (2, 15))).unwrap();
    assert_eq!(cluster.raft(1).before(), id(2, 20), "never back");
    assert_eq!(cluster.commit(1), 20);
    assert_eq!(cluster.raft(1).synced_index(), index(0));
    let bases = cluster.disks[&node(1)].queue.iter();
    assert_eq!(bases.filter(|(_, op)| matches!(op, Op::Base(_))).count(), 2);
    cluster.sync_one(node(1));
    cluster.sync_one(node(1));
    assert_eq!(
        cluster.raft(1).synced_index(),
        index(0),
        "that was the first one"
    );
    cluster.sync_one(node(1));
    assert_eq!(cluster.raft(1).synced_index(), index(20));
}

#[test]
fn a_base_against_what_is_committed_is_an_alarm() {
    let log: &[u32] = &[1, 1, 1];
    let mut cluster = Cluster::with_logs(&[log, log, log]);
    let append = Message::Append {
        term: term(1),
        window: 1,
        previous: id(1, 3),
        entries: Vec::new(),
        commit: index(3),
    };
    cluster.inject(2, 1, append).unwrap();
    let refused = cluster.inject(3, 1, base(2, 1, (2, 3)));
    assert!(matches!(refused, Err(MessageError::Diverged { .. })));
    assert_eq!(cluster.log(1), log);
}

#[test]
fn p74_a_restart_at_every_log_start_goes_on() {
    for start in 1..=6 {
        let log: &[u32] = &[1, 1, 2, 2, 3];
        let mut cluster = Cluster::with_logs(&[log, log, log]);
        cluster.crash(1);
        cluster
            .disks
            .get_mut(&node(1))
            .unwrap()
            .durable
            .start_at(index(start));
        cluster.disks.get_mut(&node(1)).unwrap().crash();
        cluster.restart(1);
        assert_eq!(
            cluster.commit(1),
            start - 1,
            "what was removed was committed"
        );
        cluster.elect(1);
        assert_eq!(cluster.commit(1), 6);
        cluster.run_for(300);
        assert_eq!(cluster.commit(3), 6);
    }
}

#[test]
fn a_conflicting_append_replaces_a_quarantined_entry_above_commit() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1, 2, 2, 2], &[], &[]], 2);
    cluster.crash(1);
    cluster.start(node(1), Quarantine::Hole { first: index(3) });
    let append = Message::Append {
        term: term(3),
        window: 1,
        previous: id(1, 1),
        entries: entries(2, &[3]),
        commit: index(0),
    };
    cluster.inject(2, 1, append).unwrap();
    assert_eq!(cluster.log(1), [1, 3]);
    assert!(
        !cluster.raft(1).is_quarantined(),
        "the hole is gone with the entries"
    );
}

#[test]
fn a_quarantine_to_the_end_is_cut_by_the_first_entries_that_replace_it() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1, 1, 1, 1], &[], &[]], 1);
    cluster.crash(1);
    cluster.start(node(1), Quarantine::ToEnd { first: index(3) });
    assert_eq!(cluster.raft(1).last(), id(1, 2), "what is verified");
    let append = Message::Append {
        term: term(2),
        window: 1,
        previous: id(1, 2),
        entries: entries(3, &[1, 1, 2]),
        commit: index(0),
    };
    cluster.inject(2, 1, append).unwrap();
    let ops: Vec<&Op> = cluster.disks[&node(1)]
        .queue
        .iter()
        .map(|(_, op)| op)
        .collect();
    assert!(
        matches!(ops[1], Op::Cut(first) if *first == index(3)),
        "{ops:?}"
    );
    assert_eq!(cluster.log(1), [1, 1, 1, 1, 2]);
}

#[test]
fn a_hole_is_no_obstacle_to_what_a_sole_voter_has_committed_by_syncing() {
    let mut cluster = Cluster::with_logs(&[&[1, 1, 1]]);
    cluster.crash(1);
    cluster.start(node(1), Quarantine::Hole { first: index(2) });
    cluster.settle();
    assert_eq!(cluster.commit(1), 4);
    assert!(
        cluster.raft(1).is_quarantined(),
        "its driver still refuses to serve it"
    );
}

#[test]
fn a_node_with_a_hole_campaigns_last() {
    let mut cluster = Cluster::with_logs(&[&[1, 1, 1], &[1, 1, 1], &[1, 1, 1]]);
    cluster.crash(1);
    cluster.start(node(1), Quarantine::Hole { first: index(2) });
    let patience = cluster.raft(1).next_timeout().unwrap() - cluster.now;
    assert!(patience.as_millis() >= 2_250);
    cluster.run_for(2_000);
    assert_ne!(cluster.leader().unwrap(), 1);
}

#[test]
fn outputs_are_taken_once() {
    let mut cluster = Cluster::new(1);
    cluster.settle();
    let none: Option<Output> = cluster.raft_mut(node(1)).poll_output();
    assert_eq!(none, None);
}

//! B: durability and asynchronous writes.

use std::time::Duration;

use highwater_consensus::{
    AppendOutcome, Config, ConfigError, LogIndex, Membership, Message, Quarantine, Raft, Restored,
    RoleKind,
};

use crate::suite::cluster::{Cluster, entries, id, index, node, term};
use crate::suite::image::Op;

fn append(t: u32, window: u64, previous: (u32, u64), terms: &[u32]) -> Message {
    Message::Append {
        term: term(t),
        window,
        previous: id(previous.0, previous.1),
        entries: entries(previous.1 + 1, terms),
        commit: index(0),
    }
}

/// The last accepted positions that went from n1 to n2: matched, synced, promised.
fn accepted(cluster: &Cluster) -> Option<(u64, u64, u64)> {
    let of = |message: &Message| match message {
        Message::AppendReply {
            outcome:
                AppendOutcome::Accepted {
                    matched,
                    synced,
                    promised,
                },
            ..
        } => Some((matched.0, synced.0, promised.0)),
        _ => None,
    };
    cluster.messages(1, 2).iter().rev().find_map(of)
}

#[test]
fn p04_the_term_is_written_before_its_entries() {
    for durable_writes in 0..=2 {
        let mut cluster = Cluster::with_logs(&[&[1], &[], &[]]);
        cluster.inject(2, 1, append(5, 1, (1, 1), &[5])).unwrap();
        let queue = &cluster.disks[&node(1)].queue;
        assert!(matches!(queue[0].1, Op::HardState(t, None) if t == term(5)));
        assert!(matches!(queue[1].1, Op::Append(_)));
        for _ in 0..durable_writes {
            cluster.sync_one(node(1));
        }
        cluster.crash(1);
        cluster.restart(1);
        // The leader of term 1 comes late: once an entry of term 5 is here, it has no say.
        cluster.inject(3, 1, append(1, 1, (1, 1), &[1])).unwrap();
        let took_it = cluster.log(1) == [1, 1];
        assert_eq!(took_it, durable_writes == 0);
    }
}

#[test]
fn p04_a_log_of_a_later_term_than_the_hard_state_is_refused() {
    let restored = Restored {
        term: term(4),
        epochs: vec![(term(5), index(1))],
        last: index(1),
        ..Restored::default()
    };
    let config = Config::new(node(1), Membership::of_voters([node(1), node(2)]));
    let refused = Raft::new(config, restored, 1, Duration::ZERO);
    assert!(matches!(refused, Err(ConfigError::Restored(_))));
}

#[test]
fn p20_a_follower_acknowledges_what_is_synced_and_no_more() {
    let mut cluster = Cluster::with_logs(&[&[1], &[], &[]]);
    cluster.inject(2, 1, append(1, 1, (1, 1), &[1, 1])).unwrap();
    assert_eq!(
        accepted(&cluster),
        Some((3, 1, 1)),
        "received is not synced"
    );
    cluster.inject(2, 1, append(1, 1, (1, 3), &[1])).unwrap();
    cluster.sync_one(node(1));
    assert_eq!(accepted(&cluster), Some((4, 3, 3)));
    cluster.sync_one(node(1));
    assert_eq!(accepted(&cluster), Some((4, 4, 4)));
}

#[test]
fn p21_a_sole_voter_counts_itself_after_its_own_sync() {
    let mut cluster = Cluster::new(1);
    cluster.settle();
    cluster.hold(1, true);
    let entry = cluster.propose(1).unwrap();
    cluster.settle();
    assert!(cluster.raft(1).commit_index() < entry.index);
    cluster.crash(1);
    cluster.hold(1, false);
    cluster.restart(1);
    cluster.settle();
    assert_eq!(cluster.log(1), [1, 2], "absent, and never acknowledged");
}

#[test]
fn p21_a_leader_counts_itself_after_its_own_sync() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(3);
    cluster.hold(1, true);
    let entry = cluster.propose(1).unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(1).match_index(node(2)), Some(entry.index));
    assert!(
        cluster.raft(1).commit_index() < entry.index,
        "on one disk of three"
    );
    cluster.hold(1, false);
    cluster.settle();
    assert_eq!(cluster.raft(1).commit_index(), entry.index);
}

#[test]
fn p22_entries_replaced_by_their_like_are_synced_when_the_last_write_is_aba() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1], &[], &[]], 1);
    cluster.inject(2, 1, append(1, 1, (1, 1), &[1, 1])).unwrap();
    cluster.inject(3, 1, append(2, 1, (1, 1), &[2])).unwrap();
    cluster.inject(2, 1, append(3, 1, (1, 1), &[1, 1])).unwrap();
    assert_eq!(cluster.log(1), [1, 1, 1]);
    cluster.sync_one(node(1));
    assert_eq!(
        accepted(&cluster),
        Some((3, 1, 1)),
        "the first write is of the past"
    );
    while cluster.sync_one(node(1)) {
        let is_last = cluster.disks[&node(1)].queue.is_empty();
        let all = accepted(&cluster) == Some((3, 3, 3));
        assert_eq!(all, is_last);
    }
}

#[test]
fn p23_a_sync_in_flight_does_not_vouch_for_what_replaced_its_bytes() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1], &[], &[]], 1);
    cluster
        .inject(3, 1, append(1, 1, (1, 1), &[1; 99]))
        .unwrap();
    cluster
        .inject(2, 1, append(2, 1, (1, 50), &[2; 70]))
        .unwrap();
    cluster.sync_one(node(1));
    assert_eq!(cluster.raft(1).synced_index(), index(50));
    while cluster.sync_one(node(1)) {}
    assert_eq!(accepted(&cluster), Some((120, 120, 120)));
}

#[test]
fn p24_completions_out_of_order_are_cumulative() {
    let mut cluster = Cluster::with_logs(&[&[1], &[], &[]]);
    cluster.inject(2, 1, append(1, 1, (1, 1), &[1])).unwrap();
    cluster.inject(2, 1, append(1, 1, (1, 2), &[1])).unwrap();
    let disk = cluster.disks.get_mut(&node(1)).unwrap();
    let (first, second) = (disk.sync_one().unwrap(), disk.sync_one().unwrap());
    cluster.call(1, |raft, now| raft.handle_persisted(now, second));
    assert_eq!(accepted(&cluster), Some((3, 3, 3)));
    cluster.call(1, |raft, now| raft.handle_persisted(now, first));
    assert_eq!(cluster.raft(1).synced_index(), index(3));
}

#[test]
fn p26_p27_a_disk_that_never_answers_neither_votes_nor_campaigns_nor_acknowledges() {
    let mut cluster = Cluster::new(3);
    cluster.hold(1, true);
    cluster.isolate(2);
    for _ in 0..10 {
        cluster.run_for(1_000);
        let asks = |m: &Message| matches!(m, Message::Vote { .. });
        assert!(!cluster.messages(1, 3).iter().any(asks));
    }
    assert_eq!(cluster.leader(), None, "n3 got no vote, n1 asked for none");
    cluster.heal();
    cluster.run_for(5_000);
    let leader = cluster.leader().unwrap();
    cluster.propose(leader).unwrap();
    cluster.run_for(500);
    assert_eq!(
        cluster.raft(leader).match_index(node(1)),
        Some(LogIndex::ZERO)
    );
}

#[test]
fn p30_a_restarted_node_believes_in_no_old_commit() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..5 {
        cluster.propose(1).unwrap();
    }
    cluster.run_for(300);
    assert_eq!(cluster.commit(2), 6);
    for n in 1..=3 {
        cluster.crash(n);
    }
    for n in 1..=3 {
        cluster.restart(n);
        assert_eq!(cluster.commit(n), 0);
    }
    assert!(cluster.read(2).is_none());
    cluster.run_for(3_000);
    assert_eq!(cluster.commit(2), 7);
}

#[test]
fn p31_a_voter_that_lost_its_log_helps_no_stale_one_to_lead() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1).unwrap();
    cluster.settle();
    assert_eq!(cluster.commit(1), 2, "on n1 and n2");
    for n in 1..=3 {
        cluster.crash(n);
    }
    cluster.lost.clear();
    let lost = Quarantine::ToEnd { first: index(1) };
    cluster.start(node(2), lost);
    cluster.restart(3);
    cluster.run_for(20_000);
    assert_eq!(
        cluster.leader(),
        None,
        "n3 has not the record, n2 does not know"
    );
    assert_eq!(cluster.raft(2).role(), RoleKind::Follower);
    cluster.restart(1);
    cluster.run_for(5_000);
    assert_eq!(cluster.log(1)[..2], [1, 1]);
    assert_eq!(cluster.leader(), Some(1));
    assert!(!cluster.raft(2).is_quarantined(), "it has rejoined");
    assert_eq!(cluster.log(2), cluster.log(1));
}

#[test]
fn p31_a_voter_that_lost_its_log_grants_nothing_and_repeats_no_grant() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1, 1], &[1, 1], &[1, 1]], 2);
    cluster.crash(1);
    cluster.disks.get_mut(&node(1)).unwrap().durable.vote = Some(node(2));
    cluster.start(node(1), Quarantine::ToEnd { first: index(2) });
    for (from, t) in [(2, 2), (2, 3), (3, 4)] {
        let vote = Message::Vote {
            term: term(t),
            last: id(9, 99),
            transfer: false,
        };
        cluster.inject(from, 1, vote).unwrap();
    }
    while cluster.sync_one(node(1)) {}
    assert_eq!(cluster.packets.len(), 3, "three refusals");
    let granted = |p: &crate::suite::cluster::Packet| {
        let is_grant = |m: &Message| matches!(m, Message::VoteReply { granted: true, .. });
        matches!(&p.content, crate::suite::cluster::Content::Message(m, _) if is_grant(m))
    };
    assert!(!cluster.packets.iter().any(granted));
    assert_eq!(cluster.raft(1).term(), term(4), "a term it may learn");
    assert_eq!(cluster.disks[&node(1)].durable.vote, None);
}

/// n3 has forgotten what it once promised, and is asked for all that a member may be asked for.
#[test]
fn p31_a_voter_that_lost_its_promises_follows_and_counts_for_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster.settle();
    cluster.crash(3);
    cluster.start_without_promises(3);
    cluster.propose(1).unwrap();
    cluster.run_for(1_000);
    assert_eq!(cluster.log(3), cluster.log(1), "it keeps a copy");
    assert_eq!(cluster.raft(3).term(), cluster.raft(1).term());
    assert!(cluster.commit(3) > 0);
    // Of n1 and n3 only one counts: nothing is committed, no read is confirmed.
    cluster.isolate(2);
    let committed = cluster.commit(1);
    cluster.propose(1).unwrap();
    cluster.read(1).unwrap();
    cluster.settle();
    cluster.beat(node(1));
    cluster.settle();
    assert_eq!(cluster.log(3), cluster.log(1), "it has it");
    assert_eq!(cluster.commit(1), committed, "and does not count");
    assert!(cluster.members[&node(1)].answered.is_empty());
    cluster.run_for(20_000);
    assert_eq!(cluster.leader(), None, "a leader needs another quorum");
    assert_eq!(cluster.raft(3).role(), RoleKind::Follower);
}

#[test]
fn p31_a_voter_that_lost_its_promises_keeps_up_within_a_session() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1).unwrap();
    cluster.settle();
    cluster.crash(3);
    cluster.start_without_promises(3);
    cluster.run_for(1_000);
    // An append is lost on its way, and nobody writes any more.
    cluster.propose(1).unwrap();
    cluster.take_packets(1, 3);
    cluster.run_for(3_000);
    assert_eq!(cluster.log(3), cluster.log(1), "it is sent again");
    assert_eq!(cluster.commit(3), cluster.commit(1), "beats tell it");
    assert_eq!(cluster.raft(1).match_index(node(3)), Some(index(0)));
}

#[test]
fn p31_a_voter_that_lost_its_promises_neither_votes_nor_campaigns() {
    let mut cluster = Cluster::with_logs_in_term(&[&[1, 1], &[1, 1], &[1, 1]], 2);
    cluster.crash(1);
    cluster.start_without_promises(1);
    let vote = Message::Vote {
        term: term(4),
        last: id(9, 99),
        transfer: false,
    };
    cluster.inject(2, 1, vote).unwrap();
    cluster.call(1, |raft, now| raft.campaign(now));
    while cluster.sync_one(node(1)) {}
    assert_eq!(cluster.disks[&node(1)].durable.vote, None);
    assert_eq!(cluster.raft(1).term(), term(4), "a term it may learn");
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    // Nor alone, in a group of which it is the only voter.
    let mut alone = Cluster::new(1);
    alone.settle();
    assert_eq!(alone.leader(), Some(1));
    alone.crash(1);
    alone.start_without_promises(1);
    alone.run_for(10_000);
    assert_eq!(alone.leader(), None);
}

#[test]
fn p32_a_hole_in_what_was_acknowledged_waits_for_a_peer_that_has_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for _ in 0..5 {
        cluster.propose(1).unwrap();
    }
    cluster.settle();
    for n in 1..=3 {
        cluster.crash(n);
    }
    cluster.lost.clear();
    // n2 finds entry 3 unreadable; n3 has only the no-op. Entry 3 is committed.
    cluster.start(node(2), Quarantine::Hole { first: index(3) });
    cluster.restart(3);
    cluster.run_for(10_000);
    // n2 may lead, for its log is the longer one, but it must not vouch for the hole.
    assert_eq!(cluster.commit(2).max(cluster.commit(3)), 0);
    assert_ne!(cluster.leader(), Some(3));
    cluster.restart(1);
    cluster.run_for(5_000);
    assert!(
        cluster.oracle.commit_index() > index(6),
        "the others hold it"
    );
    cluster.call(2, |raft, _| raft.handle_repaired());
    assert!(!cluster.raft(2).is_quarantined());
}

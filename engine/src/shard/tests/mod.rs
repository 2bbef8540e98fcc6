//! Shards over instant disks, their frames carried by hand: what each operation answers, and
//! when.

mod cluster;
mod counters;
mod holes;
mod quorum;
mod reads;
mod repeats;
mod retention;

use std::time::Duration;

use highwater_consensus::{LogIndex, NodeId};
use highwater_record::{LeaderEpoch, Offset};

use self::cluster::{Cluster, batch, batch_of};
use crate::Ticket;
use crate::ops::{
    Fetch, GroupConfig, OffsetSpec, Op, OpError, Outcome, Produce, ReadFrom, ReplicaStatus,
};

const SECOND: Duration = Duration::from_secs(1);

fn node(number: u32) -> NodeId {
    NodeId(number)
}

fn produce(value: &str) -> Op {
    Op::Produce(Produce {
        batches: vec![batch(value)],
    })
}

fn produce_as(producer: i64, sequence: i32) -> Op {
    Op::Produce(Produce {
        batches: vec![batch_of("value", Some((producer, sequence)))],
    })
}

fn fetch(offset: u64) -> Op {
    Op::Fetch(Fetch {
        offset: Offset(offset),
        max_bytes: 1 << 20,
        must_progress: true,
        current_leader_epoch: None,
        from: ReadFrom::Leader,
    })
}

fn list(spec: OffsetSpec) -> Op {
    Op::ListOffset {
        spec,
        current_leader_epoch: None,
    }
}

fn produced(answer: Option<crate::OpResult>) -> u64 {
    match answer {
        Some(Ok(Outcome::Produced { base_offset, .. })) => base_offset.0,
        other => panic!("not produced: {other:?}"),
    }
}

#[test]
fn a_group_of_one_acknowledges_what_is_on_its_disk() {
    let mut cluster = Cluster::new(1);
    assert_eq!(produced(cluster.ask(1, produce("a"))), 0);
    assert_eq!(produced(cluster.ask(1, produce("b"))), 1);
    let Some(Ok(Outcome::Fetched(fetched))) = cluster.ask(1, fetch(1)) else {
        panic!("fetched")
    };
    assert_eq!(fetched.high_watermark, Offset(2));
    assert_eq!(fetched.next_offset, Offset(2));
    assert_eq!(fetched.spans.len(), 1);
}

#[test]
fn a_group_that_nobody_asks_elects_nobody_until_the_first_request() {
    let mut cluster = Cluster::new(3);
    cluster.run(20 * SECOND);
    for number in 1..=3 {
        let status = cluster.status(number);
        assert_eq!(status.leader, None);
        assert_eq!(status.leader_epoch, LeaderEpoch::ZERO);
    }
    assert_eq!(produced(cluster.ask(2, produce("a"))), 0);
    assert!(cluster.status(2).is_leader, "whoever is asked first leads");
}

/// In one of the turns the node becomes the leader, and then meets a request that nobody held.
#[test]
fn what_comes_in_the_turn_of_the_first_election_stays_behind_what_was_held() {
    let mut cluster = Cluster::new(3);
    let mut tickets = Vec::new();
    while cluster.status(1).high_watermark == Offset::ZERO {
        assert!(tickets.len() < 100, "nobody is elected");
        tickets.push(cluster.push(1, produce("next")));
        cluster.round();
    }
    cluster.run(SECOND);
    let answers = tickets.into_iter().map(|ticket| cluster.answer(ticket));
    let offsets: Vec<u64> = answers.map(produced).collect();
    let expected: Vec<u64> = (0..).take(offsets.len()).collect();
    assert_eq!(offsets, expected);
}

#[test]
fn an_entry_is_stamped_with_offset_and_epoch_once_for_all_replicas() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    cluster.ask(1, produce("b"));
    cluster.run(SECOND);
    let bodies: Vec<Vec<u8>> = (1..=3).map(|number| cluster.bodies(number)).collect();
    assert!(!bodies[0].is_empty());
    assert!(bodies.iter().all(|other| *other == bodies[0]));
    let second = highwater_record::BatchHeader::read(&bodies[0][bodies[0].len() / 2..]).unwrap();
    assert_eq!(second.base_offset(), Offset(1));
    assert_eq!(second.leader_epoch(), Some(cluster.status(1).leader_epoch));
}

#[test]
fn a_follower_sends_producers_to_the_leader() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let Some(Err(OpError::NotLeader { leader, .. })) = cluster.ask(2, produce("a")) else {
        panic!("refused")
    };
    assert_eq!(leader, Some(node(1)));
}

#[test]
fn nothing_is_acknowledged_without_a_quorum_and_step_down_admits_either_outcome() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.cut(1);
    let ticket = cluster.submit(1, produce("a"));
    cluster.run(SECOND / 2);
    assert_eq!(cluster.answer(ticket), None);
    cluster.run(4 * SECOND);
    assert_eq!(cluster.answer(ticket), Some(Err(OpError::Indefinite)));
    assert!(!cluster.status(1).is_leader);
}

#[test]
fn s7_a_leader_that_is_cut_off_tells_no_latest_offset_and_gives_no_barrier() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.cut(1);
    let latest = cluster.submit(1, list(OffsetSpec::Latest));
    let barrier = cluster.submit(1, Op::Barrier);
    let beyond = cluster.submit(1, fetch(1_000));
    cluster.run(4 * SECOND);
    for ticket in [latest, barrier, beyond] {
        let answer = cluster.answer(ticket);
        assert!(
            matches!(answer, Some(Err(OpError::NotLeader { .. }))),
            "{answer:?}"
        );
    }
}

#[test]
fn a_new_leader_knows_no_latest_offset_before_it_has_committed_in_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    cluster.run(SECOND);
    // Its appends no longer arrive, so that its no-op is not committed.
    cluster.drop_appends(true);
    cluster.cut(1);
    let leader = cluster.run_until_led_by_other(1);
    let latest = cluster.ask(leader, list(OffsetSpec::Latest));
    assert_eq!(latest, Some(Err(OpError::OffsetNotAvailable)));
    // Beyond its log end a consumer may only be ahead of what it knows: it waits.
    let Some(Ok(Outcome::Fetched(fetched))) = cluster.ask(leader, fetch(50)) else {
        panic!("fetched")
    };
    assert!(fetched.spans.is_empty());
    cluster.drop_appends(false);
    cluster.run(3 * SECOND);
    let Some(Ok(Outcome::Listed { offset, .. })) = cluster.ask(leader, list(OffsetSpec::Latest))
    else {
        panic!("listed")
    };
    assert_eq!(offset, Some(Offset(1)));
    let beyond = cluster.ask(leader, fetch(50));
    assert!(matches!(
        beyond,
        Some(Err(OpError::OffsetOutOfRange { .. }))
    ));
}

#[test]
fn a_duplicate_has_the_originals_answer_and_not_before_it_is_committed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 0))), 0);
    cluster.drop_appends(true);
    let original = cluster.submit(1, produce_as(7, 1));
    let duplicate = cluster.submit(1, produce_as(7, 1));
    cluster.run(SECOND / 4);
    assert_eq!(cluster.answer(original), None);
    assert_eq!(cluster.answer(duplicate), None);
    cluster.drop_appends(false);
    cluster.run(SECOND);
    assert_eq!(produced(cluster.answer(original)), 1);
    assert_eq!(produced(cluster.answer(duplicate)), 1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 0))), 0);
    let gap = cluster.ask(1, produce_as(7, 5));
    assert!(matches!(gap, Some(Err(OpError::Producer(_)))), "{gap:?}");
}

#[test]
fn a_leader_that_lost_its_quorum_and_is_elected_again_knows_what_it_had_appended() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 0))), 0);
    cluster.cut(2);
    cluster.cut(3);
    let ticket = cluster.submit(1, produce_as(7, 1));
    cluster.run(4 * SECOND);
    assert_eq!(cluster.answer(ticket), Some(Err(OpError::Indefinite)));
    assert!(!cluster.status(1).is_leader);
    // Node 2 lacks what is not committed: with its vote node 1 leads, and nobody else can.
    cluster.mend(2);
    cluster.run(4 * SECOND);
    cluster.elect(1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 1))), 1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 2))), 2);
}

#[test]
fn a_batch_above_the_limit_is_refused_and_one_at_it_is_not() {
    let mut cluster = Cluster::new(1);
    let large = batch(&"x".repeat(5_000));
    let bytes = large.bytes.len();
    let produce = Op::Produce(Produce {
        batches: vec![large],
    });
    let limited = |max_message_bytes| GroupConfig {
        max_message_bytes,
        ..GroupConfig::default()
    };
    cluster.configure(limited(bytes - 1));
    let limit = bytes - 1;
    let expected = Some(Err(OpError::TooLarge { bytes, limit }));
    assert_eq!(cluster.ask(1, produce.clone()), expected);
    cluster.configure(limited(bytes));
    assert_eq!(produced(cluster.ask(1, produce)), 0);
}

#[test]
fn an_exhausted_memory_budget_refuses_and_recovers() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce("a"));
    let charge = cluster.exhaust_budget(1);
    let busy = cluster.ask(1, produce("b"));
    assert!(matches!(busy, Some(Err(OpError::Busy(_)))), "{busy:?}");
    drop(charge);
    assert_eq!(produced(cluster.ask(1, produce("b"))), 1);
}

#[test]
fn a_watcher_is_woken_by_the_commit_that_it_waits_for_or_cancelled() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce("a"));
    let above = Offset(1);
    let waits = cluster.submit(1, Op::WatchOffset { above });
    let cancelled = cluster.submit(1, Op::WatchOffset { above });
    cluster.run(SECOND);
    assert_eq!(cluster.answer(waits), None);
    cluster.cancel(1, cancelled);
    assert_eq!(cluster.answer(cancelled), Some(Err(OpError::Cancelled)));
    cluster.ask(1, produce("b"));
    assert_eq!(cluster.answer(waits), Some(Ok(Outcome::Moved)));
}

#[test]
fn deleted_records_are_out_of_range_on_every_replica() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for value in ["a", "b", "c"] {
        cluster.ask(1, produce(value));
    }
    let before = Some(Offset(2));
    let deleted = cluster.ask(1, Op::DeleteRecords { before });
    let log_start_offset = Offset(2);
    assert_eq!(deleted, Some(Ok(Outcome::LogStart { log_start_offset })));
    let too_far = Some(Offset(9));
    let refused = cluster.ask(1, Op::DeleteRecords { before: too_far });
    assert!(matches!(
        refused,
        Some(Err(OpError::OffsetOutOfRange { .. }))
    ));
    cluster.run(SECOND);
    for number in 1..=3 {
        assert_eq!(cluster.status(number).log_start_offset, log_start_offset);
    }
    let below = cluster.ask(1, fetch(1));
    assert!(matches!(below, Some(Err(OpError::OffsetOutOfRange { .. }))));
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.ask(1, produce("a"));
    let to = Some(node(3));
    let begun = cluster.ask(1, Op::Transfer { to });
    assert_eq!(begun, Some(Ok(Outcome::Transferring { to: node(3) })));
    cluster.run(SECOND);
    assert!(cluster.status(3).is_leader);
    assert_eq!(produced(cluster.ask(3, produce("b"))), 1);
}

#[test]
fn an_asker_that_believes_in_another_epoch_is_told() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce("a"));
    let current = cluster.status(1).leader_epoch;
    let asked = |epoch: u32| Op::ListOffset {
        spec: OffsetSpec::Earliest,
        current_leader_epoch: LeaderEpoch::new(epoch),
    };
    let older = cluster.ask(1, asked(current.get() - 1));
    assert!(matches!(
        older,
        Some(Err(OpError::FencedLeaderEpoch { .. }))
    ));
    let newer = cluster.ask(1, asked(current.get() + 1));
    assert!(matches!(
        newer,
        Some(Err(OpError::UnknownLeaderEpoch { .. }))
    ));
    let same = cluster.ask(1, asked(current.get()));
    assert!(matches!(same, Some(Ok(Outcome::Listed { .. }))));
}

#[test]
fn the_owners_entries_are_read_on_every_replica_in_order() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let propose = |text: &str| Op::Propose {
        body: highwater_record::Buffer::from(text.as_bytes().to_vec()),
    };
    let above = LogIndex(2);
    let watcher = cluster.submit(2, Op::WatchIndex { above });
    for text in ["one", "two"] {
        let answer = cluster.ask(1, propose(text));
        assert!(matches!(answer, Some(Ok(Outcome::Proposed { .. }))));
    }
    cluster.run(SECOND);
    assert_eq!(cluster.answer(watcher), Some(Ok(Outcome::Moved)));
    for number in 1..=3 {
        assert_eq!(cluster.owner_entries(number), ["one", "two"]);
    }
}

#[test]
fn frames_that_cannot_be_believed_are_dropped_and_counted() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.hostile_frame(2, 1, vec![0; 200]);
    cluster.hostile_frame(2, 1, Vec::new());
    assert_eq!(cluster.frames_refused(1), 2);
    assert_eq!(produced(cluster.ask(1, produce("a"))), 0);
}

#[test]
fn a_replica_that_starts_again_has_what_it_had() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce_as(7, 0));
    cluster.ask(1, produce_as(7, 1));
    let before: ReplicaStatus = cluster.status(1);
    cluster.restart(1);
    cluster.run(SECOND);
    let after = cluster.status(1);
    assert_eq!(after.log_end_offset, before.log_end_offset);
    assert!(after.leader_epoch > before.leader_epoch);
    // The producers are known again, before anything new is admitted.
    assert_eq!(produced(cluster.ask(1, produce_as(7, 1))), 1);
    assert_eq!(produced(cluster.ask(1, produce_as(7, 2))), 2);
}

#[test]
fn a_replica_that_has_lost_its_promises_keeps_a_copy_and_helps_nobody_to_lead() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(produced(cluster.ask(1, produce("a"))), 0);
    // Twice: what was lost is not found again by starting again.
    cluster.restart_without_promises(3);
    cluster.restart(3);
    assert_eq!(produced(cluster.ask(1, produce("b"))), 1);
    cluster.run(SECOND);
    assert_eq!(cluster.status(3).log_end_offset, Offset(2));
    cluster.cut(1);
    cluster.run(60 * SECOND);
    for number in 2..=3 {
        assert!(!cluster.status(number).is_leader, "n{number} leads");
    }
}

#[test]
fn a_group_that_is_new_to_a_directory_without_promises_does_not_vote() {
    let mut cluster = Cluster::new(1);
    cluster.run(SECOND);
    assert!(cluster.status(1).is_leader, "it is alone, and needs nobody");
    let mut cluster = Cluster::new(1);
    cluster.restart_without_promises(1);
    cluster.run(20 * SECOND);
    assert!(!cluster.status(1).is_leader);
}

#[test]
fn a_dropped_group_answers_what_waits_and_is_gone() {
    let mut cluster = Cluster::new(1);
    cluster.ask(1, produce("a"));
    let watcher = cluster.submit(1, Op::WatchOffset { above: Offset(9) });
    cluster.drop_group();
    assert_eq!(cluster.answer(watcher), Some(Ok(Outcome::Moved)));
    let gone = cluster.ask(1, produce("b"));
    assert_eq!(gone, Some(Err(OpError::UnknownGroup)));
}

#[test]
fn what_waits_to_be_appended_is_bounded_and_the_rest_is_refused() {
    const MIB: usize = 1 << 20;
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.drop_appends(true);
    let large = "x".repeat(MIB - 1_000);
    let tickets: Vec<Ticket> = (0..48)
        .map(|_| cluster.submit(1, produce(&large)))
        .collect();
    let is_refused = |ticket: &&Ticket| match cluster.answer(**ticket) {
        None => false,
        Some(Err(OpError::Busy(_))) => true,
        other => panic!("{other:?}"),
    };
    // 16 MiB are proposed, 16 MiB wait to be.
    let refused = tickets.iter().filter(is_refused).count();
    assert!((14..=16).contains(&refused), "{refused} are refused");
    cluster.drop_appends(false);
    cluster.run(Duration::from_secs(5));
    let is_done = |ticket: &&Ticket| matches!(cluster.answer(**ticket), Some(Ok(_)));
    assert_eq!(tickets.iter().filter(is_done).count() + refused, 48);
}

#[cfg(feature = "mutants")]
#[test]
fn planted_a_queue_has_no_bound() {
    crate::mutants::is_found(
        crate::mutants::Mutant::QueueUnbounded,
        what_waits_to_be_appended_is_bounded_and_the_rest_is_refused,
    );
}

//! Groups that are idle: their beats are repeated by number, and mean the same.

use std::time::Duration;

use highwater_consensus::{BeatRound, BeatRow, EntryId, LogIndex, Message, Term};

use super::cluster::{Cluster, GROUP};
use super::{SECOND, produce, produced};
use crate::ops::{Op, Outcome};
use crate::peer::{BeatRepeat, Beats, Section};
use crate::shard::Timing;

/// Three nodes, the first of which leads the group, idle for some beats.
fn idle() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(produced(cluster.ask(1, produce("a"))), 0);
    cluster.run(3 * SECOND);
    cluster
}

fn rows_sent(cluster: &Cluster) -> u64 {
    cluster.report(1).shard.beat_rows_sent
}

fn repeats(cluster: &Cluster, number: u32) -> u64 {
    cluster.report(number).shard.repeats_heard
}

fn leaderships(cluster: &Cluster) -> u64 {
    let of = |number| cluster.report(number).partitions.leaderships;
    (1..=3).map(of).sum()
}

#[test]
fn an_idle_group_sends_no_row_and_keeps_its_leader() {
    let mut cluster = idle();
    let rows = rows_sent(&cluster);
    cluster.run(60 * SECOND);
    assert_eq!(rows_sent(&cluster), rows);
    for number in [2, 3] {
        assert!(repeats(&cluster, number) > 400);
        assert_eq!(cluster.report(number).shard.repeat_exceptions, 0);
    }
    assert!(cluster.status(1).is_leader);
    assert_eq!(leaderships(&cluster), 1);
}

#[test]
fn what_is_written_is_committed_everywhere_and_then_stands_again() {
    let mut cluster = idle();
    assert_eq!(produced(cluster.ask(1, produce("b"))), 1);
    cluster.run(SECOND);
    let ends = (1..=3).map(|number| cluster.status(number).high_watermark.0);
    assert_eq!(ends.collect::<Vec<u64>>(), [2, 2, 2]);
    cluster.run(2 * SECOND);
    let rows = rows_sent(&cluster);
    cluster.run(5 * SECOND);
    assert_eq!(rows_sent(&cluster), rows);
}

/// What was repeated before it began says nothing to a read.
#[test]
fn a_read_of_an_idle_group_waits_for_rows_of_its_own() {
    let mut cluster = idle();
    let rows = rows_sent(&cluster);
    let barrier = cluster.ask(1, Op::Barrier);
    assert!(matches!(barrier, Some(Ok(Outcome::Barrier { .. }))));
    assert!(rows_sent(&cluster) >= rows + 2);
    cluster.cut(1);
    let barrier = cluster.submit(1, Op::Barrier);
    cluster.run(Duration::from_millis(500));
    assert_eq!(cluster.answer(barrier), None);
}

#[test]
fn a_leader_that_falls_silent_is_followed_by_another_in_time() {
    let mut cluster = idle();
    cluster.cut(1);
    let timing = Timing::default();
    cluster.run(timing.election_timeout_min - timing.heartbeat_interval * 2);
    assert_eq!(leaderships(&cluster), 1, "nobody gives it up too early");
    cluster.run(timing.election_timeout_max + timing.heartbeat_interval * 2);
    assert_eq!(leaderships(&cluster), 2);
    assert!(!cluster.status(1).is_leader, "it hears no quorum either");
    assert!(cluster.report(2).shard.repeats_missed > 0);
}

#[test]
fn a_follower_that_let_go_says_so_and_is_sent_rows() {
    let mut cluster = idle();
    cluster.cut(3);
    cluster.run(Duration::from_millis(800));
    cluster.mend(3);
    cluster.run(3 * SECOND);
    assert!(cluster.report(3).shard.repeats_unknown > 0);
    assert_eq!(cluster.status(3).leader, Some(super::node(1)));
    let (rows, heard) = (rows_sent(&cluster), repeats(&cluster, 3));
    cluster.run(3 * SECOND);
    assert_eq!(rows_sent(&cluster), rows);
    assert!(repeats(&cluster, 3) > heard);
    assert_eq!(leaderships(&cluster), 1);
}

#[test]
fn a_follower_that_starts_anew_begins_with_rows() {
    let mut cluster = idle();
    cluster.restart(3);
    cluster.run(3 * SECOND);
    assert_eq!(cluster.status(3).leader, Some(super::node(1)));
    let rows = rows_sent(&cluster);
    cluster.run(3 * SECOND);
    assert_eq!(rows_sent(&cluster), rows);
    assert_eq!(leaderships(&cluster), 1);
}

fn campaign(term: u32) -> Section {
    let message = Message::Vote {
        term: Term::new(term).unwrap(),
        last: EntryId {
            index: LogIndex(99),
            term: Term::new(1).unwrap(),
        },
        transfer: true,
    };
    Section::Message {
        group: GROUP,
        message,
    }
}

/// The vote and the beat come in the same turn, the vote first.
#[test]
fn who_has_just_voted_for_another_confirms_nothing() {
    let mut cluster = idle();
    let term = cluster.status(1).leader_epoch.get();
    cluster.forge_before_beats(3, 2, &campaign(term + 1));
    assert_eq!(cluster.report(2).shard.repeat_exceptions, 1);
    assert!(!cluster.status(1).is_leader, "it hears of the higher term");
}

/// It hears of a higher term, of which the others know nothing: they are to miss it.
#[test]
fn who_leads_no_more_is_repeated_no_more() {
    let mut cluster = idle();
    let term = cluster.status(1).leader_epoch.get() + 1;
    let message = Message::VoteReply {
        term: Term::new(term).unwrap(),
        granted: false,
    };
    let group = GROUP;
    cluster.forge(3, 1, &Section::Message { group, message });
    assert!(!cluster.status(1).is_leader);
    assert_eq!(cluster.status(2).leader, Some(super::node(1)));
    cluster.run(5 * SECOND);
    assert_eq!(leaderships(&cluster), 2);
}

#[test]
fn what_was_never_kept_is_not_known() {
    let mut cluster = idle();
    let unknown = Section::Repeat(BeatRepeat {
        to_shard: 0,
        round: BeatRound(1_000_000),
        of: BeatRound(999_999),
    });
    cluster.forge(1, 2, &unknown);
    assert_eq!(cluster.report(2).shard.repeats_unknown, 1);
    assert_eq!(cluster.report(2).shard.frames_refused, 0);
    cluster.run(3 * SECOND);
    assert_eq!(leaderships(&cluster), 1);
}

/// An honest leader does not, and who waits for it is to be right all the same.
#[test]
fn a_row_that_comes_twice_in_a_round_is_kept_once() {
    let mut cluster = idle();
    let status = cluster.status(1);
    let row = BeatRow {
        term: Term::new(status.leader_epoch.get()).unwrap(),
        last: status.last_index,
        commit: status.commit_index,
    };
    let round = BeatRound(1_000_000);
    let twice = Section::Beats(Beats {
        round,
        rows: vec![(GROUP, row); 2],
        places: Vec::new(),
        is_kept: true,
    });
    cluster.forge(1, 2, &twice);
    cluster.cut(1);
    for again in 1..20 {
        cluster.run(SECOND / 10);
        let repeat = Section::Repeat(BeatRepeat {
            to_shard: 0,
            round: BeatRound(round.0 + again),
            of: round,
        });
        cluster.forge(1, 2, &repeat);
    }
    assert_eq!(cluster.report(2).shard.repeats_unknown, 0);
    assert_eq!(cluster.status(2).leader, Some(super::node(1)));
    cluster.run(5 * SECOND);
    assert_eq!(leaderships(&cluster), 2);
}

#[test]
fn who_has_no_such_group_any_more_is_asked_in_vain_and_the_others_do() {
    let mut cluster = idle();
    cluster.drop_group_on(3);
    cluster.run(5 * SECOND);
    assert!(cluster.report(3).shard.repeat_exceptions > 0);
    assert!(cluster.status(1).is_leader);
    cluster.cut(2);
    cluster.run(5 * SECOND);
    assert!(!cluster.status(1).is_leader, "3 vouches for nobody");
}

/// Twenty groups, of which some are written to now and then, some are not.
#[test]
fn groups_that_are_busy_keep_none_of_the_others_awake() {
    let mut cluster = Cluster::new(3);
    let others: Vec<_> = (10..30).map(crate::ops::GroupId).collect();
    for &group in &others {
        cluster.host_everywhere(group);
        cluster.submit_to(1, group, Op::Barrier);
    }
    cluster.elect(1);
    cluster.run(5 * SECOND);
    let rows = rows_sent(&cluster);
    for _ in 0..50 {
        cluster.submit(1, produce("busy"));
        cluster.run(SECOND / 10);
    }
    // Two followers, some 34 beats, a row for each and one more while it is on its way.
    let sent = rows_sent(&cluster) - rows;
    assert!((34..=200).contains(&sent), "{sent}");
    // Each of them in turn, so that all go from part to part.
    for &group in others.iter().cycle().take(60) {
        cluster.submit_to(1, group, produce("now and then"));
        cluster.run(SECOND / 5);
    }
    cluster.run(3 * SECOND);
    let rows = rows_sent(&cluster);
    cluster.run(3 * SECOND);
    assert_eq!(rows_sent(&cluster), rows);
    let elected = u64::try_from(others.len()).unwrap() + 1;
    assert_eq!(leaderships(&cluster), elected);
    // And with the leader all of them are lost, and found.
    cluster.cut(1);
    cluster.run(5 * SECOND);
    assert_eq!(leaderships(&cluster), 2 * elected);
}

#[cfg(feature = "mutants")]
#[test]
fn planted_bugs_of_repeated_beats_are_found() {
    use crate::mutants::{Mutant, is_found};

    is_found(
        Mutant::KeptForEver,
        a_leader_that_falls_silent_is_followed_by_another_in_time,
    );
    is_found(
        Mutant::UnsteppedRowsStand,
        who_has_just_voted_for_another_confirms_nothing,
    );
    is_found(
        Mutant::LostRowsRepeated,
        who_leads_no_more_is_repeated_no_more,
    );
    is_found(
        Mutant::UnheardLeaderUnwatched,
        a_leader_that_falls_silent_is_followed_by_another_in_time,
    );
}

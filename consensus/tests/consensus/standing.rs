//! Rows that stand, and are repeated without a call.

use std::time::Duration;

use highwater_consensus::{BeatRow, Message, RoleKind};

use crate::suite::cluster::{Cluster, id, index, node, term};

const LONG: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_millis(150);

fn row(cluster: &Cluster) -> Option<BeatRow> {
    cluster.raft(1).standing_row(node(2))
}

fn elected() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.beat(node(1));
    cluster.settle();
    cluster
}

/// The leader's row has been repeated to `n` until now.
fn hear_again(cluster: &mut Cluster, n: u32, row: BeatRow) {
    let session = cluster.sessions[&(node(1), node(n))];
    cluster.call(n, |raft, now| raft.hear_again(now, node(1), session, row));
}

fn confirm_again(cluster: &mut Cluster, by: u32) {
    let session = cluster.sessions[&(node(1), node(by))];
    let current = cluster.raft(1).term();
    cluster.call(1, |raft, now| {
        raft.confirm_again(now, node(by), session, current);
    });
}

#[test]
fn a_row_stands_while_there_is_nothing_else_to_say() {
    let mut cluster = elected();
    let first = row(&cluster).expect("all is committed and known to be");
    assert_eq!((first.last, first.commit), (index(1), index(1)));
    assert_eq!(cluster.raft(2).standing_row(node(1)), None, "it follows");

    cluster.propose(1).unwrap();
    assert_eq!(row(&cluster), None, "an entry is on its way");
    cluster.settle();
    assert_eq!(row(&cluster).unwrap().last, index(2));

    cluster.read(1).unwrap();
    assert_eq!(row(&cluster), None, "a read waits for beats");
    cluster.settle();
    assert!(row(&cluster).is_some());

    cluster.disconnect(node(1), node(2));
    assert_eq!(row(&cluster), None, "there is no link");
    cluster.connect(node(1), node(2));
    assert_eq!(
        row(&cluster),
        None,
        "it may have lost what it had not synced"
    );
    cluster.run_for(1_000);
    assert!(row(&cluster).is_some());

    cluster.packets.clear();
    cluster.call(1, |raft, now| {
        raft.transfer_leadership(now, node(3)).unwrap()
    });
    assert_eq!(row(&cluster), None, "leadership is on its way");
}

#[test]
fn a_row_stands_where_it_was_heard_and_has_committed_all_that_it_says() {
    let mut cluster = elected();
    let row = row(&cluster).unwrap();
    let session = cluster.sessions[&(node(1), node(2))];
    let stands = |cluster: &Cluster, row| cluster.raft(2).stands(node(1), session, row);
    assert!(stands(&cluster, row));
    let beyond = BeatRow {
        commit: index(2),
        ..row
    };
    assert!(!stands(&cluster, beyond), "it would commit");
    let later = BeatRow {
        term: term(2),
        ..row
    };
    assert!(!stands(&cluster, later), "it would raise the term");
    assert!(!cluster.raft(2).stands(node(3), session, row), "of another");
    cluster.disconnect(node(1), node(2));
    assert!(!stands(&cluster, row), "its session is over");
}

#[test]
fn who_has_heard_the_leader_again_waits_as_if_it_had_been_called() {
    let mut cluster = elected();
    let row = row(&cluster).unwrap();
    cluster.now += LONG;
    hear_again(&mut cluster, 2, row);
    cluster.now += BEAT;
    // Late, and of no effect: the timer has moved.
    cluster.call(2, |raft, now| raft.handle_timeout(now));
    assert_eq!(cluster.raft(2).role(), RoleKind::Follower);
    let least = cluster.now - BEAT + Duration::from_millis(750);
    assert!(cluster.raft(2).next_timeout().unwrap() >= least);
    // And it helps nobody else to lead.
    let pre_vote = Message::PreVote {
        term: term(2),
        last: id(1, 1),
    };
    cluster.inject(3, 2, pre_vote).unwrap();
    let refused = Message::PreVoteReply {
        term: term(1),
        granted: false,
    };
    assert_eq!(cluster.messages(2, 3), [refused]);
}

#[test]
fn who_has_gone_on_to_another_term_hears_an_old_row_no_more() {
    let mut cluster = elected();
    let row = row(&cluster).unwrap();
    cluster.isolate(1);
    cluster.now += LONG;
    cluster.campaign(3);
    cluster.settle();
    assert_eq!(cluster.raft(3).role(), RoleKind::Leader);
    let before = cluster.raft(2).next_timeout();
    cluster.now += BEAT;
    hear_again(&mut cluster, 2, row);
    assert_eq!(cluster.raft(2).next_timeout(), before);
    assert_eq!(cluster.raft(2).leader(), Some(node(3)));
}

#[test]
fn a_leader_whose_rows_are_confirmed_again_goes_on_and_else_steps_down() {
    let mut cluster = elected();
    cluster.now += LONG;
    confirm_again(&mut cluster, 2);
    cluster.call(1, |raft, now| raft.handle_timeout(now));
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    let expected = cluster.now + Duration::from_millis(1_500);
    assert_eq!(cluster.raft(1).next_timeout(), Some(expected));
    cluster.now += LONG;
    cluster.call(1, |raft, now| raft.handle_timeout(now));
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
}

#[test]
pub(crate) fn what_was_confirmed_of_another_term_or_session_vouches_for_nobody() {
    let mut cluster = elected();
    let session = cluster.sessions[&(node(1), node(2))];
    cluster.fall_silent();
    cluster.elect(3);
    cluster.fall_silent();
    cluster.elect(1);
    let current = cluster.raft(1).term();
    cluster.now += LONG;
    cluster.call(1, |raft, now| {
        raft.confirm_again(now, node(2), session, term(1));
    });
    cluster.connect(node(1), node(2));
    cluster.packets.clear();
    cluster.call(1, |raft, now| {
        raft.confirm_again(now, node(2), session, current);
        raft.handle_timeout(now);
    });
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
}

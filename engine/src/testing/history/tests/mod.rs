//! A bad history for every anomaly, and good ones that are spoilt in one place.

mod clean;
mod spoilt;

use super::*;

fn t() -> Partition {
    Partition::new("t", 0)
}

/// A history of three records that were acknowledged at 0, 1 and 2, and read on two nodes.
struct Story(History);

impl Story {
    fn new() -> Story {
        Story(History::default())
    }

    fn with_records(count: u64) -> Story {
        let mut story = Story::new();
        for value in 0..count {
            story.sent(1, &[100 + value], i64::try_from(value).unwrap());
        }
        story
    }

    fn does(&mut self, process: u64, question: Action, answer: Action) {
        let open = self.0.invoke(process, question);
        self.0.ok(open, answer);
    }

    fn sent(&mut self, process: u64, values: &[u64], base: i64) {
        self.does(
            process,
            Action::send(&t(), values),
            Action::sent(&t(), values, base),
        );
    }

    fn polled(&mut self, process: u64, from: i64, records: &[(i64, u64)]) {
        self.does(
            process,
            Action::poll(&t(), from),
            Action::polled(&t(), from, records),
        );
    }

    fn listed(&mut self, latest: i64) {
        let of = |latest| Action::ListOffsets {
            partition: t(),
            latest,
        };
        self.does(9, of(None), of(Some(latest)));
    }

    fn finally(&mut self, node: u32, start: i64, records: &[(i64, u64)]) {
        let answer = Action::final_answer(&t(), node, start, records);
        self.does(90, Action::final_read(&t(), node), answer);
    }

    /// What is found, if it is this anomaly and no other.
    #[track_caller]
    fn shows(&self, kind: AnomalyKind) {
        let verdict = check(&self.0, Rules::default());
        let kinds: Vec<_> = verdict.counts.keys().copied().collect();
        assert_eq!(kinds, [kind], "{:#?}", verdict.anomalies);
        assert!(verdict.anomalies.iter().all(|it| !it.events.is_empty()));
    }

    #[track_caller]
    fn is_clean(&self) {
        let verdict = check(&self.0, Rules::default());
        assert!(verdict.is_clean(), "{:#?}", verdict.anomalies);
    }
}

const THREE: [(i64, u64); 3] = [(0, 100), (1, 101), (2, 102)];

#[test]
fn what_was_acknowledged_and_is_everywhere_is_clean() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    story.listed(3);
    story.finally(1, 0, &THREE);
    story.finally(2, 0, &THREE);
    story.is_clean();
}

#[test]
fn lost_write() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &[(0, 100)]);
    story.polled(3, 2, &[(2, 102)]);
    story.shows(AnomalyKind::LostWrite);
}

#[test]
fn lost_write_of_a_batch_of_which_another_record_was_read() {
    let mut story = Story::new();
    let send = story.0.invoke(1, Action::send(&t(), &[1, 2]));
    story.polled(2, 0, &[(0, 1)]);
    story.0.info(send, Action::send(&t(), &[1, 2]));
    story.shows(AnomalyKind::LostWrite);
}

#[test]
fn unseen() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE[..2]);
    story.shows(AnomalyKind::Unseen);
}

#[test]
fn aborted_read() {
    let mut story = Story::new();
    let send = story.0.invoke(1, Action::send(&t(), &[1]));
    story.0.fail(send, Action::send(&t(), &[1]));
    story.polled(2, 0, &[(0, 1)]);
    story.shows(AnomalyKind::AbortedRead);
}

#[test]
fn phantom() {
    let mut story = Story::new();
    story.polled(2, 0, &[(0, 7)]);
    story.shows(AnomalyKind::Phantom);
}

#[test]
fn inconsistent_offsets() {
    let mut story = Story::new();
    for value in [1, 2] {
        let send = story.0.invoke(value, Action::send(&t(), &[value]));
        story.0.info(send, Action::send(&t(), &[value]));
        story.polled(10 + value, 0, &[(0, value)]);
    }
    story.shows(AnomalyKind::InconsistentOffsets);
}

#[test]
fn duplicate() {
    let mut story = Story::with_records(1);
    story.polled(2, 0, &[(0, 100), (1, 100)]);
    story.shows(AnomalyKind::Duplicate);
}

#[test]
fn a_duplicate_of_a_plain_producer_is_only_counted() {
    let mut story = Story::new();
    let action = |base_offset| Action::Send {
        partition: t(),
        values: vec![1],
        idempotent: false,
        base_offset,
    };
    story.does(1, action(None), action(Some(1)));
    story.polled(2, 0, &[(0, 1), (1, 1)]);
    story.is_clean();
    let verdict = check(&story.0, Rules::default());
    assert_eq!(verdict.allowed[&AnomalyKind::Duplicate], 1);
}

#[test]
fn poll_skip() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    story.polled(3, 0, &THREE[..1]);
    story.polled(3, 1, &THREE[2..]);
    story.shows(AnomalyKind::PollSkip);
}

#[test]
fn a_consumer_that_is_assigned_anew_skips_nothing() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    story.polled(3, 0, &THREE[..1]);
    let assign = Action::Assign {
        partition: t(),
        offset: 2,
    };
    story.does(3, assign.clone(), assign);
    story.polled(3, 2, &THREE[2..]);
    story.is_clean();
}

#[test]
fn int_poll_skip() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    story.polled(3, 0, &[THREE[0], THREE[2]]);
    story.shows(AnomalyKind::IntPollSkip);
}

#[test]
fn nonmonotonic_poll() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    story.polled(2, 3, &THREE[1..2]);
    story.shows(AnomalyKind::NonmonotonicPoll);
}

#[test]
fn int_nonmonotonic_poll() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &[THREE[0], THREE[1], THREE[2], THREE[1]]);
    story.shows(AnomalyKind::IntNonmonotonicPoll);
}

#[test]
fn nonmonotonic_send() {
    let mut story = Story::new();
    story.sent(1, &[1], 1);
    story.sent(1, &[2], 0);
    story.polled(2, 0, &[(0, 2), (1, 1)]);
    story.shows(AnomalyKind::NonmonotonicSend);
}

#[test]
fn int_nonmonotonic_send() {
    let mut story = Story::new();
    let send = story.0.invoke(1, Action::send(&t(), &[1, 2]));
    story.0.info(send, Action::send(&t(), &[1, 2]));
    story.polled(2, 0, &[(0, 2), (1, 1)]);
    story.shows(AnomalyKind::IntNonmonotonicSend);
}

#[test]
fn int_send_skip() {
    let mut story = Story::new();
    let send = story.0.invoke(1, Action::send(&t(), &[1, 2]));
    story.0.info(send, Action::send(&t(), &[1, 2]));
    story.sent(3, &[3], 1);
    story.polled(2, 0, &[(0, 1), (1, 3), (2, 2)]);
    story.shows(AnomalyKind::IntSendSkip);
}

#[test]
fn stale_latest() {
    let mut story = Story::with_records(3);
    story.listed(2);
    story.polled(2, 0, &THREE);
    story.shows(AnomalyKind::StaleLatest);
}

#[test]
fn an_end_that_goes_back_is_stale() {
    let mut story = Story::new();
    let send = story.0.invoke(1, Action::send(&t(), &[1, 2]));
    story.listed(2);
    story.listed(1);
    story.0.ok(send, Action::sent(&t(), &[1, 2], 0));
    story.polled(2, 0, &[(0, 1), (1, 2)]);
    story.shows(AnomalyKind::StaleLatest);
}

#[test]
fn premature_latest() {
    let mut story = Story::new();
    story.listed(1);
    story.sent(1, &[1], 0);
    story.polled(2, 0, &[(0, 1)]);
    story.shows(AnomalyKind::PrematureLatest);
}

#[test]
fn an_end_behind_all_that_there_ever_was_is_premature() {
    let mut story = Story::with_records(3);
    story.listed(4);
    story.finally(1, 0, &THREE);
    story.shows(AnomalyKind::PrematureLatest);
}

#[test]
fn stale_read() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &[]);
    story.polled(2, 0, &THREE);
    story.shows(AnomalyKind::StaleRead);
}

#[test]
fn an_answer_that_says_that_there_is_more_is_not_stale() {
    for (high_watermark, is_clean) in [(3, true), (1, false)] {
        let mut story = Story::with_records(3);
        let answer = |records, high_watermark| Action::Poll {
            partition: t(),
            from: 0,
            leader: true,
            records,
            high_watermark,
            log_start: None,
        };
        let first = ReadRecord {
            offset: 0,
            value: 100,
        };
        story.does(
            2,
            answer(Vec::new(), None),
            answer(vec![first], Some(high_watermark)),
        );
        story.polled(3, 0, &THREE);
        match is_clean {
            true => story.is_clean(),
            false => story.shows(AnomalyKind::StaleRead),
        }
    }
}

#[test]
fn lost_on_node_prefix() {
    let mut story = Story::with_records(3);
    story.finally(1, 0, &THREE);
    story.finally(2, 0, &THREE[1..]);
    story.shows(AnomalyKind::LostOnNodePrefix);
}

#[test]
fn lost_on_node_middle() {
    let mut story = Story::with_records(3);
    story.finally(1, 0, &THREE);
    story.finally(2, 0, &[THREE[0], THREE[2]]);
    story.shows(AnomalyKind::LostOnNodeMiddle);
}

#[test]
fn lost_on_node_postfix() {
    for left in [0, 1, 2] {
        let mut story = Story::with_records(3);
        story.finally(1, 0, &THREE);
        story.finally(2, 0, &THREE[..left]);
        story.shows(AnomalyKind::LostOnNodePostfix);
    }
}

/// The end of a final read that refuses a range.
fn refusal(node: u32, records: &[(i64, u64)], range: (i64, i64)) -> Action {
    let mut answer = Action::final_answer(&t(), node, 0, records);
    if let Action::FinalRead { refused, .. } = &mut answer {
        refused.push(range);
    }
    answer
}

#[test]
fn what_a_replica_refuses_to_tell_is_not_lost() {
    let mut story = Story::with_records(3);
    story.does(
        90,
        Action::final_read(&t(), 1),
        refusal(1, &[(0, 100), (2, 102)], (1, 2)),
    );
    story.is_clean();
    story.does(
        91,
        Action::final_read(&t(), 2),
        refusal(2, &[(0, 100)], (1, i64::MAX)),
    );
    story.is_clean();
}

#[test]
fn who_refuses_one_record_excuses_neither_another_nor_another_replica() {
    let mut story = Story::with_records(3);
    let question = Action::final_read(&t(), 1);
    story.does(90, question, refusal(1, &[(0, 100)], (1, 2)));
    let verdict = check(&story.0, Rules::default());
    let kinds = [AnomalyKind::Unseen, AnomalyKind::LostOnNodePostfix];
    assert!(verdict.counts.keys().eq(&kinds), "{:#?}", verdict.anomalies);
    let mut story = Story::with_records(3);
    story.finally(1, 0, &[(0, 100), (1, 101)]);
    let question = Action::final_read(&t(), 2);
    story.does(90, question, refusal(2, &[(0, 100), (1, 101)], (2, 3)));
    story.shows(AnomalyKind::LostOnNodePostfix);
}

#[test]
fn hole() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.sent(1, &[2], 2);
    story.finally(1, 0, &[(0, 1), (2, 2)]);
    story.shows(AnomalyKind::Hole);
}

#[test]
fn unasked_delete() {
    let mut story = Story::with_records(3);
    story.finally(1, 0, &THREE);
    story.finally(2, 2, &THREE[2..]);
    story.shows(AnomalyKind::UnaskedDelete);
}

#[test]
fn what_was_asked_to_be_deleted_may_be_gone_on_one_replica_and_not_on_another() {
    let mut story = Story::with_records(3);
    let delete = Action::DeleteRecords {
        partition: t(),
        before: 2,
    };
    story.does(5, delete.clone(), delete);
    story.finally(1, 0, &THREE);
    story.finally(2, 2, &THREE[2..]);
    story.is_clean();
}

#[test]
fn offset_reset() {
    let mut story = Story::with_records(3);
    story.polled(2, 0, &THREE);
    let open = story.0.invoke(2, Action::poll(&t(), 3));
    let refused = Action::Poll {
        partition: t(),
        from: 3,
        leader: true,
        records: Vec::new(),
        high_watermark: None,
        log_start: Some(1),
    };
    story.0.fail(open, refused);
    story.shows(AnomalyKind::OffsetReset);
}

fn commit(offset: i64) -> Action {
    Action::CommitOffset {
        group: "g".into(),
        partition: t(),
        offset,
    }
}

fn committed(offset: Option<i64>) -> Action {
    Action::FetchOffset {
        group: "g".into(),
        partition: t(),
        offset,
    }
}

#[test]
fn group_regress() {
    for wrong in [None, Some(1), Some(3)] {
        let mut story = Story::new();
        story.does(1, commit(1), commit(1));
        story.does(1, commit(2), commit(2));
        story.does(2, committed(None), committed(wrong));
        story.shows(AnomalyKind::GroupRegress);
    }
}

#[test]
fn a_position_that_may_have_been_stored_may_be_read_or_not() {
    for right in [Some(1), Some(2)] {
        let mut story = Story::new();
        story.does(1, commit(1), commit(1));
        let open = story.0.invoke(1, commit(2));
        story.does(2, committed(None), committed(right));
        story.0.info(open, commit(2));
        story.does(2, committed(None), committed(right));
        story.is_clean();
    }
}

#[test]
fn malformed() {
    let mut story = Story::new();
    let _open = story.0.invoke(1, Action::send(&t(), &[1]));
    story.shows(AnomalyKind::Malformed);
}

#[test]
fn every_anomaly_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> =
        AnomalyKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), AnomalyKind::ALL.len());
}

#[test]
fn a_deleted_topic_has_lost_nothing() {
    let mut story = Story::with_records(3);
    let delete = Action::DeleteTopic { topic: "t".into() };
    story.does(5, delete.clone(), delete);
    story.is_clean();
}

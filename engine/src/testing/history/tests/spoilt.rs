//! Clean histories that are spoilt in one place: each must be flagged.

use fastrand::Rng;

use super::super::*;
use super::clean;

const SEEDS: u64 = 500;

/// Spoils a history; false if it has nothing of the kind.
type Spoil = fn(&mut Rng, &mut Vec<Event>) -> bool;

#[track_caller]
fn all_are_flagged(spoil: Spoil) {
    let mut spoilt = 0;
    for seed in 0..SEEDS {
        let mut history = clean::history(seed % 50);
        let mut rng = Rng::with_seed(seed);
        if !spoil(&mut rng, &mut history.events) {
            continue;
        }
        spoilt += 1;
        let verdict = check(&history, Rules::default());
        assert!(!verdict.is_clean(), "seed {seed} went unseen");
    }
    assert!(spoilt > SEEDS / 2, "{spoilt} of {SEEDS} were spoilt");
}

fn any(rng: &mut Rng, events: &[Event], is_meant: fn(&Event) -> bool) -> Option<usize> {
    let all: Vec<usize> = (0..events.len())
        .filter(|at| is_meant(&events[*at]))
        .collect();
    rng.choice(all)
}

/// The records that a replica gave at the end.
fn final_records(event: &mut Event) -> Option<&mut Vec<ReadRecord>> {
    match &mut event.action {
        Action::FinalRead { records, .. } if event.phase == Phase::Ok => Some(records),
        _ => None,
    }
}

fn is_final(event: &Event) -> bool {
    final_records(&mut event.clone()).is_some_and(|records| records.len() > 1)
}

/// Records that a consumer was given, two at least.
fn is_poll(event: &Event) -> bool {
    matches!(&event.action, Action::Poll { records, .. } if records.len() > 1)
}

fn polled(event: &mut Event) -> &mut Vec<ReadRecord> {
    match &mut event.action {
        Action::Poll { records, .. } => records,
        _ => unreachable!("only polls are chosen"),
    }
}

#[test]
fn an_event_dropped() {
    all_are_flagged(|rng, events| {
        let at = rng.usize(..events.len());
        events.remove(at);
        true
    });
}

#[test]
fn an_event_doubled() {
    all_are_flagged(|rng, events| {
        let at = rng.usize(..events.len());
        let to = rng.usize(at..=events.len());
        events.insert(to, events[at].clone());
        true
    });
}

#[test]
fn the_ends_of_an_operation_swapped() {
    all_are_flagged(|rng, events| {
        let at = rng.usize(..events.len());
        let op = events[at].op;
        let other = events.iter().position(|event| event.op == op).unwrap();
        let last = events.iter().rposition(|event| event.op == op).unwrap();
        events.swap(other, last);
        true
    });
}

#[test]
fn the_answers_to_two_sends_swapped() {
    all_are_flagged(|rng, events| {
        let is_ack =
            |event: &Event| event.phase == Phase::Ok && matches!(event.action, Action::Send { .. });
        let one = any(rng, events, is_ack).unwrap();
        let two = any(rng, events, is_ack).unwrap();
        let (first, second) = (events[one].action.clone(), events[two].action.clone());
        events[one].action = second;
        events[two].action = first;
        one != two
    });
}

#[test]
fn an_offset_altered() {
    all_are_flagged(|rng, events| {
        let is_ack =
            |event: &Event| event.phase == Phase::Ok && matches!(event.action, Action::Send { .. });
        let at = any(rng, events, is_ack).unwrap();
        let Action::Send { base_offset, .. } = &mut events[at].action else {
            unreachable!("only sends are chosen");
        };
        let offset = base_offset.as_mut().unwrap();
        *offset += if *offset > 0 && rng.bool() { -1 } else { 1 };
        true
    });
}

#[test]
fn an_acknowledgement_made_a_refusal_and_a_refusal_an_acknowledgement() {
    all_are_flagged(|rng, events| {
        let is_told = |event: &Event| {
            matches!(event.phase, Phase::Ok | Phase::Fail)
                && matches!(event.action, Action::Send { .. })
        };
        let at = any(rng, events, is_told).unwrap();
        let event = &mut events[at];
        let Action::Send { base_offset, .. } = &mut event.action else {
            unreachable!("only sends are chosen");
        };
        (event.phase, *base_offset) = match event.phase {
            Phase::Ok => (Phase::Fail, None),
            _ => (Phase::Ok, Some(5)),
        };
        true
    });
}

#[test]
fn a_record_of_a_replica_dropped() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_final) else {
            return false;
        };
        let records = final_records(&mut events[at]).unwrap();
        let at = rng.usize(..records.len());
        records.remove(at);
        true
    });
}

#[test]
fn a_record_of_a_replica_doubled() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_final) else {
            return false;
        };
        let records = final_records(&mut events[at]).unwrap();
        let at = rng.usize(..records.len());
        let mut again = records[at];
        // At its own offset, or where the next one was.
        again.offset += rng.i64(0..2);
        records.insert(at + 1, again);
        true
    });
}

#[test]
fn two_records_of_a_replica_swapped() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_final) else {
            return false;
        };
        let records = final_records(&mut events[at]).unwrap();
        let at = rng.usize(1..records.len());
        if rng.bool() {
            records.swap(at - 1, at);
        } else {
            let value = records[at].value;
            records[at].value = std::mem::replace(&mut records[at - 1].value, value);
        }
        true
    });
}

#[test]
fn a_value_of_a_replica_altered() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_final) else {
            return false;
        };
        let records = final_records(&mut events[at]).unwrap();
        let at = rng.usize(..records.len());
        records[at].value ^= 1 << rng.u32(..20);
        true
    });
}

#[test]
fn a_record_of_a_poll_dropped() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_poll) else {
            return false;
        };
        let records = polled(&mut events[at]);
        // The last one may be given by a later poll, or never: that is no anomaly.
        let at = rng.usize(..records.len() - 1);
        records.remove(at);
        true
    });
}

#[test]
fn two_records_of_a_poll_swapped() {
    all_are_flagged(|rng, events| {
        let Some(at) = any(rng, events, is_poll) else {
            return false;
        };
        let records = polled(&mut events[at]);
        let at = rng.usize(1..records.len());
        records.swap(at - 1, at);
        true
    });
}

#[test]
fn an_end_of_the_log_altered() {
    all_are_flagged(|rng, events| {
        let is_list = |event: &Event| {
            event.phase == Phase::Ok && matches!(event.action, Action::ListOffsets { .. })
        };
        let Some(at) = any(rng, events, is_list) else {
            return false;
        };
        let Action::ListOffsets { latest, .. } = &mut events[at].action else {
            unreachable!("only these are chosen");
        };
        *latest = Some(1_000_000);
        true
    });
}

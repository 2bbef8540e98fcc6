//! What the controller's log and snapshots hold, the snapshots of producers, and what a group's
//! files and a peer's base have beside entries.

use highwater_engine::controller::{Controller, Record};
use highwater_engine::{GroupState, LogIndex, ProducerCount, ProducerStates};
use highwater_record::Buffer;

use super::memory::{self, SMALL};

/// What is decoded is larger than its bytes by no more than this.
const GROWTH: usize = 32;

/// The first byte says what the others are.
pub(crate) fn check(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    match what % 3 {
        0 => record(bytes),
        1 => snapshot(bytes),
        _ => producers(bytes),
    }
}

fn bound(bytes: &[u8]) -> usize {
    GROWTH * bytes.len() + SMALL
}

/// Applied to an empty state, which must then survive being written.
fn record(bytes: &[u8]) {
    let read = memory::at_most(bound(bytes), "a record", || Record::decode(bytes));
    let Ok(record) = read else { return };
    let again = Record::decode(&record.encode()).expect("what we write, we read");
    assert_eq!(again, record);
    let mut state = Controller::new();
    if state.apply(LogIndex(1), bytes).is_ok() {
        survives(&state);
    }
}

fn snapshot(bytes: &[u8]) {
    let read = memory::at_most(bound(bytes), "a snapshot", || Controller::decode(bytes));
    if let Ok(state) = read {
        survives(&state);
    }
}

fn survives(state: &Controller) {
    let written = state.encode();
    let again = Controller::decode(&written).expect("what we write, we read");
    assert_eq!(again.encode(), written);
}

/// What a footer or a base carries: its parts are read as a replica reads them.
pub(crate) fn group_state(data: &[u8]) {
    let bytes = Buffer::from(data.to_vec());
    let read = memory::at_most(SMALL, "a group's state", || GroupState::decode(&bytes));
    let Ok(state) = read else { return };
    let again = GroupState::decode(&state.encode()).expect("what we write, we read");
    assert_eq!(again, state);
    if !state.producers.is_empty() {
        producers(&state.producers);
    }
    if let Some((_, owner)) = &state.owner {
        snapshot(owner);
    }
}

fn producers(bytes: &[u8]) {
    let read = memory::at_most(bound(bytes), "producers", || {
        ProducerStates::decode(bytes, ProducerCount::default())
    });
    if let Ok(states) = read {
        assert_eq!(states.encode(), bytes);
    }
}

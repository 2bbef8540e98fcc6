//! What the controller's log and snapshots hold, and the snapshots of producers.

use highwater_engine::controller::{Controller, Record};
use highwater_engine::{LogIndex, ProducerCount, ProducerStates};

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

fn producers(bytes: &[u8]) {
    let read = memory::at_most(bound(bytes), "producers", || {
        ProducerStates::decode(bytes, ProducerCount::default())
    });
    if let Ok(states) = read {
        assert_eq!(states.encode(), bytes);
    }
}

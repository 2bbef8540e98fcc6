//! A replica as its disk has it after a start.

use highwater_consensus::{self as consensus, LogIndex};
use std::collections::VecDeque;

use highwater_log::{self as log, EntryKind, RecoveredGroup, Replayed};
use highwater_record::{BatchHeader, Buffer, Offset};

use super::GroupState;
use super::producers::Producers;
use crate::positions::{self, Positions};
use crate::producer_state::ProducerCount;

/// What a partition begins with.
pub(crate) struct Restored {
    pub(crate) raft: consensus::Restored,
    pub(crate) positions: Positions,
    pub(crate) producers: Producers,
    pub(crate) log_start_offset: Offset,
    /// The state of the group's owner and the last entry that it includes.
    pub(crate) owner: Option<(LogIndex, Buffer)>,
    /// Files that are full and wait to be sealed.
    pub(crate) closed: VecDeque<(log::Sequence, log::LogIndex)>,
}

/// Why a replica could not be restored: its disk holds what no version of this program writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    State(#[from] super::state::GroupStateError),
    #[error(transparent)]
    Producers(#[from] crate::producer_state::ProducerSnapshotError),
    #[error("entry {index} is no record batch")]
    Batch { index: u64 },
}

impl Restored {
    /// From what recovery found: the state in the last footer or base, and the entries that
    /// follow it, which say what producers have written since and where each entry ends.
    pub(crate) fn from_log(
        recovered: RecoveredGroup,
        count: ProducerCount,
    ) -> Result<Restored, RestoreError> {
        let state = match &recovered.snapshot {
            Some(snapshot) => GroupState::decode(&snapshot.state)?,
            None => GroupState::default(),
        };
        let mut producers = Producers::restored(state.producers_at, &state.producers, count)?;
        if recovered.quarantine.is_some() {
            producers = producers.with_holes(&state.producers);
        }
        let before = positions::index_from_log(recovered.start.before.index);
        let mut positions = Positions::new(before, recovered.start.offset);
        for entry in &recovered.replay {
            replay(entry, &mut positions, &mut producers)?;
        }
        let last = positions::index_from_log(recovered.last.index);
        positions.skip_to(last, recovered.end_offset);
        let epochs = recovered.epochs.iter().map(|epoch| {
            let first = positions::index_from_log(epoch.first_index);
            (positions::term_from_log(epoch.term), first)
        });
        let raft = consensus::Restored {
            term: positions::term_from_log(recovered.hard_state.term),
            vote: recovered.hard_state.vote.map(positions::node_from_log),
            before: positions::id_from_log(recovered.start.before),
            epochs: epochs.collect(),
            last: positions::index_from_log(recovered.last.index),
            quarantine: quarantine(&recovered),
            // The directory knows, see where the partition is made.
            promises_lost: false,
        };
        Ok(Restored {
            raft,
            positions,
            producers,
            log_start_offset: recovered.log_start_offset,
            owner: state.owner,
            closed: VecDeque::new(),
        })
    }

    /// A replica that has never been written.
    pub(crate) fn new(count: ProducerCount) -> Restored {
        Restored {
            raft: consensus::Restored::default(),
            positions: Positions::new(LogIndex::ZERO, Offset::ZERO),
            producers: Producers::new(count),
            log_start_offset: Offset::ZERO,
            owner: None,
            closed: VecDeque::new(),
        }
    }
}

/// An entry that follows the snapshot. In front of the first one, and where the log has holes,
/// it is not known where each entry ends.
fn replay(
    entry: &Replayed,
    positions: &mut Positions,
    producers: &mut Producers,
) -> Result<(), RestoreError> {
    let index = positions::index_from_log(entry.id.index);
    positions.skip_to(index.previous(), entry.base_offset);
    positions.append_parts(
        entry.id,
        entry.kind,
        entry.base_offset,
        entry.offset_span,
        &entry.front,
    );
    if entry.kind == EntryKind::Data && !mutant!(ProducersNotRebuilt) {
        let header =
            BatchHeader::read(&entry.front).map_err(|_| RestoreError::Batch { index: index.0 })?;
        producers.append(index, entry.base_offset, &header, entry.append_time);
    }
    Ok(())
}

fn quarantine(recovered: &RecoveredGroup) -> consensus::Quarantine {
    match &recovered.quarantine {
        None => consensus::Quarantine::None,
        Some(found) => {
            let first = positions::index_from_log(found.first);
            if found.reaches_end {
                // What was missing may have been replaced since, though the replica has not
                // rejoined: the log ends there now.
                let last = positions::index_from_log(recovered.last.index);
                consensus::Quarantine::ToEnd { first: last.next() }
            } else {
                consensus::Quarantine::Hole { first }
            }
        }
    }
}

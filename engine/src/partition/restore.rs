//! A replica as its disk has it after a start.

use highwater_consensus::{self as consensus, LogIndex};
use highwater_log::EntryKind;
use highwater_record::{BatchHeader, Buffer, Offset};

use super::GroupState;
use super::producers::Producers;
use crate::positions::{self, Positions};
use crate::producer_state::ProducerCount;
use crate::store_stub::RecoveredGroup;

/// What a partition begins with.
pub(crate) struct Restored {
    pub(crate) raft: consensus::Restored,
    pub(crate) positions: Positions,
    pub(crate) producers: Producers,
    pub(crate) log_start_offset: Offset,
    /// The state of the group's owner and the last entry that it includes.
    pub(crate) owner: Option<(LogIndex, Buffer)>,
}

/// Why a replica could not be restored: its disk holds what no version of this program writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    State(#[from] super::state::StateError),
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
        let mut positions = Positions::new(
            positions::index_from_log(recovered.start.before.index),
            recovered.start.offset,
        );
        if let Some(first) = recovered.replay.first() {
            let before = positions::index_from_log(first.id.index.before());
            positions.skip_to(before, first.base_offset);
        } else {
            let last = positions::index_from_log(recovered.last.index);
            positions.skip_to(last, recovered.end_offset);
        }
        for entry in &recovered.replay {
            positions.append_parts(
                entry.id,
                entry.kind,
                entry.base_offset,
                entry.offset_span,
                &entry.body,
            );
            if entry.kind == EntryKind::Data {
                let index = positions::index_from_log(entry.id.index);
                let header = BatchHeader::read(&entry.body)
                    .map_err(|_| RestoreError::Batch { index: index.0 })?;
                producers.append(index, entry.base_offset, &header, entry.append_time);
            }
        }
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
            quarantine: consensus::Quarantine::None,
        };
        Ok(Restored {
            raft,
            positions,
            producers,
            log_start_offset: recovered.log_start_offset,
            owner: state.owner,
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
        }
    }
}

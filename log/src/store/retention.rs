//! Retention: which files are too many or too old, and letting go of them.

use highwater_record::Offset;

use super::Store;
use crate::config::Retention;
use crate::error::GroupError;
use crate::group::Group;
use crate::group::segment::{Segment, SegmentState};
use crate::ids::{GroupId, LogIndex};
use crate::storage::Storage;

impl<S: Storage> Store<S> {
    /// Where the log should start by these settings, if that is later than now: the offset of
    /// the first file to be kept. Only sealed files go, and only whole.
    ///
    /// The owner decides: it has the move committed, then calls
    /// [`set_log_start`](Store::set_log_start). `wall_ms` is the time in milliseconds since the
    /// Unix epoch; a file is as old as its largest timestamp, but no younger than its last
    /// entry's append time allows.
    #[must_use]
    pub fn retention_start(
        &self,
        group: GroupId,
        retention: &Retention,
        wall_ms: i64,
    ) -> Option<Offset> {
        let state = self.group(group).ok()?;
        let mut size: u64 = state.segments.iter().map(bytes_of).sum();
        let mut start = None;
        for segment in state
            .segments
            .iter()
            .take_while(|it| it.state == SegmentState::Sealed)
        {
            let too_many = retention.bytes.is_some_and(|bytes| size > bytes);
            let too_old = retention
                .age_ms
                .is_some_and(|age| is_older(segment, age, wall_ms));
            if !too_many && !too_old {
                break;
            }
            size -= bytes_of(segment);
            start = Some(segment.end.offset);
        }
        start.filter(|&start| start > state.log_start_offset)
    }

    /// Moves the log start, once the move is committed, and lets go of whole sealed files below
    /// it, oldest first. The newest file with a snapshot stays: what it carries is needed at
    /// the next start. Gives the log's first index then.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`] or [`GroupError::Failed`].
    pub fn set_log_start(
        &mut self,
        group: GroupId,
        offset: Offset,
    ) -> Result<LogIndex, GroupError> {
        self.check_open()?;
        let state = self.group_mut(group)?;
        state.log_start_offset = state.log_start_offset.max(offset);
        let count = files_to_retire(state, offset);
        let retired: Vec<Segment> = state.segments.drain(..count).collect();
        if let Some(last) = retired.last() {
            state.start = last.end;
            state.base_state = highwater_record::Buffer::new();
            state.epochs.forget_before(last.end.first());
        }
        let first = state.start.first();
        let mut spares = Vec::new();
        for mut segment in retired {
            state.to_close.extend(segment.file);
            state.retired.push_back(segment.sequence);
            spares.extend(segment.spare_len().map(|len| (segment.sequence, len)));
        }
        self.note_spares(group, spares);
        self.dirty.insert(group);
        Ok(first)
    }
}

fn files_to_retire(state: &Group, offset: Offset) -> usize {
    if state.record.quarantine.is_some() {
        return 0;
    }
    let below = state.segments.iter().take_while(|segment| {
        segment.state == SegmentState::Sealed && segment.end.offset <= offset
    });
    let newest_snapshot = state
        .segments
        .iter()
        .rposition(|it| it.snapshot_at.is_some());
    below
        .count()
        .min(newest_snapshot.unwrap_or(usize::MAX))
        .min(state.segments.len())
}

fn bytes_of(segment: &Segment) -> u64 {
    segment.written_end
}

fn is_older(segment: &Segment, age_ms: u64, wall_ms: i64) -> bool {
    let appended = i64::from(segment.points.largest_append_time()) * 1_000 + 999;
    let newest = segment.points.largest_timestamp().min(appended);
    let age = wall_ms.saturating_sub(newest);
    u64::try_from(age).is_ok_and(|age| age > age_ms)
}

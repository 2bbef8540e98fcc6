//! Lookups by timestamp, by epoch and by index.

use highwater_record::Offset;

use super::Store;
use crate::entry::EntryKind;
use crate::error::ReadError;
use crate::event::{Event, Lookup, TimestampOffset};
use crate::group::Group;
use crate::ids::{GroupId, LogIndex, Sequence, Term, Ticket};
use crate::scan::timestamp_of;
use crate::storage::Storage;

impl<S: Storage> Store<S> {
    /// The first batch whose largest timestamp is at or above `timestamp`; nothing if all are
    /// older.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn offset_for_timestamp(
        &mut self,
        group: GroupId,
        timestamp: i64,
        ticket: Ticket,
    ) -> Result<Lookup<Option<TimestampOffset>>, ReadError> {
        let state = self.readable(group)?;
        match file_with(state, timestamp, None) {
            Some(sequence) => {
                self.search_timestamp(group, sequence, timestamp, ticket);
                Ok(Lookup::Pending)
            }
            None => Ok(Lookup::Ready(in_cache(state, timestamp))),
        }
    }

    /// Goes on with a search behind a file that did not have it after all.
    pub(super) fn search_behind(
        &mut self,
        group: GroupId,
        behind: Sequence,
        timestamp: i64,
        ticket: Ticket,
    ) {
        let Some(state) = self.groups.get(&group) else {
            return;
        };
        match file_with(state, timestamp, Some(behind)) {
            Some(sequence) => self.search_timestamp(group, sequence, timestamp, ticket),
            None => {
                let result = Ok(in_cache(state, timestamp));
                self.events.push(Event::TimestampDone {
                    group,
                    ticket,
                    result,
                });
            }
        }
    }

    /// The batch with the largest timestamp. For entries that were sealed by an earlier life it
    /// is known only to the nearest point of the file's index.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn max_timestamp(&self, group: GroupId) -> Result<Option<TimestampOffset>, ReadError> {
        let state = self.readable(group)?;
        let in_files = state
            .segments
            .iter()
            .flat_map(|segment| segment.points.largest());
        let staged = state
            .cache
            .iter()
            .filter(|entry| entry.id.index > state.synced);
        let in_memory = staged
            .filter(|entry| entry.kind == EntryKind::Data)
            .map(|entry| TimestampOffset {
                index: entry.id.index,
                offset: entry.base_offset,
                timestamp: timestamp_of(entry.kind, &entry.body, entry.append_time),
            });
        let all = in_files.chain(in_memory);
        // Of equal timestamps the first one counts.
        Ok(all.max_by_key(|found| (found.timestamp, std::cmp::Reverse(found.index))))
    }

    /// The offset at which an entry begins; behind the log, where it ends. Exact for what is in
    /// memory; of other entries that of the nearest point of the file's index before it, so that
    /// the answer is at once and never too high.
    ///
    /// # Errors
    ///
    /// [`ReadError::UnknownGroup`] or [`ReadError::Failed`].
    pub fn offset_of_index(&self, group: GroupId, index: LogIndex) -> Result<Offset, ReadError> {
        let state = self.readable(group)?;
        if index > state.end.before.index {
            return Ok(state.end.offset);
        }
        if let Some(entry) = state.cache.get(index) {
            return Ok(entry.base_offset);
        }
        let segment = state.segment_of(index).or(state.segments.first());
        Ok(segment.map_or(state.end.offset, |segment| {
            let point = segment.points.for_index(index);
            point.map_or(segment.start.offset, |point| point.offset)
        }))
    }

    /// The largest term at or below `term` in the log, and the offset at which it ends; nothing
    /// if the log begins later (KIP-279).
    ///
    /// # Errors
    ///
    /// [`ReadError::UnknownGroup`] or [`ReadError::Failed`].
    pub fn epoch_end(
        &self,
        group: GroupId,
        term: Term,
    ) -> Result<Option<(Term, Offset)>, ReadError> {
        let state = self.readable(group)?;
        Ok(state.epochs.end_of(term, state.end.offset))
    }
}

/// The first file, behind another if one is named, that has a timestamp at or above the given
/// one.
fn file_with(state: &Group, timestamp: i64, behind: Option<Sequence>) -> Option<Sequence> {
    let mut files = state.segments.iter().filter(|segment| {
        let later = behind.is_none_or(|behind| segment.sequence > behind);
        let synced = segment.start.before.index < state.synced;
        later && synced && !segment.points.as_slice().is_empty()
    });
    let found = files.find(|segment| segment.points.largest_timestamp() >= timestamp);
    found.map(|segment| segment.sequence)
}

/// The first batch in memory at or above a timestamp.
fn in_cache(state: &Group, timestamp: i64) -> Option<TimestampOffset> {
    let batches = state
        .cache
        .iter()
        .filter(|entry| entry.kind == EntryKind::Data);
    let mut found = batches.filter_map(|entry| {
        let largest = timestamp_of(entry.kind, &entry.body, entry.append_time);
        (largest >= timestamp).then_some(TimestampOffset {
            index: entry.id.index,
            offset: entry.base_offset,
            timestamp: largest,
        })
    });
    found.next()
}

//! Writes: of groups' files, and of the journal.

use std::time::Duration;

use highwater_record::BufferMut;

use super::tail::Kept;
use super::{Action, Store};
use crate::event::Event;
use crate::format::journal::GroupRecord;
use crate::group::stage::Need;
use crate::ids::GroupId;
use crate::journal::UnitWrite;
use crate::prepare::NO_SPACE_RETRY;
use crate::storage::{Op, Output, Storage, StorageError};

/// How long a group waits for memory or descriptors before it tries again.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Groups' files.
impl<S: Storage> Store<S> {
    pub(super) fn drive_writes(&mut self, group: GroupId) {
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        if state.dropping {
            self.drive_drop(group);
            return;
        }
        if state.in_flight.as_ref().is_some_and(|write| write.again) {
            self.submit_again(group);
            return;
        }
        let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
        match state.need(self.now, align) {
            Need::Nothing => {}
            Need::File(room) => {
                state.waits_since.get_or_insert(self.now);
                self.prepare_file(group, room);
            }
            Need::Write => {
                if let Some(since) = state.waits_since.take() {
                    self.counters.file_waits += 1;
                    self.counters.file_wait += self.now.saturating_sub(since);
                }
                self.submit_write(group);
            }
        }
        if self.groups[&group].wants_file_ahead(self.now) {
            self.prepare_file(group, 0);
        }
        self.zero_ahead(group);
    }

    fn submit_write(&mut self, group: GroupId) {
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let most = state.write_bytes(self.now) + 2 * self.align;
        let Some(mut buffer) = self.buffer_for_write(most) else {
            self.wait_for(group, BUSY_RETRY);
            return;
        };
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let gathered = state.gather(self.now);
        let active = state.active.as_mut().expect("a file was begun");
        let head = active.tail.len();
        buffer.extend_from_slice(&active.tail);
        let mut from = head;
        for frame in &gathered.frames {
            active.sums.lay_out(frame, &mut buffer, &mut from);
        }
        active.sums.sum(&buffer, &mut from);
        let len = buffer.len().next_multiple_of(self.align);
        buffer.put_zeros(len - buffer.len());
        let data = buffer.freeze();
        let entries = gathered.entries();
        self.counters.writes += 1;
        let written = u64::try_from(data.len()).expect("at most 100 MiB");
        self.counters.written_bytes += written;
        self.write_rate.add(self.now, written);
        self.counters.written_entries += entries;
        self.counters.files_begun += u64::from(gathered.begins_file());
        let most = &mut self.counters.entries_per_write_max;
        *most = (*most).max(entries);
        self.writes_in_flight += 1;
        let most = &mut self.counters.writes_in_flight_max;
        *most = (*most).max(self.writes_in_flight);
        let write = state.submit(gathered, &data, head, self.align);
        let (file, offset) = (write.file, write.offset);
        self.submit(Action::Write(group), Op::Write { file, offset, data });
    }

    /// Memory for a write. What waits to be written is freed by nothing but its write, so the cache
    /// gives way if there is none else.
    fn buffer_for_write(&mut self, bytes: usize) -> Option<BufferMut> {
        loop {
            match self.pool.get(bytes) {
                Ok(buffer) => return Some(buffer),
                Err(_) => {
                    let kept = self.tail.pop()?;
                    self.evict(kept);
                }
            }
        }
    }

    fn submit_again(&mut self, group: GroupId) {
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let write = state
            .in_flight
            .as_mut()
            .expect("a write waits to be tried again");
        write.again = false;
        let (file, offset, data) = (write.file, write.offset, write.data.clone());
        self.writes_in_flight += 1;
        self.submit(Action::Write(group), Op::Write { file, offset, data });
    }

    pub(super) fn write_completed(&mut self, group: GroupId, result: Result<Output, StorageError>) {
        self.writes_in_flight -= 1;
        self.dirty.insert(group);
        match result {
            Ok(_) => self.write_is_durable(group),
            Err(_) if mutant!(FailedWriteCounts) => self.write_is_durable(group),
            Err(error) => self.write_refused(group, error),
        }
    }

    fn write_is_durable(&mut self, group: GroupId) {
        let now = self.now;
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        state.no_space = false;
        let done = state.write_done(now);
        let kept = Kept {
            group,
            through: done.evictable,
            bytes: done.buffer_bytes,
        };
        self.tail.push(kept, state.read_at, now);
        self.idle.push_back((now + self.config.idle_push, group));
        self.trim_tail();
        if done.begun {
            self.announce_closed_of(group);
        }
    }

    /// A full file system is no failure: the same bytes are written again when there is room.
    /// Any other error is final, since nobody knows what reached the disk.
    fn write_refused(&mut self, group: GroupId, error: StorageError) {
        let wait = match error {
            StorageError::NoSpace { .. } => NO_SPACE_RETRY,
            StorageError::Resources { .. } => BUSY_RETRY,
            other => return self.fail(other),
        };
        if let Some(state) = self.groups.get_mut(&group) {
            let write = state.in_flight.as_mut().expect("a write was in flight");
            write.again = true;
        }
        if wait == NO_SPACE_RETRY {
            self.report_no_space(group);
        }
        self.wait_for(group, wait);
    }

    pub(super) fn report_no_space(&mut self, group: GroupId) {
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        state.no_space = true;
        self.say_full();
        self.events.push(Event::NoSpace { group });
    }

    pub(super) fn wait_for(&mut self, group: GroupId, time: Duration) {
        self.dirty.remove(&group);
        self.waiting.push_back((self.now + time, group));
    }

    pub(super) fn wake_waiting(&mut self) {
        let now = self.now;
        let dirty = &mut self.dirty;
        self.waiting.retain(|&(at, group)| {
            let due = at <= now;
            if due {
                dirty.insert(group);
            }
            !due
        });
    }

    /// Evicts synced entries until the cache is within its size.
    fn trim_tail(&mut self) {
        while let Some(kept) = self.tail.surplus() {
            self.evict(kept);
        }
    }

    fn evict(&mut self, kept: Kept) {
        if let Some(state) = self.groups.get_mut(&kept.group) {
            state.cache.evict_through(kept.through.min(state.synced));
        }
    }
}

/// The journal.
impl<S: Storage> Store<S> {
    /// Writes what is staged for the journal, if no write of it is in flight.
    pub(super) fn write_journal(&mut self) {
        self.write_journal_again();
        if !self.journal.has_work() {
            return;
        }
        let update = self.journal.take_update();
        let unit = if self.journal.fits(update.len()) {
            let groups = &mut self.groups;
            let records: Vec<GroupRecord> = update
                .iter()
                .filter_map(|(group, _)| groups.get_mut(group).map(|group| group.next_record()))
                .collect();
            self.journal.update(update, &records)
        } else {
            let mut written = update;
            written.extend(self.journal.take_all());
            let records: Vec<GroupRecord> = self
                .groups
                .values_mut()
                .map(|it| it.next_record())
                .collect();
            self.journal.checkpoint(written, records)
        };
        self.counters.journal_writes += 1;
        for copy in 0..self.journal.copies() {
            self.submit_journal(copy, &unit);
        }
    }

    fn submit_journal(&mut self, copy: usize, unit: &UnitWrite) {
        let op = Op::Write {
            file: self.journal.files[copy],
            offset: unit.offset,
            data: unit.data.clone(),
        };
        self.submit(Action::Journal(copy), op);
    }

    fn write_journal_again(&mut self) {
        let now = self.now;
        let (due, later) = self.journal_waiting.iter().partition(|&&(at, _)| at <= now);
        self.journal_waiting = later;
        let due: Vec<(Duration, usize)> = due;
        for (_, copy) in due {
            let unit = self.journal.again().expect("a write of the journal waits");
            self.submit_journal(copy, &unit);
        }
    }

    pub(super) fn journal_completed(&mut self, copy: usize, result: Result<Output, StorageError>) {
        match result {
            Ok(_) => {}
            Err(StorageError::NoSpace { .. } | StorageError::Resources { .. }) => {
                self.journal_waiting.push((self.now + BUSY_RETRY, copy));
                return;
            }
            Err(error) => return self.fail(error),
        }
        for (group, write) in self.journal.copy_done().unwrap_or_default() {
            self.dirty.insert(group);
            let Some(state) = self.groups.get_mut(&group) else {
                continue;
            };
            if let Some(write) = write {
                state.writes.journal_done(write);
            }
            // What was written may be what held before: then the removal's own record waits.
            state.forgotten |= state.record.dropped && !self.journal.is_pending(group);
        }
    }

    /// Pushes the synced positions of groups that fell idle.
    pub(super) fn push_idle_positions(&mut self) {
        while let Some(&(at, group)) = self.idle.front() {
            if at > self.now {
                return;
            }
            self.idle.pop_front();
            let Some(state) = self.groups.get(&group) else {
                continue;
            };
            let was_idle = self.now >= state.idle_since + self.config.idle_push;
            let is_news =
                state.record.quarantine.is_none() && state.record.position != state.position;
            if was_idle && state.is_idle() && is_news {
                self.journal.stage(group, None);
            }
        }
    }
}

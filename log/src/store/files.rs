//! Files: made ahead of need, unlinked or recycled when nothing needs them, and removed with their
//! group.

use std::time::Duration;

use highwater_record::Buffer;

use super::open::first_frame;
use super::{Action, Store};
use crate::error::ReserveError;
use crate::event::Event;
use crate::format::identity::FileIdentity;
use crate::group::segment::SegmentState;
use crate::ids::{GroupId, Sequence};
use crate::paths;
use crate::prepare::{
    Before, FULL_SAID_INTERVAL, Making, NO_SPACE_RETRY, Prepared, Preparing, Source, Spare, Want,
    Zeroing, next_size,
};
use crate::storage::{Op, Output, Preparation, Storage, StorageError};

/// Steps in the making of a file, each named by the operation that is under way, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PrepareStep {
    MakeGroupDir,
    SyncGroups,
    Create,
    /// A file is recycled: it may be written again.
    Unprotect,
    OpenSpare,
    /// It gets its new identity, durably, before it gets its new name.
    Stamp,
    /// A file of that name was left by an attempt that found no room.
    UnlinkLeftover,
    Rename,
    SyncGroupDir,
    SyncPrepare,
    Open,
}

/// Steps in the unlinking of a file, each named by the operation that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnlinkStep {
    Unlink,
    /// It is kept, to become another file.
    Spare,
    SyncGroupDir,
    /// Until then a crash could give the group its file back.
    SyncPrepare,
    RemoveGroupDir,
    SyncGroups,
}

/// Steps in the unlinking of a file that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpareStep {
    Unlink,
    /// Some file systems give room back only now.
    SyncPrepare,
}

/// Making.
impl<S: Storage> Store<S> {
    /// Has the group's next file made, with room for `room` bytes of frames at least; for none, if
    /// nothing waits for it.
    pub(super) fn prepare_file(&mut self, group: GroupId, room: u64) {
        let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
        let first_frame = first_frame(self.align);
        let groups = self.groups.len();
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        match state.preparing {
            Preparing::Making(_) => return,
            Preparing::NoSpace(at) if self.now < at => return,
            Preparing::Ready(prepared) if !prepared.may_be_written() => return,
            Preparing::Ready(prepared) => {
                // Too small for what must go into it: it stays unused.
                state.unused.push(prepared.identity.sequence);
                state.to_close.push(prepared.file);
                state.preparing = Preparing::Idle;
            }
            Preparing::Idle | Preparing::NoSpace(_) => {}
        }
        let age = state.active.as_ref().map(|active| active.begun_at);
        let age = age.map(|begun_at| self.now.saturating_sub(begun_at));
        let before = state.segments.last().map(|last| Before {
            len: last.len,
            written: last.written_end,
            age,
        });
        let segment_bytes = state.config.segment_bytes;
        // What has found no room once is tried as small as will do.
        let share = match state.no_space {
            true => 0,
            false => self.room.share(groups),
        };
        let most = segment_bytes.min(share);
        let size = next_size(before, most, u64::from(first_frame), room, align);
        let source = self.files.source(&Want {
            size,
            least: u64::from(first_frame) + room,
            most: segment_bytes,
            write_bytes: state.write_bytes,
            store_rate: self.write_rate.at(self.now),
            making: self.making + self.to_zero.len(),
        });
        let identity = FileIdentity {
            first_frame,
            cluster: self.owner.cluster,
            incarnation: self.owner.incarnation,
            group,
            sequence: state.next_sequence,
            salt: self.salts.u64(..),
            size: match source {
                Source::Fresh(_) => size,
                Source::Recycled(spare) => spare.len,
            },
            recycled: matches!(source, Source::Recycled(_)),
        };
        let making = Making {
            identity,
            source,
            ahead: room == 0,
            spare_file: None,
        };
        state.preparing = Preparing::Making(making);
        self.making += 1;
        let step = if state.has_directory {
            first_step(&making)
        } else {
            PrepareStep::MakeGroupDir
        };
        self.prepare_step(group, step, &making);
    }

    fn prepare_step(&mut self, group: GroupId, step: PrepareStep, making: &Making) {
        let sequence = making.identity.sequence;
        let made_at = match making.source {
            Source::Fresh(_) => paths::prepared(group, sequence),
            Source::Recycled(spare) => spare.path(),
        };
        let op = match step {
            PrepareStep::MakeGroupDir => Op::MakeDir {
                path: paths::group_dir(group),
            },
            PrepareStep::SyncGroups => Op::SyncDir {
                path: paths::GROUPS.to_owned(),
            },
            PrepareStep::Create => Op::Create {
                path: made_at,
                len: making.identity.size,
                preparation: match making.source {
                    Source::Fresh(_) if making.is_zeroed_later() => Preparation::Preallocate,
                    Source::Fresh(preparation) => preparation,
                    Source::Recycled(_) => unreachable!("a recycled file is there"),
                },
                first: Buffer::aligned_copy(&making.identity.encode(), self.align),
            },
            PrepareStep::UnlinkLeftover => Op::Unlink { path: made_at },
            PrepareStep::Unprotect => Op::Protect {
                path: made_at,
                read_only: false,
            },
            PrepareStep::OpenSpare => Op::Open {
                path: made_at,
                write: true,
            },
            PrepareStep::Stamp => Op::Write {
                file: making.spare_file.expect("it was just opened"),
                offset: 0,
                data: Buffer::aligned_copy(&making.identity.encode(), self.align),
            },
            PrepareStep::Rename => Op::Rename {
                from: made_at,
                to: paths::segment(group, sequence),
            },
            PrepareStep::SyncGroupDir => Op::SyncDir {
                path: paths::group_dir(group),
            },
            PrepareStep::SyncPrepare => Op::SyncDir {
                path: paths::PREPARE.to_owned(),
            },
            PrepareStep::Open => Op::Open {
                path: paths::segment(group, sequence),
                write: true,
            },
        };
        self.submit(Action::Prepare(group, step), op);
    }

    pub(super) fn prepare_completed(
        &mut self,
        group: GroupId,
        step: PrepareStep,
        result: Result<Output, StorageError>,
    ) {
        self.dirty.insert(group);
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        let Preparing::Making(mut making) = state.preparing else {
            unreachable!("a file is being made");
        };
        let output = match (step, result) {
            (_, Ok(output)) => output,
            (PrepareStep::Create, Err(StorageError::Exists { .. })) => {
                return self.prepare_step(group, PrepareStep::UnlinkLeftover, &making);
            }
            (
                PrepareStep::Unprotect | PrepareStep::OpenSpare,
                Err(StorageError::NotFound { .. }),
            ) => {
                // Something else than this program has removed it.
                state.preparing = Preparing::Idle;
                self.making -= 1;
                return;
            }
            (_, Err(error)) => return self.prepare_refused(group, step, error),
        };
        let next = match step {
            PrepareStep::MakeGroupDir if mutant!(GroupsDirNotSynced) => first_step(&making),
            PrepareStep::MakeGroupDir => PrepareStep::SyncGroups,
            PrepareStep::SyncGroups => {
                state.has_directory = true;
                first_step(&making)
            }
            PrepareStep::UnlinkLeftover => PrepareStep::Create,
            PrepareStep::Create => PrepareStep::Rename,
            PrepareStep::Unprotect => PrepareStep::OpenSpare,
            PrepareStep::OpenSpare => {
                let Output::Opened { file, len, .. } = output else {
                    unreachable!("opening answered {output:?}");
                };
                let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
                if len < making.identity.size || !len.is_multiple_of(align) {
                    // Something else than this program has cut it.
                    state.to_close.push(file);
                    state.preparing = Preparing::Idle;
                    self.making -= 1;
                    return self.unlink_spare_of(&making);
                }
                making.spare_file = Some(file);
                making.identity.size = len;
                state.preparing = Preparing::Making(making);
                PrepareStep::Stamp
            }
            PrepareStep::Stamp => {
                state.to_close.extend(making.spare_file.take());
                state.preparing = Preparing::Making(making);
                self.counters.files_recycled += 1;
                PrepareStep::Rename
            }
            PrepareStep::Rename => {
                // From now on the name is taken, whatever happens.
                state.next_sequence = making.identity.sequence.next();
                if mutant!(GroupDirNotSynced) {
                    PrepareStep::SyncPrepare
                } else {
                    PrepareStep::SyncGroupDir
                }
            }
            PrepareStep::SyncGroupDir => PrepareStep::SyncPrepare,
            PrepareStep::SyncPrepare => PrepareStep::Open,
            PrepareStep::Open => {
                let Output::Opened { file, .. } = output else {
                    unreachable!("opening answered {output:?}");
                };
                state.no_space = false;
                state.preparing = Preparing::Ready(Prepared::new(file, &making));
                self.making -= 1;
                return;
            }
        };
        self.prepare_step(group, next, &making);
    }

    /// No room, no memory or no descriptors are waited for; a sync that fails is final.
    fn prepare_refused(&mut self, group: GroupId, step: PrepareStep, error: StorageError) {
        let no_space = matches!(error, StorageError::NoSpace { .. });
        let retriable = no_space || matches!(error, StorageError::Resources { .. });
        if !retriable {
            return self.fail(error);
        }
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        if step == PrepareStep::Open {
            // It is there, but cannot be opened now: it stays unused.
            state.unused.push(Sequence(state.next_sequence.0 - 1));
        }
        let waits = Preparing::NoSpace(self.now + NO_SPACE_RETRY);
        let before = std::mem::replace(&mut state.preparing, waits);
        self.making -= 1;
        state.no_space |= no_space;
        if let Preparing::Making(making) = before {
            state.to_close.extend(making.spare_file);
            if step <= PrepareStep::Rename {
                self.unlink_spare_of(&making);
            }
        }
        if no_space {
            self.give_up_spares();
        }
        let state = &self.groups[&group];
        // A file that was wanted ahead of need is missed by nobody yet.
        let missed = !state.staged.is_empty()
            && matches!(state.need(self.now, 1), crate::group::stage::Need::File(_));
        if no_space && missed {
            self.report_no_space(group);
        }
        self.wait_for(group, NO_SPACE_RETRY);
    }
}

/// Zeroing.
impl<S: Storage> Store<S> {
    /// Has more of the group's next file zeroed, if it is time.
    pub(super) fn zero_ahead(&mut self, group: GroupId) {
        let state = self.groups.get_mut(&group);
        let Some(state) = state.filter(|state| state.wants_zeros()) else {
            return;
        };
        let next = state.preparing.ready_mut().expect("it wants zeros");
        next.zeroing = Zeroing::Waits;
        self.to_zero.push_back(group);
        self.zero_next();
    }

    /// One file is zeroed at a time: a disk that does one thing after the other has what is synced
    /// wait for no more than that.
    fn zero_next(&mut self) {
        while !self.zeroing {
            let Some(group) = self.to_zero.pop_front() else {
                return;
            };
            let next = self.groups.get_mut(&group);
            let next = next.and_then(|state| state.preparing.ready_mut());
            // The file may have been begun since.
            let Some(next) = next.filter(|next| next.zeroing == Zeroing::Waits) else {
                continue;
            };
            next.zeroing = Zeroing::UnderWay;
            let (file, (offset, len)) = (next.file, next.next_zeros());
            self.zeroing = true;
            self.submit(Action::Zero(group), Op::Zero { file, offset, len });
        }
    }

    pub(super) fn zero_completed(&mut self, group: GroupId, result: Result<Output, StorageError>) {
        self.zeroing = false;
        self.dirty.insert(group);
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        if let Some(next) = state.preparing.ready_mut() {
            next.zeroing = Zeroing::No;
            next.zeroed = match result {
                Ok(_) => {
                    let len = next.next_zeros().1;
                    self.counters.zeroed_bytes += len;
                    next.zeroed + len
                }
                // It is written as it is.
                Err(StorageError::NoSpace { .. } | StorageError::Resources { .. }) => {
                    next.identity.size
                }
                Err(error) => return self.fail(error),
            };
        }
        self.zero_next();
    }
}

/// Unlinking.
impl<S: Storage> Store<S> {
    /// Unlinks one file of a group at a time: hidden ones, newest first, before those that
    /// retention frees, oldest first, the directory synced after each.
    pub(super) fn drive_unlinks(&mut self, group: GroupId) {
        let Some(state) = self.groups.get_mut(&group).filter(|state| !state.unlinking) else {
            return;
        };
        let next = state
            .hidden
            .pop_front()
            .or_else(|| match mutant!(RetiredNewestFirst) {
                false => state.retired.pop_front(),
                true => state.retired.pop_back(),
            });
        let Some(sequence) = next else { return };
        state.unlinking = true;
        let path = paths::segment(group, sequence);
        let len = state.spares.remove(&sequence);
        let (step, op) = match len.filter(|&len| self.files.wants(len)) {
            Some(len) => {
                let spare = Spare {
                    group,
                    sequence,
                    len,
                };
                state.leaving = Some(spare);
                let (from, to) = (path, spare.path());
                (UnlinkStep::Spare, Op::Rename { from, to })
            }
            None => (UnlinkStep::Unlink, Op::Unlink { path }),
        };
        self.submit(Action::Unlink(group, step), op);
    }

    pub(super) fn unlink_completed(
        &mut self,
        group: GroupId,
        step: UnlinkStep,
        result: Result<Output, StorageError>,
    ) {
        self.dirty.insert(group);
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        match result {
            Ok(_) => {}
            // A name that is gone is what was wanted.
            Err(StorageError::NotFound { .. }) => state.leaving = None,
            Err(error) => return self.fail(error),
        }
        match step {
            UnlinkStep::Unlink | UnlinkStep::Spare => {
                self.counters.files_unlinked += u64::from(step == UnlinkStep::Unlink);
                let path = paths::group_dir(group);
                self.submit(
                    Action::Unlink(group, UnlinkStep::SyncGroupDir),
                    Op::SyncDir { path },
                );
            }
            UnlinkStep::SyncGroupDir if state.leaving.is_some() && !mutant!(SpareNotSynced) => {
                let path = paths::PREPARE.to_owned();
                self.submit(
                    Action::Unlink(group, UnlinkStep::SyncPrepare),
                    Op::SyncDir { path },
                );
            }
            UnlinkStep::SyncGroupDir | UnlinkStep::SyncPrepare => {
                state.unlinking = false;
                if let Some(spare) = state.leaving.take() {
                    let surplus = self.files.keep(spare);
                    self.unlink_spares(&surplus);
                }
            }
            UnlinkStep::RemoveGroupDir => {
                let path = paths::GROUPS.to_owned();
                self.submit(
                    Action::Unlink(group, UnlinkStep::SyncGroups),
                    Op::SyncDir { path },
                );
            }
            UnlinkStep::SyncGroups => self.forget_group(group),
        }
    }

    /// Removes a group that the journal durably calls dropped, when nothing of it is under way.
    /// A crash amid that leaves some of its files; the next start removes the rest unread.
    pub(super) fn drive_drop(&mut self, group: GroupId) {
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let making = match &state.preparing {
            Preparing::Making(_) => true,
            Preparing::Ready(next) => !next.may_be_written(),
            Preparing::Idle | Preparing::NoSpace(_) => false,
        };
        let busy = state.in_flight.is_some() || state.unlinking || state.sealing || making;
        if !state.forgotten || busy {
            return;
        }
        if let Some(prepared) = state.preparing.take() {
            state.unused.push(prepared.identity.sequence);
            state.to_close.push(prepared.file);
        }
        if let Some(active) = state.active.take()
            && state.segment_mut(active.sequence).is_none()
        {
            state.to_close.push(active.file);
        }
        let files = (state.segments.iter_mut())
            .filter_map(|segment| Some((segment.sequence, segment.spare_len()?)));
        let files: Vec<(Sequence, u64)> = files.collect();
        self.note_spares(group, files);
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let mut files: Vec<Sequence> = state.leave_segments(0);
        files.append(&mut state.unused);
        files.append(&mut state.kept);
        state.hidden.extend(files);
        self.close_files(group);
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        if !state.hidden.is_empty() || !state.retired.is_empty() {
            return self.drive_unlinks(group);
        }
        state.unlinking = true;
        // It may be there without a file, of which nobody knows: a crash has left it.
        let path = paths::group_dir(group);
        self.submit(
            Action::Unlink(group, UnlinkStep::RemoveGroupDir),
            Op::RemoveDir { path },
        );
    }
}

/// Recycling.
impl<S: Storage> Store<S> {
    /// Notes which of the files that a group lets go of can become others, and how long they are:
    /// none that is being read or repaired, in which its bytes would change under somebody.
    pub(super) fn note_spares(&mut self, group: GroupId, files: Vec<(Sequence, u64)>) {
        if self.is_repairing(group) {
            return;
        }
        let unread = |&(sequence, _): &(Sequence, u64)| !self.is_being_read(group, sequence);
        let spares: Vec<(Sequence, u64)> = files.into_iter().filter(unread).collect();
        if let Some(state) = self.groups.get_mut(&group) {
            state.spares.extend(spares);
        }
    }

    fn unlink_spares(&mut self, spares: &[Spare]) {
        for spare in spares {
            let path = spare.path();
            self.submit(Action::Spare(SpareStep::Unlink), Op::Unlink { path });
        }
    }

    pub(super) fn spare_completed(
        &mut self,
        step: SpareStep,
        result: Result<Output, StorageError>,
    ) {
        match result {
            // A name that is gone is what was wanted.
            Ok(_) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return self.fail(error),
        }
        if step == SpareStep::Unlink {
            self.counters.files_unlinked += 1;
            let path = paths::PREPARE.to_owned();
            self.submit(Action::Spare(SpareStep::SyncPrepare), Op::SyncDir { path });
        }
    }

    /// A new file is not made of it after all.
    fn unlink_spare_of(&mut self, making: &Making) {
        if let Source::Recycled(spare) = making.source {
            self.unlink_spares(&[spare]);
        }
    }

    /// What is kept for later takes room that is needed now.
    fn give_up_spares(&mut self) {
        let spares = self.files.give_up();
        self.unlink_spares(&spares);
    }
}

/// The first step in the making of a file, once its group has a directory.
const fn first_step(making: &Making) -> PrepareStep {
    match making.source {
        Source::Fresh(_) => PrepareStep::Create,
        Source::Recycled(_) => PrepareStep::Unprotect,
    }
}

/// What is gone.
impl<S: Storage> Store<S> {
    /// A dropped group's directory is gone for good.
    fn forget_group(&mut self, group: GroupId) {
        let state = self.groups.remove(&group);
        let state = state.expect("a group outlives its operations");
        self.journal.bury(state.record);
        self.dirty.remove(&group);
    }
}

/// Room.
impl<S: Storage> Store<S> {
    /// Whether there is room for `bytes` more of this group, beside what is staged: asked before
    /// anything is proposed or accepted, since a full disk must refuse before it promises.
    ///
    /// # Errors
    ///
    /// [`ReserveError::NoSpace`]: retriable; reads go on.
    pub fn reserve(&mut self, group: GroupId, bytes: usize) -> Result<(), ReserveError> {
        if self.failed {
            return Err(ReserveError::Failed);
        }
        self.ask_for_room();
        let reserve = self.config.reserve_bytes;
        let state = self.groups.get(&group).filter(|state| !state.dropping);
        let state = state.ok_or(ReserveError::UnknownGroup(group))?;
        let wanted = u64::try_from(bytes.saturating_add(state.unsynced_bytes)).unwrap_or(u64::MAX);
        let in_active = state
            .active
            .as_ref()
            .map_or(0, |active| active.len.saturating_sub(active.position));
        let in_prepared = state.preparing.ready().map_or(0, Prepared::room);
        if in_active.saturating_add(in_prepared) / 2 >= wanted {
            return Ok(());
        }
        let available = match self.room.available {
            Some(available) if !state.no_space => available.saturating_sub(reserve),
            Some(_) => 0,
            None if state.no_space => 0,
            None => return Ok(()),
        };
        let last = state.segments.last().map(|last| Before {
            len: last.len,
            written: last.written_end,
            age: None,
        });
        let most = (state.config.segment_bytes).min(self.room.share(self.groups.len()));
        let next = next_size(last, most, 0, wanted, 1);
        if next > available {
            self.say_full();
            return Err(ReserveError::NoSpace {
                wanted: next,
                available,
            });
        }
        Ok(())
    }

    /// For whoever reads logs, and not for every record that is refused.
    pub(super) fn say_full(&mut self) {
        if self
            .full_said
            .is_some_and(|at| self.now < at + FULL_SAID_INTERVAL)
        {
            return;
        }
        self.full_said = Some(self.now);
        tracing::error!(
            "the disk is full: nothing is appended until there is room again; reads go on"
        );
    }

    fn ask_for_room(&mut self) {
        /// How old an answer may be.
        const FRESH: Duration = Duration::from_secs(1);
        let stale = self.room.asked_at.is_none_or(|at| self.now >= at + FRESH);
        if stale && !self.room.asking {
            self.room.asking = true;
            self.room.asked_at = Some(self.now);
            self.submit(Action::Room, Op::Space);
        }
    }

    pub(super) fn room_completed(&mut self, result: Result<Output, StorageError>) {
        self.room.asking = false;
        if let Ok(Output::Space { available, .. }) = result {
            self.room.available = Some(available);
            let spared = self.files.kept_bytes();
            if spared > 0 && available < self.config.reserve_bytes.saturating_add(spared) {
                self.give_up_spares();
            }
        }
    }
}

/// Closed files.
impl<S: Storage> Store<S> {
    /// Tells the owner of files that are closed and were not announced yet.
    pub(super) fn announce_closed_of(&mut self, group: GroupId) {
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        let has_holes = state.record.quarantine.is_some();
        for segment in &mut state.segments {
            let closed = segment.state == SegmentState::Closed && !segment.announced;
            if closed && !has_holes {
                segment.announced = true;
                self.events.push(Event::Closed {
                    group,
                    sequence: segment.sequence,
                    last: segment.last(),
                });
            }
        }
    }
}

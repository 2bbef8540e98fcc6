//! Files: made ahead of need, unlinked when nothing needs them, and removed with their group.

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
    Before, FULL_SAID_INTERVAL, NO_SPACE_RETRY, Prepared, Preparing, Source, Want, next_size,
};
use crate::storage::{Op, Output, Storage, StorageError};

/// Steps in the making of a file, each named by the operation that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrepareStep {
    MakeGroupDir,
    SyncGroups,
    Create,
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
    SyncGroupDir,
    RemoveGroupDir,
    SyncGroups,
}

/// Making.
impl<S: Storage> Store<S> {
    /// Has the group's next file made, with room for `room` bytes of frames at least.
    pub(super) fn prepare_file(&mut self, group: GroupId, room: u64) {
        let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
        let first_frame = first_frame(self.align);
        let state = self
            .groups
            .get_mut(&group)
            .expect("the caller looked it up");
        match state.preparing {
            Preparing::Making(_) => return,
            Preparing::NoSpace(at) if self.now < at => return,
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
        let size = next_size(
            before,
            state.config.segment_bytes,
            u64::from(first_frame),
            room,
            align,
        );
        let identity = FileIdentity {
            first_frame,
            cluster: self.owner.cluster,
            incarnation: self.owner.incarnation,
            group,
            sequence: state.next_sequence,
            salt: self.salts.u64(..),
            size,
        };
        state.preparing = Preparing::Making(identity);
        let step = if state.has_directory {
            PrepareStep::Create
        } else {
            PrepareStep::MakeGroupDir
        };
        self.prepare_step(group, step, &identity);
    }

    fn prepare_step(&mut self, group: GroupId, step: PrepareStep, identity: &FileIdentity) {
        let sequence = identity.sequence;
        let op = match step {
            PrepareStep::MakeGroupDir => Op::MakeDir {
                path: paths::group_dir(group),
            },
            PrepareStep::SyncGroups => Op::SyncDir {
                path: paths::GROUPS.to_owned(),
            },
            PrepareStep::Create => self.create_op(group, identity),
            PrepareStep::UnlinkLeftover => Op::Unlink {
                path: paths::prepared(group, sequence),
            },
            PrepareStep::Rename => Op::Rename {
                from: paths::prepared(group, sequence),
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

    fn create_op(&mut self, group: GroupId, identity: &FileIdentity) -> Op {
        let state = self.groups.get(&group);
        let Source::Fresh(preparation) = self.files.source(&Want {
            size: identity.size,
            write_bytes: state.and_then(|state| state.write_bytes),
            store_rate: self.write_rate.at(self.now),
        });
        Op::Create {
            path: paths::prepared(group, identity.sequence),
            len: identity.size,
            preparation,
            first: Buffer::aligned_copy(&identity.encode(), self.align),
        }
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
        let Preparing::Making(identity) = state.preparing else {
            unreachable!("a file is being made");
        };
        let output = match (step, result) {
            (_, Ok(output)) => output,
            (PrepareStep::Create, Err(StorageError::Exists { .. })) => {
                return self.prepare_step(group, PrepareStep::UnlinkLeftover, &identity);
            }
            (_, Err(error)) => return self.prepare_refused(group, step, error),
        };
        let next = match step {
            PrepareStep::MakeGroupDir if mutant!(GroupsDirNotSynced) => PrepareStep::Create,
            PrepareStep::MakeGroupDir => PrepareStep::SyncGroups,
            PrepareStep::SyncGroups => {
                state.has_directory = true;
                PrepareStep::Create
            }
            PrepareStep::UnlinkLeftover => PrepareStep::Create,
            PrepareStep::Create => PrepareStep::Rename,
            PrepareStep::Rename => {
                // From now on the name is taken, whatever happens.
                state.next_sequence = identity.sequence.next();
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
                state.preparing = Preparing::Ready(Prepared { file, identity });
                return;
            }
        };
        self.prepare_step(group, next, &identity);
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
        state.preparing = Preparing::NoSpace(self.now + NO_SPACE_RETRY);
        state.no_space |= no_space;
        // A file that was wanted ahead of need is missed by nobody yet.
        let missed = !state.staged.is_empty()
            && matches!(state.need(self.now, 1), crate::group::stage::Need::File(_));
        if no_space && missed {
            self.report_no_space(group);
        }
        self.wait_for(group, NO_SPACE_RETRY);
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
        self.submit(
            Action::Unlink(group, UnlinkStep::Unlink),
            Op::Unlink { path },
        );
    }

    pub(super) fn unlink_completed(
        &mut self,
        group: GroupId,
        step: UnlinkStep,
        result: Result<Output, StorageError>,
    ) {
        self.dirty.insert(group);
        match result {
            // A name that is gone is what was wanted.
            Ok(_) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return self.fail(error),
        }
        let state = self
            .groups
            .get_mut(&group)
            .expect("a group outlives its operations");
        match step {
            UnlinkStep::Unlink => {
                self.counters.files_unlinked += 1;
                let path = paths::group_dir(group);
                self.submit(
                    Action::Unlink(group, UnlinkStep::SyncGroupDir),
                    Op::SyncDir { path },
                );
            }
            UnlinkStep::SyncGroupDir => state.unlinking = false,
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
        let making = matches!(state.preparing, Preparing::Making(_));
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
        let next = next_size(last, state.config.segment_bytes, 0, wanted, 1);
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

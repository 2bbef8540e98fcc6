//! All groups of one shard on one data directory.

mod append;
mod files;
mod lookup;
mod open;
mod readers;
mod reading;
mod repair;
mod retention;
mod scrub;
mod sealing;
mod tail;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_record::{BufferPool, Offset};

use crate::alarm::Alarm;
use crate::config::{GroupConfig, StoreConfig};
use crate::entry::{Base, Epoch, HardState, NewEntry, Position, Snapshot};
use crate::error::{AppendError, CutError, GroupError, HardStateError};
use crate::event::{Counters, Event};
use crate::group::Group;
use crate::ids::{Chain, EntryId, GroupId, LogIndex, Sequence, Term, WriteId};
use crate::journal::Journal;
use crate::prepare::{FileSource, Rate};
use crate::recovery::build::RecoveredGroup;
use crate::recovery::driver::Owner;
use crate::storage::{Completion, FileId, Op, Output, Storage, StorageError, Token};
use readers::Readers;
use reading::ReadJob;
use repair::RepairJob;
use scrub::Scrub;
use sealing::SealJob;
use tail::Tail;

/// All groups of one shard on one data directory: their logs and their hard states.
///
/// Nothing here blocks but [`open`](Store::open) and [`wait`](Store::wait). A turn of the owner
/// stages what it has to ([`append`](Store::append), [`cut`](Store::cut),
/// [`set_hard_state`](Store::set_hard_state), ...), then calls [`flush`](Store::flush) once;
/// what has become of it is told by [`poll`](Store::poll).
///
/// A group's writes are named by its owner with ascending [`WriteId`]s. The log reports a write
/// by [`Event::Persisted`] only when it and all before it are durable, whether they went to the
/// log or to the journal. Entries of a new term are written only after that term is durable.
/// A [`cut`](Store::cut) does not take back a report that is under way: whoever counts
/// persisted entries lowers its earlier writes to the cut, as Raft's rules ask anyway.
///
/// A write or sync that fails is final: the store reports [`Event::Failed`] once and refuses
/// everything from then on. A full file system is no failure: what is staged waits.
#[derive(Debug)]
pub struct Store<S> {
    storage: S,
    config: StoreConfig,
    owner: Owner,
    /// What offsets and lengths of writes are multiples of, in bytes.
    align: usize,
    pool: BufferPool,
    salts: fastrand::Rng,
    files: Box<dyn FileSource + Send>,
    /// Boxed, since a tree leaves half of its nodes free.
    groups: BTreeMap<GroupId, Box<Group>>,
    /// Groups that may have something to do.
    dirty: BTreeSet<GroupId>,
    journal: Journal,
    /// Groups that fell idle, and when their synced position is to be pushed.
    idle: VecDeque<(Duration, GroupId)>,
    /// Groups that wait for room, or for memory, and when to try again.
    waiting: VecDeque<(Duration, GroupId)>,
    /// Copies of a journal unit that wait for room, and when to try again.
    journal_waiting: Vec<(Duration, usize)>,
    actions: BTreeMap<Token, Action>,
    next_token: u64,
    jobs: BTreeMap<u64, ReadJob>,
    next_job: u64,
    /// Which files are being read: they are closed when the last read of them has ended.
    readers: Readers,
    seals: BTreeMap<GroupId, SealJob>,
    /// The file that is being repaired: one at a time.
    repair: Option<RepairJob>,
    /// Groups with something to be repaired, and when it may be tried.
    damaged: BTreeMap<GroupId, Duration>,
    scrub: Scrub,
    tail: Tail,
    /// Counts reads, to find the file that was read least recently.
    read_clock: u64,
    room: Room,
    writes_in_flight: u64,
    write_rate: Rate,
    /// Groups whose next file is being made.
    making: usize,
    /// Groups whose next file is to be zeroed further, in turn.
    to_zero: VecDeque<GroupId>,
    /// Whether a file is being zeroed.
    zeroing: bool,
    completions: Vec<Completion>,
    events: Vec<Event>,
    failed: bool,
    /// When it was last said that the disk is full.
    full_said: Option<Duration>,
    counters: Counters,
    now: Duration,
}

/// What recovery found.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The groups, in the order they were asked for.
    pub groups: Vec<RecoveredGroup>,
    /// What is damaged.
    pub alarms: Vec<Alarm>,
}

/// Where a log starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStart {
    /// Before its first entry.
    pub position: Position,
    /// The log start offset, which may lie behind the first entry.
    pub log_start_offset: Offset,
    /// The epoch history before its first entry.
    pub epochs: Vec<Epoch>,
}

/// What is known of the room on the file system.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    /// What was available when it was asked for last, less what was reserved since.
    available: Option<u64>,
    /// Whether it is being asked for.
    asking: bool,
    /// When it was asked for last.
    asked_at: Option<Duration>,
}

impl Room {
    /// How large a group's next file may be, in bytes: those of all groups together take a quarter
    /// of what is available.
    fn share(&self, groups: usize) -> u64 {
        let groups = u64::try_from(groups.max(1)).expect("a count in memory");
        (self.available).map_or(u64::MAX, |available| available / 4 / groups)
    }
}

/// What an operation that was submitted was for.
#[derive(Debug)]
enum Action {
    /// A group's write.
    Write(GroupId),
    /// A copy of a journal unit.
    Journal(usize),
    /// A step in the making of a group's next file.
    Prepare(GroupId, files::PrepareStep),
    /// A piece of a group's next file is zeroed.
    Zero(GroupId),
    /// A step in the unlinking of a group's file.
    Unlink(GroupId, files::UnlinkStep),
    /// The unlinking of a file that was kept to be recycled, and the sync behind it.
    Spare(files::SpareStep),
    /// A step of a seal.
    Seal(GroupId),
    /// A step of a read.
    Read(u64),
    /// A step of the repair that is under way.
    Repair,
    /// A step of the scrubber.
    Scrub,
    /// How much room there is.
    Room,
    /// Nothing depends on it.
    Forget,
}

/// Groups.
impl<S: Storage> Store<S> {
    /// Adds a group that has nothing on this disk yet. It owns no file before its first write.
    /// The number of one that was dropped must not be used again: the removal may not be over
    /// when the node ends, and is finished by the next start.
    ///
    /// # Errors
    ///
    /// [`GroupError::Exists`], [`GroupError::Failed`], or [`GroupError::TooMany`] if the
    /// journal has no room for one more.
    pub fn create_group(&mut self, group: GroupId, config: GroupConfig) -> Result<(), GroupError> {
        self.check_open()?;
        if self.groups.contains_key(&group) {
            return Err(GroupError::Exists(group));
        }
        if self.groups.len() >= self.journal.groups_max() {
            return Err(GroupError::TooMany {
                groups: self.groups.len(),
            });
        }
        self.groups
            .insert(group, Box::new(Group::new(group, config)));
        Ok(())
    }

    /// Changes a group's settings; they hold from its next file on.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`] or [`GroupError::Failed`].
    pub fn configure_group(
        &mut self,
        group: GroupId,
        config: GroupConfig,
    ) -> Result<(), GroupError> {
        self.check_open()?;
        self.group_mut(group)?.config = config;
        Ok(())
    }

    /// Removes a group with everything it has on this disk, once the journal durably says that
    /// it was dropped. Nothing is reported of it any more.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`] or [`GroupError::Failed`].
    pub fn drop_group(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.check_open()?;
        let state = self.group_mut(group)?;
        state.dropping = true;
        state.record.dropped = true;
        state.forget_staged();
        state.to_seal.clear();
        self.journal.stage(group, None);
        self.dirty.insert(group);
        Ok(())
    }

    /// The groups of this store, ascending.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        let present = self.groups.values().filter(|group| !group.dropping);
        present.map(|group| group.id)
    }
}

/// Staging.
impl<S: Storage> Store<S> {
    /// Stages promises: a term and a vote in it.
    ///
    /// # Errors
    ///
    /// [`HardStateError`]; nothing was staged.
    pub fn set_hard_state(
        &mut self,
        group: GroupId,
        write: WriteId,
        hard: HardState,
    ) -> Result<(), HardStateError> {
        if self.failed {
            return Err(HardStateError::Failed);
        }
        let state = self.groups.get_mut(&group).filter(|group| !group.dropping);
        let state = state.ok_or(HardStateError::UnknownGroup(group))?;
        state.stage_hard_state(write, hard)?;
        self.journal.stage(group, Some(write));
        self.dirty.insert(group);
        Ok(())
    }

    /// Stages entries behind the log's end: all of them, or none.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was staged.
    pub fn append(
        &mut self,
        group: GroupId,
        write: WriteId,
        entries: &[NewEntry],
    ) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        let state = self.groups.get_mut(&group).filter(|group| !group.dropping);
        let state = state.ok_or(AppendError::UnknownGroup(group))?;
        state.stage_entries(write, entries)?;
        let count = u64::try_from(entries.len()).expect("a count fits into 64 bits");
        self.counters.appends += count;
        self.dirty.insert(group);
        Ok(())
    }

    /// Stages a conflict truncation: `first` is the next entry from now on.
    ///
    /// # Errors
    ///
    /// [`CutError`]; nothing was staged.
    pub fn cut(&mut self, group: GroupId, write: WriteId, first: LogIndex) -> Result<(), CutError> {
        if self.failed {
            return Err(CutError::Failed);
        }
        let state = self.groups.get_mut(&group).filter(|group| !group.dropping);
        let state = state.ok_or(CutError::UnknownGroup(group))?;
        state.stage_cut(write, first)?;
        self.dirty.insert(group);
        Ok(())
    }

    /// Stages the replacement of the whole log. Until it is persisted the replica neither
    /// counts nor votes with it.
    ///
    /// # Errors
    ///
    /// [`CutError`]; nothing was staged.
    pub fn base(&mut self, group: GroupId, write: WriteId, base: Base) -> Result<(), CutError> {
        if self.failed {
            return Err(CutError::Failed);
        }
        let state = self.groups.get_mut(&group).filter(|group| !group.dropping);
        let state = state.ok_or(CutError::UnknownGroup(group))?;
        state.stage_base(write, base)?;
        self.dirty.insert(group);
        Ok(())
    }

    /// Notes that everything up to `index` is committed: it is never cut, and its files may be
    /// sealed. An index beyond the log's end, or of an unknown group, is ignored.
    pub fn commit(&mut self, group: GroupId, index: LogIndex) {
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        let index = index.min(state.end.before.index);
        if index > state.commit {
            state.commit = index;
            state.marks.forget_below(index);
            self.dirty.insert(group);
        }
    }

    /// Asks for a file to be sealed that was [closed](Event::Closed), with its owner's state as
    /// of some committed entry. It happens once all its entries are committed and synced.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`] or [`GroupError::Failed`].
    pub fn seal(
        &mut self,
        group: GroupId,
        sequence: Sequence,
        snapshot: Snapshot,
    ) -> Result<(), GroupError> {
        self.check_open()?;
        self.group_mut(group)?
            .to_seal
            .push_back((sequence, snapshot));
        self.dirty.insert(group);
        Ok(())
    }

    /// Notes that the replica has rejoined: its log is whole again, and what its quarantine kept
    /// is unlinked.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`] or [`GroupError::Failed`].
    pub fn end_quarantine(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.check_open()?;
        self.group_mut(group)?.end_quarantine();
        self.journal.stage(group, None);
        self.dirty.insert(group);
        Ok(())
    }
}

/// Turns.
impl<S: Storage> Store<S> {
    /// Starts all that can be started, with one submission.
    pub fn flush(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.failed {
            return;
        }
        self.wake_waiting();
        self.push_idle_positions();
        self.drive_repairs();
        self.drive_scrub();
        while let Some(group) = self.dirty.pop_first() {
            self.drive(group);
        }
        self.write_journal();
        self.storage.flush();
    }

    /// Moves what has happened to `out`.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Event>) {
        self.now = self.now.max(now);
        let mut completions = std::mem::take(&mut self.completions);
        self.storage.poll(&mut completions);
        for completion in completions.drain(..) {
            let action = self.actions.remove(&completion.token);
            let action = action.expect("every operation completes once");
            self.complete(action, completion.result);
        }
        self.completions = completions;
        self.report_persisted();
        out.append(&mut self.events);
    }

    /// When [`flush`](Store::flush) and [`poll`](Store::poll) are due at the latest, if nothing
    /// completes before; nothing if nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.events.is_empty() || !self.dirty.is_empty() {
            return Some(self.now);
        }
        let idle = self.idle.front().map(|&(at, _)| at);
        let waiting = self.waiting.iter().map(|&(at, _)| at).min();
        let journal = self.journal_waiting.iter().map(|&(at, _)| at).min();
        let repair = self.repair_deadline();
        let due = [idle, waiting, journal, repair, self.scrub_deadline()];
        due.into_iter().flatten().min()
    }

    /// Blocks until something completes, or nothing is in flight. For start-up, tools and
    /// tests.
    pub fn wait(&mut self) {
        self.storage.wait();
    }

    /// Whether anything is staged or under way, the making of files included.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.actions.is_empty()
            || !self.dirty.is_empty()
            || self.journal.has_work()
            || self.groups.values().any(|group| !group.is_idle())
    }

    /// The disk below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The disk below: for simulations that pass it the time.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// What this store has done since it was opened.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many groups have entries that are damaged, and so in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        let records = self.groups.values().map(|group| &group.record);
        records.filter(|it| it.quarantine.is_some()).count()
    }

    /// The first entry of a group that is known to be damaged or missing, and is not mended yet.
    #[must_use]
    pub fn first_hole(&self, group: GroupId) -> Option<LogIndex> {
        let holes = &self.groups.get(&group)?.holes;
        holes.first().map(|&(first, _)| first)
    }

    /// Whether the directory has lost promises, in this life or an earlier one: what its groups
    /// have as hard states may be older than what they said to others. None of them may vote,
    /// campaign or acknowledge ever again, those that are created from now on among them, since
    /// they may have been here before.
    #[must_use]
    pub const fn has_lost_promises(&self) -> bool {
        self.journal.has_lost_promises()
    }

    /// Whether a write or sync has failed: the store is closed for good.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Looks for what a group has to do.
    fn drive(&mut self, group: GroupId) {
        self.close_files(group);
        self.drive_unlinks(group);
        self.drive_seals(group);
        self.drive_writes(group);
        self.report(group);
    }

    fn report_persisted(&mut self) {
        let touched: Vec<GroupId> = self.dirty.iter().copied().collect();
        for group in touched {
            self.report(group);
        }
    }

    fn report(&mut self, group: GroupId) {
        let Some(state) = self.groups.get_mut(&group).filter(|group| !group.dropping) else {
            return;
        };
        if self.failed {
            return;
        }
        if let Some(write) = state.persisted() {
            self.events.push(Event::Persisted { group, write });
        }
    }

    fn complete(&mut self, action: Action, result: Result<Output, StorageError>) {
        match action {
            Action::Write(group) => self.write_completed(group, result),
            Action::Journal(copy) => self.journal_completed(copy, result),
            Action::Prepare(group, step) => self.prepare_completed(group, step, result),
            Action::Zero(group) => self.zero_completed(group, result),
            Action::Unlink(group, step) => self.unlink_completed(group, step, result),
            Action::Spare(step) => self.spare_completed(step, result),
            Action::Seal(group) => self.seal_completed(group, result),
            Action::Read(job) => self.read_completed(job, result),
            Action::Repair => self.repair_completed(result),
            Action::Scrub => self.scrub_completed(result),
            Action::Room => self.room_completed(result),
            Action::Forget => {}
        }
    }

    fn submit(&mut self, action: Action, op: Op) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.actions.insert(token, action);
        self.storage.submit(token, op);
    }

    fn close_files(&mut self, group: GroupId) {
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        for file in std::mem::take(&mut state.to_close) {
            self.close(file);
        }
    }

    /// Closes a file, or leaves that to the last of the reads that are under way in it.
    fn close(&mut self, file: FileId) {
        if !self.readers.leave(file) {
            self.submit(Action::Forget, Op::Close { file });
        }
    }

    /// Closes the store for good: a failed write or sync is final.
    fn fail(&mut self, error: StorageError) {
        if !self.failed {
            self.failed = true;
            self.events.push(Event::Failed { error });
        }
    }

    fn check_open(&self) -> Result<(), GroupError> {
        if self.failed {
            return Err(GroupError::Failed);
        }
        Ok(())
    }

    fn group(&self, group: GroupId) -> Result<&Group, GroupError> {
        let state = self.groups.get(&group).filter(|state| !state.dropping);
        state
            .map(Box::as_ref)
            .ok_or(GroupError::UnknownGroup(group))
    }

    fn group_mut(&mut self, group: GroupId) -> Result<&mut Group, GroupError> {
        let state = self.groups.get_mut(&group).filter(|state| !state.dropping);
        state
            .map(Box::as_mut)
            .ok_or(GroupError::UnknownGroup(group))
    }
}

/// Questions about a group's log. Staged entries are part of it.
impl<S: Storage> Store<S> {
    /// Where a log starts.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn start(&self, group: GroupId) -> Result<LogStart, GroupError> {
        let state = self.group(group)?;
        Ok(LogStart {
            position: state.start,
            log_start_offset: state.log_start_offset,
            epochs: state.epochs.before(state.start.first()).to_vec(),
        })
    }

    /// The end of a log: its last entry, the chain there, and the offset behind it.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn end(&self, group: GroupId) -> Result<Position, GroupError> {
        Ok(self.group(group)?.end)
    }

    /// The last entry that is durable together with all before it.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn synced(&self, group: GroupId) -> Result<LogIndex, GroupError> {
        Ok(self.group(group)?.synced)
    }

    /// Bytes of entries that are not durable yet.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn unsynced_bytes(&self, group: GroupId) -> Result<usize, GroupError> {
        Ok(self.group(group)?.unsynced_bytes)
    }

    /// The term of an entry, if it is known: not below the log's start, nor beyond its end.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn term_at(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, GroupError> {
        let state = self.group(group)?;
        if index == state.start.before.index {
            return Ok(Some(state.start.before.term));
        }
        let inside = state.start.before.index < index && index <= state.end.before.index;
        Ok(inside.then(|| state.epochs.term_at(index)).flatten())
    }

    /// The chain at an entry, if it is in memory: from the commit index on, and where a file
    /// starts or ends.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn chain_at(&self, group: GroupId, index: LogIndex) -> Result<Option<Chain>, GroupError> {
        let state = self.group(group)?;
        let mark = state.marks.at(index).map(|position| position.chain);
        Ok(mark.or_else(|| {
            let ends = state
                .segments
                .iter()
                .flat_map(|segment| [segment.start, segment.end]);
            let mut at = ends.filter(|position| position.before.index == index);
            at.next().map(|position| position.chain)
        }))
    }

    /// Whether it is known where the entry before `first` ends, so that the log can be cut there:
    /// not if that entry is missing, and before the commit index mostly not.
    #[must_use]
    pub fn can_cut(&self, group: GroupId, first: LogIndex) -> bool {
        let state = self.group(group);
        state.is_ok_and(|state| state.position_before(first).is_some())
    }

    /// The epoch history of a log.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn epochs(&self, group: GroupId) -> Result<&[Epoch], GroupError> {
        Ok(self.group(group)?.epochs.as_slice())
    }

    /// What a group promised, staged promises included.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn hard_state(&self, group: GroupId) -> Result<HardState, GroupError> {
        Ok(self.group(group)?.record.hard)
    }

    /// The last entry, for short.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownGroup`].
    pub fn last(&self, group: GroupId) -> Result<EntryId, GroupError> {
        Ok(self.group(group)?.end.before)
    }
}

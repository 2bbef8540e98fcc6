//! Repair: a file with holes is copied, what is missing comes from other replicas, and the copy
//! is renamed over it (DESIGN.md section 4, Recovery; docs/format.md, Repair).
//!
//! One file at a time, a step of it at a time. Nothing of the old file is changed; a crash leaves
//! the old file or the new one, both whole, and perhaps a copy in the making, which the next
//! start removes. The copy is renamed only after every frame in it has been verified again, up
//! to the chain that its footer or the next file names.
//!
//! A file that is gone whole is made anew in the same way, under a number that is free between the
//! files beside it: its entries are those between where they end and begin.

mod copy;
mod job;

use std::time::Duration;

use super::open::first_frame;
use super::{Action, Store};
use crate::config::SEGMENT_BYTES_MIN;
use crate::entry::{Entry, Position};
use crate::event::Event;
use crate::format::identity::FileIdentity;
use crate::group::Group;
use crate::group::segment::{Segment, SegmentState};
use crate::ids::{GroupId, LogIndex, Sequence};
use crate::paths;
use crate::repair::fill::FillError;
use crate::storage::{Op, Output, Storage, StorageError};

pub(super) use job::RepairJob;
use job::Step;

/// How long the owner has to supply what is wanted before it is asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is asked for the same entries before the file is left for later.
const ASKS_MAX: u32 = 8;

/// How long a group waits after an attempt that has failed. Meanwhile others have their turn.
const PAUSE: Duration = Duration::from_secs(5);

/// How many bytes of frames may have been supplied and not yet copied.
const SUPPLIED_BYTES_MAX: u64 = 4 << 20;

/// Why a repair was given up, for this time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GivenUp {
    #[error("no other replica has supplied entry {0}")]
    NotSupplied(LogIndex),
    #[error(transparent)]
    Fill(#[from] FillError),
    #[error("{0}")]
    Storage(StorageError),
    #[error("byte {0} could be read at first, and cannot any more")]
    Unreadable(u64),
    #[error("the copy does not verify at byte {0}")]
    Copy(u64),
    #[error("the footer is bad")]
    Footer,
    #[error("the begin frame is bad, and holds what nobody else has")]
    Begin,
    #[error("the file is not there any more, or has changed")]
    Gone,
    #[error("what it lacks takes more room than the {0} bytes that it was given")]
    Outgrown(u64),
}

impl<S: Storage> Store<S> {
    /// Takes entries that [`Event::EntriesWanted`] asked for, in order, from whoever has them.
    /// What was not asked for is ignored.
    ///
    /// # Errors
    ///
    /// [`FillError`] if they are not what was there: then the repair begins anew, later.
    pub fn supply(&mut self, group: GroupId, entries: &[Entry]) -> Result<(), FillError> {
        let wants = self.repair.as_ref().filter(|job| job.group == group);
        if !wants.is_some_and(RepairJob::is_waiting) {
            return Ok(());
        }
        for entry in entries {
            let job = self.repair.as_mut().expect("it was looked up above");
            if job.supplied_bytes() >= SUPPLIED_BYTES_MAX {
                break;
            }
            match job.add(entry) {
                Ok(()) => {}
                Err(FillError::NotAsked { .. }) => break,
                Err(error) => {
                    self.give_up(GivenUp::Fill(error));
                    return Err(error);
                }
            }
            if let Some(len) = self.outgrown() {
                self.give_up(GivenUp::Outgrown(len));
                return Ok(());
            }
        }
        self.repair_goes_on();
        Ok(())
    }

    /// Whether something is to be repaired, or being so.
    #[must_use]
    pub fn has_repairs(&self) -> bool {
        self.repair.is_some() || !self.damaged.is_empty()
    }

    /// Whether a file of a group is being repaired.
    pub(super) fn is_repairing(&self, group: GroupId) -> bool {
        self.repair.as_ref().is_some_and(|job| job.group == group)
    }

    /// Begins a repair that is due, or asks again for what was not supplied.
    pub(super) fn drive_repairs(&mut self) {
        match &self.repair {
            None => self.begin_repair(),
            Some(job) if job.is_waiting() && self.now >= job.asked_at + ASK_INTERVAL => self.ask(),
            Some(_) => {}
        }
    }

    /// When [`drive_repairs`](Store::drive_repairs) is due, if nothing completes before.
    pub(super) fn repair_deadline(&self) -> Option<Duration> {
        match &self.repair {
            None => self.damaged.values().min().copied(),
            Some(job) => job.is_waiting().then(|| job.asked_at + ASK_INTERVAL),
        }
    }

    /// A group has holes, or a file that is suspected of some.
    pub(super) fn note_damaged(&mut self, group: GroupId) {
        self.damaged.entry(group).or_insert(self.now);
    }

    fn begin_repair(&mut self) {
        let now = self.now;
        let due = self.damaged.iter().filter(|&(_, &at)| at <= now);
        let due: Vec<GroupId> = due.map(|(&group, _)| group).collect();
        for group in due {
            match self.groups.get(&group).and_then(|state| repairable(state)) {
                Some(Repairable::Copy(sequence)) => return self.open_damaged(group, sequence),
                Some(Repairable::Make(gone)) => return self.make_gone(group, &gone),
                Some(Repairable::Later) => {
                    self.damaged.insert(group, now + PAUSE);
                }
                None => {
                    self.damaged.remove(&group);
                }
            }
        }
    }

    fn open_damaged(&mut self, group: GroupId, sequence: Sequence) {
        let state = &self.groups[&group];
        let at = state.segments.iter().position(|it| it.sequence == sequence);
        let at = at.expect("it was just found");
        let limit = limit(state, at);
        let job = RepairJob::new(state, &state.segments[at], limit, self.align);
        tracing::info!(group = group.0, path = job.path(), "repair begins");
        self.counters.repairs_begun += 1;
        self.repair = Some(job);
        let path = paths::segment(group, sequence);
        self.submit(Action::Repair, Op::Open { path, write: false });
    }

    /// Makes a file anew that is gone whole. How long it was is not known: no longer than those
    /// beside it, mostly, or else as long as the last attempt has shown.
    fn make_gone(&mut self, group: GroupId, gone: &Gone) {
        let salt = self.salts.u64(..);
        let state = &self.groups[&group];
        let first_frame = first_frame(self.align);
        let align = u64::try_from(self.align).expect("an alignment fits into 64 bits");
        let size = gone.bytes.max(state.made_bytes);
        let identity = FileIdentity {
            first_frame,
            cluster: self.owner.cluster,
            incarnation: self.owner.incarnation,
            group,
            sequence: gone.sequence,
            salt,
            size: size.max(SEGMENT_BYTES_MIN).next_multiple_of(align),
            recycled: false,
        };
        let mut job = RepairJob::making(state, gone, identity, self.align);
        tracing::info!(group = group.0, path = job.path(), "a file is made anew");
        self.counters.repairs_begun += 1;
        let step = job.begin_copy(&self.owner);
        self.repair = Some(job);
        self.repair_step(step);
    }

    /// How long the file must be that is being made anew, if it turns out too short.
    fn outgrown(&mut self) -> Option<u64> {
        let job = self.repair.as_ref()?;
        let bytes = job.outgrown().filter(|_| job.is_gone)?;
        let state = self.groups.get_mut(&job.group)?;
        state.made_bytes = bytes.max(job.len).saturating_mul(2);
        Some(job.len)
    }

    pub(super) fn repair_completed(&mut self, result: Result<Output, StorageError>) {
        let Some(mut job) = self.repair.take() else {
            return;
        };
        let is_there = self
            .groups
            .get(&job.group)
            .is_some_and(|state| job.is_in(state));
        let step = match is_there || job.is_ending() {
            true => job.completed(result),
            false => {
                job.keep_open(&result);
                Step::GiveUp(GivenUp::Gone)
            }
        };
        self.repair = Some(job);
        self.repair_step(step);
    }

    /// What was supplied may be enough for the next step.
    fn repair_goes_on(&mut self) {
        let job = self.repair.as_mut().expect("the caller has one");
        let step = job.goes_on();
        self.repair_step(step);
    }

    fn repair_step(&mut self, step: Step) {
        match step {
            Step::Run(op) => self.submit(Action::Repair, op),
            Step::Ask => self.ask(),
            Step::Wait => {}
            Step::Surveyed => self.surveyed(),
            Step::Rename => self.rename_copy(),
            Step::Done => self.repaired(),
            Step::Fail(error) => self.fail(error),
            Step::GiveUp(reason) => self.give_up(reason),
            Step::Over => self.end_repair(),
        }
    }

    /// It is known now what is bad in the file.
    fn surveyed(&mut self) {
        let job = self.repair.as_mut().expect("the caller has one");
        let (group, covers, holes) = (job.group, job.covers(), job.holes());
        let state = self.groups.get_mut(&group).expect("it was looked up");
        if state.set_holes(covers, &holes) {
            self.journal.stage(group, None);
        }
        let job = self.repair.as_mut().expect("the caller has one");
        let step = job.begin_copy(&self.owner);
        self.repair_step(step);
    }

    fn ask(&mut self) {
        let now = self.now;
        let job = self.repair.as_mut().expect("the caller has one");
        let Some((from, last)) = job.wanted() else {
            return;
        };
        if job.asks >= ASKS_MAX {
            return self.give_up(GivenUp::NotSupplied(from));
        }
        job.asks += 1;
        job.asked_at = now;
        let group = job.group;
        self.events.push(Event::EntriesWanted { group, from, last });
    }

    /// The copy is whole. While its name changes nothing of the group is unlinked: a file that
    /// retention removes must not come back.
    fn rename_copy(&mut self) {
        let job = self.repair.as_mut().expect("the caller has one");
        let state = self.groups.get_mut(&job.group).expect("it was looked up");
        if state.unlinking {
            // To be looked at again: it takes as long as this does.
            return self.submit(Action::Repair, Op::Space);
        }
        state.unlinking = true;
        let op = job.rename();
        self.submit(Action::Repair, op);
    }

    /// The copy has taken the file's place, durably.
    fn repaired(&mut self) {
        let job = self.repair.as_mut().expect("the caller has one");
        let (group, sequence) = (job.group, job.sequence);
        let (entries, bytes, covers) = (job.entries, job.len, job.covers());
        let is_gone = job.is_gone;
        let state = self
            .groups
            .get_mut(&group)
            .expect("it is not unlinked meanwhile");
        state.unlinking = false;
        let epochs = job.epochs();
        let (end, written_end) = (job.end(), job.written_end());
        if is_gone && !state.take_made(job.made()) {
            // The group's log has changed: nothing is missing there any more.
            state.hide(vec![sequence]);
        }
        let Some(segment) = state.segment_mut(sequence) else {
            // A base has hidden it: it goes under its name, whichever file that is now.
            self.dirty.insert(group);
            return self.close_repair(false);
        };
        let stale = segment.take_copy(written_end, bytes);
        let is_as_it_was = job.is_in(state);
        if is_as_it_was {
            let segment = state.segment_mut(sequence).expect("it was just there");
            segment.reach(end);
            for (before, filled) in job.filled() {
                state.marks.fill(before, filled);
            }
            state.epochs.mend(&epochs);
            state.suspects.remove(&sequence);
            state.set_holes(covers, &[]);
        }
        let is_whole = state.record.quarantine.is_none();
        self.journal.stage(group, None);
        self.dirty.insert(group);
        if let Some(stale) = stale {
            self.close(stale);
        }
        self.scrub.forget(group, sequence);
        self.counters.repaired_files += 1;
        self.counters.made_files += u64::from(is_gone);
        self.counters.repaired_entries += entries;
        tracing::info!(
            group = group.0,
            sequence = sequence.0,
            entries,
            is_whole,
            "repaired"
        );
        self.events.push(Event::Repaired {
            group,
            sequence,
            entries,
            is_whole,
        });
        self.announce_closed_of(group);
        self.damaged.insert(group, self.due_after(group, sequence));
        self.close_repair(false);
    }

    /// When a group is looked at again whose file was just repaired: at once, unless what is left
    /// to repair is that same file. Its copy is whole, so another would change nothing.
    fn due_after(&self, group: GroupId, repaired: Sequence) -> Duration {
        match self.groups.get(&group).and_then(|state| repairable(state)) {
            Some(Repairable::Copy(next)) if next == repaired => self.now + PAUSE,
            _ => self.now,
        }
    }

    fn give_up(&mut self, reason: GivenUp) {
        let job = self.repair.as_ref().expect("the caller has one");
        let (group, path) = (job.group, job.path());
        tracing::warn!(group = group.0, path, %reason, "repair given up for now");
        self.counters.repairs_given_up += 1;
        let is_outgrown = matches!(reason, GivenUp::Outgrown(_));
        let pause = if is_outgrown { Duration::ZERO } else { PAUSE };
        self.damaged.insert(group, self.now + pause);
        let sequence = job.sequence;
        if let Some(state) = self.groups.get_mut(&group).filter(|_| !is_outgrown) {
            state.repair_passed = Some(sequence);
        }
        self.close_repair(true);
    }

    /// Lets go of the files; of the copy, too, if it has not taken the file's place.
    fn close_repair(&mut self, unlink: bool) {
        let job = self.repair.as_mut().expect("the caller has one");
        let files = job.take_files();
        let step = match unlink {
            true => job.discard(),
            false => Step::Over,
        };
        for file in files {
            self.submit(Action::Forget, Op::Close { file });
        }
        self.repair_step(step);
    }

    fn end_repair(&mut self) {
        // A seal may have waited for it.
        let group = self.repair.take().map(|job| job.group);
        let groups = &self.groups;
        self.dirty
            .extend(group.filter(|group| groups.contains_key(group)));
    }
}

/// What can be done for a group now.
enum Repairable {
    /// A file is copied, and what it lacks is filled in.
    Copy(Sequence),
    /// A file is made anew.
    Make(Gone),
    /// The file is still being written or sealed, or there is no number for a new one.
    Later,
}

/// A file that is gone whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    /// The number that a new one takes.
    sequence: Sequence,
    /// Where the file below it ends.
    before: Position,
    /// Where the one above it begins.
    behind: Position,
    /// How long the longer of them was made, in bytes.
    bytes: u64,
}

impl Repairable {
    const fn sequence(&self) -> Option<Sequence> {
        match self {
            Repairable::Copy(sequence) => Some(*sequence),
            Repairable::Make(gone) => Some(gone.sequence),
            Repairable::Later => None,
        }
    }
}

/// The next file to be repaired: they have turns, so that one which nobody can supply keeps no
/// other from being mended.
fn repairable(state: &Group) -> Option<Repairable> {
    if state.dropping || state.is_quarantined_to_end() {
        return None;
    }
    let with_hole = state.holes.iter();
    let with_hole = with_hole.filter_map(|&(first, _)| for_hole(state, first));
    let suspected = state.segments.iter();
    let suspected = suspected.filter(|segment| state.suspects.contains(&segment.sequence));
    let mut found: Vec<Repairable> = with_hole
        .chain(suspected.map(|segment| to_copy(state, segment)))
        .collect();
    found.sort_by_key(Repairable::sequence);
    let any = !found.is_empty();
    found.retain(|it| it.sequence().is_some());
    let next = found
        .iter()
        .position(|it| it.sequence() > state.repair_passed);
    match found.is_empty() {
        false => Some(found.swap_remove(next.unwrap_or(0))),
        true => any.then_some(Repairable::Later),
    }
}

fn to_copy(state: &Group, segment: &Segment) -> Repairable {
    match segment.state == SegmentState::Active || state.sealing {
        true => Repairable::Later,
        false => Repairable::Copy(segment.sequence),
    }
}

/// What is done for the hole that begins with an entry.
fn for_hole(state: &Group, first: LogIndex) -> Option<Repairable> {
    let behind = state
        .segments
        .partition_point(|it| it.start.first() <= first);
    let at = behind.checked_sub(1)?;
    let segment = &state.segments[at];
    let limit = limit(state, at);
    if first > limit.before.index {
        return None;
    }
    if segment.end.first() != first {
        return Some(to_copy(state, segment));
    }
    let Some(next) = state.segments.get(behind) else {
        // The file that a cut begins lies behind it soon.
        let is_last = !state.is_being_cut();
        return Some(if is_last {
            to_copy(state, segment)
        } else {
            Repairable::Later
        });
    };
    // Behind all that the file has. Its own end may be bad; but a footer, or a number that is
    // missing, says that the entries lay in another.
    let between = segment.sequence.next().0..next.sequence.0;
    let free = between.map(Sequence).find(|&it| !state.names(it));
    match free {
        Some(sequence) => Some(Repairable::Make(Gone {
            sequence,
            before: segment.end,
            behind: limit,
            bytes: segment.len.max(next.len),
        })),
        None if segment.state == SegmentState::Sealed => Some(Repairable::Later),
        None => Some(to_copy(state, segment)),
    }
}

/// Behind the last entry that a file should hold: where the next one starts. What follows the
/// last file is a hole only if recovery has found one there.
fn limit(state: &Group, at: usize) -> Position {
    let segment = &state.segments[at];
    if let Some(next) = state.segments.get(at + 1) {
        return next.start;
    }
    let mut holes = state.holes.iter();
    let ends_bad =
        holes.any(|&(first, last)| first == segment.end.first() && last == state.end.before.index);
    match ends_bad {
        true => state.end,
        false => segment.end,
    }
}

//! A chain of lives on one disk, each ended by a power cut, each beginning with what the one
//! before has left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fastrand::Rng;
use highwater_log::storage::{Access, DataDirectory, DirectoryError, RealStorage};
use highwater_log::{
    Alarm, Chain as ChainHash, Damage, Directory, EntryId, Expected, GroupId, HardState,
    JOURNAL_HALF_BYTES, LogIndex, NodeId, Position, Recovered, Term, WriteId,
};
use highwater_record::Offset;

use super::args::Backend;
use super::log_model::model::{ModelGroup, ModelLog, check_epochs};
use super::log_model::{Node, config, directory_format, open_store, pool};
use super::message::Message;
use super::process::{Heard, PATIENCE, Process};
use super::tally::Tally;
use super::writer::Life;
use crate::clock::now;
use crate::disk_image::{Cut, DiskImage, FileSystem, PAGE_BYTES, write_back};

/// How large an image is, in bytes. XFS takes none below 300 MiB; they are sparse.
const IMAGE_BYTES: u64 = 320 << 20;

/// A disk with less room than this is retired, in bytes.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// How many groups there are at a time.
const GROUPS: u64 = 4;

/// How many messages a life consists of at most, if its disk is not held.
const MESSAGES_MAX: usize = 3_000;

/// How many operations happen at most before a disk is held.
const OPERATIONS_MAX: u64 = 700;

/// How many operations of a recovery happen at most before the power is cut again.
const RECOVERY_OPERATIONS_MAX: u64 = 120;

/// How often it is looked whether a killed process has let go of its directory.
const LOCK_POLL: Duration = Duration::from_millis(1);

/// Where and through what a chain runs, and all its chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file_system: FileSystem,
    pub(super) backend: Backend,
    pub(super) seed: u64,
    pub(super) lies: bool,
    pub(super) mutant: Option<usize>,
}

impl Setting {
    /// Another stream for each file system and storage.
    pub(super) fn rng(&self) -> Rng {
        let place = match self.file_system {
            FileSystem::Ext4 => 0,
            FileSystem::Xfs => 3,
        } + match self.backend {
            Backend::Uring => 0,
            Backend::Portable => 1,
            Backend::Buffered => 2,
        };
        Rng::with_seed(self.seed << 8 | place)
    }
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// After how many operations the disk is held, if it is.
    held_after: Option<u64>,
    /// After how many messages and microseconds the power is cut, if the disk is not held.
    messages: usize,
    micros: u64,
    cut: Cut,
    /// Whether the writer lives on until it has noticed.
    lingers: bool,
    /// Whether it is first the process alone that dies, and the power is cut when what it has
    /// left was recovered: then that is durable.
    dies_first: bool,
    /// In the recovery, after how many operations, the power is cut again, if it is.
    again_after: Option<u64>,
}

impl End {
    fn draw(rng: &mut Rng) -> End {
        let is_held = rng.u8(..3) != 0;
        End {
            held_after: is_held.then(|| rng.u64(1..OPERATIONS_MAX)),
            messages: rng.usize(1..MESSAGES_MAX),
            micros: rng.u64(..4_000),
            cut: draw_cut(rng),
            lingers: !is_held && rng.u8(..4) == 0,
            dies_first: rng.u8(..6) == 0,
            again_after: (rng.u8(..4) == 0).then(|| rng.u64(..RECOVERY_OPERATIONS_MAX)),
        }
    }
}

pub(super) fn draw_cut(rng: &mut Rng) -> Cut {
    match rng.u8(..10) {
        0 => Cut::Nothing,
        1 => Cut::KeepJournal,
        _ => Cut::Everything,
    }
}

/// Lives on one disk, and what may be on it by now.
pub(super) struct Chain {
    setting: Setting,
    image: DiskImage,
    data: PathBuf,
    /// What the writer complains of.
    errors: PathBuf,
    rng: Rng,
    lives: u64,
    model: BTreeMap<GroupId, ModelGroup>,
    /// Checksums of all bodies that may be there.
    bodies: BTreeMap<(GroupId, EntryId), u32>,
    /// The entries that were staged in this life.
    staged: BTreeSet<(GroupId, EntryId)>,
    /// When the power went in this life, if it has: what was acknowledged from then on is not
    /// believed.
    gone_at: Option<u64>,
    /// Groups that are to be removed, and may be gone.
    dropping: BTreeSet<GroupId>,
    highest_group: u64,
}

impl Chain {
    /// Makes a disk and formats it.
    pub(super) fn new(setting: Setting, folder: &Path) -> anyhow::Result<Chain> {
        let name = "disk";
        let image = DiskImage::create(folder, name, setting.file_system, IMAGE_BYTES)?;
        let data = image.path().join("data");
        let directory = DataDirectory::create(&data)?;
        let mut storage = setting.backend.open(directory, pool())?;
        Directory::format(&mut storage, &directory_format())?;
        let mut chain = Chain {
            setting,
            image,
            data,
            errors: folder.join(format!("{name}.errors")),
            rng: setting.rng(),
            lives: 0,
            model: BTreeMap::new(),
            bodies: BTreeMap::new(),
            staged: BTreeSet::new(),
            gone_at: None,
            dropping: BTreeSet::new(),
            highest_group: 0,
        };
        (0..GROUPS).for_each(|_| chain.add_group());
        Ok(chain)
    }

    fn add_group(&mut self) {
        self.highest_group += 1;
        self.model
            .insert(GroupId(self.highest_group), ModelGroup::new());
    }

    /// Whether there is room for another life.
    pub(super) fn has_room(&self) -> anyhow::Result<bool> {
        Ok(self.image.free_bytes()? >= FREE_BYTES_MIN)
    }

    /// Ends the chain, and keeps its image, which did not hold what it should. Gives its path.
    pub(super) fn keep(self) -> anyhow::Result<PathBuf> {
        self.image.keep()
    }

    /// A life, its end, and the judgement of what is left.
    ///
    /// # Errors
    ///
    /// What is not as it should be.
    ///
    /// # Panics
    ///
    /// If something else was recovered than the contract allows.
    pub(super) fn live(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.lives += 1;
        self.staged.clear();
        self.gone_at = None;
        let end = End::draw(&mut self.rng);
        self.write_until(&end, tally)?;
        if end.dies_first {
            self.judge(tally)?;
            self.staged.clear();
            self.image.cut_power(end.cut)?;
        }
        self.image.restore_power()?;
        if let Some(operations) = end.again_after {
            self.recover_until(operations, tally)?;
            self.image.restore_power()?;
        }
        self.judge(tally)
    }

    /// A writer writes, until the power is cut.
    fn write_until(&mut self, end: &End, tally: &mut Tally) -> anyhow::Result<()> {
        let process = self.start(end.held_after, false)?;
        let dirty = match end.held_after {
            Some(_) => self.hear_until_held(&process)?,
            None => self.hear_messages(&process, end.messages)?,
        };
        if end.held_after.is_none() {
            thread::sleep(Duration::from_micros(end.micros));
        }
        self.write_some_back(&dirty, tally)?;
        if !end.dies_first {
            self.gone_at = Some(now());
            self.image.cut_power(end.cut)?;
        }
        if end.lingers && !end.dies_first {
            self.hear_of_failure(&process)?;
        }
        for message in process.kill()? {
            self.take(&message);
        }
        tally.count_cut(
            end.cut,
            end.held_after.is_some(),
            end.lingers && !end.dies_first,
        );
        tally.after_death += u64::from(end.dies_first);
        Ok(())
    }

    /// The power is cut while the node recovers.
    fn recover_until(&mut self, operations: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let process = self.start(Some(operations), true)?;
        let deadline = Instant::now() + PATIENCE;
        let mut dirty = Vec::new();
        loop {
            match process.hear(deadline) {
                Heard::Message(message @ Message::Dirty { .. }) => dirty.push(message),
                // It may have come to its end before.
                Heard::Message(Message::Held) | Heard::End => break,
                Heard::Message(other) => bail!("a recovery said {other:?}"),
                Heard::Nothing => bail!("the recovery is silent: {}", self.complaints()),
            }
        }
        let complaints = self.complaints();
        ensure!(complaints.is_empty(), "the recovery failed: {complaints}");
        self.write_some_back(&dirty, tally)?;
        self.image.cut_power(draw_cut(&mut self.rng))?;
        process.kill()?;
        tally.cuts_in_recovery += 1;
        Ok(())
    }

    fn start(&mut self, held_after: Option<u64>, recover_only: bool) -> anyhow::Result<Process> {
        let groups = self.model.iter();
        let groups = groups.filter(|(group, _)| !self.dropping.contains(group));
        let life = Life {
            data: self.data.clone(),
            backend: self.setting.backend,
            seed: self.rng.u64(..),
            held_after,
            groups: groups.map(|(id, group)| (id.0, group.commit.0)).collect(),
            recover_only,
            lies: self.setting.lies,
            mutant: self.setting.mutant,
        };
        Process::start(&life, &self.errors)
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Listens until nothing comes back from the disk; gives what is dirty then.
    fn hear_until_held(&mut self, process: &Process) -> anyhow::Result<Vec<Message>> {
        let mut dirty = Vec::new();
        loop {
            match self.hear(process)? {
                Message::Held => return Ok(dirty),
                Message::Failed { why } => bail!("the store has closed itself: {why}"),
                message @ Message::Dirty { .. } => dirty.push(message),
                message => self.take(&message),
            }
        }
    }

    fn hear_messages(&mut self, process: &Process, count: usize) -> anyhow::Result<Vec<Message>> {
        for _ in 0..count {
            match self.hear(process)? {
                Message::Failed { why } => bail!("the store has closed itself: {why}"),
                message => self.take(&message),
            }
        }
        Ok(Vec::new())
    }

    /// The disk is gone: the store must close itself.
    fn hear_of_failure(&mut self, process: &Process) -> anyhow::Result<()> {
        loop {
            match self.hear(process).context("the disk is gone")? {
                Message::Failed { .. } => return Ok(()),
                message => self.take(&message),
            }
        }
    }

    fn hear(&self, process: &Process) -> anyhow::Result<Message> {
        match process.hear(Instant::now() + PATIENCE) {
            Heard::Message(message) => Ok(message),
            Heard::End => bail!("the writer has ended by itself: {}", self.complaints()),
            Heard::Nothing => bail!("the writer is silent: {}", self.complaints()),
        }
    }

    /// Of what is in memory only, some pages reach the disk.
    fn write_some_back(&mut self, dirty: &[Message], tally: &mut Tally) -> anyhow::Result<()> {
        for message in dirty {
            let Message::Dirty {
                path,
                offset,
                bytes,
            } = message
            else {
                continue;
            };
            // It may have been removed since.
            let Ok(file) = File::open(self.data.join(path)) else {
                continue;
            };
            let pages = bytes.div_ceil(PAGE_BYTES);
            let front = self.rng.u64(..=pages);
            let way = self.rng.u8(..3);
            for page in 0..pages {
                let is_chosen = match way {
                    0 => false,
                    1 => page < front,
                    _ => self.rng.bool(),
                };
                if is_chosen {
                    write_back(&file, offset + page * PAGE_BYTES, PAGE_BYTES)?;
                    tally.pages_written_back += 1;
                }
            }
        }
        Ok(())
    }

    /// Enters into the model what the writer has said.
    ///
    /// A process does not outlive its machine's power; this one does, for a moment or until it has
    /// noticed. To a sync that begins or ends after a file system was shut down, ext4 and XFS may
    /// say that all is well and lose the data.
    fn take(&mut self, message: &Message) {
        match *message {
            Message::Persisted { at, .. } if self.gone_at.is_some_and(|gone| at >= gone) => return,
            Message::Create { group } => {
                self.highest_group = self.highest_group.max(group);
                self.model.insert(GroupId(group), ModelGroup::new());
            }
            Message::Drop { group } => {
                self.dropping.insert(GroupId(group));
            }
            Message::Append {
                group,
                index,
                term,
                crc,
                ..
            } => {
                let id = EntryId {
                    index: LogIndex(index),
                    term: Term(term),
                };
                self.bodies.insert((GroupId(group), id), crc);
                self.staged.insert((GroupId(group), id));
            }
            _ => {}
        }
        if let Some(group) = message.group()
            && let Some(model) = self.model.get_mut(&GroupId(group))
        {
            take_of_group(model, message);
        }
    }

    /// What is there is what the contract allows.
    fn judge(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let (mut node, recovered) = self.open()?;
        let context = format!("life {}", self.lives);
        let mut gone = Vec::new();
        for (group, model) in &mut self.model {
            let is_dropped = self.dropping.contains(group);
            let fate = if is_dropped { ", to be removed" } else { "" };
            let context = format!("{context}, group {group}{fate}");
            let found = recovered.groups.iter().find(|it| it.group == *group);
            let Some(found) = found else {
                if !is_dropped {
                    model.compare_absent(&context);
                }
                gone.push(*group);
                continue;
            };
            let entries = node.read_all(*group);
            for entry in &entries {
                let staged = self.bodies.get(&(*group, entry.id));
                assert_eq!(staged, Some(&entry.body_crc), "{context}: {}", entry.id);
            }
            let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
            let durable = model.logs[0].1.ids_from(found.start.first());
            let new = durable
                .iter()
                .filter(|&&id| self.staged.contains(&(*group, id)));
            tally.acknowledged += new.count() as u64;
            tally.entries_read += ids.len() as u64;
            tally.torn_tails += u64::from(found.torn.is_some());
            model.check(found, &ids, &context);
            check_epochs(found, &ids, &context);
        }
        for group in gone {
            self.forget(group);
        }
        self.prune_bodies();
        Ok(())
    }

    /// A group is not there. One that never was may still be made.
    fn forget(&mut self, group: GroupId) {
        if self.dropping.remove(&group) {
            self.model.remove(&group);
        } else {
            self.model.insert(group, ModelGroup::new());
        }
    }

    fn prune_bodies(&mut self) {
        let mut there = BTreeSet::new();
        for (group, model) in &self.model {
            let ids = model.log.ids_from(LogIndex::ZERO);
            there.extend(ids.into_iter().map(|id| (*group, id)));
        }
        self.bodies.retain(|id, _| there.contains(id));
    }

    /// Locks the directory. What a killed process has handed over may still be under way, and
    /// keeps it locked.
    fn lock(&self) -> anyhow::Result<Arc<DataDirectory>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match DataDirectory::open(&self.data, Access::ReadWrite) {
                Err(DirectoryError::Locked { .. }) if Instant::now() < deadline => {
                    thread::sleep(LOCK_POLL);
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// Opens the log, which a mere power cut must not damage.
    fn open(&self) -> anyhow::Result<(Node<RealStorage>, Recovered)> {
        let directory = self.lock()?;
        let mut storage = self.setting.backend.open(directory, pool())?;
        let expected = Expected::default();
        let directory = Directory::open(&mut storage, &expected, 1, JOURNAL_HALF_BYTES)?;
        ensure!(!directory.promises_lost(), "promises are lost");
        let mut alarms = directory.alarms().to_vec();
        let (node, recovered) = open_store(storage, config(), &directory)?;
        alarms.extend(recovered.alarms.iter().cloned());
        let is_mere = |alarm: &&Alarm| alarm.damage != Damage::JournalLast;
        let odd = alarms.iter().find(is_mere);
        ensure!(odd.is_none(), "an alarm for a power cut: {odd:?}");
        Ok((node, recovered))
    }
}

/// Enters into a group's model what the writer has said of it.
fn take_of_group(model: &mut ModelGroup, message: &Message) {
    match *message {
        Message::Promise {
            write, term, vote, ..
        } => {
            let vote = vote.map(NodeId);
            model.hard = HardState {
                term: Term(term),
                vote,
            };
            model.hards.push((WriteId(write), model.hard));
        }
        Message::Append {
            write,
            term,
            end_offset,
            ..
        } => {
            model.log.entries.push((Term(term), Offset(end_offset)));
            model.note_log(WriteId(write));
        }
        Message::Cut { write, first, .. } => {
            model.log.cut(LogIndex(first));
            model.note_log(WriteId(write));
        }
        Message::Base {
            write,
            index,
            term,
            chain,
            offset,
            ..
        } => {
            let before = EntryId {
                index: LogIndex(index),
                term: Term(term),
            };
            let start = Position {
                before,
                chain: ChainHash(chain),
                offset: Offset(offset),
            };
            model.log = ModelLog {
                start,
                entries: Vec::new(),
            };
            model.commit = LogIndex(index);
            model.log_start = Offset(offset);
            model.note_log(WriteId(write));
        }
        Message::Commit { index, .. } => model.commit = model.commit.max(LogIndex(index)),
        Message::LogStart { offset, .. } => model.log_start = model.log_start.max(Offset(offset)),
        Message::Persisted { write, .. } => model.persisted(WriteId(write)),
        _ => {}
    }
}

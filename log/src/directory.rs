//! A data directory: formatted once, opened once per life, shared by the shards of a node.

use std::collections::{BTreeMap, BTreeSet};

use highwater_record::Buffer;

use crate::alarm::{Alarm, Damage};
use crate::blocking::Blocking;
use crate::error::{FormatError, OpenError};
use crate::format::directory::DirectoryIdentity;
use crate::format::identity::FileIdentity;
use crate::format::journal::{GroupRecord, Unit, UnitHeader};
use crate::format::{BLOCK, FormatFault};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};
use crate::journal::image::{Copies, JournalImage, keep_newest, read};
use crate::paths;
use crate::storage::{Op, Preparation, Storage, StorageError};

/// The most shards that a data directory can have.
pub const SHARDS_MAX: u32 = 1_024;

/// What a data directory is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryFormat {
    /// The node's number.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// A random number, new for each formatting.
    pub incarnation: Incarnation,
    /// Now, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// Whose data directory is expected. What is not given is not compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// The node's number.
    pub node: Option<NodeId>,
    /// The cluster.
    pub cluster: Option<ClusterId>,
    /// The incarnation.
    pub incarnation: Option<Incarnation>,
}

/// An opened data directory: its identity and what its journals hold.
#[derive(Debug, Clone)]
pub struct Directory {
    identity: DirectoryIdentity,
    groups: Vec<GroupId>,
    pub(crate) records: BTreeMap<GroupId, GroupRecord>,
    pub(crate) journals: BTreeMap<u32, JournalState>,
    /// Groups that a journal's own newest record does not call dropped.
    not_dropped: BTreeSet<GroupId>,
    promises_lost: bool,
    /// Units that are bad in one copy of a journal.
    mirrors: Vec<Mirror>,
    alarms: Vec<Alarm>,
}

/// A unit of the half that holds, to be made good in the copy in which it is bad.
#[derive(Debug, Clone)]
struct Mirror {
    shard: u32,
    copy: usize,
    offset: u64,
    bytes: Vec<u8>,
}

/// Where a journal goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JournalState {
    /// The generation that must not be overwritten.
    pub(crate) current: Option<u64>,
    /// The highest generation seen.
    pub(crate) highest: u64,
    /// The length of a half, in bytes: what it was made with, whatever is configured now.
    pub(crate) half_bytes: u64,
}

impl Directory {
    /// Formats an empty data directory: `init`, never `start`.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotEmpty`] if anything but the lock lies in it.
    pub fn format<S: Storage>(
        storage: &mut S,
        format: &DirectoryFormat,
    ) -> Result<(), FormatError> {
        let mut io = Blocking::new(storage);
        if let Some(entry) = io
            .list("")?
            .into_iter()
            .find(|entry| entry.name != paths::LOCK)
        {
            return Err(FormatError::NotEmpty { name: entry.name });
        }
        let directories = [
            paths::JOURNAL,
            paths::PREPARE,
            paths::GROUPS,
            paths::QUARANTINE,
        ];
        for path in directories {
            let path = path.to_owned();
            io.done(Op::MakeDir { path })?;
        }
        let identity = DirectoryIdentity {
            node: format.node,
            cluster: format.cluster,
            incarnation: format.incarnation,
            boots: 0,
            created_ms: format.created_ms,
            journals: 0,
        };
        Ok(replace_identity(&mut io, &identity)?)
    }

    /// Opens a data directory for a life with `shards` shards: reads all journals, then counts
    /// the boot. Nothing is changed before everything found is of a known version.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was changed but by [`OpenError::Storage`].
    pub fn open<S: Storage>(
        storage: &mut S,
        expected: &Expected,
        shards: u32,
        journal_half_bytes: u64,
    ) -> Result<Directory, OpenError> {
        if shards == 0 || shards > SHARDS_MAX {
            return Err(OpenError::Config {
                name: "shards",
                value: u64::from(shards),
            });
        }
        let mut io = Blocking::new(storage);
        let mut directory = Directory::read(&mut io)?;
        directory.check(expected)?;
        directory.refuse_newer_files(&mut io)?;
        directory.clean_prepare(&mut io)?;
        directory.make_journals(&mut io, shards, journal_half_bytes)?;
        directory.mirror_journals(&mut io)?;
        directory.identity.boots += 1;
        replace_identity(&mut io, &directory.identity)?;
        Ok(directory)
    }

    /// Reads what a data directory holds, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Directory::open).
    pub(crate) fn read<S: Storage>(io: &mut Blocking<'_, S>) -> Result<Directory, OpenError> {
        let bytes = io
            .read_whole(paths::IDENTITY)?
            .ok_or(OpenError::NotFormatted)?;
        let identity = DirectoryIdentity::decode(&bytes).map_err(|fault| match fault {
            FormatFault::Bad => OpenError::BadIdentity,
            FormatFault::Newer { found, known } => OpenError::Version {
                path: paths::IDENTITY.to_owned(),
                found,
                known,
            },
        })?;
        let mut directory = Directory {
            identity,
            groups: Vec::new(),
            records: BTreeMap::new(),
            journals: BTreeMap::new(),
            not_dropped: BTreeSet::new(),
            promises_lost: false,
            mirrors: Vec::new(),
            alarms: Vec::new(),
        };
        directory.list_root(io)?;
        directory.list_groups(io)?;
        directory.read_journals(io)?;
        Ok(directory)
    }

    /// Who this directory is.
    #[must_use]
    pub const fn identity(&self) -> &DirectoryIdentity {
        &self.identity
    }

    /// The groups that have files or promises here, ascending, but for those whose removal was
    /// interrupted. Whoever opens the stores divides them among the shards.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        let recorded = self.records.values().filter(|record| !record.dropped);
        let mut groups: Vec<GroupId> = recorded.map(|record| record.group).collect();
        let with_files = self.groups.iter().copied();
        groups.extend(with_files.filter(|&group| !self.is_dropped(group)));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Groups of which something may be left though the journal says that they were dropped:
    /// what is left goes when shard 0's store is opened.
    pub fn half_removed(&self) -> impl Iterator<Item = GroupId> {
        let with_files = self.groups.iter().copied();
        with_files.filter(|&group| self.is_dropped(group))
    }

    fn is_dropped(&self, group: GroupId) -> bool {
        self.records
            .get(&group)
            .is_some_and(|record| record.dropped)
    }

    /// The records that the checkpoints of a shard with these groups have to repeat: those of
    /// other shards' groups, and of groups that were dropped, as long as files of them may be
    /// left or another journal has an older record of them. Without the newest that one would
    /// hold, and the group look damaged.
    pub(crate) fn foreign(&self, owned: &BTreeSet<GroupId>) -> Vec<GroupRecord> {
        let half_removed: BTreeSet<GroupId> = self.half_removed().collect();
        let is_needed = |record: &&GroupRecord| {
            !record.dropped
                || half_removed.contains(&record.group)
                || self.not_dropped.contains(&record.group)
        };
        let records = self.records.values().filter(is_needed);
        let foreign = records.filter(|record| !owned.contains(&record.group));
        foreign.copied().collect()
    }

    /// Which of a shard's groups other journals have records of, or will have by their next
    /// checkpoints: all that had one at start.
    pub(crate) fn recorded_elsewhere(&self, owned: &BTreeSet<GroupId>) -> BTreeSet<GroupId> {
        let owned = owned.iter().copied();
        let recorded = owned.filter(|group| self.records.contains_key(group));
        recorded.filter(|_| self.journals.len() > 1).collect()
    }

    /// Whether promises were lost: no group of this directory may ever vote again, and the node
    /// is to be replaced under a new incarnation.
    #[must_use]
    pub const fn promises_lost(&self) -> bool {
        self.promises_lost
    }

    /// What is wrong with journals and names.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    fn check(&self, expected: &Expected) -> Result<(), OpenError> {
        let found = &self.identity;
        let fits = expected.node.is_none_or(|node| node == found.node)
            && expected
                .cluster
                .is_none_or(|cluster| cluster == found.cluster)
            && expected
                .incarnation
                .is_none_or(|incarnation| incarnation == found.incarnation);
        if fits {
            return Ok(());
        }
        let or = |given: Option<String>| given.unwrap_or_else(|| "any".to_owned());
        Err(OpenError::Foreign {
            found: format!(
                "cluster {}, node {}, incarnation {}",
                found.cluster, found.node, found.incarnation
            ),
            expected: format!(
                "cluster {}, node {}, incarnation {}",
                or(expected.cluster.map(|it| it.to_string())),
                or(expected.node.map(|it| it.to_string())),
                or(expected.incarnation.map(|it| it.to_string()))
            ),
        })
    }

    fn list_root<S: Storage>(&mut self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        let known = [
            paths::IDENTITY,
            paths::LOCK,
            paths::JOURNAL,
            paths::PREPARE,
            paths::GROUPS,
            paths::QUARANTINE,
            paths::WALL_CLOCK,
        ];
        for entry in io.list("")? {
            if !known.contains(&entry.name.as_str()) {
                self.alarm(entry.name, 0, Damage::Unknown);
            }
        }
        Ok(())
    }

    fn list_groups<S: Storage>(&mut self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        for entry in io.list(paths::GROUPS)? {
            match paths::parse_group(&entry.name).filter(|_| entry.is_dir) {
                Some(group) => self.groups.push(group),
                None => self.alarm(
                    format!("{}/{}", paths::GROUPS, entry.name),
                    0,
                    Damage::Unknown,
                ),
            }
        }
        self.groups.sort_unstable();
        Ok(())
    }

    /// Reads every journal in the directory, whatever the number of shards.
    fn read_journals<S: Storage>(&mut self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        let mut shards: Vec<u32> = (0..self.identity.journals.min(SHARDS_MAX)).collect();
        for entry in io.list(paths::JOURNAL)? {
            match paths::parse_journal(&entry.name) {
                Some((shard, _)) => shards.push(shard),
                None => self.alarm(
                    format!("{}/{}", paths::JOURNAL, entry.name),
                    0,
                    Damage::Unknown,
                ),
            }
        }
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            self.read_journal(io, shard)?;
        }
        Ok(())
    }

    fn read_journal<S: Storage>(
        &mut self,
        io: &mut Blocking<'_, S>,
        shard: u32,
    ) -> Result<(), OpenError> {
        let was_made = shard < self.identity.journals;
        let mut copies = [Vec::new(), Vec::new()];
        for (copy, bytes) in copies.iter_mut().enumerate() {
            match io.read_whole(&paths::journal(shard, copy))? {
                Some(found) => *bytes = found,
                None if was_made => {
                    self.alarm(paths::journal(shard, copy), 0, Damage::JournalMissing);
                }
                None => {}
            }
        }
        let image = read(&Copies {
            shard,
            incarnation: self.identity.incarnation,
            align: BLOCK,
            bytes: [&copies[0], &copies[1]],
        })
        .map_err(|fault| version_error(paths::journal(shard, 0), fault))?;
        self.take_journal(shard, &image, [copies[0].is_empty(), copies[1].is_empty()]);
        self.note_mirrors(shard, &image, &copies);
        let len = copies[0].len().max(copies[1].len());
        let state = JournalState {
            current: image.current,
            highest: image.highest,
            half_bytes: u64::try_from(len / 2).expect("a length fits into 64 bits"),
        };
        self.journals.insert(shard, state);
        Ok(())
    }

    fn take_journal(&mut self, shard: u32, image: &JournalImage, missing: [bool; 2]) {
        for bad in image.bad_copies.iter().filter(|bad| !missing[bad.copy]) {
            let damage = if bad.last {
                Damage::JournalLast
            } else {
                Damage::JournalCopy
            };
            self.alarm(paths::journal(shard, bad.copy), bad.offset, damage);
        }
        if let Some(offset) = image.lost_at {
            self.alarm(paths::journal(shard, 0), offset, Damage::JournalLost);
        }
        let never_written = image.current.is_none() && !image.lost;
        if never_written && shard < self.identity.journals {
            self.alarm(paths::journal(shard, 0), 0, Damage::JournalLost);
            self.promises_lost = true;
        }
        self.promises_lost |= image.lost;
        for record in image.records.values() {
            keep_newest(&mut self.records, record);
            if !record.dropped {
                self.not_dropped.insert(record.group);
            }
        }
    }

    fn note_mirrors(&mut self, shard: u32, image: &JournalImage, copies: &[Vec<u8>; 2]) {
        for bad in &image.bad_copies {
            let start = usize::try_from(bad.offset).expect("it was read into memory");
            let good = &copies[1 - bad.copy][start..start + bad.len];
            self.mirrors.push(Mirror {
                shard,
                copy: bad.copy,
                offset: bad.offset,
                bytes: good.to_vec(),
            });
        }
    }

    /// Makes the half that holds whole in both copies, unit by unit, before anyone overwrites
    /// the older half: a crash in that would leave the newer half in one copy only, and one
    /// rotten block there would bring an older promise back without a word.
    fn mirror_journals<S: Storage>(&mut self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        let align = journal_align(io.alignment());
        for mirror in std::mem::take(&mut self.mirrors) {
            let path = paths::journal(mirror.shard, mirror.copy);
            let file = io.open(&path, true)?.file;
            io.done(Op::Write {
                file,
                offset: mirror.offset,
                data: Buffer::aligned_copy(&mirror.bytes, align),
            })?;
            io.close(file)?;
        }
        Ok(())
    }

    /// Looks at the version of every group's file before anything is changed. An identity
    /// block's version grows whenever anything in the file changes its format.
    fn refuse_newer_files<S: Storage>(&self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        for &group in &self.groups {
            for entry in io.list(&paths::group_dir(group))? {
                let Some(sequence) = paths::parse_segment(&entry.name) else {
                    continue;
                };
                let path = paths::segment(group, sequence);
                let open = io.open(&path, false)?;
                let block = read_front(io, &open)?;
                io.close(open.file)?;
                if let Err(fault @ FormatFault::Newer { .. }) = FileIdentity::decode(&block) {
                    return Err(version_error(path, fault));
                }
            }
        }
        Ok(())
    }

    /// Removes what was being made when the last life ended: it was never in use.
    fn clean_prepare<S: Storage>(&mut self, io: &mut Blocking<'_, S>) -> Result<(), OpenError> {
        let mut removed = false;
        for entry in io.list(paths::PREPARE)? {
            let path = format!("{}/{}", paths::PREPARE, entry.name);
            if paths::is_prepared(&entry.name) && !entry.is_dir {
                io.unlink(&path)?;
                removed = true;
            } else {
                self.alarm(path, 0, Damage::Unknown);
            }
        }
        if removed {
            io.sync_dir(paths::PREPARE)?;
        }
        Ok(())
    }

    /// Makes the journals of shards that never had one, durable with an empty checkpoint, and
    /// copies that are missing.
    fn make_journals<S: Storage>(
        &mut self,
        io: &mut Blocking<'_, S>,
        shards: u32,
        half_bytes: u64,
    ) -> Result<(), OpenError> {
        let align = journal_align(io.alignment());
        let align_u64 = u64::try_from(align).expect("an alignment fits into 64 bits");
        if half_bytes < 2 * align_u64
            || half_bytes > 1 << 30
            || !half_bytes.is_multiple_of(align_u64)
        {
            return Err(OpenError::Config {
                name: "journal_half_bytes",
                value: half_bytes,
            });
        }
        for shard in 0..shards {
            if shard >= self.identity.journals {
                let first = self.first_checkpoint(shard, align);
                for copy in 0..2 {
                    remake(io, &paths::journal(shard, copy), half_bytes, &first)?;
                }
                let state = JournalState {
                    current: Some(FIRST_GENERATION),
                    highest: FIRST_GENERATION,
                    half_bytes,
                };
                self.journals.insert(shard, state);
            } else {
                self.mend_journal(io, shard, half_bytes)?;
            }
        }
        io.sync_dir(paths::JOURNAL)?;
        self.identity.journals = self.identity.journals.max(shards);
        Ok(())
    }

    /// Makes a copy anew that is missing or was cut short. Its other copy serves until the next
    /// checkpoint is in both; a journal without any good copy has lost its promises already.
    fn mend_journal<S: Storage>(
        &mut self,
        io: &mut Blocking<'_, S>,
        shard: u32,
        half_bytes: u64,
    ) -> Result<(), OpenError> {
        let state = self.journals.get_mut(&shard);
        let state = state.expect("every journal below the number made was read");
        if state.half_bytes < half_bytes && state.current.is_none() {
            state.half_bytes = half_bytes;
        }
        let half_bytes = state.half_bytes;
        for copy in 0..2 {
            let path = paths::journal(shard, copy);
            if file_len(io, &path)? != Some(2 * half_bytes) {
                remake(io, &path, half_bytes, &Buffer::new())?;
            }
        }
        Ok(())
    }

    fn first_checkpoint(&self, shard: u32, align: usize) -> Buffer {
        let header = UnitHeader {
            checkpoint: true,
            promises_lost: self.promises_lost,
            shard,
            incarnation: self.identity.incarnation,
            generation: FIRST_GENERATION,
            number: 0,
            previous_crc: 0,
        };
        Buffer::aligned_copy(&Unit::encode(&header, &[], align), align)
    }

    fn alarm(&mut self, path: String, offset: u64, damage: Damage) {
        self.alarms.push(Alarm {
            group: None,
            path,
            offset,
            damage,
        });
    }
}

/// The generation of a new journal's empty checkpoint: it lies in the first half.
const FIRST_GENERATION: u64 = 2;

/// What journal units are padded to, on a disk with this alignment.
pub(crate) fn journal_align(alignment: usize) -> usize {
    alignment.max(BLOCK)
}

/// Makes a file of two halves anew, whatever is there.
fn remake<S: Storage>(
    io: &mut Blocking<'_, S>,
    path: &str,
    half_bytes: u64,
    first: &Buffer,
) -> Result<(), StorageError> {
    if file_len(io, path)?.is_some() {
        io.unlink(path)?;
    }
    io.done(Op::Create {
        path: path.to_owned(),
        len: 2 * half_bytes,
        preparation: Preparation::Zero,
        first: first.clone(),
    })
}

fn file_len<S: Storage>(io: &mut Blocking<'_, S>, path: &str) -> Result<Option<u64>, StorageError> {
    match io.open(path, false) {
        Ok(open) => {
            io.close(open.file)?;
            Ok(Some(open.len))
        }
        Err(StorageError::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// The identity block at the front of a file, as far as the file reaches.
pub(crate) fn read_front<S: Storage>(
    io: &mut Blocking<'_, S>,
    open: &crate::blocking::OpenFile,
) -> Result<Buffer, StorageError> {
    use crate::scan::ReadAt;
    let len = io.alignment().max(BLOCK);
    io.reader(open).read_at(0, len)
}

pub(crate) fn version_error(path: String, fault: FormatFault) -> OpenError {
    match fault {
        FormatFault::Newer { found, known } => OpenError::Version { path, found, known },
        FormatFault::Bad => OpenError::Version {
            path,
            found: 0,
            known: 0,
        },
    }
}

/// Makes a successor of the identity file beside it, synced, and renames it over it.
fn replace_identity<S: Storage>(
    io: &mut Blocking<'_, S>,
    identity: &DirectoryIdentity,
) -> Result<(), StorageError> {
    let align = io.alignment();
    let mut bytes = identity.encode();
    bytes.resize(bytes.len().next_multiple_of(align), 0);
    let first = Buffer::aligned_copy(&bytes, align.max(BLOCK));
    io.done(Op::Create {
        path: paths::IDENTITY_NEXT.to_owned(),
        len: u64::try_from(first.len()).expect("a block's length"),
        preparation: Preparation::Zero,
        first,
    })?;
    io.done(Op::Rename {
        from: paths::IDENTITY_NEXT.to_owned(),
        to: paths::IDENTITY.to_owned(),
    })?;
    io.sync_dir(paths::PREPARE)?;
    io.sync_dir("")
}

//! Opening: recovery, in the order that makes it safe.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use highwater_record::BufferPool;

use super::readers::Readers;
use super::scrub::Scrub;
use super::tail::Tail;
use super::{Recovered, Room, Store};
use crate::alarm::Alarm;
use crate::blocking::Blocking;
use crate::config::{SEGMENT_BYTES_MAX, StoreConfig};
use crate::directory::{Directory, journal_align};
use crate::error::OpenError;
use crate::event::Counters;
use crate::format::BLOCK;
use crate::format::journal::GroupRecord;
use crate::group::Group;
use crate::ids::GroupId;
use crate::journal::{Journal, JournalOf, UnitWrite};
use crate::paths;
use crate::prepare::{Rate, RecycledFiles};
use crate::recovery::build::{blank_record, build_group, describe};
use crate::recovery::driver::{
    GroupImage, Owner, read_group, remove_group, sync_files, unlink_hidden,
};
use crate::storage::{FileId, Op, Storage};

impl<S: Storage> Store<S> {
    /// Opens the groups of one shard, and recovers them. Blocks; to be called at start only.
    ///
    /// In this order: everything is read; what was read is synced (recovered is not durable); a
    /// fresh checkpoint of the journal is made durable in both copies; the unlinking of hidden
    /// files and, by shard 0, the removal of dropped groups is finished. Only then anything is
    /// acted on.
    ///
    /// `pool` is where write buffers come from. Groups in the directory that no shard asks for
    /// are left alone: unknown is not garbage.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Damage to groups' files is none: it is told by alarms and quarantine.
    pub fn open(
        mut storage: S,
        pool: BufferPool,
        config: StoreConfig,
        directory: &Directory,
        groups: &[GroupId],
    ) -> Result<(Store<S>, Recovered), OpenError> {
        let align = check_config(&config, &storage, &pool)?;
        let owner = Owner {
            cluster: directory.identity().cluster,
            incarnation: directory.identity().incarnation,
        };
        let mut io = Blocking::new(&mut storage);
        let mut opened = Vec::new();
        for &group in groups {
            let record = directory.records.get(&group);
            let image = read_group(&mut io, &owner, group, record)?;
            let record = record.copied().unwrap_or_else(|| blank_record(group));
            opened.push((build_group(&image, record), image));
        }
        for (group, image) in &opened {
            sync_files(&mut io, group.id, image)?;
        }
        let journal = fresh_checkpoint(&mut io, &config, directory, &mut opened)?;
        let mut recovered = finish(&mut io, &mut opened)?;
        if config.shard == 0 {
            for group in directory.half_removed() {
                remove_group(&mut io, group, &mut recovered.alarms)?;
            }
        }
        let now = Duration::ZERO;
        let groups: BTreeMap<GroupId, Box<Group>> = opened
            .into_iter()
            .map(|(group, _)| (group.id, Box::new(group)))
            .collect();
        let dirty: BTreeSet<GroupId> = groups.keys().copied().collect();
        let all = groups.values().map(Box::as_ref);
        let damaged = all.filter(|it| !it.holes.is_empty() || !it.suspects.is_empty());
        let damaged = damaged.map(|group| (group.id, now)).collect();
        let mut store = Store {
            storage,
            salts: fastrand::Rng::with_seed(config.seed),
            owner,
            align,
            pool,
            files: Box::new(RecycledFiles::new(config.recycle_bytes)),
            tail: Tail::new(config.tail_cache_bytes),
            config,
            groups,
            dirty,
            journal,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            journal_waiting: Vec::new(),
            actions: BTreeMap::new(),
            next_token: 0,
            jobs: BTreeMap::new(),
            next_job: 0,
            readers: Readers::default(),
            seals: BTreeMap::new(),
            repair: None,
            damaged,
            scrub: Scrub::default(),
            read_clock: 0,
            room: Room::default(),
            writes_in_flight: 0,
            write_rate: Rate::default(),
            making: 0,
            to_zero: VecDeque::new(),
            zeroing: false,
            completions: Vec::new(),
            events: Vec::new(),
            failed: false,
            full_said: None,
            counters: Counters::default(),
            now,
        };
        let alarms = u64::try_from(recovered.alarms.len()).expect("a count fits into 64 bits");
        store.counters.alarms = alarms;
        store.announce_closed();
        Ok((store, recovered))
    }

    /// Tells the owner of files that were left unsealed by an earlier life.
    fn announce_closed(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            self.announce_closed_of(group);
        }
    }
}

fn check_config<S: Storage>(
    config: &StoreConfig,
    storage: &S,
    pool: &BufferPool,
) -> Result<usize, OpenError> {
    let align = storage.alignment();
    let invalid = |name, value: usize| {
        Err(OpenError::Config {
            name,
            value: u64::try_from(value).unwrap_or(u64::MAX),
        })
    };
    if !align.is_power_of_two() || !(512..=crate::format::BLOCK_MAX).contains(&align) {
        return invalid("alignment", align);
    }
    if pool.alignment() < align {
        return invalid("pool alignment", pool.alignment());
    }
    if config.open_files_max == 0 {
        return invalid("open_files_max", 0);
    }
    if config.reserve_bytes > SEGMENT_BYTES_MAX {
        return Err(OpenError::Config {
            name: "reserve_bytes",
            value: config.reserve_bytes,
        });
    }
    Ok(align)
}

/// Makes everything that was recovered durable in both copies of the shard's journal.
fn fresh_checkpoint<S: Storage>(
    io: &mut Blocking<'_, S>,
    config: &StoreConfig,
    directory: &Directory,
    opened: &mut [(Group, GroupImage)],
) -> Result<Journal, OpenError> {
    let state = directory.journals.get(&config.shard).copied();
    let state = state.ok_or(OpenError::Config {
        name: "shard",
        value: u64::from(config.shard),
    })?;
    let owned: BTreeSet<GroupId> = opened.iter().map(|(group, _)| group.id).collect();
    let of = JournalOf {
        shard: config.shard,
        incarnation: directory.identity().incarnation,
        align: journal_align(io.alignment()),
        promises_lost: directory.promises_lost(),
        state,
        foreign: directory.foreign(&owned),
        elsewhere: directory.recorded_elsewhere(&owned),
    };
    let files = open_journal(io, config.shard)?;
    let mut journal = Journal::new(of, files);
    if opened.len() > journal.groups_max() {
        return Err(OpenError::JournalTooSmall {
            groups: directory.groups().len(),
            half_bytes: state.half_bytes,
        });
    }
    let records: Vec<GroupRecord> = opened
        .iter_mut()
        .map(|(group, _)| group.next_record())
        .collect();
    let UnitWrite { offset, data } = journal.checkpoint(Vec::new(), records);
    io.run_all(files.map(|file| Op::Write {
        file,
        offset,
        data: data.clone(),
    }))?;
    for _ in 0..journal.copies() {
        journal.copy_done();
    }
    Ok(journal)
}

fn open_journal<S: Storage>(
    io: &mut Blocking<'_, S>,
    shard: u32,
) -> Result<[FileId; 2], OpenError> {
    let first = io.open(&paths::journal(shard, 0), true)?.file;
    let second = io.open(&paths::journal(shard, 1), true)?.file;
    for file in [first, second] {
        if mutant!(RecoveredNotSynced) {
            continue;
        }
        io.done(Op::Sync { file })?;
    }
    Ok([first, second])
}

fn finish<S: Storage>(
    io: &mut Blocking<'_, S>,
    opened: &mut [(Group, GroupImage)],
) -> Result<Recovered, OpenError> {
    let mut groups = Vec::new();
    let mut alarms: Vec<Alarm> = Vec::new();
    for (group, image) in opened {
        if group.is_quarantined_to_end() {
            // What is hidden is kept until the replica has rejoined.
            for (file, verdict) in image.files.iter().zip(&image.verdict.files) {
                if *verdict == crate::recovery::classify::FileVerdict::Hidden {
                    group.kept.push(file.sequence);
                }
            }
        } else {
            unlink_hidden(io, group.id, image)?;
        }
        alarms.append(&mut image.alarms);
        groups.push(describe(io, group, image)?);
    }
    Ok(Recovered { groups, alarms })
}

/// Where the first frame of a new file starts, on a disk with this alignment.
pub(super) fn first_frame(align: usize) -> u32 {
    u32::try_from(align.max(BLOCK)).expect("an alignment is at most 1 MiB")
}

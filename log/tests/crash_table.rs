//! The crash table of docs/format.md, row by row: a script is interrupted at every point where
//! something is on its way to the disk, and every disk that may be left is opened.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::collections::BTreeSet;

use common::model::{ModelGroup, check_epochs};
use common::power::PowerFails;
use common::{GROUP, HALF_BYTES, Node, Recover, format, open_disk, open_with, small_files};
use highwater_log::format::journal::Unit;
use highwater_log::storage::{
    CrashImages, Granularity, Keep, MemoryDisk, MemoryStorage, PendingKind,
};
use highwater_log::{
    Base, Chain, Directory, EntryId, Event, Expected, GroupId, HardState, LogIndex, OpenError,
    Position, Snapshot, Store, Term, WriteId,
};
use highwater_record::{Buffer, Offset};

/// How many of the disks that a crash may leave at one point are opened, at most.
const IMAGES_MAX: u128 = 40;

/// A script on one group, its model, and which rows of the table it met.
struct Script {
    disk: MemoryDisk,
    node: Node,
    model: ModelGroup,
    rows: BTreeSet<&'static str>,
    images: usize,
}

impl Script {
    fn new() -> Script {
        let disk = MemoryDisk::new();
        format(&disk);
        let (mut node, _) = open_disk(&disk);
        node.store.create_group(GROUP, small_files()).unwrap();
        Script {
            disk,
            node,
            model: ModelGroup::new(),
            rows: BTreeSet::new(),
            images: 0,
        }
    }

    fn promise(&mut self, term: u32) {
        let write = self.node.promise(GROUP, term);
        self.model.hard = HardState {
            term: Term(term),
            vote: None,
        };
        self.model.hards.push((write, self.model.hard));
    }

    fn append(&mut self, bytes: usize) {
        let term = self.model.hard.term;
        let write = self.node.append_sized(GROUP, term.0, bytes);
        let end = self.node.store.end(GROUP).unwrap().offset;
        self.model.log.entries.push((term, end));
        self.model.note_log(write);
    }

    fn cut(&mut self, first: u64) {
        let write = self.node.cut(GROUP, first);
        self.model.log.cut(LogIndex(first));
        self.model.note_log(write);
    }

    fn base(&mut self, index: u64) {
        let start = Position {
            before: EntryId {
                index: LogIndex(index),
                term: self.model.hard.term,
            },
            chain: Chain(index),
            offset: Offset(index * 10),
        };
        let base = Base {
            start,
            log_start_offset: start.offset,
            epochs: Vec::new(),
            state: Buffer::from(b"state".to_vec()),
        };
        let write = self.node.base(GROUP, base);
        self.model.log.start = start;
        self.model.log.entries.clear();
        self.model.log_start = start.offset;
        self.model.note_log(write);
    }

    fn seal(&mut self) {
        let last = self.node.last(GROUP).index;
        self.node.store.commit(GROUP, last);
        let events = std::mem::take(&mut self.node.events);
        for event in events {
            if let Event::Closed { sequence, .. } = event {
                let snapshot = Snapshot {
                    at: last,
                    state: Buffer::from(b"snapshot".to_vec()),
                };
                self.node.store.seal(GROUP, sequence, snapshot).unwrap();
            }
        }
    }

    /// Has sealed what is closed and committed.
    fn seal_committed(&mut self, commit: u64) {
        let at = LogIndex(commit);
        self.node.store.commit(GROUP, at);
        let is_due = |event: &mut Event| matches!(event, Event::Closed { last, .. } if *last <= at);
        for event in self.node.events.extract_if(.., is_due) {
            if let Event::Closed { sequence, .. } = event {
                let state = Buffer::from(b"snapshot".to_vec());
                let snapshot = Snapshot { at, state };
                self.node.store.seal(GROUP, sequence, snapshot).unwrap();
            }
        }
    }

    /// Turns until nothing is left to do, crashing in copies of the disk at every turn.
    fn settle(&mut self) {
        self.settle_and(|_| {});
    }

    /// The same, and does something at every turn.
    fn settle_and(&mut self, then: impl Fn(&mut Script)) {
        for _ in 0..1_000 {
            self.node.store.flush(self.node.now);
            self.crash_here();
            self.node.turn();
            for (_, write) in std::mem::take(&mut self.node.persisted) {
                self.model.persisted(write);
            }
            assert_eq!(self.node.alarms(), Vec::<String>::new());
            then(self);
            if !self.node.store.is_busy() {
                return;
            }
        }
        panic!("the store does not come to rest");
    }

    /// Opens disks that a power cut may leave now.
    fn crash_here(&mut self) {
        self.note_rows();
        for granularity in [
            Granularity::Subsets { unit: 4096 },
            Granularity::Prefixes { unit: 512 },
        ] {
            let images = CrashImages::new(&self.disk, granularity);
            let count = images.count().unwrap_or(u128::MAX);
            let tried = count.min(IMAGES_MAX);
            for nth in 0..tried {
                let number = if count <= IMAGES_MAX {
                    nth
                } else {
                    (count - 1) / (tried - 1) * nth
                };
                self.images += 1;
                self.check(&images.image(number), number);
            }
        }
    }

    fn note_rows(&mut self) {
        for change in self.disk.pending() {
            let path = change.what.as_str();
            let row = match change.kind {
                PendingKind::Write { .. } if path.starts_with("journal/") => "journal unit",
                PendingKind::Write { offset: 4096, .. } => "first write",
                PendingKind::Write { .. } if path.starts_with("prepare/") => "file is made",
                PendingKind::Write { .. } => "later write or footer",
                PendingKind::Resize { .. } if path.starts_with("prepare/") => "file is made",
                PendingKind::Resize { .. } => "trim",
                PendingKind::Entries => "directory change",
            };
            self.rows.insert(row);
        }
    }

    fn check(&self, disk: &MemoryDisk, number: u128) {
        let context = format!("image {number} of {:?}", self.disk.pending());
        let (mut node, recovered) = open_disk(disk);
        assert_eq!(recovered.alarms, [], "{context}");
        let mut model = self.model.clone();
        let found = recovered.groups.iter().find(|group| group.group == GROUP);
        let Some(found) = found else {
            assert_eq!(model.logs[0].0, WriteId(0), "{context}: the group is gone");
            return;
        };
        let ids: Vec<EntryId> = node.read_all(GROUP).iter().map(|entry| entry.id).collect();
        model.check(found, &ids, &context);
        check_epochs(found, &ids, &context);
        // Recovery is idempotent, and what it found is durable.
        let end = node.store.end(GROUP).unwrap();
        drop(node);
        disk.power_cut(|_| Keep::Nothing);
        let (node, _) = open_disk(disk);
        assert_eq!(node.store.end(GROUP).unwrap(), end, "{context}");
    }
}

/// Power fails after every step of a history that rolls, cuts, seals, lets go of what is old, begins
/// anew and turns the journal over: none of them forgets a sync (P29), nor a directory's (P28).
#[test]
fn every_row_of_the_crash_table() {
    let mut script = Script::new();
    script.promise(1);
    script.append(100);
    script.append(6_000);
    script.settle();
    script.append(300);
    script.settle();
    script.append(9_000);
    script.append(50);
    script.settle();
    for _ in 0..4 {
        // A roll.
        script.append(15_000);
    }
    script.settle();
    script.promise(2);
    script.cut(5);
    script.append(200);
    script.settle();
    script.promise(3);
    script.cut(4);
    script.settle();
    script.append(100);
    script.settle();
    script.seal();
    script.settle();
    script.node.store.set_log_start(GROUP, Offset(40)).unwrap();
    script.model.log_start = Offset(40);
    script.settle();
    script.promise(4);
    script.base(50);
    script.append(100);
    script.settle();
    script.cut(51);
    script.settle();
    for term in 5..25 {
        // The journal's half fills, and the other one begins.
        script.promise(term);
        script.settle();
    }
    let expected = [
        "directory change",
        "file is made",
        "first write",
        "journal unit",
        "later write or footer",
        "trim",
    ];
    let rows: Vec<&str> = script.rows.iter().copied().collect();
    assert_eq!(rows, expected);
    assert!(script.images > 1_000, "{} images", script.images);
}

/// Found by power cuts: while the `begin` of the next file is on its way, a cut takes back entries
/// of the file before. What is left of that file is committed, so it may be sealed; but a footer
/// that knows of the cut and is durable before it leaves a hole before the next file.
#[test]
fn a_file_that_a_cut_ends_is_sealed_when_the_cut_is_durable() {
    let mut script = Script::new();
    script.promise(1);
    (0..3).for_each(|_| script.append(20_000));
    script.settle();
    // A roll, and before it is durable:
    script.append(20_000);
    script.node.store.flush(script.node.now);
    script.promise(2);
    script.cut(3);
    script.settle_and(|script| script.seal_committed(2));
    script.append(100);
    script.settle();
    let sealed = script.node.store.counters().files_sealed;
    assert_eq!(sealed, 1, "and then it is sealed");
}

/// A directory with everything in it that recovery may have to finish.
fn crashed_disk() -> (MemoryDisk, Position, HardState) {
    let mut script = Script::new();
    script.promise(1);
    for _ in 0..6 {
        script.append(15_000);
        script.node.settle();
    }
    script.promise(2);
    script.cut(6);
    script.append(100);
    script.node.settle();
    let end = script.node.store.end(GROUP).unwrap();
    let hard = script.node.store.hard_state(GROUP).unwrap();
    // A write that is cut off, and a file that is being made.
    script.append(9_000);
    script.append(40_000);
    script.node.store.flush(script.node.now);
    let disk = script.disk.clone();
    drop(script);
    disk.power_cut(|change| match change.kind {
        PendingKind::Write { .. } => Keep::Units {
            unit: 4096,
            kept: vec![false, true, true],
        },
        _ => Keep::Everything,
    });
    (disk, end, hard)
}

#[test]
fn recovery_survives_crashes_at_each_of_its_steps() {
    let (disk, end, hard) = crashed_disk();
    let mut steps = 0;
    let mut opened = 0;
    loop {
        let copy = disk.fork();
        let storage = PowerFails::new(&copy, steps);
        let finished = open_with(storage, common::config()).is_ok();
        let images = CrashImages::new(&copy, Granularity::Subsets { unit: 4096 });
        let count = images.count().unwrap_or(u128::MAX).min(64);
        for number in 0..count {
            let image = images.image(number);
            let (node, recovered) = open_disk(&image);
            let group = recovered.group(GROUP);
            assert_eq!(recovered.alarms, [], "step {steps}, image {number}");
            assert_eq!(group.quarantine, None);
            assert_eq!(group.hard_state, hard);
            assert_eq!(node.store.end(GROUP).unwrap(), end);
            opened += 1;
        }
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
    assert!(opened > 60, "{opened} disks");
}

/// A group with some files.
fn group_of_many_files() -> Script {
    let mut script = Script::new();
    script.promise(1);
    for _ in 0..8 {
        script.append(15_000);
    }
    script.settle();
    script
}

/// Crashes at every point of a group's removal, and at every step of the recovery after that.
fn crash_amid_removal(mut script: Script) -> BTreeSet<usize> {
    let end = script.node.store.end(GROUP).unwrap();
    let mut files_left = BTreeSet::new();
    script.node.store.drop_group(GROUP).unwrap();
    while script.node.store.is_busy() {
        script.node.store.flush(script.node.now);
        let images = CrashImages::new(&script.disk, Granularity::Subsets { unit: 4096 });
        for number in 0..images.count().unwrap().min(IMAGES_MAX) {
            let image = images.image(number);
            files_left.insert(files_of_group(&image));
            is_whole_or_gone(&image, end);
        }
        script.node.turn();
    }
    files_left
}

fn files_of_group(disk: &MemoryDisk) -> usize {
    let files = disk.files().into_iter();
    files.filter(|path| path.starts_with("groups/7/")).count()
}

fn is_whole_or_gone(disk: &MemoryDisk, end: Position) {
    for steps in 0.. {
        let copy = disk.fork();
        let storage = PowerFails::new(&copy, steps);
        let is_finished = open_with(storage, common::config()).is_ok();
        copy.power_cut(|_| Keep::Nothing);
        let (node, recovered) = open_disk(&copy);
        assert_eq!(recovered.alarms, [], "step {steps} of recovery");
        match recovered.groups.first() {
            Some(_) => assert_eq!(node.store.end(GROUP).unwrap(), end),
            None => assert_eq!(files_of_group(&copy), 0, "step {steps} of recovery"),
        }
        if is_finished {
            return;
        }
    }
}

#[test]
fn a_group_is_whole_or_gone_after_a_crash_amid_its_removal() {
    let files_left = crash_amid_removal(group_of_many_files());
    assert!(files_left.len() > 2, "{files_left:?} files were left");
}

#[test]
fn a_removal_waits_for_its_own_record_and_not_for_one_before_it() {
    let mut script = group_of_many_files();
    script.promise(2);
    script.node.store.flush(script.node.now);
    crash_amid_removal(script);
}

#[test]
fn formatting_survives_crashes_too() {
    let format = common::directory_format();
    for steps in 0.. {
        let disk = MemoryDisk::new();
        let mut storage = PowerFails::new(&disk, steps);
        let finished = Directory::format(&mut storage, &format).is_ok();
        drop(storage);
        disk.power_cut_by_chance(&mut fastrand::Rng::with_seed(steps as u64));
        let mut storage = MemoryStorage::new(&disk);
        let opened = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES);
        if finished {
            let directory = opened.unwrap();
            let opened = Store::open(storage, common::pool(), common::config(), &directory, &[]);
            opened.unwrap();
            return;
        }
        // Whole, or not formatted at all: never something between.
        if let Err(error) = opened {
            assert_eq!(error, OpenError::NotFormatted, "step {steps}");
        }
    }
}

/// A journal whose last checkpoint, far longer than the one before it, is whole in one copy
/// only; and the term that was promised before it, durably in both.
fn half_mirrored_disk() -> (MemoryDisk, Term) {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    node.create(GROUP);
    node.settle();
    drop(node);
    let (mut node, _) = open_disk(&disk);
    node.promise(GROUP, 5);
    node.settle();
    for group in 100..1_000 {
        node.create(GroupId(group));
    }
    node.store.flush(node.now);
    disk.power_cut(|change| match change.what.ends_with("-a") {
        true => Keep::Everything,
        false => Keep::Nothing,
    });
    (disk, Term(5))
}

/// What may be left of a write of the journal: nothing, all, all but its first block, or that.
fn journal_remains(len: usize) -> [Keep; 4] {
    let blocks = len.div_ceil(4_096);
    let units = |kept: &dyn Fn(usize) -> bool| Keep::Units {
        unit: 4_096,
        kept: (0..blocks).map(kept).collect(),
    };
    [
        Keep::Nothing,
        Keep::Everything,
        units(&|block| block > 0),
        units(&|block| block == 0),
    ]
}

/// Found by the explorer: if recovery overwrote the older half while one copy lacks the newer
/// one, a crash in that and one rotten block would bring back an older promise.
#[test]
fn a_promise_survives_a_crash_of_recovery_and_one_rotten_block() {
    let (disk, promised) = half_mirrored_disk();
    let mut tried = 0;
    for steps in 0.. {
        let copy = disk.fork();
        let storage = PowerFails::new(&copy, steps);
        let finished = open_with(storage, common::config()).is_ok();
        let pending = copy.pending();
        let mut journal = pending.iter().filter(|it| it.what.starts_with("journal/"));
        if let Some(PendingKind::Write { len, .. }) = journal.next().map(|change| change.kind) {
            for choice in 0..16 {
                let image = copy.fork();
                image.power_cut(|change| {
                    let nth = if change.what.ends_with("-a") {
                        choice % 4
                    } else {
                        choice / 4
                    };
                    journal_remains(len)[nth].clone()
                });
                tried += rot_each_unit(&image, promised);
            }
        }
        if finished {
            break;
        }
    }
    assert!(tried > 50, "{tried} disks");
}

/// Rots one block of each unit that starts with a whole header, one after the other.
fn rot_each_unit(image: &MemoryDisk, promised: Term) -> usize {
    let mut tried = 0;
    for path in ["journal/0000-a", "journal/0000-b"] {
        let bytes = image.contents(path).unwrap();
        for at in (0..bytes.len()).step_by(4_096) {
            if Unit::decode(&bytes[at..]).is_err() {
                continue;
            }
            let rotten = image.fork();
            rotten.flip_bit(path, at as u64 * 8 + 600).unwrap();
            let mut storage = MemoryStorage::new(&rotten);
            let expected = Expected::default();
            let directory = Directory::open(&mut storage, &expected, 1, HALF_BYTES).unwrap();
            let lost = directory.promises_lost();
            let groups = [GROUP];
            let opened = Store::open(
                storage,
                common::pool(),
                common::config(),
                &directory,
                &groups,
            );
            let (_, recovered) = opened.unwrap();
            let term = recovered.group(GROUP).hard_state.term;
            assert!(
                term >= promised || lost,
                "{path} at {at}: {term} of {promised}"
            );
            tried += 1;
        }
    }
    tried
}

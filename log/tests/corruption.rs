//! Flipped bits: each is reported by name and offset, none is served, and nothing durable is
//! silently cut.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use common::damage::{LAST, Part, What, look, parts, written_disk};
use common::{GROUP, HALF_BYTES, Node, Recover, check_body, open_disk};
use fastrand::Rng;
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{
    Alarm, Damage, Directory, Entry, EntryId, Event, Expected, LogIndex, ReadError, Recovered,
    RecoveredGroup, StoreConfig, Term,
};
use highwater_record::Offset;

/// Alarms of the node itself, as far as it has got.
struct Seen {
    node: Node,
    recovered: Recovered,
    alarms: Vec<Alarm>,
}

fn start(disk: &MemoryDisk, map_sealed: bool) -> Seen {
    let mut storage = MemoryStorage::new(disk);
    let directory = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES).unwrap();
    let mut alarms = directory.alarms().to_vec();
    assert!(!directory.promises_lost());
    let config = StoreConfig {
        map_sealed,
        ..common::config()
    };
    let (node, recovered) = common::open_store(storage, config, &directory).unwrap();
    alarms.extend(recovered.alarms.iter().cloned());
    Seen {
        node,
        recovered,
        alarms,
    }
}

impl Seen {
    /// Looks up and reads every offset that the log says it has. What is given is what was
    /// written; gives which entries that were.
    fn serve(&mut self) -> BTreeSet<u64> {
        let mut served = BTreeSet::new();
        for index in 1..=LAST {
            match self.read_offset(Offset((index - 1) * 10)) {
                Ok(entry) => {
                    assert_eq!(entry.id, written_id(index));
                    check_body(&entry);
                    served.insert(index);
                }
                Err(
                    ReadError::Quarantined { .. }
                    | ReadError::Damaged { .. }
                    | ReadError::BeyondEnd { .. }
                    | ReadError::BelowStart { .. },
                ) => {}
                Err(other) => panic!("entry {index}: {other}"),
            }
        }
        for event in std::mem::take(&mut self.node.events) {
            if let Event::Alarm(alarm) = event {
                self.alarms.push(alarm);
            }
        }
        served
    }

    /// As a consumer does it: from a place near the offset, entry by entry.
    fn read_offset(&mut self, offset: Offset) -> Result<Entry, ReadError> {
        let mut next = self.node.store.index_of_offset(GROUP, offset)?;
        loop {
            let entries = self.node.read(GROUP, next.0, 20_000)?;
            for entry in entries {
                if entry.end_offset() > offset {
                    return Ok(entry);
                }
                next = entry.id.index.next();
            }
        }
    }
}

fn written_id(index: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(if index <= 40 { 1 } else { 2 }),
    }
}

/// The size of the blocks that a disk puts into a wrong place, and how many it does of each file.
const BLOCK: usize = 4_096;
const BLOCKS_PER_FILE: usize = 12;

#[test]
fn a_block_in_the_place_of_another_of_its_file_is_noticed_and_never_served() {
    let disk = written_disk();
    let mut rng = Rng::with_seed(1);
    let mut alarms = 0;
    let files = disk.files().into_iter();
    for path in files.filter(|path| path.starts_with("groups/")) {
        let bytes = disk.contents(&path).unwrap();
        let blocks: Vec<&[u8]> = bytes.chunks_exact(BLOCK).collect();
        let is_written = |at: &usize| blocks[*at].iter().any(|byte| *byte != 0);
        let written: Vec<usize> = (0..blocks.len()).filter(is_written).collect();
        for _ in 0..BLOCKS_PER_FILE {
            let from = written[rng.usize(..written.len())];
            let to = written[rng.usize(..written.len())];
            let fork = disk.fork();
            fork.corrupt(&path, (to * BLOCK) as u64, blocks[from])
                .unwrap();
            let mut seen = start(&fork, false);
            for group in &seen.recovered.groups {
                let indexes = group.replay.iter().map(|it| it.id.index);
                assert!(
                    indexes.is_sorted_by(|a, b| a < b),
                    "{path}: {from} over {to}"
                );
            }
            seen.serve();
            alarms += usize::from(!seen.alarms.is_empty());
        }
    }
    assert!(alarms > 10, "{alarms}");
}

/// Bits of each kind of place; twelve kinds make a thousand.
const FLIPS_PER_KIND: usize = 84;

#[test]
fn a_thousand_random_bits_are_each_reported_and_none_is_served() {
    let flips = Cell::new(0);
    flip_bits(&flips);
    assert!(flips.get() >= 1_000, "{flips:?} bits");
}

/// That the thousand bits would find a footer that is believed unseen.
#[cfg(feature = "mutants")]
#[test]
fn planted_footers_are_not_checked() {
    use highwater_log::mutants::{Mutant, plant};
    let flips = Cell::new(0);
    plant(Some(Mutant::FooterUnchecked));
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flip_bits(&flips)));
    plant(None);
    println!("FooterUnchecked: {} flips", flips.get());
    assert!(found.is_err(), "not in {flips:?} flips");
}

fn flip_bits(flips: &Cell<usize>) {
    let disk = written_disk();
    let mut kinds: BTreeMap<What, Vec<Part>> = BTreeMap::new();
    for part in parts(&disk) {
        kinds.entry(part.what.kind()).or_default().push(part);
    }
    assert_eq!(kinds.len(), 12, "{:?}", kinds.keys());
    let mut rng = Rng::with_seed(1);
    for parts in kinds.values() {
        for _ in 0..FLIPS_PER_KIND {
            let part = &parts[rng.usize(..parts.len())];
            let bit = rng.u64(part.bytes.start * 8..part.bytes.end * 8);
            let damaged = disk.fork();
            damaged.flip_bit(&part.path, bit).unwrap();
            flips.set(flips.get() + 1);
            check_damaged(&damaged, part, bit, rng.bool());
        }
    }
}

fn check_damaged(disk: &MemoryDisk, part: &Part, bit: u64, map_sealed: bool) {
    let context = format!("bit {bit} of {part:?}, map_sealed {map_sealed}");
    let verified = look(disk);
    assert!(
        verified.iter().any(|alarm| part.is_named_by(alarm)),
        "log verify, {context}: {verified:?}"
    );
    let mut seen = start(disk, map_sealed);
    let named_at_start = seen.alarms.iter().any(|alarm| part.is_named_by(alarm));
    assert_eq!(
        named_at_start,
        !is_met_by_reading(part.what),
        "{context}: {:?}",
        seen.alarms
    );
    let group = seen.recovered.group(GROUP).clone();
    assert_eq!(group.hard_state.term, Term(2), "{context}");
    let served = seen.serve();
    assert!(
        seen.alarms.iter().any(|alarm| part.is_named_by(alarm)),
        "the node, {context}: {:?}",
        seen.alarms
    );
    check_served(part.what, &group, &served, &context);
}

/// What is good, and can be found, is served; what is damaged is not; and a log that has lost its
/// end says so.
fn check_served(what: What, group: &RecoveredGroup, served: &BTreeSet<u64>, context: &str) {
    let all: BTreeSet<u64> = (1..=LAST).collect();
    let missing: Vec<u64> = all.difference(served).copied().collect();
    let reaches_end = group.quarantine.as_ref().is_some_and(|it| it.reaches_end);
    assert!(
        group.last.index == LogIndex(LAST) || reaches_end,
        "{context}"
    );
    match what {
        // The other copy serves; footers say what the first frame said, and the frames what the
        // footer said.
        What::Unit { .. } | What::Begin { sealed: true } | What::Footer | What::Trailer => {
            assert_eq!(missing, [], "{context}");
            assert_eq!(group.quarantine, None, "{context}");
        }
        // What the file held, and whether it hid anything, nobody can say.
        What::Identity { .. } | What::Begin { sealed: false } => {
            assert!(reaches_end && served.is_empty(), "{context}: {served:?}");
        }
        What::Header { index, .. } | What::Body { index, .. } => {
            assert!(missing.contains(&index), "{context}");
            assert!(
                missing.iter().all(|&it| it >= index),
                "{context}: {missing:?}"
            );
            assert!(missing.len() < 15, "{context}: {missing:?}");
        }
    }
}

/// A sealed file's entries are not read before they are asked for; all else is, at the start.
const fn is_met_by_reading(what: What) -> bool {
    matches!(
        what,
        What::Header { sealed: true, .. } | What::Body { sealed: true, .. }
    )
}

#[test]
fn a_flip_in_one_copy_of_the_journal_costs_nothing() {
    let disk = written_disk();
    for part in parts(&disk)
        .iter()
        .filter(|part| matches!(part.what, What::Unit { .. }))
    {
        let damaged = disk.fork();
        damaged
            .flip_bit(&part.path, part.bytes.start * 8 + 700)
            .unwrap();
        let (_, recovered) = open_disk(&damaged);
        let group = recovered.group(GROUP);
        assert_eq!(group.hard_state.term.0, 2);
        assert_eq!(group.quarantine, None);
        // And the fresh checkpoint has mended it.
        let (_, again) = open_disk(&damaged);
        assert_eq!(again.group(GROUP).hard_state.term.0, 2);
    }
}

#[test]
fn a_file_cut_short_is_never_an_end() {
    let disk = written_disk();
    let mut rng = Rng::with_seed(2);
    let used = parts(&disk).into_iter().filter(|part| part.what.is_begin());
    let files: Vec<String> = used.map(|part| part.path).collect();
    for path in files {
        let len = disk.contents(&path).unwrap().len() as u64;
        for _ in 0..20 {
            let damaged = disk.fork();
            damaged.resize_file(&path, rng.u64(..len)).unwrap();
            let (mut node, recovered) = open_disk(&damaged);
            let group = recovered.group(GROUP);
            let whole = group.last.index == LogIndex(LAST) && node.serve(GROUP) == LAST;
            assert!(whole || group.quarantine.is_some() || !node.alarms().is_empty());
        }
        let gone = disk.fork();
        gone.remove(&path).unwrap();
        let (_, recovered) = open_disk(&gone);
        let group = recovered.group(GROUP);
        let retired = group.start.before.index > LogIndex(0) && group.quarantine.is_none();
        assert!(retired || group.quarantine.is_some(), "{path}");
    }
}

#[test]
fn a_newer_version_is_refused_untouched() {
    let disk = written_disk();
    let path = disk
        .files()
        .into_iter()
        .find(|path| path.starts_with("groups/"))
        .unwrap();
    let mut block = disk.contents(&path).unwrap()[..4_096].to_vec();
    block[8] = 2;
    let crc = crc32(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    disk.corrupt(&path, 0, &block).unwrap();
    let before: Vec<(String, Vec<u8>)> = contents(&disk);
    let opened = common::open_with(MemoryStorage::new(&disk), common::config());
    let error = opened.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("newer"), "{error}");
    assert_eq!(contents(&disk), before);
}

fn contents(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let files = disk.files().into_iter();
    files
        .map(|path| {
            let bytes = disk.contents(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

/// CRC-32/IEEE, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (low * 0xedb8_8320);
        }
    }
    !crc
}

#[test]
fn a_bad_footer_is_reported_and_written_again() {
    let disk = written_disk();
    let footer = parts(&disk)
        .into_iter()
        .find(|part| part.what == What::Footer);
    let footer = footer.unwrap();
    disk.flip_bit(&footer.path, footer.bytes.start * 8).unwrap();
    let (mut node, recovered) = open_disk(&disk);
    assert_eq!(recovered.alarms.len(), 1);
    assert_eq!(recovered.alarms[0].damage, Damage::Footer);
    assert_eq!(recovered.group(GROUP).quarantine, None);
    assert_eq!(node.read_all(GROUP).len() as u64, LAST);
    node.commit_and_seal(GROUP);
    drop(node);
    assert_eq!(look(&disk), []);
}

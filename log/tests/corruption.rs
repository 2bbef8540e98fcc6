//! Flipped bits: each is reported by name and offset, none is served, and nothing durable is
//! silently cut.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::ops::Range;

use common::{GROUP, Node, Recover, format, open_disk};
use fastrand::Rng;
use highwater_log::format::journal::Unit;
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{Alarm, Damage, GroupConfig, Inspector, Item, LogIndex, Place, ReadError};

/// A group with sealed files, closed ones and one that is being written; all of it durable, and
/// known to be.
fn written_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    let config = GroupConfig {
        segment_bytes: 64 << 10,
        ..GroupConfig::default()
    };
    node.create_with(GROUP, config);
    for _ in 0..40 {
        node.append_sized(GROUP, 1, 9_000);
        node.settle();
    }
    node.commit_and_seal(GROUP);
    node.promise(GROUP, 2);
    for _ in 0..15 {
        node.append_sized(GROUP, 2, 9_000);
        node.append_sized(GROUP, 2, 101);
        node.settle();
    }
    node.idle();
    drop(node);
    disk
}

const LAST: u64 = 70;

/// A unit of bytes that is under one checksum.
#[derive(Debug, Clone)]
struct Part {
    path: String,
    bytes: Range<u64>,
    what: &'static str,
    sealed: bool,
}

/// Every part of the directory that is in use.
fn parts(disk: &MemoryDisk) -> Vec<Part> {
    let mut parts = live_units(disk);
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    assert_eq!(inspector.alarms(), []);
    assert_eq!(inspector.verify(GROUP).unwrap().alarms, []);
    let mut show = |place: Place<'_>, item: Item<'_>| {
        let file_len = disk.contents(place.path).unwrap().len() as u64;
        let (len, what) = match item {
            Item::File { .. } => (4_096, "identity"),
            Item::Begin(begin) => (64 + begin.encode_body().len() as u64, "begin"),
            Item::Entry { header, .. } => (header.frame_len() as u64, "entry"),
            Item::Footer(_) => (file_len - place.offset, "footer"),
            Item::Garbage { .. } => panic!("garbage at {}", place.offset),
        };
        parts.push(Part {
            path: place.path.to_owned(),
            bytes: place.offset..place.offset + len,
            what,
            sealed: false,
        });
    };
    inspector.walk(GROUP, &mut show).unwrap();
    let footers = parts.iter().filter(|part| part.what == "footer");
    let sealed: Vec<String> = footers.map(|part| part.path.clone()).collect();
    for part in &mut parts {
        part.sealed = sealed.contains(&part.path);
    }
    parts
}

/// Units of the journal's generation that holds: what older ones say does not matter any more.
fn live_units(disk: &MemoryDisk) -> Vec<Part> {
    let mut units = Vec::new();
    for path in ["journal/0000-a", "journal/0000-b"] {
        let bytes = disk.contents(path).unwrap();
        for at in (0..bytes.len()).step_by(4_096) {
            if let Ok(unit) = Unit::decode(&bytes[at..]) {
                units.push((unit.header.generation, path, at as u64, unit.len as u64));
            }
        }
    }
    let current = units.iter().map(|unit| unit.0).max().unwrap();
    let live = units.into_iter().filter(|unit| unit.0 == current);
    live.map(|(_, path, at, len)| Part {
        path: path.to_owned(),
        bytes: at..at + len,
        what: "unit",
        sealed: false,
    })
    .collect()
}

fn look(disk: &MemoryDisk) -> Vec<Alarm> {
    let mut inspector = Inspector::open(MemoryStorage::new(disk)).unwrap();
    let mut alarms = inspector.alarms().to_vec();
    alarms.extend(inspector.verify(GROUP).unwrap().alarms);
    alarms
}

#[test]
fn every_flipped_bit_is_reported_by_name_and_offset() {
    let disk = written_disk();
    let parts = parts(&disk);
    for what in ["unit", "identity", "begin", "entry", "footer"] {
        assert!(parts.iter().any(|part| part.what == what), "no {what}");
    }
    let mut rng = Rng::with_seed(1);
    for flip in 0..1_000 {
        let part = &parts[flip % parts.len()];
        let byte = rng.u64(part.bytes.clone());
        let damaged = disk.fork();
        damaged
            .flip_bit(&part.path, byte * 8 + rng.u64(..8))
            .unwrap();
        let alarms = look(&damaged);
        let named = alarms
            .iter()
            .any(|alarm| alarm.path == part.path && alarm.offset <= byte);
        assert!(named, "byte {byte} of {part:?}: {alarms:?}");
        check_open(&damaged, part, byte);
    }
}

/// The node reports it too, at start or at the first read; it serves what is good, and only
/// that; and what it cannot serve it says it cannot.
fn check_open(disk: &MemoryDisk, part: &Part, byte: u64) {
    let context = format!("byte {byte} of {part:?}");
    let (mut node, recovered) = open_disk(disk);
    let group = recovered.group(GROUP);
    assert_eq!(group.hard_state.term.0, 2, "{context}");
    let mut reported = recovered.alarms.iter().any(|alarm| alarm.path == part.path);
    if part.what == "unit" {
        // The directory reports its journals; their other copy serves.
        assert_eq!(group.last.index, LogIndex(LAST), "{context}");
        assert_eq!(node.read_all(GROUP).len() as u64, LAST, "{context}");
        return;
    }
    if group.last.index < LogIndex(LAST) {
        let quarantine = group.quarantine.as_ref().expect("cut without a word");
        assert!(quarantine.reaches_end, "{context}");
    }
    let served = serve(&mut node);
    reported |= node
        .alarms()
        .iter()
        .any(|alarm| alarm.starts_with(&part.path));
    let hidden = part.sealed && part.what == "begin";
    assert!(
        reported,
        "{context}: {served} served, alarms {:?}",
        node.alarms()
    );
    assert!(served < LAST || part.what != "entry" || hidden, "{context}");
}

/// Reads what can be read; gives how many entries that were.
fn serve(node: &mut Node) -> u64 {
    let mut next = node.store.start(GROUP).unwrap().position.first().0;
    let last = node.last(GROUP).index.0;
    let mut served = 0;
    while next <= last {
        match node.read(GROUP, next, 1) {
            Ok(entries) => {
                for entry in &entries {
                    assert_eq!(entry.id.index.0, next);
                    common::check_body(entry);
                    next += 1;
                    served += 1;
                }
            }
            Err(ReadError::Quarantined { .. } | ReadError::Damaged { .. }) => next += 1,
            Err(other) => panic!("entry {next}: {other}"),
        }
    }
    served
}

#[test]
fn a_flip_in_one_copy_of_the_journal_costs_nothing() {
    let disk = written_disk();
    for part in parts(&disk).iter().filter(|part| part.what == "unit") {
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
    let files: Vec<String> = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("groups/"))
        .collect();
    for path in files {
        let len = disk.contents(&path).unwrap().len() as u64;
        for _ in 0..20 {
            let damaged = disk.fork();
            damaged.resize_file(&path, rng.u64(..len)).unwrap();
            let (mut node, recovered) = open_disk(&damaged);
            let group = recovered.group(GROUP);
            let whole = group.last.index == LogIndex(LAST) && serve(&mut node) == LAST;
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
    let footer = parts(&disk).into_iter().find(|part| part.what == "footer");
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

//! What one shard's log costs beside its disk: appends, reads of the tail, recovery.
//!
//! `cargo bench -p highwater-log --bench log`

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_main};
use highwater_log::storage::{MemoryDisk, MemoryStorage, Storage};
use highwater_log::{
    ClusterId, Directory, DirectoryFormat, EntryId, EntryKind, Event, Expected, GroupConfig,
    GroupId, HardState, Incarnation, LogIndex, NewEntry, NodeId, Read, Sequence, Snapshot, Store,
    StoreConfig, Term, Ticket, WriteId,
};
use highwater_record::{
    Budget, Buffer, BufferPool, Compression, Offset, RecordBatchBuilder, crc32c,
};

use self::storage::QuickStorage;

#[path = "../../engine/benches/by_hand/storage.rs"]
mod storage;

const GROUP: GroupId = GroupId(1);
const TERM: Term = Term(1);

/// Records of 1 KiB in an entry: about 64 KiB.
const RECORDS_PER_ENTRY: u32 = 63;

/// Entries that are gathered into a write of about 1 MiB.
const ENTRIES_PER_WRITE: u64 = 16;

const JOURNAL_HALF_BYTES: u64 = 64 << 10;

fn pool() -> BufferPool {
    BufferPool::new(Budget::new(256 << 20), 4096)
}

fn format(disk: &MemoryDisk) {
    let format = DirectoryFormat {
        node: NodeId(1),
        cluster: ClusterId([1; 16]),
        incarnation: Incarnation([2; 16]),
        created_ms: 0,
    };
    let formatted = Directory::format(&mut MemoryStorage::new(disk), &format);
    formatted.expect("a new disk is empty and well");
}

/// Opens what is on a disk, and says whether it is all well.
fn open<S: Storage>(disk: &MemoryDisk, storage: S) -> Store<S> {
    let mut front = MemoryStorage::new(disk);
    let directory = Directory::open(&mut front, &Expected::default(), 1, JOURNAL_HALF_BYTES);
    let directory = directory.expect("it is formatted");
    let config = StoreConfig {
        reserve_bytes: 0,
        ..StoreConfig::default()
    };
    let groups = directory.groups();
    let opened = Store::open(storage, pool(), config, &directory, &groups);
    let (store, recovered) = opened.expect("it is well");
    assert!(recovered.alarms.is_empty(), "{:?}", recovered.alarms);
    store
}

/// The body of every entry.
fn batch() -> Buffer {
    let mut builder = RecordBatchBuilder::new(Compression::None, 1 << 20);
    for _ in 0..RECORDS_PER_ENTRY {
        let appended = builder.append(1, None, Some(&[7; 1024]), &[]);
        appended.expect("1 MiB is enough");
    }
    Buffer::from(builder.seal().expect("not empty"))
}

/// A store with one group, whose owner seals what is closed if it is told to.
struct Log<S: Storage> {
    store: Store<S>,
    body: Buffer,
    body_crc: u32,
    seals: bool,
    last: LogIndex,
    last_write: WriteId,
    persisted: WriteId,
    to_seal: Vec<(Sequence, LogIndex)>,
}

impl<S: Storage> Log<S> {
    fn new(mut store: Store<S>, config: GroupConfig, seals: bool) -> Log<S> {
        let created = store.create_group(GROUP, config);
        created.expect("the first group");
        let promise = HardState {
            term: TERM,
            vote: None,
        };
        let promised = store.set_hard_state(GROUP, WriteId(1), promise);
        promised.expect("a term above 0");
        let body = batch();
        let mut log = Log {
            store,
            body_crc: crc32c(&body),
            body,
            seals,
            last: LogIndex(0),
            last_write: WriteId(1),
            persisted: WriteId(0),
            to_seal: Vec::new(),
        };
        log.settle();
        log
    }

    /// Appends as much as one write gathers, and waits until it is durable.
    fn append(&mut self) {
        self.last_write = WriteId(self.last_write.0 + 1);
        let entries: Vec<NewEntry> = (1..=ENTRIES_PER_WRITE).map(|n| self.entry(n)).collect();
        let appended = self.store.append(GROUP, self.last_write, &entries);
        appended.expect("the log's next entries");
        self.last = self.last.advance(ENTRIES_PER_WRITE);
        self.settle();
        self.store.commit(GROUP, self.last);
    }

    /// The entry so many places behind the last.
    fn entry(&self, places: u64) -> NewEntry {
        let index = self.last.advance(places);
        NewEntry {
            id: EntryId { index, term: TERM },
            kind: EntryKind::Data,
            base_offset: Offset((index.0 - 1) * u64::from(RECORDS_PER_ENTRY)),
            offset_span: RECORDS_PER_ENTRY,
            append_time: 1,
            body: self.body.clone(),
            body_crc: self.body_crc,
            chain: None,
        }
    }

    fn settle(&mut self) {
        while self.persisted < self.last_write {
            self.turn();
        }
    }

    /// Until nothing is under way any more.
    fn rest(&mut self) {
        while self.store.is_busy() {
            self.turn();
        }
    }

    fn turn(&mut self) {
        for (sequence, at) in self.to_seal.drain(..) {
            let state = Buffer::default();
            let sealed = self.store.seal(GROUP, sequence, Snapshot { at, state });
            sealed.expect("the group is here");
        }
        self.store.flush(Duration::ZERO);
        let mut events = Vec::new();
        self.store.poll(Duration::ZERO, &mut events);
        for event in events {
            match event {
                Event::Persisted { write, .. } => self.persisted = write,
                Event::Closed { sequence, last, .. } if self.seals => {
                    self.to_seal.push((sequence, last));
                }
                Event::Closed { .. } | Event::Sealed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads a MiB, all of it from memory.
    fn read_tail(&mut self) -> usize {
        let from = LogIndex(self.last.0 - ENTRIES_PER_WRITE + 1);
        let read = self.store.read(GROUP, from, 1 << 20, Ticket(1));
        match read.expect("it is there") {
            Read::Ready(entries) => entries.len(),
            Read::Pending => panic!("the tail cache has lost it"),
        }
    }
}

fn mebibytes(count: u64) -> Throughput {
    Throughput::Bytes(count << 20)
}

/// On a disk that drops what it is given: what a disk in memory does with it would take longer.
fn appending(criterion: &mut Criterion) {
    let disk = MemoryDisk::new();
    format(&disk);
    let drops_writes = Rc::new(Cell::new(true));
    let store = open(&disk, QuickStorage::new(&disk, &drops_writes));
    let mut log = Log::new(store, GroupConfig::default(), false);
    let mut group = criterion.benchmark_group("append");
    group.throughput(mebibytes(1));
    group.bench_function("16x64KiB", |bencher| bencher.iter(|| log.append()));
    group.finish();
    // Where only this one is asked for, nothing is there yet.
    log.append();
    criterion.bench_function("read_tail/1MiB", |bencher| {
        bencher.iter(|| black_box(log.read_tail()));
    });
}

/// Writes of a MiB that recovery finds.
const RECOVERED_WRITES: u64 = 32;

/// How large files become there, in bytes.
const RECOVERED_FILE_BYTES: u64 = 4 << 20;

/// From the footers of all files but the last, and from every frame of every file.
fn recovering(criterion: &mut Criterion) {
    let config = GroupConfig {
        segment_bytes: RECOVERED_FILE_BYTES,
        ..GroupConfig::default()
    };
    let mut group = criterion.benchmark_group("recover_32MiB");
    group
        .throughput(mebibytes(RECOVERED_WRITES))
        .sample_size(20);
    for (name, seals) in [("sealed", true), ("unsealed", false)] {
        let disk = MemoryDisk::new();
        format(&disk);
        let store = open(&disk, MemoryStorage::new(&disk));
        let mut log = Log::new(store, config, seals);
        for _ in 0..RECOVERED_WRITES {
            log.append();
        }
        log.rest();
        drop(log);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || disk.fork(),
                |disk| open(&disk, MemoryStorage::new(&disk)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// In a module of their own, since the macro makes them public without a description.
mod groups {
    use super::{appending, recovering};

    criterion::criterion_group!(benches, appending, recovering);
}

criterion_main!(groups::benches);

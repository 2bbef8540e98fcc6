//! A store on a disk in memory, and what the tests ask of it.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

pub(crate) mod damage;
pub(crate) mod model;
pub(crate) mod power;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_log::format::frame::{FrameHeader, FrameKind};
use highwater_log::storage::{MemoryDisk, MemoryStorage, Storage};
use highwater_log::{
    Base, Chain, ClusterId, Directory, DirectoryFormat, Entry, EntryId, EntryKind, Event, Expected,
    GroupConfig, GroupId, HardState, Incarnation, LogIndex, NewEntry, NodeId, OpenError, Read,
    ReadError, Recovered, RecoveredGroup, SEGMENT_BYTES_MIN, Snapshot, Store, StoreConfig, Term,
    Ticket, WriteId,
};
use highwater_record::{Budget, Buffer, BufferPool, Offset, crc32c};

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const HALF_BYTES: u64 = 64 << 10;

pub(crate) fn directory_format() -> DirectoryFormat {
    DirectoryFormat {
        node: NodeId(1),
        cluster: ClusterId([1; 16]),
        incarnation: Incarnation([2; 16]),
        created_ms: 0,
    }
}

pub(crate) fn format(disk: &MemoryDisk) {
    Directory::format(&mut MemoryStorage::new(disk), &directory_format()).unwrap();
}

pub(crate) fn pool() -> BufferPool {
    BufferPool::new(Budget::new(256 << 20), 4096)
}

pub(crate) fn config() -> StoreConfig {
    StoreConfig {
        seed: 42,
        reserve_bytes: 0,
        recycle_bytes: 1 << 20,
        ..StoreConfig::default()
    }
}

/// Files are as short as may be.
pub(crate) fn small_files() -> GroupConfig {
    GroupConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        ..GroupConfig::default()
    }
}

/// A store, its virtual time, and what it has reported.
pub(crate) struct Node<S = MemoryStorage> {
    pub(crate) store: Store<S>,
    pub(crate) now: Duration,
    pub(crate) events: Vec<Event>,
    pub(crate) persisted: BTreeMap<GroupId, WriteId>,
    pub(crate) next_write: u64,
    pub(crate) failed: bool,
    next_ticket: u64,
}

pub(crate) fn open_disk(disk: &MemoryDisk) -> (Node, Recovered) {
    open_with(MemoryStorage::new(disk), config()).unwrap()
}

pub(crate) fn open_with<S: Storage>(
    mut storage: S,
    config: StoreConfig,
) -> Result<(Node<S>, Recovered), OpenError> {
    let directory = Directory::open(&mut storage, &Expected::default(), 1, HALF_BYTES)?;
    open_store(storage, config, &directory)
}

pub(crate) fn open_store<S: Storage>(
    storage: S,
    config: StoreConfig,
    directory: &Directory,
) -> Result<(Node<S>, Recovered), OpenError> {
    open_store_of(storage, config, directory, &directory.groups())
}

/// One shard's store, which has these groups.
pub(crate) fn open_store_of<S: Storage>(
    storage: S,
    config: StoreConfig,
    directory: &Directory,
    groups: &[GroupId],
) -> Result<(Node<S>, Recovered), OpenError> {
    open_store_with(storage, pool(), config, directory, groups)
}

/// Such a one whose memory is of `pool`.
pub(crate) fn open_store_with<S: Storage>(
    storage: S,
    pool: BufferPool,
    config: StoreConfig,
    directory: &Directory,
    groups: &[GroupId],
) -> Result<(Node<S>, Recovered), OpenError> {
    let (store, recovered) = Store::open(storage, pool, config, directory, groups)?;
    let node = Node {
        store,
        now: Duration::ZERO,
        events: Vec::new(),
        persisted: BTreeMap::new(),
        next_write: 1,
        failed: false,
        next_ticket: 1,
    };
    Ok((node, recovered))
}

impl Recover for Recovered {
    fn group(&self, group: GroupId) -> &RecoveredGroup {
        let mut groups = self.groups.iter();
        groups.find(|found| found.group == group).unwrap()
    }
}

pub(crate) trait Recover {
    fn group(&self, group: GroupId) -> &RecoveredGroup;
}

impl<S: Storage> Node<S> {
    pub(crate) fn write_id(&mut self) -> WriteId {
        self.next_write += 1;
        WriteId(self.next_write)
    }

    /// One flush and one poll; whatever had been submitted before completes.
    pub(crate) fn turn(&mut self) {
        self.store.flush(self.now);
        let mut events = Vec::new();
        self.store.poll(self.now, &mut events);
        for event in events {
            if let Event::Persisted { group, write } = &event {
                self.persisted.insert(*group, *write);
            }
            self.failed |= matches!(event, Event::Failed { .. });
            self.events.push(event);
        }
    }

    /// Turns until nothing is left to do but to wait for time to pass.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            if self.store.has_failed() || !self.store.is_busy() {
                return;
            }
            self.store.wait();
        }
        panic!("the store does not come to rest");
    }

    /// Lets time pass, so that idle groups push their positions.
    pub(crate) fn idle(&mut self) {
        self.settle();
        self.now += Duration::from_millis(200);
        self.settle();
    }

    pub(crate) fn create(&mut self, group: GroupId) {
        self.create_with(group, GroupConfig::default());
    }

    pub(crate) fn create_with(&mut self, group: GroupId, config: GroupConfig) {
        self.store.create_group(group, config).unwrap();
        self.promise(group, 1);
    }

    pub(crate) fn promise(&mut self, group: GroupId, term: u32) -> WriteId {
        let write = self.write_id();
        let hard = HardState {
            term: Term(term),
            vote: None,
        };
        self.store.set_hard_state(group, write, hard).unwrap();
        write
    }

    /// Appends a batch of `span` offsets with a body of `bytes` bytes.
    pub(crate) fn append_sized(&mut self, group: GroupId, term: u32, bytes: usize) -> WriteId {
        let write = self.write_id();
        let entry = self.next_entry(group, term, bytes);
        self.store.append(group, write, &[entry]).unwrap();
        write
    }

    pub(crate) fn next_entry(&self, group: GroupId, term: u32, bytes: usize) -> NewEntry {
        let end = self.store.end(group).unwrap();
        entry_after(end.before.index, end.offset, term, bytes)
    }

    pub(crate) fn append(&mut self, group: GroupId, term: u32, count: u64) -> WriteId {
        let mut last = WriteId(0);
        for _ in 0..count {
            last = self.append_sized(group, term, 100);
        }
        last
    }

    pub(crate) fn cut(&mut self, group: GroupId, first: u64) -> WriteId {
        let write = self.write_id();
        self.store.cut(group, write, LogIndex(first)).unwrap();
        write
    }

    pub(crate) fn base(&mut self, group: GroupId, base: Base) -> WriteId {
        let write = self.write_id();
        self.store.base(group, write, base).unwrap();
        write
    }

    pub(crate) fn last(&self, group: GroupId) -> EntryId {
        self.store.last(group).unwrap()
    }

    /// Commits everything and seals what is closed.
    pub(crate) fn commit_and_seal(&mut self, group: GroupId) {
        self.settle();
        let last = self.last(group).index;
        self.store.commit(group, last);
        let closed: Vec<_> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Closed {
                    group: of,
                    sequence,
                    ..
                } if *of == group => Some(*sequence),
                _ => None,
            })
            .collect();
        self.events
            .retain(|event| !matches!(event, Event::Closed { .. }));
        for sequence in closed {
            let snapshot = Snapshot {
                at: last,
                state: Buffer::from(format!("state at {last}").into_bytes()),
            };
            self.store.seal(group, sequence, snapshot).unwrap();
        }
        self.settle();
    }

    pub(crate) fn read(
        &mut self,
        group: GroupId,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        match self.store.read(group, LogIndex(from), max_bytes, ticket)? {
            Read::Ready(entries) => Ok(entries),
            Read::Pending => {
                self.settle();
                let at = self.events.iter().position(
                    |event| matches!(event, Event::ReadDone { ticket: of, .. } if *of == ticket),
                );
                match self.events.swap_remove(at.unwrap()) {
                    Event::ReadDone { result, .. } => result,
                    _ => unreachable!(),
                }
            }
        }
    }

    /// All entries of a log, each checked to be what `entry_after` makes.
    pub(crate) fn read_all(&mut self, group: GroupId) -> Vec<Entry> {
        let mut next = self.store.start(group).unwrap().position.first();
        let last = self.last(group).index;
        let mut all = Vec::new();
        while next <= last {
            let entries = self.read(group, next.0, 10_000).unwrap();
            assert!(!entries.is_empty());
            for entry in entries {
                assert_eq!(entry.id.index, next);
                check_body(&entry);
                next = next.next();
                all.push(entry);
            }
        }
        all
    }

    /// Reads what can be read; gives how many entries that were.
    pub(crate) fn serve(&mut self, group: GroupId) -> u64 {
        let mut next = self.store.start(group).unwrap().position.first().0;
        let last = self.last(group).index.0;
        let mut served = 0;
        while next <= last {
            match self.read(group, next, 1) {
                Ok(entries) => {
                    for entry in &entries {
                        assert_eq!(entry.id.index.0, next);
                        check_body(entry);
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

    pub(crate) fn is_persisted(&self, group: GroupId, write: WriteId) -> bool {
        self.persisted.get(&group).is_some_and(|&to| to >= write)
    }

    pub(crate) fn alarms(&self) -> Vec<String> {
        let alarms = self.events.iter().filter_map(|event| match event {
            Event::Alarm(alarm) => Some(alarm.to_string()),
            _ => None,
        });
        alarms.collect()
    }
}

/// A batch-like body that can be told from any other.
pub(crate) fn body(index: LogIndex, term: u32, bytes: usize) -> Vec<u8> {
    let mut body = format!("entry {index} of term {term} ").into_bytes();
    let mut rng = fastrand::Rng::with_seed(index.0 << 20 | u64::from(term));
    body.resize_with(bytes.max(body.len()), || rng.u8(..));
    if body.len() >= 61 {
        // Where a batch has its largest timestamp.
        let timestamp = i64::try_from(index.0 * 1_000).unwrap();
        body[35..43].copy_from_slice(&timestamp.to_be_bytes());
    }
    if let Some(place) = body.get_mut(64..128) {
        place.copy_from_slice(&planted(index, term).encode());
    }
    body
}

/// A frame that a client has put inside its records. It holds but for the file's salt, which
/// nobody outside knows, and claims that more is durable than was ever written.
fn planted(index: LogIndex, term: u32) -> FrameHeader {
    FrameHeader {
        body_crc: 0,
        body_len: 0,
        kind: FrameKind::Control,
        salt: 0x7e57,
        index: LogIndex(index.0 + 1_000),
        term: Term(term),
        offset_span: 0,
        base_offset: Offset(0),
        chain: Chain(0),
        watermark_lag: 1,
        append_time: 0,
    }
}

pub(crate) fn check_body(entry: &Entry) {
    let expected = body(entry.id.index, entry.id.term.0, entry.body.len());
    assert_eq!(&entry.body[..], &expected[..], "body of {}", entry.id);
    assert_eq!(entry.body_crc, crc32c(&expected));
}

pub(crate) fn entry_after(last: LogIndex, end: Offset, term: u32, bytes: usize) -> NewEntry {
    let index = last.next();
    let body = body(index, term, bytes);
    NewEntry {
        id: EntryId {
            index,
            term: Term(term),
        },
        kind: EntryKind::Data,
        base_offset: end,
        offset_span: 10,
        append_time: u32::try_from(index.0).unwrap(),
        body_crc: crc32c(&body),
        body: Buffer::from(body),
        chain: None,
    }
}

//! The crate alone as a write-ahead log: one group on one node, blocking calls.

use std::time::Duration;

use highwater_record::{BudgetExhausted, BufferMut, BufferPool, Offset, crc32c};

use crate::config::{BODY_BYTES_MAX, GroupConfig, JOURNAL_HALF_BYTES, StoreConfig};
use crate::directory::{Directory, DirectoryFormat, Expected};
use crate::entry::{Entry, EntryKind, HardState, NewEntry, Snapshot};
use crate::error::{AppendError, FormatError, GroupError, OpenError, ReadError};
use crate::event::{Event, Read};
use crate::ids::{
    ClusterId, EntryId, GroupId, Incarnation, LogIndex, NodeId, Sequence, Term, Ticket, WriteId,
};
use crate::recovery::build::RecoveredGroup;
use crate::storage::{Storage, StorageError};
use crate::store::Store;

const GROUP: GroupId = GroupId(0);
const TERM: Term = Term(1);

/// How much time passes between two calls, as the store sees it: it has no clock here.
const TICK: Duration = Duration::from_millis(1);

/// A write-ahead log: records in, durable after [`sync`](Wal::sync), in order out.
///
/// One [`Store`] with one group, and nobody to agree with. Every record is durable or not as a
/// whole; what a crash interrupts is cut off at the next [`open`](Wal::open), what is damaged
/// later is reported and never served.
///
/// ```
/// use highwater_log::storage::{Access, DataDirectory, PortableStorage};
/// use highwater_log::{LogIndex, Wal};
/// use highwater_record::{Budget, BufferPool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("wal");
/// let pool = BufferPool::new(Budget::new(64 << 20), 4096);
///
/// // The first time: a directory is made and formatted.
/// let directory = DataDirectory::create(&path)?;
/// let storage = PortableStorage::new(directory, pool.clone())?;
/// let mut wal = Wal::create(storage, pool.clone(), 0xfeed)?;
/// wal.append(b"debit alice 10")?;
/// wal.append(b"credit bob 10")?;
/// wal.sync()?; // from here on both survive a power cut
/// drop(wal);
///
/// // Every other time: what was synced is there.
/// let directory = DataDirectory::open(&path, Access::ReadWrite)?;
/// let storage = PortableStorage::new(directory, pool.clone())?;
/// let mut wal = Wal::open(storage, pool, 0xbeef)?;
/// let records = wal.read(LogIndex(1), 1 << 20)?;
/// assert_eq!(&records[0].body[..], b"debit alice 10");
/// assert_eq!(&records[1].body[..], b"credit bob 10");
/// assert_eq!(wal.append(b"debit bob 5")?, LogIndex(3));
/// wal.sync()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Wal<S> {
    store: Store<S>,
    pool: BufferPool,
    recovered: RecoveredGroup,
    last_write: WriteId,
    persisted: WriteId,
    now: Duration,
    events: Vec<Event>,
}

/// A call to a [`Wal`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The directory could not be formatted.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot take anything more: its end is damaged, or its disk has failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The record was not accepted.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No memory is left for the record.
    #[error(transparent)]
    Memory(#[from] BudgetExhausted),
    /// A write or sync failed: nothing is known of what was not synced before. Open anew.
    #[error("the disk failed: {0}")]
    Failed(StorageError),
    /// The file system is full. What was appended waits; sync again when there is room.
    #[error("no space is left on the file system")]
    NoSpace,
    /// Records that had been durable are damaged or missing from here on: see
    /// [`Wal::recovered`].
    #[error("records from {first} on are damaged or missing")]
    Damaged {
        /// The first of them.
        first: LogIndex,
    },
}

impl<S: Storage> Wal<S> {
    /// Formats an empty directory and opens it. `seed` should be random: it marks this log's
    /// files.
    ///
    /// # Errors
    ///
    /// [`WalError::Format`] if the directory is not empty; others as [`open`](Wal::open).
    pub fn create(mut storage: S, pool: BufferPool, seed: u64) -> Result<Wal<S>, WalError> {
        let mut incarnation = [0; 16];
        let mut random = fastrand::Rng::with_seed(seed);
        random.fill(&mut incarnation);
        let format = DirectoryFormat {
            node: NodeId(0),
            cluster: ClusterId(incarnation),
            incarnation: Incarnation(incarnation),
            created_ms: 0,
        };
        Directory::format(&mut storage, &format)?;
        Wal::open(storage, pool, seed)
    }

    /// Opens a log and recovers it. `seed` should be random, and another one each time.
    ///
    /// # Errors
    ///
    /// [`WalError::Open`], or [`WalError::Damaged`] if the log's end had been durable and is
    /// gone: then nothing was changed but the directory's own books.
    pub fn open(mut storage: S, pool: BufferPool, seed: u64) -> Result<Wal<S>, WalError> {
        let expected = Expected::default();
        let directory = Directory::open(&mut storage, &expected, 1, JOURNAL_HALF_BYTES)?;
        let config = StoreConfig {
            seed,
            ..StoreConfig::default()
        };
        let groups = [GROUP];
        let (store, recovered) = Store::open(storage, pool.clone(), config, &directory, &groups)?;
        let recovered = recovered.groups.into_iter().next();
        let recovered = recovered.expect("one group was asked for");
        let quarantine = recovered.quarantine.as_ref();
        if let Some(first) = quarantine.filter(|it| it.reaches_end).map(|it| it.first) {
            return Err(WalError::Damaged { first });
        }
        let mut wal = Wal {
            store,
            pool,
            recovered,
            last_write: WriteId(0),
            persisted: WriteId(0),
            now: Duration::ZERO,
            events: Vec::new(),
        };
        wal.promise()?;
        Ok(wal)
    }

    /// There is nobody else to promise anything to, but entries need a term.
    fn promise(&mut self) -> Result<(), WalError> {
        if self.recovered.hard_state.term == TERM {
            return Ok(());
        }
        let write = self.next_write();
        let hard = HardState {
            term: TERM,
            vote: None,
        };
        let promised = self.store.set_hard_state(GROUP, write, hard);
        promised.expect("the first promise of a new log");
        self.sync()
    }

    /// What recovery found when the log was opened: where it begins and ends, what a crash had
    /// interrupted, what is damaged.
    #[must_use]
    pub const fn recovered(&self) -> &RecoveredGroup {
        &self.recovered
    }

    /// Appends a record and gives its index. It is durable after the next [`sync`](Wal::sync).
    ///
    /// # Errors
    ///
    /// [`WalError::Append`] if it is too large or the log has failed, [`WalError::Memory`] if
    /// too much waits to be synced.
    pub fn append(&mut self, record: &[u8]) -> Result<LogIndex, WalError> {
        let end = self.store.end(GROUP)?;
        if record.len() > BODY_BYTES_MAX {
            return Err(WalError::Append(AppendError::TooLarge {
                index: end.first(),
                bytes: record.len(),
                max: BODY_BYTES_MAX,
            }));
        }
        let mut body: BufferMut = self.pool.get(record.len())?;
        body.extend_from_slice(record);
        let entry = NewEntry {
            id: EntryId {
                index: end.first(),
                term: TERM,
            },
            kind: EntryKind::Data,
            base_offset: end.offset,
            offset_span: 1,
            append_time: 0,
            body_crc: crc32c(record),
            body: body.freeze(),
            chain: None,
        };
        let write = self.next_write();
        self.store.append(GROUP, write, &[entry])?;
        Ok(end.first())
    }

    /// Makes everything durable that was appended.
    ///
    /// # Errors
    ///
    /// [`WalError::Failed`] is final; after [`WalError::NoSpace`] sync again.
    pub fn sync(&mut self) -> Result<(), WalError> {
        while self.persisted < self.last_write {
            self.turn()?;
            if self.persisted < self.last_write {
                self.store.wait();
            }
        }
        self.seal_closed()
    }

    /// To be called when no record is expected for a while: from then on damage to any record
    /// is told from an interrupted write.
    ///
    /// # Errors
    ///
    /// As [`sync`](Wal::sync).
    pub fn rest(&mut self) -> Result<(), WalError> {
        self.sync()?;
        self.now += StoreConfig::default().idle_push;
        self.settle()
    }

    /// Reads records from an index on: at least one, and more up to `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`WalError::Read`].
    pub fn read(&mut self, from: LogIndex, max_bytes: usize) -> Result<Vec<Entry>, WalError> {
        let ticket = Ticket(0);
        if let Read::Ready(entries) = self.store.read(GROUP, from, max_bytes, ticket)? {
            return Ok(entries);
        }
        loop {
            self.turn()?;
            let done = self
                .events
                .iter()
                .position(|it| matches!(it, Event::ReadDone { .. }));
            if let Some(at) = done {
                let Event::ReadDone { result, .. } = self.events.swap_remove(at) else {
                    unreachable!("it was just found");
                };
                return Ok(result?);
            }
            self.store.wait();
        }
    }

    /// The index of the first record; that of the next one if there is none.
    ///
    /// # Panics
    ///
    /// Never: the log has its group.
    #[must_use]
    pub fn first(&self) -> LogIndex {
        let start = self.store.start(GROUP);
        start.expect("the group is never dropped").position.first()
    }

    /// The index of the last record; the one before the first if there is none.
    ///
    /// # Panics
    ///
    /// Never: the log has its group.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        let end = self.store.end(GROUP);
        end.expect("the group is never dropped").before.index
    }

    /// Lets go of files that hold only records before `index`.
    ///
    /// # Errors
    ///
    /// As [`sync`](Wal::sync).
    pub fn forget_before(&mut self, index: LogIndex) -> Result<(), WalError> {
        self.sync()?;
        let offset = Offset(index.0.saturating_sub(1));
        self.store.set_log_start(GROUP, offset)?;
        self.settle()
    }

    fn next_write(&mut self) -> WriteId {
        self.last_write = WriteId(self.last_write.0 + 1);
        self.last_write
    }

    fn turn(&mut self) -> Result<(), WalError> {
        self.now += TICK;
        self.store.flush(self.now);
        self.store.poll(self.now, &mut self.events);
        let mut failure = None;
        for event in &self.events {
            match event {
                Event::Persisted { write, .. } => self.persisted = *write,
                Event::Failed { error } => failure = Some(WalError::Failed(error.clone())),
                Event::NoSpace { .. } => failure = failure.or(Some(WalError::NoSpace)),
                _ => {}
            }
        }
        self.events
            .retain(|event| matches!(event, Event::Closed { .. } | Event::ReadDone { .. }));
        match failure {
            Some(failure) => Err(failure),
            None if self.store.has_failed() => Err(WalError::Group(GroupError::Failed)),
            None => Ok(()),
        }
    }

    fn settle(&mut self) -> Result<(), WalError> {
        loop {
            self.turn()?;
            if !self.store.is_busy() {
                return Ok(());
            }
            self.store.wait();
        }
    }

    /// Seals files that are full: all in them is durable, and nobody else must agree.
    fn seal_closed(&mut self) -> Result<(), WalError> {
        let closed: Vec<Sequence> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Closed { sequence, .. } => Some(*sequence),
                _ => None,
            })
            .collect();
        if closed.is_empty() {
            return Ok(());
        }
        self.events
            .retain(|event| !matches!(event, Event::Closed { .. }));
        self.store.commit(GROUP, self.last());
        for sequence in closed {
            let nothing = Snapshot {
                at: LogIndex::ZERO,
                state: highwater_record::Buffer::new(),
            };
            self.store.seal(GROUP, sequence, nothing)?;
        }
        self.settle()
    }

    /// Changes how large files become, from the next one on.
    ///
    /// # Errors
    ///
    /// [`WalError::Group`] if the log has failed.
    pub fn configure(&mut self, config: GroupConfig) -> Result<(), WalError> {
        Ok(self.store.configure_group(GROUP, config)?)
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::Budget;

    use super::*;
    use crate::storage::{MemoryDisk, MemoryStorage};

    fn pool() -> BufferPool {
        BufferPool::new(Budget::new(64 << 20), 4096)
    }

    fn record(number: u64) -> Vec<u8> {
        format!("record {number} ").repeat(300).into_bytes()
    }

    fn check(wal: &mut Wal<MemoryStorage>, from: u64, through: u64) {
        let mut next = from;
        while next <= through {
            for entry in wal.read(LogIndex(next), 20_000).unwrap() {
                assert_eq!(entry.id.index, LogIndex(next));
                assert_eq!(&entry.body[..], &record(next)[..]);
                next += 1;
            }
        }
        assert_eq!(wal.last(), LogIndex(through));
    }

    #[test]
    fn records_survive_reopening_and_power_cuts() {
        let disk = MemoryDisk::new();
        let mut wal = Wal::create(MemoryStorage::new(&disk), pool(), 1).unwrap();
        let config = GroupConfig {
            segment_bytes: 64 << 10,
            ..GroupConfig::default()
        };
        wal.configure(config).unwrap();
        for number in 1..=200 {
            wal.append(&record(number)).unwrap();
            if number % 7 == 0 {
                wal.sync().unwrap();
            }
        }
        check(&mut wal, 1, 200);
        drop(wal);
        disk.power_cut_by_chance(&mut fastrand::Rng::with_seed(3));
        let mut wal = Wal::open(MemoryStorage::new(&disk), pool(), 2).unwrap();
        assert!(wal.last() >= LogIndex(196));
        let last = wal.last().0;
        check(&mut wal, 1, last);
        wal.rest().unwrap();
        wal.configure(config).unwrap();
        wal.append(&record(last + 1)).unwrap();
        wal.sync().unwrap();
        wal.forget_before(LogIndex(100)).unwrap();
        let first = wal.first().0;
        assert!(first > 1 && first <= 100, "first is {first}");
        check(&mut wal, first, last + 1);
    }

    #[test]
    fn a_full_disk_is_said_and_waited_for() {
        let disk = MemoryDisk::new();
        let mut wal = Wal::create(MemoryStorage::new(&disk), pool(), 1).unwrap();
        wal.append(&record(1)).unwrap();
        wal.sync().unwrap();
        disk.set_capacity(1 << 20);
        let mut full = false;
        for number in 2..=2_000 {
            wal.append(&record(number)).unwrap();
            match wal.sync() {
                Ok(()) => {}
                Err(WalError::NoSpace) => {
                    full = true;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(full);
        assert!(matches!(wal.sync(), Err(WalError::NoSpace)), "still full");
        assert_eq!(wal.read(LogIndex(1), 1).unwrap().len(), 1, "reads go on");
        disk.set_capacity(u64::MAX);
        let last = wal.last().0;
        wal.sync().unwrap();
        check(&mut wal, 1, last);
    }

    #[test]
    fn a_damaged_end_is_refused() {
        let disk = MemoryDisk::new();
        let mut wal = Wal::create(MemoryStorage::new(&disk), pool(), 1).unwrap();
        for number in 1..=5 {
            wal.append(&record(number)).unwrap();
        }
        wal.rest().unwrap();
        drop(wal);
        let path = "groups/0/0000000001.log";
        disk.flip_bit(path, 8 * (4096 + 200 + 4 * 3_100)).unwrap();
        let error = Wal::open(MemoryStorage::new(&disk), pool(), 2).unwrap_err();
        assert!(matches!(error, WalError::Damaged { .. }), "{error}");
    }
}

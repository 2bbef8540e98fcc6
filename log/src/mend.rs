//! Mending a stopped node's directory from another node's: what a node does that is started, with
//! the other directory in the place of its peers. The same copies and the same proofs, as safe
//! against a crash; what cannot be proven is left as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_record::{Buffer, BufferPool};

use crate::config::{JOURNAL_HALF_BYTES, StoreConfig};
use crate::directory::{Directory, Expected};
use crate::entry::Entry;
use crate::error::OpenError;
use crate::event::Event;
use crate::ids::{GroupId, LogIndex};
use crate::inspect::{Inspector, StoredEntry};
use crate::storage::{Storage, StorageError};
use crate::store::Store;

/// How many bytes of entries are handed over at once.
const SUPPLY_BYTES: usize = 1 << 20;

/// How often the log says in vain what it wants, before the rest is left as it is. It turns to
/// the next file by itself after fewer.
const ROUNDS_IN_VAIN_MAX: u32 = 64;

/// What was done to a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mended {
    /// Files that were replaced by a repaired copy.
    pub files: u64,
    /// Entries that were filled in.
    pub entries: u64,
    /// Groups that are not whole: what they lack is not there either, or does not fit, or reaches
    /// their log's end, which only a running cluster can mend.
    pub unmended: usize,
}

/// Why a directory could not be mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MendError {
    /// The other directory is of another cluster. Nothing was changed.
    #[error("the directories are of two clusters")]
    OtherCluster,
    /// One of the directories cannot be opened, or read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk failed meanwhile. What is there is as whole as before, or more.
    #[error("the disk failed: {0}")]
    Failed(StorageError),
}

/// Looks at every file of a directory that no node uses, and fills what is missing from another
/// one. Counts as a boot: the hard state is kept as it is.
///
/// # Errors
///
/// [`MendError`].
pub fn mend<S: Storage, D: Storage>(
    mut storage: S,
    pool: BufferPool,
    donor: &mut Inspector<D>,
) -> Result<Mended, MendError> {
    let cluster = donor.identity().cluster;
    let expected = Expected::default();
    let directory = Directory::open(&mut storage, &expected, 1, JOURNAL_HALF_BYTES)?;
    if directory.identity().cluster != cluster {
        return Err(MendError::OtherCluster);
    }
    let config = StoreConfig {
        scrub_bytes_per_second: u64::MAX,
        ..StoreConfig::default()
    };
    let groups = directory.groups();
    let (store, _) = Store::open(storage, pool, config, &directory, &groups)?;
    let mut mending = Mending {
        store,
        now: Duration::ZERO,
        wanted: None,
    };
    mending.look_at_sealed_files()?;
    mending.fill(donor)?;
    let counters = mending.store.counters();
    Ok(Mended {
        files: counters.repaired_files,
        entries: counters.repaired_entries,
        unmended: mending.store.quarantined(),
    })
}

struct Mending<S> {
    store: Store<S>,
    now: Duration,
    /// What the log wants: from which entry to which.
    wanted: Option<(GroupId, LogIndex, LogIndex)>,
}

impl<S: Storage> Mending<S> {
    /// A start does not read them: the scrubber does.
    fn look_at_sealed_files(&mut self) -> Result<(), MendError> {
        while self.store.counters().scrub_passes == 0 {
            self.settle()?;
            let due = self.store.next_deadline().unwrap_or_default();
            self.now = due.max(self.now);
        }
        Ok(())
    }

    fn fill<D: Storage>(&mut self, donor: &mut Inspector<D>) -> Result<(), MendError> {
        let mut furthest: BTreeMap<GroupId, LogIndex> = BTreeMap::new();
        let mut in_vain = 0;
        while in_vain < ROUNDS_IN_VAIN_MAX && self.store.has_repairs() {
            self.settle()?;
            in_vain += 1;
            let Some((group, from, last)) = self.wanted.take() else {
                self.now += Duration::from_secs(1);
                continue;
            };
            let entries = entries_of(donor, group, from, last)?;
            // What does not fit is refused, and the file left for later.
            let _refused = self.store.supply(group, &entries);
            if furthest.get(&group).is_none_or(|&known| known < from) {
                furthest.insert(group, from);
                in_vain = 0;
            }
        }
        self.settle()
    }

    /// Lets the log do what it can by itself.
    fn settle(&mut self) -> Result<(), MendError> {
        let mut events = Vec::new();
        loop {
            self.store.flush(self.now);
            self.store.poll(self.now, &mut events);
            for event in events.drain(..) {
                match event {
                    Event::EntriesWanted { group, from, last } => {
                        self.wanted = Some((group, from, last));
                    }
                    Event::Failed { error } => return Err(MendError::Failed(error)),
                    _ => {}
                }
            }
            if !self.store.is_busy() {
                return Ok(());
            }
            self.store.wait();
        }
    }
}

/// What another node has of the entries from `from` on: some of them, one behind the other.
fn entries_of<D: Storage>(
    donor: &mut Inspector<D>,
    group: GroupId,
    from: LogIndex,
    last: LogIndex,
) -> Result<Vec<Entry>, OpenError> {
    let mut found: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    for entry in donor.entries(group)? {
        let entry = entry?;
        let index = entry.header.index;
        if index < from {
            continue;
        }
        if index > last || bytes >= SUPPLY_BYTES {
            break;
        }
        bytes += entry.body.len();
        found.extend(to_entry(entry));
    }
    Ok(found)
}

fn to_entry(stored: StoredEntry) -> Option<Entry> {
    let header = stored.header;
    Some(Entry {
        id: header.id(),
        kind: header.kind.entry()?,
        base_offset: header.base_offset,
        offset_span: header.offset_span,
        append_time: header.append_time,
        chain: header.chain,
        body_crc: header.body_crc,
        body: Buffer::from(stored.body),
    })
}

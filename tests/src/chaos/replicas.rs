//! What each replica has on its disk in the end, and whether all have the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use highwater::offline::{CONTROLLER_GROUP, Topics};
use highwater_engine::testing::history::{Partition, ReadRecord};
use highwater_log::storage::{Access, DataDirectory, PortableStorage};
use highwater_log::{EntryKind, FileState, GroupId, Inspector, Item};
use highwater_record::{BatchLimits, Budget, BufferPool, RecordBatch};

use super::load::value_of;

/// Memory for what is read at once, in bytes.
const MEMORY_BYTES: usize = 256 << 20;

/// An entry of a replica's log.
#[derive(Debug, Clone, Copy)]
struct Entry {
    term: u32,
    /// How many records there were before it.
    records_before: usize,
}

/// One replica of one group.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// Which partition it is; none for the cluster's own group.
    pub(crate) partition: Option<Partition>,
    /// All records, in order.
    pub(crate) records: Vec<ReadRecord>,
    /// The first offset still there.
    pub(crate) start: i64,
    entries: BTreeMap<u64, Entry>,
}

/// What one node has, by group.
pub(crate) type NodeLogs = BTreeMap<GroupId, Replica>;

/// Reads a stopped node's data directory, all of it.
pub(crate) fn read(directory: &Path) -> anyhow::Result<NodeLogs> {
    let shown = directory.display();
    let mut inspector = open(directory).with_context(|| format!("{shown}"))?;
    let mut topics = Topics::new();
    inspector.walk(CONTROLLER_GROUP, &mut |_, item| {
        if let Item::Entry { header, body } = item {
            topics.entry(header.index, body);
        }
    })?;
    let mut logs = NodeLogs::new();
    for group in inspector.groups() {
        let mut replica = Replica {
            partition: topics.partition(group).map(|at| {
                let index = i32::try_from(at.partition).expect("we made it");
                Partition::new(at.topic.as_str(), index)
            }),
            ..Replica::default()
        };
        let mut visible = false;
        inspector.walk(group, &mut |_, item| replica.take(item, &mut visible))?;
        logs.insert(group, replica);
    }
    Ok(logs)
}

fn open(directory: &Path) -> anyhow::Result<Inspector<PortableStorage>> {
    let directory = DataDirectory::open(directory, Access::ReadOnly)?;
    let pool = BufferPool::new(Budget::new(MEMORY_BYTES), directory.alignment());
    Ok(Inspector::open(PortableStorage::new(directory, pool)?)?)
}

impl Replica {
    fn take(&mut self, item: Item<'_>, visible: &mut bool) {
        match item {
            Item::File { state, .. } => *visible = state == FileState::Visible,
            // A file that begins lower than the one before it ended takes its place from there.
            Item::Begin(begin) if *visible => {
                self.cut(begin.start.first().0);
                if self.entries.is_empty() {
                    self.start = i64::try_from(begin.start.offset.0).unwrap_or(i64::MAX);
                }
            }
            Item::Entry { header, body } if *visible => {
                let is_data = header.kind.entry() == Some(EntryKind::Data);
                self.cut(header.index.0);
                let entry = Entry {
                    term: header.term.0,
                    records_before: self.records.len(),
                };
                self.entries.insert(header.index.0, entry);
                if is_data {
                    self.records.extend(body.map_or_else(Vec::new, records_of));
                }
            }
            _ => {}
        }
    }

    /// Forgets everything from an entry on.
    fn cut(&mut self, first: u64) {
        let gone = self.entries.split_off(&first);
        if let Some((_, entry)) = gone.first_key_value() {
            self.records.truncate(entry.records_before);
        }
    }

    /// How many leaders its entries come from.
    pub(crate) fn terms(&self) -> usize {
        let mut terms: Vec<u32> = self.entries.values().map(|entry| entry.term).collect();
        terms.dedup();
        terms.len()
    }
}

/// Offsets and values; what cannot be read has a value that nobody has sent.
fn records_of(body: &[u8]) -> Vec<ReadRecord> {
    let limits = BatchLimits::default();
    let Ok(batch) = RecordBatch::parse(body, &limits) else {
        return vec![ReadRecord {
            offset: -1,
            value: u64::MAX,
        }];
    };
    let (base, mut records) = (batch.header().base_offset().0, Vec::new());
    let Ok(decompressed) = batch.decompressed(&limits) else {
        return records;
    };
    for record in batch.records_in(&decompressed, &limits).flatten() {
        let offset = base + u64::from(record.offset_delta);
        records.push(ReadRecord {
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            value: value_of(record.value),
        });
    }
    records
}

/// What `highwater log verify` says of the nodes' directories, each by itself and against each
/// other; nothing if all is well.
pub(crate) fn verify(binary: &Path, directories: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (one, directory) in directories.iter().enumerate() {
        let others = directories.iter().skip(one + 1);
        // The last has none behind it, and is to be read as well.
        let first = directories.first().filter(|_| one + 1 == directories.len());
        for other in others.chain(first) {
            let mut command = Command::new(binary);
            command.args(["log", "verify"]).arg(directory);
            let verified = command.arg("--against").arg(other).output()?;
            if !verified.status.success() {
                let said = String::from_utf8_lossy(&verified.stdout).into_owned();
                let error = String::from_utf8_lossy(&verified.stderr).into_owned();
                wrong.push(format!("log verify: {}\n{said}", error.trim()));
            }
        }
    }
    Ok(wrong)
}

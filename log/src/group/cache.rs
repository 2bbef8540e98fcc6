//! The newest entries of a group, in memory: those not yet synced, which are never evicted, and
//! those of the tail cache behind them.

use std::collections::VecDeque;

use highwater_record::Buffer;

use crate::entry::Entry;
use crate::ids::LogIndex;

/// A contiguous run of entries up to the end of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
}

impl EntryCache {
    /// The first entry that is held.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        Some(self.entries.front()?.id.index)
    }

    /// Takes the next entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Some(last) = self.entries.back() {
            assert_eq!(
                entry.id.index,
                last.id.index.next(),
                "entries are contiguous"
            );
        }
        self.entries.push_back(entry);
    }

    /// An entry, if it is held.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
    }

    /// Lets an entry's bytes lie where they were written from.
    pub(crate) fn replace_body(&mut self, index: LogIndex, body: Buffer) {
        if let Some(at) = self.place(index) {
            self.entries[at].body = body;
        }
    }

    /// Entries from `from` on, at least one and at most `max_bytes` of bodies, if `from` is
    /// held.
    pub(crate) fn read(&self, from: LogIndex, max_bytes: usize) -> Option<Vec<Entry>> {
        let start = self.place(from)?;
        let mut bytes = 0usize;
        let mut entries = Vec::new();
        for entry in self.entries.range(start..) {
            bytes = bytes.saturating_add(entry.body.len());
            if !entries.is_empty() && bytes > max_bytes {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// Entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Forgets entries from `first` on.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        while self
            .entries
            .back()
            .is_some_and(|last| last.id.index >= first)
        {
            self.entries.pop_back();
        }
    }

    /// Forgets entries up to and with `last`.
    pub(crate) fn evict_through(&mut self, last: LogIndex) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.id.index <= last)
        {
            self.entries.pop_front();
        }
    }

    fn place(&self, index: LogIndex) -> Option<usize> {
        let nth = index.0.checked_sub(self.first()?.0)?;
        let at = usize::try_from(nth).ok()?;
        (at < self.entries.len()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::Offset;

    use super::*;
    use crate::entry::EntryKind;
    use crate::ids::{Chain, EntryId, Term};

    fn sample() -> EntryCache {
        let mut cache = EntryCache::default();
        for index in 5..=9u64 {
            cache.push(Entry {
                id: EntryId {
                    index: LogIndex(index),
                    term: Term(1),
                },
                kind: EntryKind::Data,
                base_offset: Offset(index),
                offset_span: 1,
                append_time: 0,
                chain: Chain(0),
                body_crc: 0,
                body: Buffer::from(vec![0; 10]),
            });
        }
        cache
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Vec<u64> {
        let entries = entries.unwrap_or_default();
        entries.iter().map(|entry| entry.id.index.0).collect()
    }

    #[test]
    fn reads_give_one_entry_at_least() {
        assert_eq!(indexes(sample().read(LogIndex(6), 0)), [6]);
        assert_eq!(indexes(sample().read(LogIndex(6), 20)), [6, 7]);
        assert_eq!(indexes(sample().read(LogIndex(6), 29)), [6, 7]);
        assert_eq!(indexes(sample().read(LogIndex(8), 1_000)), [8, 9]);
        assert!(sample().read(LogIndex(4), 10).is_none());
        assert!(sample().read(LogIndex(10), 10).is_none());
    }

    #[test]
    fn both_ends_can_go() {
        let mut cache = sample();
        cache.cut(LogIndex(8));
        cache.evict_through(LogIndex(5));
        assert_eq!(indexes(cache.read(LogIndex(6), 1_000)), [6, 7]);
        assert_eq!(cache.first(), Some(LogIndex(6)));
    }
}

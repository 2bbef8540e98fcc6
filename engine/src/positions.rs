//! The one place that converts: Raft's indexes to Kafka's offsets, and `consensus`'s types to
//! `log`'s.
//!
//! A log has two number spaces, and every entry carries its place in both (DESIGN.md section 3).
//! Indexes are inclusive, offsets end exclusively. What is needed in between is small: where each
//! entry that is not committed ends, so that a commit index gives a high watermark.

use std::collections::VecDeque;

use highwater_consensus as consensus;
use highwater_log as log;
use highwater_record::{Buffer, LeaderEpoch, Offset};

/// The largest index that is believed from a peer or a disk: there is room for arithmetic above.
pub(crate) const INDEX_MAX: u64 = 1 << 62;

/// What a frame costs beside its body, in bytes, as windows count it.
const ENTRY_BYTES: usize = 64;

pub(crate) fn index_to_log(index: consensus::LogIndex) -> log::LogIndex {
    log::LogIndex(index.0)
}

pub(crate) fn index_from_log(index: log::LogIndex) -> consensus::LogIndex {
    consensus::LogIndex(index.0)
}

pub(crate) fn term_to_log(term: consensus::Term) -> log::Term {
    log::Term(term.get())
}

/// # Panics
///
/// If the log holds a term above `i32::MAX`, which it refuses to append and to recover.
pub(crate) fn term_from_log(term: log::Term) -> consensus::Term {
    consensus::Term::new(term.0).expect("the log holds no term above i32::MAX")
}

pub(crate) fn id_to_log(id: consensus::EntryId) -> log::EntryId {
    log::EntryId {
        index: index_to_log(id.index),
        term: term_to_log(id.term),
    }
}

pub(crate) fn id_from_log(id: log::EntryId) -> consensus::EntryId {
    consensus::EntryId {
        index: index_from_log(id.index),
        term: term_from_log(id.term),
    }
}

pub(crate) fn write_to_log(write: consensus::WriteId) -> log::WriteId {
    log::WriteId(write.0)
}

pub(crate) fn write_from_log(write: log::WriteId) -> consensus::WriteId {
    consensus::WriteId(write.0)
}

pub(crate) fn node_to_log(node: consensus::NodeId) -> log::NodeId {
    log::NodeId(node.0)
}

pub(crate) fn node_from_log(node: log::NodeId) -> consensus::NodeId {
    consensus::NodeId(node.0)
}

pub(crate) fn epoch(term: consensus::Term) -> LeaderEpoch {
    LeaderEpoch::new(term.get()).expect("terms and leader epochs have the same bound")
}

/// The controller's entries are control entries, which take no offsets. For those who want to see
/// how far each replica is, an entry counts as an offset, as in Kafka's own metadata log: indexes
/// begin at 1 and include their entry, so the end offset has the same number.
pub(crate) fn controller_offset(index: consensus::LogIndex) -> Offset {
    Offset(index.0)
}

/// What the log needs to know of a group's configuration.
pub(crate) fn group_config(config: &crate::ops::GroupConfig) -> log::GroupConfig {
    log::GroupConfig {
        segment_bytes: config
            .segment_bytes
            .clamp(log::SEGMENT_BYTES_MIN, log::SEGMENT_BYTES_MAX),
        segment_age: std::time::Duration::from_millis(config.segment_ms),
    }
}

/// A control entry's body begins with what it is, one byte.
mod control {
    pub(super) const NOOP: u8 = 0;
    pub(super) const LOG_START: u8 = 1;
    pub(super) const OWNER: u8 = 2;
}

/// What a control entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// A new leader's first entry.
    Noop,
    /// Everything before this offset is deleted.
    LogStart(Offset),
    /// The bytes of the group's owner.
    Owner(Buffer),
}

impl Control {
    /// The entry's body. The owner's bytes are copied: control entries are small and rare.
    pub(crate) fn body(&self) -> Buffer {
        let mut body = Vec::new();
        match self {
            Control::Noop => body.push(control::NOOP),
            Control::LogStart(offset) => {
                body.push(control::LOG_START);
                body.extend_from_slice(&offset.0.to_le_bytes());
            }
            Control::Owner(bytes) => {
                body.push(control::OWNER);
                body.extend_from_slice(bytes);
            }
        }
        Buffer::from(body)
    }

    /// What a body says; `None` if nothing that is known here.
    pub(crate) fn read(body: &Buffer) -> Option<Control> {
        let (&kind, rest) = body.split_first()?;
        match kind {
            control::NOOP if rest.is_empty() => Some(Control::Noop),
            control::LOG_START => {
                let offset = Offset(u64::from_le_bytes(rest.try_into().ok()?));
                (offset <= Offset::MAX).then_some(Control::LogStart(offset))
            }
            control::OWNER => Some(Control::Owner(body.slice(1..))),
            _ => None,
        }
    }

    fn kind(&self) -> consensus::EntryKind {
        match self {
            Control::Noop => consensus::EntryKind::Noop,
            Control::LogStart(_) => consensus::EntryKind::LogStart,
            Control::Owner(_) => consensus::EntryKind::Control,
        }
    }
}

/// What consensus sees of an entry; `None` if it is a control entry of no known kind.
pub(crate) fn meta(entry: &log::Entry) -> Option<consensus::EntryMeta> {
    let kind = match entry.kind {
        log::EntryKind::Data => consensus::EntryKind::Data,
        log::EntryKind::Control => Control::read(&entry.body)?.kind(),
    };
    Some(consensus::EntryMeta {
        id: id_from_log(entry.id),
        kind,
        size: size(entry.body.len()),
    })
}

/// The size of an entry with a body of `bytes`, as windows count it.
pub(crate) fn size(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX)
}

/// Where an entry ends that is not known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    index: consensus::LogIndex,
    end_offset: Offset,
    /// The entry moves the log start when it is committed.
    log_start: Option<Offset>,
}

/// What a commit has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Advance {
    /// The last log start among the entries that are committed now.
    pub(crate) log_start: Option<Offset>,
}

/// The places of one log in both number spaces.
///
/// Invariants: `ends` are consecutive in index, not descending in offset, all above `committed`;
/// `high_watermark <= end_offset`, and it never falls but by a [base](Positions::restart), which
/// is further on than anything committed here.
#[derive(Debug)]
pub(crate) struct Positions {
    committed: consensus::LogIndex,
    high_watermark: Offset,
    end_offset: Offset,
    last: consensus::LogIndex,
    ends: VecDeque<End>,
}

impl Positions {
    /// A log that begins after `before`, at `offset`; everything up to there is committed.
    pub(crate) fn new(before: consensus::LogIndex, offset: Offset) -> Positions {
        Positions {
            committed: before,
            high_watermark: offset,
            end_offset: offset,
            last: before,
            ends: VecDeque::new(),
        }
    }

    /// There are entries up to `last`, which end at `end_offset`; where each ends is not known:
    /// they lie before what recovery has replayed, or in a hole.
    pub(crate) fn skip_to(&mut self, last: consensus::LogIndex, end_offset: Offset) {
        if last > self.last {
            self.push(last, end_offset, None);
        }
    }

    /// An entry is appended.
    pub(crate) fn append(&mut self, entry: &log::NewEntry) {
        self.append_parts(
            entry.id,
            entry.kind,
            entry.base_offset,
            entry.offset_span,
            &entry.body,
        );
    }

    /// An entry is in the log, appended or recovered.
    pub(crate) fn append_parts(
        &mut self,
        id: log::EntryId,
        kind: log::EntryKind,
        base_offset: Offset,
        offset_span: u32,
        body: &Buffer,
    ) {
        assert_eq!(id.index.0, self.last.next().0, "the next entry");
        assert_eq!(base_offset, self.end_offset, "offsets are dense");
        let log_start = match (kind, Control::read(body)) {
            (log::EntryKind::Control, Some(Control::LogStart(offset))) => Some(offset),
            _ => None,
        };
        let end_offset = self.end_offset.advance(u64::from(offset_span));
        self.push(index_from_log(id.index), end_offset, log_start);
    }

    fn push(&mut self, index: consensus::LogIndex, end_offset: Offset, log_start: Option<Offset>) {
        assert!(end_offset >= self.end_offset, "offsets do not descend");
        self.last = index;
        self.end_offset = end_offset;
        self.ends.push_back(End {
            index,
            end_offset,
            log_start,
        });
    }

    /// Everything from `first` on is gone, and the log ends at `end_offset`.
    pub(crate) fn cut(&mut self, first: consensus::LogIndex, end_offset: Offset) {
        assert!(first > self.committed, "what is committed is never cut");
        assert!(
            end_offset >= self.high_watermark,
            "what is committed is never cut"
        );
        assert!(end_offset <= self.end_offset, "a cut makes a log no longer");
        while self.ends.back().is_some_and(|end| end.index >= first) {
            self.ends.pop_back();
        }
        if self.ends.is_empty() && self.committed == first.previous() {
            // The commit index lay among entries whose ends were not known; now this one's is.
            self.high_watermark = end_offset;
        }
        let last = self.ends.back();
        let known = last.map_or(self.committed, |end| end.index);
        self.last = known;
        self.end_offset = last.map_or(self.high_watermark, |end| end.end_offset);
        // The cut may fall among entries whose ends were not known.
        self.skip_to(first.previous(), end_offset);
        assert_eq!(self.last, first.previous(), "the log ends before the cut");
        assert_eq!(self.end_offset, end_offset, "both know where it ends");
    }

    /// Everything is gone, and the log begins anew after `before`, at `offset`.
    pub(crate) fn restart(&mut self, before: consensus::LogIndex, offset: Offset) {
        assert!(before > self.committed, "a base is further on");
        assert!(offset >= self.high_watermark, "a base is further on");
        *self = Positions::new(before, offset);
    }

    /// Everything up to and with `index` is committed.
    pub(crate) fn commit(&mut self, index: consensus::LogIndex) -> Advance {
        let mut advance = Advance::default();
        while let Some(end) = self.ends.front().filter(|end| end.index <= index) {
            self.high_watermark = end.end_offset;
            advance.log_start = end.log_start.or(advance.log_start);
            self.ends.pop_front();
        }
        if mutant!(HighWatermarkIsEnd) {
            self.high_watermark = self.end_offset;
        }
        assert!(index <= self.last, "a commit behind the log");
        self.committed = self.committed.max(index);
        advance
    }

    /// The offset behind the last entry that is known to be committed. After a restart it may
    /// lag behind the commit index until that has passed what recovery knew only as a whole.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The offset behind the last entry.
    pub(crate) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// The offset behind the entry at `index`; `None` for those before the last committed one,
    /// whose places only the log knows.
    pub(crate) fn end_of(&self, index: consensus::LogIndex) -> Option<Offset> {
        if index < self.committed {
            return None;
        }
        let before = self.ends.partition_point(|end| end.index <= index);
        let last = before.checked_sub(1).map(|at| self.ends[at].end_offset);
        Some(last.unwrap_or(self.high_watermark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, base: u64, span: u32) -> log::NewEntry {
        log::NewEntry {
            id: log::EntryId {
                index: log::LogIndex(index),
                term: log::Term(1),
            },
            kind: if span == 0 {
                log::EntryKind::Control
            } else {
                log::EntryKind::Data
            },
            base_offset: Offset(base),
            offset_span: span,
            append_time: 0,
            body: Control::Noop.body(),
            body_crc: 0,
            chain: None,
        }
    }

    fn at(index: u64) -> consensus::LogIndex {
        consensus::LogIndex(index)
    }

    #[test]
    fn control_entries_take_an_index_and_no_offset() {
        let mut positions = Positions::new(at(0), Offset(0));
        positions.append(&entry(1, 0, 0));
        positions.append(&entry(2, 0, 10));
        positions.append(&entry(3, 10, 0));
        assert_eq!(positions.end_offset(), Offset(10));
        positions.commit(at(1));
        assert_eq!(positions.high_watermark(), Offset(0));
        positions.commit(at(3));
        assert_eq!(positions.high_watermark(), Offset(10));
    }

    #[test]
    fn a_cut_behind_a_commit_among_unknown_ends_says_where_that_ends() {
        let mut positions = Positions::new(at(0), Offset(0));
        positions.skip_to(at(10), Offset(100));
        positions.commit(at(5));
        assert_eq!(
            positions.high_watermark(),
            Offset(0),
            "it is not known better"
        );
        positions.cut(at(6), Offset(50));
        assert_eq!(positions.high_watermark(), Offset(50));
        assert_eq!(positions.end_offset(), Offset(50));
        positions.append(&entry(6, 50, 1));
    }

    #[test]
    fn a_cut_brings_the_end_back_but_never_the_high_watermark() {
        let mut positions = Positions::new(at(0), Offset(0));
        for (index, base) in [(1, 0), (2, 5), (3, 10)] {
            positions.append(&entry(index, base, 5));
        }
        positions.commit(at(1));
        positions.cut(at(2), Offset(5));
        assert_eq!(positions.end_offset(), Offset(5));
        assert_eq!(positions.high_watermark(), Offset(5));
        positions.append(&entry(2, 5, 1));
        assert_eq!(positions.end_offset(), Offset(6));
    }

    #[test]
    #[should_panic(expected = "never cut")]
    fn a_cut_of_committed_entries_is_a_broken_invariant() {
        let mut positions = Positions::new(at(0), Offset(0));
        positions.append(&entry(1, 0, 5));
        positions.commit(at(1));
        positions.cut(at(1), Offset(0));
    }

    #[test]
    fn a_log_start_takes_effect_when_it_is_committed() {
        let mut positions = Positions::new(at(0), Offset(0));
        positions.append(&entry(1, 0, 5));
        let body = Control::LogStart(Offset(3)).body();
        positions.append(&log::NewEntry {
            body,
            ..entry(2, 5, 0)
        });
        assert_eq!(positions.commit(at(1)).log_start, None);
        assert_eq!(positions.commit(at(2)).log_start, Some(Offset(3)));
    }

    #[test]
    fn control_bodies_say_what_they_are() {
        let controls = [
            Control::Noop,
            Control::LogStart(Offset(7)),
            Control::Owner(Buffer::from(b"state".to_vec())),
        ];
        for control in controls {
            assert_eq!(Control::read(&control.body()), Some(control));
        }
        for hostile in [
            &[][..],
            &[1, 2, 3],
            &[3],
            &[0, 0],
            &[1, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            let read = Control::read(&Buffer::from(hostile.to_vec()));
            assert_eq!(read, None, "{hostile:?}");
        }
    }

    #[test]
    fn an_end_is_known_from_the_last_committed_entry_on() {
        let mut positions = Positions::new(at(0), Offset(0));
        for (index, base, span) in [(1, 0, 0), (2, 0, 3), (3, 3, 2), (4, 5, 1)] {
            positions.append(&entry(index, base, span));
        }
        assert_eq!(positions.end_of(at(0)), Some(Offset(0)));
        assert_eq!(positions.end_of(at(2)), Some(Offset(3)));
        positions.commit(at(3));
        assert_eq!(positions.end_of(at(2)), None, "only the log knows");
        assert_eq!(positions.end_of(at(3)), Some(Offset(5)));
        assert_eq!(positions.end_of(at(4)), Some(Offset(6)));
    }
}

//! `highwater log verify --against`: whether two replicas hold the same logs.

use std::fmt;

use highwater_log::storage::PortableStorage;
use highwater_log::{GroupId, Inspector, LogIndex, OpenError, StoredEntry, Term};
use serde_json::{Value, json};

/// What became of the comparison of a group's two logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Which group.
    pub(super) group: GroupId,
    /// The first entry that both logs reach over.
    pub(super) first: LogIndex,
    /// The last; below the first if there is none.
    pub(super) last: LogIndex,
    /// How many entries were there in both, the same to the last bit.
    pub(super) same: u64,
    /// How many bytes of batches that were.
    pub(super) bytes: u64,
    /// What was concluded.
    pub(super) finding: Finding,
}

/// What two logs are to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Both end with the same entry, and all in common is the same.
    Same,
    /// All in common is the same. One goes on behind it, by so many entries.
    Ahead(Side, u64),
    /// Only one of the nodes has the group.
    Only(Side),
    /// From this entry on the two have entries of different terms, which were not committed on
    /// both: an election replaces those of one.
    Tails(LogIndex, [Term; 2]),
    /// An entry that both logs reach over is bad or missing in one of them.
    Missing(Side, LogIndex),
    /// An entry is not what it is on the other node, and cannot be so by right.
    Differs(LogIndex, &'static str),
}

/// One of the two directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is verified.
    This,
    /// The one that it is compared with.
    Other,
}

impl Finding {
    /// Whether replicas of one cluster must never be found so.
    pub(super) const fn is_damage(&self) -> bool {
        matches!(self, Finding::Missing(..) | Finding::Differs(..))
    }

    /// Whether replicas may be found so when all had come to rest.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self, Finding::Same | Finding::Only(_))
    }

    const fn word(&self) -> &'static str {
        match self {
            Finding::Same => "same",
            Finding::Ahead(..) => "ahead",
            Finding::Only(_) => "only",
            Finding::Tails(..) => "tails",
            Finding::Missing(..) => "missing",
            Finding::Differs(..) => "differs",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::This => "this",
            Side::Other => "the other",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Same => write!(f, "the same"),
            Finding::Ahead(side, by) => write!(f, "the same; {side} node has {by} more"),
            Finding::Only(side) => write!(f, "on {side} node only"),
            Finding::Tails(at, [this, other]) => write!(
                f,
                "not committed on both from entry {at} on: term {this} here, {other} there"
            ),
            Finding::Missing(side, at) => write!(f, "MISSING on {side} node: entry {at}"),
            Finding::Differs(at, what) => write!(f, "DIFFERENT at entry {at}: {what}"),
        }
    }
}

impl Comparison {
    pub(super) fn json(&self) -> Value {
        let mut object = json!({
            "group": self.group.0,
            "first_index": self.first.0,
            "last_index": self.last.0,
            "same": self.same,
            "bytes": self.bytes,
            "result": self.finding.word(),
            "says": self.finding.to_string(),
        });
        if let Finding::Tails(at, _) | Finding::Missing(_, at) | Finding::Differs(at, _) =
            self.finding
        {
            object["at"] = json!(at.0);
        }
        object
    }
}

/// Compares a group's log on two nodes, of which each may lack it.
///
/// # Errors
/// When one cannot be read.
pub(super) fn compare(
    group: GroupId,
    this: &mut Inspector<PortableStorage>,
    other: &mut Inspector<PortableStorage>,
) -> Result<Comparison, OpenError> {
    let only = match (has(this, group), has(other, group)) {
        (true, false) => Some(Side::This),
        (false, true) => Some(Side::Other),
        _ => None,
    };
    if let Some(side) = only {
        return Ok(Comparison {
            group,
            first: LogIndex(1),
            last: LogIndex(0),
            same: 0,
            bytes: 0,
            finding: Finding::Only(side),
        });
    }
    let (this, other) = (this.entries(group)?, other.entries(group)?);
    let ends = [this.last_index(), other.last_index()];
    let mut pair = Pair {
        first: this.first_index().max(other.first_index()),
        ends,
        committed: this.committed().max(other.committed()),
        same: 0,
        bytes: 0,
        fork: None,
    };
    let finding = pair.compare(this, other)?;
    Ok(Comparison {
        group,
        first: pair.first,
        last: ends[0].min(ends[1]),
        same: pair.same,
        bytes: pair.bytes,
        finding,
    })
}

fn has(inspector: &Inspector<PortableStorage>, group: GroupId) -> bool {
    inspector.groups().contains(&group)
}

/// Two logs of one group.
struct Pair {
    first: LogIndex,
    ends: [LogIndex; 2],
    /// Through which entry one of them is known to be committed.
    committed: LogIndex,
    same: u64,
    bytes: u64,
    /// Where the terms differed first.
    fork: Option<(LogIndex, [Term; 2])>,
}

impl Pair {
    fn compare<E>(
        &mut self,
        this: impl Iterator<Item = Result<StoredEntry, E>>,
        other: impl Iterator<Item = Result<StoredEntry, E>>,
    ) -> Result<Finding, E> {
        let (first, last) = (self.first, self.ends[0].min(self.ends[1]));
        let in_common = |entry: &Result<StoredEntry, E>| match entry {
            Ok(entry) => entry.header.index >= first && entry.header.index <= last,
            Err(_) => true,
        };
        let mut this = this.filter(in_common);
        let mut other = other.filter(in_common);
        let mut next = first;
        while next <= last {
            let pair = [this.next().transpose()?, other.next().transpose()?];
            if let Some(finding) = self.step(next, &pair) {
                return Ok(finding);
            }
            next = next.next();
        }
        Ok(self.conclude())
    }

    /// Looks at the entry that must come next in both.
    fn step(&mut self, next: LogIndex, pair: &[Option<StoredEntry>; 2]) -> Option<Finding> {
        let is_next = |entry: &&StoredEntry| entry.header.index == next;
        let [this, other] = pair.each_ref().map(|entry| entry.as_ref().filter(is_next));
        let (this, other) = match (this, other) {
            (None, _) => return Some(Finding::Missing(Side::This, next)),
            (_, None) => return Some(Finding::Missing(Side::Other, next)),
            (Some(this), Some(other)) => (this, other),
        };
        let terms = [this.header.term, other.header.term];
        if terms[0] != terms[1] {
            if next <= self.committed {
                return Some(Finding::Differs(next, "its term, though it is committed"));
            }
            self.fork.get_or_insert((next, terms));
            return None;
        }
        if self.fork.is_some() {
            let what = "the same term again, behind entries of different ones";
            return Some(Finding::Differs(next, what));
        }
        if let Some(what) = difference(this, other) {
            return Some(Finding::Differs(next, what));
        }
        self.same += 1;
        self.bytes += u64::try_from(this.body.len()).expect("a length fits into 64 bits");
        None
    }

    fn conclude(&self) -> Finding {
        let [this, other] = self.ends;
        match self.fork {
            Some((at, terms)) => Finding::Tails(at, terms),
            None if this > other => Finding::Ahead(Side::This, this.0 - other.0),
            None if other > this => Finding::Ahead(Side::Other, other.0 - this.0),
            None => Finding::Same,
        }
    }
}

/// In what two entries of one index and term differ, if they do.
fn difference(this: &StoredEntry, other: &StoredEntry) -> Option<&'static str> {
    let (a, b) = (&this.header, &other.header);
    let differences = [
        (a.kind != b.kind, "its kind"),
        (a.base_offset != b.base_offset, "its base offset"),
        (a.offset_span != b.offset_span, "its span of offsets"),
        (a.append_time != b.append_time, "when it was appended"),
        (this.body != other.body, "its bytes"),
        (a.chain != b.chain, "the chain of all before it"),
    ];
    let mut found = differences.into_iter().filter(|(differs, _)| *differs);
    found.next().map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use highwater_log::Chain;
    use highwater_log::format::frame::{FrameHeader, FrameKind};
    use highwater_record::{Offset, crc32c};

    use super::*;

    fn entry(index: u64, term: u32) -> StoredEntry {
        let body = format!("{index}@{term}").into_bytes();
        let header = FrameHeader {
            body_crc: crc32c(&body),
            body_len: 0,
            kind: FrameKind::Data,
            salt: 0,
            index: LogIndex(index),
            term: Term(term),
            offset_span: 1,
            base_offset: Offset(index - 1),
            chain: Chain(index << 8 | u64::from(term)),
            watermark_lag: 0,
            append_time: 0,
        };
        StoredEntry { header, body }
    }

    /// Entries of these terms, from index 1.
    fn log(terms: &[u32]) -> Vec<StoredEntry> {
        (1..)
            .zip(terms)
            .map(|(index, &term)| entry(index, term))
            .collect()
    }

    fn check(this: &[StoredEntry], other: &[StoredEntry], committed: u64) -> Finding {
        let end = |log: &[StoredEntry]| log.last().map_or(LogIndex(0), |it| it.header.index);
        let mut pair = Pair {
            first: LogIndex(1),
            ends: [end(this), end(other)],
            committed: LogIndex(committed),
            same: 0,
            bytes: 0,
            fork: None,
        };
        let entries = |log| <[StoredEntry]>::iter(log).cloned().map(Ok::<_, ()>);
        pair.compare(entries(this), entries(other)).unwrap()
    }

    #[test]
    fn equal_logs_are_the_same_and_a_prefix_is_behind() {
        let long = log(&[1, 1, 2]);
        assert_eq!(check(&long, &long, 3), Finding::Same);
        assert_eq!(check(&long, &long[..1], 3), Finding::Ahead(Side::This, 2));
        assert_eq!(check(&[], &long, 3), Finding::Ahead(Side::Other, 3));
    }

    #[test]
    fn tails_of_other_terms_may_differ_above_what_is_committed() {
        let (this, other) = (log(&[1, 2, 2]), log(&[1, 3, 3]));
        let terms = [Term(2), Term(3)];
        assert_eq!(check(&this, &other, 1), Finding::Tails(LogIndex(2), terms));
        let differs = check(&this, &other, 2);
        assert!(
            matches!(differs, Finding::Differs(LogIndex(2), _)),
            "{differs}"
        );
    }

    #[test]
    fn one_term_after_others_cannot_be() {
        let differs = check(&log(&[1, 2, 4]), &log(&[1, 3, 4]), 1);
        assert!(
            matches!(differs, Finding::Differs(LogIndex(3), _)),
            "{differs}"
        );
    }

    #[test]
    fn an_entry_must_be_there_and_be_the_same_to_the_last_bit() {
        let whole = log(&[1, 1, 1]);
        let mut holed = whole.clone();
        holed.remove(1);
        assert_eq!(
            check(&whole, &holed, 0),
            Finding::Missing(Side::Other, LogIndex(2))
        );
        assert_eq!(
            check(&holed, &whole, 0),
            Finding::Missing(Side::This, LogIndex(2))
        );
        let alter: [fn(&mut StoredEntry); 6] = [
            |entry| entry.body[0] ^= 1,
            |entry| entry.header.kind = FrameKind::Control,
            |entry| entry.header.base_offset.0 += 1,
            |entry| entry.header.offset_span += 1,
            |entry| entry.header.append_time += 1,
            |entry| entry.header.chain.0 ^= 1,
        ];
        for alter in alter {
            let mut other = whole.clone();
            alter(&mut other[1]);
            let differs = check(&whole, &other, 0);
            assert!(
                matches!(differs, Finding::Differs(LogIndex(2), _)),
                "{differs}"
            );
        }
    }
}

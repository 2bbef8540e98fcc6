//! The recovery rule (DESIGN.md section 4, "Recovery is the dangerous operation"; RULES.md
//! G-14), as a pure function.
//!
//! Change a word of it only with the explorer at hand: earlier drafts of the rule were wrong in
//! ten places, each of which looked right.

use std::collections::BTreeMap;

use super::view::{BeginView, Content, FileView, Frames, GroupView, IdentityView};
use crate::format::begin::Reason;
use crate::format::journal::SyncedPosition;
use crate::ids::{Chain, LogIndex, Sequence};

/// Mistakes that the explorer must find. Tests hand one to the rule; outside of tests there is
/// neither the type nor the places where it is asked for.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A bad frame is always a torn tail, whatever the watermarks say.
    FirstBadAlwaysCuts,
    /// Watermarks of frames behind the first bad one are ignored.
    WatermarksBeyondIgnored,
    /// A cut does not cap the watermarks of lower files.
    CutDoesNotCap,
    /// A base does not void the watermarks and alarms of lower files.
    BaseDoesNotVoid,
    /// A bad `begin` is always torn.
    BadBeginAlwaysTorn,
    /// The journal's synced position is ignored.
    PositionIgnored,
    /// A bad frame is a torn tail in any file, not in the last one only.
    TornAnywhere,
    /// A quarantine never reaches the log's end.
    TailAlwaysVerified,
}

/// How to classify: by the rule, or in tests by the rule with a mistake in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rule {
    #[cfg(test)]
    pub(crate) mistake: Option<Mistake>,
}

#[cfg(test)]
macro_rules! planted {
    ($rule:expr, $mistake:ident) => {
        $rule.mistake == Some(Mistake::$mistake)
    };
}

#[cfg(not(test))]
macro_rules! planted {
    ($rule:expr, $mistake:ident) => {{
        let _: &Rule = $rule;
        false
    }};
}

/// What is concluded of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What each file is, in the order of the view.
    pub(crate) files: Vec<FileVerdict>,
    /// The index before the log's first entry.
    pub(crate) before_first: LogIndex,
    /// The last entry of the log; behind holes, if what follows them is verified.
    pub(crate) last: LogIndex,
    /// D: the highest index that is known to have been synced.
    pub(crate) durable: LogIndex,
    /// Where the last file was cut short by a crash, if it was.
    pub(crate) torn: Option<Torn>,
    /// What is damaged.
    pub(crate) faults: Vec<Fault>,
    /// Whether and where the log has holes.
    pub(crate) quarantine: Option<Holes>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileVerdict {
    /// Nothing was ever written behind its identity, or what was is torn and was never
    /// acknowledged. Hidden once a `begin` above it is durable.
    Unused,
    /// Everything in it is hidden by a file above: to be unlinked.
    Hidden,
    /// It holds these entries of the log: none but its `begin` if `last` is below `first`.
    Visible {
        /// The first of them.
        first: LogIndex,
        /// The last of them.
        last: LogIndex,
    },
    /// Its identity or `begin` is corrupt: nobody knows what it holds or hides.
    Corrupt,
}

/// The end of a log, where a crash interrupted its last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Torn {
    /// The last file.
    pub(crate) sequence: Sequence,
    /// The first entry that is not there.
    pub(crate) index: LogIndex,
    /// How many frames with good headers lie behind it (P78).
    pub(crate) found_beyond: usize,
}

/// Damage, by file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// The file.
    pub(crate) sequence: Sequence,
    /// What is wrong with it.
    pub(crate) kind: FaultKind,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// The identity block is corrupt.
    Identity,
    /// The `begin` frame is corrupt.
    Begin,
    /// These entries were durable, and are bad or missing.
    Entries(LogIndex, LogIndex),
    /// The file continues another history than what lies below it.
    Diverged(LogIndex),
}

/// Which entries are missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holes {
    /// The first missing entry.
    pub(crate) first: LogIndex,
    /// The missing entries, ascending. Empty if the whole group is quarantined.
    pub(crate) ranges: Vec<(LogIndex, LogIndex)>,
    /// Whether nothing behind the first hole is verified: no vote, no acknowledgement, until
    /// the replica has rejoined.
    pub(crate) reaches_end: bool,
}

/// Applies the rule to a group's files.
pub(crate) fn classify(view: &GroupView, rule: &Rule) -> Verdict {
    Classification::new(view, rule).conclude()
}

/// What a file's first two frames make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Identity and `begin` are good.
    Valid,
    /// Nothing was acknowledged on it; its `begin` is bad if it was written at all.
    Unused,
    /// As above, but its identity never became this file's.
    NeverMade,
    CorruptIdentity,
    CorruptBegin,
}

impl Standing {
    /// Whether the file's `begin` is bad, torn or corrupt: it may have said anything.
    const fn is_bad_begin(self) -> bool {
        matches!(
            self,
            Standing::Unused | Standing::CorruptIdentity | Standing::CorruptBegin
        )
    }

    const fn is_corrupt(self) -> bool {
        matches!(self, Standing::CorruptIdentity | Standing::CorruptBegin)
    }
}

struct Classification<'a> {
    view: &'a GroupView,
    rule: &'a Rule,
    standings: Vec<Standing>,
    /// Which file holds the highest valid base, if any does.
    base: Option<usize>,
    faults: Vec<Fault>,
    /// Missing entries, in the order they were met.
    holes: Vec<(LogIndex, LogIndex)>,
    /// A fault leaves nothing to rely on.
    whole: bool,
}

impl<'a> Classification<'a> {
    fn new(view: &'a GroupView, rule: &'a Rule) -> Classification<'a> {
        assert!(
            view.files.is_sorted_by(|a, b| a.sequence < b.sequence),
            "files ascend by sequence"
        );
        let standings = (0..view.files.len())
            .map(|at| standing(view, at, rule))
            .collect::<Vec<_>>();
        let base = (0..view.files.len()).rev().find(|&at| {
            standings[at] == Standing::Valid && begin_of(&view.files[at]).reason == Reason::Base
        });
        Classification {
            view,
            rule,
            standings,
            base,
            faults: Vec::new(),
            holes: Vec::new(),
            whole: false,
        }
    }

    fn conclude(mut self) -> Verdict {
        let durable = self.durable();
        self.note_corrupt_files();
        let walk = self.walk();
        let Some(&lowest) = walk.first() else {
            return self.conclude_without_files(durable);
        };
        self.check_lowest(lowest);
        for pair in walk.windows(2) {
            self.check_joint(pair[0], pair[1]);
        }
        let top = *walk.last().expect("the walk has a first file");
        let (last, torn, reaches_end) = self.check_top(top, durable);
        let before_first = self.before_first(lowest);
        self.spread_to_whole_group();
        self.finish(walk, before_first, last, durable, torn, reaches_end)
    }

    /// Which files the log consists of: those with a good `begin`, from the last base up, but
    /// for those that a cut above hides whole.
    fn walk(&self) -> Vec<usize> {
        let mut walk = Vec::new();
        let mut visible_through = LogIndex(u64::MAX);
        for at in (self.floor()..self.view.files.len()).rev() {
            if self.standings[at] != Standing::Valid {
                continue;
            }
            let begin = begin_of(&self.view.files[at]);
            if begin.first <= visible_through {
                walk.push(at);
            }
            if begin.reason != Reason::Roll {
                visible_through = visible_through.min(begin.first.before());
            }
        }
        walk.reverse();
        walk
    }

    /// The lowest file that the last base does not hide.
    fn floor(&self) -> usize {
        self.base.unwrap_or(0)
    }

    /// D: the maximum of the journal's position and of all watermarks, each capped by later
    /// cuts and voided by a later base.
    fn durable(&self) -> LogIndex {
        let position = self.position_claim();
        let claims = self.view.files.iter().zip(&self.standings);
        claims
            .filter(|(_, standing)| **standing == Standing::Valid)
            .flat_map(|(file, _)| self.file_claims(file))
            .chain(position)
            .filter_map(|claim| self.capped(claim))
            .max()
            .unwrap_or(LogIndex::ZERO)
    }

    fn position_claim(&self) -> Option<SyncedPosition> {
        let position = self.view.position?;
        let lowest = self.view.files.first().map(|file| file.sequence);
        let void = lowest.is_some_and(|lowest| position.sequence < lowest);
        (!void && !planted!(self.rule, PositionIgnored)).then_some(position)
    }

    /// What a file with a good `begin` claims to be synced: all before its first index, and
    /// what its frames' watermarks say.
    fn file_claims(&self, file: &FileView) -> impl Iterator<Item = SyncedPosition> {
        let sequence = file.sequence;
        let begin = Some(begin_of(file).first.before());
        let frames = match &file.content {
            Content::Frames(frames) if planted!(self.rule, WatermarksBeyondIgnored) => {
                frames.run_claim
            }
            content => content.claim(),
        };
        let claims = begin.into_iter().chain(frames);
        claims.map(move |index| SyncedPosition { sequence, index })
    }

    fn capped(&self, claim: SyncedPosition) -> Option<LogIndex> {
        let mut index = claim.index;
        for (file, standing) in self.view.files.iter().zip(&self.standings) {
            if file.sequence <= claim.sequence || *standing != Standing::Valid {
                continue;
            }
            let begin = begin_of(file);
            match begin.reason {
                Reason::Base if planted!(self.rule, BaseDoesNotVoid) => {}
                Reason::Base => return None,
                Reason::Cut if planted!(self.rule, CutDoesNotCap) => {}
                Reason::Cut => index = index.min(begin.first.before()),
                Reason::Roll => {}
            }
        }
        Some(index)
    }

    /// Corrupt files above the last base: what they hide is unknown.
    fn note_corrupt_files(&mut self) {
        let floor = if planted!(self.rule, BaseDoesNotVoid) {
            0
        } else {
            self.floor()
        };
        for at in floor..self.view.files.len() {
            let kind = match self.standings[at] {
                Standing::CorruptIdentity => FaultKind::Identity,
                Standing::CorruptBegin => FaultKind::Begin,
                Standing::Valid | Standing::Unused | Standing::NeverMade => continue,
            };
            self.fault(at, kind);
            self.whole = true;
        }
    }

    /// A group none of whose files has a good `begin`: empty, unless something says that it
    /// was not.
    fn conclude_without_files(mut self, durable: LogIndex) -> Verdict {
        if durable > LogIndex::ZERO && !self.whole && !planted!(self.rule, FirstBadAlwaysCuts) {
            let sequence = self.view.position.map_or(Sequence::FIRST, |at| at.sequence);
            self.faults.push(Fault {
                sequence,
                kind: FaultKind::Entries(LogIndex(1), durable),
            });
            self.whole = true;
        }
        let zero = LogIndex::ZERO;
        self.finish(Vec::new(), zero, zero, durable, None, false)
    }

    /// Whether nothing is needed below the lowest file of the walk: it is a base, or starts the
    /// log, or nothing lies below it in the directory (retention took it).
    fn stands_alone(&self, lowest: usize) -> bool {
        let begin = begin_of(&self.view.files[lowest]);
        lowest == 0 || begin.reason == Reason::Base || begin.first == LogIndex(1)
    }

    fn check_lowest(&mut self, lowest: usize) {
        if !self.stands_alone(lowest) {
            let before = begin_of(&self.view.files[lowest]).first.before();
            self.fault(lowest, FaultKind::Diverged(before));
            self.whole = true;
        }
    }

    /// The index before the log's first entry; 0 if nobody knows where the log starts.
    fn before_first(&self, lowest: usize) -> LogIndex {
        if self.stands_alone(lowest) {
            begin_of(&self.view.files[lowest]).first.before()
        } else {
            LogIndex::ZERO
        }
    }

    /// The entry before `upper`'s first must be there, with the chain that its `begin` names.
    fn check_joint(&mut self, lower: usize, upper: usize) {
        if planted!(self.rule, TornAnywhere) || mutant!(TornAnywhere) {
            return;
        }
        let begin = *begin_of(&self.view.files[upper]);
        let before = begin.first.before();
        let missing_before = self.note_holes(lower, before);
        let fits = match self.chain_at(lower, before) {
            Some(chain) => chain == begin.chain,
            None => missing_before,
        };
        if !fits {
            self.fault(upper, FaultKind::Diverged(before));
            self.whole = true;
        }
    }

    /// The chain at an entry, if the entry is good (or is the one before the file's first).
    fn chain_at(&self, at: usize, index: LogIndex) -> Option<Chain> {
        let file = &self.view.files[at];
        let begin = begin_of(file);
        if index < begin.first {
            return (index == begin.first.before()).then_some(begin.chain);
        }
        match &file.content {
            Content::Sealed { last, chain, .. } => (index == *last).then_some(*chain),
            Content::Frames(frames) => frame_chain(frames, begin, index),
        }
    }

    /// Records what is missing of a file that must hold everything up to and with `through`.
    /// Gives whether `through` itself is missing.
    fn note_holes(&mut self, at: usize, through: LogIndex) -> bool {
        let holes = missing(&self.view.files[at], through);
        for &(first, last) in &holes {
            self.fault(at, FaultKind::Entries(first, last));
        }
        let last_is_missing = holes.last().is_some_and(|&(_, last)| last == through);
        self.holes.extend(holes);
        last_is_missing
    }

    /// The end of the log. Gives its last entry, where it was torn, and whether a hole reaches
    /// the end.
    fn check_top(&mut self, top: usize, durable: LogIndex) -> (LogIndex, Option<Torn>, bool) {
        let file = &self.view.files[top];
        let accepted = file
            .content
            .last_accepted()
            .expect("the file's begin is good");
        let cuts = planted!(self.rule, FirstBadAlwaysCuts) || mutant!(FirstBadAlwaysCuts);
        if accepted >= durable || cuts {
            return (accepted, torn(file, accepted), false);
        }
        let through = durable.max(last_found(file).unwrap_or(LogIndex::ZERO));
        // A hole above D was never acknowledged: what lies behind it is no verified tail.
        let holes = missing(file, through);
        let verified = holes
            .iter()
            .all(|&(_, last)| last < through && last <= durable);
        self.note_holes(top, through);
        if verified || planted!(self.rule, TailAlwaysVerified) {
            (through, None, false)
        } else {
            (accepted, None, true)
        }
    }

    /// Any alarm beside or above a bad `begin` quarantines the whole group: the bad one may have
    /// been a cut.
    fn spread_to_whole_group(&mut self) {
        let Some(lowest_bad) = (self.floor()..self.view.files.len())
            .find(|&at| self.standings[at].is_bad_begin())
            .map(|at| self.view.files[at].sequence)
        else {
            return;
        };
        self.whole |= self.faults.iter().any(|fault| fault.sequence >= lowest_bad);
    }

    fn finish(
        self,
        walk: Vec<usize>,
        before_first: LogIndex,
        last: LogIndex,
        durable: LogIndex,
        torn: Option<Torn>,
        reaches_end: bool,
    ) -> Verdict {
        let files = self.file_verdicts(&walk, last, reaches_end);
        if self.whole {
            return Verdict {
                files,
                before_first,
                last: before_first,
                durable,
                torn: None,
                faults: self.faults,
                quarantine: Some(Holes {
                    first: before_first.next(),
                    ranges: Vec::new(),
                    reaches_end: true,
                }),
            };
        }
        let mut holes = self.holes;
        holes.sort_unstable();
        let first = holes.first().map(|&(first, _)| first);
        Verdict {
            files,
            before_first,
            last: match first {
                Some(first) if reaches_end => first.before(),
                _ => last,
            },
            durable,
            torn,
            faults: self.faults,
            quarantine: first.map(|first| Holes {
                first,
                ranges: holes,
                reaches_end,
            }),
        }
    }

    fn file_verdicts(&self, walk: &[usize], last: LogIndex, reaches_end: bool) -> Vec<FileVerdict> {
        let visible = self.visible_ranges(walk, last);
        let highest_valid = walk.last().copied();
        let keep_all = self.whole || reaches_end;
        (0..self.view.files.len())
            .map(|at| {
                let below_valid = highest_valid.is_some_and(|highest| at < highest);
                let void = self.base.is_some_and(|base| at < base);
                match (self.standings[at], visible.get(&at)) {
                    (_, Some(&(first, last))) => FileVerdict::Visible { first, last },
                    (standing, None) if standing.is_corrupt() && !void => FileVerdict::Corrupt,
                    (_, None) if below_valid && !keep_all => FileVerdict::Hidden,
                    (_, None) => FileVerdict::Unused,
                }
            })
            .collect()
    }

    /// What of each file of the walk is not hidden by the file above it.
    fn visible_ranges(
        &self,
        walk: &[usize],
        last: LogIndex,
    ) -> BTreeMap<usize, (LogIndex, LogIndex)> {
        let mut ranges = BTreeMap::new();
        let mut through = last;
        for &at in walk.iter().rev() {
            let first = begin_of(&self.view.files[at]).first;
            ranges.insert(at, (first, through.max(first.before())));
            through = first.before();
        }
        ranges
    }

    fn fault(&mut self, at: usize, kind: FaultKind) {
        self.faults.push(Fault {
            sequence: self.view.files[at].sequence,
            kind,
        });
    }
}

fn begin_of(file: &FileView) -> &BeginView {
    let begin = file.content.begin();
    begin.expect("only files with a good begin are asked for it")
}

/// What a file's identity and `begin` make of it.
fn standing(view: &GroupView, at: usize, rule: &Rule) -> Standing {
    let file = &view.files[at];
    let position_in_it = view
        .position
        .is_some_and(|position| position.sequence == file.sequence);
    match file.identity {
        IdentityView::Other => return Standing::NeverMade,
        IdentityView::Bad { any_header } if any_header || position_in_it => {
            return Standing::CorruptIdentity;
        }
        IdentityView::Bad { .. } => return Standing::NeverMade,
        IdentityView::Good => {}
    }
    if file.content.begin().is_some() {
        return Standing::Valid;
    }
    let was_whole = file.content.claim().is_some() || position_in_it || lost_its_floor(view, at);
    if was_whole && !planted!(rule, BadBeginAlwaysTorn) {
        Standing::CorruptBegin
    } else {
        Standing::Unused
    }
}

/// Whether no good `begin` stands above a bad one and the next lower file is missing: then the
/// bad one was durable, since lower files are unlinked only after that.
fn lost_its_floor(view: &GroupView, at: usize) -> bool {
    let file = &view.files[at];
    let good_above = view.files[at + 1..]
        .iter()
        .any(|above| above.identity == IdentityView::Good && above.content.begin().is_some());
    let next_lower_there = at > 0 && view.files[at - 1].sequence.next() == file.sequence;
    !good_above && !next_lower_there && file.sequence > Sequence::FIRST
}

fn frame_chain(frames: &Frames, begin: &BeginView, index: LogIndex) -> Option<Chain> {
    let nth = usize::try_from(begin.first.distance_to(index)).ok()?;
    let accepted = frames.run.get(nth).map(|mark| mark.chain);
    accepted.or_else(|| {
        let mut good = frames.beyond.iter().filter(|found| found.good);
        good.find(|found| found.index == index)
            .map(|found| found.chain)
    })
}

/// The highest index of an entry frame with a good header.
fn last_found(file: &FileView) -> Option<LogIndex> {
    match &file.content {
        Content::Sealed { last, .. } => Some(*last),
        Content::Frames(frames) => frames.beyond.iter().map(|found| found.index).max(),
    }
}

/// Which entries of a file, from its first through `through`, are not good.
fn missing(file: &FileView, through: LogIndex) -> Vec<(LogIndex, LogIndex)> {
    let accepted = file
        .content
        .last_accepted()
        .expect("the file's begin is good");
    let mut next = accepted.next();
    let mut holes = Vec::new();
    for index in good_beyond(file) {
        if index < next {
            continue;
        }
        if index > through {
            break;
        }
        if index > next {
            holes.push((next, index.before()));
        }
        next = index.next();
    }
    if next <= through {
        holes.push((next, through));
    }
    holes
}

/// The good entries behind the first bad one: body and header hold, and they continue one
/// another wherever they are adjacent.
fn good_beyond(file: &FileView) -> impl Iterator<Item = LogIndex> {
    let beyond = match &file.content {
        Content::Sealed { .. } => &[],
        Content::Frames(frames) => &frames.beyond[..],
    };
    let mut previous: Option<(LogIndex, bool)> = None;
    beyond.iter().filter_map(move |found| {
        let adjacent = previous.is_some_and(|(index, good)| good && index.next() == found.index);
        let ascends = previous.is_none_or(|(index, _)| index < found.index);
        let good = found.good && ascends && (!adjacent || found.follows);
        previous = Some((found.index, good));
        good.then_some(found.index)
    })
}

fn torn(file: &FileView, accepted: LogIndex) -> Option<Torn> {
    match &file.content {
        Content::Frames(frames) if frames.residue => Some(Torn {
            sequence: file.sequence,
            index: accepted.next(),
            found_beyond: frames.beyond.len(),
        }),
        Content::Sealed { .. } | Content::Frames(_) => None,
    }
}

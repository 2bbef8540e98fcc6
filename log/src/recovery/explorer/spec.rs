//! What recovery owes: what was acknowledged is kept or quarantined, nothing is invented,
//! nobody is alarmed without a fault.

use super::disk::{Entry, Files, chain_of};
use super::journal::Unit;
use super::world::{World, Write};
use crate::format::begin::Reason;
use crate::recovery::classify::{FileVerdict, Holes, Verdict};

/// What was promised, as an observer outside of the disk remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Ghost {
    /// The index before the first entry, the chain there, and the file that says so.
    pub(super) start: u8,
    pub(super) start_chain: u32,
    pub(super) start_file: u8,
    /// Entries acknowledged, from `start + 1` on.
    pub(super) log: Vec<Acked>,
    /// The write that a crash interrupted and that no recovery has settled yet.
    pub(super) interrupted: Option<Write>,
    /// The highest promise acted on, and the highest asked for.
    pub(super) promised: u8,
    pub(super) asked: u8,
    /// The term of new entries.
    pub(super) term: u8,
    pub(super) log_rotten: bool,
    pub(super) journal_rotten: bool,
}

/// An acknowledged entry, and the file it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Acked {
    pub(super) term: u8,
    pub(super) chain: u32,
    pub(super) file: u8,
}

/// A promise of the design is broken.
pub(super) type Violation = String;

/// The log that a verdict gives.
#[derive(Debug, Clone)]
pub(super) struct Recovered {
    pub(super) start: u8,
    pub(super) start_chain: Option<u32>,
    pub(super) last: u8,
    /// The good entries from `start + 1` through `last`; nothing where one is missing.
    pub(super) entries: Vec<Option<(Entry, u8)>>,
    pub(super) quarantine: Option<Holes>,
    pub(super) reaches_end: bool,
    pub(super) alarmed: bool,
    /// The highest file with entries of the log, or where they go next.
    pub(super) top: Option<u8>,
    /// Whether the highest file begins behind the last entry: then its `begin` names that
    /// entry's term and chain, whatever became of the entry.
    last_is_named: bool,
    lowest: Option<u8>,
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("the explorer counts to a few")
}

impl Recovered {
    pub(super) fn new(files: &Files, verdict: &Verdict) -> Recovered {
        let (start, last) = (small(verdict.before_first.0), small(verdict.last.0));
        let mut entries = Vec::new();
        let (mut top, mut lowest) = (None, None);
        let mut start_chain = None;
        let mut last_is_named = false;
        for (file, is) in files.visible().zip(&verdict.files) {
            let FileVerdict::Visible {
                first,
                last: through,
            } = is
            else {
                continue;
            };
            let (first, through) = (small(first.0), small(through.0).min(last));
            top = Some(file.sequence);
            last_is_named = first > last;
            if lowest.is_none() {
                lowest = Some(file.sequence);
                start_chain = file.begin().map(|begin| begin.chain);
            }
            for index in first..=through {
                assert_eq!(entries.len(), usize::from(index - start - 1), "no gaps");
                entries.push(file.good_entry(index).map(|entry| (entry, file.sequence)));
            }
        }
        let quarantine = verdict.quarantine.clone();
        Recovered {
            start,
            start_chain,
            last,
            entries,
            reaches_end: quarantine.as_ref().is_some_and(|holes| holes.reaches_end),
            quarantine,
            alarmed: !verdict.faults.is_empty(),
            top,
            last_is_named,
            lowest,
        }
    }

    fn entry(&self, index: u8) -> Option<Entry> {
        let nth = index.checked_sub(self.start + 1)?;
        Some(self.entries.get(usize::from(nth))?.as_ref()?.0)
    }

    fn chain_at(&self, index: u8) -> Option<u32> {
        match index == self.start {
            true => self.start_chain.or((index == 0).then_some(0)),
            false => self.entry(index).map(|entry| entry.chain),
        }
    }

    /// Whether this entry is said to be missing.
    fn is_hole(&self, index: u8) -> bool {
        let index = u64::from(index);
        self.quarantine.as_ref().is_some_and(|holes| {
            let mut ranges = holes.ranges.iter();
            let whole = holes.ranges.is_empty();
            whole
                || (holes.reaches_end && index >= holes.first.0)
                || ranges.any(|(first, last)| (first.0..=last.0).contains(&index))
        })
    }

    /// The last entry before the first hole.
    pub(super) fn good_through(&self) -> u8 {
        let hole = self.quarantine.as_ref().map(|holes| small(holes.first.0));
        hole.map_or(self.last, |first| first - 1)
    }
}

impl Ghost {
    pub(super) fn last(&self) -> u8 {
        self.start + u8::try_from(self.log.len()).expect("few entries")
    }

    pub(super) fn chain_at(&self, index: u8) -> u32 {
        match index.checked_sub(self.start + 1) {
            None => self.start_chain,
            Some(nth) => self.log[usize::from(nth)].chain,
        }
    }

    /// A write has completed.
    pub(super) fn acknowledge(&mut self, write: &Write) {
        if let Some(begin) = write.replaces() {
            if begin.reason == Reason::Base {
                self.start = begin.first - 1;
                self.start_chain = begin.chain;
                self.start_file = write.sequence;
                self.log.clear();
            }
            self.log.truncate(usize::from(begin.first - self.start - 1));
        }
        let entries = write.entries.iter();
        self.log
            .extend(entries.map(|entry| Acked::of(entry, write.sequence)));
    }

    /// A crash has met this write.
    pub(super) fn interrupt(&mut self, write: &Write) {
        if !self.log_rotten {
            assert_eq!(
                self.interrupted, None,
                "recovery settles one before the next"
            );
        }
        self.interrupted = Some(write.clone());
    }

    /// The log starts behind this entry.
    pub(super) fn retain(&mut self, start: u8) {
        self.start_file = self
            .log
            .get(usize::from(start - self.start))
            .map_or(self.start_file, |next| next.file);
        self.start_chain = self.chain_at(start);
        self.log.drain(..usize::from(start - self.start));
        self.start = start;
    }

    /// What was recovered is acknowledged now.
    pub(super) fn adopt(&mut self, found: &Recovered) -> Result<(), Violation> {
        let known = |index: u8| {
            let acked = || {
                let nth = usize::from(index.checked_sub(self.start + 1)?);
                self.log.get(nth).copied()
            };
            // A base that rot took leaves a hole below the log's start.
            let below_start = || {
                (index <= self.start).then_some(Acked {
                    term: 0,
                    chain: self.start_chain,
                    file: self.start_file,
                })
            };
            self.was_interrupted(found, index)
                .or_else(acked)
                .or_else(below_start)
        };
        let indexes = found.start + 1..=found.last;
        let log = found.entries.iter().zip(indexes).map(|(entry, index)| {
            let good = entry.map(|(entry, file)| Acked::of(&entry, file));
            good.or_else(|| known(index))
                .ok_or_else(|| format!("entry {index} was never acknowledged, and is missed"))
        });
        self.log = log.collect::<Result<_, _>>()?;
        self.start_chain = found.start_chain.unwrap_or(0);
        self.start_file = found.lowest.unwrap_or(0);
        self.start = found.start;
        self.interrupted = None;
        Ok(())
    }

    /// The entry of the interrupted write, if its file is part of the log that was found.
    fn was_interrupted(&self, found: &Recovered, index: u8) -> Option<Acked> {
        let write = self.interrupted.as_ref()?;
        let entry = write.entries.iter().find(|entry| entry.index == index)?;
        (found.top == Some(write.sequence)).then(|| Acked::of(entry, write.sequence))
    }

    /// Whether all that was acknowledged is in `found`.
    pub(super) fn is_held_by(&self, found: &Recovered) -> bool {
        (self.start..=self.last()).all(|index| self.agrees(found, index))
    }

    pub(super) fn agrees(&self, found: &Recovered, index: u8) -> bool {
        found.chain_at(index) == Some(self.chain_at(index))
    }
}

/// Promises are said to be lost.
pub(super) fn check_lost(ghost: &Ghost) -> Result<(), Violation> {
    if ghost.journal_rotten {
        return Ok(());
    }
    Err("promises are said to be lost without a fault of the journal".to_owned())
}

/// Checks what recovery concludes of a crashed disk.
pub(super) fn check(world: &World, unit: &Unit, found: &Recovered) -> Result<(), Violation> {
    let ghost = &world.ghost;
    let promise = unit.record.promise;
    if promise < ghost.promised {
        return Err(format!("promise {} is lost", ghost.promised));
    }
    if promise > ghost.asked {
        return Err(format!("promise {promise} was never asked for"));
    }
    check_links(found)?;
    if !ghost.log_rotten {
        if found.quarantine.is_some() || found.alarmed {
            return Err("alarm without a fault".to_owned());
        }
        return check_exact(ghost, found);
    }
    let base = ghost.interrupted.as_ref().and_then(Write::replaces);
    if let Some(base) = base.filter(|begin| begin.reason == Reason::Base)
        && found.start == base.first - 1
        && found.start_chain == Some(base.chain)
    {
        return Ok(());
    }
    check_kept(world, unit, found)
}

/// What is served is one history, without holes that nobody speaks of.
fn check_links(found: &Recovered) -> Result<(), Violation> {
    let mut before = found.start_chain;
    for (entry, index) in found.entries.iter().zip(found.start + 1..) {
        let Some((entry, _)) = entry else {
            if !found.is_hole(index) {
                return Err(format!("entry {index} is served and is not there"));
            }
            before = None;
            continue;
        };
        if before.is_some_and(|before| chain_of(before, index, entry.term) != entry.chain) {
            return Err(format!("entry {index} does not continue what is before it"));
        }
        before = Some(entry.chain);
    }
    let votes = found.quarantine.is_some() && !found.reaches_end;
    let ends_in_hole = found.entries.last().is_some_and(Option::is_none);
    if votes && ends_in_hole && !found.last_is_named {
        return Err(format!("votes by entry {}, which is not there", found.last));
    }
    Ok(())
}

/// Without a fault: all that was acknowledged, and any first part of what was in flight.
fn check_exact(ghost: &Ghost, found: &Recovered) -> Result<(), Violation> {
    let Some(write) = &ghost.interrupted else {
        return matches(ghost, &[], found);
    };
    let mut replaced = ghost.clone();
    let unsettled = Write {
        entries: Vec::new(),
        ..write.clone()
    };
    replaced.acknowledge(&unsettled);
    match write.replaces() {
        None => matches(ghost, &write.entries, found),
        Some(_) => matches(ghost, &[], found).or_else(|old| {
            matches(&replaced, &write.entries, found).map_err(|new| format!("{old}; {new}"))
        }),
    }
}

/// Whether `found` is the acknowledged log and any first part of `more`.
fn matches(ghost: &Ghost, more: &[Entry], found: &Recovered) -> Result<(), Violation> {
    let most = ghost.last() + u8::try_from(more.len()).expect("few entries");
    if found.start > ghost.start || found.last < ghost.last() || found.last > most {
        return Err(format!(
            "entries {}..={} recovered of {}..={} to {most}",
            found.start + 1,
            found.last,
            ghost.start + 1,
            ghost.last(),
        ));
    }
    if !ghost.is_held_by(found) {
        return Err("another log than the acknowledged one".to_owned());
    }
    for entry in more.iter().filter(|entry| entry.index <= found.last) {
        if found.entry(entry.index).map(|found| found.chain) != Some(entry.chain) {
            return Err(format!("entry {} was never written", entry.index));
        }
    }
    Ok(())
}

/// With a fault: each acknowledged entry is kept, or quarantined, or falls under the stated
/// exception: rot took it (or something before it in its file), and no surviving watermark
/// speaks of it.
fn check_kept(world: &World, unit: &Unit, found: &Recovered) -> Result<(), Violation> {
    if unit.record.no_vote {
        return Ok(());
    }
    let ghost = &world.ghost;
    let replaces = ghost.interrupted.as_ref().and_then(Write::replaces);
    let owed_through = match replaces {
        Some(begin) if begin.reason == Reason::Cut => ghost.last().min(begin.first - 1),
        _ => ghost.last(),
    };
    for index in ghost.start..=owed_through {
        if index == 0 || ghost.agrees(found, index) || found.is_hole(index) {
            continue;
        }
        let file = match index.checked_sub(ghost.start + 1) {
            None => ghost.start_file,
            Some(nth) => ghost.log[usize::from(nth)].file,
        };
        if let Some(claim) = surviving_claim(&world.files, unit, file, index) {
            return Err(format!(
                "entry {index} is lost, and file {} says that {} was synced",
                claim.0, claim.1
            ));
        }
        let rotten = world
            .files
            .get(file)
            .is_some_and(|file| file.rotten_through(index));
        if !rotten {
            return Err(format!(
                "entry {index} is lost, and nothing before it rotted"
            ));
        }
    }
    Ok(())
}

/// A watermark from which anybody could know that this entry was synced: of its file or a later
/// one, at or above its index.
fn surviving_claim(files: &Files, unit: &Unit, file: u8, index: u8) -> Option<(u8, u8)> {
    let legible = files.visible().filter(|file| !file.identity_rotten);
    let claims = legible.flat_map(|file| {
        let begin = file.begin().map(|begin| begin.first - 1);
        let frames = file
            .frames
            .iter()
            .filter_map(|frame| frame.legible()?.claim);
        begin
            .into_iter()
            .chain(frames)
            .map(|index| (file.sequence, index))
    });
    claims
        .chain(unit.record.position)
        .find(|&(sequence, claim)| sequence >= file && claim >= index)
}

//! One group on one abstract disk: what the process does, what a crash leaves, and how recovery
//! proceeds. [`World::steps`] gives every next state.

use super::disk::{Begin, Cell, Entry, File, Files, Frame, Item, Name, chain_of};
use super::journal::{Journal, Left, Record, Unit};
use super::spec::{self, Acked, Ghost, Recovered, Violation};
use crate::format::begin::Reason;
use crate::recovery::classify::{Rule, classify};

/// How often each thing may happen in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    /// Entries submitted.
    pub(super) entries: u8,
    /// Entries in one write.
    pub(super) batch: u8,
    /// Cuts and bases that a leader asks for; restarts come on top.
    pub(super) cuts: u8,
    pub(super) rolls: u8,
    pub(super) crashes: u8,
    /// Synced positions pushed to the journal.
    pub(super) pushes: u8,
    /// Promises.
    pub(super) votes: u8,
    pub(super) rots: u8,
    /// Files that retention takes.
    pub(super) retentions: u8,
}

/// What a driver of the rule may get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// Recovery acts on what it read without a fresh checkpoint.
    NoFreshCheckpoint,
    /// Recovery overwrites the older half while one copy lacks the newer one.
    HalfNotMirrored,
    /// Recovery counts a tail that it read from the page cache without syncing it.
    TailNotSynced,
    /// A restarted process appends behind the recovered tail, in the same file.
    AppendsToRecoveredTail,
    /// The entries of a file's first write claim a watermark.
    FirstWriteClaims,
    /// A promise is acted on when one copy of the journal holds it.
    PromiseInOneCopy,
    /// A next file is begun before its directory is synced.
    NameNotSynced,
}

/// The rule and the driver under test.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subject {
    pub(super) rule: Rule,
    pub(super) slip: Option<Slip>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) files: Files,
    pub(super) journal: Journal,
    pub(super) ghost: Ghost,
    pub(super) run: Run,
    pub(super) left: Bounds,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Run {
    /// Crashed.
    Down,
    /// The verdict is reached; nothing was done yet.
    Judged(Unit),
    /// All files and the directory are synced.
    Synced(Unit),
    /// The half that holds is being made whole in both copies of the journal.
    Mirroring(Unit),
    /// The fresh checkpoint is in flight.
    Checkpointing(Unit),
    Up(Up),
    /// Promises were lost: this directory never votes again.
    Refusing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Up {
    /// The file that this life began and writes to.
    pub(super) current: Option<u8>,
    /// The file that was made for the next `begin`.
    pub(super) next: Option<u8>,
    pub(super) write: Option<Write>,
    /// The journal's last durable unit.
    pub(super) unit: Unit,
    pub(super) unit_in_flight: Option<Unit>,
}

/// A write of the log, in flight or interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) sequence: u8,
    pub(super) begin: Option<Begin>,
    pub(super) entries: Vec<Entry>,
}

/// What happened, for a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    MakeFile,
    SyncDirectory,
    Append(usize),
    Begin(Reason, u8, usize),
    Written,
    Unlink(u8),
    Retain(u8),
    PushPosition,
    Promise,
    JournalWritten,
    Mend(u8),
    Rejoin,
    Crash,
    RotFile(u8, super::disk::Rot),
    RotJournal,
    Recover,
    Sync,
    Mirror,
    Checkpoint,
    Act,
}

type Steps = Vec<(Step, World)>;

impl Write {
    fn items(&self) -> Vec<Item> {
        let begin = self.begin.map(Item::Begin).into_iter();
        let entries = self.entries.iter().copied().map(Item::Entry);
        begin.chain(entries).collect()
    }

    /// Whether it replaces what was there, rather than go on from it.
    pub(super) fn replaces(&self) -> Option<Begin> {
        self.begin.filter(|begin| begin.reason != Reason::Roll)
    }
}

impl World {
    /// A group that has never been written.
    pub(super) fn new(bounds: Bounds) -> World {
        let (journal, unit) = Journal::new();
        World {
            files: Files::default(),
            journal,
            ghost: Ghost::default(),
            run: Run::Up(Up::new(unit)),
            left: bounds,
        }
    }

    /// Every state that may follow, and what leads there.
    pub(super) fn steps(&self, subject: &Subject) -> Result<Steps, Violation> {
        let mut steps = Steps::new();
        match &self.run {
            Run::Down => {
                self.rots(&mut steps);
                steps.push((Step::Recover, self.recover(subject)?));
                return Ok(steps);
            }
            Run::Judged(unit) => steps.push((Step::Sync, self.sync(*unit, subject))),
            Run::Synced(unit)
                if matches!(
                    subject.slip,
                    Some(Slip::HalfNotMirrored | Slip::NoFreshCheckpoint)
                ) =>
            {
                steps.push(self.checkpoint(*unit, subject)?);
            }
            Run::Synced(unit) => {
                let mut next = self.clone();
                next.run = Run::Mirroring(*unit);
                steps.push((Step::Mirror, next));
            }
            Run::Mirroring(unit) => {
                let mut next = self.clone();
                next.journal = self.journal.mirrored(unit);
                steps.push(next.checkpoint(*unit, subject)?);
            }
            Run::Checkpointing(unit) => {
                let mut next = self.clone();
                next.journal.write(unit, [Left::Whole; 2]);
                steps.push((Step::Act, next.act(*unit, subject)?));
            }
            Run::Up(up) if up.unit.record.no_vote => self.mend(up, subject, &mut steps)?,
            Run::Up(up) => self.serve(up, subject, &mut steps),
            Run::Refusing => return Ok(steps),
        }
        self.crashes(&mut steps);
        Ok(steps)
    }

    fn with_up(&self, change: impl FnOnce(&mut World, &mut Up)) -> World {
        let mut next = self.clone();
        let Run::Up(mut up) = std::mem::replace(&mut next.run, Run::Down) else {
            panic!("only asked of a running process");
        };
        change(&mut next, &mut up);
        next.run = Run::Up(up);
        next
    }
}

/// What a running process does.
impl World {
    fn serve(&self, up: &Up, subject: &Subject, steps: &mut Steps) {
        self.directory(up, steps);
        self.journal_writes(up, subject, steps);
        if up.write.is_some() {
            steps.push((Step::Written, self.written()));
            return;
        }
        if up.current.is_some() {
            for count in 1..=self.left.batch.min(self.left.entries) {
                let write = self.append(up, count);
                let step = Step::Append(write.entries.len());
                steps.push((step, self.submit(write, subject, |_| {})));
            }
        }
        let Some(next) = up.next else {
            return;
        };
        let last = self.ghost.last();
        if up.current.is_none() {
            self.begin(next, self.cut_at(last + 1), subject, |_| {}, steps);
        } else if self.left.rolls > 0 {
            let roll = Begin {
                reason: Reason::Roll,
                first: last + 1,
                chain: self.ghost.chain_at(last),
            };
            self.begin(next, roll, subject, |left| left.rolls -= 1, steps);
        }
        if self.left.cuts == 0 {
            return;
        }
        for first in self.ghost.start + 1..=last {
            let cut = self.cut_at(first);
            self.begin(next, cut, subject, |left| left.cuts -= 1, steps);
        }
        for first in [last, last + 2] {
            if first > self.ghost.start + 1 {
                let base = Begin {
                    reason: Reason::Base,
                    first,
                    chain: chain_of(0xBA5E, first, self.ghost.term),
                };
                self.begin(next, base, subject, |left| left.cuts -= 1, steps);
            }
        }
    }

    fn append(&self, up: &Up, count: u8) -> Write {
        let last = self.ghost.last();
        Write {
            sequence: up.current.expect("a file is begun"),
            begin: None,
            entries: self.entries(last, self.ghost.chain_at(last), count, Some(last)),
        }
    }

    fn entries(&self, before: u8, chain: u32, count: u8, claim: Option<u8>) -> Vec<Entry> {
        let mut chain = chain;
        let entry = |index| {
            chain = chain_of(chain, index, self.ghost.term);
            Entry {
                index,
                term: self.ghost.term,
                chain,
                claim,
            }
        };
        (before + 1..=before + count).map(entry).collect()
    }

    /// A cut, or a base where no entry is kept.
    fn cut_at(&self, first: u8) -> Begin {
        let keeps = first > self.ghost.start + 1;
        Begin {
            reason: if keeps { Reason::Cut } else { Reason::Base },
            first,
            chain: self.ghost.chain_at(first - 1),
        }
    }

    /// The first writes that begin with `begin`, with or without entries.
    fn begin(
        &self,
        sequence: u8,
        begin: Begin,
        subject: &Subject,
        spend: impl Fn(&mut Bounds),
        steps: &mut Steps,
    ) {
        let conflict = begin.first <= self.ghost.last() || begin.first > self.ghost.last() + 1;
        let mut this = self.clone();
        this.ghost.term += u8::from(conflict);
        for count in 0..=self.left.batch.min(self.left.entries) {
            let before = begin.first - 1;
            let claim = (subject.slip == Some(Slip::FirstWriteClaims)).then_some(before);
            let write = Write {
                sequence,
                begin: Some(begin),
                entries: this.entries(before, begin.chain, count, claim),
            };
            let step = Step::Begin(begin.reason, begin.first, write.entries.len());
            steps.push((step, this.submit(write, subject, &spend)));
        }
    }

    fn submit(&self, write: Write, subject: &Subject, spend: impl Fn(&mut Bounds)) -> World {
        self.with_up(|next, up| {
            next.left.entries -= u8::try_from(write.entries.len()).expect("few entries");
            spend(&mut next.left);
            if write.begin.is_some() {
                up.next = None;
                if subject.slip != Some(Slip::NameNotSynced) {
                    next.files.get_mut(write.sequence).name = Name::Durable;
                }
            }
            up.write = Some(write);
        })
    }

    fn written(&self) -> World {
        self.with_up(|next, up| {
            let write = up.write.take().expect("a write is in flight");
            let frames = write.items().into_iter().map(Frame::durable);
            next.files.get_mut(write.sequence).frames.extend(frames);
            up.current = Some(write.sequence);
            next.ghost.acknowledge(&write);
        })
    }

    fn directory(&self, up: &Up, steps: &mut Steps) {
        if self.files.0.iter().any(|file| file.name == Name::Vanishing) {
            let mut next = self.clone();
            next.files.sync_dir();
            steps.push((Step::SyncDirectory, next));
        }
        let wants_begin = up.current.is_none() || self.left.rolls > 0 || self.left.cuts > 0;
        if up.next.is_none() && up.write.is_none() && wants_begin {
            steps.push((Step::MakeFile, self.make_file()));
        }
        if self.files.0.iter().any(|file| file.name == Name::Vanishing) {
            return;
        }
        if let Some(&sequence) = self.hidden().first() {
            let mut next = self.clone();
            next.files.get_mut(sequence).name = Name::Vanishing;
            steps.push((Step::Unlink(sequence), next));
        } else if self.left.retentions > 0 && up.write.is_none() {
            steps.extend(self.retain());
        }
    }

    fn make_file(&self) -> World {
        self.with_up(|next, up| {
            let highest = next.files.0.last().map_or(0, |file| file.sequence);
            up.next = Some(highest + 1);
            next.files.0.push(File {
                sequence: highest + 1,
                name: Name::Appearing,
                identity_rotten: false,
                frames: Vec::new(),
            });
        })
    }

    /// Files of which nothing is visible, newest first.
    fn hidden(&self) -> Vec<u8> {
        let mut hidden = Vec::new();
        let (mut begun, mut based, mut through) = (false, false, u8::MAX);
        for file in self.files.visible().rev() {
            match file.begin().filter(|_| !file.identity_rotten) {
                Some(begin) if !based && begin.first <= through => {
                    begun = true;
                    based |= begin.reason == Reason::Base;
                    if begin.reason == Reason::Cut {
                        through = begin.first - 1;
                    }
                }
                None if !begun => {}
                _ => hidden.push(file.sequence),
            }
        }
        hidden
    }

    /// Retention takes the oldest file.
    fn retain(&self) -> Option<(Step, World)> {
        let mut begun = self.files.visible().filter(|file| file.begin().is_some());
        let oldest = begun.next()?.sequence;
        let begin = begun.next()?.begin()?;
        let mut next = self.clone();
        next.left.retentions -= 1;
        next.files.get_mut(oldest).name = Name::Vanishing;
        next.ghost.retain(begin.first - 1);
        Some((Step::Retain(oldest), next))
    }

    fn journal_writes(&self, up: &Up, subject: &Subject, steps: &mut Steps) {
        if let Some(unit) = up.unit_in_flight {
            let next = self.with_up(|next, up| {
                let second = match subject.slip {
                    Some(Slip::PromiseInOneCopy) => Left::Nothing,
                    _ => Left::Whole,
                };
                next.journal.write(&unit, [Left::Whole, second]);
                up.unit = unit;
                up.unit_in_flight = None;
                next.ghost.promised = unit.record.promise;
            });
            steps.push((Step::JournalWritten, next));
            return;
        }
        let position = up.current.map(|sequence| (sequence, self.ghost.last()));
        if self.left.pushes > 0 && position.is_some() && position != up.unit.record.position {
            let next = self.with_up(|next, up| {
                next.left.pushes -= 1;
                up.write_unit(|record| record.position = position);
            });
            steps.push((Step::PushPosition, next));
        }
        if self.left.votes > 0 {
            let next = self.with_up(|next, up| {
                next.left.votes -= 1;
                up.write_unit(|record| record.promise += 1);
                next.ghost.asked = up.unit.record.promise + 1;
            });
            steps.push((Step::Promise, next));
        }
    }

    /// A replica whose quarantine reaches its log's end: a leader sends again what is missing,
    /// behind a `cut` at the first hole or a base; then it rejoins.
    fn mend(&self, up: &Up, subject: &Subject, steps: &mut Steps) -> Result<(), Violation> {
        if up.write.is_some() {
            steps.push((Step::Written, self.mended()));
            return Ok(());
        }
        if let Some(unit) = up.unit_in_flight {
            let next = self.with_up(|next, up| {
                next.journal.write(&unit, [Left::Whole; 2]);
                up.unit = unit;
                up.unit_in_flight = None;
            });
            steps.push((Step::JournalWritten, next));
            return Ok(());
        }
        let found = self.judge(&up.unit, subject);
        if found.quarantine.is_none() && self.ghost.is_held_by(&found) {
            let mut next = self.with_up(|_, up| up.write_unit(|record| record.no_vote = false));
            next.ghost.adopt(&found)?;
            steps.push((Step::Rejoin, next));
            return Ok(());
        }
        let Some(sequence) = up.next else {
            steps.push((Step::MakeFile, self.make_file()));
            return Ok(());
        };
        let write = self.missing(sequence, &found);
        let first = write.begin.expect("a mend begins a file").first;
        let next = self.with_up(|next, up| {
            next.files.sync_dir();
            up.next = None;
            up.write = Some(write);
        });
        steps.push((Step::Mend(first), next));
        Ok(())
    }

    /// What a leader sends again.
    fn missing(&self, sequence: u8, found: &Recovered) -> Write {
        let good = found.good_through().min(self.ghost.last());
        let keeps = good > self.ghost.start && self.ghost.agrees(found, good);
        let before = if keeps { good } else { self.ghost.start };
        let acked = self.ghost.log.iter().zip(self.ghost.start + 1..);
        let entries = acked
            .filter(|(_, index)| *index > before)
            .map(|(acked, index)| Entry {
                index,
                term: acked.term,
                chain: acked.chain,
                claim: None,
            });
        Write {
            sequence,
            begin: Some(Begin {
                reason: if keeps { Reason::Cut } else { Reason::Base },
                first: before + 1,
                chain: self.ghost.chain_at(before),
            }),
            entries: entries.collect(),
        }
    }

    fn mended(&self) -> World {
        self.with_up(|next, up| {
            let write = up.write.take().expect("a write is in flight");
            let frames = write.items().into_iter().map(Frame::durable);
            next.files.get_mut(write.sequence).frames.extend(frames);
            up.current = Some(write.sequence);
        })
    }
}

/// Crashes, rot and recovery.
impl World {
    /// The power is cut, or the process killed.
    fn crashes(&self, steps: &mut Steps) {
        if self.left.crashes == 0 {
            return;
        }
        let (write, unit) = match &self.run {
            Run::Up(up) => (up.write.as_ref(), up.unit_in_flight.as_ref()),
            Run::Checkpointing(unit) => (None, Some(unit)),
            _ => (None, None),
        };
        let mut down = self.clone();
        down.run = Run::Down;
        down.left.crashes -= 1;
        if let Some(write) = write {
            down.ghost.interrupt(write);
        }
        let journals = match &self.run {
            Run::Mirroring(unit) => self.journal.half_mirrored(unit),
            _ => torn_journals(&self.journal, unit),
        };
        for journal in journals {
            down.journal = journal;
            for volatile in [false, true] {
                for files in torn_files(&self.files, write, volatile) {
                    let disks = match volatile {
                        true => vec![files],
                        false => files.power_cuts(),
                    };
                    for files in disks {
                        let mut next = down.clone();
                        next.files = files;
                        steps.push((Step::Crash, next));
                    }
                }
            }
        }
    }

    fn rots(&self, steps: &mut Steps) {
        if self.left.rots == 0 {
            return;
        }
        let mut rotten = self.clone();
        rotten.left.rots -= 1;
        for (at, file) in self.files.0.iter().enumerate() {
            for rot in file.rots() {
                let mut next = rotten.clone();
                next.files.0[at].rot(rot);
                next.ghost.log_rotten = true;
                steps.push((Step::RotFile(file.sequence, rot), next));
            }
        }
        for journal in self.journal.rots() {
            let mut next = rotten.clone();
            next.journal = journal;
            next.ghost.journal_rotten = true;
            steps.push((Step::RotJournal, next));
        }
    }

    fn judge(&self, unit: &Unit, subject: &Subject) -> Recovered {
        let view = self.files.view(unit.record.position);
        let verdict = classify(&view, &subject.rule);
        Recovered::new(&self.files, &verdict)
    }

    fn recover(&self, subject: &Subject) -> Result<World, Violation> {
        let mut next = self.clone();
        let Some(unit) = self.journal.read() else {
            spec::check_lost(&self.ghost)?;
            next.run = Run::Refusing;
            return Ok(next);
        };
        let found = self.judge(&unit, subject);
        spec::check(self, &unit, &found)?;
        next.run = Run::Judged(unit);
        Ok(next)
    }

    fn sync(&self, unit: Unit, subject: &Subject) -> World {
        let mut next = self.clone();
        if subject.slip != Some(Slip::TailNotSynced) {
            next.files.sync();
        }
        next.run = Run::Synced(unit);
        next
    }

    /// A checkpoint of all that was recovered: to act on it is the step after.
    fn checkpoint(&self, unit: Unit, subject: &Subject) -> Result<(Step, World), Violation> {
        let mut next = self.clone();
        if subject.slip == Some(Slip::NoFreshCheckpoint) {
            return Ok((Step::Act, next.act(unit, subject)?));
        }
        let found = self.judge(&unit, subject);
        let mut record: Record = unit.record;
        record.no_vote |= found.reaches_end;
        if found.quarantine.is_none() {
            record.position = found.top.map(|top| (top, found.last)).or(record.position);
        }
        next.run = Run::Checkpointing(unit.checkpoint(record));
        Ok((Step::Checkpoint, next))
    }

    /// What was recovered counts from now on.
    fn act(mut self, unit: Unit, subject: &Subject) -> Result<World, Violation> {
        let found = self.judge(&unit, subject);
        self.ghost.promised = unit.record.promise;
        self.ghost.asked = unit.record.promise;
        let mut up = Up::new(unit);
        if !unit.record.no_vote && !found.reaches_end {
            self.ghost.adopt(&found)?;
            if subject.slip == Some(Slip::AppendsToRecoveredTail) {
                up.current = found.top;
            }
        }
        up.unit.record.no_vote |= found.reaches_end;
        self.run = Run::Up(up);
        Ok(self)
    }
}

impl Up {
    fn new(unit: Unit) -> Up {
        Up {
            current: None,
            next: None,
            write: None,
            unit,
            unit_in_flight: None,
        }
    }

    fn write_unit(&mut self, change: impl FnOnce(&mut Record)) {
        let mut record = self.unit.record;
        change(&mut record);
        self.unit_in_flight = Some(self.unit.next(record));
    }
}

/// The journals that a crash may leave.
fn torn_journals(journal: &Journal, unit: Option<&Unit>) -> Vec<Journal> {
    let Some(unit) = unit else {
        return vec![journal.clone()];
    };
    let outcomes = [Left::Nothing, Left::Torn, Left::Whole];
    let pairs = outcomes
        .iter()
        .flat_map(|&a| outcomes.iter().map(move |&b| [a, b]));
    pairs
        .map(|left| {
            let mut torn = journal.clone();
            torn.write(unit, left);
            torn
        })
        .collect()
}

/// The files with any subset of the write in flight.
fn torn_files(files: &Files, write: Option<&Write>, volatile: bool) -> Vec<Files> {
    let Some(write) = write else {
        return vec![files.clone()];
    };
    let items = write.items();
    let ways = 3usize.pow(u32::try_from(items.len()).expect("few frames"));
    // What a killed process wrote is in the page cache: the power cut after it tears it.
    let first = if volatile { ways - 1 } else { 0 };
    (first..ways)
        .map(|way| {
            let cells = cells(way, items.len());
            let mut torn = files.clone();
            let file = torn.get_mut(write.sequence);
            *file = file.torn(&items, &cells, volatile);
            torn
        })
        .collect()
}

fn cells(way: usize, count: usize) -> Vec<Cell> {
    let digits = (0..u32::try_from(count).expect("few frames")).map(|at| way / 3usize.pow(at) % 3);
    digits
        .map(|digit| match digit {
            0 => Cell::Gone,
            1 => Cell::HeaderOnly,
            _ => Cell::Whole,
        })
        .collect()
}

impl Acked {
    pub(super) fn of(entry: &Entry, file: u8) -> Acked {
        Acked {
            term: entry.term,
            chain: entry.chain,
            file,
        }
    }
}

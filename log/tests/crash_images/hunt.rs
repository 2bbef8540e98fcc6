//! Histories, at every step of which the power is cut in every way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use highwater_log::GroupId;
use highwater_log::storage::{Faults, Keep, MemoryDisk, SECTOR};

use super::moment::{Bound, drawn, images};
use super::rot::{rot_journal, rot_log};
use super::scripts::{SCRIPTS, Step};
use super::start::{Logs, assert_same, judge, sound_start};
use crate::common::model::ModelGroup;
use crate::common::open_with;
use crate::common::power::PowerFails;
use crate::common::world::{GROUPS, World};

/// Steps of a random history.
const STEPS: usize = 400;

/// How many operations of a recovery happen at most before the power fails in it.
const RECOVERY_STEPS_MAX: usize = 80;

/// What was done, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Histories that ran to their end.
    pub(crate) histories: u64,
    /// Moments at which the power was cut.
    pub(crate) moments: u64,
    /// Images that were judged, those that had been seen before among them.
    pub(crate) judged: u64,
    /// Starts that were interrupted by another power cut.
    pub(crate) recoveries_cut: u64,
    /// Logs that were written to again after the crash.
    pub(crate) went_on: u64,
    /// Rotten sectors of logs, below what was durable.
    pub(crate) rotten_sectors: u64,
    /// Rotten units of journals.
    pub(crate) rotten_units: u64,
}

/// A search for an image that opens to something else than the contract allows. It panics when it
/// has found one.
pub(crate) struct Hunt {
    bound: Bound,
    rng: Rng,
    /// Fingerprints of all images that were opened.
    distinct: BTreeSet<u64>,
    /// What was found on the images of the present history.
    known: BTreeMap<u64, Logs>,
    pub(crate) counts: Counts,
}

impl Hunt {
    pub(crate) fn new(bound: Bound) -> Hunt {
        Hunt {
            bound,
            rng: Rng::with_seed(0),
            distinct: BTreeSet::new(),
            known: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// How many images were opened that differ from one another.
    pub(crate) fn distinct(&self) -> usize {
        self.distinct.len()
    }

    /// A history by chance, on a disk that is slow and overtakes itself.
    pub(crate) fn random(&mut self, seed: u64) {
        let faults = Faults {
            delay_max: Duration::from_millis(20),
            ..Faults::default()
        };
        self.rng = Rng::with_seed(seed);
        let mut world = World::new(seed, faults);
        for step in 0..STEPS {
            world.step();
            self.moment(&world, &format!("seed {seed}, step {step}"));
        }
        self.end();
    }

    /// Each of the scripted histories.
    pub(crate) fn scripted(&mut self) {
        for (nth, script) in SCRIPTS.iter().enumerate() {
            self.rng = Rng::with_seed(nth as u64);
            let mut world = World::new(nth as u64, Faults::default());
            for (at, step) in script.iter().enumerate() {
                step.stage(&mut world);
                if *step != Step::Hold {
                    self.settle(&mut world, &format!("script {nth}, step {at} ({step:?})"));
                }
            }
            self.end();
        }
    }

    /// Turns until nothing is left to do; between what a flush begins and what a poll completes
    /// the power is cut.
    fn settle(&mut self, world: &mut World, context: &str) {
        for turn in 0..1_000 {
            let node = world.node();
            let now = node.now;
            node.store.flush(now);
            self.moment(world, &format!("{context}, turn {turn}"));
            world.turn();
            if !world.node().store.is_busy() {
                self.moment(world, &format!("{context}, at rest"));
                return;
            }
        }
        panic!("{context}: the store does not come to rest");
    }

    /// A history is over: the next one starts on another disk.
    pub(crate) fn end(&mut self) {
        self.known.clear();
        self.counts.histories += 1;
    }

    fn moment(&mut self, world: &World, context: &str) {
        self.counts.moments += 1;
        let mut rng = self.rng.fork();
        images(&world.disk, self.bound, &mut rng, |image| {
            self.look(&image, &world.model, context);
        });
        self.process_dies(&world.disk, &world.model, context);
    }

    /// An image that was seen before is judged again, by what has been acknowledged since.
    fn look(&mut self, image: &MemoryDisk, model: &BTreeMap<GroupId, ModelGroup>, context: &str) {
        self.counts.judged += 1;
        let fingerprint = image.fingerprint();
        let context = format!("{context}, image {fingerprint:016x}");
        if let Some(logs) = self.known.get(&fingerprint) {
            return judge(model, logs, &context);
        }
        self.distinct.insert(fingerprint);
        let crashed = image.fork();
        let (node, logs) = sound_start(image, &context);
        judge(model, &logs, &context);
        drop(node);
        image.power_cut_by_chance(&mut self.rng);
        let (_, again) = sound_start(image, &context);
        assert_same(&logs, &again, &context);
        match self.rng.u8(..16) {
            0..=1 => self.recovery_is_cut(&crashed, &logs, &context),
            2..=3 => self.goes_on(image, &logs, &context),
            4..=6 => {
                let rotten = rot_log(&crashed, &logs, &mut self.rng, &context);
                self.counts.rotten_sectors += u64::from(rotten);
            }
            7 => self.journal_rots(&crashed, model, &context),
            _ => {}
        }
        self.known.insert(fingerprint, logs);
    }

    /// The process dies and the power stays: the next life reads what was never synced. What it
    /// recovers from that is durable.
    fn process_dies(
        &mut self,
        disk: &MemoryDisk,
        model: &BTreeMap<GroupId, ModelGroup>,
        context: &str,
    ) {
        let image = disk.fork();
        image.kill(|_| Keep::Everything);
        let context = format!("{context}, the process dies");
        let (node, logs) = sound_start(&image, &context);
        judge(model, &logs, &context);
        drop(node);
        image.power_cut(|_| Keep::Nothing);
        let (_, again) = sound_start(&image, &context);
        assert_same(&logs, &again, &context);
    }

    /// The power is cut again while the node starts.
    fn recovery_is_cut(&mut self, crashed: &MemoryDisk, logs: &Logs, context: &str) {
        let image = crashed.fork();
        let operations = self.rng.usize(..RECOVERY_STEPS_MAX);
        // It may have come to its end before.
        let opened = open_with(PowerFails::new(&image, operations), crate::common::config());
        drop(opened);
        let image = drawn(&image, SECTOR, &mut self.rng);
        self.distinct.insert(image.fingerprint());
        let context = format!("{context}, cut again after {operations} operations");
        let (_, again) = sound_start(&image, &context);
        assert_same(logs, &again, &context);
        self.counts.recoveries_cut += 1;
    }

    /// The node goes on from there, and what it acknowledges then survives the next power cut.
    fn goes_on(&mut self, image: &MemoryDisk, logs: &Logs, context: &str) {
        let context = format!("{context}, goes on");
        let (mut node, _) = sound_start(image, &context);
        for group in GROUPS.iter().filter(|group| logs.contains_key(group)) {
            let term = logs[group].group.hard_state.term.0 + 1;
            node.promise(*group, term);
            node.append_sized(*group, term, 90);
            node.settle();
            node.append_sized(*group, term, 1_200);
        }
        node.settle();
        drop(node);
        image.power_cut(|_| Keep::Nothing);
        let (_, again) = sound_start(image, &context);
        for (group, found) in logs.iter().filter(|(group, _)| GROUPS.contains(group)) {
            let mut ids = found.ids.clone();
            let term = again[group].group.hard_state.term;
            assert_eq!(term.0, found.group.hard_state.term.0 + 1, "{context}");
            for ahead in 1..=2 {
                let index = found.group.last.index.advance(ahead);
                ids.push(highwater_log::EntryId { index, term });
            }
            assert_eq!(again[group].ids, ids, "{context}: what was acknowledged");
        }
        self.counts.went_on += 1;
    }

    fn journal_rots(
        &mut self,
        crashed: &MemoryDisk,
        model: &BTreeMap<GroupId, ModelGroup>,
        context: &str,
    ) {
        let context = format!("{context}, a unit of the journal is rotten");
        let rotten = rot_journal(crashed, &mut self.rng, |logs, lost| {
            if !lost {
                judge(model, logs, &context);
            }
        });
        self.counts.rotten_units += u64::from(rotten);
    }
}

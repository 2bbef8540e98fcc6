//! Does what the faults say, when they say it, and keeps a log of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, POLL};
use super::fault::{Fault, Step};
use super::kind::Kind;

/// How often it is told how it goes.
const PROGRESS: Duration = Duration::from_secs(10);

/// What is still to be done, and what was.
#[derive(Debug)]
pub(crate) struct Injector {
    faults: Vec<Fault>,
    /// When, which fault, which of its steps; the next last.
    steps: Vec<(Duration, usize, usize)>,
    log: File,
    begun: BTreeMap<usize, Kind>,
    /// What went wrong that is no client's matter.
    pub(crate) wrong: Vec<String>,
}

impl Injector {
    /// For these faults; what is done is written to a file.
    pub(crate) fn new(faults: Vec<Fault>, log: &Path) -> anyhow::Result<Self> {
        let steps = faults.iter().enumerate();
        let mut steps: Vec<_> = steps
            .flat_map(|(fault, it)| {
                let steps = it.steps.iter().enumerate();
                steps.map(move |(step, (at, _))| (*at, fault, step))
            })
            .collect();
        steps.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self {
            faults,
            steps,
            log: File::create(log)?,
            begun: BTreeMap::new(),
            wrong: Vec::new(),
        })
    }

    /// Does it all, as long as it lasts; `tell` is called every few seconds, and ends it by
    /// saying so.
    pub(crate) fn run(
        &mut self,
        cluster: &mut Cluster,
        lasts: Duration,
        mut tell: impl FnMut(Duration, &Self, &mut Cluster) -> bool,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut told = Duration::ZERO;
        while begin.elapsed() < lasts {
            while self
                .steps
                .last()
                .is_some_and(|(at, ..)| *at <= begin.elapsed())
            {
                self.step(begin, cluster)?;
            }
            for end in cluster.ended() {
                self.write(begin.elapsed(), &end)?;
                self.wrong.push(end);
            }
            if begin.elapsed() >= told + PROGRESS {
                told = begin.elapsed();
                if !tell(told, self, cluster) {
                    return Ok(());
                }
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn step(&mut self, begin: Instant, cluster: &mut Cluster) -> anyhow::Result<()> {
        let Some((_, fault, number)) = self.steps.pop() else {
            return Ok(());
        };
        let step: Step = self.faults[fault].steps[number].1.clone();
        if number == 0 {
            let what = self.faults[fault].what.clone();
            self.write(begin.elapsed(), &format!("fault {fault}: {what}"))?;
        }
        let done = cluster.apply(fault, &step);
        let outcome = match &done {
            Ok(()) => String::new(),
            Err(error) => format!(": FAILED: {error:#}"),
        };
        self.write(
            begin.elapsed(),
            &format!("fault {fault}: {step:?}{outcome}"),
        )?;
        match done {
            Ok(()) if number == 0 => {
                self.begun.insert(fault, self.faults[fault].kind);
            }
            Ok(()) => {}
            Err(error) => {
                let what = &self.faults[fault].what;
                self.wrong.push(format!("{what}: {step:?}: {error:#}"));
            }
        }
        Ok(())
    }

    fn write(&mut self, at: Duration, what: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.log, "{:9.3} {what}", at.as_secs_f64())?)
    }

    /// How many faults of each kind there were.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        for kind in self.begun.values() {
            *counts.entry(*kind).or_default() += 1;
        }
        counts
    }

    /// How many faults there were.
    pub(crate) fn count(&self) -> usize {
        self.begun.len()
    }
}

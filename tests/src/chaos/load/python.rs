//! Clients of others: processes of `tests/clients/chaos_client.py`, which tell line by line what
//! they are told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use highwater_engine::testing::history::ReadRecord;

use super::Shared;
use crate::chaos::net::Namespace;
use crate::chaos::recorder::{Recorder, first_value};

/// How often it is looked whether the client is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// confluent-kafka.
    Librdkafka,
    /// kafka-python.
    KafkaPython,
}

impl Library {
    const fn name(self) -> &'static str {
        match self {
            Library::Librdkafka => "librdkafka",
            Library::KafkaPython => "kafka-python",
        }
    }
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes.
    Produce,
    /// Reads.
    Consume,
}

/// A client of others.
pub(super) struct Foreign {
    pub(super) client: u64,
    pub(super) role: Role,
    pub(super) library: Library,
    /// Records a second.
    pub(super) rate: u32,
    pub(super) python: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) place: Arc<Namespace>,
}

/// The one that `.ci/run` makes.
const CI_PYTHON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/ci/python/bin/python"
);

/// A Python that has both libraries: the given one, that of `.ci/run`, or the system's.
pub(crate) fn find_python(given: Option<&Path>) -> Option<PathBuf> {
    let candidates = match given {
        Some(given) => vec![given.to_owned()],
        None => vec![Path::new(CI_PYTHON).to_owned(), "python3".into()],
    };
    let has_both = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import confluent_kafka, kafka"]);
        command.stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(has_both)
}

impl Foreign {
    pub(super) fn run(self) -> anyhow::Result<Vec<PathBuf>> {
        let mut process = self.start()?;
        let output = process.stdout.take().context("its output")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let watch = self.watch(&mut process, &is_over);
        // Both libraries are idempotent as they are configured.
        let mut recorder = self.shared.recorder(self.client, true);
        let mut told = Ok(());
        for line in BufReader::new(output).lines() {
            let line = line?;
            told = self
                .take(&line, &mut recorder)
                .with_context(|| line.clone());
            if told.is_err() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        // The watch does not panic.
        let _ = watch.join();
        if told.is_err() {
            let _ = process.kill();
        }
        let status = process.wait()?;
        told?;
        anyhow::ensure!(
            status.success(),
            "{} ended with {status}",
            self.library.name()
        );
        recorder.finish()
    }

    fn start(&self) -> anyhow::Result<Child> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/chaos_client.py");
        let log = self
            .shared
            .folder
            .join(format!("client-{}.log", self.client));
        let partitions: Vec<String> = self
            .shared
            .partitions
            .iter()
            .map(|it| it.to_string())
            .collect();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.python)
            .arg(script)
            .arg(match self.role {
                Role::Produce => "produce",
                Role::Consume => "consume",
            })
            .args(["--library", self.library.name()])
            .args(["--bootstrap", &self.shared.reach.bootstrap])
            .args(["--partitions", &partitions.join(",")])
            .args(["--first-value", &first_value(self.client).to_string()])
            .args(["--record-bytes", &self.shared.record_bytes.to_string()])
            .args(["--rate", &self.rate.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?);
        let process = self.place.inside(move || command.spawn());
        process.context("setpriv and Python")
    }

    /// Closes the client's input when it is to end.
    fn watch(&self, process: &mut Child, is_over: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
        let input = process.stdin.take();
        let (shared, role, is_over) = (Arc::clone(&self.shared), self.role, Arc::clone(is_over));
        std::thread::spawn(move || {
            let is_done = || match role {
                Role::Produce => shared.is_sent.load(Ordering::Relaxed),
                Role::Consume => shared.is_read.load(Ordering::Relaxed),
            };
            while !is_done() && !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(GLANCE);
            }
            drop(input);
        })
    }

    /// A line: what happened, when, and with what (see the script).
    fn take(&self, line: &str, recorder: &mut Recorder) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["S", at, partition, value] => {
                recorder.sends(at.parse()?, self.place_of(partition)?, value.parse()?);
                Ok(())
            }
            ["A", at, partition, value, offset] => {
                let at = at.parse()?;
                self.shared.acks.add(self.place_of(partition)?, at);
                recorder.acked(at, value.parse()?, offset.parse()?)
            }
            ["U", at, value] => recorder.unknown(at.parse()?, value.parse()?),
            ["E", _, partition] => {
                recorder.begins_anew(self.place_of(partition)?);
                Ok(())
            }
            ["R", at, partition, from, ref records @ ..] => {
                let records = records.iter().map(|it| read_record(it));
                let records = records.collect::<anyhow::Result<_>>()?;
                recorder.polled(
                    at.parse()?,
                    self.place_of(partition)?,
                    from.parse()?,
                    records,
                )
            }
            _ => bail!("a line that says nothing"),
        }
    }

    fn place_of(&self, partition: &str) -> anyhow::Result<usize> {
        let place = partition.parse()?;
        anyhow::ensure!(place < self.shared.partitions.len(), "no such partition");
        Ok(place)
    }
}

/// `OFFSET:VALUE`.
fn read_record(text: &str) -> anyhow::Result<ReadRecord> {
    let (offset, value) = text.split_once(':').context("no record")?;
    Ok(ReadRecord {
        offset: offset.parse()?,
        value: value.parse()?,
    })
}

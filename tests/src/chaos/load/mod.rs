//! Clients that write and read as long as they may, and write down what they are told.

mod acks;
mod consumer;
mod lister;
mod producer;
mod python;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use highwater_client::{Client, ClientBuilder, TopicName};
use highwater_engine::testing::history::Partition;

use super::net::Namespace;
use super::recorder::Recorder;
use super::scenario::LoadPlan;

pub(crate) use acks::{Acks, Outages};
pub(crate) use python::{Library, find_python};

/// How long a broker may take to connect or answer before a client gives the connection up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How clients reach the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Addresses of all nodes.
    pub(crate) bootstrap: String,
    /// Whom to trust over QUIC.
    pub(crate) ca: PathBuf,
}

impl Reach {
    /// A client of ours, over QUIC or TCP.
    pub(crate) fn client(&self, quic: bool) -> ClientBuilder {
        let builder = Client::builder()
            .bootstrap(&self.bootstrap)
            .connect_timeout(CONNECT_TIMEOUT)
            .request_timeout(REQUEST_TIMEOUT);
        match quic {
            true => builder.quic(&self.ca),
            false => builder.tcp(),
        }
    }
}

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// How they reach the cluster.
    pub(crate) reach: Reach,
    /// All partitions, in the order of their numbers.
    pub(crate) partitions: Vec<Partition>,
    /// What was acknowledged.
    pub(crate) acks: Acks,
    /// How far each partition is known to have been read by every consumer.
    pub(crate) reads: Vec<Reading>,
    /// Producers are to end.
    pub(crate) is_sent: AtomicBool,
    /// Consumers and askers are to end.
    pub(crate) is_read: AtomicBool,
    /// Where lines of histories go.
    pub(crate) folder: PathBuf,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
}

/// One consumer's positions, by partition.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    positions: Vec<AtomicU64>,
}

impl Reading {
    fn new(partitions: usize) -> Self {
        let positions = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        Self { positions }
    }

    fn reached(&self, partition: usize, offset: i64) {
        let offset = u64::try_from(offset).unwrap_or_default();
        self.positions[partition].fetch_max(offset, Ordering::Relaxed);
    }

    /// The first offset that it has not read.
    pub(crate) fn position(&self, partition: usize) -> u64 {
        self.positions[partition].load(Ordering::Relaxed)
    }
}

impl Shared {
    fn recorder(&self, client: u64, idempotent: bool) -> Recorder {
        Recorder::new(&self.folder, client, &self.partitions, idempotent)
    }

    fn place(&self, topic: &str, index: u32) -> Option<usize> {
        let index = i32::try_from(index).ok()?;
        let is_it = |it: &Partition| &*it.topic == topic && it.index == index;
        self.partitions.iter().position(is_it)
    }

    /// The text of a record: its value, and as much behind it as is wanted.
    fn text(&self, value: u64) -> String {
        let mut text = format!("{value}:");
        let missing = self.record_bytes.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', missing));
        text
    }
}

/// The value of a record's text; one that nobody has sent if it is not whole.
pub(crate) fn value_of(text: Option<&[u8]>) -> u64 {
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let parts = text.and_then(|text| text.split_once(':'));
    let is_whole = |rest: &str| rest.bytes().all(|byte| byte == b'x');
    let value = parts.filter(|(_, rest)| is_whole(rest));
    value
        .and_then(|(value, _)| value.parse().ok())
        .unwrap_or(u64::MAX)
}

/// A client on a thread; what it has written down comes at its end.
type Running = JoinHandle<anyhow::Result<Vec<PathBuf>>>;

/// All clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    producers: Vec<Running>,
    readers: Vec<Running>,
}

/// Where clients live.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Those of ours.
    pub(crate) ours: Arc<Namespace>,
    /// Those of others.
    pub(crate) others: Arc<Namespace>,
}

impl Load {
    /// Starts what the plan says. Without a Python of its own there are only our clients.
    pub(crate) fn start(
        plan: &LoadPlan,
        shared: Arc<Shared>,
        places: &Places,
        python: Option<&Path>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let mut load = Self {
            shared,
            producers: Vec::new(),
            readers: Vec::new(),
        };
        let libraries = libraries(plan, python.is_some());
        let all = plan.quic + plan.plain + u32::try_from(libraries.len())?;
        anyhow::ensure!(all > 0, "nobody writes");
        let rate = (plan.rate / all).max(1);
        for number in 0..plan.quic + plan.plain {
            let is_idempotent = number < plan.quic;
            load.produce(number, is_idempotent, rate, &places.ours, seed)?;
        }
        load.read(&places.ours)?;
        for (number, library) in (0..).zip(libraries) {
            let Some(python) = python else { continue };
            load.foreign(number, library, rate, python, &places.others)?;
        }
        Ok(load)
    }

    fn produce(
        &mut self,
        number: u32,
        is_idempotent: bool,
        rate: u32,
        place: &Arc<Namespace>,
        seed: u64,
    ) -> anyhow::Result<()> {
        let producer = producer::Producing {
            client: u64::from(number) + 1,
            is_idempotent,
            rate,
            seed: seed ^ u64::from(number),
            shared: Arc::clone(&self.shared),
        };
        let place = Arc::clone(place);
        let running = thread("chaos-producer", move || {
            place.enter()?;
            producer.run()
        })?;
        self.producers.push(running);
        Ok(())
    }

    /// Two consumers of ours, by QUIC and by TCP, and one who asks for ends of logs.
    fn read(&mut self, place: &Arc<Namespace>) -> anyhow::Result<()> {
        for (number, quic) in [(0, true), (1, false)] {
            let (shared, place) = (Arc::clone(&self.shared), Arc::clone(place));
            self.readers.push(thread("chaos-consumer", move || {
                place.enter()?;
                consumer::run(FIRST_CONSUMER + number, quic, &shared)
            })?);
        }
        let (shared, place) = (Arc::clone(&self.shared), Arc::clone(place));
        self.readers.push(thread("chaos-lister", move || {
            place.enter()?;
            lister::run(LISTER, &shared)
        })?);
        Ok(())
    }

    /// A producer and a consumer of another library.
    fn foreign(
        &mut self,
        number: u64,
        library: Library,
        rate: u32,
        python: &Path,
        place: &Arc<Namespace>,
    ) -> anyhow::Result<()> {
        for role in [python::Role::Produce, python::Role::Consume] {
            let client = python::Foreign {
                client: FIRST_FOREIGN + 2 * number + u64::from(role == python::Role::Consume),
                role,
                library,
                rate,
                python: python.to_owned(),
                shared: Arc::clone(&self.shared),
                place: Arc::clone(place),
            };
            let running = thread("chaos-foreign", move || client.run())?;
            match role {
                python::Role::Produce => self.producers.push(running),
                python::Role::Consume => self.readers.push(running),
            }
        }
        Ok(())
    }

    /// What all clients share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// No more is sent; waits until each record has its end. Gives what was written down.
    pub(crate) fn end_producers(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        self.shared.is_sent.store(true, Ordering::Relaxed);
        join(std::mem::take(&mut self.producers))
    }

    /// No more is read. Gives what was written down.
    pub(crate) fn end_readers(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        self.shared.is_read.store(true, Ordering::Relaxed);
        join(std::mem::take(&mut self.readers))
    }

    /// A client that has ended although nobody told it to.
    pub(crate) fn has_failed(&self) -> bool {
        let mut all = self.producers.iter().chain(&self.readers);
        all.any(JoinHandle::is_finished)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_sent.store(true, Ordering::Relaxed);
        self.shared.is_read.store(true, Ordering::Relaxed);
    }
}

/// Numbers of clients: producers of ours begin at 1.
const FIRST_CONSUMER: u64 = 100;
const LISTER: u64 = 110;
const FIRST_FOREIGN: u64 = 200;

/// Consumers of ours, whose positions are known.
pub(crate) const CONSUMERS: usize = 2;

/// Who of others writes.
fn libraries(plan: &LoadPlan, are_there: bool) -> Vec<Library> {
    let of = |library, count: u32| (0..if are_there { count } else { 0 }).map(move |_| library);
    let librdkafka = of(Library::Librdkafka, plan.librdkafka);
    librdkafka
        .chain(of(Library::KafkaPython, plan.kafka_python))
        .collect()
}

/// The positions of consumers that have read nothing.
pub(crate) fn readings(partitions: usize) -> Vec<Reading> {
    (0..CONSUMERS).map(|_| Reading::new(partitions)).collect()
}

fn thread(
    name: &str,
    run: impl FnOnce() -> anyhow::Result<Vec<PathBuf>> + Send + 'static,
) -> anyhow::Result<Running> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).context("a thread")
}

fn join(clients: Vec<Running>) -> anyhow::Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    for client in clients {
        let written = client.join();
        runs.extend(written.map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok(runs)
}

fn topic_name(partition: &Partition) -> TopicName {
    TopicName::new(&partition.topic).expect("we made it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_from_a_whole_text_only() {
        assert_eq!(value_of(Some(b"17:xxx")), 17);
        assert_eq!(value_of(Some(b"17:")), 17);
        for bad in [&b"17"[..], b":xx", b"17:xyx", b"\xff:x"] {
            assert_eq!(value_of(Some(bad)), u64::MAX);
        }
        assert_eq!(value_of(None), u64::MAX);
    }
}

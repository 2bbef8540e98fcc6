//! A steady load of numbered records, and whether what was acknowledged is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use highwater_client::{
    ClientBuilder, Delivery, Record, StartAt, TopicName, TopicPartition, blocking,
};

use super::wait_for;

/// Records that wait for their acknowledgement at most.
const OUTSTANDING_MAX: usize = 200;

/// Between two rounds of a record for each partition.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a consumer may be silent although there is more to read.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Bytes behind a record's number, at most.
const FILLING_MAX: u64 = 600;

/// A record that the cluster has promised to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Where it is.
    pub partition: u32,
    /// Where it is there.
    pub offset: u64,
    /// Which it is: counted from 0 in each partition.
    pub number: u64,
}

/// What became of the records so far.
#[derive(Debug, Default)]
struct Outcome {
    acknowledged: Vec<Acknowledged>,
    /// Why records were given up.
    failures: Vec<String>,
}

/// An idempotent producer with `acks=all`, on a thread of its own, which sends numbered records to
/// each partition until it is told to end.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    /// Nothing once it is waited for.
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    /// Begins.
    #[must_use]
    pub fn start(client: ClientBuilder, topic: &TopicName, partitions: u32) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let sending = Sending {
            topic: topic.clone(),
            partitions,
            is_over: is_over.clone(),
            outcome: outcome.clone(),
        };
        let thread = std::thread::spawn(move || sending.run(client));
        Load {
            is_over,
            outcome,
            thread: Some(thread),
        }
    }

    /// How many records were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        locked(&self.outcome).acknowledged.len()
    }

    /// The records that were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        locked(&self.outcome).acknowledged.clone()
    }

    /// Waits until so many more are acknowledged than there are now.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub fn wait_for_more(&self, more: usize) -> anyhow::Result<()> {
        let wanted = self.count() + more;
        wait_for("the load to go on", || {
            Ok((self.count() >= wanted).then_some(()))
        })
    }

    /// Sends no more, and waits until every record is acknowledged.
    ///
    /// # Errors
    ///
    /// If one was given up.
    ///
    /// # Panics
    ///
    /// If the producer did.
    pub fn finish(mut self) -> anyhow::Result<Vec<Acknowledged>> {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is waited for once")?;
        thread.join().expect("the producer does not panic")?;
        let outcome = std::mem::take(&mut *locked(&self.outcome));
        let failures = &outcome.failures;
        ensure!(failures.is_empty(), "given up: {failures:?}");
        Ok(outcome.acknowledged)
    }
}

impl Drop for Load {
    /// What was sent is given up in time.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn locked(outcome: &Mutex<Outcome>) -> MutexGuard<'_, Outcome> {
    outcome.lock().expect("nobody panics while holding it")
}

struct Sending {
    topic: TopicName,
    partitions: u32,
    is_over: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
}

impl Sending {
    fn run(&self, client: ClientBuilder) -> anyhow::Result<()> {
        let client = blocking::Client::connect(client)?;
        let producer = client.producer(|producer| producer);
        let mut waiting = VecDeque::new();
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            for partition in 0..self.partitions {
                let record = Record::new(&self.topic).partition(partition);
                let delivery = producer.send(record.value(value(number)))?;
                waiting.push_back((partition, number, delivery));
            }
            while waiting.len() > OUTSTANDING_MAX {
                self.take(&client, waiting.pop_front());
            }
            std::thread::sleep(PAUSE);
        }
        while !waiting.is_empty() {
            self.take(&client, waiting.pop_front());
        }
        Ok(())
    }

    fn take(&self, client: &blocking::Client, sent: Option<(u32, u64, Delivery)>) {
        let Some((partition, number, delivery)) = sent else {
            return;
        };
        let result = client.wait(delivery);
        let mut outcome = locked(&self.outcome);
        match result {
            Ok(receipt) => outcome.acknowledged.push(Acknowledged {
                partition,
                offset: receipt.offset.0,
                number,
            }),
            Err(error) => outcome
                .failures
                .push(format!("partition {partition}, {number}: {error}")),
        }
    }
}

/// A record's bytes: its number, and as many others as the number says.
fn value(number: u64) -> String {
    let filling = usize::try_from(number * 7 % FILLING_MAX).expect("a few hundred");
    format!("{number}:{}", "x".repeat(filling))
}

/// Reads each partition to its end: numbers ascend from 0 without a gap, and each record that was
/// acknowledged is at its offset, with its bytes. Gives how many records were read.
///
/// # Errors
///
/// If that is not so.
pub fn read_back(
    client: &blocking::Client,
    topic: &TopicName,
    acknowledged: &[Acknowledged],
) -> anyhow::Result<u64> {
    let mut promised: BTreeMap<u32, BTreeMap<u64, u64>> = BTreeMap::new();
    for it in acknowledged {
        let of = promised.entry(it.partition).or_default();
        let before = of.insert(it.offset, it.number);
        ensure!(before.is_none(), "two were promised one offset: {it:?}");
    }
    let mut read = 0;
    for (partition, mut promised) in promised {
        let at = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let last = promised.last_key_value();
        let end = last.map_or(0, |(offset, _)| offset + 1);
        let mut consumer = client.consumer(|consumer| consumer);
        consumer.assign(at.clone(), StartAt::Earliest)?;
        let mut next_offset = 0;
        for expected in 0.. {
            if next_offset >= end {
                break;
            }
            let record = consumer.recv_timeout(SILENCE_MAX)?;
            let record = record.with_context(|| format!("{at}: silence after {expected}"))?;
            let found = record.value.unwrap_or_default();
            ensure!(
                found == value(expected).as_bytes(),
                "{at}: another record at {} than the {expected}th",
                record.offset
            );
            if let Some(number) = promised.remove(&record.offset.0) {
                ensure!(
                    number == expected,
                    "{at}: {number} was promised, {expected} found"
                );
            }
            next_offset = record.offset.0 + 1;
            read += 1;
        }
        let lost: Vec<_> = promised.iter().take(5).collect();
        ensure!(lost.is_empty(), "{at}: acknowledged and lost: {lost:?}");
    }
    Ok(read)
}

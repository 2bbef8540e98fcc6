//! What became of the records: acknowledgements, how long they took, and for how long nobody led.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_bench::Latencies;
use highwater_client::{Delivery, Offset, ProduceError, TopicPartition};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Words;
use super::replicas::Victim;
use crate::exit::Failure;
use crate::print::Printer;
use crate::tally::Tally;

/// Records of one partition whose acknowledgement is waited for at once, at most. The producer's
/// own limit is one of bytes.
const WAITING_MAX: usize = 1 << 18;

/// The acknowledgements so far.
#[derive(Default)]
pub(super) struct Acks {
    seen: Arc<Mutex<Seen>>,
    /// How many were acknowledged, or failed.
    settled: watch::Sender<u64>,
    /// A task a partition: within one, they come in order, and none waits for another partition.
    collectors: Mutex<BTreeMap<TopicPartition, Collector>>,
}

struct Collector {
    expected: mpsc::Sender<Expected>,
    task: JoinHandle<()>,
}

struct Expected {
    sent: Instant,
    bytes: usize,
    delivery: Delivery,
}

#[derive(Default)]
struct Seen {
    tally: Tally,
    latencies: Latencies,
    started: Option<Instant>,
    last: Option<Instant>,
    failure: Option<ProduceError>,
    dropped: Option<Dropped>,
}

/// The partitions that lost their leader, and how long each had none.
struct Dropped {
    at: Instant,
    partitions: BTreeMap<TopicPartition, Option<Duration>>,
}

impl Acks {
    /// The load begins.
    pub(super) fn start(&self) {
        self.seen().started = Some(Instant::now());
    }

    /// A node that leads these partitions is about to be dropped.
    pub(super) fn dropped(&self, victim: &Victim) {
        let partitions = victim.led.iter().map(|partition| (partition.clone(), None));
        self.seen().dropped = Some(Dropped {
            at: Instant::now(),
            partitions: partitions.collect(),
        });
    }

    /// Waits until so many records are acknowledged.
    pub(super) async fn reached(&self, count: u64) {
        let mut settled = self.settled.subscribe();
        // The sender is here.
        let _ = settled.wait_for(|settled| *settled >= count).await;
    }

    /// Waits for a record's acknowledgement, elsewhere.
    pub(super) async fn expect(&self, sent: Instant, bytes: usize, delivery: Delivery) {
        let sender = self.collector(delivery.partition());
        let expected = Expected {
            sent,
            bytes,
            delivery,
        };
        // The other end lives as long as the runtime.
        let _ = sender.send(expected).await;
    }

    fn collector(&self, partition: &TopicPartition) -> mpsc::Sender<Expected> {
        let mut collectors = lock(&self.collectors);
        if let Some(collector) = collectors.get(partition) {
            return collector.expected.clone();
        }
        let (expected, arriving) = mpsc::channel(WAITING_MAX);
        let collector = Collector {
            expected: expected.clone(),
            task: tokio::spawn(collect(
                arriving,
                Arc::clone(&self.seen),
                self.settled.clone(),
            )),
        };
        collectors.insert(partition.clone(), collector);
        expected
    }

    /// Waits until all that was expected has come.
    ///
    /// # Errors
    /// The first record that was not acknowledged.
    pub(super) async fn settled(&self) -> Result<(), Failure> {
        let collectors = std::mem::take(&mut *lock(&self.collectors));
        for (_, Collector { expected, task }) in collectors {
            drop(expected);
            // A panic over there has told of itself.
            let _ = task.await;
        }
        match &self.seen().failure {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    /// How many records were acknowledged.
    pub(super) fn records(&self) -> u64 {
        self.seen().tally.records()
    }

    /// Where the partitions end.
    pub(super) fn ends(&self) -> BTreeMap<TopicPartition, Offset> {
        self.seen().tally.ends().collect()
    }

    /// Prints what was acknowledged, by partition and in all.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn report(&self, printer: Printer) -> Result<(), Failure> {
        let lines = {
            let seen = self.seen();
            let elapsed = seen.started.zip(seen.last).map(|(start, end)| end - start);
            seen.tally
                .lines("acknowledged", elapsed.unwrap_or_default())
        };
        for (text, object) in lines {
            printer.line(|| text, || object)?;
        }
        Ok(())
    }

    /// How long acknowledgements took, from the call that sent the record.
    pub(super) fn latencies(&self) -> Words {
        let found = self.seen().latencies.percentiles();
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        Words::new(
            format!(
                "Acknowledged after p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, at most {:.1} ms; \
                 each record by then on the disks of two nodes",
                ms(found.p50_us),
                ms(found.p99_us),
                ms(found.p999_us),
                ms(found.max_us)
            ),
            json!({ "event": "latency", "percentiles": found }),
        )
    }

    /// For how long the partitions of the dropped node acknowledged nothing new.
    pub(super) fn failover(&self) -> Words {
        let seen = self.seen();
        let dropped = seen.dropped.iter().flat_map(|dropped| &dropped.partitions);
        let longest = dropped.filter_map(|(_, after)| *after).max();
        let text = match longest {
            Some(longest) => format!(
                "Failover: others led its partitions and acknowledged new records after {:.2} s",
                longest.as_secs_f64()
            ),
            None => "Failover: nothing was sent to its partitions afterwards".to_owned(),
        };
        let seconds = longest.map(|longest| longest.as_secs_f64());
        Words::new(text, json!({ "event": "failover", "seconds": seconds }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Seen {
    fn acknowledged(&mut self, partition: &TopicPartition, sent: Instant) {
        let now = Instant::now();
        self.last = Some(now);
        self.latencies.record(now - sent);
        let Some(dropped) = self.dropped.as_mut().filter(|dropped| sent >= dropped.at) else {
            return;
        };
        if let Some(after) = dropped.partitions.get_mut(partition) {
            after.get_or_insert(now - dropped.at);
        }
    }
}

async fn collect(
    mut arriving: mpsc::Receiver<Expected>,
    seen: Arc<Mutex<Seen>>,
    settled: watch::Sender<u64>,
) {
    while let Some(expected) = arriving.recv().await {
        let outcome = expected.delivery.await;
        let mut seen = lock(&seen);
        match outcome {
            Ok(receipt) => {
                seen.acknowledged(&receipt.partition, expected.sent);
                let tally = &mut seen.tally;
                tally.add(&receipt.partition, receipt.offset, expected.bytes);
            }
            Err(error) => {
                seen.failure.get_or_insert(error);
            }
        }
        drop(seen);
        settled.send_modify(|settled| *settled += 1);
    }
}

/// Every change is one step, so what a panic leaves is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A steady load of numbered records, and the judgement of what became of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_client::{
    ClientBuilder, Delivery, ErrorCode, Producer, Record, StartAt, TopicName, TopicPartition,
    blocking,
};
use tokio::sync::mpsc;

/// How often each partition gets a record.
const INTERVAL: Duration = Duration::from_millis(4);

/// Bytes of a record's value, behind its number.
const FILLING: usize = 200;

/// How long a consumer may be silent although there is more to read.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A record that the cluster has promised to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) partition: u32,
    /// Counted from 0 in each partition.
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) sent_at: Instant,
    pub(crate) acknowledged_at: Instant,
}

/// An idempotent producer on a thread of its own, which sends numbered records to each
/// partition until it is told to end.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Outcome {
    acknowledged: Vec<Acknowledged>,
    failures: Vec<String>,
}

impl Load {
    pub(crate) fn start(client: ClientBuilder, topic: &TopicName, partitions: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let sending = Sending {
            topic: topic.clone(),
            partitions,
            is_over: is_over.clone(),
            outcome: outcome.clone(),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let client = client.connect().await.unwrap();
                sending.run(&client.producer().build()).await;
            });
        });
        Self {
            is_over,
            outcome,
            thread,
        }
    }

    /// The records that were acknowledged so far, from the one with this number on.
    pub(crate) fn acknowledged_since(&self, first: usize) -> Vec<Acknowledged> {
        self.outcome().acknowledged[first..].to_vec()
    }

    /// How many were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        self.outcome().acknowledged.len()
    }

    /// Sends no more, and waits until each record is acknowledged. None may have failed.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<Acknowledged> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer does not panic");
        let outcome = std::mem::take(&mut *self.outcome.lock().unwrap());
        let failures = &outcome.failures;
        assert!(
            failures.is_empty(),
            "{} records failed: {}",
            failures.len(),
            failures[0]
        );
        outcome.acknowledged
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap()
    }
}

struct Sending {
    topic: TopicName,
    partitions: u32,
    is_over: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
}

struct Sent {
    number: u64,
    at: Instant,
    delivery: Delivery,
}

impl Sending {
    async fn run(&self, producer: &Producer) {
        let collectors: Vec<_> = (0..self.partitions)
            .map(|partition| {
                let (sent, arriving) = mpsc::unbounded_channel();
                let task = collect(partition, arriving, self.outcome.clone());
                (sent, tokio::spawn(task))
            })
            .collect();
        let mut ticks = tokio::time::interval(INTERVAL);
        for number in 0.. {
            ticks.tick().await;
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            for (partition, (sent, _)) in (0..).zip(&collectors) {
                let at = Instant::now();
                let record = Record::new(&self.topic).partition(partition);
                let delivery = producer.send(record.value(value(number))).await.unwrap();
                sent.send(Sent {
                    number,
                    at,
                    delivery,
                })
                .unwrap();
            }
        }
        producer.flush().await;
        for (sent, collector) in collectors {
            drop(sent);
            collector.await.unwrap();
        }
    }
}

async fn collect(
    partition: u32,
    mut arriving: mpsc::UnboundedReceiver<Sent>,
    outcome: Arc<Mutex<Outcome>>,
) {
    while let Some(sent) = arriving.recv().await {
        let result = sent.delivery.await;
        let mut outcome = outcome.lock().unwrap();
        match result {
            Ok(receipt) => outcome.acknowledged.push(Acknowledged {
                partition,
                number: sent.number,
                offset: receipt.offset.0,
                sent_at: sent.at,
                acknowledged_at: Instant::now(),
            }),
            Err(error) => outcome
                .failures
                .push(format!("partition {partition}, {}: {error}", sent.number)),
        }
    }
}

fn value(number: u64) -> String {
    format!("{number}:{}", "x".repeat(FILLING))
}

fn number_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    let (number, filling) = text.split_once(':').unwrap();
    assert_eq!(filling.len(), FILLING);
    number.parse().unwrap()
}

/// Reads the topic to its end: of each partition the numbers from 0 on, each once, in order, and
/// each acknowledged one at the offset that was promised. Gives how many there are.
#[track_caller]
pub(crate) fn check_records(
    client: &blocking::Client,
    topic: &TopicName,
    acknowledged: &[Acknowledged],
) -> u64 {
    let mut promised: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    let mut partitions = 0;
    for it in acknowledged {
        let before = promised.insert((it.partition, it.offset), it.number);
        assert_eq!(before, None, "two records were promised one offset");
        partitions = partitions.max(it.partition + 1);
    }
    let mut records = 0;
    for partition in 0..partitions {
        let at = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        for (expected, (offset, number)) in (0..).zip(read_to_end(client, &at)) {
            assert_eq!(number, expected, "{at}: at offset {offset}");
            if let Some(promised) = promised.remove(&(partition, offset)) {
                assert_eq!(number, promised, "{at}: at offset {offset}");
            }
            records += 1;
        }
    }
    let lost: Vec<_> = promised.iter().take(5).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    records
}

/// Offset and number of each record.
fn read_to_end(client: &blocking::Client, at: &TopicPartition) -> Vec<(u64, u64)> {
    let end = end_of(client, at);
    let mut consumer = client.consumer(|consumer| consumer);
    consumer.assign(at.clone(), StartAt::Earliest).unwrap();
    let mut found: Vec<(u64, u64)> = Vec::new();
    while found.last().map_or(0, |(offset, _)| offset + 1) < end {
        let record = consumer.recv_timeout(SILENCE_MAX).unwrap();
        let record = record.unwrap_or_else(|| panic!("{at}: silence after {}", found.len()));
        found.push((record.offset.0, number_of(&record.value.unwrap())));
    }
    found
}

/// The end of what is committed, as soon as there is a leader who can say it.
fn end_of(client: &blocking::Client, at: &TopicPartition) -> u64 {
    super::wait_for("the end of a partition", || {
        let admin = client.admin();
        match client.wait(admin.offset(at, StartAt::Latest)) {
            Ok(offset) => Some(offset.0),
            Err(highwater_client::AdminError::Refused {
                error: ErrorCode::UnknownTopicOrPartition,
                ..
            }) => panic!("{at} is not there"),
            Err(_) => None,
        }
    })
}

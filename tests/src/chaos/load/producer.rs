//! Producers of ours.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_client::{Delivery, ProduceError, Producer, Record};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::Shared;
use crate::chaos::recorder::{Recorder, first_value};
use crate::clock::now;

/// How often records are sent.
const TICK: Duration = Duration::from_millis(50);

/// How many records wait for their end at most, in bytes: the producer waits while there are
/// more.
const MEMORY_BYTES: usize = 4 << 20;

/// How long a record is tried. Longer than any fault, so that what ends in nothing is rare.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How many keys a producer has.
const KEYS: u64 = 100;

/// How often a client is made until the cluster answers.
const CONNECT_TRIES: u32 = 60;

/// A producer of ours, to be run on a thread of its own.
pub(super) struct Producing {
    pub(super) client: u64,
    /// Over QUIC if so, and by TCP if not.
    pub(super) is_idempotent: bool,
    /// Records a second.
    pub(super) rate: u32,
    pub(super) seed: u64,
    pub(super) shared: Arc<Shared>,
}

/// A record that waits for its end.
struct Waiting {
    value: u64,
    delivery: Result<Delivery, ProduceError>,
}

impl Producing {
    pub(super) fn run(self) -> anyhow::Result<Vec<PathBuf>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, self.work())
    }

    async fn work(self) -> anyhow::Result<Vec<PathBuf>> {
        let builder = self.shared.reach.client(self.is_idempotent);
        let client = connect(builder).await?;
        let producer = client
            .producer()
            .idempotent(self.is_idempotent)
            .memory_bytes(MEMORY_BYTES)
            .delivery_timeout(DELIVERY_TIMEOUT)
            .seed(self.seed)
            .build();
        let recorder = self.shared.recorder(self.client, self.is_idempotent);
        let recorder = Rc::new(RefCell::new(recorder));
        let collectors: Vec<_> = (0..self.shared.partitions.len())
            .map(|partition| {
                let (waits, waiting) = mpsc::unbounded_channel();
                let collect = collect(partition, waiting, self.shared.clone(), recorder.clone());
                (waits, tokio::task::spawn_local(collect))
            })
            .collect();
        let waits: Vec<_> = collectors.iter().map(|(waits, _)| waits).collect();
        self.send_all(&producer, &waits, &recorder).await;
        drop(waits);
        producer.flush().await;
        for (waits, collector) in collectors {
            drop(waits);
            collector.await??;
        }
        let recorder = Rc::into_inner(recorder).expect("the collectors have ended");
        recorder.into_inner().finish()
    }

    async fn send_all(
        &self,
        producer: &Producer,
        waits: &[&mpsc::UnboundedSender<Waiting>],
        recorder: &RefCell<Recorder>,
    ) {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut value = first_value(self.client);
        let mut owed = 0.0;
        while !self.shared.is_sent.load(Ordering::Relaxed) {
            ticks.tick().await;
            owed += f64::from(self.rate) * TICK.as_secs_f64();
            // Bursts to one partition, so that batches have several records.
            let partition = random.usize(..waits.len());
            while owed >= 1.0 {
                owed -= 1.0;
                recorder.borrow_mut().sends(now(), partition, value);
                let delivery = producer.send(self.record(partition, value)).await;
                // The collector lives as long as this side does.
                let _ = waits[partition].send(Waiting { value, delivery });
                value += 1;
            }
        }
    }

    fn record(&self, partition: usize, value: u64) -> Record {
        let at = &self.shared.partitions[partition];
        let index = u32::try_from(at.index).expect("we made it");
        Record::new(&super::topic_name(at))
            .partition(index)
            .key(format!("{}", value % KEYS))
            .value(self.shared.text(value))
    }
}

/// Awaits the ends of a partition's records, in order.
async fn collect(
    partition: usize,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
    shared: Arc<Shared>,
    recorder: Rc<RefCell<Recorder>>,
) -> anyhow::Result<()> {
    while let Some(Waiting { value, delivery }) = waiting.recv().await {
        let outcome = match delivery {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        let at = now();
        let mut recorder = recorder.borrow_mut();
        match outcome {
            Ok(receipt) => {
                shared.acks.add(partition, at);
                recorder.acked(at, value, i64::try_from(receipt.offset.0)?)?;
            }
            Err(error) if is_definite(&error) => recorder.failed(at, value)?,
            Err(_) => recorder.unknown(at, value)?,
        }
    }
    Ok(())
}

/// Whether an error promises that the record is not there and never will be.
fn is_definite(error: &ProduceError) -> bool {
    match error {
        ProduceError::Metadata(_)
        | ProduceError::RecordTooLarge { .. }
        | ProduceError::Encode { .. }
        | ProduceError::Refused { .. }
        | ProduceError::Expired { .. } => true,
        ProduceError::NoProducerId { .. } | ProduceError::OutcomeUnknown { .. } => false,
    }
}

/// A client, as soon as the cluster answers.
pub(super) async fn connect(
    builder: highwater_client::ClientBuilder,
) -> anyhow::Result<highwater_client::Client> {
    let mut tries = 0;
    loop {
        match builder.clone().connect().await {
            Ok(client) => return Ok(client),
            Err(error) if tries >= CONNECT_TRIES => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        tries += 1;
    }
}

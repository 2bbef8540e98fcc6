//! Producers side by side, as fast as they go or at a fixed rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use futures_util::future::poll_immediate;
use highwater_client::{Client, Delivery, ProduceError, Producer, Record};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::batching::WAITING_MAX;
use crate::counted::{Counted, Counting};
use crate::noise::{Noise, RECORD_BYTES_MAX};
use crate::pace::{DRAIN, Pacer, due};
use crate::produce::ProduceLoad;
use crate::stamp::{STAMP_BYTES, Stamps};

/// How many records are acknowledged in each partition, counted or not.
pub(crate) type Sent = BTreeMap<u32, u64>;

/// Producers that send.
#[derive(Debug)]
pub(crate) struct Producers {
    tasks: JoinSet<Result<Sent>>,
    /// By those that have ended.
    sent: Sent,
    counted: Arc<Mutex<Counted>>,
}

impl Producers {
    /// Starts them. With stamps, each value says when it was to be sent.
    pub(crate) fn start(
        client: &Client,
        load: &ProduceLoad,
        counting: Counting,
        stamps: Option<Stamps>,
    ) -> Result<Producers> {
        let least = stamps.map_or(0, |_| STAMP_BYTES);
        if load.producers == 0 || !(least..=RECORD_BYTES_MAX).contains(&load.record_bytes) {
            bail!("at least one producer, and records of {least} to {RECORD_BYTES_MAX} bytes");
        }
        let noise = Noise::new(load.seed);
        let counted = Arc::new(Mutex::new(Counted::default()));
        let mut tasks = JoinSet::new();
        for number in 0..load.producers {
            let sending = Sending {
                producer: load.batching.producer(client),
                load: load.clone(),
                noise: noise.clone(),
                number,
                counting,
                stamps,
                counted: Arc::clone(&counted),
            };
            tasks.spawn(sending.run());
        }
        Ok(Producers {
            tasks,
            sent: Sent::new(),
            counted,
        })
    }

    /// Waits until then, or until one fails.
    pub(crate) async fn until(&mut self, at: Instant) -> Result<()> {
        let time = sleep_until(at);
        tokio::pin!(time);
        loop {
            tokio::select! {
                () = &mut time => return Ok(()),
                Some(ended) = self.tasks.join_next() => self.add(&ended??),
            }
        }
    }

    fn add(&mut self, sent: &Sent) {
        for (&partition, records) in sent {
            *self.sent.entry(partition).or_default() += records;
        }
    }

    /// Waits until all that they have sent is acknowledged.
    pub(crate) async fn drain(mut self) -> Result<(Counted, Sent)> {
        let drained = timeout(DRAIN, async {
            while let Some(ended) = self.tasks.join_next().await {
                self.add(&ended??);
            }
            anyhow::Ok(())
        });
        let drained = drained.await;
        drained.context("the last records are not acknowledged")??;
        let counted = std::mem::take(&mut *lock(&self.counted));
        Ok((counted, self.sent))
    }
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record on its way, and when it was to be sent.
type Waiting = (Instant, Delivery);

/// How many of them are looked at before the clock is read again.
const COLLECTED_MAX: usize = 64;

/// One producer.
struct Sending {
    producer: Producer,
    load: ProduceLoad,
    noise: Noise,
    number: usize,
    counting: Counting,
    stamps: Option<Stamps>,
    counted: Arc<Mutex<Counted>>,
}

impl Sending {
    async fn run(self) -> Result<Sent> {
        // Acknowledgements of a partition come in order, those of different ones do not.
        let mut partitions: BTreeMap<u32, mpsc::Sender<Waiting>> = BTreeMap::new();
        let mut collectors: JoinSet<Result<(u32, u64), ProduceError>> = JoinSet::new();
        let mut pacer = Pacer::new()?;
        for number in 0_u64.. {
            let intended = self.intended(number, &mut pacer).await?;
            if intended >= self.counting.window.to {
                break;
            }
            let delivery = self.producer.send(self.record(number, intended)).await?;
            let partition = delivery.partition().partition;
            let sender = partitions.entry(partition).or_insert_with(|| {
                let (sender, arriving) = mpsc::channel(WAITING_MAX);
                collectors.spawn(self.collector(partition, arriving));
                sender
            });
            if sender.send((intended, delivery)).await.is_err() {
                break;
            }
        }
        drop(partitions);
        self.producer.flush().await;
        let mut sent = Sent::new();
        while let Some(ended) = collectors.join_next().await {
            sent.extend([ended??]);
        }
        Ok(sent)
    }

    /// When the next record is to be sent; waits for that.
    async fn intended(&self, sent: u64, pacer: &mut Pacer) -> Result<Instant> {
        let Some(rate) = self.load.rate else {
            return Ok(Instant::now());
        };
        let producers = u64::try_from(self.load.producers).unwrap_or(u64::MAX);
        let number = u64::try_from(self.number).unwrap_or(u64::MAX);
        let intended = self.counting.window.start + due(sent * producers + number, rate);
        if intended > Instant::now() {
            pacer.until(intended).await?;
        }
        Ok(intended)
    }

    fn record(&self, number: u64, intended: Instant) -> Record {
        let noise = self.noise.value(number, self.load.record_bytes);
        let value = match &self.stamps {
            Some(stamps) => stamps.put(intended, &noise),
            None => noise,
        };
        Record::new(&self.load.topic).value(value)
    }

    /// Waits for what was sent to a partition. Gives it, and how many there were.
    fn collector(
        &self,
        partition: u32,
        mut arriving: mpsc::Receiver<Waiting>,
    ) -> impl Future<Output = Result<(u32, u64), ProduceError>> + use<> {
        let (counting, counted) = (self.counting, Arc::clone(&self.counted));
        let bytes = self.load.record_bytes;
        async move {
            let mut records = 0;
            let mut some = Vec::with_capacity(COLLECTED_MAX);
            let mut done = Vec::with_capacity(COLLECTED_MAX);
            while arriving.recv_many(&mut some, COLLECTED_MAX).await > 0 {
                // Those of a batch are acknowledged at once: one look at the clock does for all
                // that need not be waited for.
                let mut now = Instant::now();
                for (intended, mut delivery) in some.drain(..) {
                    let acknowledged = match poll_immediate(&mut delivery).await {
                        Some(acknowledged) => acknowledged,
                        None => {
                            let acknowledged = delivery.await;
                            now = Instant::now();
                            acknowledged
                        }
                    };
                    acknowledged?;
                    records += 1;
                    done.push((intended, now));
                }
                let mut counted = lock(&counted);
                for (intended, acknowledged) in done.drain(..) {
                    counted.add(&counting, intended, acknowledged, bytes);
                }
            }
            Ok((partition, records))
        }
    }
}

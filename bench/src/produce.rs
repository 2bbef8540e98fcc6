//! Producing as fast as it goes, or at a fixed rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use highwater_client::{Client, Delivery, ProduceError, Producer, Record, TopicName};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::batching::{Batching, WAITING_MAX};
use crate::cpu::CpuMeter;
use crate::latency::{Latencies, Percentiles};
use crate::limits::per_second;
use crate::noise::{Noise, RECORD_BYTES_MAX};
use crate::pace::{DRAIN, Window, due};

/// What to send.
#[derive(Debug, Clone)]
pub struct ProduceLoad {
    /// Where to.
    pub topic: TopicName,
    /// The size of a value, in bytes; there is no key.
    pub record_bytes: usize,
    /// How many producers send side by side, each with an identity of its own.
    pub producers: usize,
    /// How each of them batches.
    pub batching: Batching,
    /// Records a second of all producers together; nothing: each sends when there is room.
    pub rate: Option<u32>,
    /// How long nothing is counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub duration: Duration,
    /// Seeds the values.
    pub seed: u64,
    /// Processes of the cluster whose processor time counts.
    pub server_pids: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ProduceReport {
    /// Records acknowledged while it counted.
    pub records: u64,
    /// Their values, in bytes.
    pub bytes: u64,
    /// How long it counted.
    pub seconds: f64,
    /// Records a second.
    pub records_per_second: u64,
    /// Bytes of values a second.
    pub bytes_per_second: u64,
    /// From when a record was to be sent to its acknowledgement. At a fixed rate that is the time
    /// that the rate says, however late it was sent: no coordinated omission.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// Processor seconds of this process for each GB (10^9 bytes) of values.
    pub client_cpu_seconds_per_gb: f64,
    /// The same of the cluster's processes, if they were named.
    pub server_cpu_seconds_per_gb: Option<f64>,
}

/// Sends the load and counts.
///
/// # Errors
/// When a record is not acknowledged, or nothing is while it counts.
pub async fn produce(client: &Client, load: &ProduceLoad) -> Result<ProduceReport> {
    if load.producers == 0 || load.record_bytes > RECORD_BYTES_MAX {
        bail!("at least one producer, and records of at most {RECORD_BYTES_MAX} bytes");
    }
    let noise = Noise::new(load.seed);
    let start = Instant::now();
    let window = Window::new(start, load.warm_up, load.duration);
    let counted = Arc::new(Mutex::new(Counted::default()));
    let mut tasks = JoinSet::new();
    for number in 0..load.producers {
        let sending = Sending {
            producer: load.batching.producer(client),
            load: load.clone(),
            noise: noise.clone(),
            number,
            window,
            counted: Arc::clone(&counted),
        };
        tasks.spawn(sending.run());
    }
    tokio::select! {
        () = sleep_until(window.from) => {}
        failed = failure(&mut tasks) => return Err(failed),
    }
    let client_cpu = CpuMeter::start(&[std::process::id()])?;
    let server_cpu = CpuMeter::start(&load.server_pids)?;
    tokio::select! {
        () = sleep_until(window.to) => {}
        failed = failure(&mut tasks) => return Err(failed),
    }
    let (client_used, server_used) = (client_cpu.used()?, server_cpu.used()?);
    let drained = timeout(DRAIN, async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    });
    drained
        .await
        .context("the last records are not acknowledged")??;
    let counted = lock(&counted);
    if counted.records == 0 {
        bail!("nothing was acknowledged within {:?}", load.duration);
    }
    let per_gb = |used: Duration| used.as_secs_f64() * 1e9 / (counted.bytes.max(1) as f64);
    Ok(ProduceReport {
        records: counted.records,
        bytes: counted.bytes,
        seconds: load.duration.as_secs_f64(),
        records_per_second: per_second(counted.records, load.duration),
        bytes_per_second: per_second(counted.bytes, load.duration),
        latency: counted.latencies.percentiles(),
        client_cpu_seconds_per_gb: per_gb(client_used),
        server_cpu_seconds_per_gb: (!load.server_pids.is_empty()).then(|| per_gb(server_used)),
    })
}

/// Waits until a producer fails. None ends well before the load does.
async fn failure(tasks: &mut JoinSet<Result<()>>) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return error.into(),
            Some(Ok(Ok(()))) => {}
            None => return anyhow::anyhow!("all producers have ended early"),
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    records: u64,
    bytes: u64,
    latencies: Latencies,
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record on its way, and when it was to be sent.
type Waiting = (Instant, Delivery);

/// One producer.
struct Sending {
    producer: Producer,
    load: ProduceLoad,
    noise: Noise,
    number: usize,
    window: Window,
    counted: Arc<Mutex<Counted>>,
}

impl Sending {
    async fn run(self) -> Result<()> {
        // Acknowledgements of a partition come in order, those of different ones do not.
        let mut partitions: BTreeMap<u32, mpsc::Sender<Waiting>> = BTreeMap::new();
        let mut collectors: JoinSet<Result<(), ProduceError>> = JoinSet::new();
        for sent in 0_u64.. {
            let intended = self.intended(sent).await;
            if intended >= self.window.to {
                break;
            }
            let delivery = self.producer.send(self.record(sent)).await?;
            let partition = delivery.partition().partition;
            let sender = partitions.entry(partition).or_insert_with(|| {
                let (sender, arriving) = mpsc::channel(WAITING_MAX);
                collectors.spawn(self.collector(arriving));
                sender
            });
            if sender.send((intended, delivery)).await.is_err() {
                break;
            }
        }
        drop(partitions);
        self.producer.flush().await;
        while let Some(ended) = collectors.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// When the next record is to be sent; waits for that. The timer ticks every millisecond, so
    /// at a fixed rate up to one of the latency is its.
    async fn intended(&self, sent: u64) -> Instant {
        let Some(rate) = self.load.rate else {
            return Instant::now();
        };
        let producers = u64::try_from(self.load.producers).unwrap_or(u64::MAX);
        let number = u64::try_from(self.number).unwrap_or(u64::MAX);
        let intended = self.window.start + due(sent * producers + number, rate);
        if intended > Instant::now() {
            sleep_until(intended).await;
        }
        intended
    }

    fn record(&self, sent: u64) -> Record {
        Record::new(&self.load.topic).value(self.noise.value(sent, self.load.record_bytes))
    }

    fn collector(
        &self,
        mut arriving: mpsc::Receiver<Waiting>,
    ) -> impl Future<Output = Result<(), ProduceError>> + use<> {
        let (window, counted) = (self.window, Arc::clone(&self.counted));
        let (bytes, is_open_loop) = (self.load.record_bytes, self.load.rate.is_some());
        async move {
            while let Some((intended, delivery)) = arriving.recv().await {
                delivery.await?;
                let now = Instant::now();
                let mut counted = lock(&counted);
                if window.holds(now) {
                    counted.records += 1;
                    counted.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
                }
                // At a fixed rate the late ones count too: those that were to be sent in time.
                let counts = if is_open_loop { intended } else { now };
                if window.holds(counts) {
                    counted.latencies.record(now - intended);
                }
            }
            Ok(())
        }
    }
}

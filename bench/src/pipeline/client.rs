//! The client: sends batches, and counts those that are acknowledged.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use highwater_record::crc32c;
use tokio::time::{Instant, timeout};

use super::backlog::Backlog;
use super::hub::Hub;
use super::{PeerTransport, PipelineLoad, PipelineReport, Role, wire};
use crate::cpu::CpuMeter;
use crate::latency::Latencies;
use crate::pace::{DRAIN, Pacer, Window, due};
use crate::spread::Spread;

/// What a run has acknowledged, and what it cost.
struct Run {
    mb_per_second: f64,
    cpu_seconds_per_gb: f64,
}

struct Client<'a> {
    hub: Hub,
    backlog: Backlog,
    load: &'a PipelineLoad,
    body: Bytes,
    crc: u32,
    next: u64,
    /// When those that are not acknowledged were to be sent.
    open: BTreeMap<u64, Instant>,
    latencies: Latencies,
    acknowledged: u64,
}

pub(super) async fn measure(hub: Hub, load: &PipelineLoad, pids: &[u32]) -> Result<PipelineReport> {
    let mut body = vec![0; load.batch_bytes];
    fastrand::Rng::with_seed(1).fill(&mut body);
    let mut client = Client {
        hub,
        backlog: Backlog::new(Role::Leader),
        load,
        crc: crc32c(&body),
        body: Bytes::from(body),
        next: 0,
        open: BTreeMap::new(),
        latencies: Latencies::default(),
        acknowledged: 0,
    };
    let mut pids = pids.to_vec();
    pids.push(std::process::id());
    let mut runs = Vec::new();
    for _ in 0..load.runs {
        runs.push(client.run(&pids).await?);
    }
    Ok(PipelineReport {
        batch_bytes: load.batch_bytes,
        window_bytes: load.window_bytes,
        rate: load.rate,
        peer_transport: load.peer_transport,
        datagram_bytes: (load.peer_transport == PeerTransport::Quic)
            .then_some(load.links().datagram_bytes),
        files: load.files,
        runs: load.runs,
        mb_per_second: Spread::of(runs.iter().map(|run| run.mb_per_second)),
        cpu_seconds_per_gb: Spread::of(runs.iter().map(|run| run.cpu_seconds_per_gb)),
        latency: client.latencies.percentiles(),
    })
}

impl Client<'_> {
    async fn run(&mut self, pids: &[u32]) -> Result<Run> {
        let window = Window::new(Instant::now(), self.load.warm_up, self.load.duration);
        let first = self.next;
        self.send_until(&window, first, window.from).await?;
        let cpu = CpuMeter::start(pids)?;
        let (before, began) = (self.acknowledged, Instant::now());
        self.send_until(&window, first, window.to).await?;
        self.wait_for_one(before, &window).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = cpu.used()?.as_secs_f64();
        let bytes = (self.acknowledged - before) as f64 * self.load.batch_bytes as f64;
        self.drain(&window).await?;
        Ok(Run {
            mb_per_second: bytes / seconds / 1e6,
            cpu_seconds_per_gb: cpu / (bytes / 1e9),
        })
    }

    /// A run in which nothing has been acknowledged lasts until something is: a slow machine has a
    /// rate too.
    async fn wait_for_one(&mut self, before: u64, window: &Window) -> Result<()> {
        if self.acknowledged > before {
            return Ok(());
        }
        ensure!(
            !self.open.is_empty(),
            "no batch was due while it counted: give a higher rate, or a longer run"
        );
        self.take_one(window).await
    }

    /// Sends whatever is due and has room, until then; once, where that is past: a process that has
    /// not run meanwhile sends late, but it sends.
    async fn send_until(&mut self, window: &Window, first: u64, end: Instant) -> Result<()> {
        let mut pacer = Pacer::new()?;
        loop {
            while self.may_send(window, first) {
                self.send(window, first)?;
            }
            if Instant::now() >= end {
                return Ok(());
            }
            let waits_until = match self.load.rate {
                Some(rate) if self.has_room() => window.start + due(self.next - first, rate),
                _ => end,
            };
            tokio::select! {
                arrival = self.hub.receive() => self.take(&arrival?.frame, window)?,
                waited = pacer.until(waits_until.min(end)) => waited?,
            }
            while let Some(arrival) = self.hub.try_receive()? {
                self.take(&arrival.frame, window)?;
            }
        }
    }

    fn has_room(&self) -> bool {
        (self.open.len() + 1) * self.load.batch_bytes <= self.load.window_bytes
            || self.open.is_empty()
    }

    fn may_send(&self, window: &Window, first: u64) -> bool {
        let is_due = |rate| window.start + due(self.next - first, rate) <= Instant::now();
        self.has_room() && self.load.rate.is_none_or(is_due)
    }

    fn send(&mut self, window: &Window, first: u64) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let intended = match self.load.rate {
            Some(rate) => window.start + due(number - first, rate),
            None => Instant::now(),
        };
        self.open.insert(number, intended);
        let trailer = Bytes::copy_from_slice(&wire::trailer(number, self.crc));
        self.backlog
            .push(vec![self.body.clone(), trailer], &self.hub)
    }

    fn take(&mut self, frame: &[u8], window: &Window) -> Result<()> {
        let number = wire::acknowledged(frame)?;
        let intended = self.open.remove(&number);
        let intended = intended.with_context(|| format!("batch {number} was not open"))?;
        self.acknowledged += 1;
        self.backlog.forward(&self.hub)?;
        if window.holds(intended) {
            self.latencies.record(intended.elapsed());
        }
        Ok(())
    }

    /// The run is over when all that it has sent is acknowledged.
    async fn drain(&mut self, window: &Window) -> Result<()> {
        while !self.open.is_empty() {
            self.take_one(window).await?;
        }
        Ok(())
    }

    async fn take_one(&mut self, window: &Window) -> Result<()> {
        let arrival = timeout(DRAIN, self.hub.receive()).await;
        let arrival = arrival.context("the last batches are not acknowledged")??;
        self.take(&arrival.frame, window)
    }
}

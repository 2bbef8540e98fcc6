//! A few threads that make system calls which block: the only threads of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::system::{Answer, Call, System};
use super::wake::Wake;
use super::{StorageError, Token};

/// A call on its way, with what the owner wants back with it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) token: Token,
    /// Bytes that it writes, for the counters.
    pub(super) written: u64,
    pub(super) call: Call,
}

/// A call that has returned.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) token: Token,
    pub(super) written: u64,
    pub(super) result: Result<Answer, StorageError>,
}

/// Worker threads in two lanes, so that a file that is zeroed does not keep a write waiting.
///
/// The queues are bounded by what their owner admits
/// ([`IN_FLIGHT_MAX`](super::IN_FLIGHT_MAX)). Dropping this joins the threads; calls that were
/// not begun by then are not made.
#[derive(Debug)]
pub(super) struct Workers {
    short: Option<Sender<Job>>,
    long: Option<Sender<Job>>,
    finished: Receiver<Finished>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a worker thread needs.
#[derive(Clone)]
struct Bench {
    jobs: Receiver<Job>,
    finished: Sender<Finished>,
    stopping: Arc<AtomicBool>,
    system: Arc<System>,
    wake: Arc<Wake>,
}

impl Workers {
    /// Starts `short` threads for calls that take about a disk access, and `long` for those
    /// that write or read whole files.
    ///
    /// # Errors
    ///
    /// As [`std::thread::Builder::spawn`].
    pub(super) fn start(
        system: &Arc<System>,
        wake: &Arc<Wake>,
        short: usize,
        long: usize,
    ) -> std::io::Result<Self> {
        assert!(short > 0 && long > 0, "both lanes need a thread");
        let (finished, from_workers) = unbounded();
        let (short_jobs, short_queue) = unbounded();
        let (long_jobs, long_queue) = unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let mut workers = Self {
            short: Some(short_jobs),
            long: Some(long_jobs),
            finished: from_workers,
            stopping: stopping.clone(),
            threads: Vec::with_capacity(short + long),
        };
        let bench = |jobs| Bench {
            jobs,
            finished: finished.clone(),
            stopping: stopping.clone(),
            system: system.clone(),
            wake: wake.clone(),
        };
        let (short_bench, long_bench) = (bench(short_queue), bench(long_queue));
        let lanes = [
            ("disk", short, short_bench),
            ("disk-long", long, long_bench),
        ];
        for (name, count, bench) in lanes {
            for _ in 0..count {
                // If this fails, dropping `workers` ends those that run.
                workers.threads.push(spawn(name, bench.clone())?);
            }
        }
        Ok(workers)
    }

    pub(super) fn send(&self, job: Job) {
        let lane = if job.call.is_long() {
            &self.long
        } else {
            &self.short
        };
        let lane = lane
            .as_ref()
            .expect("the lanes are open until this is dropped");
        lane.send(job)
            .expect("the workers hold the other end until the lanes close");
    }

    /// A call that has returned since, if there is one.
    pub(super) fn try_receive(&self) -> Option<Finished> {
        self.finished.try_recv().ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        (self.short, self.long) = (None, None);
        for thread in self.threads.drain(..) {
            // A panic in a worker has been printed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Bench {
    fn work(self) {
        for Job {
            token,
            written,
            call,
        } in &self.jobs
        {
            if self.stopping.load(Ordering::Relaxed) {
                continue;
            }
            let result = self.system.run(call);
            if self
                .finished
                .send(Finished {
                    token,
                    written,
                    result,
                })
                .is_err()
            {
                return;
            }
            self.wake.signal();
        }
    }
}

/// Starts one worker. This crate takes time and threads as arguments everywhere else: a system
/// call that blocks has no other home.
fn spawn(name: &str, bench: Bench) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || bench.work())
}

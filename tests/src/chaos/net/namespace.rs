//! Network namespaces without a name: a thread lives in each.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::io_error;

type Job = Box<dyn FnOnce() + Send>;

/// A thread, in a network namespace of its own or in that of this process.
///
/// Processes are started by the thread, so that they are born inside; when it ends, the system
/// kills those that asked for that (`setpriv --pdeathsig`).
#[derive(Debug)]
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    /// The namespace, to go into it; none for that of this process.
    file: Option<File>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback device that is down.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let mut namespace = Self::of_this_process(name)?;
        let file = namespace.inside(|| {
            leave_for_a_new_one()?;
            File::open("/proc/thread-self/ns/net")
        })?;
        namespace.file = Some(file);
        Ok(namespace)
    }

    /// That of this process.
    pub(crate) fn of_this_process(name: &str) -> io::Result<Self> {
        let (jobs, taken) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || taken.into_iter().for_each(|job| job()))?;
        Ok(Self {
            jobs: Some(jobs),
            file: None,
            thread: Some(thread),
        })
    }

    /// Does something on its thread, and waits for it.
    ///
    /// # Panics
    /// If it panics.
    pub(crate) fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let job = Box::new(move || {
            // Whoever asked waits for it.
            let _ = answer.send(job());
        });
        let jobs = self.jobs.as_ref().expect("taken in drop only");
        jobs.send(job).expect("the thread lives as long as this");
        answered.recv().expect("the job does not panic")
    }

    /// Moves the calling thread into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), network).map_err(io_error)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A job that panicked has told whoever asked for it.
            let _ = thread.join();
        }
    }
}

#[expect(
    unsafe_code,
    reason = "unshare can take descriptors from a thread; this flag does not"
)]
fn leave_for_a_new_one() -> io::Result<()> {
    // SAFETY: only the network namespace is left, never the table of descriptors, which is what
    // makes this call unsafe; and the calling thread was made for nothing else.
    let left = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
    left.map_err(io_error)
}

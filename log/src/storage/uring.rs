//! The storage on io_uring: reads and synced writes in the ring, everything else on workers.
//!
//! Only a direct, synced write to blocks that were written before runs asynchronously in the
//! kernel, with a third of the CPU of a thread that waits for it; a sync, or a write through
//! the page cache, is handed to kernel threads and costs more than a thread of ours
//! (LIMITS.md A1). So the ring does direct I/O only, and nothing is linked: each write carries
//! its own sync.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes the memory of queued operations"
)]

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use highwater_record::{Buffer, BufferMut, BufferPool};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

use super::directory::DataDirectory;
use super::front::Front;
use super::system::{Answer, Call, OpenFile, failed};
use super::wake::Wake;
use super::workers::{Finished, Job, Workers};
use super::{Completion, Counters, Op, OpenError, Output, Storage, StorageError, Token};

/// Operations that the ring works on at a time; more wait outside. Also the size of its
/// submission queue, so that all of them fit into one submission.
const RING_ENTRIES: u32 = 512;

/// The completion queue is larger than what can be in flight, so it never overflows.
const COMPLETION_ENTRIES: u32 = 2 * RING_ENTRIES;

/// The most that one entry reads or writes, in bytes: below what any kernel cuts short.
const PART_BYTES_MAX: usize = 1 << 30;

/// How often the kernel may say EAGAIN to one operation before that is an error.
const RETRIES_MAX: u32 = 1000;

/// Threads for syncs, directories and opens.
const SHORT_THREADS: usize = 2;

/// Threads that prepare files and populate mappings.
const LONG_THREADS: usize = 1;

/// A storage on io_uring.
///
/// It stays on the thread that made it: the ring takes submissions of one thread only, which
/// spares the kernel its locks.
#[derive(Debug)]
pub struct UringStorage {
    ring: Ring,
    front: Front,
    queued: VecDeque<Job>,
    workers: Workers,
    wake: Arc<Wake>,
    not_send: PhantomData<*const ()>,
}

impl UringStorage {
    /// Opens the storage of a data directory. Reads go to buffers of `pool`.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoRing`] if the system refuses a ring and [`OpenError::Buffered`] if the
    /// file system takes no direct I/O: then [`PortableStorage`](super::PortableStorage)
    /// serves. Others as there.
    pub fn new(directory: Arc<DataDirectory>, pool: BufferPool) -> Result<Self, OpenError> {
        if let Some(reason) = directory.why_buffered() {
            return Err(OpenError::Buffered {
                reason: reason.to_owned(),
            });
        }
        let front = Front::new(directory.clone(), pool, true)?;
        let wake = Arc::new(Wake::new().map_err(OpenError::resources("eventfd"))?);
        let ring = Ring::new(directory, &wake)?;
        let workers = Workers::start(&front.system, &wake, SHORT_THREADS, LONG_THREADS)
            .map_err(OpenError::resources("thread"))?;
        let queued = VecDeque::new();
        Ok(Self {
            ring,
            front,
            queued,
            workers,
            wake,
            not_send: PhantomData,
        })
    }

    /// Readable when [`poll`](Storage::poll) has something new, which takes the signal back.
    /// For whoever sleeps in `poll(2)`, `epoll(7)` or a runtime on top of them.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// The directory it works in.
    #[must_use]
    pub fn directory(&self) -> &Arc<DataDirectory> {
        self.front.system.directory()
    }

    fn gather(&mut self) {
        self.wake.clear();
        while let Some(finished) = self.workers.try_receive() {
            self.front.finish(finished);
        }
        self.ring.reap(&mut self.front);
        self.submit_ring();
    }

    fn submit_ring(&mut self) {
        if self.ring.submit(&mut self.front.counters) == Submitted::Later {
            // Nobody else would come back for it.
            self.wake.signal();
        }
    }
}

impl Storage for UringStorage {
    fn alignment(&self) -> usize {
        self.front.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        let written = op.bytes_written();
        if let Some(call) = self.front.admit(token, op) {
            self.queued.push_back(Job {
                token,
                written,
                call,
            });
        }
    }

    fn flush(&mut self) {
        for Job {
            token,
            written,
            call,
        } in self.queued.drain(..)
        {
            let work = match call {
                Call::Write { file, offset, data } => Work::Write { file, offset, data },
                Call::Read { file, offset, len } => {
                    match self.front.system.buffer(&file.path, len) {
                        Ok(buffer) => Work::Read {
                            file,
                            offset,
                            len,
                            buffer,
                        },
                        Err(error) => {
                            self.front.complete(token, 0, Err(error));
                            continue;
                        }
                    }
                }
                call => {
                    self.workers.send(Job {
                        token,
                        written,
                        call,
                    });
                    continue;
                }
            };
            self.ring.waiting.push_back(InRing {
                token,
                work,
                done: 0,
                retries: 0,
            });
        }
        self.submit_ring();
        if self.front.has_ready() {
            self.wake.signal();
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.gather();
        self.front.hand_out(out);
    }

    fn wait(&mut self) {
        self.flush();
        loop {
            self.gather();
            if self.front.has_ready() || self.front.in_flight() == 0 {
                return;
            }
            self.wake.wait();
        }
    }

    fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    fn counters(&self) -> Counters {
        self.front.counters
    }
}

/// The ring, and the operations that the kernel works on.
struct Ring {
    ring: IoUring,
    /// Operations by the slot that their `user_data` names, with the slot's generation.
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Operations that are not in a slot yet.
    waiting: VecDeque<InRing>,
    alignment: usize,
    /// Holds the lock while the kernel may still write.
    directory: Arc<DataDirectory>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    in_flight: Option<InRing>,
}

/// An operation, with all the memory that the kernel was told of.
#[derive(Debug)]
struct InRing {
    token: Token,
    work: Work,
    /// Bytes of it that are done, a multiple of the alignment while it goes on.
    done: usize,
    retries: u32,
}

#[derive(Debug)]
enum Work {
    Write {
        file: Arc<OpenFile>,
        offset: u64,
        data: Buffer,
    },
    Read {
        file: Arc<OpenFile>,
        offset: u64,
        len: usize,
        buffer: BufferMut,
    },
}

/// How far a submission went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Submitted {
    /// The kernel has all that fits.
    All,
    /// It is out of memory for the moment: ask again.
    Later,
}

/// What a completion means for its operation.
enum Next {
    /// The rest is to be submitted.
    GoOn(InRing),
    /// It is over.
    Over(Finished),
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Ring {
    fn new(directory: Arc<DataDirectory>, wake: &Wake) -> Result<Self, OpenError> {
        let ring = build()?;
        let refused = |what| move |error: std::io::Error| no_ring(what, &error);
        // A registered file lives until the ring's last operation has ended, also if the
        // process is killed: so nobody can lock the directory under our last writes.
        let lock = [directory.lock().as_raw_fd()];
        ring.submitter()
            .register_files(&lock)
            .map_err(refused("register the lock"))?;
        let event = wake.fd().as_raw_fd();
        ring.submitter()
            .register_eventfd(event)
            .map_err(refused("register an eventfd"))?;
        let slot = |_| Slot {
            generation: 0,
            in_flight: None,
        };
        Ok(Self {
            ring,
            slots: (0..RING_ENTRIES).map(slot).collect(),
            free: (0..RING_ENTRIES as usize).rev().collect(),
            waiting: VecDeque::new(),
            alignment: directory.alignment(),
            directory,
        })
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues what waits and fits, and hands all that is queued to the kernel in one call. The
    /// same call runs what the kernel has deferred to this thread.
    fn submit(&mut self, counters: &mut Counters) -> Submitted {
        while !self.free.is_empty() {
            let Some(operation) = self.waiting.pop_front() else {
                break;
            };
            self.push(operation);
        }
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Submitted::All;
        }
        drop(queue);
        let submitted = self.ring.submit();
        counters.ring_submissions += u64::from(submitted.as_ref().is_ok_and(|count| *count > 0));
        match submitted {
            Ok(_) if self.ring.submission().is_empty() => Submitted::All,
            Ok(_) => Submitted::Later,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM) => Submitted::Later,
                // All others speak of a broken ring, whose operations have an unknown fate.
                _ => panic!("io_uring_enter failed: {error}"),
            },
        }
    }

    /// Puts an operation into a free slot and into the submission queue.
    fn push(&mut self, mut operation: InRing) {
        let index = self.free.pop().expect("the caller has seen a free slot");
        let slot = &mut self.slots[index];
        assert!(slot.in_flight.is_none(), "a free slot holds no operation");
        let user_data = u64::from(slot.generation) << 32 | index as u64;
        let entry = operation.entry().user_data(user_data);
        slot.in_flight = Some(operation);
        // SAFETY: the entry names memory and a descriptor. The memory is that of a `Buffer` or
        // `BufferMut` on the heap, the descriptor that of an `OpenFile`, all three owned by the
        // operation that now lies in the slot; moving it moves none of them. It stays there
        // until the completion with this slot and generation is reaped, after which the kernel
        // does not touch them any more; `drop` waits for all completions. Nobody else reads or
        // writes the unfrozen memory of the `BufferMut` meanwhile; the `Buffer` is only read.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue is as long as there are slots");
    }

    /// Takes completions from the ring.
    fn reap(&mut self, front: &mut Front) {
        let taskrun = {
            let queue = self.ring.submission();
            queue.taskrun() || queue.cq_overflow()
        };
        if taskrun {
            self.submit(&mut front.counters);
        }
        while let Some((user_data, result)) = self.next_completion() {
            let Some(operation) = self.take(user_data) else {
                continue;
            };
            front.counters.ring_completions += 1;
            match operation.proceed(result, self.alignment) {
                Next::GoOn(rest) => self.waiting.push_front(rest),
                Next::Over(finished) => front.finish(finished),
            }
        }
    }

    /// The next completion: its `user_data` and its result.
    fn next_completion(&mut self) -> Option<(u64, i32)> {
        let entry = self.ring.completion().next()?;
        Some((entry.user_data(), entry.result()))
    }

    /// The operation of this completion; nothing if it is none of ours.
    fn take(&mut self, user_data: u64) -> Option<InRing> {
        let index = usize::try_from(user_data & u64::from(u32::MAX)).expect("32 bits fit");
        let slot = self.slots.get_mut(index)?;
        if u64::from(slot.generation) != user_data >> 32 {
            return None;
        }
        let operation = slot.in_flight.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(operation)
    }

    /// Waits until the kernel has let go of all memory; what was not submitted is dropped.
    ///
    /// # Errors
    ///
    /// If the ring fails: then the memory must not be freed.
    fn quiesce(&mut self) -> std::io::Result<()> {
        self.waiting.clear();
        while self.in_flight() > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM) => {}
                    _ => return Err(error),
                },
            }
            while let Some((user_data, _)) = self.next_completion() {
                drop(self.take(user_data));
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.quiesce().is_ok() {
            // Closing the ring is done in the background: without this the lock would be held
            // for a moment longer than we live.
            let _ = self.ring.submitter().unregister_files();
        } else {
            // The kernel may still use the memory, and the directory. Better lost than shared.
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(self.directory.clone());
        }
    }
}

impl InRing {
    /// The entry for what is left of it.
    fn entry(&mut self) -> squeue::Entry {
        let done = self.done;
        match &mut self.work {
            Work::Write { file, offset, data } => {
                let rest = &data[done..];
                let fd = types::Fd(file.fd.as_raw_fd());
                opcode::Write::new(fd, rest.as_ptr(), part(rest.len()))
                    .offset(*offset + done as u64)
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
            }
            Work::Read {
                file,
                offset,
                len,
                buffer,
            } => {
                let rest = &mut buffer.spare_mut()[done..*len];
                let fd = types::Fd(file.fd.as_raw_fd());
                opcode::Read::new(fd, rest.as_mut_ptr(), part(rest.len()))
                    .offset(*offset + done as u64)
                    .build()
            }
        }
    }

    /// What follows from the kernel's answer: a count of bytes, or a negated error.
    fn proceed(mut self, result: i32, alignment: usize) -> Next {
        let Ok(count) = usize::try_from(result) else {
            return self.refused(Errno::from_raw_os_error(-result));
        };
        let wanted = self.work.len() - self.done;
        assert!(count <= wanted, "the kernel did {count} of {wanted} bytes");
        let is_write = matches!(self.work, Work::Write { .. });
        if is_write && count == 0 {
            return self.over(Some(Errno::IO));
        }
        if count == wanted || count == 0 {
            self.done += count;
            return self.over(None);
        }
        // A read that ends within a block has met the file's end. A write that does goes on
        // from the block's start, as the rest would be misaligned.
        let whole = count / alignment * alignment;
        if !is_write && whole != count {
            self.done += count;
            return self.over(None);
        }
        self.done += whole;
        match whole {
            0 => self.refused(Errno::AGAIN),
            _ => Next::GoOn(self),
        }
    }

    /// Tries again if that may help.
    fn refused(mut self, errno: Errno) -> Next {
        let again = matches!(errno, Errno::AGAIN | Errno::INTR);
        if again && self.retries < RETRIES_MAX {
            self.retries += 1;
            return Next::GoOn(self);
        }
        self.over(Some(errno))
    }

    fn over(self, errno: Option<Errno>) -> Next {
        let Self {
            token, work, done, ..
        } = self;
        let (written, result) = match (work, errno) {
            (Work::Write { data, .. }, None) => (data.len() as u64, Ok(Output::Done)),
            (Work::Write { file, .. }, Some(errno)) => (0, error(&file, "pwrite", errno)),
            (Work::Read { mut buffer, .. }, None) => {
                buffer.advance(done);
                (0, Ok(Output::Read(buffer.freeze())))
            }
            (Work::Read { file, .. }, Some(errno)) => (0, error(&file, "pread", errno)),
        };
        Next::Over(Finished {
            token,
            written,
            result: result.map(Answer::Other),
        })
    }
}

impl Work {
    fn len(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len(),
            Self::Read { len, .. } => *len,
        }
    }
}

fn error(file: &OpenFile, call: &'static str, errno: Errno) -> Result<Output, StorageError> {
    Err(failed(&file.path, call, errno))
}

fn part(len: usize) -> u32 {
    u32::try_from(len.min(PART_BYTES_MAX)).expect("a GiB fits")
}

/// Makes a ring, with the best settings that this kernel knows.
fn build() -> Result<IoUring, OpenError> {
    let mut deferred = IoUring::builder();
    deferred
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all();
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let mut settings = [deferred, cooperative, IoUring::builder()];
    let mut refusal = None;
    for builder in &mut settings {
        match builder.setup_cqsize(COMPLETION_ENTRIES).build(RING_ENTRIES) {
            Ok(ring) if ring.params().is_feature_nodrop() => return Ok(ring),
            Ok(_) => refusal = Some(std::io::Error::from_raw_os_error(libc::ENOSYS)),
            // An older kernel does not know the flags.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
            Err(error) => return Err(no_ring("io_uring_setup", &error)),
        }
    }
    let refusal = refusal.expect("each setting was refused");
    Err(no_ring("io_uring_setup", &refusal))
}

fn no_ring(what: &'static str, error: &std::io::Error) -> OpenError {
    OpenError::NoRing {
        what,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    const BLOCK: usize = 4096;

    fn operation(work: impl FnOnce(Arc<OpenFile>) -> Work) -> InRing {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        let stat = rustix::fs::fstat(&file).unwrap();
        let file = OpenFile::new(file, "a".to_owned(), true, &stat);
        InRing {
            token: Token(1),
            work: work(Arc::new(file)),
            done: 0,
            retries: 0,
        }
    }

    fn write(blocks: usize) -> InRing {
        let data = Buffer::aligned_copy(&vec![1; blocks * BLOCK], BLOCK);
        operation(|file| Work::Write {
            file,
            offset: 0,
            data,
        })
    }

    fn read(blocks: usize) -> InRing {
        let buffer = BufferMut::unpooled(blocks * BLOCK, BLOCK);
        operation(|file| Work::Read {
            file,
            offset: 0,
            len: blocks * BLOCK,
            buffer,
        })
    }

    fn bytes(blocks: usize) -> i32 {
        i32::try_from(blocks * BLOCK).unwrap()
    }

    fn goes_on(next: Next) -> InRing {
        match next {
            Next::GoOn(rest) => rest,
            Next::Over(finished) => panic!("over: {finished:?}"),
        }
    }

    fn ends(next: Next) -> Result<usize, StorageError> {
        match next {
            Next::GoOn(rest) => panic!("goes on: {rest:?}"),
            Next::Over(Finished {
                result: Ok(Answer::Other(Output::Read(data))),
                ..
            }) => Ok(data.len()),
            Next::Over(Finished {
                result, written, ..
            }) => result.map(|_| usize::try_from(written).unwrap()),
        }
    }

    #[test]
    fn p25_a_short_write_goes_on_where_it_stopped() {
        let rest = goes_on(write(4).proceed(bytes(1), BLOCK));
        assert_eq!(rest.done, BLOCK);
        let rest = goes_on(rest.proceed(bytes(1) + 512, BLOCK));
        assert_eq!(rest.done, 2 * BLOCK, "half a block is written again");
        assert_eq!(ends(rest.proceed(bytes(2), BLOCK)), Ok(4 * BLOCK));
    }

    #[test]
    fn a_write_of_nothing_is_an_error() {
        assert!(matches!(
            ends(write(1).proceed(0, BLOCK)),
            Err(StorageError::Io { .. })
        ));
    }

    #[test]
    fn a_short_read_goes_on_until_the_end() {
        let rest = goes_on(read(4).proceed(bytes(1), BLOCK));
        assert_eq!(ends(rest.proceed(0, BLOCK)), Ok(BLOCK));
        let rest = goes_on(read(4).proceed(bytes(2), BLOCK));
        assert_eq!(ends(rest.proceed(700, BLOCK)), Ok(2 * BLOCK + 700));
        assert_eq!(ends(read(4).proceed(bytes(4), BLOCK)), Ok(4 * BLOCK));
    }

    #[test]
    fn what_may_help_is_tried_again_and_not_for_ever() {
        let mut again = write(1);
        for _ in 0..RETRIES_MAX {
            again = goes_on(again.proceed(-libc::EAGAIN, BLOCK));
        }
        let end = ends(again.proceed(-libc::EAGAIN, BLOCK));
        assert!(matches!(end, Err(StorageError::Io { .. })), "{end:?}");
    }

    #[test]
    fn errors_are_typed() {
        let end = |errno: i32| ends(write(1).proceed(-errno, BLOCK)).unwrap_err();
        assert!(matches!(end(libc::EIO), StorageError::Io { .. }));
        assert!(matches!(end(libc::ECANCELED), StorageError::Io { .. }));
        assert!(matches!(end(libc::ENOSPC), StorageError::NoSpace { .. }));
        assert!(matches!(end(libc::ENOMEM), StorageError::Resources { .. }));
    }
}

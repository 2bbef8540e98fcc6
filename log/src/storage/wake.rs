//! How a thread that sleeps learns that something has completed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, retry_on_intr, write};

/// An eventfd that is readable when something has completed since it was last cleared.
///
/// The order matters: whoever completes first makes the completion visible, then signals; the
/// owner first clears, then looks.
#[derive(Debug)]
pub(super) struct Wake {
    event: OwnedFd,
    /// Saves all but the first of several signals their system call.
    signalled: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> Result<Self, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            signalled: AtomicBool::new(false),
        })
    }

    /// Wakes the owner.
    pub(super) fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is at its limit, and then it is readable.
            let _ = retry_on_intr(|| write(&self.event, &1u64.to_ne_bytes()));
        }
    }

    /// Takes the signals back. The flag falls after the descriptor was read: a signal between
    /// the two costs a needless wake-up, the other order would lose one.
    pub(super) fn clear(&self) {
        let mut count = [0u8; 8];
        // Nothing to read is fine.
        let _ = retry_on_intr(|| read(&self.event, &mut count));
        self.signalled.swap(false, Ordering::AcqRel);
    }

    /// Blocks until it is signalled.
    pub(super) fn wait(&self) {
        let mut fds = [PollFd::new(&self.event, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).expect("an eventfd can be polled");
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

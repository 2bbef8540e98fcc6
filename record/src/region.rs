//! A stretch of address space from which large buffers are cut, and which they go back to.
//!
//! Buffers of many sizes come and go here by the thousand a second. An allocator that serves the rest
//! of the program too keeps the gaps between those that stay: a node with a thousand partitions had
//! 270 MB of buffers and twice that of memory. Given back to the system each time, half a gigabyte
//! a second comes again page by page. Here neighbours that are free become one again at once, the
//! lowest place that fits is taken, and pages that were touched once stay.
#![expect(
    unsafe_code,
    reason = "memory that outlives whoever uses a part of it is asked from the system"
)]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// How its parts are aligned, in bytes: to the smallest page that there is.
pub(crate) const PART_ALIGNMENT: usize = 4096;

/// The huge pages of x86-64 and of most kernels for arm64, in bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Address space, zeros at first, taken from the system as it is touched.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    /// What is free: where, and how long. No two touch each other.
    free: Mutex<BTreeMap<usize, usize>>,
}

// SAFETY: a region is plain memory that no thread owns; it reads and writes none of it itself, and
// gives no byte to two at a time.
unsafe impl Send for Region {}
// SAFETY: as above; what changes is behind the mutex.
unsafe impl Sync for Region {}

impl Region {
    /// Address space for `len` bytes, or nothing if the system refuses it. An interpreter has none.
    ///
    /// What is larger than a huge page is made of whole ones: only such a mapping begins on the
    /// boundary of one (Linux 6.12 on).
    pub(crate) fn new(len: usize) -> Option<Region> {
        let len = if len > HUGE_PAGE_BYTES {
            len.checked_next_multiple_of(HUGE_PAGE_BYTES)?
        } else {
            len - len % PART_ALIGNMENT
        };
        if len == 0 || cfg!(miri) {
            return None;
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags) };
        let start = start.ok()?;
        // SAFETY: of the new mapping; it changes no byte.
        let advised = unsafe { madvise(start, len, Advice::LinuxHugepage) };
        // Without huge pages it is slower, and that is all.
        let _ = advised;
        Some(Region {
            start: NonNull::new(start.cast())?,
            len,
            free: Mutex::new(BTreeMap::from([(0, len)])),
        })
    }

    /// `bytes` that nobody else has, a multiple of [`PART_ALIGNMENT`]; nothing if no gap is that
    /// large.
    pub(crate) fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        assert!(
            bytes > 0 && bytes.is_multiple_of(PART_ALIGNMENT),
            "a part of {bytes} bytes"
        );
        let mut free = self.free();
        let (&at, &len) = free.iter().find(|&(_, &len)| len >= bytes)?;
        free.remove(&at);
        if len > bytes {
            free.insert(at + bytes, len - bytes);
        }
        // SAFETY: free ranges lie within the mapping.
        Some(unsafe { self.start.add(at) })
    }

    /// Takes back what [`take`](Region::take) gave.
    ///
    /// # Panics
    ///
    /// If it is no part of this region, or free.
    pub(crate) fn give_back(&self, part: NonNull<u8>, bytes: usize) {
        let at = part.addr().get().wrapping_sub(self.start.addr().get());
        assert!(at < self.len && bytes <= self.len - at, "a part of another");
        let mut free = self.free();
        let (mut from, mut to) = (at, at + bytes);
        if let Some((&before, &len)) = free.range(..at).next_back() {
            assert!(before + len <= at, "given back twice");
            if before + len == at {
                from = before;
            }
        }
        if let Some((&behind, &len)) = free.range(at..).next() {
            assert!(behind >= to, "given back twice");
            if behind == to {
                to = behind + len;
                free.remove(&behind);
            }
        }
        free.insert(from, to - from);
    }

    fn free(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        // Ranges are consistent between any two statements that can panic.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and whoever had a part of it kept the region alive.
        let gone = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(gone.is_ok(), "munmap: {gone:?}");
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    const PART: usize = PART_ALIGNMENT;

    #[test]
    fn the_lowest_gap_that_fits_is_taken() {
        let region = Region::new(10 * PART + 7).unwrap();
        let parts: Vec<_> = (0..5).map(|_| region.take(2 * PART).unwrap()).collect();
        assert!(parts.is_sorted(), "side by side");
        assert_eq!(region.take(PART), None, "all is taken");
        region.give_back(parts[3], 2 * PART);
        region.give_back(parts[1], 2 * PART);
        assert_eq!(region.take(PART), Some(parts[1]));
        assert_eq!(region.take(2 * PART), Some(parts[3]));
        assert_eq!(region.take(2 * PART), None, "no gap is that large");
    }

    #[test]
    fn a_large_one_is_made_of_whole_huge_pages() {
        let region = Region::new(HUGE_PAGE_BYTES + PART).unwrap();
        let first = region.take(HUGE_PAGE_BYTES).unwrap();
        let second = region.take(HUGE_PAGE_BYTES).unwrap();
        assert_eq!(second.addr().get() - first.addr().get(), HUGE_PAGE_BYTES);
        assert_eq!(region.take(PART), None);
    }

    #[test]
    fn neighbours_become_one_again() {
        let region = Region::new(8 * PART).unwrap();
        let mut parts: Vec<_> = (0..8).map(|_| region.take(PART).unwrap()).collect();
        let whole = parts[0];
        fastrand::Rng::with_seed(1).shuffle(&mut parts);
        for part in parts {
            region.give_back(part, PART);
        }
        assert_eq!(region.take(8 * PART), Some(whole));
    }

    #[test]
    fn parts_do_not_overlap() {
        let region = Region::new(64 * PART).unwrap();
        let mut rng = fastrand::Rng::with_seed(2);
        let mut held: Vec<(NonNull<u8>, usize)> = Vec::new();
        for _ in 0..10_000 {
            if rng.bool() {
                let bytes = rng.usize(1..9) * PART;
                let Some(part) = region.take(bytes) else {
                    continue;
                };
                let from = part.addr().get();
                let apart = |&(other, len): &(NonNull<u8>, usize)| {
                    let other = other.addr().get();
                    from + bytes <= other || other + len <= from
                };
                assert!(held.iter().all(apart));
                held.push((part, bytes));
            } else if !held.is_empty() {
                let (part, bytes) = held.swap_remove(rng.usize(..held.len()));
                region.give_back(part, bytes);
            }
        }
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn nothing_is_given_back_twice() {
        let region = Region::new(4 * PART).unwrap();
        let part = region.take(PART).unwrap();
        region.give_back(part, PART);
        region.give_back(part, PART);
    }

    #[test]
    fn there_may_be_no_such_region() {
        assert!(Region::new(0).is_none());
        assert!(Region::new(usize::MAX).is_none());
    }
}

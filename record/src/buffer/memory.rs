//! Where a buffer's memory comes from: the allocator, or for large buffers slabs of the system's
//! own in huge pages.
//!
//! Direct writes pin every page of what they write, and copies look up every page that they
//! touch; both cost several times less when a page has 2 MiB. The allocator's memory seldom lies
//! so that the system can use such pages. A slab is cut into buffers of one size class. Its
//! pages come when they are first touched, as zeros, and are given back one buffer at a time
//! ([`Allocation::give_back`]), so that only addresses are left of what a pool cannot keep.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

/// What the system calls a huge page, in bytes, on the machines that we know.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The smallest buffer that is cut from a slab, in bytes. A pool has up to a huge page for each
/// size class from here on that it does not need, and saves little by smaller ones.
const SLOT_BYTES_MIN: usize = 256 << 10;

/// A slab's size in bytes, unless a single buffer is larger.
const SLAB_BYTES: usize = 8 << 20;

/// Initialised, aligned memory, freed on drop.
pub(super) struct Allocation {
    start: NonNull<u8>,
    bytes: usize,
    origin: Origin,
}

/// What is freed.
enum Origin {
    Allocator(Layout),
    /// All of the slab, with the last of its allocations.
    Slab {
        slab: Arc<MmapRaw>,
        is_shared: bool,
    },
}

// SAFETY: an allocation is plain memory that no thread owns; who may touch which of its bytes
// is ruled by `Buffer` and `BufferMut` (see the module's documentation).
unsafe impl Send for Allocation {}
// SAFETY: as above; through a shared reference only its address and size are read here.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// `bytes` zeros of the allocator, or nothing if the system has no memory.
    pub(super) fn new(bytes: usize, alignment: usize) -> Option<Allocation> {
        assert!(bytes > 0, "an allocation is never empty");
        let layout = Layout::from_size_align(bytes, alignment).ok()?;
        // SAFETY: the layout's size is not zero, asserted above.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Allocation {
            start,
            bytes,
            origin: Origin::Allocator(layout),
        })
    }

    /// One or more of `bytes` zeros each, cut from a slab if they are large enough; none if the
    /// system has no memory.
    pub(super) fn several(bytes: usize, alignment: usize) -> Vec<Allocation> {
        // Miri knows nothing of huge pages.
        let from_slab = bytes >= SLOT_BYTES_MIN && alignment <= HUGE_PAGE_BYTES && !cfg!(miri);
        let cut = from_slab.then(|| Allocation::cut_slab(bytes)).flatten();
        cut.unwrap_or_else(|| Allocation::new(bytes, alignment).into_iter().collect())
    }

    /// All allocations of a new slab; `bytes` is a multiple of their alignment.
    fn cut_slab(bytes: usize) -> Option<Vec<Allocation>> {
        let slab_bytes = bytes.max(SLAB_BYTES).next_multiple_of(HUGE_PAGE_BYTES);
        let mut options = MmapOptions::new();
        // Room to begin at a huge page's boundary.
        options.len(slab_bytes + HUGE_PAGE_BYTES);
        let slab = MmapRaw::from(options.map_anon().ok()?);
        // A kernel that does not know them gives small ones.
        #[cfg(target_os = "linux")]
        let _ = slab.advise(memmap2::Advice::HugePage);
        let first = slab.as_mut_ptr().align_offset(HUGE_PAGE_BYTES);
        let slab = Arc::new(slab);
        let count = slab_bytes / bytes;
        let place = |number: usize| {
            let at = first + number * bytes;
            assert!(at + bytes <= slab.len(), "it is cut from the slab");
            // SAFETY: `at` lies within the mapping, as was just asserted.
            let start = NonNull::new(unsafe { slab.as_mut_ptr().add(at) })?;
            let origin = Origin::Slab {
                slab: Arc::clone(&slab),
                is_shared: count > 1,
            };
            Some(Allocation {
                start,
                bytes,
                origin,
            })
        };
        (0..count).map(place).collect()
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of byte `at`.
    pub(super) fn at(&self, at: usize) -> NonNull<u8> {
        assert!(at <= self.bytes, "outside of the allocation");
        // SAFETY: `at` is inside the allocation or one past its end, asserted above.
        unsafe { self.start.add(at) }
    }

    /// Gives the memory back to the system and keeps the addresses, where zeros will be found;
    /// nothing if dropping it gives back no less.
    pub(super) fn give_back(self) -> Option<Allocation> {
        let Origin::Slab {
            slab,
            is_shared: true,
        } = &self.origin
        else {
            return None;
        };
        let offset = self.start.as_ptr().addr() - slab.as_mut_ptr().addr();
        // SAFETY: nobody else has a handle to these bytes: whoever has an allocation by value is
        // the last. What they held is of no use, and what is found there next are zeros, hence
        // initialised.
        let given =
            unsafe { slab.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, self.bytes) };
        given.is_ok().then_some(self)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Origin::Allocator(layout) = self.origin {
            // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here;
            // an allocation is dropped by the last handle or by its free list, so nobody sees it.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

//! Memory that records lie in: pooled, block-aligned, refcounted, charged to a budget.
//!
//! A [`BufferMut`] has one writer. What it has written it can [`share`](BufferMut::share) as
//! [`Buffer`]s, refcounted and immutable from then on, while the writer goes on behind them and
//! in the gaps it has not shared: so the body of a frame may travel to followers while the
//! frame's header, stamped when the write is submitted, is still missing. When the last handle
//! is dropped the memory goes back to its [`BufferPool`], since fresh memory must be faulted in
//! page by page and costs more than the copy into it.
//!
//! # Why this is sound
//!
//! All memory is initialised when it is allocated (zeros, or what an earlier buffer left) and stays so, hence reading any of it
//! is defined, if not always meaningful. One allocation is seen through many handles; no `&mut`
//! ever covers a byte that a `Buffer` may see:
//!
//! - `Buffer`s only read. Each covers bytes inside a range that its writer has frozen.
//! - `BufferMut` is not `Clone`; it writes only bytes that are not frozen, and only through
//!   slices made of raw pointers, for just those bytes.
//! - Frozen bytes stay frozen as long as the allocation lives as this one buffer: the set of
//!   frozen ranges only grows, and the memory is recycled only by the last handle's drop.
#![expect(
    unsafe_code,
    reason = "bytes of one allocation are shared and written at once, at disjoint ranges, and \
              aligned memory needs the allocator's interface"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::budget::{Budget, BudgetExhausted, Charge};
use crate::crc::{PIECE_BYTES, crc32c, crc32c_of_pieces};
use crate::region::{PART_ALIGNMENT, Region};

/// The smallest alignment of pooled memory, in bytes: a page, and a block of most disks.
pub const ALIGNMENT_MIN: usize = 4096;

/// The largest alignment of pooled memory, in bytes.
pub const ALIGNMENT_MAX: usize = 1 << 20;

/// The largest single buffer, in bytes; whoever asks for more is refused as if the budget
/// were exhausted.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;

/// Aligned memory by size classes, reused when its last handle is dropped.
///
/// Cheap to clone; clones share their free lists. A pool per shard keeps its lock uncontended.
///
/// ```
/// use highwater_record::{Budget, BufferPool};
///
/// let pool = BufferPool::new(Budget::new(1 << 20), 4096);
/// let mut writer = pool.get(10_000).expect("the budget is empty");
/// writer.put_zeros(64);                       // the header is not known yet
/// writer.extend_from_slice(b"body");
/// let body = writer.share(64..68);            // already on its way
/// writer.write_at(0, &[7; 64]);               // the gap in front is still ours
/// assert_eq!(&body[..], b"body");
/// assert!(writer.freeze().is_aligned(4096));
/// ```
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<PoolShared>,
}

struct PoolShared {
    budget: Budget,
    alignment: usize,
    /// Where large buffers are cut from: a quarter more than the budget allows, so that gaps that
    /// are too small for what is wanted hold nothing up.
    region: OnceLock<Option<Arc<Region>>>,
    /// Idle memory of other buffers, sorted by size; a class has at most a few entries, the whole
    /// is bounded by the budget's idle share.
    free: Mutex<Vec<FreeClass>>,
}

/// From how many bytes on a pool's buffers are cut from its region.
const LARGE_BYTES: usize = 64 << 10;

struct FreeClass {
    bytes: usize,
    idle: Vec<Allocation>,
}

impl BufferPool {
    /// A pool that charges `budget` and aligns to `alignment` bytes, raised to
    /// [`ALIGNMENT_MIN`].
    ///
    /// # Panics
    ///
    /// If `alignment` is no power of two or above [`ALIGNMENT_MAX`].
    #[must_use]
    pub fn new(budget: Budget, alignment: usize) -> BufferPool {
        assert!(
            alignment.is_power_of_two(),
            "alignment {alignment} is no power of two"
        );
        assert!(
            alignment <= ALIGNMENT_MAX,
            "alignment {alignment} too large"
        );
        BufferPool {
            shared: Arc::new(PoolShared {
                budget,
                alignment: alignment.max(ALIGNMENT_MIN),
                region: OnceLock::new(),
                free: Mutex::new(Vec::new()),
            }),
        }
    }

    /// The budget that this pool charges.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// How its memory is aligned, in bytes.
    #[must_use]
    pub fn alignment(&self) -> usize {
        self.shared.alignment
    }

    /// An empty buffer with room for at least `capacity` bytes.
    ///
    /// # Errors
    ///
    /// [`BudgetExhausted`] if the size class does not fit into the budget, is above
    /// [`BUFFER_BYTES_MAX`], or if the system refuses the memory.
    pub fn get(&self, capacity: usize) -> Result<BufferMut, BudgetExhausted> {
        let budget = &self.shared.budget;
        if capacity > BUFFER_BYTES_MAX {
            return Err(budget.exhausted(capacity, budget.used()));
        }
        let bytes = size_class(capacity, self.shared.alignment);
        let charge = budget.charge(bytes)?;
        let allocation = match self.shared.take(bytes) {
            Some(allocation) => allocation,
            None => {
                self.shared.give_up_idle();
                Allocation::new(bytes, self.shared.alignment)
                    .ok_or_else(|| budget.exhausted(bytes, budget.used()))?
            }
        };
        let home = Home {
            pool: Arc::clone(&self.shared),
            charge,
        };
        Ok(BufferMut::over(Block::new(allocation, Some(home))))
    }

    /// An empty buffer with room for at least `capacity` bytes behind `headroom` bytes that
    /// [`BufferMut::prepend`] may fill later.
    ///
    /// # Errors
    ///
    /// As [`get`](BufferPool::get).
    pub fn get_with_headroom(
        &self,
        headroom: usize,
        capacity: usize,
    ) -> Result<BufferMut, BudgetExhausted> {
        let total = headroom.saturating_add(capacity);
        Ok(self.get(total)?.with_headroom(headroom))
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("alignment", &self.shared.alignment)
            .field("budget", &self.shared.budget)
            .finish()
    }
}

impl PoolShared {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<FreeClass>> {
        // A panic elsewhere cannot leave a list half changed: nothing in here panics between
        // two steps.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: usize) -> Option<Allocation> {
        if bytes >= LARGE_BYTES
            && let Some(part) = self.take_part(bytes)
        {
            return Some(part);
        }
        let mut free = self.free();
        let class = free
            .binary_search_by_key(&bytes, |class| class.bytes)
            .ok()?;
        let allocation = free[class].idle.pop()?;
        self.budget.leave_idle(bytes);
        Some(allocation)
    }

    fn take_part(&self, bytes: usize) -> Option<Allocation> {
        if self.alignment > PART_ALIGNMENT {
            return None;
        }
        let limit = self.budget.limit();
        let region = self
            .region
            .get_or_init(|| Region::new(limit.saturating_add(limit / 4)).map(Arc::new));
        Allocation::part_of(region.as_ref()?, bytes)
    }

    /// Gives idle memory back to the system, the largest first, where it and what is in use pass the
    /// limit together: it has not the size that is wanted.
    fn give_up_idle(&self) {
        if !self.budget.is_exceeded() {
            return;
        }
        let mut free = self.free();
        for class in free.iter_mut().rev() {
            while self.budget.is_exceeded() && class.idle.pop().is_some() {
                self.budget.leave_idle(class.bytes);
            }
        }
    }

    fn put(&self, allocation: Allocation) {
        if allocation.region.is_some() {
            return;
        }
        let bytes = allocation.layout.size();
        if !self.budget.try_idle(bytes) {
            return;
        }
        let mut free = self.free();
        match free.binary_search_by_key(&bytes, |class| class.bytes) {
            Ok(class) => free[class].idle.push(allocation),
            Err(at) => free.insert(
                at,
                FreeClass {
                    bytes,
                    idle: vec![allocation],
                },
            ),
        }
    }
}

impl Drop for PoolShared {
    fn drop(&mut self) {
        for class in self.free().drain(..) {
            self.budget.leave_idle(class.bytes * class.idle.len());
        }
    }
}

/// The size class of `bytes`: four classes a doubling, so at most a quarter is wasted, and a
/// multiple of `alignment`.
fn size_class(bytes: usize, alignment: usize) -> usize {
    let bytes = bytes.max(1);
    let step = (bytes.next_power_of_two() / 8).max(alignment);
    bytes.next_multiple_of(step)
}

/// Initialised, aligned memory, freed on drop.
struct Allocation {
    start: NonNull<u8>,
    layout: Layout,
    /// What it is a part of, if not of the heap.
    region: Option<Arc<Region>>,
}

// SAFETY: an allocation is plain memory that no thread owns; who may touch which of its bytes
// is ruled by `Buffer` and `BufferMut` (see the module's documentation).
unsafe impl Send for Allocation {}
// SAFETY: as above; through a shared reference only its address and layout are read here.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// `bytes` zeros, or nothing if the system has no memory.
    fn new(bytes: usize, alignment: usize) -> Option<Allocation> {
        assert!(bytes > 0, "an allocation is never empty");
        let layout = Layout::from_size_align(bytes, alignment).ok()?;
        // SAFETY: the layout's size is not zero, asserted above.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Allocation {
            start,
            layout,
            region: None,
        })
    }

    /// `bytes` of a region, zeros or what was there before; nothing if it has no gap of that size.
    fn part_of(region: &Arc<Region>, bytes: usize) -> Option<Allocation> {
        let layout = Layout::from_size_align(bytes, PART_ALIGNMENT).ok()?;
        Some(Allocation {
            start: region.take(bytes)?,
            layout,
            region: Some(Arc::clone(region)),
        })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // It is dropped by the last handle or by its free list, so nobody sees it.
        match &self.region {
            Some(region) => region.give_back(self.start, self.layout.size()),
            // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here.
            None => unsafe { dealloc(self.start.as_ptr(), self.layout) },
        }
    }
}

/// An allocation in use and the way home.
struct Block {
    /// Always there until drop, which takes it.
    allocation: Option<Allocation>,
    home: Option<Home>,
    /// The CRC-32C of each whole piece from the first byte on that was summed when it was written.
    sums: OnceLock<Box<[u32]>>,
}

struct Home {
    pool: Arc<PoolShared>,
    /// Released before the memory goes home, where it is idle and not in use.
    charge: Charge,
}

impl Block {
    fn new(allocation: Allocation, home: Option<Home>) -> Block {
        Block {
            allocation: Some(allocation),
            home,
            sums: OnceLock::new(),
        }
    }

    fn allocation(&self) -> &Allocation {
        self.allocation
            .as_ref()
            .expect("only drop takes the allocation")
    }

    fn size(&self) -> usize {
        self.allocation().layout.size()
    }

    /// The address of byte `at`.
    fn at(&self, at: usize) -> NonNull<u8> {
        let allocation = self.allocation();
        assert!(at <= allocation.layout.size(), "outside of the allocation");
        // SAFETY: `at` is inside the allocation or one past its end, asserted above.
        unsafe { allocation.start.add(at) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (Some(allocation), Some(home)) = (self.allocation.take(), self.home.take()) {
            let Home { pool, charge } = home;
            drop(charge);
            pool.put(allocation);
        }
    }
}

/// The only writer of a stretch of pooled memory.
///
/// Positions count from 0, the first byte behind the headroom. Bytes below
/// [`len`](BufferMut::len) are written; they are frozen once they have been shared, and until
/// then may be written again. The capacity never changes.
pub struct BufferMut {
    block: Arc<Block>,
    /// Where position 0 lies in the block.
    origin: usize,
    /// Where the first prepended byte lies; `front <= origin <= end <= block.size()`.
    front: usize,
    /// Where the first byte that was never written lies.
    end: usize,
    /// What has been shared, in block coordinates, within `front..end`.
    frozen: Frozen,
    /// Of the block's first pieces, which are frozen.
    sums: Vec<u32>,
}

impl BufferMut {
    /// A buffer of its own memory, charged to nobody: for tests and tools.
    ///
    /// # Panics
    ///
    /// If `alignment` is no power of two, `capacity` is above [`BUFFER_BYTES_MAX`], or the
    /// system has no memory.
    #[must_use]
    pub fn unpooled(capacity: usize, alignment: usize) -> BufferMut {
        assert!(
            capacity <= BUFFER_BYTES_MAX,
            "{capacity} bytes are too many"
        );
        let bytes = capacity.max(1).next_multiple_of(alignment);
        let allocation = Allocation::new(bytes, alignment).expect("the system has memory");
        BufferMut::over(Block::new(allocation, None))
    }

    fn over(block: Block) -> BufferMut {
        BufferMut {
            block: Arc::new(block),
            origin: 0,
            front: 0,
            end: 0,
            frozen: Frozen::default(),
            sums: Vec::new(),
        }
    }

    /// Keeps `bytes` in front of position 0 for [`prepend`](BufferMut::prepend).
    ///
    /// # Panics
    ///
    /// If something was written already, or the block is smaller.
    #[must_use]
    pub fn with_headroom(mut self, bytes: usize) -> BufferMut {
        assert_eq!(self.front, self.end, "headroom comes before the first byte");
        assert!(
            bytes <= self.block.size() - self.end,
            "headroom of {bytes} bytes exceeds the buffer"
        );
        let origin = self.end + bytes;
        (self.origin, self.front, self.end) = (origin, origin, origin);
        self
    }

    /// How many bytes have been written behind the headroom.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.origin
    }

    /// Whether nothing has been written behind the headroom.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes fit behind the headroom in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.size() - self.origin
    }

    /// How many more bytes fit at the end.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.block.size() - self.end
    }

    /// How many more bytes fit in front.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.front
    }

    /// Everything written behind the headroom, frozen or not.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.read(self.origin..self.end)
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    ///
    /// If they do not fit; ask [`remaining`](BufferMut::remaining) first.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Sums what was written since the last time, as far as it fills whole pieces, for
    /// [`Buffer::crc32c`]: right behind the write it costs a fraction of what reading the memory
    /// again does. What is summed is frozen. Behind a headroom nothing is.
    pub fn sum_written(&mut self) {
        if self.origin != 0 {
            return;
        }
        loop {
            let start = self.sums.len() * PIECE_BYTES;
            let piece = start..start + PIECE_BYTES;
            if piece.end > self.end {
                return;
            }
            self.sums.push(crc32c(self.read(piece.clone())));
            self.frozen.insert(piece);
        }
    }

    /// Takes over what the first bytes of another are, and their sums, in the place of its own.
    ///
    /// # Panics
    ///
    /// If something was written already, or they do not fit.
    pub fn begin_with(&mut self, other: &BufferMut) {
        assert!(self.front == self.end, "something was written already");
        self.extend_from_slice(other.as_slice());
        if self.origin == 0 && other.origin == 0 {
            self.sums.clone_from(&other.sums);
            self.frozen.insert(0..self.sums.len() * PIECE_BYTES);
        }
    }

    /// Appends `count` zeros: padding, or a gap for [`write_at`](BufferMut::write_at).
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn put_zeros(&mut self, count: usize) {
        self.spare_mut()[..count].fill(0);
        self.end += count;
    }

    /// The room at the end, to be read into and then taken over by
    /// [`advance`](BufferMut::advance). It holds arbitrary bytes of earlier use.
    #[must_use]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let range = self.end..self.block.size();
        self.write(range)
    }

    /// Takes the first `count` bytes of [`spare_mut`](BufferMut::spare_mut) over as written.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.remaining(),
            "advanced by {count} bytes over {} bytes of room",
            self.remaining()
        );
        self.end += count;
    }

    /// Writes `bytes` over written but not frozen ones, from `position` on.
    ///
    /// # Panics
    ///
    /// If a byte of them was never written or is frozen.
    pub fn write_at(&mut self, position: usize, bytes: &[u8]) {
        let end = position
            .checked_add(bytes.len())
            .expect("a slice ends below the end of memory");
        self.unshared_mut(position..end).copy_from_slice(bytes);
    }

    /// The bytes of `range`, written but not frozen.
    ///
    /// # Panics
    ///
    /// If a byte of them was never written or is frozen.
    #[must_use]
    pub fn unshared_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let range = self.in_block(range);
        self.write(range)
    }

    /// Puts `bytes` in front of everything, into the headroom.
    ///
    /// # Panics
    ///
    /// If the headroom is smaller.
    pub fn prepend(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.front,
            "{} bytes prepended to a headroom of {}",
            bytes.len(),
            self.front
        );
        let front = self.front - bytes.len();
        self.write(front..self.front).copy_from_slice(bytes);
        self.front = front;
    }

    /// Freezes `range` and gives a handle on it. Ranges may be shared again and may overlap.
    ///
    /// # Panics
    ///
    /// If a byte of them was never written.
    #[must_use]
    pub fn share(&mut self, range: Range<usize>) -> Buffer {
        let range = self.in_block(range);
        self.share_block(range)
    }

    /// Everything written, prepended bytes first.
    #[must_use]
    pub fn freeze(mut self) -> Buffer {
        if !self.sums.is_empty() {
            let sums = std::mem::take(&mut self.sums);
            let first = self.block.sums.set(sums.into());
            first.expect("a block is frozen once, by its only writer");
        }
        self.share_block(self.front..self.end)
    }

    fn share_block(&mut self, range: Range<usize>) -> Buffer {
        self.frozen.insert(range.clone());
        Buffer {
            inner: Inner::Block {
                start: self.block.at(range.start),
                len: range.len(),
                block: Arc::clone(&self.block),
            },
        }
    }

    /// A written range of positions in block coordinates.
    fn in_block(&self, range: Range<usize>) -> Range<usize> {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "{range:?} is not within the {} bytes written",
            self.len()
        );
        self.origin + range.start..self.origin + range.end
    }

    fn read(&self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.block.size());
        let start = self.block.at(range.start);
        // SAFETY: the range lies within the block, asserted, whose memory is initialised and
        // lives as long as `self.block`. It is written only by this `BufferMut`, through
        // `&mut self`, which the returned borrow excludes.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    fn write(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.end <= self.block.size());
        assert!(
            !self.frozen.overlaps(&range),
            "bytes {range:?} of a block are written after they were shared"
        );
        let start = self.block.at(range.start);
        // SAFETY: the range lies within the block, asserted, whose memory is initialised and
        // lives as long as `self.block`. No `Buffer` covers a byte of it, since `Buffer`s
        // cover frozen bytes only and none of these is frozen, asserted; no other writer
        // exists, and `&mut self` excludes every slice made by this one.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("frozen", &self.frozen.ranges)
            .finish()
    }
}

/// A set of bytes as sorted, disjoint, not touching ranges. It only grows.
#[derive(Default)]
struct Frozen {
    ranges: Vec<Range<usize>>,
}

impl Frozen {
    fn insert(&mut self, mut new: Range<usize>) {
        if new.is_empty() {
            return;
        }
        // Touching ranges are merged too: so a buffer whose gaps have all been filled and
        // shared is one range again, however many frames it holds.
        let first = self.ranges.partition_point(|old| old.end < new.start);
        let last = self.ranges.partition_point(|old| old.start <= new.end);
        if first < last {
            new.start = new.start.min(self.ranges[first].start);
            new.end = new.end.max(self.ranges[last - 1].end);
        }
        self.ranges.splice(first..last, [new]);
    }

    fn overlaps(&self, range: &Range<usize>) -> bool {
        let at = self.ranges.binary_search_by(|old| match () {
            () if old.end <= range.start => Ordering::Less,
            () if old.start >= range.end => Ordering::Greater,
            () => Ordering::Equal,
        });
        !range.is_empty() && at.is_ok()
    }
}

/// A refcounted, immutable stretch of bytes.
///
/// A clone or a slice costs a counter, no copy. It keeps its whole block alive and charged:
/// see [`pinned_bytes`](Buffer::pinned_bytes).
#[derive(Clone)]
pub struct Buffer {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Block {
        /// First byte, in `block`'s memory; all `len` bytes are frozen.
        start: NonNull<u8>,
        len: usize,
        block: Arc<Block>,
    },
    Bytes(Bytes),
}

// SAFETY: a `Buffer` only reads its bytes, which nobody writes any more (they are frozen), and
// its other parts are `Send`; `start` is just an address in memory that `block` keeps alive.
unsafe impl Send for Buffer {}
// SAFETY: as above; reading from several threads at once is fine.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// No bytes.
    #[must_use]
    pub const fn new() -> Buffer {
        Buffer {
            inner: Inner::Bytes(Bytes::new()),
        }
    }

    /// A copy of `bytes` in memory of its own, aligned to `alignment`, charged to nobody: for
    /// tests and tools.
    ///
    /// # Panics
    ///
    /// As [`BufferMut::unpooled`].
    #[must_use]
    pub fn aligned_copy(bytes: &[u8], alignment: usize) -> Buffer {
        let mut copy = BufferMut::unpooled(bytes.len(), alignment);
        copy.extend_from_slice(bytes);
        copy.freeze()
    }

    /// Bytes that something else keeps, such as a mapped file.
    #[must_use]
    pub fn from_owner<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Buffer {
        Buffer::from(Bytes::from_owner(owner))
    }

    /// The bytes of `range` of this buffer, without a copy.
    ///
    /// # Panics
    ///
    /// If the range is not within the buffer.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Buffer {
        let range = resolve(range, self.len());
        let inner = match &self.inner {
            Inner::Bytes(bytes) => Inner::Bytes(bytes.slice(range)),
            Inner::Block { start, block, .. } => Inner::Block {
                // SAFETY: `resolve` has checked that the range is within this buffer's `len`
                // bytes, which are all of one allocation.
                start: unsafe { start.add(range.start) },
                len: range.len(),
                block: Arc::clone(block),
            },
        };
        Buffer { inner }
    }

    /// The CRC-32C of all bytes. What was [summed when it was written](BufferMut::sum_written) is
    /// not read again.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        match &self.inner {
            Inner::Block { start, block, .. } => match block.sums.get() {
                Some(sums) => {
                    let at = start.addr().get() - block.at(0).addr().get();
                    crc32c_of_pieces(self, at, sums)
                }
                None => crc32c(self),
            },
            Inner::Bytes(bytes) => crc32c(bytes),
        }
    }

    /// Whether the first byte lies at a multiple of `alignment`.
    #[must_use]
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.as_ptr().addr().is_multiple_of(alignment)
    }

    /// How many bytes of memory this handle keeps alive, which may be far more than its own.
    /// For bytes not from a pool: its length, for want of better knowledge.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        match &self.inner {
            Inner::Block { block, .. } => block.size(),
            Inner::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The range in numbers, checked against `len`.
fn resolve(range: impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(
        start <= end && end <= len,
        "{start}..{end} is not within {len} bytes"
    );
    start..end
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.inner {
            Inner::Bytes(bytes) => bytes,
            // SAFETY: `start` and `len` were checked against `block`'s memory when they were
            // made; it is initialised and lives as long as `block`. The bytes are frozen, so
            // no `&mut` to them exists or will.
            Inner::Block { start, len, .. } => unsafe {
                std::slice::from_raw_parts(start.as_ptr(), *len)
            },
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Buffer) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer::from(Bytes::from(bytes))
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Buffer {
        Buffer {
            inner: Inner::Bytes(bytes),
        }
    }
}

impl From<Buffer> for Bytes {
    /// Without a copy.
    fn from(buffer: Buffer) -> Bytes {
        match buffer.inner {
            Inner::Bytes(bytes) => bytes,
            inner @ Inner::Block { .. } => Bytes::from_owner(Buffer { inner }),
        }
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;

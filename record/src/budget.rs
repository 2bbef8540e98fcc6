//! How much memory may be alive at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// What part of a budget its pools may hold idle for reuse, of buffers that have no region: half of it, as long as that and what is
/// in use are within the limit together. Memory that is given back to the system comes again page
/// by page.
const IDLE_DIVISOR: usize = 2;

/// A limit in bytes on memory that is alive, shared by everyone who clones it.
///
/// ```
/// use highwater_record::Budget;
///
/// let budget = Budget::new(1000);
/// let charge = budget.charge(600).expect("it fits");
/// assert_eq!(budget.used(), 600);
/// assert!(budget.charge(600).is_err());
/// drop(charge);
/// assert_eq!(budget.used(), 0);
/// ```
#[derive(Clone)]
pub struct Budget {
    shared: Arc<BudgetShared>,
}

struct BudgetShared {
    limit: usize,
    used: AtomicUsize,
    /// Bytes that lie in free lists of pools.
    idle: AtomicUsize,
}

/// The memory that was asked for does not fit into the budget (or the system has none).
///
/// Nobody's fault: wait until others have released theirs, stop reading from whoever sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("memory budget exhausted: {wanted} bytes wanted, {used} of {limit} bytes in use")]
pub struct BudgetExhausted {
    /// How many bytes were asked for, after rounding to a size class.
    pub wanted: usize,
    /// How many bytes were in use at that moment.
    pub used: usize,
    /// The budget's limit in bytes.
    pub limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Budget {
        Budget {
            shared: Arc::new(BudgetShared {
                limit,
                used: AtomicUsize::new(0),
                idle: AtomicUsize::new(0),
            }),
        }
    }

    /// How many bytes are charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.shared.used.load(Relaxed)
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// How many bytes pools hold for reuse, those of their regions aside; not part of [`used`](Budget::used).
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.idle.load(Relaxed)
    }

    /// Reserves `bytes` until the returned guard is dropped.
    ///
    /// # Errors
    ///
    /// [`BudgetExhausted`] if the limit would be passed.
    pub fn charge(&self, bytes: usize) -> Result<Charge, BudgetExhausted> {
        let fits = |used: usize| {
            used.checked_add(bytes)
                .filter(|&total| total <= self.shared.limit)
        };
        match self.shared.used.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(Charge {
                budget: self.clone(),
                bytes,
            }),
            Err(used) => Err(self.exhausted(bytes, used)),
        }
    }

    /// The error that says so.
    pub(crate) fn exhausted(&self, wanted: usize, used: usize) -> BudgetExhausted {
        BudgetExhausted {
            wanted,
            used,
            limit: self.shared.limit,
        }
    }

    /// Counts `bytes`, which are not in use any more, as idle if there is room for them.
    pub(crate) fn try_idle(&self, bytes: usize) -> bool {
        let limit = self.shared.limit;
        let left = limit.saturating_sub(self.used()).min(limit / IDLE_DIVISOR);
        let fits = |idle: usize| idle.checked_add(bytes).filter(|&total| total <= left);
        self.shared
            .idle
            .fetch_update(Relaxed, Relaxed, fits)
            .is_ok()
    }

    /// Whether idle memory must be given up for what is in use.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used().saturating_add(self.idle()) > self.shared.limit
    }

    /// Takes back `bytes` that [`try_idle`](Budget::try_idle) has counted.
    pub(crate) fn leave_idle(&self, bytes: usize) {
        let before = self.shared.idle.fetch_sub(bytes, Relaxed);
        assert!(before >= bytes, "more idle memory taken than was put");
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish()
    }
}

/// Bytes reserved in a [`Budget`] until this is dropped.
#[derive(Debug)]
#[must_use = "dropping a charge releases it"]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// How many bytes are reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let before = self.budget.shared.used.fetch_sub(self.bytes, Relaxed);
        assert!(before >= self.bytes, "more released than was charged");
    }
}

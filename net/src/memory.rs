//! Memory for what is read: charged before it is read, waited for when there is none.

use std::time::Duration;

use highwater_record::{BufferMut, BufferPool};

use crate::counter::Counter;

/// How long to wait before the budget is asked again. It cannot wake anybody: what is charged is
/// released on any thread, wherever a buffer's last owner is.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(1);
const RETRY_AFTER_MAX: Duration = Duration::from_millis(16);

/// More was asked for than the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeverFits;

/// A buffer for `bytes`, as soon as the budget has them, and `others` more that are not for this
/// reader. Whoever waits here does not read, so the sender is stopped by flow control.
pub(crate) async fn reserve(
    pool: &BufferPool,
    bytes: usize,
    others: usize,
    waits: &Counter,
) -> Result<BufferMut, NeverFits> {
    let mut retry_after = RETRY_AFTER_MIN;
    let budget = pool.budget();
    let most = budget.limit().saturating_sub(others);
    if bytes > most {
        return Err(NeverFits);
    }
    loop {
        if budget.used().saturating_add(bytes) <= most {
            match pool.get(bytes) {
                Ok(buffer) => return Ok(buffer),
                // Rounded up, it may be more than there is.
                Err(exhausted) if exhausted.wanted > exhausted.limit => return Err(NeverFits),
                Err(_) => {}
            }
        }
        waits.add(1);
        tokio::time::sleep(retry_after).await;
        retry_after = RETRY_AFTER_MAX.min(retry_after * 2);
    }
}

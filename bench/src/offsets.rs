//! Where partitions begin and end, asked until they have leaders that know.

use std::time::Duration;

use anyhow::Result;
use highwater_client::{AdminError, Client, Offset, StartAt, TopicPartition};
use tokio::time::{Instant, sleep};

/// How long a partition may have no leader, or one that does not know its end yet: a topic that
/// has just been made has none.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it is waited until it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The offset at which reading a partition from `at` would begin.
pub(crate) async fn offset(client: &Client, of: &TopicPartition, at: StartAt) -> Result<Offset> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.admin().offset(of, at).await {
            Err(AdminError::Call(error)) if error.is_retriable() && Instant::now() < deadline => {
                sleep(PAUSE).await;
            }
            result => return Ok(result?),
        }
    }
}

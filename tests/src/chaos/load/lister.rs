//! Somebody who asks the leaders for the ends of their logs: an answer must have all that was
//! acknowledged before the question.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_client::{StartAt, TopicPartition};

use super::{Shared, producer::connect, topic_name};
use crate::clock::now;

/// How long from an answer to the next question.
const REST: Duration = Duration::from_millis(20);

pub(super) fn run(client: u64, shared: &Shared) -> anyhow::Result<Vec<PathBuf>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let connected = connect(shared.reach.client(true)).await?;
        let admin = connected.admin();
        let mut recorder = shared.recorder(client, false);
        let places = (0..shared.partitions.len()).cycle();
        for place in places {
            if shared.is_read.load(Ordering::Relaxed) {
                break;
            }
            let partition = &shared.partitions[place];
            let at = TopicPartition {
                topic: topic_name(partition),
                partition: u32::try_from(partition.index)?,
            };
            let asked_at = now();
            // An error promises nothing, and demands nothing.
            if let Ok(latest) = admin.offset(&at, StartAt::Latest).await {
                recorder.listed(asked_at, now(), place, i64::try_from(latest.0)?)?;
            }
            tokio::time::sleep(REST).await;
        }
        recorder.finish()
    })
}

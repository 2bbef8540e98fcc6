//! Consumers of ours: all partitions, from the beginning, without an end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use futures_util::FutureExt;
use highwater_client::{ConsumeError, ConsumedRecord, Consumer, StartAt};
use highwater_engine::testing::history::ReadRecord;

use super::{FIRST_CONSUMER, Shared, producer::connect, topic_name, value_of};
use crate::chaos::recorder::Recorder;
use crate::clock::now;

/// How long it is waited for a record before it is looked whether this is over.
const GLANCE: Duration = Duration::from_millis(100);

/// How many records are taken at once.
const POLL_RECORDS_MAX: usize = 1_000;

pub(super) fn run(client: u64, quic: bool, shared: &Arc<Shared>) -> anyhow::Result<Vec<PathBuf>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let connected = connect(shared.reach.client(quic)).await?;
        let mut reader = Reader {
            consumer: connected.consumer().build(),
            positions: vec![0; shared.partitions.len()],
            recorder: shared.recorder(client, false),
            number: usize::try_from(client - FIRST_CONSUMER)?,
            shared,
        };
        reader.begin().await?;
        while !shared.is_read.load(Ordering::Relaxed) {
            reader.poll().await?;
        }
        reader.recorder.finish()
    })
}

struct Reader<'a> {
    consumer: Consumer,
    /// The first offset of each partition that was not read.
    positions: Vec<i64>,
    recorder: Recorder,
    number: usize,
    shared: &'a Shared,
}

impl Reader<'_> {
    async fn begin(&mut self) -> anyhow::Result<()> {
        for partition in &self.shared.partitions {
            if partition.index == 0 {
                let topic = topic_name(partition);
                // While the metadata cannot be had, nothing is assigned.
                while self
                    .consumer
                    .assign_topic(&topic, StartAt::Earliest)
                    .await
                    .is_err()
                {
                    tokio::time::sleep(GLANCE).await;
                }
            }
        }
        Ok(())
    }

    /// What is there now, and as long for the first record as there is patience.
    async fn poll(&mut self) -> anyhow::Result<()> {
        let Ok(first) = tokio::time::timeout(GLANCE, self.consumer.recv()).await else {
            return Ok(());
        };
        let mut polled: BTreeMap<usize, Vec<ReadRecord>> = BTreeMap::new();
        let mut next = Some(first);
        for left in (0..POLL_RECORDS_MAX).rev() {
            match next {
                None => break,
                Some(Ok(record)) => self.take(&record, &mut polled)?,
                Some(Err(error)) => {
                    self.write(polled)?;
                    return self.meet(error);
                }
            }
            // What is taken out is to be looked at.
            next = (left > 0)
                .then(|| self.consumer.recv().now_or_never())
                .flatten();
        }
        self.write(polled)
    }

    fn take(
        &self,
        record: &ConsumedRecord,
        polled: &mut BTreeMap<usize, Vec<ReadRecord>>,
    ) -> anyhow::Result<()> {
        let at = &record.partition;
        let Some(place) = self.shared.place(at.topic.as_str(), at.partition) else {
            bail!("a record of {at}, which nobody asked for");
        };
        let record = ReadRecord {
            offset: i64::try_from(record.offset.0)?,
            value: value_of(record.value.as_deref()),
        };
        polled.entry(place).or_default().push(record);
        Ok(())
    }

    fn write(&mut self, polled: BTreeMap<usize, Vec<ReadRecord>>) -> anyhow::Result<()> {
        for (place, records) in polled {
            let end = records.last().map_or(0, |last| last.offset + 1);
            let from = std::mem::replace(&mut self.positions[place], end);
            self.recorder.polled(now(), place, from, records)?;
            self.shared.reads[self.number].reached(place, end);
        }
        Ok(())
    }

    /// Whatever it is, the consumer goes on; what must not be is written down.
    fn meet(&mut self, error: ConsumeError) -> anyhow::Result<()> {
        match error {
            ConsumeError::OffsetOutOfRange { partition, .. } => {
                let place = self
                    .shared
                    .place(partition.topic.as_str(), partition.partition);
                if let Some(place) = place {
                    self.recorder
                        .out_of_range(now(), place, self.positions[place])?;
                }
                self.consumer.seek(&partition, StartAt::Earliest)?;
                Ok(())
            }
            ConsumeError::CorruptBatch { .. } | ConsumeError::BatchTooLarge { .. } => {
                bail!("a consumer was given what it cannot read: {error}")
            }
            _ => Ok(()),
        }
    }
}

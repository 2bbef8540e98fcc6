//! Consumers side by side at the tail of a topic.

use anyhow::{Context, Result, bail};
use highwater_client::{Client, Consumer, StartAt, TopicName, TopicPartition};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::consume::consumer;
use crate::counted::{Counted, Counting};
use crate::offsets::offset;
use crate::pace::DRAIN;
use crate::producers::Sent;
use crate::stamp::Stamps;

/// Consumers that read what comes from now on, each its share of the partitions.
#[derive(Debug)]
pub(crate) struct Readers(Vec<Reader>);

#[derive(Debug)]
struct Reader {
    partitions: Vec<u32>,
    /// Told how many records there are for it in all.
    expect: oneshot::Sender<u64>,
    task: JoinHandle<Result<Counted>>,
}

/// Consumers of all that comes from now on: where each partition begins is asked for now, not with
/// the first fetch, or what is sent before that would be missed.
pub(crate) async fn consumers_at_the_end(
    client: &Client,
    topic: &TopicName,
    number: usize,
    fetch_bytes: Option<usize>,
) -> Result<Vec<(Consumer, Vec<u32>)>> {
    let described = client.admin().describe_topic(topic).await?;
    let partitions: Vec<u32> = described.partitions.keys().copied().collect();
    let mut consumers = Vec::new();
    for share in shares(&partitions, number)? {
        let mut consumer = consumer(client, fetch_bytes);
        for &partition in &share {
            let topic = topic.clone();
            let partition = TopicPartition { topic, partition };
            let end = offset(client, &partition, StartAt::Latest).await?;
            consumer.assign(partition, StartAt::Offset(end)).await?;
        }
        consumers.push((consumer, share));
    }
    Ok(consumers)
}

/// Each has as many partitions as the others, or one more.
fn shares(partitions: &[u32], number: usize) -> Result<Vec<Vec<u32>>> {
    if number == 0 || number > partitions.len() {
        bail!(
            "{number} consumers cannot share {} partitions: each reads at least one",
            partitions.len()
        );
    }
    let share = |nth| partitions.iter().copied().skip(nth).step_by(number);
    Ok((0..number).map(|nth| share(nth).collect()).collect())
}

impl Readers {
    /// Starts them; what is not of this run is read, and not counted.
    pub(crate) fn start(
        consumers: Vec<(Consumer, Vec<u32>)>,
        counting: Counting,
        stamps: Stamps,
    ) -> Readers {
        let readers = consumers.into_iter().map(|(consumer, partitions)| {
            let (expect, expected) = oneshot::channel();
            Reader {
                partitions,
                expect,
                task: tokio::spawn(read(consumer, counting, stamps, expected)),
            }
        });
        Readers(readers.collect())
    }

    /// Waits until all that was sent is read.
    pub(crate) async fn finish(self, sent: &Sent) -> Result<Counted> {
        let mut counted = Counted::default();
        let of = |partition: &u32| sent.get(partition).copied().unwrap_or_default();
        let mut tasks = Vec::new();
        for reader in self.0 {
            // If the reader is gone, it says why.
            let _ = reader.expect.send(reader.partitions.iter().map(of).sum());
            tasks.push(reader.task);
        }
        for task in tasks {
            counted.merge(&task.await??);
        }
        Ok(counted)
    }
}

/// Reads until as many are there as were sent.
async fn read(
    mut consumer: Consumer,
    counting: Counting,
    stamps: Stamps,
    mut expected: oneshot::Receiver<u64>,
) -> Result<Counted> {
    let mut counted = Counted::default();
    let (mut seen, mut sent, mut deadline) = (0_u64, None, Instant::now());
    while sent.is_none_or(|sent| seen < sent) {
        let record = tokio::select! {
            told = &mut expected, if sent.is_none() => {
                // The sender says why it has ended without a number.
                sent = Some(told.context("sending has failed")?);
                deadline = Instant::now() + DRAIN;
                continue;
            }
            () = sleep_until(deadline), if sent.is_some() => {
                bail!("{seen} records were read, of {}", sent.unwrap_or_default());
            }
            record = consumer.recv() => record?,
        };
        let Some(intended) = stamps.read(record.value.as_ref()) else {
            continue;
        };
        seen += 1;
        let bytes = record.value.map_or(0, |value| value.len());
        counted.add(&counting, intended, Instant::now(), bytes);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_share_all_partitions_and_none_is_idle() {
        let partitions = [0, 1, 2, 3, 4];
        assert_eq!(shares(&partitions, 2).unwrap(), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(shares(&partitions, 5).unwrap().len(), 5);
        assert!(shares(&partitions, 6).is_err());
        assert!(shares(&partitions, 0).is_err());
    }
}

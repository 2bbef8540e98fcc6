//! Which partition a record goes to.

use highwater_record::TopicName;
use std::collections::BTreeMap;

use crate::cluster::TopicDescription;

/// Kafka's hash of a key: MurmurHash2 with Kafka's seed, of which only the low 31 bits count. All
/// of Kafka's own clients put a key to this partition.
///
/// ```
/// use highwater_client::partition_of_key;
///
/// assert_eq!(partition_of_key(b"UA", 6), partition_of_key(b"UA", 6));
/// assert!(partition_of_key(b"UA", 6) < 6);
/// ```
///
/// # Panics
/// If there are no partitions.
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(data.len()).expect("keys are limited by the size of a record");
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word: [u8; 4] = word.try_into().expect("chunks_exact gives four bytes");
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// How often a partition is drawn before those that suit are listed. A topic may have thousands,
/// and nearly all of them suit nearly always.
const DRAWS: usize = 8;

/// Records without a key stay with one partition until a batch's worth has gone there, then move
/// on to another that has a leader (KIP-480, KIP-794): full batches rather than many small ones.
#[derive(Debug)]
pub(super) struct Sticky {
    rng: fastrand::Rng,
    batch_bytes: usize,
    topics: BTreeMap<TopicName, Choice>,
}

#[derive(Debug)]
struct Choice {
    partition: u32,
    bytes: usize,
}

impl Sticky {
    pub(super) fn new(seed: u64, batch_bytes: usize) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            batch_bytes,
            topics: BTreeMap::new(),
        }
    }

    pub(super) fn choose(&mut self, topic: &TopicDescription, record_bytes: usize) -> u32 {
        if let Some(choice) = self.topics.get_mut(&topic.name)
            && choice.bytes < self.batch_bytes
            && is_led(topic, choice.partition)
        {
            choice.bytes += record_bytes;
            return choice.partition;
        }
        let last = self.topics.get(&topic.name).map(|choice| choice.partition);
        let partition = self.another(topic, last);
        let bytes = record_bytes;
        self.topics
            .insert(topic.name.clone(), Choice { partition, bytes });
        partition
    }

    fn another(&mut self, topic: &TopicDescription, last: Option<u32>) -> u32 {
        let suits = |partition| is_led(topic, partition) && Some(partition) != last;
        for _ in 0..DRAWS {
            let partition = self.rng.u32(0..topic.partition_count().max(1));
            if suits(partition) {
                return partition;
            }
        }
        let led: Vec<u32> = topic
            .partitions
            .keys()
            .copied()
            .filter(|&partition| suits(partition))
            .collect();
        match led.as_slice() {
            [] => last.unwrap_or_else(|| self.rng.u32(0..topic.partition_count())),
            led => led[self.rng.usize(0..led.len())],
        }
    }
}

fn is_led(topic: &TopicDescription, partition: u32) -> bool {
    topic
        .partitions
        .get(&partition)
        .is_some_and(|partition| partition.leader.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PartitionDescription;

    #[test]
    fn hashes_are_kafkas() {
        // From Kafka's UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    fn topic(leaders: &[Option<i32>]) -> TopicDescription {
        let partition = |(index, leader): (usize, &Option<i32>)| {
            let description = PartitionDescription {
                leader: *leader,
                leader_epoch: 0,
                replicas: Vec::new(),
                in_sync_replicas: Vec::new(),
            };
            (u32::try_from(index).unwrap(), description)
        };
        TopicDescription {
            name: TopicName::new("t").unwrap(),
            id: highwater_protocol::messages::Uuid::nil(),
            is_internal: false,
            partitions: leaders.iter().enumerate().map(partition).collect(),
        }
    }

    #[test]
    fn keyless_records_stay_for_a_batch_and_then_move() {
        let topic = topic(&[Some(1), Some(1), None]);
        let mut sticky = Sticky::new(7, 100);
        let mut seen = [0; 3];
        let mut last = None;
        for _ in 0..50 {
            let first = sticky.choose(&topic, 60);
            assert_eq!(sticky.choose(&topic, 60), first);
            assert_ne!(Some(first), last, "a full batch moves on");
            last = Some(first);
            seen[usize::try_from(first).unwrap()] += 1;
        }
        assert_eq!(seen, [25, 25, 0], "without a leader no record comes");
    }

    #[test]
    fn a_topic_without_leaders_still_gets_a_partition() {
        let mut sticky = Sticky::new(7, 100);
        assert!(sticky.choose(&topic(&[None, None]), 1) < 2);
    }
}

//! What a node has done, in numbers: its shards', its links' and its clients' together.

use highwater_engine::{PartitionCounters, ShardCounters, ShardGauges};
use highwater_log::{self as log, storage};
use highwater_net::peer::PeerCounters;

use crate::mailbox::ThreadReport;
use crate::start::Common;

/// What a node has done since it was started, summed over its shards; what is called `max` is
/// the largest of any. Given by [`Node::counters`](crate::Node::counters).
///
/// Everything is counted by the node that does it: what three replicas store counts on each of
/// them, what a leader sends counts there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounters {
    /// Shards, each of which has a thread.
    pub shards: u64,
    /// Turns that they have taken.
    pub turns: u64,

    /// Produces admitted: what clients sent for one partition, not refused and no duplicate.
    pub produces: u64,
    /// Batches in them.
    pub produced_batches: u64,
    /// Records in those, as their headers say.
    pub produced_records: u64,
    /// Their bytes, as they lie on the disk.
    pub produced_bytes: u64,
    /// Fetches of one partition that were given batches.
    pub fetches: u64,
    /// Offsets that those batches span: their records, and in compacted topics the gaps.
    pub fetched_records: u64,
    /// Their bytes, as they lie on the disk.
    pub fetched_bytes: u64,

    /// Replicas that take part.
    pub replicas: u64,
    /// Those of them that lead.
    pub leaders: u64,
    /// Elections begun by replicas here.
    pub elections: u64,
    /// Leaderships begun by replicas here.
    pub leaderships: u64,
    /// Appends with entries sent to followers, one per group, follower and batch of entries; a
    /// frame carries those of several groups.
    pub appends_sent: u64,
    /// Entries in them, counted for each follower. By `appends_sent`: the mean.
    pub append_entries_sent: u64,
    /// The most entries that one append carried.
    pub entries_per_append_max: u64,
    /// Appends with entries that are on their way to followers now, over all groups.
    pub appends_in_flight: u64,
    /// The most that one group had on their way to one follower at once, not yet known to be
    /// synced there.
    pub appends_in_flight_max: u64,

    /// Synced writes of log files.
    pub log_writes: u64,
    /// Bytes in them, padding and rewritten blocks included.
    pub log_written_bytes: u64,
    /// Entries in them. By `log_writes`: the mean per synced write.
    pub log_written_entries: u64,
    /// The most entries that one synced write held.
    pub entries_per_write_max: u64,
    /// The most writes of log files that one shard had in flight at once.
    pub writes_in_flight_max: u64,
    /// Writes of the hard-state journal.
    pub journal_writes: u64,
    /// Reads of entries that were answered from memory.
    pub cache_hits: u64,
    /// Reads of entries that had to go to a file.
    pub cache_misses: u64,
    /// Bytes of entries served from memory.
    pub cache_bytes: u64,
    /// Bytes of entries served from mappings of sealed files.
    pub mapped_bytes: u64,
    /// Bytes of entries served by direct reads.
    pub direct_bytes: u64,
    /// Log files begun.
    pub files_begun: u64,
    /// Log files sealed.
    pub files_sealed: u64,
    /// Log files unlinked.
    pub files_unlinked: u64,

    /// Operations submitted to the storage.
    pub storage_submitted: u64,
    /// Operations of it completed, failed ones among them.
    pub storage_completed: u64,
    /// Operations of it that failed.
    pub storage_failed: u64,
    /// Bytes that it has written.
    pub storage_written_bytes: u64,
    /// Bytes that it has read; what is read from mappings is not among them.
    pub storage_read_bytes: u64,
    /// System calls that handed operations to io_uring; 0 with the portable storage.
    pub ring_submissions: u64,
    /// Completions that came out of io_uring; 0 with the portable storage.
    pub ring_completions: u64,

    /// Sessions with peers that came up.
    pub peer_sessions: u64,
    /// Connections and handshakes of peers that were refused.
    pub peer_refusals: u64,
    /// Frames taken into the outboxes to peers.
    pub peer_frames_sent: u64,
    /// Their bytes.
    pub peer_sent_bytes: u64,
    /// Frames received from peers.
    pub peer_frames_received: u64,
    /// Their bytes.
    pub peer_received_bytes: u64,
    /// Frames to peers that were dropped because an outbox was full.
    pub peer_outbox_full: u64,
    /// Frames of peers that failed a check, dropped whole.
    pub frames_refused: u64,
    /// Sections of frames about groups that are not here, or in a session that is over.
    pub sections_ignored: u64,

    /// Alarms raised: damage found on the disk.
    pub alarms: u64,
    /// Groups of whose entries some are damaged.
    pub quarantined: u64,
    /// Replicas that have contradicted their leader or themselves, and take part no more.
    pub frozen: u64,

    /// Clients' connections that are open.
    pub connections: u64,
    /// Bytes of the memory budget in use.
    pub memory_used_bytes: u64,
    /// Bytes of the memory budget.
    pub memory_limit_bytes: u64,
}

impl NodeCounters {
    /// What all threads have in common; what they count for themselves is still to be added.
    pub(crate) fn of(common: &Common) -> Self {
        let budget = common.pool.budget();
        Self {
            connections: count(common.admission.connections()),
            memory_used_bytes: count(budget.used()),
            memory_limit_bytes: count(budget.limit()),
            ..Self::default()
        }
    }

    /// Adds what a thread has told.
    pub(crate) fn add(&mut self, report: &ThreadReport) {
        self.shards += 1;
        self.add_shard(report.shard.shard);
        self.add_gauges(report.shard.gauges);
        self.add_partitions(report.shard.partitions);
        self.add_log(report.shard.log);
        self.add_storage(report.shard.storage);
        if let Some(peers) = &report.peers {
            self.add_peers(peers);
        }
    }

    fn add_shard(&mut self, shard: ShardCounters) {
        self.turns += shard.turns;
        self.frames_refused += shard.frames_refused;
        self.sections_ignored += shard.sections_ignored;
        // `frames_sent` are counted where they leave, by the links; `alarms` by the log, which
        // knows those of its recovery too.
    }

    fn add_gauges(&mut self, gauges: ShardGauges) {
        self.replicas += gauges.replicas;
        self.leaders += gauges.leaders;
        self.frozen += gauges.frozen;
        self.quarantined += gauges.quarantined;
        self.appends_in_flight += gauges.appends_in_flight;
    }

    fn add_partitions(&mut self, partitions: PartitionCounters) {
        self.produces += partitions.produces;
        self.produced_batches += partitions.produced_batches;
        self.produced_records += partitions.produced_records;
        self.produced_bytes += partitions.produced_bytes;
        self.fetches += partitions.fetches;
        self.fetched_records += partitions.fetched_records;
        self.fetched_bytes += partitions.fetched_bytes;
        self.elections += partitions.elections;
        self.leaderships += partitions.leaderships;
        self.appends_sent += partitions.appends_sent;
        self.append_entries_sent += partitions.append_entries_sent;
        raise(
            &mut self.entries_per_append_max,
            partitions.entries_per_append_max,
        );
        raise(
            &mut self.appends_in_flight_max,
            partitions.appends_in_flight_max,
        );
    }

    fn add_log(&mut self, log: log::Counters) {
        self.log_writes += log.writes;
        self.log_written_bytes += log.written_bytes;
        self.log_written_entries += log.written_entries;
        raise(&mut self.entries_per_write_max, log.entries_per_write_max);
        raise(&mut self.writes_in_flight_max, log.writes_in_flight_max);
        self.journal_writes += log.journal_writes;
        self.cache_hits += log.cache_hits;
        self.cache_misses += log.cache_misses;
        self.cache_bytes += log.cache_bytes;
        self.mapped_bytes += log.mapped_bytes;
        self.direct_bytes += log.direct_bytes;
        self.files_begun += log.files_begun;
        self.files_sealed += log.files_sealed;
        self.files_unlinked += log.files_unlinked;
        self.alarms += log.alarms;
    }

    fn add_storage(&mut self, storage: storage::Counters) {
        self.storage_submitted += storage.submitted;
        self.storage_completed += storage.completed;
        self.storage_failed += storage.failed;
        self.storage_written_bytes += storage.bytes_written;
        self.storage_read_bytes += storage.bytes_read;
        self.ring_submissions += storage.ring_submissions;
        self.ring_completions += storage.ring_completions;
    }

    fn add_peers(&mut self, peers: &PeerCounters) {
        self.peer_sessions += peers.sessions;
        self.peer_refusals += peers.refused.iter().sum::<u64>();
        self.peer_frames_sent += peers.frames_sent;
        self.peer_sent_bytes += peers.bytes_sent;
        self.peer_frames_received += peers.frames_received;
        self.peer_received_bytes += peers.bytes_received;
        self.peer_outbox_full += peers.outbox_full;
    }
}

fn raise(most: &mut u64, to: u64) {
    *most = (*most).max(to);
}

fn count(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits into 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::ShardReport;

    fn report(sent: u64, most: u64) -> ThreadReport {
        let mut shard = ShardReport::default();
        shard.partitions.appends_sent = sent;
        shard.partitions.entries_per_append_max = most;
        shard.log.mapped_bytes = sent;
        shard.log.writes_in_flight_max = most;
        ThreadReport { shard, peers: None }
    }

    #[test]
    fn shards_are_summed_and_of_maxima_the_largest_is_kept() {
        let mut counters = NodeCounters::default();
        for report in [report(3, 5), report(4, 2)] {
            counters.add(&report);
        }
        assert_eq!(counters.shards, 2);
        assert_eq!((counters.appends_sent, counters.mapped_bytes), (7, 7));
        assert_eq!(counters.entries_per_append_max, 5);
        assert_eq!(counters.writes_in_flight_max, 5);
    }

    #[test]
    fn the_links_are_counted_once() {
        let links = PeerCounters {
            sessions: 2,
            refused: std::array::from_fn(|_| 1),
            ..PeerCounters::default()
        };
        let refusals = count(links.refused.len());
        let mut counters = NodeCounters::default();
        let of_first = ThreadReport {
            peers: Some(links),
            ..report(0, 0)
        };
        for report in [of_first, report(0, 0)] {
            counters.add(&report);
        }
        assert_eq!(counters.peer_sessions, 2);
        assert_eq!(counters.peer_refusals, refusals);
    }
}

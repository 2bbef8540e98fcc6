//! What a node has done, in numbers: its shards', its links' and its clients' together.
//!
//! One table says of each number what it means, what kind it is and what it is called; the
//! struct for those who embed a node and the metrics both come from it.

use highwater_engine::{PartitionCounters, ShardCounters, ShardGauges};
use highwater_log::{self as log, storage};
use highwater_net::peer::PeerCounters;
use tokio::sync::oneshot;

use crate::mailbox::{Closed, Mail, ThreadReport};
use crate::start::Common;

/// A counter's name ends as Prometheus wants it.
macro_rules! metric_name {
    (counter $field:ident) => {
        concat!("highwater_", stringify!($field), "_total")
    };
    (gauge $field:ident) => {
        concat!("highwater_", stringify!($field))
    };
}

macro_rules! node_counters {
    ($($(#[doc = $text:literal])+ $kind:ident $field:ident;)*) => {
        /// What a node has done since it was started, summed over its shards; what is called
        /// `max` is the largest of any. Given by [`Node::counters`](crate::Node::counters).
        ///
        /// Everything is counted by the node that does it: what three replicas store counts on
        /// each of them, what a leader sends counts there.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct NodeCounters {
            $($(#[doc = $text])+ pub $field: u64,)*
        }

        /// All of them as Prometheus has them, in order. The help is the field's own text.
        pub(crate) const METRICS: &[Metric] = &[
            $(Metric {
                name: metric_name!($kind $field),
                kind: stringify!($kind),
                help: concat!($($text),+),
                value: |counters| counters.$field,
            },)*
        ];
    };
}

/// A number of [`NodeCounters`] as Prometheus has it.
pub(crate) struct Metric {
    /// Its name.
    pub(crate) name: &'static str,
    /// `counter`: it only grows in the life of a node. `gauge`: how it stands, or a maximum.
    pub(crate) kind: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
    /// Which it is.
    pub(crate) value: fn(&NodeCounters) -> u64,
}

node_counters! {
    /// Shards, each of which has a thread.
    gauge shards;
    /// Turns that shards have taken.
    counter turns;

    /// Produces admitted: what clients sent for one partition, not refused and no duplicate.
    counter produces;
    /// Record batches in admitted produces.
    counter produced_batches;
    /// Records in admitted produces, as their batches' headers say.
    counter produced_records;
    /// Bytes of the batches in admitted produces, as they lie on the disk.
    counter produced_bytes;
    /// Fetches of one partition that were given batches.
    counter fetches;
    /// Offsets that fetched batches span: their records, and in compacted topics the gaps.
    counter fetched_records;
    /// Bytes of fetched batches, as they lie on the disk.
    counter fetched_bytes;

    /// Replicas that take part.
    gauge replicas;
    /// Replicas that lead.
    gauge leaders;
    /// Elections begun by replicas here.
    counter elections;
    /// Leaderships begun by replicas here.
    counter leaderships;
    /// Appends with entries sent to followers, one per group, follower and batch of entries; a
    /// frame carries those of several groups.
    counter appends_sent;
    /// Entries in appends, counted for each follower. Divided by the appends sent: the mean.
    counter append_entries_sent;
    /// The most entries that one append carried.
    gauge entries_per_append_max;
    /// Appends with entries that are on their way to followers now, over all groups.
    gauge appends_in_flight;
    /// The most appends that one group had on their way to one follower at once, not yet known
    /// to be synced there.
    gauge appends_in_flight_max;

    /// Synced writes of log files.
    counter log_writes;
    /// Bytes in synced writes of log files, padding and rewritten blocks included.
    counter log_written_bytes;
    /// Entries in synced writes of log files. Divided by the writes: the mean per write.
    counter log_written_entries;
    /// The most entries that one synced write held.
    gauge entries_per_write_max;
    /// The most writes of log files that one shard had in flight at once.
    gauge writes_in_flight_max;
    /// Writes of the hard-state journal.
    counter journal_writes;
    /// Reads of entries that were answered from memory.
    counter cache_hits;
    /// Reads of entries that had to go to a file.
    counter cache_misses;
    /// Bytes of entries served from memory.
    counter cache_bytes;
    /// Bytes of entries served from mappings of sealed files.
    counter mapped_bytes;
    /// Bytes of entries served by direct reads.
    counter direct_bytes;
    /// Log files begun.
    counter files_begun;
    /// How often a group had something to write and no log file to write it to yet.
    counter file_waits;
    /// For how long, in microseconds, all groups together.
    counter file_wait_micros;
    /// Bytes of log files that were zeroed ahead, while the files before them were written.
    counter zeroed_bytes;
    /// Log files sealed.
    counter files_sealed;
    /// Log files that were recycled: a new one was made of an old one.
    counter files_recycled;
    /// Log files unlinked.
    counter files_unlinked;
    /// Repairs of damaged log files that were begun.
    counter repairs_begun;
    /// Repairs that were given up, to be tried again.
    counter repairs_given_up;
    /// Damaged log files that were replaced by a repaired copy.
    counter repaired_files;
    /// Of those, files that were gone whole.
    counter made_files;
    /// Entries that peers have supplied for that.
    counter repaired_entries;
    /// Entries given to peers whose logs have holes.
    counter entries_supplied;
    /// Bytes of sealed files that the scrubber has read.
    counter scrubbed_bytes;
    /// Sealed files that the scrubber has looked at.
    counter scrubbed_files;
    /// Passes of the scrubber over all sealed files, counted for each shard.
    counter scrub_passes;
    /// How often the scrubber has found something bad.
    counter scrub_findings;

    /// Operations submitted to the storage.
    counter storage_submitted;
    /// Operations that the storage has completed, failed ones among them.
    counter storage_completed;
    /// Operations of the storage that failed.
    counter storage_failed;
    /// Bytes that the storage has written.
    counter storage_written_bytes;
    /// Bytes that the storage has read; what is read from mappings is not among them.
    counter storage_read_bytes;
    /// System calls that handed operations to io_uring; 0 with the portable storage.
    counter ring_submissions;
    /// Completions that came out of io_uring; 0 with the portable storage.
    counter ring_completions;

    /// Sessions with peers that came up.
    counter peer_sessions;
    /// Connections and handshakes of peers that were refused.
    counter peer_refusals;
    /// Frames taken into the outboxes to peers.
    counter peer_frames_sent;
    /// Bytes of frames sent to peers.
    counter peer_sent_bytes;
    /// Frames received from peers.
    counter peer_frames_received;
    /// Bytes of frames received from peers.
    counter peer_received_bytes;
    /// Frames to peers that were dropped because an outbox was full.
    counter peer_outbox_full;
    /// Frames of peers that failed a check, dropped whole.
    counter frames_refused;
    /// Sections of frames about groups that are not here, or in a session that is over.
    counter sections_ignored;

    /// Rows of beats sent to peers; none for groups that are idle.
    counter beat_rows_sent;
    /// Rounds of beats of which peers have said that their rows are as in an earlier one.
    counter beat_repeats_heard;
    /// Of those, rounds whose earlier one was not kept.
    counter beat_repeats_unknown;
    /// Rows in repeated rounds against which something was to be said.
    counter beat_repeat_exceptions;
    /// Rounds of beats that were kept and not heard of for an election timeout.
    counter beat_repeats_missed;

    /// Alarms raised: damage found on the disk.
    counter alarms;
    /// Groups of whose entries some are damaged.
    gauge quarantined;
    /// Replicas that have contradicted their leader or themselves, and take part no more.
    gauge frozen;

    /// 1 while retention by time is suspended, because the wall clock is not where the monotonic
    /// clock says that it should be, else 0.
    gauge retention_suspended;
    /// 1 if clients on other machines are accepted although they are neither encrypted nor
    /// authenticated (`insecure_no_auth`), else 0.
    gauge insecure_no_auth;
    /// Clients' connections that are open.
    gauge connections;
    /// Bytes of the memory budget in use.
    gauge memory_used_bytes;
    /// Bytes of the memory budget.
    gauge memory_limit_bytes;
}

impl NodeCounters {
    /// Asks every shard of a node.
    ///
    /// # Errors
    /// If one of them has ended.
    pub(crate) async fn gather(common: &Common) -> Result<Self, Closed> {
        let mut counters = Self::of(common);
        for mailbox in &common.mailboxes {
            let (reply, answer) = oneshot::channel();
            mailbox.deliver(Mail::Count { reply }).await?;
            let report = answer.await.map_err(|_| Closed)?;
            counters.add(&report);
        }
        Ok(counters)
    }

    /// What all threads have in common; what they count for themselves is still to be added.
    fn of(common: &Common) -> Self {
        let budget = common.pool.budget();
        Self {
            insecure_no_auth: common.config.insecure_no_auth.into(),
            connections: count(common.admission.connections()),
            memory_used_bytes: count(budget.used()),
            memory_limit_bytes: count(budget.limit()),
            ..Self::default()
        }
    }

    /// Adds what a thread has told.
    fn add(&mut self, report: &ThreadReport) {
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
        self.beat_rows_sent += shard.beat_rows_sent;
        self.beat_repeats_heard += shard.repeats_heard;
        self.beat_repeats_unknown += shard.repeats_unknown;
        self.beat_repeat_exceptions += shard.repeat_exceptions;
        self.beat_repeats_missed += shard.repeats_missed;
        // `frames_sent` are counted where they leave, by the links; `alarms` by the log, which
        // knows those of its recovery too.
    }

    fn add_gauges(&mut self, gauges: ShardGauges) {
        self.replicas += gauges.replicas;
        self.leaders += gauges.leaders;
        self.frozen += gauges.frozen;
        self.quarantined += gauges.quarantined;
        self.appends_in_flight += gauges.appends_in_flight;
        raise(&mut self.retention_suspended, gauges.retention_suspended);
    }

    fn add_partitions(&mut self, partitions: PartitionCounters) {
        self.produces += partitions.produces;
        self.produced_batches += partitions.produced_batches;
        self.produced_records += partitions.produced_records;
        self.produced_bytes += partitions.produced_bytes;
        self.fetches += partitions.fetches;
        self.fetched_records += partitions.fetched_records;
        self.fetched_bytes += partitions.fetched_bytes;
        self.entries_supplied += partitions.entries_supplied;
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
        self.file_waits += log.file_waits;
        self.file_wait_micros += u64::try_from(log.file_wait.as_micros()).unwrap_or(u64::MAX);
        self.zeroed_bytes += log.zeroed_bytes;
        self.files_sealed += log.files_sealed;
        self.files_recycled += log.files_recycled;
        self.files_unlinked += log.files_unlinked;
        self.repairs_begun += log.repairs_begun;
        self.repairs_given_up += log.repairs_given_up;
        self.repaired_files += log.repaired_files;
        self.made_files += log.made_files;
        self.repaired_entries += log.repaired_entries;
        self.scrubbed_bytes += log.scrubbed_bytes;
        self.scrubbed_files += log.scrubbed_files;
        self.scrub_passes += log.scrub_passes;
        self.scrub_findings += log.scrub_findings;
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

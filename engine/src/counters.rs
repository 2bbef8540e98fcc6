//! What a shard has seen and done, as plain numbers, for `status` and metrics.

use highwater_log as log;

/// What a shard itself has seen since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Turns taken.
    pub turns: u64,
    /// Peer frames that could not be believed.
    pub frames_refused: u64,
    /// Sections about groups that are not here, or in a session that is over.
    pub sections_ignored: u64,
    /// Frames sent to peers.
    pub frames_sent: u64,
    /// Rows of beats sent to peers; none for groups that are idle.
    pub beat_rows_sent: u64,
    /// Rounds of beats of which peers have said that their rows are as in an earlier one.
    pub repeats_heard: u64,
    /// Those of them whose earlier one was not kept.
    pub repeats_unknown: u64,
    /// Rows in them against which something was to be said.
    pub repeat_exceptions: u64,
    /// Rounds that were kept and not heard of for an election timeout.
    pub repeats_missed: u64,
    /// Alarms that the log has raised.
    pub alarms: u64,
}

/// What the partitions of a shard have done since it was opened, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionCounters {
    /// Elections begun: a replica became candidate.
    pub elections: u64,
    /// Leaderships begun.
    pub leaderships: u64,
    /// Appends with entries sent to followers: consensus's, one per group, follower and batch
    /// of entries, of which a frame carries several groups'.
    pub appends_sent: u64,
    /// Entries in them, counted for each follower.
    pub append_entries_sent: u64,
    /// The most entries that one of them carried.
    pub entries_per_append_max: u64,
    /// The most appends that one group had on their way to one follower at once, not yet known
    /// to be synced there.
    pub appends_in_flight_max: u64,
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
    /// Entries given to peers whose logs have holes.
    pub entries_supplied: u64,
}

/// How a shard stands at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardGauges {
    /// Replicas here that take part.
    pub replicas: u64,
    /// Those of them that lead.
    pub leaders: u64,
    /// Those that have contradicted their leader or themselves, and take part no more.
    pub frozen: u64,
    /// Groups of whose entries some are damaged.
    pub quarantined: u64,
    /// Appends with entries on their way to followers, over all groups that lead here.
    pub appends_in_flight: u64,
    /// Bytes of inputs that wait for a turn.
    pub input_bytes: u64,
    /// 1 while retention by time is suspended: the wall clock is not where the monotonic clock
    /// says that it should be.
    pub retention_suspended: u64,
}

/// Everything that a shard can tell of itself in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardReport {
    /// The shard's own counts.
    pub shard: ShardCounters,
    /// Its partitions'.
    pub partitions: PartitionCounters,
    /// How it stands.
    pub gauges: ShardGauges,
    /// Its log's.
    pub log: log::Counters,
    /// Its disk's.
    pub storage: log::storage::Counters,
}

impl PartitionCounters {
    /// Counts an append of `entries` to a follower that now has `in_flight` on their way.
    pub(crate) fn append_sent(&mut self, entries: usize, in_flight: usize) {
        let (entries, in_flight) = (count(entries), count(in_flight));
        self.appends_sent += 1;
        self.append_entries_sent += entries;
        self.entries_per_append_max = self.entries_per_append_max.max(entries);
        self.appends_in_flight_max = self.appends_in_flight_max.max(in_flight);
    }
}

/// A size of this process's memory as counters have it.
pub(crate) fn count(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits into 64 bits")
}

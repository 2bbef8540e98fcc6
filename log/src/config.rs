//! Settings, and the limits that are no settings.

use std::time::Duration;

/// The largest body of a frame, in bytes: a base with the largest state and its epochs.
pub const BODY_BYTES_MAX: usize = 80 << 20;

/// The largest state in a footer or a base, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// What one write gathers at most, in bytes; a larger entry goes alone.
pub const WRITE_BYTES_MAX: usize = 4 << 20;

/// The smallest file, in bytes. A group's first one has this size.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The largest file, in bytes (unless a single entry is larger).
pub const SEGMENT_BYTES_MAX: u64 = 1 << 34;

/// The size of a half of a new journal, in bytes, that fits most nodes: 65,000 groups.
pub const JOURNAL_HALF_BYTES: u64 = 4 << 20;

/// How many times as large as the last that it filled a group's next file is at most.
pub const SEGMENT_GROWTH: u64 = 8;

/// Settings of a shard's store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which shard: its journal's number.
    pub shard: u32,
    /// What the salts of files are drawn from. Real randomness in production: a salt that a
    /// client can guess would let it plant frames inside its records.
    pub seed: u64,
    /// Bytes of synced entries kept in memory, over all groups.
    pub tail_cache_bytes: usize,
    /// Whether sealed files are read from mappings; otherwise by direct reads.
    pub map_sealed: bool,
    /// Mappings and open sealed files kept at most, each.
    pub open_files_max: usize,
    /// How soon the synced position of a group that fell idle is pushed to the journal.
    pub idle_push: Duration,
    /// Bytes of files that nobody needs any more, kept to become new ones; 0: none are. Not kept
    /// while the file system is nearly full.
    pub recycle_bytes: u64,
    /// What is kept free on the file system for metadata and sealing, in bytes.
    pub reserve_bytes: u64,
    /// How much of sealed files the scrubber reads in a second, in bytes; 0: there is none.
    pub scrub_bytes_per_second: u64,
    /// How long a pass over all sealed files takes at least: the next begins no sooner.
    pub scrub_interval: Duration,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            shard: 0,
            seed: 0,
            tail_cache_bytes: 64 << 20,
            map_sealed: false,
            open_files_max: 4_096,
            idle_push: Duration::from_millis(50),
            recycle_bytes: 0,
            reserve_bytes: 64 << 20,
            scrub_bytes_per_second: 0,
            scrub_interval: Duration::from_secs(24 * 3600),
        }
    }
}

/// Settings of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupConfig {
    /// How large its files become, in bytes.
    pub segment_bytes: u64,
    /// After how long a file that holds anything is closed.
    pub segment_age: Duration,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            segment_bytes: 1 << 30,
            segment_age: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// How long a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The size above which the oldest files go, in bytes.
    pub bytes: Option<u64>,
    /// The age of a file's largest timestamp above which it goes, in milliseconds.
    pub age_ms: Option<u64>,
}

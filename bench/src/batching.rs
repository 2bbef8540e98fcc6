//! How producers batch, alike in all loads.

use std::time::Duration;

use highwater_client::{Client, Compression, Producer};

/// Records of one partition and producer that wait for their acknowledgement, at most; the
/// producer's memory is the limit that is meant.
pub(crate) const WAITING_MAX: usize = 1 << 20;

/// How a producer batches.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// How large a batch grows, in bytes.
    pub batch_bytes: usize,
    /// How long a batch waits for more.
    pub linger: Duration,
    /// What a producer holds until it is acknowledged, in bytes: how much is on the way.
    pub memory_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
}

impl Batching {
    pub(crate) fn producer(self, client: &Client) -> Producer {
        client
            .producer()
            .batch_bytes(self.batch_bytes)
            .linger(self.linger)
            .memory_bytes(self.memory_bytes)
            .compression(self.compression)
            .build()
    }
}
